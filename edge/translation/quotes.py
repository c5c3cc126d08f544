"""Quotation marks: of a translation against those of its source.

Owns: which marks are pairs, speech without any mark of it, marks that stand alone; those that a draft lacks around all
of it, or has there and its source has not.
Does not know: what is done about them.
Units: characters.
"""

from __future__ import annotations

from collections.abc import Sequence

import regex

from ..documents import placeholders
from .languages import Language

_SPEECH = regex.compile(r"^\s*[“„\"«»「『]|[”“\"»«」』]\s*$")
_SPOKEN = regex.compile(r"[“”„‟\"«»「」『』]|(?<!\p{L})[‘‚'‹›]|[’'](?!\p{L})|^\s*[-–—―]")
_QUOTED = regex.compile(r"[“”„\"«»「」『』]")
_ENCLOSED = regex.compile(r"[\p{Pi}\p{Pf}\p{Ps}\p{Pe}\"'`*_＂＇]|^\s*\p{Pd}")  # speech, titles in brackets, emphasis
_AROUND = regex.compile(r"([“„\"«»「『])\s*([^“”„‟\"«»「」『』]*\w[^“”„‟\"«»「」『』]*?)\s*([”“\"»«」』])")
# each group holds marks that are pairs in one language or another; single ones are apostrophes as well
_PAIRED = ('“”„"‟', "«»", "「」", "『』")
_CLOSED = {'"': '"', "“": "”", "”": "”", "„": "“", "«": "»", "»": "«", "「": "」", "『": "』"}
# how books are usually set where not as English ones are
_USUAL = {
    **dict.fromkeys(("de", "cs", "sk", "sl", "bg", "is", "lt", "et"), "„“"),
    **dict.fromkeys(("pl", "ro", "hu", "hr"), "„”"),
    **dict.fromkeys(("fr", "ru", "uk", "be", "it", "es", "el", "no", "nb", "nn"), "«»"),
    **dict.fromkeys(("sv", "fi"), "””"),
    "ja": "「」",
}


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


def mended(source: str, target: str, language: Language, before: Sequence[tuple[str, str]] = ()) -> str:
    """A draft whose marks are those of its source, where all of the line is speech or none of it.

    A model may leave the marks of a line of speech out, and is not brought to set them by being asked again; or it
    quotes what it was asked for, and goes on so once it has begun.

    Args:
        language: of the draft.
        before: the (source, target) lines before, in their order: marks that were used there are used again; where
            speech is still open, none are taken off.
    """
    if _SPEECH.search(source) and not _SPOKEN.search(placeholders.plain(target)):
        return _wrapped(source, target, language, [done for _, done in before])
    return _unwrapped(source, target, [line for line, _ in before])


def _wrapped(source: str, target: str, language: Language, before: Sequence[str]) -> str:
    """With an opening mark where all of the source is behind one, a closing mark where all of it is before one."""
    line = source.strip()
    text = target.strip()
    begins = line[:1] in _CLOSED and line[:1] not in "»"
    ends = bool(line) and line[-1] in '”»」』"“'
    if len(_QUOTED.findall(line)) != begins + ends or not text or text[0] == "⟦" or text[-1] == "⟧":
        return target
    usual = _USUAL.get(language.code, "“”")
    used = (done.strip()[:1] for done in reversed(before))
    opening = next((mark for mark in used if mark in _CLOSED), usual[0])
    closing = usual[1] if opening == usual[0] else _CLOSED[opening]
    gap = "\u00a0" if opening == "«" and language.code == "fr" else ""
    return (opening + gap if begins else "") + text + (gap + closing if ends else "")


def _unwrapped(source: str, target: str, before: Sequence[str]) -> str:
    """Without the pair of marks around all of it, where nothing in its source is quoted or enclosed."""
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
