"""Months in texts: as numbers of dates, in both orders, and by name.

Owns: where a month stands as a number, the names of months.
Does not know: other numbers, calendars.
Units: months from 1 to 12; places in characters.
"""

from __future__ import annotations

import re

# 12月, 12월, 12.10.2020 and 12/10/2020 in both orders, 2020-12-10, 十二月; 三个月 and 月光 are none
_WRITTEN = re.compile(
    r"(?P<digits>\d{1,2}(?=\s?(?:月(?!子)|월))|(?<![\d.])\d{1,2}(?=[./-]\d{1,2}[./-]\d{4})|(?<=\d[./-])\d{1,2}(?=[./-]\d{4})"
    r"|(?<=\d{4}[/-])\d{1,2}(?=[/-]\d{1,2}))|(?P<han>十[一二]?|(?<!十)[一二三四五六七八九])(?=月(?![亮光子球饼餅色下牙夜]))"
)
_HAN = dict(zip("一二三四五六七八九十", range(1, 11), strict=True))
_NAMES = {
    "en": "january february march april may june july august september october november december",
    "de": "januar februar märz april mai juni juli august september oktober november dezember",
    "fr": "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
    "es": "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre",
    "it": "gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre dicembre",
    "pt": "janeiro fevereiro março abril maio junho julho agosto setembro outubro novembro dezembro",
    "nl": "januari februari maart april mei juni juli augustus september oktober november december",
}
_NUMBER_OF = {name: n for names in _NAMES.values() for n, name in enumerate(names.split(), 1)}
_NAME = "|".join(sorted(_NUMBER_OF, key=len, reverse=True))
# only beside a number: may, march and mars are other words as well
_NAMED = re.compile(
    rf"\d(?:st|nd|rd|th|er|º)?\.?\s+(?:of\s+|de\s+)?(?P<after>{_NAME})\b|\b(?P<before>{_NAME})\s+(?:the\s+)?\d",
    re.IGNORECASE,
)


def places(text: str) -> dict[int, int]:
    """Where a month may stand as a number, and which it is then: of 12/10/2020 both are found."""
    found = ((match.start(), _month(match)) for match in _WRITTEN.finditer(text))
    return {at: month for at, month in found if month}


def without(text: str) -> str:
    """The text with blanks in these places."""
    return _WRITTEN.sub(lambda match: " " * len(match[0]) if _month(match) else match[0], text)


def _month(match: re.Match[str]) -> int:
    """0 where it is none."""
    month = int(match[0]) if match["digits"] else sum(_HAN[char] for char in match[0])
    return month if month <= 12 else 0


def named(text: str) -> set[int]:
    """The months that a text calls by their names, beside a day or a year."""
    return {_NUMBER_OF[(match["after"] or match["before"]).lower()] for match in _NAMED.finditer(text)}


def changed(source: str, target: str) -> list[int]:
    """Months of a source where its translation has another one.

    Where both have digits alone, they are compared as numbers.
    """
    due = named(source)
    there = named(target)
    if not due and there:
        due = set(places(source).values())
        if due & there:  # the other number of 12/10/2020 is a day
            return []
    elif due and not there:
        there = set(places(target).values())
    return sorted(due - there) if there else []
