"""The lines of `records.jsonl`: how a record becomes one, and which of them can be trusted.

Owns: the line format {"seq":n,"crc":"xxxxxxxx","record":{...}} and the chain of checksums.
Does not know: locks, folders, what the records mean.
Units: offsets in bytes; `seq` counts from 1.

crc(n) = CRC-32 of "n:" and the record's bytes as they stand in the file, started from crc(n - 1), with crc(0) = 0.
So a line that was changed, moved, removed or taken from another run does not pass.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import JournalError
from . import disk

NAME = "records.jsonl"
_LINE = re.compile(rb'\{"seq":([1-9]\d{0,11}),"crc":"([0-9a-f]{8})","record":(.*)\}\n', re.DOTALL)


@dataclass(frozen=True)
class Line:
    """A good line: its record, its checksum, and the offset at which it ends."""

    seq: int
    crc: int
    record: dict[str, Any]
    end: int


@dataclass(frozen=True)
class Damage:
    """The first bad line: its number and offset, what is wrong, how many bytes are no good, and whether it is the last.

    A bad last line is what a crash in the middle of a write leaves behind; a bad line before others is not.
    """

    number: int
    offset: int
    why: str
    lost: int
    last: bool


def encode(seq: int, record: Mapping[str, Any], previous: int) -> tuple[bytes, int]:
    """The line of record number `seq`, and its checksum; `previous` is the checksum of the line before.

    Raises:
        JournalError: the record is not made of JSON values, or is too long.
    """
    payload = disk.canonical(record).encode("ascii")
    if not payload.startswith(b"{") or len(payload) > disk.MAX_JSON - 64:
        raise JournalError(f"record {seq} has {len(payload)} bytes", f"a mapping of at most {disk.MAX_JSON - 64} bytes")
    crc = _checksum(seq, payload, previous)
    return b'{"seq":%d,"crc":"%08x","record":%s}\n' % (seq, crc, payload), crc


def scan(path: Path) -> Iterator[Line | Damage]:
    """All good lines in order, then a `Damage` where one is not good.

    Raises:
        StorageError: the file cannot be read.
    """
    with disk.guarded(f"read {path}"), os.fdopen(disk.open_regular(path), "rb") as stream:
        crc = 0
        offset = 0
        number = 0
        while text := stream.readline(disk.MAX_JSON):
            number += 1
            line = _decode(text, number, crc, offset)
            if isinstance(line, str):
                yield _damage(stream, text, number, offset, line)
                return
            yield line
            crc = line.crc
            offset = line.end


def _decode(text: bytes, number: int, previous: int, offset: int) -> Line | str:
    """The line, or why it is not good."""
    if not text.endswith(b"\n"):
        return "it is not complete"
    match = _LINE.fullmatch(text)
    if match is None:
        return "it is not a record"
    seq = int(match[1])
    crc = int(match[2], 16)
    payload = match[3]
    if seq != number:
        return f"it has number {seq}"
    if crc != _checksum(seq, payload, previous):
        return "its checksum does not match"
    try:
        record = disk.parse(payload)
    except ValueError:
        return "it is not JSON"
    return Line(seq, crc, record, offset + len(text)) if isinstance(record, dict) else "it is not an object"


def _checksum(seq: int, payload: bytes, previous: int) -> int:
    return zlib.crc32(payload, zlib.crc32(b"%d:" % seq, previous))


def _damage(stream: BinaryIO, text: bytes, number: int, offset: int, why: str) -> Damage:
    while text and not text.endswith(b"\n"):  # a line may be longer than any of ours
        text = stream.readline(1 << 20)
    last = not stream.read(1)
    return Damage(number, offset, why, os.fstat(stream.fileno()).st_size - offset, last)


def crc_at(crcs: Sequence[int], seq: int) -> int:
    """The chained checksum after `seq` records, given that of each record."""
    return crcs[seq - 1] if seq else 0
