"""What an earlier volume leaves to the next one: its adapter, and where it was translated its corrections and terms.

Owns: what `--carry` takes from a run or a peft folder, what it refuses, how it is said; what a run leaves for that, and
`--keep-adapter`, which asks for it.
Does not know: how an adapter fits a session (`State.begin_with`), loops.
Units: pairs, terms.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import journal, records
from ..errors import JournalError, ModelError, SettingsError
from ..journal import RunInfo
from ..terminal import say
from . import options

if TYPE_CHECKING:  # what does not translate begins without the rooms that do
    from ..places import Place
    from ..resume import Run
    from ..session import Runtime, Session
    from ..settings import Settings
    from ..translation import loop
    from ..translation.prompts import Pair
    from ..weights.adapterfolder import Kept

JOB = "job.json"  # of a run's files: what its records do not hold


@dataclass(frozen=True)
class Carried:
    """What comes from an earlier volume.

    Attributes:
        where: the run or folder.
        found: the run; None for a folder of peft's.
        sha256: of the adapter's file.
        corrections: the user's translations, its own carried ones first.
        terms: its glossary.
        earlier: the pairs that were accepted there and before it, for the names in them.
        config: of a peft folder, the sum of its other file.
        adapter_alone: nothing but the adapter is taken.
    """

    where: Path
    found: RunInfo | None
    sha256: str
    corrections: tuple[Pair, ...] = ()
    terms: dict[str, str] | None = None
    earlier: tuple[Pair, ...] = ()
    config: str = ""
    adapter_alone: bool = False

    def into(self, job: loop.Job) -> loop.Job:
        """A job that begins with it; what the job says itself goes first."""
        from ..translation import folding, glossary

        own = set(map(folding.folded, job.glossary.terms))
        before = {term: said for term, said in (self.terms or {}).items() if folding.folded(term) not in own}
        terms = {**before, **job.glossary.terms}
        return replace(job, carried=self.corrections, glossary=glossary.Glossary(terms), earlier=self.earlier)

    def text(self) -> str:
        """What of it decides the outcome, for a run's fingerprints."""
        own = [self.sha256, self.config] if self.config else [self.sha256]
        return json.dumps([*own, self.corrections, sorted((self.terms or {}).items()), self.earlier])

    def to_json(self) -> dict[str, Any]:
        """For reports."""
        return {
            "from": str(self.where),
            "adapter_file_sha256": self.sha256,
            "corrections": len(self.corrections),
            "terms": len(self.terms or {}),
        }

    def begin(self, session: Session, runtime: Runtime) -> float:
        """The session begins with its adapter, and it is said.

        Returns:
            How much of it was used where it comes from.

        Raises:
            SettingsError, ModelError: the adapter does not fit; see `State.begin_with`.
        """
        from .. import resume

        kept = adapter_of(self.found) if self.found else _folder(self.where, runtime)
        if kept.base and kept.base != resume.base_fingerprint(runtime):
            raise ModelError(
                f"the adapter of {self.where} was made on another base than {runtime.base.reference}",
                "the same model, byte for byte", "use the model that it was made on",
            )  # fmt: skip
        session.begin_with(kept)
        whole = self.found is not None and not self.adapter_alone
        more = f", {len(self.corrections)} corrections and {len(self.terms or {})} terms" if whole else ""
        say(f"begins with the adapter{more} of {self.where}")
        return kept.strength


def find(name: str, *, adapter_alone: bool = False) -> Carried:
    """What `--carry` names: the run of an earlier volume, or a folder with a peft adapter.

    `adapter_alone`: corrections and terms are of no use.

    Raises:
        JournalError: there is neither, or the run is not one that ended and kept its adapter.
        StorageError: it cannot be read.
    """
    where = journal.find(name)
    if all(os.path.isfile(where / name) for name in ("adapter_config.json", "adapter_model.safetensors")):
        sums = [journal.file_fingerprint(where / name) for name in ("adapter_model.safetensors", "adapter_config.json")]
        return Carried(where, None, sums[0], config=sums[1])
    found = journal.Journal.peek(where)
    about = _about(found)
    if adapter_alone or found.command != "translate":
        return Carried(where, found, about["sha256"], adapter_alone=True)
    from ..translation import settled
    from ..translation.prompts import Pair

    left = _left(found)
    done = settled.of(records.from_json(record) for record in found.records())
    accepted = [Pair(unit.source, unit.text) for unit in done.units.values() if unit.status in ("model", "pieces")]
    earlier = (*left.earlier, *accepted)
    corrections = (*left.corrections, *done.corrections.values())
    return Carried(where, found, about["sha256"], corrections, left.glossary, earlier)


def leave(run: Run, job: loop.Job) -> None:
    """Keeps in a run what its records do not hold: glossary, corrections and earlier pairs that it began with."""
    given = [*job.carried, *job.corrections]
    kept = {"glossary": dict(job.glossary.terms), "corrections": given, "earlier": list(job.earlier)}
    run.write_file(JOB, json.dumps(kept, sort_keys=True).encode())


def with_what_was_left(found: RunInfo, job: loop.Job) -> loop.Job:
    """The job of a run with what `leave` has kept of it."""
    from ..translation import glossary

    left = _left(found)
    terms = glossary.Glossary(left.glossary)
    return replace(job, glossary=terms, corrections=left.corrections, earlier=left.earlier)


def adapter_of(found: RunInfo) -> Kept:
    """The adapter that a finished run has kept.

    Raises:
        JournalError: it has none.
        ModelError: it is damaged.
    """
    from ..weights import adapterfolder

    about = _about(found)
    assert found.manifest is not None
    base = found.manifest.fingerprints.get("base", "")
    path = found.folder / "files" / journal.ADAPTER
    kept = adapterfolder.of_run(path, about["rank"], about["scale"], base, about["sha256"])
    return replace(
        kept,
        strength=about.get("strength", 1.0),
        mixture=about.get("mixture") is True,
        swapped=about.get("swapped") is True,
    )


def export(found: RunInfo, folder: Path) -> None:
    """Writes the adapter of a finished run as a folder that peft reads.

    Raises:
        JournalError: the run has none.
        ModelError: it is damaged.
        StorageError: the folder cannot be written.
    """
    from ..weights import adapterfolder

    assert found.manifest is not None
    adapterfolder.write(folder, adapter_of(found), str(found.manifest.extra.get("model", "")))


def check_learns(carried: Carried | None, settings: Settings) -> None:
    """An adapter can be carried only where there is one.

    Raises:
        SettingsError: the settings leave it out.
    """
    if carried and settings.learn.mode == "none":
        hint = "use --learn off (translate) or learn.lr=1e-12: it is used, and not taught"
        raise SettingsError("--carry with learn.mode=none", "an adapter", hint)


def add(verb: argparse.ArgumentParser) -> None:
    """The options of a verb that reads or writes one text."""
    verb.add_argument(
        "--carry", type=options.named, metavar="RUN",
        help="begin with the adapter of another text's run, or of a peft folder",
    )  # fmt: skip
    verb.add_argument(
        "--keep-adapter", action="store_true",
        help="keep the adapter in the run at its end, for --carry and `templora runs export-adapter`",
    )  # fmt: skip


def asked(args: argparse.Namespace, settings: Settings) -> Carried | None:
    """What these options ask to begin with.

    Raises:
        SettingsError: there is no adapter, or no run to keep it in.
        JournalError, StorageError: see `find`.
    """
    if args.keep_adapter and args.no_run:
        raise SettingsError("--keep-adapter with --no-run", "a run that can keep it", "leave one of them out")
    if args.keep_adapter and settings.learn.mode == "none":
        raise SettingsError("--keep-adapter with learn.mode=none", "an adapter", "leave one of them out")
    carried = find(args.carry, adapter_alone=True) if args.carry else None
    check_learns(carried, settings)
    return carried


def key(text: str, carried: Carried | None) -> str:
    """What a run's default folder is named by: its text's sum, and what it began with."""
    return journal.fingerprint(f"{text}\n{carried.text()}") if carried else text


def check_kept(args: argparse.Namespace, where: Place) -> None:
    """A run that has ended without keeping its adapter cannot keep it any more.

    Raises:
        JournalError: this is one, and it was asked for.
    """
    found = where.there
    if args.keep_adapter and found is not None and found.summary is not None and "adapter" not in found.summary:
        raise JournalError(
            f"the run in {found.folder} is finished, and its adapter was discarded", "a run that keeps it",
            "give --fresh with --keep-adapter",
        )  # fmt: skip


def is_kept(args: argparse.Namespace, run: Run) -> bool:
    """Whether a run whose records are all there needs no session any more to keep its adapter as asked for; says so
    where it was removed since.
    """
    if args.keep_adapter and run.finished and run.adapter is None:
        say(f"note: the adapter of {run.folder} was removed; --fresh learns it anew")
    return not args.keep_adapter or run.finished or run.has_kept


def _about(found: RunInfo) -> dict[str, Any]:
    """Rank, scale and sums of the adapter that a run has kept."""
    if found.summary is None:
        raise JournalError(f"{found.folder} is {found.state}", "a finished run", "let it come to its end first")
    about = found.summary.get("adapter")
    if not isinstance(about, dict):
        raise JournalError(
            f"{found.folder} learned nothing that was kept", "a run with an adapter",
            "carry one that translated with learning on, or one with --keep-adapter",
        )  # fmt: skip
    if not (found.folder / "files" / journal.ADAPTER).is_file():
        raise JournalError(f"the adapter of {found.folder} was removed", "a run that has it", "see templora runs prune")
    return about


class Left(NamedTuple):
    """What a run began with and its records do not hold."""

    corrections: list[Pair]
    earlier: list[Pair]
    glossary: dict[str, str]


def _left(found: RunInfo) -> Left:
    """What `leave` kept; empty for a run of an earlier version."""
    path = found.folder / "files" / JOB
    try:
        left = json.loads(path.read_bytes())
        corrections, earlier = ([_pair(pair) for pair in left.get(name, [])] for name in ("corrections", "earlier"))
        return Left(corrections, earlier, dict(_pair(term) for term in left.get("glossary", {}).items()))
    except FileNotFoundError:
        return Left([], [], {})
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise JournalError(f"{path} cannot be read", "what the run began with", "give its command once more") from error


def _pair(value: Any) -> Pair:
    """Two texts; whatever else the file holds is damage."""
    from ..translation.prompts import Pair

    source, target = value
    if not (isinstance(source, str) and isinstance(target, str)):
        raise TypeError(value)
    return Pair(source, target)


def _folder(where: Path, runtime: Runtime) -> Kept:
    from ..weights import adapterfolder, packed

    return adapterfolder.read(where, swapped=packed.are_swapped(runtime.base.model))
