"""One run's folder, open for writing.

Owns: the order in which things become durable, the run's lock, what may be done when.
Does not know: what records and snapshots mean; when to take a snapshot (`policy.py`).
Units: bytes; `seq` counts records from 1.
"""

from __future__ import annotations

import dataclasses
import datetime
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from .. import replacing
from ..errors import JournalError
from . import catalogue, disk, lines, lock, manifest, snapshots
from .catalogue import RunInfo
from .lock import Lock
from .manifest import Manifest
from .recordfile import RecordFile
from .snapshots import Snapshot

_UNFINISHED_RUN = {lines.NAME, snapshots.FOLDER, catalogue.FILES, lock.NAME}  # what `create` may leave when cut short


class Journal:
    """A run folder that this process holds: append records, take snapshots, finish.

    Made by `create` or `resume`; a context manager. An error leaves it as it was before the call, open and usable.

    Attributes:
        root: the run folder, without symbolic links.
        manifest: what the run is.
        summary: what `finish` was given, or None.
        notes: what was repaired or passed over, one line each, for the user to see.
    """

    def __init__(self, held: Lock, what: Manifest, *, force: bool, keep: int) -> None:
        self.root = held.root
        self.manifest = what
        self.summary: dict[str, Any] | None = None
        self.notes: list[str] = []
        self._lock = held
        self._keep = max(1, keep)
        self._snapshots = self.root / snapshots.FOLDER
        with disk.guarded(f"open {self.root}"):
            for folder in (self._snapshots, self.root / catalogue.FILES):
                disk.inside(self.root, folder).mkdir(exist_ok=True)
                disk.remove_unfinished(folder)
            disk.remove_unfinished(self.root)
            replacing.sync_folder(self.root)
            snapshots.remove_orphans(self._snapshots)
        self._records = RecordFile(self.root, force=force, notes=self.notes)
        try:
            self.summary = catalogue.load_summary(self.root, self.count, self._records.crc(self.count), self.notes)
        except BaseException:
            self._records.close()
            raise

    # --- open and close ---

    @classmethod
    def create(cls, folder: Path | str, what: Manifest, *, keep: int = 2) -> Journal:
        """A new run in a folder that is empty or not there yet; `keep` snapshots are kept.

        Raises:
            JournalError: the folder holds a run or other files, or another process is at it.
            StorageError: it cannot be written.
        """
        root = Path(os.path.realpath(disk.usable_path(folder)))
        what = dataclasses.replace(what, created=what.created or _now())
        manifest.check(what)
        with disk.guarded(f"create {root}"):
            _refuse_foreign(root)
            _make_folders(root)
        held = Lock(root)
        try:
            with disk.guarded(f"create {root}"):
                _refuse_foreign(root)  # again, now that nobody else can be at it
                disk.atomic_write(disk.inside(root, root / lines.NAME), b"")
            journal = cls(held, what, force=False, keep=keep)
            try:
                manifest.save(root, what)
            except BaseException:
                journal.close()
                raise
        except BaseException:
            held.release()
            raise
        return journal

    @classmethod
    def resume(
        cls, folder: Path | str, what: Manifest, *, force: bool = False, keep: int = 2, defaults: Collection[str] = ()
    ) -> Journal:
        """The run in `folder`, to continue; what a crash left half-done is repaired and told in `notes`.

        A finished run that differs only in versions, or in what `defaults` names, stays what it is: `notes` tell it.
        With `force`, differences of fingerprints and versions are recorded in the manifest and gone over, and damaged
        records are cut off with all that follow (they are kept in `records.damaged`). A finished run takes no other
        text.

        Raises:
            JournalError: there is no run, another process holds it, it is damaged, or it differs from `what`.
            StorageError: it cannot be read or repaired.
        """
        root = Path(os.path.realpath(disk.usable_path(folder)))
        manifest.check(what)
        manifest.load(root)  # before a lock file is made in a folder that is not ours
        held = Lock(root)
        try:
            kept = manifest.load(root)
            found = kept.differences(what)
            begins = (manifest.VERSION, *(f"{name} " for name in defaults))
            only_defaults = all(difference.startswith(begins) for difference in found)
            if found and not force and only_defaults and (root / catalogue.SUMMARY).exists():
                done = cls(held, kept, force=False, keep=keep)
                if done.summary is not None:
                    done.notes.append("it was made otherwise: " + ", ".join(found))  # and stays as it is
                    return done
                done.close()
            if found and (not force or kept.command != what.command):
                remedy = (
                    "use --force to continue all the same, --fresh to start over"
                    if kept.command == what.command
                    else "name another folder"
                )
                raise JournalError(f"{root} is of another run: " + ", ".join(found), "the same run", remedy)
            if (root / catalogue.SUMMARY).exists() and any(difference.startswith("text ") for difference in found):
                raise JournalError(
                    f"{root} is finished, of another text", "the same text", "name another folder, or use --fresh"
                )
            if found:
                what = dataclasses.replace(what, created=kept.created, forced=(*kept.forced, *found))
                manifest.check(what)
            journal = cls(held, what if found else kept, force=force, keep=keep)
            journal.notes += [f"forced over a difference: {difference}" for difference in found]
            try:
                if found:
                    manifest.save(root, what)
            except BaseException:
                journal.close()
                raise
        except BaseException:
            held.release()
            raise
        return journal

    @staticmethod
    def require_free(folder: Path | str) -> None:
        """Refuses a folder that `create` would refuse for what is in it, without making anything.

        Raises:
            JournalError: the folder holds a run or other files.
            StorageError: it cannot be read.
        """
        root = Path(os.path.realpath(disk.usable_path(folder)))
        with disk.guarded(f"read {root}"):
            _refuse_foreign(root)

    @staticmethod
    def peek(folder: Path | str) -> RunInfo:
        """What there is to know about a run, without holding or changing it.

        Raises:
            JournalError: there is no run, or its manifest is damaged.
            StorageError: it cannot be read.
        """
        return catalogue.peek(Path(os.path.realpath(disk.usable_path(folder))))

    def close(self) -> None:
        """Lets go of the run; does nothing the second time.

        Raises:
            StorageError: records that were appended without sync cannot be made durable.
        """
        try:
            self._records.close()
        finally:
            self._lock.release()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    # --- records ---

    @property
    def count(self) -> int:
        """How many records there are: the `seq` of the last one."""
        return self._records.count

    def append(self, record: Mapping[str, Any], *, sync: bool = True) -> int:
        """Adds a record and returns its number. With `sync` it is durable on return; else after `sync` or `snapshot`.

        Raises:
            JournalError: the record is not made of JSON values; the journal is closed, or its run finished or removed.
            StorageError: it cannot be written; nothing of it stays, and the call may be tried again.
        """
        self._in_progress()
        return self._records.append(record, sync)

    def sync(self) -> None:
        """Makes all appended records durable.

        Raises:
            JournalError: the journal is closed, or its run removed.
            StorageError: they cannot be written.
        """
        self._records.sync()

    def records(self) -> list[dict[str, Any]]:
        """All records, read back from the disk (tuples have become lists).

        Raises:
            JournalError: the file was changed from outside.
            StorageError: it cannot be read.
        """
        return self._records.read()

    # --- snapshots, summary, other files ---

    def snapshot(self, seq: int, data: bytes | Callable[[Path], object], state: Mapping[str, Any]) -> Snapshot:
        """Saves the state after record `seq` (0: before the first), then removes snapshots that are one too many.

        Args:
            seq: the last record whose effect the data holds.
            data: the bytes, or what writes them to the (empty, existing) file at the path it is given.
            state: JSON values to keep with it.

        Raises:
            JournalError: no such record; the state is not JSON; the journal is closed, or its run finished or removed.
            StorageError: it cannot be written; older snapshots are still there.
        """
        self._in_progress()
        if not 0 <= seq <= self.count:
            raise JournalError(f"a snapshot after record {seq}", f"0 to {self.count}", "append the record first")
        self.sync()  # a snapshot never stands for a record that a crash could take away
        folder = disk.inside(self.root, self._snapshots)
        saved = snapshots.save(folder, seq, self._records.crc(seq), data, state)
        try:
            snapshots.rotate(folder, self._keep)
        except OSError as error:
            self.notes.append(disk.storage_error(error, f"remove old snapshots of {self.root}").line())
        return saved

    def latest_snapshot(self) -> Snapshot | None:
        """The newest snapshot that verifies; damaged ones are passed over and told in `notes`.

        Raises:
            StorageError: the folder cannot be read.
        """
        return snapshots.newest(self._snapshots, self._records.crcs, self.notes)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Marks the run as finished; records and snapshots can be read but not added to any more.

        Raises:
            JournalError: the summary is not JSON; the journal is closed, or its run finished or removed.
            StorageError: it cannot be written; the run is not finished.
        """
        self._in_progress()
        self.sync()
        kept: dict[str, Any] = disk.parse(disk.canonical(summary))
        catalogue.save_summary(self.root, kept, self.count, self._records.crc(self.count))
        self.summary = kept

    def reopen(self) -> None:
        """Takes a finished run for one in progress again: more records may be added.

        Raises:
            JournalError: the journal is closed, or its run removed.
            StorageError: the summary cannot be removed.
        """
        self._records.alive()
        with disk.guarded(f"write {self.root}"):
            disk.inside(self.root, self.root / catalogue.SUMMARY).unlink(missing_ok=True)
            replacing.sync_folder(self.root)
        self.summary = None

    def write_file(self, name: str, data: bytes) -> Path:
        """Writes another file into the run folder, as `files/NAME`, atomically; also after `finish`.

        Raises:
            JournalError: the name is not a plain file name, or its path leads out of the run; the journal is closed.
            StorageError: it cannot be written.
        """
        self._records.alive()
        if name in ("", ".", "..") or "/" in name or name.startswith(replacing.TEMPORARY):
            raise JournalError(f"the file name {name!r}", "a plain name without '/'", "name the file alone")
        path = disk.inside(self.root, disk.usable_path(self.root / catalogue.FILES / name))
        disk.atomic_write(path, data)
        return path

    def describe(self, **extra: Any) -> None:
        """Puts values into the manifest that identify nothing, in place of those of these names; also after `finish`.

        Raises:
            JournalError: they are no JSON values; the journal is closed.
            StorageError: the manifest cannot be written.
        """
        self._records.alive()
        what = dataclasses.replace(self.manifest, extra={**self.manifest.extra, **extra})
        if disk.canonical(what.extra) != disk.canonical(self.manifest.extra):
            manifest.save(self.root, what)
            self.manifest = what

    def _in_progress(self) -> None:
        self._records.alive()
        if self.summary is not None:
            raise JournalError(f"{self.root} is finished", "a run in progress", "start a new run")


def _now() -> str:
    """The wall clock, for people to read; nothing depends on it."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _make_folders(root: Path) -> None:
    """Makes `root` and its parents, each name durable."""
    missing = [folder for folder in (root, *root.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        replacing.sync_folder(folder.parent)


def _refuse_foreign(root: Path) -> None:
    """A folder that holds a run, or anything that `create` does not leave when it is cut short, is refused."""
    if not os.path.lexists(root):
        return
    names = {entry.name for entry in os.scandir(root)}
    if manifest.NAME in names:
        raise JournalError(f"{root} holds a run", "an empty or new folder", "use --fresh, or name another folder")
    foreign = sorted(name for name in names - _UNFINISHED_RUN if not name.startswith(replacing.TEMPORARY))
    records = root / lines.NAME
    if foreign or (os.path.lexists(records) and records.lstat().st_size):
        example = foreign[0] if foreign else lines.NAME
        raise JournalError(f"{root} holds other files ({example})", "an empty or new folder", "name another folder")
