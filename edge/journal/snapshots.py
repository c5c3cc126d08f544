"""Snapshots: opaque data that stands for the state after some record, and which of them can be trusted.

Owns: `snapshots/`: its names, the description beside each data file, verification, how many are kept.
Does not know: what the data holds; the records, beyond number and chained checksum of the one it follows.
Units: sizes in bytes, `seconds` is what saving took; `seq` is a number of records.

NNNNNN counts the snapshots of a run. The data is written first, its description last: without the description
the data does not count. A snapshot that belongs to other records than the journal's does not match their checksum.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import JournalError, StorageError
from . import disk, lines

FOLDER = "snapshots"
DATA = ".safetensors"
DESCRIPTION = ".json"
NAMES = re.compile(r"(\d{6,12})(\.safetensors|\.json)")


@dataclass(frozen=True)
class Snapshot:
    """One snapshot.

    Attributes:
        number: which of the run's snapshots it is, from 1.
        seq: the record it follows; 0 for before the first.
        path: its data file.
        size: of the data, in bytes.
        sha256: of the data, in hex.
        state: the caller's JSON values: random state, position, ...
        crc: the chained checksum of record `seq`.
        seconds: what saving it took; 0 for one that was loaded.
    """

    number: int
    seq: int
    path: Path
    size: int
    sha256: str
    state: dict[str, Any]
    crc: int
    seconds: float = 0.0

    def verify(self) -> None:
        """Compares the data with its size and sha256.

        Raises:
            JournalError: they do not match, or the data is gone.
            StorageError: the data cannot be read.
        """
        try:
            size = os.stat(self.path, follow_symlinks=False).st_size
        except OSError as error:
            raise JournalError(f"{self.path} is gone", f"{self.size} bytes", "resume from an older one") from error
        if size != self.size:
            raise JournalError(f"{self.path} has {size} bytes", f"{self.size}", "resume from an older one")
        if disk.file_fingerprint(self.path) != self.sha256:
            raise JournalError(f"{self.path} does not match its sha256", "unchanged data", "resume from an older one")

    def read(self) -> bytes:
        """The data, verified.

        Raises:
            JournalError: it is not what was saved.
            StorageError: it cannot be read.
        """
        with disk.guarded(f"read {self.path}"):
            data = self.path.read_bytes()
        if disk.fingerprint(data) != self.sha256:
            raise JournalError(f"{self.path} does not match its sha256", "unchanged data", "resume from an older one")
        return data


def numbers(folder: Path) -> list[int]:
    """The numbers of all snapshots that have a description, oldest first."""
    return sorted(number for number, suffixes in _files(folder).items() if DESCRIPTION in suffixes)


def save(
    folder: Path, seq: int, crc: int, data: bytes | Callable[[Path], object], state: Mapping[str, Any]
) -> Snapshot:
    """Writes a snapshot, durable on return; where it cannot, nothing of it stays.

    Raises:
        JournalError: the state is not made of JSON values, or the folder leads out of the run.
        StorageError: it cannot be written.
    """
    begin = time.perf_counter()
    disk.canonical(state)  # before the long part
    with disk.guarded(f"read {folder}"):
        number = max(_files(folder), default=0) + 1
    path = disk.inside(folder.parent, folder / f"{number:06d}{DATA}")
    try:
        with disk.atomic_writer(path) as temporary:
            if callable(data):
                data(temporary)
                digest = disk.file_fingerprint(temporary)
            else:
                disk.fill(temporary, data)
                digest = disk.fingerprint(data)
            size = os.stat(temporary).st_size
        description = {"seq": seq, "crc": crc, "size": size, "sha256": digest, "state": state}
        disk.atomic_write(path.with_suffix(DESCRIPTION), disk.seal(description))
    except BaseException:
        for written in (path.with_suffix(DESCRIPTION), path):
            with contextlib.suppress(OSError):
                os.unlink(written)
        raise
    kept = disk.parse(disk.canonical(state))
    return Snapshot(number, seq, path, size, digest, kept, crc, time.perf_counter() - begin)


def load(folder: Path, number: int) -> Snapshot:
    """The description of a snapshot; the data is not looked at.

    Raises:
        JournalError: the description is damaged or gone.
        StorageError: it cannot be read.
    """
    path = folder / f"{number:06d}{DESCRIPTION}"
    try:
        data = disk.read_sealed(path)
    except FileNotFoundError:
        raise JournalError(f"{path} is gone", "a snapshot's description", "resume from an older one") from None
    data.pop("best", None)  # a field of earlier snapshots
    kinds = {"seq": int, "crc": int, "size": int, "sha256": str, "state": dict}
    if set(data) != set(kinds) or not all(type(data[key]) is kind for key, kind in kinds.items()):
        raise JournalError(f"{path} lacks fields or has wrong ones", ", ".join(kinds), "resume from an older one")
    return Snapshot(number=number, path=path.with_suffix(DATA), **data)


def newest(folder: Path, crcs: Sequence[int], notes: list[str]) -> Snapshot | None:
    """The newest snapshot that verifies; why newer ones were passed over goes to `notes`.

    Args:
        crcs: the records' chained checksums, from record 1.
    """
    with disk.guarded(f"read {folder}"):
        candidates = reversed(numbers(folder))
    for number in candidates:
        try:
            snapshot = load(folder, number)
            if not 0 <= snapshot.seq <= len(crcs) or snapshot.crc != lines.crc_at(crcs, snapshot.seq):
                raise JournalError(f"{snapshot.path} follows a record {snapshot.seq} that is not in the journal")
            snapshot.verify()
        except (JournalError, StorageError) as error:  # a bad sector is damage too
            notes.append(f"snapshot {number} passed over: {error.got}")
        else:
            return snapshot
    return None


def rotate(folder: Path, keep: int) -> None:
    """Removes all but the newest `keep` snapshots.

    Raises:
        OSError: a file cannot be removed.
    """
    for number in numbers(folder)[:-keep]:
        for suffix in (DESCRIPTION, DATA):
            (folder / f"{number:06d}{suffix}").unlink(missing_ok=True)


def remove_orphans(folder: Path) -> None:
    """Removes data without a description, which a crash while saving or removing left.

    Raises:
        OSError: a file cannot be removed.
    """
    for number, suffixes in _files(folder).items():
        if DESCRIPTION not in suffixes:
            (folder / f"{number:06d}{DATA}").unlink(missing_ok=True)


def _files(folder: Path) -> dict[int, set[str]]:
    """Snapshot numbers -> the suffixes that are there."""
    found: dict[int, set[str]] = {}
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            match = NAMES.fullmatch(entry.name)
            if match and entry.name == f"{int(match[1]):06d}{match[2]}" and entry.is_file(follow_symlinks=False):
                found.setdefault(int(match[1]), set()).add(match[2])
    return found
