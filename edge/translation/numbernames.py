"""How numbers from 10 to 100 are called in languages whose number words are not read.

Owns: the words of German, Dutch, French, Spanish, Italian and Portuguese for 10 to 100, and 1000.
Does not know: other forms of them (ordinals, hundreds), what they are compared with (`numerals`).
Units: whole numbers; words without accents, spaces and hyphens.
"""

from __future__ import annotations

import functools
import unicodedata

import regex

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
}


@functools.lru_cache(64)
def named(text: str, code: str) -> frozenset[int]:
    """The numbers that a text names in words of its language, the longest first; none of languages not known here."""
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
    return forms


def _joined(ten: str, one: str, code: str) -> str:
    if code in ("de", "nl"):
        return one + ("und" if code == "de" else "en") + ten
    if code == "fr":
        return ten + ("et" if one == "un" else "") + one
    if code == "es":
        return "veinti" + one if ten == "veinte" else ten + "y" + one
    if code == "it":
        return (ten[:-1] if one[0] in "uo" else ten) + one
    return ten + "e" + one
