"""The record file, open for appending.

Owns: `records.jsonl` as this process has it open: which of its bytes are good, and how bad ones are cut off.
Does not know: the line format (`lines.py`), locks, snapshots.
Units: bytes; `seq` counts records from 1.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import replacing
from ..errors import JournalError
from . import disk, lines

DAMAGED = "records.damaged"


class RecordFile:
    """Opens the file and repairs what a crash left; only for who holds the run's lock.

    Args:
        root: the run folder, without symbolic links.
        force: also cut off records after a damaged one (they are kept in `records.damaged`), or start over
            where the file is gone.
        notes: gets a line for everything that was repaired.

    Raises:
        JournalError: the file is gone or damaged, or leads out of the run.
        StorageError: it cannot be read, opened or repaired.
    """

    def __init__(self, root: Path, *, force: bool, notes: list[str]) -> None:
        self.path = disk.inside(root, root / lines.NAME)
        self.crcs = array("I")  # of each record
        self._size = 0  # bytes of good lines; what is beyond them is cut off before the next write
        self._torn = False
        self._unsynced = False
        with disk.guarded(f"open {self.path}"):
            there = self.path.exists()
            if not there:
                if not force:
                    raise JournalError(f"{self.path} is gone", "the run's records", "restore it or start a new run")
                notes.append(f"{self.path} is gone; the run starts over")
            damage = self._read() if there else None
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            self._fd: int | None = os.open(self.path, flags, 0o666)
            try:
                if not there:
                    replacing.sync_folder(root)
                if damage is not None:
                    self._repair(damage, force, notes)
            except BaseException:
                os.close(self._fd)
                raise

    @property
    def count(self) -> int:
        """How many records there are."""
        return len(self.crcs)

    def crc(self, seq: int) -> int:
        """The chained checksum after `seq` records."""
        return lines.crc_at(self.crcs, seq)

    def alive(self) -> int:
        """The file descriptor.

        Raises:
            JournalError: the file is closed, or was removed by somebody.
        """
        if self._fd is None:
            raise JournalError(f"{self.path} is closed", "an open journal", "resume the run")
        if os.fstat(self._fd).st_nlink == 0:
            raise JournalError(f"{self.path} was removed", "a run that stays while it is worked on", "start a new run")
        return self._fd

    def append(self, record: Mapping[str, Any], sync: bool) -> int:
        """Adds a record and returns its number; see `Journal.append`.

        Raises:
            JournalError: the record is not made of JSON values; the file is closed or removed.
            StorageError: it cannot be written; nothing of it stays.
        """
        fd = self.alive()
        seq = self.count + 1
        line, crc = lines.encode(seq, record, self.crc(self.count))
        try:
            with disk.guarded(f"write record {seq} to {self.path}"):
                self._cut()
                self._torn = True
                disk.write_all(fd, line)
                if sync:
                    os.fsync(fd)
        except BaseException:
            with contextlib.suppress(OSError):  # where even this fails, the next append or open cuts it off
                self._cut()
            raise
        self.crcs.append(crc)
        self._size += len(line)
        self._torn = False
        self._unsynced = not sync
        return seq

    def sync(self) -> None:
        """Makes all appended records durable.

        Raises:
            JournalError: the file is closed or removed.
            StorageError: they cannot be written.
        """
        fd = self.alive()
        if self._unsynced:
            with disk.guarded(f"write {self.path}"):
                os.fsync(fd)
            self._unsynced = False

    def read(self) -> list[dict[str, Any]]:
        """All records, read back from the disk.

        Raises:
            JournalError: the file was changed from outside.
            StorageError: it cannot be read.
        """
        found: list[dict[str, Any]] = []
        for line in lines.scan(self.path):
            if isinstance(line, lines.Damage) or line.seq > self.count or line.crc != self.crc(line.seq):
                break
            found.append(line.record)
        if len(found) != self.count:
            raise JournalError(f"{self.path} was changed", "records only this process adds to", "resume the run again")
        return found

    def close(self) -> None:
        """Closes the file; does nothing the second time.

        Raises:
            StorageError: records that were appended without sync cannot be made durable.
        """
        fd = self._fd
        self._fd = None
        if fd is not None:
            try:
                if self._unsynced:
                    with disk.guarded(f"write {self.path}"):
                        os.fsync(fd)
            finally:
                os.close(fd)

    def _cut(self) -> None:
        """Cuts off what a failed write left behind the good lines."""
        if self._torn and self._fd is not None:
            os.ftruncate(self._fd, self._size)
            self._torn = False

    def _read(self) -> lines.Damage | None:
        for line in lines.scan(self.path):
            if isinstance(line, lines.Damage):
                return line
            self.crcs.append(line.crc)
            self._size = line.end
        return None

    def _repair(self, damage: lines.Damage, force: bool, notes: list[str]) -> None:
        where = f"{self.path} line {damage.number}"
        if not damage.last:
            if not force:
                remedy = f"restore the file from a backup, or use --force to continue after record {damage.number - 1}"
                raise JournalError(f"{where}: {damage.why}", "an undamaged record", remedy)
            copy = disk.inside(self.path.parent, self.path.parent / DAMAGED)
            with disk.atomic_writer(copy) as temporary, self.path.open("rb") as source, temporary.open("wb") as target:
                source.seek(damage.offset)
                shutil.copyfileobj(source, target)
        self._torn = True
        self._cut()
        os.fsync(self.alive())
        notes.append(f"{where}: {damage.why}; {damage.lost} bytes from there on were cut off")
