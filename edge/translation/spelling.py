"""Names that are nearly the same: Joshua and Joshu.

Owns: when two forms are likely one name spelled in two ways; that a name has the same gaps in all of a book.
Does not know: which names a book has, how they were found.
Units: letters.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable

import regex

from .folding import folded
from .languages import Language
from .settled import is_word_of

_WORD = regex.compile(r"\p{Lu}[\p{L}\p{M}]*(?:['’-]\p{L}[\p{L}\p{M}]*)*")
_GAP = regex.compile(r"[ \u00a0-]")
_POSSESSIVE = regex.compile(r"['’](?:s|d|ll|m|re|ve)?$")
# names change their endings there
_CODES = "ru uk be bg mk pl cs sk sl hr sr bs lt lv fi et hu la el tr az kk uz ka hy eu sq ro is ga"
_INFLECTING = frozenset(_CODES.split())
LEAST = 4  # letters of a name whose spelling may be in doubt


def near(usual: str, other: str, language: Language) -> bool:
    """Whether two words are likely one name in two spellings: one letter more, less, or another; two in long names.

    A plural or a genitive is no other spelling; in languages whose names change their endings, no other ending is.
    """
    first = _folded(usual)
    second = _folded(other)
    if first == second or min(len(first), len(second)) < LEAST - 1 or max(len(first), len(second)) < LEAST:
        return False
    if first[0] != second[0]:
        return False
    shorter, longer = sorted((first, second), key=len)
    if longer in (shorter + "s", shorter + "es", shorter + "n", shorter + "in", shorter + "en"):
        return False
    if language.code in _INFLECTING and first[: len(shorter) - 2] == second[: len(shorter) - 2]:
        return False
    return _distance(first, second) <= (1 if len(longer) < 8 else 2)


def misspelt(text: str, name: str, language: Language, others: Iterable[str] = ()) -> str:
    """What stands in a text for a name that is not in it: a word that is nearly one of its own; empty without one.

    Args:
        others: names whose words are themselves.
    """
    plain = folded(text)
    lost = [word for word in _words(name) if folded(word) not in plain]
    known = {folded(word) for other in others for word in _words(other)} if lost else set()
    found = [word for word in _words(text) if folded(word) not in known] if lost else []
    return next((word for word in found for part in lost if near(part, word, language)), "")


def as_known(text: str, names: Collection[str]) -> str:
    """A text in which a name that it has only with other gaps gets those that are known: Wenwen for Wen Wen, Zhen Hui
    for Zhen-hui.

    All letters are the same, and what follows a space has a capital: Al is on the phone, and no Alison. Apostrophes are
    no gaps: She'll is no Shell. Capitals alone stay, and what has a word of another name in it.

    Args:
        names: as they are known.
    """
    for name in names:
        letters = _GAP.sub("", name)
        stands = is_word_of(folded(name), folded(text))
        if stands or len(letters) < LEAST or not letters[0].isupper():
            continue
        spread = f"{_GAP.pattern}?".join(map(regex.escape, letters))
        others = {word.casefold() for other in names if other != name for word in _GAP.split(other)}

        def known(found: regex.Match[str], name: str = name, others: set[str] = others) -> str:
            small = any(word[0].islower() for word in found[0].split())
            theirs = any(part.casefold() in others for part in _GAP.split(found[0]))
            return found[0] if small or theirs or found[0].isupper() else name

        text = regex.sub(rf"(?<![\p{{L}}\p{{M}}'’-])(?=\p{{Lu}})(?i:{spread})(?![\p{{L}}\p{{M}}-])", known, text)
    return text


def _words(text: str) -> list[str]:
    return [_POSSESSIVE.sub("", word) for word in _WORD.findall(text)]


def _folded(word: str) -> str:
    """A word in one case and without accents: Jose and José are the same here."""
    apart = unicodedata.normalize("NFKD", _POSSESSIVE.sub("", word).casefold())
    return "".join(char for char in apart if char.isalpha())


def _distance(first: str, second: str) -> int:
    """Letters to insert, delete, change, or exchange with their neighbour (optimal string alignment)."""
    before: list[int] = []
    row = list(range(len(second) + 1))
    for i, char in enumerate(first, 1):
        following = [i]
        for j, other in enumerate(second, 1):
            cost = min(row[j] + 1, following[j - 1] + 1, row[j - 1] + (char != other))
            if i > 1 and j > 1 and char == second[j - 2] and other == first[i - 2]:
                cost = min(cost, before[j - 2] + 1)
            following.append(cost)
        before = row
        row = following
    return row[-1]
