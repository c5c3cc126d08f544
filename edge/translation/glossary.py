"""Glossary: terms and the translations that they must have.

Owns: reading and writing of TSV glossaries, which terms apply to a text, which terms a book suggests.
Does not know: prompts, models.
Units: lines count from 1.

A glossary is a UTF-8 file with one term a line: source, tab, target, and after another tab anything (a note). Empty
lines and lines that begin with # are skipped. A line with an empty target is a question still open: it is skipped too.
A first line of heads says which columns these are (`heads`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import regex

from ..documents import placeholders, read_text
from ..errors import InputError
from . import folding, heads, tsv
from .languages import Language

MAX_TERMS = 20_000
MAX_LENGTH = 200  # characters of a term


@dataclass(frozen=True)
class Glossary:
    """Terms: source -> target, both as they were written."""

    terms: Mapping[str, str]

    def applying(self, text: str) -> list[tuple[str, str]]:
        """The (source, target) pairs whose source occurs in `text`, longest first; a
        term inside a longer one is out.
        """
        rests = folding.readings(text)
        found = []
        for source, term in self._folded:
            if not any(term.removeprefix(_ALIF) in rest for rest in rests):
                continue
            pattern = _occurrence(term)
            if any(map(pattern.search, rests)):
                found.append((source, self.terms[source]))
                rests = [pattern.sub("\0", rest) for rest in rests]
        return found

    @cached_property
    def _folded(self) -> list[tuple[str, str]]:
        """The terms as they were written and folded, the longest first; every unit asks for them."""
        ordered = sorted(self.terms, key=lambda term: (-len(term), term))
        return [(source, term) for source in ordered if (term := folding.folded(source))]


def read(path: str | Path, of: Language | None = None, into: Language | None = None) -> Glossary:
    """A glossary from a TSV file.

    Args:
        of: the language of the terms, which a head line may name; `into`: that of their translations.

    Raises:
        InputError: it cannot be read, a line is malformed, or a term has two translations; the line is named.
    """
    terms: dict[str, str] = {}
    known: dict[str, tuple[int, str]] = {}  # by folded term: its line and translation
    first, second, rows = heads.without(tsv.rows(read_text(str(path))), of, into)
    for number, row in rows:
        if not any(cell.strip() for cell in row) or row[0].lstrip().startswith("#"):
            continue
        where = f"{path} line {number}"
        if len(row) <= max(first, second):
            got = f"{len(row)} columns" if len(row) > 1 else "no tab"
            raise InputError(f"{where} has {got}", "source, tab, target", "put tabs between the columns")
        source = row[first].strip()
        target = row[second].strip()
        if not source:
            raise InputError(f"{where} has no source term", "source, tab, target", "fill it in or remove the line")
        if max(len(source), len(target)) > MAX_LENGTH:
            raise InputError(f"{where} has a term of {max(len(source), len(target))} characters", f"{MAX_LENGTH}")
        if placeholders.plain_brackets(source + target) or placeholders.plain(source + target) != source + target:
            raise InputError(f"{where} holds ⟦ or ⟧", "text without these marks", "remove them")
        key = folding.folded(source)
        if not target:
            continue
        if key in known and known[key][1] != target:
            raise InputError(
                f"{where} gives '{source}' another translation than line {known[key][0]}",
                "one translation for each term",
                "remove one of the two lines",
            )
        if key not in known:
            terms[source] = target
            known[key] = (number, target)
        if len(terms) > MAX_TERMS:
            raise InputError(f"{path} has more than {MAX_TERMS} terms", "a glossary, not a dictionary", "shorten it")
    return Glossary(terms)


def write(rows: Iterable[tuple[str, str, str]]) -> str:
    """The text of a TSV glossary from (source, target, note) rows."""
    return "".join("\t".join(" ".join(cell.split()) for cell in row).rstrip("\t") + "\n" for row in rows)


# --- what a book suggests ---


def recurring(texts: Sequence[str], language: Language, *, least: int = 3, most: int = 100) -> list[tuple[str, int]]:
    """Names and terms that occur in at least `least` of `texts`, with that count, the most frequent first.

    Where a language writes names with capitals: runs of capitalised words that do not only begin sentences. In Chinese,
    Japanese and others without: character sequences that hold together, that is, occur much more often than their
    parts would by chance, and have many different neighbours on both sides.
    """
    plain = [placeholders.plain(text) for text in texts]
    cased = not {"Han", "Hiragana", "Katakana", "Thai", "Lao", "Khmer", "Myanmar"} & set(language.scripts)
    counts = _capitalised(plain) if cased else _cohesive(plain, least)
    frequent = [(term, count) for term, count in counts.items() if count >= least]
    return sorted(frequent, key=lambda item: (-item[1], item[0]))[:most]


_NAME = regex.compile(r"\p{Lu}[\p{L}\p{M}'’-]*(?:[ \u00a0]\p{Lu}[\p{L}\p{M}'’-]*)*")
_STARTS = regex.compile(r"(?:^|[.!?…:;\"“”‘'«»(\[—–-])\s*$")


def _capitalised(texts: Sequence[str]) -> Counter[str]:
    """Texts in which each run of capitalised words occurs, for those that also stand inside a sentence."""
    counts: Counter[str] = Counter()
    inside: set[str] = set()
    for text in texts:
        seen = set()
        for match in _NAME.finditer(text):
            name = regex.sub(r"['’](?:s|m|d|t|ll|re|ve)$", "", match[0])
            begins = not match.start() or _STARTS.search(text, max(0, match.start() - 3), match.start())
            if begins and " " in name:  # "Then Captain Ahab": the first word may be no name
                name = name.partition(" ")[2]
                begins = False
            if len(name) > 1:
                seen.add(name)
                if not begins:
                    inside.add(name)
        counts.update(seen)
    lower = {word for text in texts for word in regex.findall(r"\b\p{Ll}[\p{L}\p{M}]*\b", text)}
    return Counter({n: c for n, c in counts.items() if n in inside and n.lower() not in lower})


def _cohesive(texts: Sequence[str], least: int) -> Counter[str]:
    """Texts in which each cohesive sequence of 2 to 4 characters occurs."""
    runs = [run for text in texts for run in regex.findall(r"[\p{L}\p{M}]+", text)]
    singles = Counter(char for run in runs for char in run)
    grams = Counter(gram for run in runs for gram in _grams(run))
    total = sum(singles.values())
    frequent = {gram: count for gram, count in grams.items() if count >= least}
    before: dict[str, set[str]] = defaultdict(set)
    after: dict[str, set[str]] = defaultdict(set)
    for number, run in enumerate(runs):
        for start in range(len(run)):
            for size in (2, 3, 4):
                gram = run[start : start + size]
                if len(gram) == size and gram in frequent:
                    before[gram].add(run[start - 1] if start else f"<{number % 4}")
                    after[gram].add(run[start + size] if start + size < len(run) else f">{number % 4}")

    def holds(gram: str, count: int) -> bool:
        def of(part: str) -> int:
            return grams[part] if len(part) > 1 else singles[part]

        halves = [(of(gram[:i]), of(gram[i:])) for i in range(1, len(gram))]
        together = all(count * total > 60 * left * right or 2 * count > min(left, right) for left, right in halves)
        return together and min(len(before[gram]), len(after[gram])) >= 3

    kept = {gram: count for gram, count in frequent.items() if holds(gram, count)}
    inner = {
        part
        for gram, count in kept.items()
        for part in _grams(gram)
        if part != gram and part in kept and kept[part] < 1.3 * count
    }
    return Counter({gram: sum(gram in text for text in texts) for gram in kept if gram not in inner})


def _grams(run: str) -> Iterator[str]:
    for size in (2, 3, 4):
        for start in range(len(run) - size + 1):
            yield run[start : start + size]


# scripts that set words apart; in the others a term stands anywhere
_SPACED = r"[\p{L}--[ー\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]]"
_FOLLOWED = rf"[{_SPACED}--\p{{Hangul}}]"  # Korean particles follow without a space
_MARKED = r"[\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"  # a vowel sign after one makes it another syllable
# and, to, in, the: what Arabic and Hebrew write together with the next word, here before three letters and more
_PREFIXES = {"Arabic": "[وف]?(?:لل|[بلك]?(?:ال)?)", "Hebrew": "ו?(?:לכש|כש|מש|ש)?[בלמכ]?ה?"}
_ALIF = "ا"  # of the article; it is not written after `to`


@cache
def _occurrence(term: str) -> regex.Pattern[str]:
    """Where a folded term stands: as whole words, where its ends are letters of a script that separates words."""
    script = next((name for name in _PREFIXES if regex.match(rf"\p{{{name}}}{{3}}", term)), "")
    bound = rf"(?<!{_SPACED})" if regex.match(_SPACED, term, regex.V1) else ""
    head = rf"(?<={bound}{_PREFIXES[script]})" if script else bound
    tail = rf"(?!{_FOLLOWED})" if regex.match(_FOLLOWED, term[-1], regex.V1) else ""
    if regex.match(_MARKED, term[-1]):
        tail = r"(?!\p{M})"
    text = head + regex.escape(term)
    if term.startswith(_ALIF + "ل"):
        text = rf"(?:{text}|(?<={bound}[وف]?ل){regex.escape(term[1:])})"
    return regex.compile(text + tail, regex.V1)
