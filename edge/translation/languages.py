"""Languages: a tag -> its name, its scripts, and which language a text seems to be in.

Owns: the table of languages that can be asked for. Does not know: prompts, guards.
Units: shares of letters, probabilities.

Scripts are Unicode's (`\\p{Script=...}`). Identification: py3langid (Lui and Baldwin, ACL 2012), on this machine alone.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import regex

from ..documents.document import is_east_asian
from ..errors import SettingsError, StorageError
from ..values import strict

_TABLE = """
af Afrikaans Latin Afrikaans | ar Arabic Arabic العربية | az Azerbaijani Latin azərbaycanca
be Belarusian Cyrillic беларуская | bg Bulgarian Cyrillic български | bn Bengali Bengali বাংলা
bs Bosnian Latin bosanski | ca Catalan Latin català | cs Czech Latin čeština | cy Welsh Latin Cymraeg
da Danish Latin dansk | de German Latin Deutsch | el Greek Greek Ελληνικά | en English Latin English
eo Esperanto Latin Esperanto | es Spanish Latin español | et Estonian Latin eesti | eu Basque Latin euskara
fa Persian Arabic فارسی | fi Finnish Latin suomi | fr French Latin français | ga Irish Latin Gaeilge
gl Galician Latin galego | gu Gujarati Gujarati ગુજરાતી | he Hebrew Hebrew עברית | hi Hindi Devanagari हिन्दी
hr Croatian Latin hrvatski | hu Hungarian Latin magyar | hy Armenian Armenian հայերեն
id Indonesian Latin Indonesia | is Icelandic Latin íslenska | it Italian Latin italiano
ja Japanese Han,Hiragana,Katakana 日本語 | ka Georgian Georgian ქართული | kk Kazakh Cyrillic қазақ
km Khmer Khmer ខ្មែរ | kn Kannada Kannada ಕನ್ನಡ | ko Korean Hangul,Han 한국어 | la Latin Latin latina
lo Lao Lao ລາວ | lt Lithuanian Latin lietuvių | lv Latvian Latin latviešu | mk Macedonian Cyrillic македонски
ml Malayalam Malayalam മലയാളം | mn Mongolian Cyrillic,Mongolian монгол | mr Marathi Devanagari मराठी
ms Malay Latin Melayu | my Burmese Myanmar မြန်မာ | nb Norwegian Latin norsk | ne Nepali Devanagari नेपाली
nl Dutch Latin Nederlands | no Norwegian Latin norsk | pa Punjabi Gurmukhi ਪੰਜਾਬੀ | pl Polish Latin polski
pt Portuguese Latin português | ro Romanian Latin română | ru Russian Cyrillic русский
si Sinhala Sinhala සිංහල | sk Slovak Latin slovenčina | sl Slovenian Latin slovenščina
sq Albanian Latin shqip | sr Serbian Cyrillic,Latin српски | sv Swedish Latin svenska
sw Swahili Latin Kiswahili | ta Tamil Tamil தமிழ் | te Telugu Telugu తెలుగు | th Thai Thai ไทย
tl Tagalog Latin Tagalog | tr Turkish Latin Türkçe | uk Ukrainian Cyrillic українська | ur Urdu Arabic اردو
uz Uzbek Latin,Cyrillic oʻzbekcha | vi Vietnamese Latin Tiếng_Việt | yi Yiddish Hebrew ייִדיש
zh Chinese Han 中文
"""


@dataclass(frozen=True)
class Language:
    """One language.

    Attributes:
        code: its two-letter code (ISO 639-1).
        tag: as it was asked for, for a document's language tag (BCP 47).
        name: in English, for prompts.
        scripts: what it is written in.
        endonym: its name in itself.
    """

    code: str
    tag: str
    name: str
    scripts: tuple[str, ...]
    endonym: str

    @property
    def tags(self) -> tuple[str, ...]:
        """Its tags from the narrowest to the widest: zh-TW, zh-Hant, zh."""
        region = self.tag.lower().rpartition("-")[2]
        script = f"{self.code}-{_WRITTEN[region].title()}" if self.code == "zh" and region in _WRITTEN else ""
        return tuple(dict.fromkeys(tag for tag in (self.tag, script, self.code) if tag))

    @property
    def spaced(self) -> bool:
        """Whether its sentences stand apart by spaces."""
        return self.code == "ko" or not is_east_asian(self.code)


_LANGUAGES = {
    (row := entry.split())[0]: Language(row[0], row[0], row[1], tuple(row[2].split(",")), row[3].replace("_", " "))
    for line in _TABLE.strip().splitlines()
    for entry in line.split("|")
}


def find(tag: str) -> Language:
    """The language of a tag: 'zh', or with region or script like 'pt-BR', 'zh-Hant'.

    Raises:
        SettingsError: no such language is known.
    """
    parts = tag.strip().lower().replace("_", "-").split("-")
    found = _LANGUAGES.get(parts[0])
    if found is None or not all(regex.fullmatch(r"[a-z0-9]{1,8}", part) for part in parts):
        names = {language.name.lower(): code for code, language in _LANGUAGES.items()}
        near = names.get(tag.strip().lower())
        hint = f"did you mean '{near}'?" if near else strict.suggest(parts[0], list(_LANGUAGES))
        raise SettingsError(
            f"there is no language '{tag}'", "a code like zh, en or pt-BR", hint or "known: " + " ".join(_LANGUAGES)
        )
    name = found.name
    scripts = found.scripts
    for part in parts[1:]:
        variant = {"hans": "Simplified ", "hant": "Traditional ", "latn": "", "cyrl": ""}.get(part)
        name = (variant or "") + name
        scripts = {"latn": ("Latin",), "cyrl": ("Cyrillic",)}.get(part, scripts)
    return Language(found.code, tag.strip().replace("_", "-"), name, scripts, found.endonym)


_WRITTEN = {"cn": "hans", "sg": "hans", "my": "hans", "tw": "hant", "hk": "hant", "mo": "hant"}  # of Chinese
_MODIFIERS = {"latin": "latn", "cyrillic": "cyrl"}


def closeness(tag: str, asked: str) -> int:
    """How well a text of language `tag` serves one who asked for `asked`: 0 another language, more is better.

    4 the same tag, 3 the same script or region, 2 one of the two says nothing more than the
    language, 1 another variant.
    """
    ours, theirs = (_parts(name) for name in (asked, tag))
    if not ours or not theirs or _language(ours) != _language(theirs):
        return 0
    if ours == theirs:
        return 4
    plain = ["zh", "hans"]  # what Chinese without more is mostly
    first, second = (_scripts(parts if len(parts) > 1 or parts[0] != "zh" else plain) for parts in (ours, theirs))
    if first & second:
        return 3
    return 2 if not first or not second else 1


def _parts(tag: str) -> list[str]:
    """The parts of a tag, those of gettext's too: de_DE, sr@latin."""
    return [_MODIFIERS.get(part, part) for part in regex.split("[-_@]", tag.lower()) if part]


def _language(parts: Sequence[str]) -> str:
    return "no" if parts[0] == "nb" else parts[0]  # what Norwegian without more is mostly


def _scripts(parts: Sequence[str]) -> set[str]:
    """Scripts and regions of a tag; of a Chinese region its script alone."""
    chinese = parts[0] == "zh"
    return {_WRITTEN.get(part, part) if chinese else part for part in parts[1:]}


_RELATED = (
    {"da", "nb", "nn", "no", "sv"}, {"bs", "hr", "sr", "sl", "mk", "bg"}, {"cs", "sk", "pl"}, {"id", "ms", "jv"},
    {"es", "ca", "gl", "pt", "oc", "an", "it"}, {"ru", "uk", "be", "bg", "mk"}, {"af", "nl", "li", "vls"},
    {"hi", "mr", "ne", "bho"}, {"tr", "az"}, {"fa", "ar", "ur", "ps"}, {"et", "fi"}, {"zh", "ja", "yue"},
)  # fmt: skip


def related(code: str, other: str) -> bool:
    """Whether two languages are so near that a short text may be taken for either."""
    return any(code in group and other in group for group in _RELATED)


def letters(text: str) -> int:
    """How many letters a text has, in any script."""
    return len(regex.findall(r"\p{L}", text))


def share_in(text: str, scripts: Sequence[str]) -> float:
    """The share of a text's letters that belong to `scripts`; 1 without letters. Letters of no script count as in."""
    every = letters(text)
    return len(_of(tuple(scripts)).findall(text)) / every if every else 1.0


def left_behind(source: Language, target: Language) -> tuple[str, ...]:
    """Scripts of the source that a translation is not written in; Latin words may stand in any language."""
    return tuple(sorted(set(source.scripts) - set(written_in(target)) - {"Latin"}))


def written_in(language: Language) -> tuple[str, ...]:
    """The scripts of a language's words: Korean has Chinese characters as a gloss alone."""
    return ("Hangul",) if language.code == "ko" else language.scripts


def likelihood(text: str, among: Sequence[str] = ()) -> dict[str, float]:
    """The probability of each language, or of those `among`; codes that the identifier does not know are left out."""
    ranked = {code: float(p) for code, p in _identifier().rank(text)}
    if not among:
        return ranked
    chosen = {code: ranked[_known(code)] for code in among if _known(code) in ranked}
    total = sum(chosen.values())
    return {code: p / total for code, p in chosen.items()} if total else {}


@functools.cache
def _of(scripts: tuple[str, ...]) -> Any:
    inside = "".join(rf"\p{{Script={script}}}" for script in (*scripts, "Common", "Inherited"))
    return regex.compile(rf"[\p{{L}}&&[{inside}]]", regex.V1)


@functools.cache
def _identifier() -> Any:
    from py3langid import langid

    try:
        return langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)
    except OSError as error:  # it is unpacked into a temporary file
        raise StorageError(
            f"the table that languages are told by cannot be unpacked: {error.strerror}",
            "room for 50 MB in the temporary folder", "free some disk space, or set TMPDIR to another folder",
        ) from error  # fmt: skip


def _known(code: str) -> str:
    return {"nb": "no", "yi": "he"}.get(code, code)
