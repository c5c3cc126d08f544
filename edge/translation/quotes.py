"""Quotation marks: of a translation against those of its source.

Owns: which marks are pairs, speech without any mark of it, marks that stand alone, marks around what is no speech.
Does not know: what is done about them.
Units: characters.
"""

from __future__ import annotations

from collections.abc import Sequence

import regex

from ..documents import placeholders

_SPEECH = regex.compile(r"^\s*[“„\"«»「『]|[”“\"»«」』]\s*$")
_SPOKEN = regex.compile(r"[“”„‟\"«»「」『』]|(?<!\p{L})[‘‚'‹›]|[’'](?!\p{L})|^\s*[-–—―]")
_QUOTED = regex.compile(r"[“”„\"«»「」『』]")
_ENCLOSED = regex.compile(r"[\p{Pi}\p{Pf}\p{Ps}\p{Pe}\"'`*_＂＇]|^\s*\p{Pd}")  # speech, titles in brackets, emphasis
_AROUND = regex.compile(r"([“„\"«»「『])\s*([^“”„‟\"«»「」『』]*\w[^“”„‟\"«»「」『』]*?)\s*([”“\"»«」』])")
# each group holds marks that are pairs in one language or another; single ones are apostrophes as well
_PAIRED = ('“”„"‟', "«»", "「」", "『』")


def wrong(source: str, target: str) -> str:
    """Speech without any mark of it; or a mark that stands alone, where those of the source are pairs; else empty."""
    source = placeholders.plain(source)
    target = placeholders.plain(target)
    if _SPEECH.search(source) and not _SPOKEN.search(target):
        return "there are none in it"
    if not _QUOTED.search(source) or _unpaired(source):
        return ""
    odd = _unpaired(target)
    return f"{odd} stands alone" if odd else ""


def unwrapped(source: str, target: str, before: Sequence[str] = ()) -> str:
    """A translation without the pair of marks around all of it, where nothing in its source is quoted or enclosed.

    A model that was asked for a translation may quote it, and goes on so once it has begun.

    Args:
        before: the source lines before, in their order; where speech is still open there, the marks stay.
    """
    around = _AROUND.fullmatch(target.strip())
    if around is None or _ENCLOSED.search(placeholders.plain(source)) or _is_open(before):
        return target
    group = next(group for group in _PAIRED if around[1] in group)
    return around[2] if around[3] in group else target


def _is_open(lines: Sequence[str]) -> bool:
    """Whether the last line with quotation marks leaves speech open."""
    last = next((line for line in reversed(lines) if _QUOTED.search(line)), "")
    return bool(_unpaired(last)) and _QUOTED.findall(last)[-1] not in "”」』"


def _unpaired(text: str) -> str:
    """A quotation mark without its other half; empty without one. Languages pair the same marks in many ways."""
    for marks in _PAIRED:
        found = [char for char in text if char in marks]
        if len(found) % 2:
            return found[-1]
    return ""
