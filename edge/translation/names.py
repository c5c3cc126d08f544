"""Name memory: which target name each name of the source got, so that it keeps it for the whole book.

Owns: the alignment of names over pairs that were accepted, who owns a target name, whether a draft has the names of
its source. Does not know: models, prompts, records, files.
Units: pairs in which something occurs; scores 0 to 1.

As in DelTA (arXiv 2410.08143) names are remembered as the book goes and shown where they occur; no model is asked for
them. A candidate of the source (`candidates`) and a run of capitalised words of the translation belong together where
each is in the pairs in which the other is: score = 2 both / (source + target + 1), a Dice coefficient that starts
low. A target name has one owner, the candidate with the highest score (competitive linking, Melamed, ACL 1997):
two people never share one, and of two who are always together neither has one until something tells them apart. Where
a name and its target are in a pair they explain each other: neither is evidence for anything else. A name that is
not followed is forgotten again. All of it is a fold over the accepted pairs in their order, so that it follows from the
records of a run and nothing else; a pair costs what it is long.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import regex

from ..documents import placeholders
from .candidates import UNCASED, Candidates, runs_of, sounds_alike, whole_runs
from .folding import folded
from .languages import Language
from .prompts import Pair, Terms
from .settled import stands, without
from .spelling import near

HEAD = "# names that were remembered: edit the second column and give the file back with --glossary\n"
SHOWN = 12  # names of one unit that a prompt shows at most
# the score from which a name is shown, and below which it is forgotten again, by what tells a name: both languages, the
# target's capitals alone, neither (scripts/lab/names)
PERSON = (0.5, 0.4)
TERM = (0.7, 0.6)
SEQUENCE = (0.85, 0.75)
LEAST = 3  # pairs that a name must have had; one that looks like a person's needs one less
BETTER = 0.1  # by how much a claim must be better than another one's
UNLIKE = 0.8  # what a target counts that does not sound like its name
LONGER = 0.8  # of a name's pairs those that must have the longer form of it
KEPT = 48  # target runs that are remembered of a candidate
# how many pairs one of the user's own counts as: enough by itself for a person's name; for others it is one, since all
# else that is in it is there as often
TAUGHT = 3
_WORD = regex.compile(r"[\p{L}\p{M}]+(?:['’-][\p{L}\p{M}]+)*")
_LETTERS = regex.compile(r"[\p{L}\p{M}]+")
_ENDING = regex.compile(r"e[rsnm]?$")
_BENDING = "az be bg bs cs el et eu fi hr hu hy is ka kk la lt lv mk mn pl ro ru sk sl sq sr tr uk uz"
_FORMS = "mr mrs ms miss sir madam dr herr frau fräulein monsieur madame señor señora he she it they we you the his her"
# languages that bend names: the ends of words may differ
_BENT = frozenset(_BENDING.split())
_NO_NAME = frozenset(_FORMS.split())


@dataclass(frozen=True)
class Name:
    """A name of the source, its target name, and in how many of its pairs that stands."""

    source: str
    target: str
    both: int
    pairs: int


class Memory:
    """The names of a book as far as it was read."""

    def __init__(
        self,
        candidates: Candidates,
        target: Language,
        given: Mapping[str, str] | None = None,
        readings: Mapping[str, str] | None = None,
    ) -> None:
        """A memory that remembers nothing yet.

        Args:
            given: the user's glossary; its terms are never remembered otherwise, and its targets are taken.
            readings: what names are called as long as nothing else is remembered of them (`sounds`).
        """
        given = given or {}
        self._candidates = candidates
        self._target = target
        self._cased = not UNCASED & set(target.scripts) and target.code not in ("ar", "fa", "he", "hi", "ko", "ur")
        self._given = frozenset(map(folded, given))
        self._taken = frozenset(map(folded, given.values()))
        self._readings = {
            name: called
            for name, called in (readings or {}).items()
            if folded(name) not in self._given and folded(called) not in self._taken
        }
        self._unread: set[str] = set()  # names that were called otherwise than they are read
        self._pairs: Counter[str] = Counter()  # of a candidate
        self._runs: Counter[str] = Counter()  # of a target run
        self._inside: Counter[str] = Counter()  # of those, where it does not begin a sentence
        self._whole: Counter[str] = Counter()  # of those, where it is no part of a longer one
        self._lower: Counter[str] = Counter()  # of a word that is written small
        self._met: Counter[str] = Counter()  # pairs of a candidate, and those that had the target name it had then
        self._kept: Counter[str] = Counter()
        self._both: dict[str, Counter[str]] = {}
        self._extra: dict[str, Counter[str]] = {}  # how much of it is the weight of the user's pairs, not their number
        self._taught: set[str] = set()  # sources that the user has translated
        self._wrong: dict[str, set[str]] = {}  # target names that the user has corrected, by candidate
        self._names: dict[str, str] = {}
        self._owner: dict[str, str] = {}

    def learn(self, pair: Pair, *, by_user: bool = False, again: bool = False) -> None:
        """Takes in a pair that was accepted; `again`: its source was there before, translated otherwise."""
        weight = TAUGHT if by_user else 1
        extra = weight - (not again and pair.source not in self._taught) if by_user else 0
        if by_user:
            self._taught.add(pair.source)
        target = placeholders.plain(pair.target)
        found = self._here(pair.source)
        if by_user:  # who goes back to a name that was corrected has it again
            for called in self._wrong.values():
                called -= {run for run in called if stands(run, target, self._target)}
            self._read_by_user(found, target)
        here = [name for name in found if not self._is_wrong(name, target)]
        whole = self._seen(target)[1]
        kept = {name for name in here if self._names.get(name) in whole}
        for name in here:
            self._met[name] += 1
            self._kept[name] += name in kept
        for name in sorted(kept):
            run = self._names[name]
            target = without(run, target, self._target)  # explained: it tells nothing of the others
            self._pairs[name] += weight
            self._both[name][run] += weight
            if extra:
                self._extra.setdefault(name, Counter())[run] += extra
            for counts in (self._runs, self._inside, self._whole):
                counts[run] += weight
        runs, whole, small = self._seen(target)
        self._lower.update(small)
        for run, inside in runs.items():
            if run.casefold() not in self._owner:
                self._runs[run] += weight
                self._inside[run] += weight * inside
                self._whole[run] += weight * (run in whole)
        new = [name for name in here if name not in kept]
        for name in new:
            self._pairs[name] += weight
            both = self._both.setdefault(name, Counter())
            both.update(dict.fromkeys(runs, weight))
            if extra:
                self._extra.setdefault(name, Counter()).update(dict.fromkeys(runs, extra))
            if len(both) > 2 * KEPT:
                had = self._names.get(name, "")
                most = sorted(both.items(), key=lambda item: (item[0] != had, -item[1], item[0]))[:KEPT]
                self._both[name] = Counter(dict(most))
                more = self._extra.get(name, Counter())
                self._extra[name] = Counter({run: more[run] for run, _ in most if run in more})
        for name in new:
            self._settle(name, new)

    def correct(self, before: str, pair: Pair) -> None:
        """Learns a pair of the user's that stands in place of the translation `before`.

        A remembered name that is not in it any more, where another one is, was wrong: what its name of the source was
        called so far counts no longer, nor do later pairs that call it so.
        """
        old = self._seen(placeholders.plain(before))[0]
        new = self._seen(placeholders.plain(pair.target))[0]
        for name in self._here(pair.source) if new.keys() - old.keys() else ():
            called = self._names.get(name)
            if called is None or called not in old or stands(called, pair.target, self._target):
                continue
            self._wrong.setdefault(name, set()).add(called)
            del self._names[name]
            del self._owner[called.casefold()]
            for counts in (self._pairs, self._met, self._kept, self._both, self._extra):
                counts.pop(name, None)
        self.learn(pair, by_user=True, again=bool(before))

    def _read_by_user(self, names: Sequence[str], target: str) -> None:
        """The user's own translation says how its names are read: one whose reading is not in it is not shown so."""
        for name in self._readings.keys() & set(names):
            if stands(self._readings[name], target, self._target):
                self._unread.discard(name)
            else:
                self._unread.add(name)

    def _here(self, source: str) -> list[str]:
        """The candidates in a source text of which the glossary says nothing."""
        return [name for name in self._candidates.alone(source) if folded(name) not in self._given]

    def _is_wrong(self, name: str, text: str) -> bool:
        """Whether a translation calls `name` what the user has corrected."""
        return any(stands(run, text, self._target) for run in self._wrong.get(name, ()))

    def applying(self, text: str) -> list[tuple[str, str]]:
        """The (source, target) names that stand in `text`, longest first; one inside another is left out."""
        rest = placeholders.plain(text)
        found = []
        for name in sorted(self._candidates.within(text), key=lambda name: (-len(name), name)):
            called = self._names.get(name) or self._read(name)
            if called and name in rest:
                found.append((name, called))
                rest = rest.replace(name, "\0")
        return found[:SHOWN]

    def _read(self, name: str) -> str | None:
        """How a name is read, where nobody else is called so and the user has not said otherwise."""
        called = self._readings.get(name)
        return None if called is None or name in self._unread or called.casefold() in self._owner else called

    def names(self) -> list[Name]:
        """All names that are remembered, the most frequent first."""
        found = [Name(s, t, self._kept[s], self._met[s]) for s, t in self._names.items()]
        return sorted(found, key=lambda name: (-name.pairs, name.source))

    def _seen(self, text: str) -> tuple[dict[str, bool], set[str], set[str]]:
        """The runs of a target text, each with whether it stands inside a sentence; those that are whole; and its
        words in small letters.
        """
        if self._cased:
            runs: dict[str, bool] = {}
            for run, inside in runs_of(text):
                runs[run] = runs.get(run, False) or inside
            return runs, whole_runs(text), {word for word in _WORD.findall(text) if word.islower()}
        if self._target.spaced:
            found = dict.fromkeys(_WORD.findall(text), True)
        else:
            parts = regex.findall(r"[\p{L}\p{M}·・]+", text)
            found = {p[i : i + n]: True for p in parts for n in range(2, 7) for i in range(len(p) - n + 1)}
        return found, set(found), set()

    # --- who is called what ---

    def _score(self, name: str, run: str) -> float:
        dice = 2 * self._both[name][run] / (self._pairs[name] + self._runs[run] + 1)
        return dice if sounds_alike(name, run) else UNLIKE * dice

    def _is_name(self, run: str) -> bool:
        """Whether a run's capitals are its own: it stands inside sentences, is not as often written small, and no mere
        part of a longer one.
        """
        if not self._cased:
            return True
        if len(run) < 2 or run.casefold() in _NO_NAME or 4 * self._inside[run] < self._runs[run]:
            return False
        if 2 * self._whole[run] < self._runs[run]:
            return False
        return " " in run or 2 * self._lower[run.lower()] < self._runs[run]

    def _settle(self, name: str, beside: Sequence[str]) -> None:
        """Decides anew what `name` is called; who loses a target name to it decides anew as well.

        Args:
            beside: the names of the same pair: its rivals.
        """
        waiting = [name]
        for _ in range(8):  # one pushes out another: in practice once
            if not waiting:
                break
            name = waiting.pop()
            lost = self._choose(name, [other for other in beside if other != name])
            if lost is not None:
                waiting.append(lost)

    def _choose(self, name: str, rivals: Sequence[str]) -> str | None:
        """Gives `name` the best target name that it can have; returns who had it before."""
        had = self._names.pop(name, "")
        if had:
            del self._owner[had.casefold()]
        for run in self._wanted(name, had):
            owner = self._owner.get(run.casefold())
            claim = self._score(name, run)
            others = [other for other in (*rivals, *([owner] if owner else ())) if run in self._both.get(other, ())]
            if run != had and any(self._score(other, run) + BETTER > claim for other in others):
                continue
            if owner is not None:
                del self._names[owner]
            self._names[name] = run
            self._owner[run.casefold()] = name
            if run != self._readings.get(name):
                self._unread.add(name)
            return owner
        return None

    def _wanted(self, name: str, had: str) -> list[str]:
        """The target names that are good enough for `name`, the best first; what it `had` stays before what is little
        better.
        """
        both = self._both[name]
        person = self._cased and self._candidates.personal(name)
        enough, left = PERSON if person else TERM if self._cased else SEQUENCE
        least = LEAST - person
        extra = self._extra.get(name, Counter())
        scores = {
            run: self._score(name, run)
            for run, count in both.items()
            if (count if person else count - extra[run]) >= least
        }
        good = {run: score for run, score in scores.items() if score >= (left if run == had else enough)}
        if had in good:
            good[had] += BETTER
        ranked = sorted(good, key=lambda run: (good[run], len(run), run), reverse=True)
        longest = (self._longest(run, both, scores) for run in ranked)
        wanted = [run for run in longest if folded(run) not in self._taken and self._is_name(run)]
        if wanted[:1] in ([], [had]):
            return wanted
        # of two that are as good as each other it is neither
        words = set(_LETTERS.findall(wanted[0]))
        others = [run for run in scores if not words & set(_LETTERS.findall(run)) and run.casefold() not in self._owner]
        unclear = any(scores[run] + BETTER > scores[wanted[0]] and self._is_name(run) for run in others)
        return [] if unclear and self._cased else wanted

    def _longest(self, run: str, both: Mapping[str, int], often: Iterable[str]) -> str:
        """The longest run around `run` that is nearly as frequent: the whole name, where a part of it fits as well."""
        least = LONGER * both[run]
        gap = " " if self._target.spaced else ""
        inner = f"{gap}{run}{gap}"
        around = [r for r in often if inner in f"{gap}{r}{gap}" and both[r] >= least and self._is_name(r)]
        return max(around, key=lambda other: (len(other), other), default=run)

    # --- whether a draft has its names ---

    def missing(self, names: Terms, text: str) -> list[tuple[str, str]]:
        """Those of `names` of which a translation has no word."""
        plain = folded(placeholders.plain(text))
        words = set(_LETTERS.findall(plain))
        return [(source, target) for source, target in names if not self._has(folded(target), plain, words)]

    def misspelt(self, names: Terms, source: str, text: str) -> list[tuple[str, str]]:
        """(what stands there, the name) of each remembered name of several words that a translation has in another
        spelling, whether or not its source has it: models slip where they take up a name from before, too. None where
        the source has somebody who has no name yet: it may be his.

        Args:
            names: of the source, and glossary terms: their spelling is right, whatever it is like.
        """
        told = {name for name, _ in names}
        here = (name for name in self._here(source) if name not in told and self._candidates.personal(name))
        if not (self._cased and self._target.spaced) or any(name not in self._names for name in here):
            return []
        owned = [name.split() for name in self._names.values() if " " in name]
        known = {folded(" ".join(words)) for words in owned} | self._taken | {folded(name) for _, name in names}
        longer = [f" {name} " for name in known if " " in name]
        runs = {folded(run): run.split() for run, _ in runs_of(placeholders.plain(text)) if " " in run}
        new = [words for run, words in runs.items() if not any(f" {run} " in at or at in f" {run} " for at in longer)]
        having: dict[str, list[list[str]]] = {}
        for words in owned if new else ():
            for word in set(words):
                having.setdefault(word, []).append(words)
        return [
            (" ".join(words), " ".join(name))
            for words in new
            for name in {" ".join(name): name for word in words for name in having.get(word, ())}.values()
            if _slipped(name, words, self._target)
        ]

    def _has(self, target: str, text: str, words: set[str]) -> bool:
        if target in text:
            return True
        parts = _LETTERS.findall(target) if self._target.spaced else []
        if self._target.code in _BENT:
            return any(_bent(part, word) for part in parts for word in words)
        return any(part in words for part in parts if len(part) > 1)


def nothing(target: Language) -> Memory:
    """A memory in which there is no name."""
    return Memory(Candidates((), target), target)


def _slipped(name: Sequence[str], words: Sequence[str], language: Language) -> bool:
    """Whether words are a name but for the spelling of one of them; another ending is none where adjectives bend."""
    if len(name) != len(words):
        return False
    others = [pair for pair in zip(name, words, strict=True) if pair[0] != pair[1]]
    if len(others) != 1 or not near(*others[0], language):
        return False
    return language.code != "de" or len({_ENDING.sub("", word) for word in others[0]}) > 1


def _bent(name: str, word: str) -> bool:
    """Whether a word may be a name with another ending."""
    common = max(3, len(name) - 2)
    return len(word) <= len(name) + 4 and word[:common] == name[:common]


def table(given: Mapping[str, str], names: Iterable[Name]) -> Sequence[tuple[str, str, str]]:
    """Rows of a glossary that holds the user's terms and what was remembered, with a note on each of the latter; of two
    spellings that a glossary takes for one (O'Brien, O’Brien) the one that is in more units.
    """
    rows = {folded(source): (source, target, "") for source, target in given.items()}
    for name in sorted(names, key=lambda name: -name.pairs):
        rows.setdefault(folded(name.source), (name.source, name.target, f"in {name.both} of {name.pairs} units"))
    return list(rows.values())
