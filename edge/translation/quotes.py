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
# each group holds marks that are pairs in one language or another; single ones are apostrophes as well
_PAIRED = ('“”„"‟', "«»", "「」", "『』")
_OPENING = '“„"«「『'
_CLOSING = '”"»」』'
_BOTH = ("“”", '""', "„“", "„”", "«»", "»«", "「」", "『』", "””", "»»")  # marks before and after speech
# how books are usually set where not as English ones are
_USUAL = {
    **dict.fromkeys(("de", "cs", "sk", "sl", "bg", "is", "lt", "et"), "„“"),
    **dict.fromkeys(("pl", "ro", "hu", "hr"), "„”"),
    **dict.fromkeys(("fr", "ru", "uk", "be", "it", "es", "el", "no", "nb", "nn"), "«»"),
    **dict.fromkeys(("sv", "fi"), "””"),
    **dict.fromkeys(("ja", "zh-Hant"), "「」"),
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


def wrapped(source: str, target: str, language: Language, before: Sequence[tuple[str, str]] = ()) -> str:
    """A draft of a line of speech that has no mark of it, with those of its source; as it is, where it cannot be told.

    A model may leave the marks out, and is not brought to set them by being asked again. An opening mark is set where
    all of the source is behind one, a closing mark where all of it is before one.

    Args:
        language: of the draft.
        before: the (source, target) lines before, in their order: the marks that the last line of speech has there.
    """
    line = source.strip()
    text = target.strip()
    if not line or not text or text[0] == "⟦" or text[-1] == "⟧":
        return target
    begins = line[0] in _OPENING
    ends = line[-1] in _CLOSING + "“"
    if begins and ends:
        is_told = line[0] + line[-1] in _BOTH
    else:  # a mark alone: of a speech of several lines
        is_told = begins or (line[-1] in _CLOSING and _is_open([said for said, _ in before]))
    if not is_told or len(_QUOTED.findall(line)) != begins + ends:
        return target
    marks = next((_marks(done) for said, done in reversed(before) if _is_speech(said)), _usual(language))
    if not marks:
        return target
    gap = "\u00a0" if marks == "«»" and language.code == "fr" else ""
    return (marks[0] + gap if begins else "") + text + (gap + marks[1] if ends else "")


def _is_speech(source: str) -> bool:
    line = source.strip()
    return len(line) > 1 and line[0] + line[-1] in _BOTH and len(_QUOTED.findall(line)) == 2


def _marks(target: str) -> str:
    """The marks around a line; none where it has others, a dash or single ones."""
    found = target.strip()[:1] + target.strip()[-1:]
    return found if found in _BOTH else ""


def _usual(language: Language) -> str:
    return next((_USUAL[tag] for tag in language.tags if tag in _USUAL), "“”")


def unwrapped(source: str, target: str, before: Sequence[tuple[str, str]] = ()) -> str:
    """A draft without the pair of marks around all of it, where nothing in its source is quoted or enclosed.

    A model may quote what it was asked for, and goes on so once it has begun.

    Args:
        before: the (source, target) lines before, in their order: where speech is still open, the marks stay.
    """
    text = target.strip()
    inner = text[1:-1]
    if len(text) < 3 or not any(text[0] in marks and text[-1] in marks for marks in _PAIRED):
        return target
    if text[0] == "”" or _QUOTED.search(inner) or not any(map(str.isalnum, inner)):
        return target
    if _ENCLOSED.search(placeholders.plain(source)) or _is_open([said for said, _ in before]):
        return target
    return inner.strip()


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
