"""Echoes: what a draft says that is another line's translation, whole or sentence by sentence.

Owns: how an echo is told from what is right twice; how much a text says.
Does not know: languages, the other checks, what is done about an echo.
Units: letters; weights (a Han character or a kana carries what about three Latin letters do).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

import regex

from ..documents import placeholders
from ..documents.segments import ENDS

SENTENCES = re.compile(rf"[^{ENDS}]+[{ENDS}]*")  # abbreviations end one, too
ECHO = 36  # weight of other lines' sentences that is no chance; a sentence of a third of it counts
AGAIN = 20  # letters of a whole translation that may not be another line's
LONG = 2000  # letters of two sources that are compared
_SAID = regex.compile(r"[\p{L}\p{N}]")
_DENSE = regex.compile(r"[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}]")
_SYLLABLE = regex.compile(r"\p{Script=Hangul}")


def weight(text: str) -> float:
    """How much a text says, roughly: letters and digits, those of Chinese and Japanese counted three times."""
    return len(_SAID.findall(text)) + 2 * len(_DENSE.findall(text)) + len(_SYLLABLE.findall(text))


def bare(text: str) -> str:
    """Letters and digits alone, in one case."""
    return "".join(_SAID.findall(placeholders.plain(text).casefold()))


def whole(source: str, target: str, earlier: Sequence[tuple[str, str]]) -> str:
    """The source of the line whose translation this is, word for word; short ones may be the same."""
    said = bare(target)
    for other, translation in earlier if len(said) >= AGAIN else ():
        if bare(translation) == said and not _alike(_matched(bare(other), bare(source))):
            return other
    return ""


def sentences(
    source: str, target: str, earlier: Sequence[tuple[str, str]], known: Iterable[str] = ()
) -> tuple[str, str] | None:
    """(the longest sentence of other lines' translations in a draft, the source of that line); None where there are
    too few of them to be no chance.

    Args:
        earlier: (source, target) pairs that the prompt shows.
        known: words of a glossary, which any line may have.
    """
    own = bare(source)
    words = [bare(word) for word in known]
    others = [(other, bare(translation)) for other, translation in earlier]
    common: dict[str, tuple[float, bool]] = {}
    found: dict[str, tuple[str, str]] = {}
    for sentence in SENTENCES.findall(placeholders.plain(target)):
        said = bare(sentence)
        if said in found or 3 * weight(said) < ECHO or any(said in word for word in words):
            continue
        for other in [other for other, translation in others if said in translation]:
            if other not in common:
                common[other] = _common(bare(other), own)
            shared, alike = common[other]
            if alike or 2 * shared >= weight(said):  # it is right here, too
                found.pop(said, None)
                break
            found[said] = sentence.strip(), other
    if sum(map(weight, found)) < ECHO:
        return None
    return found[max(found, key=len)]


def _common(one: str, other: str) -> tuple[float, bool]:
    """The weight of the longest run that two sources have in common; whether they are alike, or one is in the other."""
    matcher = _matched(one, other)
    run = matcher.find_longest_match()
    return weight(one[run.a : run.a + run.size]), run.size == min(len(one), len(other)) or _alike(matcher)


def _matched(one: str, other: str) -> difflib.SequenceMatcher[str]:
    """Two sources beside each other; of long ones their beginnings."""
    return difflib.SequenceMatcher(None, one[:LONG], other[:LONG], autojunk=False)


def _alike(matcher: difflib.SequenceMatcher[str]) -> bool:
    """Whether half of both is the same."""
    return all(ratio() >= 0.5 for ratio in (matcher.real_quick_ratio, matcher.quick_ratio, matcher.ratio))
