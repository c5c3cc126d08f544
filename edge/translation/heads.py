"""Heads of tables: which column of a file holds which of two texts.

Owns: what a head may say: `source` and `target`, or the languages by tag or by name, with a region or without.
Does not know: files, what the texts are for.
Units: columns count from 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import regex

from . import languages
from .languages import Language
from .tsv import Rows

_SURE = 5  # above all of `languages.closeness`
_TAG = regex.compile(r"[a-z]{2,3}(?:[-_](?:[a-z]{4}|[a-z]{2}|[0-9]{3}))*")
_NAMED = regex.compile(r"(?P<name>[^()]+?)(?:\s*\((?P<variant>[^()]+)\))?")
# what tools write behind the name of a language that has variants
_WRITTEN = (
    "simplified=hans traditional=hant latin=latn cyrillic=cyrl china=cn taiwan=tw hong_kong=hk singapore=sg brazil=br "
    "portugal=pt united_states=us usa=us us=us united_kingdom=gb uk=gb canada=ca australia=au france=fr spain=es "
    "mexico=mx germany=de austria=at switzerland=ch"
)
_VARIANTS = dict(pair.split("=") for pair in _WRITTEN.split())


def without(rows: Rows, source: Language | None = None, target: Language | None = None) -> tuple[int, int, Rows]:
    """The columns of both texts, the first two where no head names them, and the rows without their heads.

    A row of heads is the first that is neither empty nor a note, and names both sides, the sign of a column of numbers
    (#) beside them; what fits best goes first.

    Args:
        source: the language of the source, where heads may name it; so is `target`.
    """
    for at, (_, cells) in enumerate(rows):
        if not any(cell.strip() for cell in cells):
            continue
        first = _column(cells, "source", source)
        second = _column(cells, "target", target)
        if min(first, second) < 0 or first == second:
            if cells[0].lstrip().startswith("#"):
                continue
            break
        return first, second, rows[at + 1 :]
    return 0, 1, rows


def _column(cells: Sequence[str], side: str, language: Language | None) -> int:
    fits = [_fit(" ".join(cell.casefold().split()), side, language) for cell in cells]
    best = max(fits, default=0)
    return fits.index(best) if best else -1


def _fit(head: str, side: str, language: Language | None) -> int:
    """How well a head names one side; 0 not at all."""
    named = _NAMED.fullmatch(head)
    if named is not None and named["name"] == side:  # source (en)
        return _SURE
    if language is None:
        return 0
    if head == language.name.casefold():
        return _SURE
    if _TAG.fullmatch(head):
        return languages.closeness(head, language.tag)
    names = (languages.find(language.code).name, language.endonym)
    if named is None or named["name"] not in map(str.casefold, names):
        return 0
    variant = _VARIANTS.get((named["variant"] or "").replace(" ", "_"), "")
    return languages.closeness("-".join(filter(None, (language.code, variant))), language.tag)
