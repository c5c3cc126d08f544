"""Drafts: whether one that passed the guards leaves doubts, and which of two is better.

Owns: what counts as a doubt, how two drafts are compared. Does not know: how drafts are made, how many are tried.
Units: nats per token, shares of names.

A doubt is worth a second draft, never a mark: a name of the source is missing, or one of the book is spelled
otherwise; with two candidates also a guard that was near its limit, and a source that is hardly likelier after this
draft than after another text (`meaning`, where somebody judges). Of two drafts that with the higher score is taken, the
first where they are equal.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ..documents import placeholders
from . import guards, spelling
from .guards import Case, Limits
from .names import Memory
from .prompts import Pair, Terms

NEAR = 0.7  # of a guard's limit
GAIN = 1.25  # nats per token below which the judge doubts; see tests/measurements/translation-names.md
NAME = 1.0  # nats per token that all names of a unit weigh
GUARD = 0.25  # nats per token that a guard near its limit weighs


class Judge(Protocol):
    """Whoever tells how much of its source a translation says."""

    def gains(self, pairs: Sequence[Pair]) -> list[float]:
        """Nats per source token that each translation gives, beside another text."""
        ...


@dataclass(frozen=True)
class Checked:
    """A draft that passed the guards, with its doubts (lines for people, their kind first) and its score."""

    text: str
    doubts: tuple[str, ...]
    score: float


def check(case: Case, limits: Limits, names: Terms, memory: Memory, judge: Judge | None, *, candidates: int) -> Checked:
    """What is doubtful about a draft.

    Args:
        names: those of the source that are remembered.
        candidates: with one the names alone are looked at.
    """
    doubts = []
    score = 0.0
    lost = _lost(case, names, memory)
    if lost:
        doubts.append(f"names: {lost[0]}")
        score -= NAME * len(lost) / max(len(lost), len(names))
    if candidates > 1:
        near = [f"near {problem}" for problem in guards.problems(case, nearer(lenient(limits)))]
        doubts += near
        score -= GUARD * len(near)
    if candidates > 1 and judge is not None:
        (gain,) = judge.gains([Pair(case.source, case.target)])
        score += gain
        if gain < GAIN:
            doubts.append(f"judge: it says little of its source ({gain:.2f} nats per token)")
    return Checked(case.target, tuple(doubts), score)


def _lost(case: Case, names: Terms, memory: Memory) -> list[str]:
    """What is said of each name that is missing or spelled otherwise."""
    text = placeholders.plain(case.target)
    missing = memory.missing(names, text)
    found: dict[str, str] = {}
    for source, name in names:
        if other := spelling.misspelt(text, name, case.target_language):
            found[name] = f"'{other}' for '{name}'"
        elif (source, name) in missing:
            found[name] = f"'{name}' is missing"
    for other, name in memory.misspelt([*names, *case.terms], case.source, text):
        found.setdefault(name, f"'{other}' for '{name}'")
    return list(found.values())


def lenient(limits: Limits) -> Limits:
    """Limits of the guards for drafts whose names are looked at here: what is wrong with one is a doubt."""
    return dataclasses.replace(limits, off=limits.off | {"names"})


def nearer(limits: Limits) -> Limits:
    """Limits that a sound translation keeps with room to spare."""
    return dataclasses.replace(
        limits, ratio=1 + NEAR * (limits.ratio - 1), foreign=NEAR * limits.foreign, loop=int(NEAR * limits.loop)
    )


def better(first: Checked, second: Checked) -> Checked:
    """That with the higher score; the first where they are equal."""
    return second if second.score > first.score else first
