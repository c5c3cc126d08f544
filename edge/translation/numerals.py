"""Numbers in texts by value: digits of any script, Chinese and Japanese numerals, English words, and mixtures (3万).

Owns: which numbers a text names, which of them a translation must have, and where the two differ.
Does not know: how words add up (`numberwords`, `numbernames`) and multiply (`scalewords`), the names of months
(`dates`), what neighbours make of a number (`numberplaces`), what follows from it.
Units: values as Decimals.

A number may be meant in more than one way (98年 is 1998, 22点 is ten o'clock, 八折 is 20% off): each is read in all of
them, and is there where one of them is. Small numbers become words, articles or nothing at all as languages like it:
only those of two digits or more must be there. Of the others two are compared that have no counterpart, one on each
side (三天, six days).
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple

from . import dates, numbernames, numberplaces, numberwords, scalewords
from .languages import Language
from .numberplaces import SIDE, UNITS, VALUES, Made, hours, readings, times_units, total

_SPACES = "\u00a0\u202f\u2009"
_DIGITS = re.compile(
    r"(?P<time>(?<![\d.:])(?:[01]?\d|2[0-4])[:：][0-5]\d(?![\d:]))"
    rf"|(?P<grouped>\d{{1,3}}(?:[,.'’{_SPACES} ]\d{{3}}){{1,12}}(?!\d)|\d{{1,2}}(?:,\d\d){{1,9}},\d{{3}}(?!\d))"
    r"|(?P<chain>\d+(?:[.]\d+){2,})"
    r"|(?P<one>\d+(?:[.,]\d+)?)"
)
_LONG = re.compile(r"\d(?:[ ().-]{0,3}\d)+")  # of telephones and accounts
_HAN = re.compile(r"[〇零一二两兩三四五六七八九十百千万萬亿億廿卅]{1,40}")
_D = "[一二两兩三四五六七八九]"
_SECTION = rf"(?:(?:{_D}千)?(?:零?{_D}百)?(?:零?{_D}?十)?(?:零?{_D})?)"
_WELL_FORMED = re.compile(rf"(?:{_SECTION}[万萬]?[亿億])?(?:零?{_SECTION}[万萬])?零?{_SECTION}")
# what such characters say without counting anything: idioms, adverbs, names
_NO_NUMBER = re.compile(
    r"二百五|五十嵐|三十六[计計]|七十二[变變]|十八般|十八番|五十步|百分之百|一五一十|十万八千|十萬八千|十万火|十二分"
    r"|千[千万萬]+|[万萬][万萬千]+|三十而立|四十不惑|八百(?:屋|長)|三百六十行|十全|七七八八|八九不离十|十八[层層]地|五十(?:音|肩)"
)
_ABOUT = re.compile(r"[几幾多来來余餘数數]")
_STANDS_FOR = {  # 一个世纪, 半, 一刻, 一打, 腊月
    char: tuple(Decimal(value) for value in values)
    for char, values in {
        "纪": (100,),
        "紀": (100,),
        "半": (30, 50),
        "刻": (15, 45),
        "打": (12,),
        "腊": (12,),
        "臘": (12,),
    }.items()
}
_AGES = {
    "豆蔻": 13, "及笄": 15, "弱冠": 20, "而立": 30, "不惑": 40, "花甲": 60, "古稀": 70, "耄耋": 80,
}  # fmt: skip
_HALF = re.compile(
    r"\b(?:halb(?:e[nrs]?)?|halve|половин\w*|пів|wpół|pół|demie?|media|medio|mezz[ao]|meia|meio)\b|시\s?반",
    re.IGNORECASE,
)
_A_FORTNIGHT = re.compile(
    r"\b(?:quinze jours|quince días|quindici giorni|quinze dias|vierzehn Tagen?)\b", re.IGNORECASE
)
_ROMAN = re.compile(  # XIX, and XIXe, XXIer
    r"\b(?=[MDCLXVI]{2})M{0,3}(?:CM|CD|D?C{0,3})(?:XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3})(?=(?:ers?|[eè]mes?|es?|º|ª)?\b)"
)
# Chinese numerals of cheques: 壹佰元; the same characters are names and verbs elsewhere
_CHEQUE = re.compile(r"[壹贰貳叁參肆伍陆陸柒捌玖零拾佰仟万萬亿億]{2,40}(?=[元圆圓块角整])")
_OF_CHEQUES = str.maketrans("壹贰貳叁參肆伍陆陸柒捌玖拾佰仟", "一二二三三四五六六七八九十百千")
_SEPARATORS = re.compile(r"(?<=[0-9])(?:[，٬](?=[0-9]{3}(?![0-9]))|[．٫](?=[0-9]))")
_LESS = re.compile(r"(?:an?\s)?hundred|.*(?:s|ies)|[百千万萬亿億]", re.IGNORECASE)  # what says less than it seems to
_ROMAN_VALUES = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}


class Number(NamedTuple):
    """One number of a text.

    Attributes:
        text: as it is written there.
        values: what it may be meant as.
        firm: whether a translation must have one of them.
        words: whether it is written in words of its language, not in digits.
    """

    text: str
    values: frozenset[Decimal]
    firm: bool
    words: bool = False

    def due(self, other: Language) -> bool:
        """Whether it must be in a text of the other language: words only where words and numerals are read there."""
        return self.firm and (not self.words or _reads_words(other))

    @property
    def small(self) -> bool:
        """Whether it need not be there, but may not become another one; one is an article, too."""
        if self.firm or min(self.values) <= 1:
            return False
        # 七八 is seven or eight; hundreds are many
        return not self.words or not (_LESS.fullmatch(self.text) or self.is_several)

    @property
    def is_several(self) -> bool:
        """Whether it is a run of Chinese digits that may be one number or several."""
        return self.words and len(self.text) > 1 and all(char in VALUES for char in self.text)


def differences(source: str, target: str, source_language: Language, target_language: Language) -> list[str]:
    """Where the numbers of a text and its translation differ, each in a few words; empty where they do not."""
    source, target = _without_same(source, target)
    ours = read(source, source_language)
    theirs = read(target, target_language)
    spoken = _values(ours) | _hinted(source, source_language)
    there = _values(theirs) | _hinted(target, target_language)
    lost = [n.text for n in ours if n.due(target_language) and not n.values & there]
    new = [n.text for n in theirs if (n.due(source_language) or (n.small and not n.words)) and not n.values & spoken]
    # words of other languages are not read: what is a numeral here may be a word there
    new = new if _reads_words(source_language) else []
    months = [Decimal(month) for month in dates.changed(_ascii(source), _ascii(target))]
    if months:  # one that the translation names otherwise is no change
        ours_beside, theirs_beside = (
            _beside_months(text, language) for text, language in ((source, source_language), (target, target_language))
        )
        months = [m for m in months if m not in there or ours_beside[m] >= max(1, theirs_beside[m])]
    found = [f"{text} not in it" for text in dict.fromkeys(lost)]
    found += [f"{text} not in its source" for text in dict.fromkeys(new)]
    found += [f"month {month} not in it" for month in months]
    if not found:
        ours_named, theirs_named = (
            numbernames.firm(text, language.code)
            for text, language in ((source, source_language), (target, target_language))
        )
        left = [n.text for n in ours if n.small and not n.values & there]
        left += [str(n) for n in ours_named if n not in there]
        right = [n.text for n in theirs if (n.small or n.firm) and not n.values & spoken]
        right += [str(n) for n in theirs_named if n not in spoken]
        if left and right:
            found.append(f"{left[0]} became {right[0]}")
        else:
            found += _counted(_sure(ours, ours_named) - there, _sure(theirs, theirs_named) - spoken)
    return found


def _beside_months(text: str, language: Language) -> Counter[Decimal]:
    """How often a text names each number where it is no month: the second 7 of 7月7日."""
    return Counter(value for number in read(dates.without(_ascii(text)), language) for value in number.values)


def _sure(numbers: Sequence[Number], named: Sequence[int]) -> set[Decimal]:
    """The values of what a text counts with, in digits or in words; none where that are several numbers."""
    values = {min(number.values) for number in numbers if number.firm} | {Decimal(number) for number in named}
    return values if len(values) == 1 else set()


def _counted(ours: set[Decimal], theirs: set[Decimal]) -> list[str]:
    """The one number of a text that its translation has not, where that has another one; both from 20 to 99.

    Compounds are read in parts in some languages, so that the full tens of a number may stand for it.
    """
    for first, second in zip(ours, theirs, strict=False):
        is_part = first // 10 * 10 == second or second // 10 * 10 == first
        if min(first, second) >= 20 and max(first, second) < 100 and abs(first - second) > 1 and not is_part:
            return [f"{first} became {second}"]
    return []


def _without_same(source: str, target: str) -> tuple[str, str]:
    """Both texts without digits that are the same in other groups: 13800138000 and 138-0013-8000."""
    ours, theirs = ({re.sub(r"\D", "", found) for found in _LONG.findall(text)} for text in (source, target))
    same = {digits for digits in ours & theirs if len(digits) > 6}

    def blank(found: re.Match[str]) -> str:
        return " " if re.sub(r"\D", "", found[0]) in same else found[0]

    return (_LONG.sub(blank, source), _LONG.sub(blank, target)) if same else (source, target)


def _values(numbers: Sequence[Number]) -> set[Decimal]:
    return set().union(*(number.values for number in numbers))


def _hinted(text: str, language: Language) -> set[Decimal]:
    """Values that words of a text stand for without being read as numbers: months, noon, half an hour, dreißig."""
    found = {Decimal(month) for month in dates.named(text)}
    found |= {Decimal(number) for number in numbernames.named(text, language.code)}
    if {"Latin", "Cyrillic"} & set(language.scripts):
        found |= {Decimal(value) for value in _romans(text)}
    if language.code == "en":
        found |= numberwords.hinted(text)
    if language.code == "ko":
        found |= {Decimal(value) for value in numbernames.korean(text)}
    if "Han" in language.scripts:
        found |= {value for char in text for value in _STANDS_FOR.get(char, ())}
        found |= {Decimal(age) for word, age in _AGES.items() if word in text}
    if _HALF.search(text):
        found |= {Decimal(30), Decimal(50), Decimal("0.5")}
    if _A_FORTNIGHT.search(text):
        found |= {Decimal(2), Decimal(14), Decimal(15)}
    return found


def _reads_words(language: Language) -> bool:
    """Whether the numbers of a language can be read however they are written."""
    return language.code in ("en", "zh", "ja")


def read(text: str, language: Language) -> list[Number]:
    """All numbers that a text names."""
    plain = _ascii(text)
    parts = numberplaces.made(plain)
    found = [*_in_digits(plain, language.code, parts), *_in_han(plain, parts)]
    if language.code == "en":
        found += _in_words(plain)
    return found


def _ascii(text: str) -> str:
    """The text, as long as before, with decimal digits of any script as ASCII ones; ² and ① are no such digits."""
    plain = "".join(str(unicodedata.decimal(char)) if char.isdecimal() else char for char in text)
    plain = _SEPARATORS.sub(lambda found: "," if found[0] in "，٬" else ".", plain)
    return _CHEQUE.sub(lambda found: found[0].translate(_OF_CHEQUES), plain)


# --- digits ---


def _in_digits(text: str, code: str, parts: Mapping[int, Sequence[Made]]) -> Iterator[Number]:
    months = dates.places(text)
    for match in _DIGITS.finditer(text):
        written = match[0]
        if match["time"]:
            hour, minute = (Decimal(part) for part in re.split("[:：]", written))
            late = hours(hour + 1) if minute >= 20 else frozenset()  # a quarter to, halb
            yield Number(written, hours(hour) | late, len(written) == 5)
            yield Number(written, frozenset((minute, abs(60 - minute))), minute % 15 != 0)
        elif match["chain"]:
            at = match.start()
            for part in written.split("."):
                yield Number(part, frozenset((Decimal(part),)), len(part) > 1 and at not in months)
                at += len(part) + 1
        else:
            firm = sum(char.isdigit() for char in written) > 1 and match.start() not in months
            written, values = _meant(text, match, code)
            yield Number(written, values | _whole(match, parts), firm)


def _meant(text: str, match: re.Match[str], code: str) -> tuple[str, frozenset[Decimal]]:
    """A number in digits with the word that multiplies it, and the values that it may have where it stands."""
    written = match[0]
    values = _plain_values(match)
    before, after = _sides(text, match)
    if scale := scalewords.after(after, code):
        written += after[: scale.end]
        scaled = {value * scale.factor for value in values}
        values = scaled | (set() if scale.sure else values)
    elif units := re.match(r"[十百千万萬亿億]{1,2}", after):
        plain = values if scalewords.is_measure(after) else set()
        values = {times_units(value, units[0]) for value in values} | plain
    return written, frozenset(values | {other for value in values for other in readings(value, before, after)})


def _sides(text: str, match: re.Match[str]) -> tuple[str, str]:
    """What stands before a number, and after it."""
    return text[max(0, match.start() - SIDE) : match.start()], text[match.end() : match.end() + SIDE]


def _whole(match: re.Match[str], parts: Mapping[int, Sequence[Made]]) -> frozenset[Decimal]:
    """The values of what a number is a part of."""
    around = (part.values for part in parts.get(match.start(), ()) if match.end() <= part.end)
    return frozenset().union(*around)


def _plain_values(match: re.Match[str]) -> set[Decimal]:
    written = match[0]
    if match["grouped"]:
        values = {Decimal(re.sub(r"\D", "", written))}
        if re.fullmatch(r"\d+[.,]\d+", written):  # 1.234 may be a decimal fraction
            values.add(Decimal(written.replace(",", ".")))
        if " " in written:  # or two numbers side by side
            values |= {Decimal(part) for part in written.split()}
        return values
    values = {Decimal(written.replace(",", "."))}
    if re.fullmatch(r"(?:[1-9]|[12]\d|3[01])\.(?:0?[1-9]|1[0-2])|\d+,\d{1,2}", written):  # the 24.12.; 5,6
        values.add(Decimal(re.split("[.,]", written)[0]))
    return values


# --- Chinese and Japanese numerals ---


def _in_han(text: str, parts: Mapping[int, Sequence[Made]]) -> Iterator[Number]:
    idioms = [match.span() for match in _NO_NUMBER.finditer(text)]
    months = dates.places(text)
    for match in _HAN.finditer(text):
        before, after = _sides(text, match)
        if before[-1:].isdigit():  # 3万 was read with its digits
            continue
        values, well_formed = _han_values(match[0])
        if not values:
            continue
        firm = (
            well_formed
            and match.start() not in months
            and not any(start <= match.start() < end or start < match.end() <= end for start, end in idioms)
            and not _ABOUT.match(before[-1:])
            and not (match[0].endswith("十") and _ABOUT.match(after))  # 三十多: thirty, or what one likes
            and not (match[0].endswith("十") and after.startswith("分"))
        )
        more = {other for value in values for other in readings(value, before, after)}
        yield Number(match[0], _whole(match, parts) | values | more, firm, True)


def _han_values(run: str) -> tuple[set[Decimal], bool]:
    """What a run of numerals may mean; whether it is one number and no more, and large enough to be kept."""
    plain = run.replace("廿", "二十").replace("卅", "三十")
    if all(char in VALUES for char in plain):
        digits = "".join(str(VALUES[char]) for char in plain)
        # 一九八四 and 二〇一 are numbers, 七八 is seven or eight
        firm = len(digits) >= 4 or (len(digits) == 3 and ("〇" in plain or "零" in plain[1:]))
        each = {Decimal(digit) for digit in digits} if len(digits) < 4 else set()
        return {Decimal(digits)} | each, firm
    if not any(char in VALUES for char in plain) and plain != "十":
        return {total(plain[:1])}, False  # 百米 counts, 百姓 and 千万 do not
    if not _WELL_FORMED.fullmatch(plain):
        return _about(plain), False
    value = total(plain)
    values = {value}
    tail = re.search(rf"([百千万萬亿億])({_D})$", plain)
    if tail:  # 一百二 is 120
        values.add(value - VALUES[tail[2]] + Decimal(VALUES[tail[2]] * UNITS[tail[1]]) / 10)
    round_one = re.fullmatch(r"[一][百千万萬亿億]", plain)
    return values, value >= 11 and not round_one


def _about(plain: str) -> set[Decimal]:
    """十七八 -> 17 and 18, 三四十 -> 30 and 40; of anything else, its well-formed parts."""
    values: set[Decimal] = set()
    for match in re.finditer(rf"({_D}?十)?({_D})({_D})([十百千万萬]?)", plain):
        tens = total(match[1]) if match[1] else Decimal(0)
        unit = UNITS.get(match[4], 1)
        values |= {(tens + VALUES[digit]) * unit for digit in match.group(2, 3)}
    values |= {total(part[0]) for part in _WELL_FORMED.finditer(plain) if part[0]}
    return values


# --- words ---


def _in_words(text: str) -> Iterator[Number]:
    for number in numberwords.english(text):
        written = text[number.start : number.end]
        # a hundred, thousands and the like say less than they seem to
        firm = number.value >= 13 and " " in written.replace("-", " ") and not re.match(r"an?\s", written)
        firm = firm or (13 <= number.value < 100 and not written.endswith("ies"))
        yield Number(written, frozenset((number.value, *number.others)), firm, True)


def _romans(text: str) -> Iterator[int]:
    for match in _ROMAN.finditer(text):
        values = [_ROMAN_VALUES[char] for char in match[0]]
        if not values:  # LCD: its letters are numerals, and it is none
            continue
        pairs = zip(values, [*values[1:], 0], strict=True)
        yield sum(-value if value < after else value for value, after in pairs)
