"""The encoding of a text that is not UTF-8, where its language is known.

Owns: which encodings a language is found in, how plausible a text is in one. Does not know: formats, files.
Units: shares of characters.

A guess alone turns one text in twenty into other letters. With the language known few encodings are left, and the text
itself says which: read in a wrong one it has letters of other scripts, capitals inside words, characters that nobody
uses. Where none is plausible, or two are, nothing is guessed.
"""

from __future__ import annotations

from dataclasses import dataclass

import regex

PLAUSIBLE = 0.9  # share of a text's characters beyond ASCII that must be what its language is written with
APART = 0.05  # by which the best encoding must be better than the next that reads the text differently
_RARE = 0.3  # what a character counts that the language has, but hardly ever uses
_COMMON = 0.45  # least share of a script's most common letters among all its letters; 55 to 75% in real texts
_MARKED = 0.4  # largest share of letters beyond ASCII in a text in Latin script
_KANA = 0.2  # least share of kana in a Japanese text
_PUNCTUATION = regex.compile(r"[«»‹›„“”‚‘’–—―…№°§€£¢©®™·•¿¡¨´×\u00a0\u00ad\u3000-\u303f\uff00-\uff65\p{Nd}]")
_KANAS = regex.compile(r"[\p{Hiragana}ァ-ヿ]")  # of full width
_CASED_WRONG = regex.compile(r"(?<=\p{Ll})\p{Lu}")


@dataclass(frozen=True)
class _Family:
    """Languages that are found in the same encodings.

    Attributes:
        codes: the languages.
        names: the encodings.
        script: what their letters beyond ASCII match.
        letters: those letters, where they are few; common: those that every text is full of.
        latin: whether most letters are ASCII's own.
    """

    codes: str
    names: tuple[str, ...]
    script: str
    letters: str = ""
    common: str = ""
    latin: bool = False


_FAMILIES = (
    _Family("zh", ("gb18030", "big5hkscs"), r"\p{Han}\p{Bopomofo}"),
    _Family("ja", ("cp932", "euc_jp", "iso2022_jp"), r"\p{Han}\p{Hiragana}\p{Katakana}ー"),
    _Family("ko", ("cp949", "johab"), r"\p{Han}\p{Hangul}"),
    _Family(
        "ru uk be bg mk sr kk ky", ("cp1251", "koi8_u", "cp866", "iso8859_5"), r"\p{Cyrillic}",
        "абвгдежзийклмнопрстуфхцчшщъыьэюяёґєіїўјљњћђџѓќѕѐѝ", "оеаинтсрві",
    ),
    _Family("el", ("cp1253",), r"\p{Greek}", common="αοιετσνηρςάό"),
    _Family("he yi", ("cp1255",), r"\p{Hebrew}", common="יוהלאתרמשנ"),
    _Family("ar fa ur", ("cp1256",), r"\p{Arabic}", common="اليمنتروهبدی"),
    _Family("th", ("cp874",), r"\p{Thai}", common="านรอกเงมยลวดทส่ี้ัิ"),
    _Family("tr az", ("cp1254",), r"\p{Latin}", "çğıöşüâîûəi̇", latin=True),
    _Family("et lv lt", ("cp1257",), r"\p{Latin}", "āäąčēęėģīįķļņōõöšūųüžŗ", latin=True),
    _Family(
        "vi", ("cp1258",), r"\p{Latin}\p{M}",
        "àáâãèéêìíòóôõùúýăđĩũơưạảấầẩẫậắằẳẵặẹẻẽếềểễệỉịọỏốồổỗộớờởỡợụủứừửữựỳỵỷỹ\u0300\u0301\u0303\u0309\u0323", latin=True,
    ),
    _Family(
        "pl cs sk hu sl hr bs ro", ("cp1250",), r"\p{Latin}",
        "áäąăâćčçďđéěęëíîĺľłńňóôöőŕřśšşșßťţțúůűüýźżž", latin=True,
    ),
    _Family(
        "de en fr es it pt nl da sv no nb nn fi is ca gl eu af ga sq id ms sw", ("cp1252",), r"\p{Latin}",
        "àáâãäåæçèéêëìíîïðñòóôõöøùúûüýþÿßœšžªº", latin=True,
    ),
)  # fmt: skip


def guess(data: bytes, language: str) -> str | None:
    """The encoding that `data` is plausible in as a text in `language` (`zh`, `pt-BR`); None where none is."""
    code = language.partition("-")[0].lower()
    family = next((family for family in _FAMILIES if code in family.codes.split()), None)
    if family is None or _is_damaged_utf8(data):
        return None
    found: list[tuple[float, str, str]] = []
    for name in family.names:
        try:
            text = data.decode(name)
        except UnicodeDecodeError:
            continue
        found.append((_plausibility(text, family, code), name, text))
    found.sort(key=lambda entry: -entry[0])
    if not found or found[0][0] < PLAUSIBLE:
        return None
    for share, _, text in found[1:]:
        if found[0][0] - share < APART and text != found[0][2]:
            return None
    return found[0][1]


def _is_damaged_utf8(data: bytes) -> bool:
    """Whether most of what is beyond ASCII is UTF-8 all the same."""
    text = data.decode("utf-8", "replace")
    beyond = [char for char in text if not char.isascii()]
    return beyond.count("\ufffd") < len(beyond) / 2


def _plausibility(text: str, family: _Family, language: str) -> float:
    """Share of the characters beyond ASCII that are the language's; 0 where it cannot be a text in it."""
    own = regex.compile(f"[{family.script}]")
    beyond = [char for char in text if not char.isascii()]
    letters = [char for char in beyond if own.match(char)]
    if not letters or _is_unlike(text, letters, family, language):
        return 0.0
    good = sum(_weight(char, family, language) for char in letters)
    good += sum(1 for char in beyond if not own.match(char) and _PUNCTUATION.match(char))
    wrong = len(_CASED_WRONG.findall(text))
    if family.common and not family.latin:  # a word is written in one script
        wrong += len(regex.findall(f"(?<=[A-Za-z])[{family.script}]|[{family.script}](?=[A-Za-z])", text))
    return max(0.0, good - wrong) / len(beyond)


def _is_unlike(text: str, letters: list[str], family: _Family, language: str) -> bool:
    """Whether the letters are not spread as in any text of the language."""
    if family.latin:
        return len(letters) > _MARKED * sum(char.isalpha() for char in text)
    if language == "ja":
        return sum(1 for char in letters if _KANAS.match(char)) < _KANA * len(letters)
    common = sum(char.lower() in family.common for char in letters)
    return bool(family.common) and common < _COMMON * len(letters)


def _weight(char: str, family: _Family, language: str) -> float:
    """What one letter counts: 1, less where it is hardly ever used, 0 where the language has no such letter."""
    if family.letters:
        return float(char.lower() in family.letters)
    if "가" <= char <= "힣":
        return 1.0 if _within(char, "euc_kr", 0xB0, 0xC8) else _RARE
    if "\uff66" <= char <= "\uff9f":  # kana of half width
        return _RARE
    if "一" <= char <= "鿿":
        frequent = language != "ko" and (_within(char, "gb2312", 0xB0, 0xD7) or _within(char, "big5", 0xA4, 0xC6))
        return 1.0 if frequent else _RARE
    return 1.0


def _within(char: str, name: str, first: int, last: int) -> bool:
    """Whether a character's lead byte in that encoding lies in the rows of its frequent characters."""
    try:
        return first <= char.encode(name)[0] <= last
    except UnicodeEncodeError:
        return False
