"""What a number may also be meant as by what stands around it: hours, years of two digits, decades, prices, fractions.

Owns: those readings, what Chinese numerals add up to.
Does not know: which numbers a text has, which of them must be there (`numerals`).
Units: values as Decimals; times in hours and minutes.

A reading too many lets a change pass, one too few marks a line that is right.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import NamedTuple

SIDE = 20  # characters on each side that are looked at
_ERAS = {"明治": 1867, "大正": 1911, "昭和": 1925, "平成": 1988, "令和": 2018, "民国": 1911, "民國": 1911}
_ERA = re.compile(f"(?:{'|'.join(_ERAS)})$")
_HAN = "〇零一二两兩三四五六七八九十"
_HOUR_AFTER = re.compile(
    r"\s?(?:uhr\b|น\.|h(?:\d\d)?\b|heures?\b|horas?\b|uur\b|час(?:а|ов|у|ам)?\b|годин[аиіу]?\b|[点點时時시]|[ap]\.?\s?m\b)",
    re.IGNORECASE,
)
_HOUR_BEFORE = re.compile(
    r"(?:\b(?:um|ore|godz\.|kl\.|klo|alle|dalle|a las|as|às|à)\s|[上中下]午|[早晚]上|午前|午後|오전 ?|오후 ?)$",
    re.IGNORECASE,
)
_DECADE = re.compile(r"(?:['’]?s\b|er\b|年代|년대|-?(?:е|х|ті|тих)\b)")
_THE_YEARS = re.compile(r"\b(?:ann[eé]es|años|anos|anni|jaren|lata|roky)\s$", re.IGNORECASE)
_DECIMAL = re.compile(rf"([{_HAN}]{{1,3}})[点點]([〇零一二三四五六七八九]{{1,6}})(?![十百千刻半分])([万萬亿億]?)")
_MEASURED = re.compile(
    rf"([{_HAN}]{{1,4}}|\d{{1,4}})(?:[米块塊]([〇零一二三四五六七八九\d])([〇零一二三四五六七八九\d]?)|度([〇零一二三四五六七八九\d]))(?![十百千万])"
)
_SUMMED = re.compile(
    r"(?<![\d,])(?:\d[\d,]{0,30}(?:\.\d{1,30})?\s?[百千万萬亿億백천만억조]{1,2}\s?){2,}(?:\d+(?![\d,]))?"
)
_SUMMAND = re.compile(r"(\d[\d,]*(?:\.\d+)?)\s?([百千万萬亿億백천만억조]{0,2})")
_HAVING = re.compile(r"([二三四五六七八九]?十)[有又]([一二三四五六七八九])(?![千百万十个個])")  # 四十有三
_FRACTION = re.compile(rf"([{_HAN}百千万萬]{{1,8}}|\d{{1,8}})分之([{_HAN}百]{{1,8}}|\d{{1,8}}(?:\.\d{{1,8}})?)")
_ABOUT = re.compile(rf"([{_HAN}]{{1,4}}|\d{{1,4}})[几幾多来來余餘]([百千万萬亿億]{{1,2}})")
UNITS = {
    unit: value
    for value, units in (
        (10, "十"),
        (100, "百백"),
        (1000, "千천"),
        (10**4, "万萬만"),
        (10**8, "亿億억"),
        (10**12, "조"),
    )
    for unit in units
}
VALUES = {
    char: value
    for value, chars in enumerate(("〇零", "一", "二两兩", "三", "四", "五", "六", "七", "八", "九"))
    for char in chars
}


class Made(NamedTuple):
    """Numbers of a text that are parts of one: the values of the whole, and where it stands."""

    values: frozenset[Decimal]
    start: int
    end: int


def readings(value: Decimal, before: str, after: str) -> Iterator[Decimal]:
    """What else a number may be meant as between its neighbours.

    Args:
        before: up to `SIDE` characters.
        after: the same.
    """
    yield from _years(value, before, after)
    yield from _times(value, before, after)
    if after.startswith("折"):  # what is left of a price; its other part is the discount
        tenths = value * 10 if value < 10 else value
        yield tenths
        yield 100 - tenths
    if after.startswith("成"):
        yield value * 10 + (5 if after.startswith("成半") else 0)
    if re.match(r"[个個]?(?:时辰|時辰)", after):
        yield value * 2  # in hours
    if re.match(r"(?:多|来|來|几|幾|余|餘)?[斤里]", after) and not before.endswith(("公", "英")):
        yield value / 2  # in kilograms and kilometres
        yield value * 500
    if re.match("[毛角]", after):
        yield value / 10
        yield value * 10  # in cents
    if (
        0 < value < 1000
        and value % 24 == 0
        and re.match(r"[\s-]?(?:个小时|個小時|小时|小時|時間|hours?\b|시간)", after)
    ):
        yield value / 24  # in days


def _years(value: Decimal, before: str, after: str) -> Iterator[Decimal]:
    if after.startswith(("年", "后", "後")) and value < 100:  # 98年, 80年代, 90后
        yield 1900 + value
        yield 2000 + value
    if after.startswith("年") and (era := _ERA.search(before)):
        yield _ERAS[era[0]] + value
    if century := re.search(rf"([{_HAN}]{{1,3}}|\d\d?)世[纪紀]$", before):  # 20世纪90年代
        yield 100 * (_read(century[1]) - 1) + value
    if decade := re.match(rf"世[纪紀]([{_HAN}]{{1,2}}|\d0)年代", after):
        yield 100 * (value - 1) + _read(decade[1])
    if (
        1000 <= value < 2100 and value % 10 == 0 and (_DECADE.match(after) or _THE_YEARS.search(before))
    ):  # the 1980s are 八十年代
        yield value % 100
        if value % 100 == 0:  # the 1800s
            yield value / 100 + 1
    if value < 100 and (since := re.search(r"(?<!\d)(\d{1,2})\d\d\s?[-–—/]$", before)):  # 1914-18, pp. 112-15
        yield Decimal(since[1]) * 100 + value
    if 2400 < value < 2700 and re.search(r"พ\.ศ\.\s?$|ปี\s?$", before):
        yield value - 543  # of the Buddhist calendar
    if 10 <= value < 100 and re.search(r"(?<![\w])['’]$", before):  # '68
        yield 1900 + value
        yield 2000 + value


def _times(value: Decimal, before: str, after: str) -> Iterator[Decimal]:
    if value <= 24.6 and (_HOUR_AFTER.match(after) or _HOUR_BEFORE.search(before)):
        hour = Decimal(int(value))  # 14.30 Uhr
        yield from hours(hour)
        if hour != value or re.match(r"[点點时時시h]\s?(?:[2-5]|[二三四五]十|半|三刻)", after):
            yield from hours(hour + 1)  # a quarter to eleven, halb elf
    if 30 < value < 60 and re.search(r"[点點时時시h:：]\s?$", before):
        yield 60 - value


def hours(hour: Decimal) -> frozenset[Decimal]:
    """An hour on a clock of 12 and of 24 hours."""
    return frozenset((hour, abs(hour - 12), hour + 12))


def made(text: str) -> dict[int, list[Made]]:
    """Numbers that are written in parts, at each place in them: 三点一四, 一米八三, 三块五, 四分之三, 1亿5000万."""
    places: dict[int, list[Made]] = {}
    for number in _made(text):
        for at in range(number.start, number.end):
            places.setdefault(at, []).append(number)
    return places


def _made(text: str) -> list[Made]:
    found = []
    for match in _DECIMAL.finditer(text):
        whole = _read(match[1]) + _fraction(match[2])
        found.append(Made(frozenset((whole * UNITS.get(match[3], 1),)), match.start(), match.end()))
    for match in _MEASURED.finditer(text):
        part = _fraction("".join(filter(None, match.group(2, 3, 4))))
        value = _read(match[1]) + part
        found.append(Made(frozenset((value, 100 * value, 100 * part)), match.start(), match.end()))
    for match in _SUMMED.finditer(text):
        each = (times_units(Decimal(number.replace(",", "")), units) for number, units in _SUMMAND.findall(match[0]))
        found.append(Made(frozenset((sum(each, Decimal(0)),)), match.start(), match.end()))
    for match in _HAVING.finditer(text):
        found.append(Made(frozenset((_read(match[1]) + _read(match[2]),)), match.start(), match.end()))
    for match in _FRACTION.finditer(text):
        below = _read(match[1])
        above = _read(match[2])
        if below:
            found.append(Made(frozenset((above / below, 100 * above / below)), match.start(), match.end()))
    for match in _ABOUT.finditer(text):
        value = times_units(_read(match[1]), match[2])
        found.append(Made(frozenset((value,)), match.start(), match.end()))
    return found


def times_units(value: Decimal, units: str) -> Decimal:
    """A value times each of a few units: 3 and 百万 -> 3,000,000."""
    for unit in units:
        value *= UNITS[unit]
    return value


def _read(text: str) -> Decimal:
    """A numeral in digits or of a few Chinese characters: 21, 二十一, 一四, 百."""
    if re.fullmatch(r"\d+(?:\.\d+)?", text):
        return Decimal(text)
    if all(char in VALUES for char in text):
        return Decimal("".join(str(VALUES[char]) for char in text))
    return total(text)


def total(plain: str) -> Decimal:
    """三十二 -> 32, 三万五千 -> 35000, 一万亿 -> 10^12."""
    whole = section = current = Decimal(0)
    for char in plain:
        if char in VALUES:
            current = Decimal(VALUES[char])
        elif UNITS[char] < 10**4:
            section += (current or Decimal(1)) * UNITS[char]
            current = Decimal(0)
        elif UNITS[char] == 10**8:
            whole = (whole + section + current or Decimal(1)) * 10**8
            section = current = Decimal(0)
        else:
            whole += (section + current or Decimal(1)) * 10**4
            section = current = Decimal(0)
    return whole + section + current


def _fraction(digits: str) -> Decimal:
    return Decimal("0." + "".join(str(VALUES.get(char, char)) for char in digits))
