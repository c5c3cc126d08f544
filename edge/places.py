"""Where the run of a command lies, and with which settings it goes on.

Owns: how a run that nobody named follows from what it is about, which run there is continues, what of texts and
settings identifies it.
Does not know: torch, sessions, how a run is opened (`resume`), arguments, printing.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import journal
from . import settings as settings_module
from .documents.text import Text
from .errors import JournalError, SettingsError, TemploraError
from .journal import Journal, RunInfo
from .settings import Settings

MOST_RUNS = 10_000  # of one name
_NUMBER = re.compile(r"-[1-9]\d{0,8}")


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
        JournalError: there is no such run to continue, or the folder that was named holds other files.
        StorageError: there is no home folder.
    """
    if folder is not None:
        there = (folder / "manifest.json").exists()
        if fresh:
            return Place(folder, aside=there)
        if not (there or resume):
            Journal.require_free(folder)
        return Place(folder, Journal.peek(folder) if there or resume else None)
    word = "".join(c if c.isalnum() or c in "._" else "_" for c in name)[:40] or "text"
    stem = f"{command}-{word}-{journal.fingerprint(key)[:8]}"
    first = journal.default_root() / stem
    prints = fingerprints(texts or {})
    there_is: RunInfo | None = None  # the last one that was begun; one that another process holds is refused
    lost: RunInfo | None = None
    notes: list[str] = []
    numbers = taken(first)
    folder = numbered(first, max(numbers, default=0) + 1)
    for number in numbers:
        try:
            info = Journal.peek(numbered(first, number))
        except TemploraError as error:  # it cannot continue, and is not in the way of a new run
            notes.append(f"{error.got}; it is left as it is")
            continue
        assert info.manifest is not None
        if all(info.manifest.fingerprints.get(text) == value for text, value in prints.items()):
            if info.state == "damaged":
                lost = info
            else:
                there_is = info
    if fresh:
        return Place(folder, first=first)
    if lost is not None:
        notes.append(f"{lost.folder} is damaged ({lost.reason}); --run {lost.folder} --force continues what is left")
    if there_is is None and resume:
        got = notes[-1] if notes else f"no run {stem} in {first.parent}"
        raise JournalError(got, "one that began so", "leave --resume out, or name it by --run")
    return Place(there_is.folder if there_is else folder, there_is, first, notes=tuple(notes))


def taken(first: Path) -> list[int]:
    """The numbers of the runs of a name; there are gaps where some were removed.

    Raises:
        StorageError: their folder cannot be read.
    """
    with journal.guarded(f"read {first.parent}"):
        endings = [path.name.removeprefix(first.name) for path in first.parent.glob(f"{glob.escape(first.name)}*")]
    numbers = [1 if not ending else int(ending[1:]) for ending in endings if not ending or _NUMBER.fullmatch(ending)]
    return sorted(number for number in numbers if (numbered(first, number) / "manifest.json").exists())


def numbered(first: Path, number: int) -> Path:
    """The `number`-th folder of a name: NAME, NAME-2, NAME-3, ..."""
    return first if number == 1 else first.with_name(f"{first.name}-{number}")


def fingerprints(texts: Mapping[str, str | Text]) -> dict[str, str]:
    """What is kept of texts."""
    return {name: text.sha256 if isinstance(text, Text) else journal.fingerprint(text) for name, text in texts.items()}


def journal_settings(settings: Settings) -> dict[str, Any]:
    """The settings that decide what comes out: without budget and ways of computing."""
    return {name: value for name, value in settings.to_dict().items() if name not in ("budget", "compute")}
