"""Words that multiply a number in digits: 15 Millionen, 15 mil millones, 15만.

Owns: what they are in each language, and by how much they multiply.
Does not know: numbers that are words altogether (`numberwords`, `numbernames`), what they are compared with.
Units: whole numbers.

A billion is 10^9 in English and 10^12 in most languages of the continent, so each language has words of its own.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import regex

from .numberplaces import UNITS
from .numberwords import SCALES

_E3, _E6, _E9, _E12 = 10**3, 10**6, 10**9, 10**12
# in any language, signs and short forms above all
_ANYWHERE: dict[str, int] = {
    **{word + "s?": factor for word, factor in SCALES.items() if word != "billion"},
    **dict.fromkeys(("k", "тыс"), _E3),
    **dict.fromkeys(("m", "mio", "mn", "mln", "млн"), _E6),
    **dict.fromkeys(("bn", "mrd", "mld", "млрд"), _E9),
    "трлн": _E12,
    "dozens?": 12,
}
_CASES = "(?:а|у|ом|е|ы|и|і|ов|ів|ев|ам|ами|ах)?"  # endings of Slavic nouns
# thousand, million, 10^9, 10^12; | between forms, - for none
_OWN = {
    "en": "- - billions? - lakhs?:100000 crores?:10000000",
    "de": "tausend million(?:en)? milliarden? billion(?:en)?",
    "nl": "duizend miljoen(?:en)? miljard(?:en)? biljoen(?:en)?",
    "fr": "mille millions? milliards? billions?",
    "es": "mil mill(?:ón|on|ones) - bill(?:ón|ones)",
    "ca": "mil|milers mili(?:ó|ons) - bili(?:ó|ons)",
    "gl": "mil mill(?:ón|óns) - bill(?:ón|óns)",
    "pt": "mil milh(?:ão|ões) bilh(?:ão|ões) trilh(?:ão|ões)|bili(?:ão|ões)",
    "it": "mille|mila milion[ei] miliard[oi] bilion[ei]",
    "ro": "mie|mii mili(?:on|oane) miliard(?:e)? -",
    "pl": "tys|tysiąc[ea]?|tysięcy milion(?:y|ów|a)? miliard(?:y|ów|a)? bilion(?:y|ów|a)?",
    "cs": "tis|tisíce?|tisíců mili[oó]n(?:y|ů|u)? miliard[ay]?|miliardy? bilion(?:y|ů|u)?",
    "sk": "tis|tisíce?|tisícov mili[oó]n(?:y|ov|a)? miliard[ay]?|miliárd bilión(?:y|ov|a)?",
    "hu": "ezer|ezren millió milliárd billió",
    "sv": "tusen miljon(?:er)? miljard(?:er)? biljon(?:er)?",
    "da": "tusinde?|tusen mill|million(?:er)? mia|milliard(?:er)? billion(?:er)?",
    "fi": "tuhat(?:ta)? miljoonaa? miljardia? biljoonaa?",
    "et": "tuhat(?:t)? miljonit? miljardit? triljonit?",
    "tr": "bin milyon milyar trilyon",
    "az": "min milyon milyard trilyon",
    "vi": "nghìn|ngàn triệu tỷ|tỉ -",
    "id": "ribu juta miliar triliun",
    "ms": "ribu juta bilion trilion",
    "ru": f"тысяч(?:а|и|у|ей|ам|ах)? миллион{_CASES} миллиард{_CASES} триллион{_CASES}",
    "uk": f"тис|тисяч(?:а|і|у|ам|ах)? мільйон{_CASES} мільярд{_CASES} трильйон{_CASES}",
    "be": f"тысяч(?:а|ы|у|ам|ах)? мільён{_CASES} мільярд{_CASES} трыльён{_CASES}",
    "bg": "хил|хиляд[аи] милион[аи]? милиард[аи]? трилион[аи]?",
    "mk": "илјад[аи] милион[аи]? милијард[аи] билион[аи]?",
    "sr": "хиљад[аеу]|hiljad[aeu] милион[аи]?|milion[ai]? милијард[аеу]|milijard[aeu] билион[аи]?|bilion[ai]?",
    "hr": "tisuć[aeu]|hiljad[aeu] milijun[ai]?|milion[ai]? milijard[aieu] bilijun[ai]?",
    "sl": "tisoč milijon(?:a|e|ov|i)? milijard[aeio]? bilijon(?:a|e|ov|i)?",
    "el": "χιλιάδες|χιλ εκατομμύρι(?:ο|α)|εκατ δισεκατομμύρι(?:ο|α)|δισ τρισεκατομμύρι(?:ο|α)",
    "ar": "ألفا?|آلاف|الف مليونا?|ملايين مليارا?|مليارات تريليون",
    "fa": "هزار میلیون میلیارد تریلیون",
    "ur": "ہزار ملین ارب - لاکھ:100000 کروڑ:10000000",
    "he": "אלף|אלפים מיליון|מיליוני מיליארד|מיליארדי טריליון",
    "hi": "हज़ार|हजार मिलियन अरब - लाख:100000 करोड़:10000000",
    "mr": "हजार दशलक्ष अब्ज - लाख:100000 कोटी:10000000",
    "bn": "হাজার মিলিয়ন বিলিয়ন - লাখ:100000 কোটি:10000000",
    "th": "พัน ล้าน พันล้าน ล้านล้าน หมื่น:10000 แสน:100000",
}
_SAME_AS = {"no": "da", "nb": "da", "nn": "da", "bs": "hr"}
_MEASURES = "米克瓦卡赫"  # 千米 and 千克 are units: 15千米 is 15 km


class Scale(NamedTuple):
    """By how much a number is multiplied, and where the word for it ends.

    `sure`: whether the word is nothing else (10 m are metres, too).
    """

    factor: int
    sure: bool
    end: int


def after(text: str, code: str) -> Scale | None:
    """What stands at the beginning of a text, right behind a number in digits; None where it is no such word.

    Args:
        code: of the text's language.
    """
    factor = 1
    sure = True
    end = 0
    units = regex.match(r"\s?([백천만억조]{1,2})", text) if code == "ko" else None
    if units:
        for unit in units[1]:
            factor *= UNITS[unit]
        return Scale(factor, True, units.end())
    pattern, factors = _words(code)
    last = 0
    while (found := pattern.match(text, end)) and (each := factors[found.lastindex - 1]) > last:
        factor *= each
        sure = len(found[0].strip(" \u00a0-")) > 2
        end = found.end()
        last = each  # mil millones, and not million thousand
    return Scale(factor, sure, end) if end else None


def is_measure(text: str) -> bool:
    """Whether a Chinese text begins with the unit of a measure: 千米."""
    return len(text) > 1 and text[0] == "千" and text[1] in _MEASURES


@functools.cache
def _words(code: str) -> tuple[regex.Pattern[str], tuple[int, ...]]:
    """A pattern with a group for each word of a language, and by how much each multiplies."""
    words = dict(_ANYWHERE)
    own = _OWN.get(_SAME_AS.get(code, code), "- - billions? -").split()
    for forms, factor in zip(own[:4], (_E3, _E6, _E9, _E12), strict=True):
        words |= dict.fromkeys(_forms(forms), factor)
    for more in own[4:]:
        form, _, factor_ = more.rpartition(":")
        words[form] = int(factor_)
    end = "" if code == "th" else r"(?![\p{L}\p{M}])"
    each = "|".join(f"({word})" for word in sorted(words, key=len, reverse=True))
    ordered = tuple(words[word] for word in sorted(words, key=len, reverse=True))
    return regex.compile(rf"[\s\u00a0-]?(?:{each}){end}", regex.IGNORECASE), ordered


def _forms(forms: str) -> list[str]:
    """The forms between bars that stand in no brackets."""
    return [] if forms == "-" else regex.split(r"\|(?![^(]*\))", forms)
