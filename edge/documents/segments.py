"""Sentences of a long paragraph.

Owns: where a sentence ends, for Latin, Cyrillic, Arabic, Indic and Chinese or Japanese punctuation.
Does not know: documents; how the pieces are translated.
Units: characters.
"""

from __future__ import annotations

import re

from .inline import names
from .placeholders import MARK, marks

_CLOSERS = "\"'’”»›)\\]}」』】〉》）］｝〕"
_WIDE = "。！？｡"  # these end a sentence without white space after them
ENDS = f".!?…؟۔।॥{_WIDE}"
_END = re.compile(rf"(?<![{ENDS}])[{ENDS}]++(?:[{_CLOSERS}]|⟦/[0-9]++⟧|⟦[0-9]++/⟧)*+\s*+|\n\s*+")
_ABBREVIATIONS = names(
    "mr mrs ms dr prof st sr jr vs etc no vol fig cf pp ed eds gen col capt lt sgt rev hon approx e.g i.e "
    "p.s bzw z.b d.h usw hr nr m mme mlle"
)
_LAST_WORD = re.compile(r"[^\s⟦⟧(\"'“‘«]{1,20}$")


def segments(text: str) -> tuple[str, ...]:
    """The sentences of a text, each with the white space that follows it; `"".join(segments(text)) == text`.

    No sentence ends inside a pair of placeholders, after a known abbreviation or initial, or
    before a lower-case letter.
    """
    closed = _closed_ranges(text)
    pieces: list[str] = []
    start = inside = 0
    for match in _END.finditer(text):
        end = match.end()
        while inside < len(closed) and closed[inside][1] <= end:
            inside += 1
        in_pair = inside < len(closed) and closed[inside][0] < end < closed[inside][1]
        if in_pair or end == len(text) or not text[start:end].strip() or not _is_end(text, start, match):
            continue
        pieces.append(text[start:end])
        start = end
    if start < len(text):
        if pieces and not text[start:].strip():
            pieces[-1] += text[start:]
        else:
            pieces.append(text[start:])
    return tuple(pieces)


def _closed_ranges(text: str) -> list[tuple[int, int]]:
    """Where the outermost pairs begin and end."""
    ranges: list[tuple[int, int]] = []
    depth = begin = 0
    for mark in marks(text):
        if mark.shape == "open":
            begin = mark.start if depth == 0 else begin
            depth += 1
        elif mark.shape == "close" and depth:
            depth -= 1
            if depth == 0:
                ranges.append((begin, mark.end))
    return ranges


def _is_end(text: str, start: int, match: re.Match[str]) -> bool:
    if match[0][0] == "\n" or any(char in _WIDE for char in match[0]):
        return True
    following = MARK.sub("", text[match.end() : match.end() + 40])
    if not match[0][-1].isspace() or following[:1].islower():
        return False
    if not match[0].startswith(".") or match[0].startswith(".."):
        return True
    word = _LAST_WORD.search(text[max(start, match.start() - 20) : match.start()])
    name = word[0] if word else ""
    initial = len(name) == 1 and name.isalpha() and name.isupper()
    return not initial and name.lower() not in _ABBREVIATIONS
