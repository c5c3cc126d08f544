"""Numbers written as words: English ones to values.

Owns: which English words are numbers, and how they add up.
Does not know: digits, Chinese and Japanese numerals, what a number is compared with (`numerals`).
Units: values as Decimals; spans in characters.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import NamedTuple

import regex

_NAMES = """
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
    eighteen nineteen
    """
_TEN_NAMES = "twenty thirty forty fifty sixty seventy eighty ninety"
_ORDINAL_NAMES = """
    zeroth first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth
    fifteenth sixteenth seventeenth eighteenth nineteenth
    """
_SMALL = _NAMES.split()
_TENS = _TEN_NAMES.split()
_ORDINALS = _ORDINAL_NAMES.split()
SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
# what stands for a number without being one; the most that a reader may take it for
_ALSO: dict[str, tuple[str, ...]] = {
    "half": ("0.5", "30", "50"),
    "quarter": ("0.25", "15", "25"),
    "noon": ("12",),
    "midday": ("12",),
    "midnight": ("0", "12", "24"),
    "dozen": ("12",),
    "dozens": ("12",),
    "score": ("20",),
    "decade": ("10",),
    "century": ("100",),
    "centuries": ("100",),
    "millennium": ("1000",),
    "millennia": ("1000",),
    "fortnight": ("14", "15"),
    "once": ("1",),
    "twice": ("2",),
    "thrice": ("3",),
    "double": ("2",),
    "both": ("2",),
    "couple": ("2",),
    "pair": ("2",),
    "single": ("1",),
    "percent": ("100",),
}
ROUND = frozenset(
    ("dozen", "score", "decade", "century", "centuries", "millennium", "millennia")
)  # of which there may be several: three decades


def _table() -> dict[str, int]:
    words: dict[str, int] = {}
    for names in (_SMALL, _ORDINALS):
        words |= {name: value for value, name in enumerate(names)}
    for value, name in enumerate(_TENS, 2):
        words |= {name: 10 * value, name[:-1] + "ieth": 10 * value, name[:-1] + "ies": 10 * value}
    for name, value in SCALES.items():
        words |= {name: value, name + "th": value, name + "s": value}
    return words


_WORDS = _table()
_ONE = r"(?:" + "|".join(sorted(_WORDS, key=len, reverse=True)) + r")"
_RUN = regex.compile(
    rf"(?<![\p{{L}}\p{{M}}])(?:(?:an?|half an?)[\s-]+(?=(?:hundred|thousand|million|billion|trillion)\b))?{_ONE}"
    rf"(?:(?:\s*-\s*|,?\s+and\s+(?:a\s+half\s+(?=(?:thousand|million|billion)\b))?|,?\s+)(?:oh[\s-])?{_ONE})*+(?![\p{{L}}\p{{M}}])",
    regex.IGNORECASE,
)
_SINGLE = regex.compile(r"(?<![\p{L}\p{M}])(?:" + "|".join(_ALSO) + r")s?(?![\p{L}\p{M}])", regex.IGNORECASE)
_MONTHS = regex.compile(
    r"(?<![\p{L}\p{M}])([\p{L}]+) (?:years? and a half|and a half years)(?![\p{L}\p{M}])", regex.IGNORECASE
)
_BEFORE_ROUND = regex.compile(r"([\p{L}-]+)\s+$")


class Spelled(NamedTuple):
    """One number in words: its value as it stands, others that it may be meant as, and where it is."""

    value: Decimal
    others: frozenset[Decimal]
    start: int
    end: int


def english(text: str) -> Iterator[Spelled]:
    """The numbers of an English text that are written as words, in order: thirty-two, nineteen eighty-four."""
    for match in _RUN.finditer(text):
        yield from _numbers(match[0].lower(), match.start())


def hinted(text: str) -> set[Decimal]:
    """Values that English words stand for without being numbers: noon, half an hour, two decades."""
    found: set[Decimal] = set()
    for match in _SINGLE.finditer(text):
        word = match[0].lower()
        stem = word if word in _ALSO else word[:-1]
        values = {Decimal(value) for value in _ALSO[stem]}
        before = _BEFORE_ROUND.search(text, max(0, match.start() - 20), match.start())
        if stem in ROUND and before and (count := _WORDS.get(before[1].lower())):
            values.add(count * Decimal(_ALSO[stem][0]))
        if stem == "quarter" and before and before[1].lower() == "three":
            values |= {3 * value for value in values}
        found |= values
    for match in _MONTHS.finditer(text):  # a year and a half is eighteen months
        years = 1 if match[1].lower() in ("a", "one") else _WORDS.get(match[1].lower(), 0)
        found |= {Decimal(12 * years + 6)} if years else set()
    return found


def _numbers(run: str, start: int) -> Iterator[Spelled]:
    """A run of number words as numbers: a word that cannot go on with what stands before it begins another one."""
    pieces = [(m[0], start + m.start(), start + m.end()) for m in regex.finditer(r"\p{L}+", run)]
    numbers: list[Spelled] = []
    sum_ = _Sum()
    begun = end = start
    factor = Decimal(1)
    for index, (word, first, last) in enumerate(pieces):
        if word in ("a", "an", "and"):
            continue
        if word == "half":
            # half a million; two and a half million
            if index == 0:
                factor = Decimal("0.5")
            else:
                sum_.current += Decimal("0.5")
            continue
        if word == "oh":  # nineteen oh-five
            sum_.closed = True
            continue
        if not sum_.takes(word):
            numbers.append(Spelled(sum_.value * factor, sum_.others, begun, end))
            sum_ = _Sum()
            factor = Decimal(1)
        if sum_.empty:
            begun = first
        sum_.add(word)
        end = last
    if not sum_.empty:
        numbers.append(Spelled(sum_.value * factor, sum_.others, begun, end))
    yield from _years(numbers)


def _years(numbers: list[Spelled]) -> Iterator[Spelled]:
    """Two numbers of two digits in a row may be a year: nineteen eighty-four, nineteen oh-five."""
    index = 0
    while index < len(numbers):
        first = numbers[index]
        second = numbers[index + 1] if index + 1 < len(numbers) else None
        gap = second.start - first.end if second else 0
        spoken = (gap == 1 and second.value >= 10) or (gap == 4 and second.value < 10) if second else False
        if second and spoken and 10 <= first.value < 100 and second.value < 100:
            parts = frozenset((first.value, second.value))
            yield Spelled(100 * first.value + second.value, parts, first.start, second.end)
            index += 2
            continue
        yield first
        index += 1


class _Sum:
    """A number in the making: full thousands and more, and what stands after them."""

    def __init__(self) -> None:
        self.total = Decimal(0)
        self.current = Decimal(0)
        self.empty = True
        self.others: frozenset[Decimal] = frozenset()
        self.closed = False  # ordinals and plurals end a number
        self.scale = 10**15  # of the last full thousand or million

    @property
    def value(self) -> Decimal:
        """What it is so far."""
        return self.total + self.current

    def takes(self, word: str) -> bool:
        """Whether a word goes on with the number."""
        if self.empty:
            return True
        value = _WORDS[word]
        if self.closed:
            return False
        if value >= 1000:
            return self.current > 0 and value < self.scale
        if value == 100:
            return 0 < self.current < 100 and self.current % 10 != 0
        below = self.current % 100
        if value >= 10:
            return below == 0
        return below == 0 or (below >= 20 and below % 10 == 0 and value > 0)

    def add(self, word: str) -> None:
        """Adds a word that it takes."""
        value = _WORDS[word]
        self.closed = word not in _SMALL and word not in _TENS and word not in SCALES
        if value >= 1000:
            self.total += (Decimal(1) if self.empty else self.current) * value
            self.current = Decimal(0)
            self.scale = value
        elif value == 100:
            self.current = (self.current or Decimal(1)) * 100
        else:
            self.current += value
        if word == "second":  # a thirty-second pause
            self.others = frozenset((self.value - 2,))
        self.empty = False
