"""How numbers from 10 on are called in languages whose number words are not read.

Owns: the words of German, Dutch, French, Spanish, Italian, Portuguese and Russian for 10 to 100, full hundreds,
thousands and millions, and those of Korean.
Does not know: other forms of them (ordinals, sums), what they are compared with (`numerals`).
Units: whole numbers; words without accents, spaces and hyphens.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterator, Mapping

import regex

from .numberplaces import total

# from one to nineteen, then twenty, thirty ... ninety, then 100 and 1000; | between forms
_WORDS = {
    "de": "ein zwei drei vier funf sechs sieben acht neun zehn elf zwolf dreizehn vierzehn funfzehn sechzehn siebzehn "
    "achtzehn neunzehn zwanzig dreißig vierzig funfzig sechzig siebzig achtzig neunzig hundert tausend",
    "nl": "een twee drie vier vijf zes zeven acht negen tien elf twaalf dertien veertien vijftien zestien zeventien "
    "achttien negentien twintig dertig veertig vijftig zestig zeventig tachtig negentig honderd duizend",
    "fr": "un deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze seize dixsept dixhuit "
    "dixneuf vingt trente quarante cinquante soixante septante huitante|octante nonante cent mille",
    "es": "un dos tres cuatro cinco seis siete ocho nueve diez once doce trece catorce quince dieciseis diecisiete "
    "dieciocho diecinueve veinte treinta cuarenta cincuenta sesenta setenta ochenta noventa cien mil",
    "it": "un due tre quattro cinque sei sette otto nove dieci undici dodici tredici quattordici quindici sedici "
    "diciassette diciotto diciannove venti trenta quaranta cinquanta sessanta settanta ottanta novanta cento mille",
    "pt": "um dois|duas tres quatro cinco seis sete oito nove dez onze doze treze catorze|quatorze quinze "
    "dezasseis|dezesseis dezassete|dezessete dezoito dezanove|dezenove vinte trinta quarenta cinquenta sessenta "
    "setenta oitenta noventa cem|cento mil",
    "ru": "один|одна|одного|одной два|две|двух три|трех четыре|четырех пять|пяти шесть|шести семь|семи "
    "восемь|восьми девять|девяти десять|десяти одиннадцать|одиннадцати двенадцать|двенадцати тринадцать|тринадцати "
    "четырнадцать|четырнадцати пятнадцать|пятнадцати шестнадцать|шестнадцати семнадцать|семнадцати "
    "восемнадцать|восемнадцати девятнадцать|девятнадцати двадцать|двадцати тридцать|тридцати сорок|сорока "
    "пятьдесят|пятидесяти шестьдесят|шестидесяти семьдесят|семидесяти восемьдесят|восьмидесяти девяносто|девяноста "
    "сто|ста тысяча|тысячи",
}
# 200 to 900; where there is one word, it stands behind two to nine
_HUNDREDS = {
    "de": "hundert",
    "nl": "honderd",
    "fr": "cent",
    "es": "doscientos|doscientas trescientos|trescientas cuatrocientos|cuatrocientas quinientos|quinientas "
    "seiscientos|seiscientas setecientos|setecientas ochocientos|ochocientas novecientos|novecientas",
    "it": "cento",
    "pt": "duzentos|duzentas trezentos|trezentas quatrocentos|quatrocentas quinhentos|quinhentas "
    "seiscentos|seiscentas setecentos|setecentas oitocentos|oitocentas novecentos|novecentas",
    "ru": "двести|двухсот триста|трехсот четыреста|четырехсот пятьсот|пятисот шестьсот|шестисот семьсот|семисот "
    "восемьсот|восьмисот девятьсот|девятисот",
}
_THOUSANDS = {
    "de": "tausend", "nl": "duizend", "fr": "mille", "es": "mil", "it": "mila", "pt": "mil", "ru": "тысяч|тысячи",
}  # fmt: skip
_MILLIONS = {
    "de": "million|millionen", "nl": "miljoen", "fr": "million|millions", "es": "millon|millones",
    "it": "milione|milioni", "pt": "milhao|milhoes", "ru": "миллион|миллиона|миллионов",
}  # fmt: skip
_ARTICLES = {"de": "eine", "nl": "een", "fr": "un", "es": "un", "it": "un", "pt": "um", "ru": "один"}
_KOREAN_TENS = {
    word: 10 * tens
    for tens, words in enumerate(("열", "스물 스무", "서른", "마흔", "쉰", "예순", "일흔", "여든", "아흔"), 1)
    for word in words.split()
}
_KOREAN_ONES = {
    word: one
    for one, words in enumerate(("하나 한", "둘 두", "셋 세", "넷 네", "다섯", "여섯", "일곱", "여덟", "아홉"), 1)
    for word in words.split()
}
_KOREAN = regex.compile(rf"({'|'.join(_KOREAN_TENS)})({'|'.join(_KOREAN_ONES)})?")
_IN_HAN = str.maketrans("일이삼사오육칠팔구십백천만", "一二三四五六七八九十百千万")
_SINO = regex.compile(
    r"[일이삼사오육칠팔구십백천]*[십백천][일이삼사오육칠팔구]?만?|(?<!\p{L})[일이삼사오육칠팔구]?만(?=\s?[명원개년])"
)


@functools.lru_cache(64)
def named(text: str, code: str) -> frozenset[int]:
    """The numbers that a text names in words of its language, the longest ones; none of languages not known here."""
    forms = _forms(code)
    words = [_letters(word) for word in regex.findall(r"[\p{L}\p{M}]+", text)] if forms else []
    found = set()
    at = 0
    while at < len(words):
        sizes = range(min(5, len(words) - at), 0, -1)
        number, size = next(((n, s) for s in sizes if (n := _number("".join(words[at : at + s]), code))), (0, 1))
        found.add(number)
        at += size
    return frozenset(found - {0})


def firm(text: str, code: str) -> list[int]:
    """Those from thirteen on that a text counts with: up to twelve they may be hours of a clock that is read otherwise,
    and a hundred, a thousand and a million are many, too.
    """
    return sorted(number for number in named(text, code) if number > 12 and number not in (100, 1000, 10**6))


def korean(text: str) -> Iterator[int]:
    """The numbers that a Korean text may name in words, native and Chinese ones: 열다섯, 이백삼십, 만 명."""
    for match in _KOREAN.finditer(text):
        yield _KOREAN_TENS[match[1]] + (_KOREAN_ONES[match[2]] if match[2] else 0)
    for match in _SINO.finditer(text):
        yield int(total(match[0].translate(_IN_HAN)))


def _letters(word: str) -> str:
    """A word in one case, without accents."""
    apart = unicodedata.normalize("NFKD", word.lower())
    return "".join(char for char in apart if char.isalpha())


def _number(word: str, code: str) -> int:
    """What a word is called for; 0 for nothing. Endings may differ: quatre-vingts, veintiún, zwanzigjährig."""
    forms = _forms(code)
    least = 4 if code in ("de", "nl") else len(word) - 1
    ends = range(len(word), min(len(word) - 1, max(least, 3) - 1), -1)
    return next((forms[word[:end]] for end in ends if word[:end] in forms), 0)


@functools.cache
def _forms(code: str) -> dict[str, int]:
    if code not in _WORDS:
        return {}
    words = [entry.split("|") for entry in _WORDS[code].split()]
    forms = {form: number for number in range(10, 20) for form in words[number - 1]}
    for tens in range(2, 10):
        for ten in words[17 + tens]:
            forms |= {_joined(ten, one, code): 10 * tens + n for n in range(1, 10) for one in words[n - 1]}
            forms[ten] = 10 * tens
    if code == "fr":  # soixante-dix, quatre-vingt-onze
        forms |= {"soixante" + ("et" if n == 11 else "") + words[n - 1][0]: 60 + n for n in range(10, 20)}
        forms |= {"quatrevingt" + words[n - 1][0]: 80 + n for n in range(1, 20)}
        forms["quatrevingt"] = 80
    if code == "es":  # veintiún, treinta y un
        forms |= {form[:-1]: number for form, number in forms.items() if form.endswith("uno")}
    for number, names in ((100, words[27]), (1000, words[28])):
        forms |= {one + name: number for name in names for one in ("", words[0][0])}
    return forms | _full(code, words, forms)


def _full(code: str, words: list[list[str]], below: Mapping[str, int]) -> dict[str, int]:
    """Full hundreds, thousands and millions; `below`: the forms of 10 to 100."""
    ones = {form: number for number in range(2, 10) for form in words[number - 1]}
    hundreds = [entry.split("|") for entry in _HUNDREDS[code].split()]
    if len(hundreds) == 1:
        full = {one + hundreds[0][0]: 100 * number for one, number in ones.items()}
    else:
        full = {form: 100 * number for number, forms in enumerate(hundreds, 2) for form in forms}
    several = ones | {form: number for form, number in below.items() if number < 100}
    for factor, names in ((1000, _THOUSANDS[code]), (10**6, _MILLIONS[code])):
        for name in names.split("|"):
            full |= {form + name: factor * number for form, number in several.items()}
    for name in _MILLIONS[code].split("|"):
        full |= {name: 10**6, _ARTICLES[code] + name: 10**6}
    return full


def _joined(ten: str, one: str, code: str) -> str:
    if code in ("de", "nl"):
        return one + ("und" if code == "de" else "en") + ten
    if code == "fr":
        return ten + ("et" if one == "un" else "") + one
    if code == "es":
        return "veinti" + one if ten == "veinte" else ten + "y" + one
    if code == "ru":
        return ten + one
    if code == "it":
        return (ten[:-1] if one[0] in "uo" else ten) + one
    return ten + "e" + one
