"""Placeholders: inline markup as short marks in a text, checked after translation.

Owns: the form of a mark, what makes a translation keep its markup, what is put back where it does not.
Does not know: which markup a mark stands for (`inline.py` and the formats).
Units: characters.

    ⟦1⟧ … ⟦/1⟧   a pair around text (bold, a link)
    ⟦2/⟧          a thing without text to translate (an image, a line break, a footnote mark)

A literal ⟦ or ⟧ of a source is itself behind a mark, so each bracket in a unit's text belongs to a mark.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Literal, NamedTuple

LEFT = "⟦"
RIGHT = "⟧"
MARK = re.compile(r"⟦(/?)([1-9][0-9]{0,5})(/?)⟧")
_WRITTEN = re.compile(r"(⟦(?:/[1-9][0-9]{0,5}|[1-9][0-9]{0,5}/?)⟧)")
_LOOSE = re.compile(r"[⟦〚]\s*([/／]?)\s*([1-9][0-9]{0,5})\s*([/／]?)\s*[⟧〛]")

Shape = Literal["open", "close", "void"]


class Mark(NamedTuple):
    """One placeholder in a text: its number, its shape, and where it stands."""

    number: int
    shape: Shape
    start: int
    end: int

    @property
    def text(self) -> str:
        """The mark as it is written."""
        return write(self.number, self.shape)


def write(number: int, shape: Shape) -> str:
    """The mark of a number: ⟦1⟧, ⟦/1⟧ or ⟦1/⟧."""
    before = "/" if shape == "close" else ""
    after = "/" if shape == "void" else ""
    return f"{LEFT}{before}{number}{after}{RIGHT}"


def read(mark: str) -> tuple[int, Shape]:
    """The number and the shape of a mark as it is written."""
    return int(mark.strip("⟦/⟧")), "close" if mark[1] == "/" else "void" if mark[-2] == "/" else "open"


def marks(text: str) -> Iterator[Mark]:
    """The placeholders of a text, in order."""
    for match in MARK.finditer(text):
        if match[1] and match[3]:
            continue
        shape: Shape = "close" if match[1] else "void" if match[3] else "open"
        yield Mark(int(match[2]), shape, match.start(), match.end())


def written(text: str) -> list[str]:
    """The placeholders of a text as they are written, in order."""
    return _WRITTEN.findall(text)


def parted(text: str) -> list[str]:
    """A text cut at its placeholders: text, placeholder, text, ..., text."""
    return _WRITTEN.split(text)


def plain(text: str) -> str:
    """The text without its placeholders."""
    return MARK.sub("", text)


def tidy(text: str) -> str:
    """The text with nearly right placeholders put right: spaces inside the brackets, look-alike brackets."""
    return _LOOSE.sub(lambda m: f"{LEFT}{'/' if m[1] else ''}{m[2]}{'/' if m[3] else ''}{RIGHT}", text)


def check(source: str, translated: str) -> list[str]:
    """What is wrong with the placeholders of a translation; nothing, when all its markup is kept.

    Each mark of the source must be there once and no other; pairs must close, must not cross, must stay inside the
    pair that held them, and must hold text where they held text. Their order is free: languages differ.
    """
    problems: list[str] = []
    wanted = written(source)
    known = frozenset(wanted)
    found = Counter(written(translated))
    for mark in wanted:
        if found[mark] != 1:
            problems.append(f"{mark} is missing" if not found[mark] else f"{mark} occurs {found[mark]} times")
    problems += [f"{mark} is not in the source" for mark in found if mark not in known]
    stray = plain_brackets(translated)
    if stray:
        problems.append(f"stray {' '.join(sorted(set(stray)))}")
    if problems:
        return problems
    before = _parents(source)
    after = _parents(translated)
    if isinstance(after, str) or isinstance(before, str):
        return [str(after)]
    for number, parent in before.items():
        if after[number] != parent:
            where = f"inside {write(parent, 'open')}" if parent else "outside every pair"
            problems.append(f"{write(number, 'open')} is not {where}, as in the source")
    held = _filled(source)
    holds = _filled(translated)
    problems += [f"{write(number, 'open')} holds no text" for number in sorted(held - holds)]
    return problems


def restore(source: str, translated: str) -> str:
    """The translation with only placeholders that can be resolved, so that any document can be written from it.

    A translation that passes `check` is returned as it is. In others, unknown, repeated and crossing marks are
    removed (their text stays), and things without text that were lost are put at the end: an image or a footnote
    mark is never dropped, formatting may be.
    """
    found = written(translated)
    if found == written(source) and translated.count(LEFT) == translated.count(RIGHT) == len(found):
        return translated  # most translations
    shapes = {(mark.number, mark.shape) for mark in marks(source)}
    kept: list[Mark] = []
    seen: set[tuple[int, Shape]] = set()
    opened: list[Mark] = []
    numbers: set[int] = set()  # of what is open
    given_up: set[int] = set()  # where marks begin whose pair does not close, or crosses another
    for mark in marks(translated):
        key = (mark.number, mark.shape)
        if key not in shapes or key in seen:
            continue
        if mark.shape == "close":
            if mark.number not in numbers:
                continue
            while (last := opened.pop()).number != mark.number:
                given_up.add(last.start)
                numbers.remove(last.number)
            numbers.remove(mark.number)
        elif mark.shape == "open":
            opened.append(mark)
            numbers.add(mark.number)
        kept.append(mark)
        seen.add(key)
    given_up.update(mark.start for mark in opened)
    kept = [mark for mark in kept if mark.start not in given_up]
    parts: list[str] = []
    at = 0
    for mark in kept:
        parts += [_unbracketed(translated[at : mark.start]), mark.text]
        at = mark.end
    parts.append(_unbracketed(translated[at:]))
    parts += [mark.text for mark in marks(source) if mark.shape == "void" and (mark.number, "void") not in seen]
    return "".join(parts)


def plain_brackets(text: str) -> list[str]:
    """The brackets of a text that belong to no mark."""
    return [char for char in "".join(parted(text)[::2]) if char in (LEFT, RIGHT)]


def _unbracketed(text: str) -> str:
    return MARK.sub("", text).replace(LEFT, "").replace(RIGHT, "")


def _parents(text: str) -> dict[int, int] | str:
    """The number of the pair around each mark (0: none), or what is wrong with the nesting."""
    stack: list[int] = []
    parents: dict[int, int] = {}
    for mark in marks(text):
        if mark.shape == "close":
            if mark.number not in stack[-1:]:
                if mark.number not in stack:
                    return f"{mark.text} stands before {write(mark.number, 'open')}"
                return f"{write(mark.number, 'open')} and {write(stack[-1], 'open')} cross"
            stack.pop()
            continue
        parents[mark.number] = stack[-1] if stack else 0
        if mark.shape == "open":
            stack.append(mark.number)
    return parents if not stack else f"{write(stack[-1], 'open')} does not close"


def _filled(text: str) -> set[int]:
    """The pairs that hold text, directly or in a pair inside; all of them nest."""
    stack: list[int] = []
    filled: set[int] = set()
    at = 0
    for mark in marks(text):
        if text[at : mark.start].strip():
            for number in reversed(stack):
                if number in filled:
                    break  # so are those around it
                filled.add(number)
        at = mark.end
        if mark.shape == "open":
            stack.append(mark.number)
        elif mark.shape == "close":
            stack.pop()
    return filled
