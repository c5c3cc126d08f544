"""A run: a session and the journal that it resumes from exactly where it stopped.

Owns: what identifies a run, when a session is snapshotted and how it is put back.
Does not know: where runs lie (`places`), how a loop proceeds, arguments, printing.
Units: tokens, seconds, bytes.

A snapshot holds all that the loops resume from (`Session.tensors`). What was done after the last snapshot is done
again, with the same numbers on the same device and versions; its records are there already and are not written twice.
"""

from __future__ import annotations

import contextlib
import json
import math
import platform
import time
from collections.abc import Collection, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from . import __version__, journal, records
from .documents.text import Text
from .errors import JournalError, StorageError, no_numbers
from .journal import Journal, Manifest, SnapshotPolicy
from .model.base import Base
from .places import MOST_RUNS, Place, fingerprints, journal_settings, numbered, taken
from .records import Record
from .session import Runtime, Session
from .weights import packed, tensorfile

LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes", "pypinyin")
_SUM = "adapter.sha256"  # of a run's files: the fingerprint of the adapter after the last record
_ABOUT = "adapter.json"  # of a run's files: rank, scale and sums of the adapter that is kept beside it
TIMINGS = (
    "seconds",
    "score_seconds",
    "decode_seconds",
    "peak_bytes",
    "of",
)  # fields of a record that differ when it is made again


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

    def knows(self, session: Session) -> bool:
        """Whether the adapter of the end is known: the run is finished, it was noted (`all_done`), or there is none."""
        noted = self.journal is not None and (self.journal.root / "files" / _SUM).is_file()
        return noted or self.finished or self.journal is None or session.adapter is None

    def describe(self, **extra: Any) -> None:
        """See `Journal.describe`; does nothing where no run is kept."""
        if self.journal is not None:
            self.journal.describe(**extra)

    def write_file(self, name: str, data: bytes) -> None:
        """See `Journal.write_file`; does nothing where no run is kept, or the file is that already."""
        if self.journal is None:
            return
        path = self.journal.root / "files" / name
        if not path.is_file() or path.read_bytes() != data:
            self.journal.write_file(name, data)

    @property
    def has_kept(self) -> bool:
        """Whether it has kept an adapter at its end, which may have been removed since."""
        return self.journal is not None and (self.journal.root / "files" / _ABOUT).is_file()

    @property
    def adapter(self) -> dict[str, Any] | None:
        """What `keep_adapter` has said of the adapter that the run holds; None where it holds none."""
        files = self.journal.root / "files" if self.journal else None
        if files is None or not all((files / name).is_file() for name in (_ABOUT, journal.ADAPTER)):
            return None
        about: dict[str, Any] = json.loads((files / _ABOUT).read_bytes())
        return about

    def keep_adapter(self, session: Session) -> None:
        """Keeps the session's adapter as it is now, for another document to begin with; before the run is finished.

        Raises:
            JournalError, StorageError: it cannot be written.
        """
        adapter = session.adapter
        if self.journal is None or adapter is None:
            return
        path = self.journal.root / "files" / journal.ADAPTER
        with journal.atomic_writer(path) as temporary:
            tensorfile.write(temporary, session.adapter_tensors)
        about = {
            "rank": session.settings.adapter.rank,
            "scale": session.settings.adapter.alpha / session.settings.adapter.rank,
            "sha256": journal.file_fingerprint(path),
            "adapter_sha256": adapter.fingerprint(),
        }
        if adapter.strength != 1.0:
            about["strength"] = adapter.strength
        if packed.names(session.base.model):  # peft has names and a layout of its own for a mixture
            about["mixture"] = True
            about["swapped"] = packed.are_swapped(session.base.model)
        self.write_file(_ABOUT, json.dumps(about, sort_keys=True).encode())

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
            The record; the kept one, where it was made before.

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

    def append(self, record: Record) -> None:
        """Keeps a record that no session made, as a correction of the user; a finished run is in progress again.

        Raises:
            JournalError, StorageError: it cannot be written.
        """
        if self.journal is not None:
            self.journal.reopen()
            self.journal.append(record.to_json())
        self.kept.append(record)

    def reopen(self) -> None:
        """Puts a finished run in progress again, and removes the adapter that it kept at its end.

        Raises:
            JournalError, StorageError: it cannot be written.
        """
        if self.journal is not None:
            for name in (_ABOUT, _SUM):
                (self.journal.root / "files" / name).unlink(missing_ok=True)
            self.journal.reopen()

    def all_done(self, session: Session) -> None:
        """The loop has come to its end: what its adapter was is kept, though outputs may have to be written again.

        Raises:
            JournalError, StorageError: it cannot be written.
        """
        if self.journal is not None and session.adapter is not None and self._seq == self.journal.count:
            self.write_file(_SUM, session.adapter.fingerprint().encode())

    def finish(self, summary: Mapping[str, Any]) -> None:
        """The run has come to its end, and its outputs are on the disk: its snapshots are not needed any more.

        The summary gets the fingerprint of the adapter, which is discarded now.

        Raises:
            JournalError, StorageError: see `Journal.finish`.
        """
        if self.journal is None or self.finished:
            return
        kept = self.adapter
        learned = {"adapter_sha256": kept["adapter_sha256"], "adapter": kept} if kept else {}
        noted = self.journal.root / "files" / _SUM
        if not kept and noted.is_file():
            learned = {"adapter_sha256": noted.read_text("ascii")}
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
    words: Mapping[str, Mapping[str, Any]] | None = None,
    defaults: Collection[str] = (),
    force: bool = False,
    fraction: float = 0.02,
    every: int | None = None,
) -> Run:
    """Creates the run, or opens the one that is there.

    Args:
        texts: what it is about, by name: text, prompt, glossary, template, ...; they are kept as fingerprints only.
        total: how far it will go, in the units of the records' `end`.
        words: parts of some texts; they are kept, so that a refusal can name the part that differs.
        defaults: texts that the user did not name; a finished run stays finished where they have changed.
        force: continue over differences.

    Raises:
        JournalError: the folder is taken, held by another process, damaged, or of another run.
        StorageError: it cannot be written.
    """
    if where.folder is None:
        return Run(None)
    kept = journal_settings(runtime.plan.settings)  # no `auto`, and what a small budget made of the rest
    prints = fingerprints(texts)
    what = Manifest(
        command=command,
        fingerprints={**prints, "settings": journal.fingerprint(kept), "base": base_fingerprint(runtime)},
        versions=versions(runtime.base),
        settings=kept,
        extra={
            "model": runtime.base.reference,
            "compute": runtime.plan.settings.to_dict()["compute"],
            "asked": journal.fingerprint(journal_settings(runtime.settings)),
            "asked_settings": journal_settings(runtime.settings),
            "words": dict(words or {}),
            **({} if total is None else {"total": total}),
        },
    )
    opened, notes = _open(where, where.folder, what, defaults, force)
    opened.notes[:0] = [*where.notes, *notes]
    try:
        return Run(opened, fraction=fraction, every=every)
    except BaseException:
        opened.close()
        raise


def _open(
    where: Place, folder: Path, what: Manifest, defaults: Collection[str], force: bool
) -> tuple[Journal, list[str]]:
    """The run that is there, or a new one; and what is worth knowing, one line each."""
    notes: list[str] = []
    if where.aside:
        notes.append(f"the run that was in {folder} is now {journal.set_aside(folder)}")
    if where.there is not None:
        try:
            return Journal.resume(folder, what, force=force, defaults=defaults), notes
        except JournalError as error:
            held = Journal.peek(folder).state == "running"  # by another process, which does the same
            if where.first is None or where.there.state != "finished" or held:
                raise
            notes.append(f"{error.got}; a new run begins")  # what it has is not what is asked for now
    if where.first is None:
        return Journal.create(folder, what), notes
    last = max(taken(where.first), default=0)
    for number in range(last + 1, min(last + 100, MOST_RUNS)):
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


def base_fingerprint(runtime: Runtime) -> str:
    """The base's own, with its repair's where adapters start from that."""
    base = runtime.base.fingerprint()
    repair = runtime.base.repair_fingerprint()
    used = repair and runtime.settings.adapter.start != "fresh"
    return journal.fingerprint(f"{base} {repair}") if used else base


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
