"""Zip archives from anyone: checked before anything in them is believed, rewritten entry by entry.

Owns: limits on size, ratio, count and names; which errors of a damaged archive mean what.
Does not know: what the entries hold.
Units: bytes, unpacked unless it says packed.
"""

from __future__ import annotations

import io
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO

from ..errors import InputError
from ..values.amounts import format_bytes

_UTF8 = 0x800  # the flag of a name in UTF-8
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, struct.error, ValueError, OverflowError, IndexError)


@dataclass(frozen=True)
class Limits:
    """What an archive may be.

    Attributes:
        unpacked: bytes of all entries together.
        entries: their number.
        ratio: unpacked / packed of one entry larger than `ratio_from` bytes.
        ratio_from: smaller entries may be packed as well as they can.
    """

    unpacked: int = 512_000_000
    entries: int = 20_000
    ratio: int = 200
    ratio_from: int = 1_000_000


class _Entry(zipfile.ZipInfo):
    """An entry to write under the very bytes that its name had."""

    raw: tuple[bytes, int] | None = None

    def _encodeFilenameFlags(self) -> tuple[bytes, int]:
        return self.raw or super()._encodeFilenameFlags()  # type: ignore[misc]


def _name_of(info: zipfile.ZipInfo) -> str:
    """An entry's name; many tools write UTF-8 without the flag that says so."""
    if info.flag_bits & _UTF8 or info.filename.isascii():
        return info.filename
    try:
        return info.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return info.filename


class Archive:
    """A checked zip archive, held packed in memory; entries are unpacked one at a time, never to disk."""

    def __init__(self, data: bytes, name: str, limits: Limits | None = None) -> None:
        """Checks the whole directory of the archive.

        Raises:
            InputError: it is damaged, encrypted, too large, or has entries with unsafe names or links.
        """
        self.name = name
        self.limits = limits or Limits()
        self._data = data
        self._sound: set[str] = set()  # entries whose content was compared with its checksum
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(data))
            self._entries = self._zip.infolist()
        except (*_DAMAGE, NotImplementedError) as error:
            raise self._damaged(str(error)) from error
        self._check_sizes()
        names: set[str] = set()
        for info in self._entries:
            self._check_entry(info)
            name = _name_of(info)
            if name in names:
                raise self._refused(f"holds two entries named {name!r}")
            names.add(name)
        self.names = frozenset(names)
        self._by_name = {_name_of(info): info for info in self._entries}

    def read(self, entry: str) -> bytes:
        """One entry, unpacked.

        Raises:
            InputError: there is no such entry, or it is damaged.
        """
        if entry not in self.names:
            raise self._damaged(f"{entry!r} is missing")
        try:
            return self._zip.read(self._by_name[entry])
        except (*_DAMAGE, OSError, RuntimeError, NotImplementedError, KeyError) as error:
            raise self._damaged(f"{entry!r}: {error}") from error

    def size(self, entry: str) -> int:
        """Bytes of an entry as the directory says; 0 where there is none."""
        return self._by_name[entry].file_size if entry in self.names else 0

    def write(self, stream: BinaryIO, changed: Mapping[str, bytes]) -> None:
        """The archive with some entries replaced: same order, names, dates and packing of all entries.

        What is not replaced is copied as it is packed: neither unpacked, but once to see that it is
        sound, nor packed again.

        Raises:
            InputError: an entry is damaged.
            OSError: the stream cannot be written.
        """
        with zipfile.ZipFile(stream, "w") as out:
            out.comment = self._zip.comment
            for info in self._entries:
                name = _name_of(info)
                fresh = _Entry(info.filename, info.date_time)
                if not info.flag_bits & _UTF8:
                    fresh.raw = info.filename.encode("cp437"), 0
                fresh.compress_type = info.compress_type
                fresh.external_attr = info.external_attr
                fresh.create_system = info.create_system
                fresh.comment = info.comment
                if name in changed:
                    out.writestr(fresh, changed[name])
                elif info.is_dir():
                    out.writestr(fresh, b"")
                else:
                    if name not in self._sound:
                        self.read(name)
                        self._sound.add(name)
                    self._copy(out, info, fresh)

    def _copy(self, out: zipfile.ZipFile, info: zipfile.ZipInfo, fresh: zipfile.ZipInfo) -> None:
        """Adds an entry as it is packed: its header, its bytes, its line in the directory."""
        name, extra = struct.unpack("<HH", self._data[info.header_offset + 26 : info.header_offset + 30])
        begin = info.header_offset + 30 + name + extra
        fresh.CRC = info.CRC
        fresh.file_size = info.file_size
        fresh.compress_size = info.compress_size
        assert out.fp is not None
        fresh.header_offset = out.fp.tell()
        out.fp.write(fresh.FileHeader(zip64=False))
        out.fp.write(memoryview(self._data)[begin : begin + info.compress_size])
        out.filelist.append(fresh)
        out.NameToInfo[fresh.filename] = fresh
        out.start_dir = out.fp.tell()

    def _check_sizes(self) -> None:
        limits = self.limits
        if len(self._entries) > limits.entries:
            raise self._refused(f"holds {len(self._entries)} entries", f"at most {limits.entries}")
        total = sum(info.file_size for info in self._entries)
        if total > limits.unpacked:
            raise self._refused(f"unpacks to {format_bytes(total)}", f"at most {format_bytes(limits.unpacked)}")
        for info in self._entries:
            ratio = info.file_size / max(info.compress_size, 1)
            if info.file_size > limits.ratio_from and ratio > limits.ratio:
                raise self._refused(
                    f"packs {info.filename!r} {ratio:.0f}-fold, as zip bombs do", f"at most {limits.ratio}-fold"
                )

    def _check_entry(self, info: zipfile.ZipInfo) -> None:
        name = info.filename
        unsafe = name.startswith("/") or "\\" in name or "\0" in name or re.match(r"[A-Za-z]:", name)
        if unsafe or not name or ".." in name.split("/") or "\\" in info.orig_filename or "\0" in info.orig_filename:
            raise self._refused(f"holds the unsafe path {info.orig_filename!r}")
        if stat.S_ISLNK(info.external_attr >> 16):
            raise self._refused(f"holds the symbolic link {name!r}")
        if info.flag_bits & 0x1:
            raise InputError(
                f"{self.name} is encrypted with a password ({name!r})", "an open archive", "save it without a password"
            )
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise self._refused(f"packs {name!r} by method {info.compress_type}", "stored or deflated entries")

    def _refused(self, what: str, expected: str = "") -> InputError:
        return InputError(f"{self.name} {what}", expected, "do not trust this file; get it from its source again")

    def _damaged(self, detail: str) -> InputError:
        return InputError(f"{self.name} is damaged ({detail})", "a sound archive", "get it from its source again")
