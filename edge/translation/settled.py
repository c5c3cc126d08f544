"""The last word on each unit: what was translated, what the user has made of it since, and where that leaves others.

Owns: how later records go before earlier ones; which words of a translation a correction shows to be wrong names.
Does not know: files, the loop, models.
Units: units of the document.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet

import regex

from ..documents import placeholders
from ..records import Corrected, Record, UnitTranslated
from .folding import alike
from .languages import Language
from .prompts import Pair

LONGEST = 3  # words of a name in a language without capitals
_CASED = {"Latin", "Cyrillic", "Greek", "Armenian"}
_WORD = regex.compile(r"[\p{L}\p{M}]+(?:['’-][\p{L}\p{M}]+)*")
_STARTS = regex.compile(r"(?:^|[.!?…:;\"“”‘'«»(\[—–-])\s*$")
_RUN = regex.compile(r"[\p{L}\p{M}]+")
_POSSESSIVE = regex.compile(r"['’]s$")
_MADE = ("model", "pieces", "marked")  # by the model: what may be done again


class Settled:
    """The records of a run so far, as they count.

    Attributes:
        units: by id, in the order of the document, each as its last record has it.
        corrections: what the user has corrected while the run went on, by id.
        lesson: those that the last record of corrections says are taught now: its own, and earlier ones that were not.
        affected: units that hold a name which a correction has shown to be wrong, with these names; not those that
            were corrected or done again since.
    """

    def __init__(self, source: Language | None = None, target: Language | None = None) -> None:
        """Without languages nothing is `affected`."""
        self.units: dict[str, UnitTranslated] = {}
        self.corrections: dict[str, Pair] = {}
        self.lesson: list[Pair] = []
        self.affected: dict[str, list[str]] = {}
        self._untaught: dict[str, Pair] = {}
        self._languages = (source, target) if source and target else None
        self._ordinary: tuple[set[str], set[str]] = (set(), set())  # words in small letters, of source and target
        self._wrong: dict[str, str] = {}  # a wrong name -> the source text whose correction showed it

    def see(self, record: Record) -> dict[Pair, Pair]:
        """Takes a record in; pairs that were others before."""
        if isinstance(record, Corrected):
            return self._corrected(record)
        if not isinstance(record, UnitTranslated):
            return {}
        before = self.units.get(record.id)
        if before is None:
            self.units[record.id] = record
            for known, text in zip(self._ordinary, (record.source, record.text), strict=True):
                known.update(_lower(text))
            self._look(record)
            return {}
        self.units[record.id] = record
        self.affected.pop(record.id, None)  # it was done again, and is not a third time
        return _changed(before, record.text)

    def after(self, corrections: Mapping[str, Pair]) -> list[str]:
        """The units that would be affected, in their order, if these were corrected."""
        found = set(self.affected)
        for id, pair in corrections.items():
            before = self.units.get(id)
            for name in self._names(before.text, pair) if before else ():
                found |= {unit.id for unit in self.units.values() if self._holds(unit, name, pair.source)}
        return [id for id in self.units if id in found and id not in corrections]

    def _corrected(self, record: Corrected) -> dict[Pair, Pair]:
        changed: dict[Pair, Pair] = {}
        for id, source, target in zip(record.ids, record.sources, record.targets, strict=True):
            pair = Pair(source, target)
            self.corrections[id] = pair
            self._untaught[id] = pair
            before = self.units.get(id)
            self.affected.pop(id, None)
            if before is None:  # its turn comes, and it gets that translation
                continue
            names = self._names(before.text, pair)
            changed |= _changed(before, target)
            self.units[id] = dataclasses.replace(before, text=target, status="corrected")
            for name in names:
                self._wrong[name] = source
                for unit in self.units.values():
                    self._look(unit, (name,))
        if record.taught:
            self.lesson = list(self._untaught.values())
            self._untaught = {}
        return changed

    def _look(self, unit: UnitTranslated, names: Iterable[str] | None = None) -> None:
        for name in self._wrong if names is None else names:
            if self._holds(unit, name, self._wrong[name]) and name not in self.affected.get(unit.id, ()):
                self.affected.setdefault(unit.id, []).append(name)

    def _holds(self, unit: UnitTranslated, name: str, source: str) -> bool:
        if unit.status not in _MADE or self._languages is None:
            return False
        languages = self._languages
        spoken_of = share_a_name(source, unit.source, languages[0], self._ordinary[0])
        return spoken_of and stands(name, unit.text, languages[1])

    def _names(self, before: str, pair: Pair) -> list[str]:
        return wrong_names(before, pair.target, self._languages[1], self._ordinary[1]) if self._languages else []


def of(records: Iterable[Record], source: Language | None = None, target: Language | None = None) -> Settled:
    """What the records of a run come to."""
    found = Settled(source, target)
    for record in records:
        found.see(record)
    return found


def wrong_names(before: str, after: str, language: Language, ordinary: AbstractSet[str] = frozenset()) -> list[str]:
    """Names of a translation that are not in its correction any more.

    With capitals: capitalised words, at the beginning of a sentence those alone that are not `ordinary`, which are
    known in small letters. Without: short runs of words, or of characters where words are not separated, in whose place
    the correction has something else.
    """
    old = placeholders.plain(before)
    new = placeholders.plain(after)
    if _CASED & set(language.scripts):
        kept = {alike(word) for word in (*(match[0] for match in _WORD.finditer(new)), *_capitalised(new))}
        return sorted(name for name in _capitalised(old, ordinary) if alike(name) not in kept)
    first, second = (regex.findall(r"\w+", text) if language.spaced else list(text) for text in map(alike, (old, new)))
    joint = " " if language.spaced else ""
    shortest, longest = (1, LONGEST) if language.spaced else (2, 4 * LONGEST)
    matcher = difflib.SequenceMatcher(None, first, second, autojunk=False)
    return [
        joint.join(first[a:b])
        for kind, a, b, c, d in matcher.get_opcodes()
        if kind == "replace" and shortest <= b - a <= longest and d > c
    ]


def stands(name: str, text: str, language: Language) -> bool:
    """Whether a name stands in a text, as whole words where words are separated."""
    plain = placeholders.plain(text)
    return is_word_of(name, plain) if language.spaced else alike(name) in alike(plain)


def without(name: str, text: str, language: Language) -> str:
    """The text with a full stop in place of a name, of whole words where words are separated."""
    if not language.spaced:
        return text.replace(name, ". ")
    return str(_as_word(name).sub(". ", text))


def is_word_of(name: str, text: str) -> bool:
    """Whether a name stands in a text as a word, or words, of its own."""
    return _as_word(alike(name)).search(alike(text)) is not None


def _as_word(name: str) -> regex.Pattern[str]:
    return regex.compile(rf"(?<![\p{{L}}\p{{M}}]){regex.escape(name)}(?![\p{{L}}\p{{M}}])")


def share_a_name(first: str, second: str, language: Language, ordinary: AbstractSet[str] = frozenset()) -> bool:
    """Whether two source texts may speak of the same: they have a name in common; in languages without capitals, two
    characters in a row.
    """
    texts = [alike(placeholders.plain(text)) for text in (first, second)]
    if _CASED & set(language.scripts):
        one, other = (_capitalised(text) for text in texts)
        return bool(one & other & (_capitalised(texts[0], ordinary) | _capitalised(texts[1], ordinary)))
    one, other = ({run[i : i + 2] for run in _RUN.findall(text) for i in range(len(run) - 1)} for text in texts)
    return bool(one & other)


def _capitalised(text: str, ordinary: AbstractSet[str] | None = None) -> set[str]:
    """Words with capitals; with `ordinary`, of those that begin a sentence only what is not such a word."""
    found = set()
    for match in _WORD.finditer(text):
        word = _POSSESSIVE.sub("", match[0])
        if len(word) < 2 or not word[0].isupper():
            continue
        inside = match.start() > 0 and not _STARTS.search(text, max(0, match.start() - 3), match.start())
        if ordinary is None or inside or word.lower() not in ordinary:
            found.add(word)
    return found


def _lower(text: str) -> set[str]:
    return {word for word in _WORD.findall(placeholders.plain(text)) if word.islower()}


def _changed(before: UnitTranslated, text: str) -> dict[Pair, Pair]:
    old = Pair(before.source, before.text)
    new = Pair(before.source, text)
    return {old: new} if old != new else {}
