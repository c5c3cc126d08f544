"""Folding: texts that are the same to a reader are the same to a comparison, however they were typed.

Owns: which characters are written in several ways, which cannot be seen; whether a known text stands in another.
Does not know: terms, names, languages.
Units: characters.

One case, composed letters (NFC), one kind of apostrophe, double mark, hyphen and space; what is of full width as it is
elsewhere. Left out are soft hyphens, marks of direction, spaces of no width, and the points of Arabic and Hebrew.
Joiners stay: in Persian they part a word from its ending.
"""

from __future__ import annotations

import re
import unicodedata

from ..documents import placeholders
from ..documents.inline import is_wide

_SAME = {"'": "’‘ʼʻ′`´＇׳", '"': "“”„‟″״＂", "-": "‐\u2011־－"}
_ALIKE = {code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}  # of full width
_ALIKE |= {ord(char): usual for usual, others in _SAME.items() for char in others}
_UNSEEN = re.compile("[\u00ad\u200b\u2060\ufeff\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_POINTS = re.compile("[\u0640\u064b-\u0652\u0670\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7]")
_SPACE = re.compile(r"\s+")
_BREAK = re.compile(r"(?<=(\S))⟦[1-9][0-9]*/⟧(?=(\S))")


def alike(text: str) -> str:
    """A text as it is compared where capitals count."""
    seen = _POINTS.sub("", _UNSEEN.sub("", unicodedata.normalize("NFC", text)))
    return _SPACE.sub(" ", unicodedata.normalize("NFC", seen.translate(_ALIKE)))


def folded(text: str) -> str:
    """A text as it is compared."""
    return unicodedata.normalize("NFC", alike(text).casefold())


def readings(text: str) -> list[str]:
    """A text without its placeholders, folded; where a thing without text stands between two characters, once more
    with a space there: it may be a line break. Where words do not stand apart no space is missing.
    """
    things = placeholders.MARK.sub(lambda mark: mark[0] if mark[3] else "", text)
    parted = _BREAK.sub(lambda thing: "" if is_wide(thing[1]) or is_wide(thing[2]) else " ", things)
    return list(dict.fromkeys(folded(placeholders.plain(each)) for each in (things, parted)))


def stands(known: str, text: str) -> bool:
    """Whether a known text stands in one with placeholders, also as a part of a word."""
    return any(folded(known) in reading for reading in readings(text))
