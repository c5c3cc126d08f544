"""Runs seen from outside: what there is, how far each one is, and what may be removed.

Owns: the summary file, the reading of a run without holding it, the default place of runs, pruning.
Does not know: how runs continue; what a record means, beyond the keys `tokens`, `seconds` and `end`.
Units: bytes, tokens, seconds.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .. import replacing
from ..errors import JournalError, StorageError, TemploraError
from . import disk, lines, lock, manifest, recordfile, snapshots
from .lock import Lock
from .manifest import Manifest

SUMMARY = "summary.json"
FILES = "files"
ADAPTER = "adapter.safetensors"  # in it: what a run's adapter was at its end
LONGEST_NAME = 255  # bytes of a file's name, as most file systems have it
State = Literal["finished", "running", "resumable", "damaged"]


@dataclass(frozen=True)
class RunInfo:
    """A run at one moment.

    Attributes:
        folder: where it is.
        state: finished, running (a process holds it), resumable, or damaged.
        reason: for damaged, what is wrong; for the others, what is worth knowing; may be empty.
        manifest: what it is; None where that cannot be read.
        summary: what it ended with; None where it did not.
        count: good records.
        tokens: sum over the records that have `tokens`.
        seconds: sum over the records that have `seconds`.
        position: `end` of the last record that has one.
        snapshots: how many there are (not verified).
        bytes: what it takes on the disk.
        holder: id of the process that holds it: None for nobody, 0 where it is not known.
    """

    folder: Path
    state: State
    reason: str = ""
    manifest: Manifest | None = None
    summary: dict[str, Any] | None = None
    count: int = 0
    tokens: int = 0
    seconds: float = 0.0
    position: int | None = None
    snapshots: int = 0
    bytes: int = 0
    holder: int | None = None

    @property
    def command(self) -> str:
        """score, write or translate; empty where it cannot be read."""
        return self.manifest.command if self.manifest else ""

    @property
    def total(self) -> int | None:
        """How far the run will go, in units of `position`, where its manifest says so."""
        value = self.manifest.extra.get("total") if self.manifest else None
        return value if isinstance(value, int) else None

    @property
    def tokens_per_second(self) -> float:
        """How fast; 0 where nothing was measured."""
        return self.tokens / self.seconds if self.seconds > 0 else 0.0

    def records(self) -> Iterator[dict[str, Any]]:
        """The good records, one at a time.

        Raises:
            StorageError: they cannot be read.
        """
        for line in lines.scan(self.folder / lines.NAME):
            if isinstance(line, lines.Line):
                yield line.record


@dataclass(frozen=True)
class Pruned:
    """What was removed: the whole run, or its snapshots; and how many bytes that were."""

    folder: Path
    what: Literal["run", "snapshots"]
    bytes: int


# --- the summary ---


def save_summary(root: Path, summary: Mapping[str, Any], count: int, crc: int) -> None:
    """Writes the summary of a run with `count` records of chained checksum `crc`.

    Raises:
        JournalError: it is not made of JSON values.
        StorageError: it cannot be written.
    """
    path = disk.inside(root, root / SUMMARY)
    disk.atomic_write(path, disk.seal({"summary": summary, "count": count, "crc": crc}, indent=2))


def load_summary(root: Path, count: int, crc: int, notes: list[str]) -> dict[str, Any] | None:
    """The summary, or None where the run is not finished; a summary that cannot count is told in `notes`.

    Raises:
        StorageError: it cannot be read.
    """
    try:
        data = disk.read_sealed(root / SUMMARY)
    except FileNotFoundError:
        return None
    except JournalError as error:
        notes.append(f"{error.got}; the run counts as unfinished")
        return None
    summary = data.get("summary")
    if not isinstance(summary, dict) or (data.get("count"), data.get("crc")) != (count, crc):
        notes.append(f"{root / SUMMARY} is of other records; the run counts as unfinished")
        return None
    return summary


# --- looking ---


def default_root() -> Path:
    """Where runs are kept when nothing else is said: $XDG_STATE_HOME/templora/runs, or ~/.local/state/...

    Raises:
        StorageError: there is no home folder.
    """
    state = os.environ.get("XDG_STATE_HOME", "")
    if os.path.isabs(state):  # the XDG specification has relative ones ignored
        return Path(state) / "templora" / "runs"
    try:
        return Path.home() / ".local" / "state" / "templora" / "runs"
    except RuntimeError as error:
        raise StorageError("there is no home folder", "HOME or XDG_STATE_HOME", "set one, or use --run") from error


def peek(folder: Path) -> RunInfo:
    """What there is to know about a run, without holding or changing it.

    Raises:
        JournalError: there is no run, or its manifest is damaged.
        StorageError: it cannot be read.
    """
    what = manifest.load(folder)
    holder = lock.holder(folder)
    count = 0
    crc = 0
    tokens = 0
    seconds = 0.0
    position: int | None = None
    state: State = "resumable" if holder is None else "running"
    reason = ""
    try:
        for line in lines.scan(folder / lines.NAME):
            if isinstance(line, lines.Damage):
                if not line.last:
                    state = "damaged"
                    reason = f"record {line.number}: {line.why}"
                elif holder is None:  # a running process may just be writing it
                    reason = f"the last record is torn and will be cut off ({line.lost} bytes)"
                break
            count = line.seq
            crc = line.crc
            tokens += _whole(line.record.get("tokens")) or 0
            seconds += _duration(line.record.get("seconds"))
            position = _whole(line.record.get("end"), position)
    except StorageError as error:
        state = "damaged"
        reason = error.got
    notes: list[str] = []
    summary = load_summary(folder, count, crc, notes)
    reason = reason or ", ".join(notes)
    if summary is not None and state == "resumable":
        state = "finished"
    with disk.guarded(f"read {folder}"):
        here = len(snapshots.numbers(folder / snapshots.FOLDER))
        size = sum(size for _, size in _regular_files(folder))
    return RunInfo(folder, state, reason, what, summary, count, tokens, seconds, position, here, size, holder)


def find(name: Path | str) -> Path:
    """The folder that a user names a run by: a path, or its name below `default_root`; `peek` says what is there.

    Raises:
        JournalError: it holds a character that no path can hold, or is too long for one.
        StorageError: there is no home folder.
    """
    path = disk.usable_path(name)
    if any(len(os.fsencode(part)) > LONGEST_NAME for part in path.parts):
        raise JournalError(
            f"{name} is too long for a file", f"at most {LONGEST_NAME} bytes", "name a run, or its folder"
        )
    if os.path.isfile(path / manifest.NAME) or len(path.parts) != 1:
        return Path(os.path.realpath(path))
    return Path(os.path.realpath(path if os.path.isdir(path) else default_root() / path))


def list_runs(root: Path | str) -> list[RunInfo]:
    """The runs directly in `root`, by name; folders without a manifest and symbolic links are no runs.

    Raises:
        StorageError: `root` cannot be read.
    """
    root = Path(os.path.realpath(disk.usable_path(root)))
    found: list[RunInfo] = []
    with disk.guarded(f"read {root}"):
        for folder in folders(root):
            if (folder / manifest.NAME).is_file():
                try:
                    found.append(peek(folder))
                except TemploraError as error:
                    found.append(RunInfo(folder, "damaged", error.got))
    return found


# --- removing ---


def prune(
    root: Path | str,
    *,
    names: Collection[str] | None = None,
    whole: bool = False,
    unfinished: bool = False,
    dry_run: bool = False,
) -> list[Pruned]:
    """Removes the snapshots of finished runs in `root`, and the adapters that they kept.

    Only what the journal wrote is removed, only in folders whose manifest is in order, and never a run that a
    process holds; other files stay, and so does the folder that they are in. Symbolic links are not followed.

    Args:
        names: only the runs in the folders of these names.
        whole: remove the runs themselves.
        unfinished: also of runs that did not finish (without snapshots, they replay all their records).
        dry_run: tell what would be removed, and remove nothing.

    Raises:
        JournalError: a named run is not in `root`.
        StorageError: something cannot be read or removed.
    """
    root = Path(os.path.realpath(disk.usable_path(root)))
    runs = [run for run in list_runs(root) if run.manifest is not None]
    unknown = sorted(set(names or ()) - {run.folder.name for run in runs})
    if unknown:
        raise JournalError(f"there is no run '{unknown[0]}' in {root}", "the name of a run", "see templora runs")
    done: list[Pruned] = []
    for run in runs:
        named = names is None or run.folder.name in names
        if named and run.holder is None and (run.summary is not None or unfinished):
            with disk.guarded(f"prune {run.folder}"):
                removed = _prune(run.folder, whole, dry_run)
            done += [Pruned(run.folder, "run" if whole else "snapshots", removed)] if removed else []
    return done


def set_aside(folder: Path | str) -> Path:
    """Renames a run's folder to the first free of NAME-before, NAME-before-2, ..., and returns that.

    Raises:
        JournalError: a process holds it.
        StorageError: it cannot be renamed.
    """
    root = Path(os.path.realpath(disk.usable_path(folder)))
    held = Lock(root)
    try:
        number = 1
        new = root.with_name(f"{root.name}-before")
        while os.path.lexists(new):
            number += 1
            new = root.with_name(f"{root.name}-before-{number}")
        with disk.guarded(f"rename {root}"):
            root.rename(new)
            replacing.sync_folder(root.parent)
    finally:
        held.release()
    return new


def drop_snapshots(folder: Path) -> int:
    """Removes the snapshots of the run in `folder`, which is finished; the bytes that were freed.

    Raises:
        JournalError: a process holds it.
        StorageError: something cannot be removed.
    """
    with disk.guarded(f"prune {folder}"):
        return _prune(folder, whole=False, dry_run=False, adapter=False)


def _prune(folder: Path, whole: bool, dry_run: bool, adapter: bool = True) -> int:
    """Removes what `prune` says of one run, its `adapter` too; the manifest goes late: a removal can be repeated."""
    if dry_run:
        return sum(size for path, size in _regular_files(folder) if _ours(folder, path, whole, adapter))
    held = Lock(folder)
    try:
        files = [(path, size) for path, size in _regular_files(folder) if _ours(folder, path, whole, adapter)]
        order = [SUMMARY, manifest.NAME, lock.NAME]
        for path, _ in sorted(files, key=lambda file: order.index(file[0].name) if file[0].name in order else -1):
            path.unlink()
        if whole:
            for place in (folder / snapshots.FOLDER, folder / FILES, folder):
                if place.is_dir() and not place.is_symlink() and not os.listdir(place):
                    place.rmdir()
    finally:
        held.release()
    return sum(size for _, size in files)


def _ours(folder: Path, path: Path, whole: bool, adapter: bool) -> bool:
    place = path.relative_to(folder).parent.name
    name = path.name
    if place == snapshots.FOLDER:
        return bool(snapshots.NAMES.fullmatch(name)) or name.startswith(replacing.TEMPORARY)
    if place == FILES and name == ADAPTER:
        return adapter
    top = {manifest.NAME, lines.NAME, recordfile.DAMAGED, SUMMARY, lock.NAME}
    return whole and (place == FILES or name in top or name.startswith(replacing.TEMPORARY))


def _regular_files(folder: Path) -> Iterator[tuple[Path, int]]:
    """The regular files of a run and their sizes; other folders, links and devices in it are left alone."""
    for place in (folder, folder / snapshots.FOLDER, folder / FILES):
        if not place.is_symlink() and place.is_dir():
            for entry in sorted(os.scandir(place), key=lambda entry: entry.name):
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:  # a running process has just replaced it
                    continue
                if stat.S_ISREG(status.st_mode):
                    yield Path(entry.path), status.st_size


def folders(root: Path) -> list[Path]:
    """The folders in `root`, by name; none where it is not there. Symbolic links are none.

    Raises:
        OSError: it cannot be read.
    """
    try:
        entries = list(os.scandir(root))
    except FileNotFoundError:
        return []
    return sorted(Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False))


def _whole(value: object, default: int | None = None) -> int | None:
    return value if type(value) is int and abs(value) < 2**62 else default


def _duration(value: object) -> float:
    return float(value) if type(value) in (int, float) and 0 <= value < 2**62 else 0.0  # type: ignore[operator, arg-type]
