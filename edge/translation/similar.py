"""Earlier lines like this one: what was translated before, found again by its source.

Owns: which source lines are alike, which translations are kept of them.
Does not know: torch, tokens, what becomes of them: nothing in a translation depends on it (`decoding`).
Units: lines; shares of words.

Lines are alike when they share most of their words, or of their pairs of characters where words are not separated; one
number is as good as another. Where an earlier line has as many words, numbers and file names as this one, those that
differ are replaced by this line's wherever the earlier translation repeats them. What is found follows from the pairs
in their order, so that a run that continues finds the same.
"""

from __future__ import annotations

from collections import Counter

import regex

from ..documents import placeholders
from .languages import Language
from .prompts import Pair, key

LINES = 2  # that are found at most
SHARE = 0.6  # of the words of both lines
LATEST = 64  # lines with a word that are looked at
_NUMBER = regex.compile(r"\d+")
_WORD = regex.compile(r"\w+")
_PART = regex.compile(r"\d+(?:[.,]\d+)*|[\p{L}\p{M}_]+(?:\.\w+)*")  # 12, 1,5, Ahab, report.txt


class Similar:
    """The lines so far and their translations, the last one of each source."""

    def __init__(self, language: Language) -> None:
        """`language`: of the source."""
        self._spaced = language.spaced
        self._targets: dict[str, str] = {}
        self._having: dict[str, list[str]] = {}  # by word, the lines that have it

    def learn(self, pair: Pair) -> None:
        """One more line, or another translation of one."""
        source = key(pair.source)
        if source not in self._targets:
            for word in self._words(source):
                lines = self._having.setdefault(word, [])
                lines.append(source)
                if len(lines) > 2 * LATEST:
                    del lines[:-LATEST]
        self._targets[source] = pair.target

    def of(self, source: str) -> tuple[str, ...]:
        """Translations of lines like this one, the likest first; the line's own alone where it was there before."""
        own = self._targets.get(key(source))
        if own is not None:
            return (own,)
        words = self._words(key(source))
        shared = Counter(line for word in sorted(words) for line in self._having.get(word, ())[-LATEST:])
        likest = {line: self._share(words, line) for line, _ in shared.most_common(4 * LINES)}
        found = sorted((line for line in likest if likest[line] >= SHARE), key=lambda line: -likest[line])
        return tuple(adapted(self._targets[line], line, key(source)) for line in found[:LINES])

    def _share(self, words: set[str], line: str) -> float:
        others = self._words(line)
        return 2 * len(words & others) / (len(words) + len(others))

    def _words(self, line: str) -> set[str]:
        text = _NUMBER.sub("0", placeholders.plain(line).casefold())
        words = _WORD.findall(text)
        if self._spaced:
            return set(words)
        return {word[at : at + 2] for word in words for at in range(max(1, len(word) - 1))}


def adapted(target: str, line: str, source: str) -> str:
    """`target`, the translation of `line`: each part that `line` has too is replaced by what `source` has there.

    Nothing is replaced where the two lines differ in how many parts (words, numbers, file names) they have.
    """
    before = _PART.findall(line)
    after = _PART.findall(source)
    if len(before) != len(after):
        return target
    changed = {old: new for old, new in zip(before, after, strict=True) if old != new}
    mended: str = _PART.sub(lambda match: changed.get(match[0], match[0]), target)
    return mended
