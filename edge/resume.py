"""A run: a session and the journal that it resumes from exactly where it stopped.

Owns: what identifies a run, where runs lie, when a session is snapshotted and how it is put back.
Does not know: how a loop proceeds, arguments, printing.
Units: tokens, seconds, bytes.

A snapshot holds all that the loops resume from (`Session.tensors`). What was done after the last snapshot is done
again, with the same numbers on the same device and versions; its records are there already and are not written twice.
"""

from __future__ import annotations

import contextlib
import math
import platform
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from . import __version__, journal, records
from . import settings as settings_module
from .documents.text import Text
from .errors import JournalError, SettingsError, StorageError, no_numbers
from .journal import Journal, Manifest, RunInfo, SnapshotPolicy
from .model.base import Base
from .records import Record
from .session import Runtime, Session
from .settings import Settings
from .weights import tensorfile

MOST_RUNS = 10_000  # of one name
LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes")
TIMINGS = (
    "seconds",
    "score_seconds",
    "decode_seconds",
    "peak_bytes",
    "of",
)  # of a record: not the same when done again


@dataclass(frozen=True)
class Place:
    """Where a run lies, or None where none is kept.

    Attributes:
        there: the run to continue; a finished one is read, and its outputs are written again.
        first: the first folder of the run's name, where the user named none: another one is taken where that is.
        aside: whether a run that is in the folder makes room for a new one.
        notes: what is worth knowing of older runs, one line each.
    """

    folder: Path | None
    there: RunInfo | None = None
    first: Path | None = None
    aside: bool = False
    notes: tuple[str, ...] = ()

    def settings(self, settings: Settings) -> Settings:
        """`settings` with what the planner chose when the run began: the same numbers again, whatever is free now.

        Where something else is asked for than was then, only the ways of computing are taken over.

        Raises:
            JournalError: another version of this program has begun it, with settings that there are no more.
        """
        if self.there is None or self.there.manifest is None:
            return settings
        began = self.there.manifest
        same = began.extra.get("asked") == journal.fingerprint(journal_settings(settings))
        chosen = dict(began.settings) if same else {}
        compute = began.extra.get("compute", {})
        try:
            return settings_module.from_dict({**settings.to_dict(), **chosen, "compute": compute})
        except SettingsError as error:
            raise JournalError(
                f"the run in {self.there.folder} was begun by another version of templora ({error.got})",
                "a run whose settings this version has", "finish it with that version, or use --fresh",
            ) from error  # fmt: skip


def place(
    command: str,
    name: str,
    key: Mapping[str, Any],
    texts: Mapping[str, str | Text] | None = None,
    *,
    folder: Path | None = None,
    resume: bool = False,
    fresh: bool = False,
) -> Place:
    """Where the run of `command` over something called `name` lies: the one that is there already, or a new one.

    Args:
        key: what it is about (text, settings, model), to tell runs of the same name apart.
        texts: as for `open_run`; a run with another one of them is not this one.
        folder: the place that the user named; else one below `journal.default_root()` that follows from the rest.
        resume: the run is there; it is an error where it is not.
        fresh: begin anew, whatever is there; that is kept.

    Raises:
        JournalError: there is no such run to continue.
        StorageError: there is no home folder.
    """
    if folder is not None:
        there = (folder / "manifest.json").exists()
        if fresh:
            return Place(folder, aside=there)
        return Place(folder, Journal.peek(folder) if there or resume else None)
    word = "".join(c if c.isalnum() or c in "._" else "_" for c in name)[:40] or "text"
    stem = f"{command}-{word}-{journal.fingerprint(key)[:8]}"
    first = journal.default_root() / stem
    number = 0
    prints = _fingerprints(texts or {})
    found: dict[str, RunInfo] = {}
    notes: list[str] = []
    while ((folder := numbered(first, number := number + 1)) / "manifest.json").exists():
        try:
            info = Journal.peek(folder)
        except JournalError as error:  # it cannot continue, and is not in the way of a new run
            notes.append(f"{error.got}; it is left as it is")
            continue
        assert info.manifest is not None
        if all(info.manifest.fingerprints.get(text) == value for text, value in prints.items()):
            found[info.state] = info
    if fresh:
        return Place(folder, first=first)
    if "damaged" in found:
        lost = found["damaged"]
        notes.append(f"{lost.folder} is damaged ({lost.reason}); --run {lost.folder} --force continues what is left")
    there_is = found.get("resumable") or found.get("finished")
    if there_is is None and resume:
        got = notes[-1] if notes else f"no run {stem} in {first.parent}"
        raise JournalError(got, "one that began so", "leave --resume out, or name it by --run")
    return Place(there_is.folder if there_is else folder, there_is, first, notes=tuple(notes))


def numbered(first: Path, number: int) -> Path:
    """The `number`-th folder of a name: NAME, NAME-2, NAME-3, ..."""
    return first if number == 1 else first.with_name(f"{first.name}-{number}")


class Run:
    """A journal, and the session that it keeps. A context manager; without a journal it keeps nothing.

    Attributes:
        notes: what was repaired or gone over, one line each, for the user to see.
        kept: the records that were there when the run was opened.
    """

    def __init__(self, kept_in: Journal | None, *, fraction: float = 0.02, every: int | None = None) -> None:
        """`fraction` of the run's time that snapshots may take, or one after `every` so many chunks."""
        self.journal = kept_in
        self.notes = kept_in.notes if kept_in else []
        self.kept = [records.from_json(data) for data in kept_in.records()] if kept_in else []
        self._policy = SnapshotPolicy(fraction, every=every)
        self._seq = 0

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self.journal is not None:
            self.journal.close()

    @property
    def folder(self) -> Path | None:
        """The run folder."""
        return self.journal.root if self.journal else None

    @property
    def finished(self) -> bool:
        """Whether it came to its end before, and its outputs were written."""
        return self.journal is not None and self.journal.summary is not None

    def restore(self, session: Session) -> list[Record]:
        """Puts the session where the last good snapshot left it; the records up to there.

        Raises:
            StorageError: the snapshot cannot be read.
        """
        found = self.journal.latest_snapshot() if self.journal else None
        if found is None:
            return []
        session.restore(tensorfile.TensorFile(found.path))
        self._seq = found.seq
        return self.kept[: found.seq]

    def add(self, record: Record, session: Session) -> Record:
        """Keeps what was just done, and snapshots the session where that is due.

        Returns:
            The record; the one that is there already, where it was done before.

        Raises:
            ModelError: its nats are no numbers.
            JournalError: done again, it came out differently.
            StorageError: it cannot be written.
        """
        nats = [getattr(record, name, None) for name in ("base_nll", "adapter_nll", "full_nll", "nll")]
        if not all(math.isfinite(value) for value in nats if value is not None):
            raise no_numbers()
        self._seq += 1
        if self.journal is None:
            return record
        if self._seq <= len(self.kept):
            known = self.kept[self._seq - 1]
            if not same(known, record) and not self.journal.manifest.forced:
                raise JournalError(
                    f"record {self._seq} came out differently when it was done again",
                    "the same numbers (same device, versions and threads)",
                    "use --force to continue all the same",
                )
            record = known
        else:
            self.journal.append(record.to_json())
        if session.at_rest and self._policy.due(float(getattr(record, "seconds", 0.0))):
            self.snapshot(session)
        return record

    def snapshot(self, session: Session) -> None:
        """Snapshots a session that is at rest.

        Raises:
            StorageError: it cannot be written; older snapshots are still there.
        """
        if self.journal is None or not session.at_rest:
            return
        start = time.perf_counter()
        self.journal.snapshot(self._seq, lambda path: tensorfile.write(path, session.tensors), {})
        self._policy.paid(time.perf_counter() - start)

    def finish(self, session: Session, summary: Mapping[str, Any]) -> None:
        """The run has come to its end, and its outputs are on the disk: its snapshots are not needed any more.

        The summary gets the adapter's fingerprint: what is discarded now can still be told from another. It is not
        known where all records were there already, and nothing was left to do but to write the outputs.

        Raises:
            JournalError, StorageError: see `Journal.finish`.
        """
        if self.journal is None or self.finished:
            return
        whole = session.adapter is not None and self._seq == self.journal.count
        learned = {"adapter_sha256": session.adapter.fingerprint()} if whole and session.adapter else {}
        self.journal.finish({**summary, **learned})
        self.journal.close()
        journal.drop_snapshots(self.journal.root)


def open_run(
    where: Place,
    command: str,
    runtime: Runtime,
    texts: Mapping[str, str | Text],
    *,
    total: int | None = None,
    force: bool = False,
    fraction: float = 0.02,
    every: int | None = None,
) -> Run:
    """Creates the run, or opens the one that is there.

    Args:
        texts: what it is about, by name: text, prompt, glossary, template, ...; they are kept as fingerprints only.
        total: how far it will go, in the units of the records' `end`.
        force: continue over differences.

    Raises:
        JournalError: the folder is taken, held by another process, damaged, or of another run.
        StorageError: it cannot be written.
    """
    if where.folder is None:
        return Run(None)
    kept = journal_settings(runtime.plan.settings)  # no `auto`, and what a small budget made of the rest
    prints = _fingerprints(texts)
    what = Manifest(
        command=command,
        fingerprints={**prints, "settings": journal.fingerprint(kept), "base": _base_fingerprint(runtime)},
        versions=versions(runtime.base),
        settings=kept,
        extra={
            "model": runtime.base.reference,
            "compute": runtime.plan.settings.to_dict()["compute"],
            "asked": journal.fingerprint(journal_settings(runtime.settings)),
            **({} if total is None else {"total": total}),
        },
    )
    opened, notes = _open(where, where.folder, what, force)
    opened.notes[:0] = [*where.notes, *notes]
    try:
        return Run(opened, fraction=fraction, every=every)
    except BaseException:
        opened.close()
        raise


def _open(where: Place, folder: Path, what: Manifest, force: bool) -> tuple[Journal, list[str]]:
    """The run that is there, or a new one; and what is worth knowing, one line each."""
    notes: list[str] = []
    if where.aside:
        notes.append(f"the run that was in {folder} is now {journal.set_aside(folder)}")
    if where.there is not None:
        try:
            return Journal.resume(folder, what, force=force), notes
        except JournalError as error:
            if where.first is None or where.there.state != "finished":
                raise
            notes.append(f"{error.got}; a new run begins")  # what it has is not what is asked for now
    if where.first is None:
        return Journal.create(folder, what), notes
    for number in range(1, MOST_RUNS):
        new = numbered(where.first, number)
        if not (new / "manifest.json").exists():
            with contextlib.suppress(JournalError), _named_by_nobody():  # another process may have just taken it
                return Journal.create(new, what), notes
    raise JournalError(f"{where.first} has {MOST_RUNS} runs", "fewer", "remove some: templora runs prune --whole")


@contextlib.contextmanager
def _named_by_nobody() -> Iterator[None]:
    """Where a run folder that follows from the home folder cannot be made, the user learns how to name another."""
    try:
        yield
    except StorageError as error:
        raise StorageError(error.got, error.expected, "name a folder with --run, or keep none with --no-run") from error


def _fingerprints(texts: Mapping[str, str | Text]) -> dict[str, str]:
    return {name: text.sha256 if isinstance(text, Text) else journal.fingerprint(text) for name, text in texts.items()}


def _base_fingerprint(runtime: Runtime) -> str:
    """The base's own, with its repair's where adapters start from that."""
    base = runtime.base.fingerprint()
    repair = runtime.base.repair_fingerprint()
    used = repair and runtime.settings.adapter.start != "fresh"
    return journal.fingerprint(f"{base} {repair}") if used else base


def journal_settings(settings: Settings) -> dict[str, Any]:
    """The settings that decide what comes out: without budget and ways of computing."""
    return {name: value for name, value in settings.to_dict().items() if name not in ("budget", "compute")}


def versions(base: Base) -> dict[str, str]:
    """What must be the same for the same bits."""
    found = {"templora": __version__} | {name: metadata.version(name) for name in LIBRARIES}
    kind = base.device.kind
    capability = torch.backends.cpu.get_cpu_capability()
    chip = torch.cuda.get_device_name() if kind == "cuda" else f"{platform.machine()} {capability}"
    return found | {"device": f"{kind} ({chip}), {base.device.units}, {torch.get_num_threads()} threads"}


def same(one: Record, other: Record) -> bool:
    """Whether both say the same, timings and memory left aside."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: plain(item) for key, item in value.items() if key not in TIMINGS}
        return value

    return journal.fingerprint(plain(one.to_json())) == journal.fingerprint(plain(other.to_json()))
