"""Numbers in texts by value: digits of any script, Chinese and Japanese numerals, and both together (3万).

Owns: which values a text names, which numbers of a text may become words.
Does not know: languages' words for numbers.
Units: values as decimal strings without grouping marks.
"""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal

_NUMBERS = re.compile(r"\d+(?:[.,'’\u00a0\u202f]\d{3}(?!\d))*")
_HAN = re.compile(
    r"(?=[\d〇零一二两兩三四五六七八九十百千廿卅])\d{0,12}(?:[.,]\d{1,9})?[〇零一二两兩三四五六七八九十百千万萬亿億廿卅]+"
)
_DIGITS = {
    char: value
    for value, chars in enumerate(("〇零", "一", "二两兩", "三", "四", "五", "六", "七", "八", "九"))
    for char in chars
}
_TENS = {"十": 10, "百": 100, "千": 1000}
_MYRIADS = {"万": 10**4, "萬": 10**4, "亿": 10**8, "億": 10**8}
# a month that stands as a number may become its name: 12月, 12.10.2020, 2020-12-10, 12/10
_MONTH = re.compile(
    r"\d{1,2}(?=\s?(?:月|월))|(?<![\d.])\d{1,2}(?=[./-]\d{1,2}[./-]\d{4})|(?<=\d[./-])\d{1,2}(?=[./-]\d{4})|(?<=\d{4}[/-])\d{1,2}(?=[/-]\d{1,2})"
)


def in_digits(text: str) -> set[str]:
    """The numbers of two digits and more, without grouping marks, in ASCII digits."""
    found = (re.sub(r"\D", "", number) for number in _NUMBERS.findall(_ascii(text)))
    return {number for number in found if len(number) > 1}


def required(text: str) -> set[str]:
    """The numbers that a translation must have: those of `in_digits`, but for months."""
    plain = _ascii(text)
    months = [match[0] for match in _MONTH.finditer(plain)]
    every = [re.sub(r"\D", "", number) for number in _NUMBERS.findall(plain)]
    for month in months:
        if month in every and int(month) <= 12:
            every.remove(month)
    return {number for number in every if len(number) > 1}


def values(text: str) -> set[str]:
    """All numbers that a text names, in digits or in Chinese and Japanese numerals."""
    plain = _ascii(text)
    han = {str(value) for match in _HAN.findall(plain) if (value := _value(match)) is not None}
    return in_digits(plain) | han


def _ascii(text: str) -> str:
    return "".join(str(unicodedata.digit(char, char)) if char.isdigit() else char for char in text)


def _value(text: str) -> int | None:
    """三十二 -> 32, 一九八四 -> 1984, 3.5万 -> 35000; None where it is no whole number."""
    if all(char in _DIGITS for char in text):
        return int("".join(str(_DIGITS[char]) for char in text))
    head = re.match(r"[\d.,]*", text)
    digits = (head[0] if head else "").replace(",", "").strip(".")
    total = Decimal(0)
    section = Decimal(0)
    current: Decimal | None = Decimal(digits) if digits.replace(".", "", 1).isdigit() else None
    for char in text[len(head[0]) if head else 0 :].replace("廿", "二十").replace("卅", "三十"):
        if char in _DIGITS:
            current = Decimal(_DIGITS[char])
        elif char in _TENS:
            section += (Decimal(1) if current is None else current) * _TENS[char]
            current = None
        else:
            total += (section + (current or 0) or 1) * _MYRIADS[char]
            section = Decimal(0)
            current = None
    whole = total + section + (current or 0)
    return int(whole) if whole == whole.to_integral_value() else None
