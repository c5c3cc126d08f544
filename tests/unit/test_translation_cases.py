"""Translation files that people met: each was taken wrongly once, byte for byte, and this is what is right."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from edge.documents import open_document
from edge.errors import InputError
from edge.records import UnitTranslated
from edge.translation import languages, loop, pairs
from edge.translation.prompts import Pair
from tests.translators import OneByOne

EN, DE, ZH = (languages.find(code) for code in ("en", "de", "zh"))

INLINE_CODES = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE tmx SYSTEM "tmx14.dtd">
<tmx version="1.4"><header creationtool="x" creationtoolversion="1" segtype="sentence" o-tmf="x" adminlang="en" srclang="en-US" datatype="html"/><body><tu><tuv xml:lang="en-US"><seg>Open the <bpt i="1">&lt;b&gt;</bpt>door<ept i="1">&lt;/b&gt;</ept> now.<ph x="1">&lt;br/&gt;</ph></seg></tuv><tuv xml:lang="de-DE"><seg>Öffne jetzt die <bpt i="1">&lt;b&gt;</bpt>Tür<ept i="1">&lt;/b&gt;</ept>.<ph x="1">&lt;br/&gt;</ph></seg></tuv></tu></body></tmx>"""
OTHER_LANGUAGE = """<?xml version="1.0"?><xliff version="1.2" xmlns="urn:oasis:names:tc:xliff:document:1.2"><file source-language="en" target-language="ru" original="a" datatype="plaintext"><body><trans-unit id="1"><source>The door is open.</source><target>Дверь открыта.</target></trans-unit></body></file></xliff>"""
TWO_CHINESE = """<?xml version="1.0"?><tmx version="1.4"><header creationtool="x" creationtoolversion="1" segtype="sentence" o-tmf="x" adminlang="en" srclang="en" datatype="plaintext"/><body><tu><tuv xml:lang="en"><seg>software</seg></tuv><tuv xml:lang="zh-TW"><seg>軟體</seg></tuv><tuv xml:lang="zh-CN"><seg>软件</seg></tuv></tu></body></tmx>"""
SPREADSHEET = '"He said ""no"" and left."\t"Er sagte ""nein"" und ging."\r\nGood day\tGuten Tag\r\n'
REVIEW = """# templora review: edit the second column; set the third to ok where it is right as it is; look first where the last says ?
"He said ""no"" and left."\t"Er sagte ""nein"" und ging."\tmodel\tu000000\ta41d525e\t
Good day\tGuten Tag\tmodel\tu000001\t6b973d26\t
"""
KEPT = """Gabriel Hernandez Whitfield

https://www.example.org/catalogue/2024

ISBN 978-0-306-40615-7

info@harbour-museum.example

The boat came home.
"""


def given(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def lines(path: Path, source: languages.Language = EN, target: languages.Language = DE) -> list[Pair]:
    return [pair for chunk in pairs.read(path, source, target) for pair in chunk]


def test_codes_of_a_memory_are_dropped_with_what_is_in_them(tmp_path: Path) -> None:
    path = given(tmp_path / "inline-codes.tmx", INLINE_CODES)
    assert lines(path) == [Pair("Open the door now.", "Öffne jetzt die Tür.")]


def test_a_file_of_another_language_is_refused_with_both_named(tmp_path: Path) -> None:
    path = given(tmp_path / "other-language.xlf", OTHER_LANGUAGE)
    with pytest.raises(InputError, match=r"from 'en' to 'ru'; expected from 'en' to 'de'"):
        lines(path)
    assert lines(path, EN, languages.find("ru")) == [Pair("The door is open.", "Дверь открыта.")]


def test_of_two_kinds_of_chinese_the_asked_one_is_taken(tmp_path: Path) -> None:
    path = given(tmp_path / "two-chinese.tmx", TWO_CHINESE)
    assert lines(path, EN, languages.find("zh-CN")) == lines(path, EN, ZH) == [Pair("software", "软件")]
    assert lines(path, EN, languages.find("zh-TW")) == [Pair("software", "軟體")]
    assert pairs.notes(path, EN, languages.find("zh-CN")) == []
    alone = given(tmp_path / "b.tmx", TWO_CHINESE.replace('<tuv xml:lang="zh-CN"><seg>软件</seg></tuv>', ""))
    assert lines(alone, EN, languages.find("zh-CN")) == [Pair("software", "軟體")]
    assert "zh-TW" in pairs.notes(alone, EN, languages.find("zh-CN"))[0]


def test_quotes_of_a_spreadsheet_are_no_text(tmp_path: Path) -> None:
    assert lines(given(tmp_path / "excel.tsv", SPREADSHEET)) == [
        Pair('He said "no" and left.', 'Er sagte "nein" und ging.'), Pair("Good day", "Guten Tag")
    ]  # fmt: skip


def test_a_review_that_a_spreadsheet_saved_has_no_corrections_but_the_edited(tmp_path: Path) -> None:
    path = given(tmp_path / "review.tsv", REVIEW)
    assert pairs.by_unit(path) == {}
    with pytest.raises(InputError, match="edited or confirmed"):
        lines(path)
    edited = given(tmp_path / "edited.tsv", REVIEW.replace('""nein""', '""niemals""'))
    assert pairs.by_unit(edited) == {"u000000": Pair('He said "no" and left.', 'Er sagte "niemals" und ging.')}


class Parrot(OneByOne):
    """A translator that gives back what it is given; nothing is taught."""

    def translate(self, request: loop.Request) -> loop.Draft:
        return loop.Draft(request.source, 1)

    def full(self, pairs: Sequence[Pair], of: str = "self") -> bool:
        return False


def test_a_right_copy_is_not_marked(tmp_path: Path) -> None:
    document = open_document(given(tmp_path / "kept-as-is.txt", KEPT))
    job = loop.Job(document.units, EN, DE, learn=frozenset())
    parrot = Parrot()
    done = [r for r in loop.translate(job, parrot, parrot) if isinstance(r, UnitTranslated)]  # type: ignore[arg-type]
    found = {record.source: record.status for record in done}
    assert found.pop("The boat came home.") == "marked"
    assert len(found) == 4 and set(found.values()) <= {"model", "copied"}, found
