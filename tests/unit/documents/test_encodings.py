"""Texts that are not UTF-8: read in their encoding where the language is known, and never in another."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.documents import encodings, open_document
from edge.errors import InputError

TEXTS = {
    "zh": "第二章 渡口\n\n老船夫把缆绳系在石桩上，回头看了看渐渐暗下来的江面。「今晚不会有人过河了。」他说。\n",
    "zh-TW": "第二章 渡口\n\n老船夫把纜繩繫在石樁上，回頭看了看漸漸暗下來的江面。「今晚不會有人過河了。」他說。\n",
    "ja": "第二章　渡し場\n\n船頭は綱を石の杭に結び、暮れてゆく川面をふり返った。「今夜はもう渡る人もあるまい。」\n",
    "ko": "제2장 나루터\n\n늙은 사공은 밧줄을 말뚝에 매고 어두워지는 강을 돌아보았다. “오늘 밤에는 건널 사람이 없겠군.”\n",
    "ru": "Глава вторая. Переправа\n\nСтарый лодочник привязал канат к столбу и оглянулся на реку. «Никто не придёт», — сказал он.\n",
    "uk": "Розділ другий. Перевіз\n\nСтарий човняр прив'язав линву до стовпа й озирнувся на річку. «Ніхто не прийде».\n",
    "el": "Κεφάλαιο δεύτερο\n\nΟ γέρος βαρκάρης έδεσε το σκοινί και κοίταξε το ποτάμι που σκοτείνιαζε.\n",
    "tr": "İkinci bölüm\n\nYaşlı kayıkçı halatı kazığa bağladı ve kararan ırmağa dönüp baktı. Bu gece kimse geçmeyecek, dedi.\n",
    "he": "פרק שני\n\nהספן הזקן קשר את החבל לעמוד והביט בנהר המחשיך.\n",
    "ar": "الفصل الثاني\n\nربط الملاح العجوز الحبل بالوتد ونظر إلى النهر.\n",
    "pl": "Rozdział drugi\n\nStary przewoźnik przywiązał linę do słupa i spojrzał na ciemniejącą rzekę. Nikt już nie przyjdzie.\n",
    "cs": "Kapitola druhá\n\nStarý převozník přivázal lano ke kůlu a ohlédl se na temnící řeku.\n",
    "de": "Zweites Kapitel\n\nDer alte Fährmann knüpfte das Tau an den Pfahl und sah über den dunkelnden Fluß. „Heute kommt keiner.“\n",
    "fr": "Chapitre deuxième\n\nLe vieux passeur noua la corde au poteau et regarda le fleuve où tombait déjà la nuit.\n",
    "th": "บทที่สอง\n\nคนแจวเรือเฒ่าผูกเชือกไว้กับเสา แล้วหันไปมองแม่น้ำ\n",
}
CODECS = {
    "zh": ["gb18030", "gbk"], "zh-TW": ["big5"], "ja": ["cp932", "shift_jis", "euc_jp"], "ko": ["cp949", "euc_kr"],
    "ru": ["cp1251", "koi8_r", "cp866", "iso8859_5"], "uk": ["cp1251", "koi8_u"], "el": ["cp1253"], "tr": ["cp1254"],
    "he": ["cp1255"], "ar": ["cp1256"], "pl": ["cp1250"], "cs": ["cp1250"], "de": ["cp1252"], "fr": ["cp1252", "latin1"],
    "th": ["cp874"],
}  # fmt: skip
CASES = [(language, codec) for language, codecs in CODECS.items() for codec in codecs]


def _encoded(language: str, codec: str, text: str | None = None) -> bytes:
    return (text or TEXTS[language]).encode(
        codec, "replace" if codec in ("koi8_r", "koi8_u", "cp866", "iso8859_5") else "strict"
    )


@pytest.mark.parametrize(("language", "codec"), CASES)
def test_a_text_is_read_in_its_encoding(language: str, codec: str, tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    data = _encoded(language, codec)
    path.write_bytes(data)
    document = open_document(path, language=language)
    assert "\n".join(unit.text for unit in document.units) == data.decode(codec).replace("\n\n", "\n").strip()
    (note,) = document.notes
    assert "UTF-8" in note
    with pytest.raises(InputError, match="not UTF-8"):
        open_document(path)


@pytest.mark.parametrize(("language", "codec"), CASES)
def test_a_few_words_are_enough_or_nothing_is_guessed(language: str, codec: str) -> None:
    """Every line and every beginning of one: the right letters, or none."""
    read = 0
    for line in TEXTS[language].splitlines():
        for length in (6, 12, 24, len(line)):
            data = _encoded(language, codec, line[:length] or "-")
            found = encodings.guess(data, language)
            assert found is None or data.decode(found) == data.decode(codec), (line[:length], found)
            read += found is not None
    assert read >= 2


@pytest.mark.parametrize("language", TEXTS)
def test_a_text_in_another_language_is_not_read_as_this_one(language: str, tmp_path: Path) -> None:
    """What no encoding of the language makes plausible is refused, as it is without a language."""
    path = tmp_path / "book.txt"
    for other, codec in (("ru", "cp1251"), ("zh", "gb18030"), ("de", "cp1252"), ("el", "cp1253")):
        if CODECS[language][0] == codec or {language, other} in ({"ru", "uk"}, {"de", "fr"}, {"zh", "zh-TW"}):
            continue
        data = _encoded(other, codec)
        found = encodings.guess(data, language)
        if found is None:
            path.write_bytes(data)
            with pytest.raises(InputError, match="not UTF-8"):
                open_document(path, language=language)
        else:  # encodings of neighbours have letters in common
            assert data.decode(found) == data.decode(codec), (other, found)


def test_utf8_stays_utf8(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    for language, text in TEXTS.items():
        path.write_text(text, "utf-8")
        document = open_document(path, language=language)
        assert document.notes == () and document.units[0].text == text.splitlines()[0]


def test_damaged_utf8_is_not_another_encoding() -> None:
    for language, text in TEXTS.items():
        whole = text.encode("utf-8")
        for at in range(0, len(whole), 7):
            if whole[at] >= 0x80:
                found = encodings.guess(whole[:at] + whole[at + 1 :], language)
                assert found is None, (language, found)
