"""Names: whether the same name of the source always gets the same translation.

Owns: which words of the translations belong to a name, how steady they are.
Does not know: how texts were made, references, models.
Units: texts (units) in which a name occurs; shares of them.

The translation of a name is the run of words that goes with it most closely: that with the highest Dice coefficient 2
|both| / (|with the name| + |with the words|), counted over units. Where the target language has capitals it is among
the runs that begin and end with one, and do not stand as often without: else what every sentence says (`was`) would be
a name's usual translation.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import regex

from ..documents import placeholders
from . import glossary
from .languages import Language
from .prompts import Pair
from .settled import is_word_of

LEAST = 3  # units that a recurring name is in
_WORD = regex.compile(r"[\p{L}\p{M}]+(?:['’-][\p{L}\p{M}]+)*")


@dataclass(frozen=True)
class Name:
    """One name: in how many units it occurs, its usual translation, and in how many of them that stands."""

    source: str
    target: str
    units: int
    steady: int
    dice: float

    @property
    def share(self) -> float:
        """The share of its units that have the usual translation."""
        return self.steady / self.units


def names(pairs: Sequence[Pair], language: Language, target: Language) -> list[Name]:
    """The recurring names of `pairs` with their usual translations, the most frequent first."""
    found = glossary.recurring([pair.source for pair in pairs], language, least=LEAST)
    return follow([name for name, _ in found], pairs, target)


def follow(sources: Iterable[str], pairs: Sequence[Pair], target: Language) -> list[Name]:
    """The usual translation of each of `sources` in `pairs`; those that do not occur are left out. One that stands only
    in a longer one of them, or in a word, does not occur.
    """
    sources = list(sources)
    texts = [(placeholders.plain(pair.source), _phrases(placeholders.plain(pair.target), target)) for pair in pairs]
    everywhere = Counter(phrase for _, phrases in texts for phrase in phrases)
    cased = bool({"Latin", "Cyrillic", "Greek", "Armenian"} & set(target.scripts))
    proper = {phrase for phrase in everywhere if not cased or _is_proper(phrase, everywhere)}
    result = []
    for source in sources:
        longer = sorted((other for other in sources if source in other and source != other), key=len, reverse=True)
        here = [phrases for text, phrases in texts if source in text and _stands(source, text, longer)]
        counts = Counter(phrase for phrases in here for phrase in phrases & proper)
        if not here:
            continue
        dice = {phrase: 2 * count / (len(here) + everywhere[phrase]) for phrase, count in counts.items()}
        best = max(dice, key=lambda phrase: (dice[phrase], len(phrase), phrase), default="")
        result.append(Name(source, best, len(here), counts[best], dice.get(best, 0.0)))
    return result


def steadiness(found: Sequence[Name]) -> dict[str, float | int | None]:
    """How many names there are, and different translations of them; the share always given the same translation; the
    mean share of units that have it, name by name; the share of all units, where frequent names count for more.
    """
    if not found:
        return {"names": 0, "distinct": 0, "always": None, "mean": None, "share": None}
    always = sum(name.steady == name.units for name in found)
    mean = sum(name.share for name in found) / len(found)
    distinct = len({name.target for name in found})
    share = sum(name.steady for name in found) / sum(name.units for name in found)
    return {"names": len(found), "distinct": distinct, "always": always / len(found), "mean": mean, "share": share}


def is_name(name: Name) -> bool:
    """Whether a term is rendered steadily enough to be one."""
    return name.dice >= 0.5 and name.share >= 0.5


def _stands(name: str, text: str, longer: Sequence[str]) -> bool:
    """Whether a name stands in a text outside the `longer` ones, as words of its own where there are words."""
    for other in longer:
        text = text.replace(other, "\0")
    return is_word_of(name, text) if name.lower() != name.upper() else name in text


def _is_proper(phrase: str, everywhere: Counter[str]) -> bool:
    """Whether its first and last words have capitals, and not only because a sentence begins with it."""
    capitals = phrase[0].isupper() and phrase.split()[-1][0].isupper()
    return capitals and everywhere[phrase] > everywhere[phrase[0].lower() + phrase[1:]]


def _phrases(text: str, target: Language) -> set[str]:
    """Runs of one to three words; of two to six characters where words are not separated."""
    if not target.spaced:
        runs = regex.findall(r"[\p{L}\p{M}]+", text)
        return {run[i : i + size] for run in runs for size in range(2, 7) for i in range(len(run) - size + 1)}
    words = list(_WORD.finditer(text))
    found: dict[int, set[str]] = defaultdict(set)
    for index in range(len(words)):
        for size in (1, 2, 3):
            group = words[index : index + size]
            if len(group) == size and all(
                text[a.end() : b.start()] in (" ", "\u00a0") for a, b in zip(group, group[1:], strict=False)
            ):
                found[size].add(regex.sub(r"['’]s$", "", text[group[0].start() : group[-1].end()]))
    return found[1] | found[2] | found[3]
