"""Chapters of a document: which there are, and the units of those that are named.

Owns: the numbers that people use for chapters, their titles, the form `3-5,8`.
Does not know: any format; where a chapter begins (`Unit.chapter`).
Units: chapter numbers. An EPUB's are the files of its spine, counted from 1, its tables of contents last; elsewhere
headings open chapters, and 0 is what stands before the first one.
"""

from __future__ import annotations

import re
from itertools import groupby
from typing import NamedTuple

from ..errors import SettingsError
from . import placeholders
from .document import Document, Unit

_RANGE = re.compile(r"\s*(\d{1,9})?\s*(-)?\s*(\d{1,9})?\s*")
_LISTED = 16  # chapters that a message names
_TITLE = 30  # characters of a title in a message


class Chapter(NamedTuple):
    """One chapter: its number, its heading or first words, its units."""

    number: int
    title: str
    units: tuple[Unit, ...]


def chapters_of(document: Document) -> list[Chapter]:
    """The chapters that have text, in their order."""
    found = []
    for index, group in groupby(document.units, lambda unit: unit.chapter):
        units = tuple(group)
        titles = [unit.text for unit in units if unit.kind in ("heading", "title")] or [units[0].text]
        title = " ".join(placeholders.plain(titles[0]).split())
        found.append(Chapter(index + document.first_chapter, title, units))
    return found


def in_chapters(document: Document, named: str) -> tuple[Unit, ...]:
    """The units of the chapters that `named` names: `3`, `3-5`, `8-`, or several of these between commas.

    Raises:
        SettingsError: it is no such list, or names a chapter that is not there; says which there are.
    """
    every = chapters_of(document)
    numbers = {chapter.number for chapter in every}
    wanted: set[int] = set()
    for part in named.split(","):
        match = _RANGE.fullmatch(part)
        if match is None or not (match[1] or match[3]):
            raise _wrong(named, every)
        first = int(match[1]) if match[1] else min(numbers)
        last = int(match[3]) if match[3] else max(numbers) if match[2] else first
        found = {number for number in numbers if first <= number <= last}
        # a file without text in the middle of a range is no mistake; an end that is not there is one
        if first not in numbers or last not in numbers or not found:
            raise _wrong(named, every)
        wanted |= found
    return tuple(unit for chapter in every if chapter.number in wanted for unit in chapter.units)


def _wrong(named: str, every: list[Chapter]) -> SettingsError:
    shown = every if len(every) <= _LISTED else [*every[: _LISTED - 2], *every[-2:]]
    listed = [f"{chapter.number} '{_short(chapter.title)}'" for chapter in shown]
    if len(shown) < len(every):
        listed.insert(_LISTED - 2, "…")
    return SettingsError(f"--chapters is '{named}'", "e.g. 3-5, of the chapters " + ", ".join(listed))


def _short(title: str) -> str:
    return title if len(title) <= _TITLE else title[: _TITLE - 1] + "…"
