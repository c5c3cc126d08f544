"""Files of other tools: what they say is read as they mean it, and a review written as one comes back the same."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge.errors import InputError, SettingsError
from edge.records import UnitTranslated
from edge.translation import glossary, interchange, languages, pairs, reviewing
from edge.translation.prompts import Pair

EN, DE, RU, ZH = (languages.find(code) for code in ("en", "de", "ru", "zh"))
CODED = [
    "⟦1⟧bold⟦/1⟧ and ⟦2/⟧ more",
    "⟦1⟧a ⟦2⟧b⟦/2⟧⟦/1⟧",
    "⟦1⟧⟦2/⟧⟦/1⟧",
    "⟦1⟧crossing ⟦2⟧here⟦/1⟧ now⟦/2⟧",
    "⟦/1⟧ stray ⟦1⟧",
    "⟦2/⟧⟦2/⟧",
]
PLAIN = ["one\u2028two", "one\x85two", " indented ", "“quoted” and \"straight\"", "back\\slash \\n", "a < b & c > d", "]]>", "=1+2", "# no comment",
         "50% of; it, all", "苏绵", "עברית", "fuzzy", 'msgid "x"', "tab\u00a0space"]  # fmt: skip
ODD = ["one\x0btwo", "one\x1etwo", "bell\x07"]  # characters that XML has none for


def unit(number: int, source: str, text: str, status: str = "model") -> UnitTranslated:
    return UnitTranslated(number + 1, f"u{number:06d}", source, text, status)


def saved(path: Path, rows: list[UnitTranslated]) -> Path:
    path.write_bytes(interchange.write(path, rows, EN, DE).encode())
    return path


def lines(path: Path, source: languages.Language = EN, target: languages.Language = DE) -> list[Pair]:
    return [pair for chunk in pairs.read(path, source, target) for pair in chunk]


@pytest.mark.parametrize("suffix", interchange.SUFFIXES)
def test_a_review_comes_back_as_it_went_out(suffix: str, tmp_path: Path) -> None:
    texts = [*PLAIN, *CODED, *(ODD if suffix != ".po" else [])]
    rows = [unit(n, text, f"{text[::-1]}!" if text in PLAIN else text, "corrected") for n, text in enumerate(texts)]
    rows += [unit(100 + n, f"draft {n}", text) for n, text in enumerate(texts)]
    rows += [unit(200, "no draft", "", "marked"), unit(201, "7", "7", "copied")]
    path = saved(tmp_path / f"review{suffix}", rows)
    kept = {row.id: Pair(row.source, row.text) for row in rows if row.status == "corrected"}
    assert pairs.by_unit(path) == kept
    assert lines(path) == list(kept.values())
    # and once more, written from what was read
    again = [unit(int(id[1:]), pair.source, pair.target, "corrected") for id, pair in pairs.by_unit(path).items()]
    assert pairs.by_unit(saved(tmp_path / f"again{suffix}", again)) == kept


@pytest.mark.parametrize("suffix", interchange.SUFFIXES)
def test_all_forms_give_the_same_corrections(suffix: str, tmp_path: Path) -> None:
    rows = [
        unit(0, "Sea.", "See.", "corrected"),
        unit(1, "Ship.", "Schiff."),
        unit(2, "Men.", "Mann.", "marked"),
        unit(3, "Oar.", ""),
    ]
    expected = saved(tmp_path / "review.tsv", rows)
    found = saved(tmp_path / f"review{suffix}", rows)
    assert pairs.by_unit(found) == pairs.by_unit(expected) == {"u000000": Pair("Sea.", "See.")}
    untouched = saved(tmp_path / f"none{suffix}", rows[1:])
    with pytest.raises(InputError, match="edited or confirmed"):
        lines(untouched)


def test_what_was_edited_in_a_tool_is_a_correction(tmp_path: Path) -> None:
    """As editors leave the files: a changed target, a state set, a fuzzy mark taken away; and what they only touch."""
    rows = [unit(n, f"Line {n}.", f"Zeile {n}.") for n in range(4)]
    for suffix, space in (
        (".xlf", "urn:oasis:names:tc:xliff:document:1.2"),
        (".xliff", "urn:oasis:names:tc:xliff:document:2.0"),
    ):
        path = saved(tmp_path / f"a{suffix}", rows)
        tree = ElementTree.parse(path)
        targets = list(tree.iter(f"{{{space}}}target"))
        targets[1].text = "Reihe 1."
        holders = targets if suffix == ".xlf" else list(tree.iter(f"{{{space}}}segment"))
        holders[2].set("state", "final")
        tree.write(path, "utf-8", xml_declaration=True)
        assert lines(path) == [Pair("Line 1.", "Reihe 1."), Pair("Line 2.", "Zeile 2.")]
        assert pairs.by_unit(path)["u000001"] == Pair("Line 1.", "Reihe 1.")
    path = saved(tmp_path / "a.po", rows)
    parts = path.read_text("utf-8").split("\n\n")
    parts[2] = parts[2].replace("Zeile 1.", "Reihe 1.")
    parts[3] = parts[3].replace("#, fuzzy\n", "")
    parts[4] = parts[4].replace('msgstr "Zeile 3."', 'msgstr ""\n"Zeile "\n"3."')  # another width of lines
    path.write_text("\n\n".join(parts), "utf-8")
    assert pairs.by_unit(path) == {"u000001": Pair("Line 1.", "Reihe 1."), "u000002": Pair("Line 2.", "Zeile 2.")}
    path = saved(tmp_path / "a.csv", rows)
    table = list(csv.reader(io.StringIO(path.read_text("utf-8-sig"), newline="")))
    table[2][1] = 'Die "Reihe"; eins, 1.'
    table[3][2] = "ok"
    for separator in ",;":
        stream = io.StringIO(newline="")
        csv.writer(stream, delimiter=separator, quoting=csv.QUOTE_ALL).writerows(table)
        path.write_text(stream.getvalue(), "utf-8")
        assert lines(path) == [Pair("Line 1.", 'Die "Reihe"; eins, 1.'), Pair("Line 2.", "Zeile 2.")]


def test_a_tool_may_cut_a_row_into_segments(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.xliff", [unit(0, "One. Two.", "Eins. Zwei.")])
    text = path.read_text("utf-8")
    start, end = text.index("<segment"), text.index("</unit>")
    halves = (
        '<segment state="final"><source>One.</source><target>Eins.</target></segment><ignorable><source> </source><target> </target></ignorable>'
        '<segment state="{}"><source>Two.</source><target>Zwei.</target></segment>'
    )
    path.write_text(text[:start] + halves.format("reviewed") + text[end:], "utf-8")
    assert lines(path) == [Pair("One. Two.", "Eins. Zwei.")]
    path.write_text(text[:start] + halves.format("initial") + text[end:], "utf-8")
    assert pairs.by_unit(path) == {}


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    suffix=st.sampled_from([".xlf", ".xliff", ".po"]),
)
def test_any_text_comes_back(text: str, suffix: str, tmp_path: Path) -> None:
    if text.strip() and "\0" not in text:
        path = saved(tmp_path / f"r{suffix}", [unit(0, f"x{text}", text, "corrected")])
        assert pairs.by_unit(path) == {"u000000": Pair(f"x{text}", text)}


def test_another_ending_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"suffix '.docx'; expected a review as one of .tsv, .csv, .xlf"):
        interchange.write("review.docx", [], EN, DE)


# --- files of other tools ---

XLIFF = '<xliff version="1.2"><file source-language="en" target-language="{}"><body>{}</body></file></xliff>'
XLIFF2 = '<xliff xmlns="urn:oasis:names:tc:xliff:document:2.0" version="2.0" srcLang="en" trgLang="{}"><file id="f">{}</file></xliff>'


@pytest.mark.parametrize("state, taken", [
    ("new", False), ("needs-translation", False), ("needs-adaptation", False), ("needs-l10n", False),
    ("needs-review-translation", True), ("translated", True), ("signed-off", True), ("final", True), ("", True),
])  # fmt: skip
def test_states_of_xliff_1(state: str, taken: bool, tmp_path: Path) -> None:
    said = f' state="{state}"' if state else ""
    unit = f'<trans-unit id="1"><source>Sea</source><target{said}>See</target><alt-trans><source>S</source><target>T</target></alt-trans></trans-unit>'
    path = tmp_path / "a.xlf"
    path.write_text(
        XLIFF.format("de", unit + '<trans-unit id="2"><source>A</source><target>B</target></trans-unit>'), "utf-8"
    )
    assert lines(path) == [*([Pair("Sea", "See")] if taken else []), Pair("A", "B")]


@pytest.mark.parametrize(
    "state, taken", [("initial", False), ("translated", True), ("reviewed", True), ("final", True)]
)
def test_states_of_xliff_2(state: str, taken: bool, tmp_path: Path) -> None:
    segment = f'<segment state="{state}"><source>The <pc id="1">sea</pc><ph id="2"/><cp hex="0007"/></source><target>Die <pc id="1">See</pc></target></segment>'
    other = '<unit id="3" translate="no"><segment><source>X</source><target>Y</target></segment></unit>'
    path = tmp_path / "a.xliff"
    path.write_text(XLIFF2.format("de", f'<unit id="1">{segment}</unit><group id="g" translate="no"><unit id="2">{segment}</unit></group>{other}'
                                  '<unit id="4"><segment><source>A</source><target>B</target></segment></unit>'), "utf-8")  # fmt: skip
    assert lines(path) == [*([Pair("The sea", "Die See")] if taken else []), Pair("A", "B")]


def test_a_file_of_several_languages_gives_the_fitting_part(tmp_path: Path) -> None:
    part = '<file source-language="en" target-language="{}"><body><trans-unit id="1"><source>Sea</source><target>{}</target></trans-unit></body></file>'
    path = tmp_path / "a.xlf"
    path.write_text(f'<xliff version="1.2">{part.format("ru", "Море")}{part.format("de-AT", "See")}</xliff>', "utf-8")
    assert lines(path) == [Pair("Sea", "See")]
    assert lines(path, EN, RU) == [Pair("Sea", "Море")]
    with pytest.raises(InputError, match="from 'en' to 'ru'; expected from 'en' to 'zh'"):
        lines(path, EN, ZH)
    path.write_text(
        XLIFF.format("zh-TW", '<trans-unit id="1"><source>software</source><target>軟體</target></trans-unit>'), "utf-8"
    )
    assert pairs.notes(path, EN, languages.find("zh-CN")) == [f"{path} is in zh-TW, not in zh-CN"]
    unsaid = '<xliff version="1.2"><file><body><trans-unit id="1"><source>Sea</source><target xml:lang="ru">Море</target></trans-unit></body></file></xliff>'
    path.write_text(unsaid, "utf-8")
    with pytest.raises(InputError, match="to 'ru'"):
        lines(path)


@pytest.mark.parametrize("name, text", [
    ("a.xlf", XLIFF.format("de", '<trans-unit id="1" translate="no"><source>Sea</source><target>See</target></trans-unit>')),
    ("a.xlf", XLIFF.format("de", '<group translate="no"><trans-unit id="1"><source>Sea</source><target>See</target></trans-unit></group>')),
    ("a.xliff", XLIFF2.format("de", '<unit id="1" translate="no"><segment><source>Sea</source><target>See</target></segment></unit>')),
    ("a.po", 'msgid ""\nmsgstr "Language: de\\n"\n\n#~ msgid "Sea"\n#~ msgstr "See"\n'),
])  # fmt: skip
def test_a_foreign_file_of_which_nothing_is_to_be_translated_is_no_review(name: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(text, "utf-8")
    assert not pairs.is_review(path)  # so that no review is written over it either
    with pytest.raises(InputError, match="has no pair of English and German"):
        lines(path)


PO = """# a translator's file
msgid ""
msgstr ""
"Content-Type: text/plain; charset=UTF-8\\n"
"Language: de_AT\\n"

#: book:1
msgid "Sea"
msgstr "See"

#, fuzzy, c-format
msgid "Ship"
msgstr "Schaf"

msgctxt "verb"
msgid ""
"He said \\"no\\"\\n"
"and left."
msgstr ""
"Er sagte \\"nein\\"\\n"
"und ging."

msgid "Untranslated"
msgstr ""

msgid "one boat"
msgid_plural "%d boats"
msgstr[0] "ein Boot"
msgstr[1] "%d Boote"

#~ msgid "Gone"
#~ msgstr "Fort"
"""


def test_po_files(tmp_path: Path) -> None:
    path = tmp_path / "a.po"
    path.write_text(PO, "utf-8")
    assert lines(path) == [
        Pair("Sea", "See"),
        Pair('He said "no" and left.', 'Er sagte "nein" und ging.'),
        Pair("one boat", "ein Boot"),
    ]
    assert pairs.by_unit(path) == {}
    with pytest.raises(InputError, match="to 'de_AT'; expected from 'en' to 'ru'"):
        lines(path, EN, RU)
    path.write_bytes(PO.replace("UTF-8", "ISO-8859-1").replace("See", "Größe").encode("latin-1"))
    assert lines(path)[0] == Pair("Sea", "Größe")
    path.write_bytes(PO.replace("UTF-8", "KLINGON").encode())
    with pytest.raises(InputError, match="not readable as KLINGON"):
        lines(path)
    path.write_text(PO.replace('msgstr "See"', "msgstr See"), "utf-8")
    with pytest.raises(InputError, match="line 9 is no line of a PO file"):
        lines(path)


@pytest.mark.parametrize("charset, name, written", [
    ("UTF-8", "Café", "Caf\\303\\251"), ("UTF-8", "Café", "Caf\\xc3\\xa9"), ("ISO-8859-1", "Café", "Caf\\351"), ("UTF-8", "a\nb", "a\\nb"),
    ("UTF-8", "Aé!", "\\101\\303\\251!"),
])  # fmt: skip
def test_numbers_in_po_strings_are_bytes_of_its_encoding(charset: str, name: str, written: str, tmp_path: Path) -> None:
    """As gettext reads them."""
    path = tmp_path / "a.po"
    head = f'msgid ""\nmsgstr "Content-Type: text/plain; charset={charset}\\n" "Language: de\\n"\n\n'
    path.write_bytes(f'{head}msgid "a " "name"\nmsgstr "{written}"\n'.encode("ascii"))
    assert lines(path) == [Pair("a name", " ".join(name.split()))]


@pytest.mark.parametrize("inside, said", [
    ('Hello<g id="1"> world</g>', "Hello world"), ('Say<g id="1"> hello</g> now', "Say hello now"),
    ('<mrk mtype="seg" mid="1">One. </mrk><mrk mtype="seg" mid="2">Two.</mrk>', "One. Two."),
    ('A<mrk mtype="x"> big </mrk>ship', "A big ship"), ('Ship<x id="3" ctype="lb"/>sails', "Ship sails"),
    ('one<x id="3"/>word', "oneword"),
])  # fmt: skip
def test_spaces_inside_elements_stay(inside: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "a.xlf"
    path.write_text(
        '<xliff version="1.2" xmlns="urn:oasis:names:tc:xliff:document:1.2"><file source-language="en" '
        'target-language="de" datatype="plaintext" original="x"><body><trans-unit id="1">'
        f"<source>{inside}</source><target>{inside}!</target></trans-unit></body></file></xliff>", "utf-8",
    )  # fmt: skip
    assert lines(path) == [Pair(said, said + "!")]
    path = tmp_path / "a.tmx"
    inside = inside.replace("<g id=", "<hi type=").replace("</g>", "</hi>").replace("ctype", "type")
    inside = inside.replace("<x ", "<ph ").replace("mrk", "sub" if "mtype" not in inside else "hi")
    texts = ((tag, text) for tag, text in (("en", inside), ("de", inside + "!")))
    body = "".join(f'<tuv xml:lang="{tag}"><seg>{text}</seg></tuv>' for tag, text in texts)
    path.write_text(f'<tmx version="1.4"><header/><body><tu>{body}</tu></body></tmx>', "utf-8")
    assert lines(path) == [Pair(said, said + "!")]


def test_a_text_is_no_translation_of_itself(tmp_path: Path) -> None:
    path = tmp_path / "a.tmx"
    texts = (("en", "hello", "zh-TW", "你好"), ("zh-CN", "软件", "zh-TW", "軟體"))
    units = "".join(
        f'<tu><tuv xml:lang="{one}"><seg>{a}</seg></tuv><tuv xml:lang="{other}"><seg>{b}</seg></tuv></tu>'
        for one, a, other, b in texts
    )
    path.write_text(f'<tmx version="1.4"><header/><body>{units}</body></tmx>', "utf-8")
    assert lines(path, languages.find("zh-CN"), languages.find("zh-TW")) == [Pair("软件", "軟體")]


OBSOLETE = """msgid ""
msgstr "Language: {}\\n"

msgid "Sea"
msgstr "See"

#. templora check ga1b2c3d
#, fuzzy
#~ msgid "Gone"
#~ msgstr "Fort"

msgid "Ship"
msgstr "Schiff"
#, fuzzy
#~| msgid "Gone before"
#~ msgid "Gone, too"
#~ msgstr "Auch fort"
msgid "Boat"
msgstr "Boot"

#, fuzzy
msgid "Crew"
msgstr "Kru"
"""


def test_what_is_said_of_an_obsolete_entry_is_said_of_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.po"
    path.write_text(OBSOLETE.format("de"), "utf-8")
    assert lines(path) == [Pair("Sea", "See"), Pair("Ship", "Schiff"), Pair("Boat", "Boot")]
    assert not pairs.is_review(path)


@pytest.mark.parametrize("named, asked", [
    ("de@formal", "de"), ("de_AT@euro", "de-AT"), ("sr@latin", "sr-Latn"), ("sr@latin", "sr"), ("no", "nb"), ("nb", "no"),
    ("nb_NO", "no"), ("no", "nb-NO"),
])  # fmt: skip
def test_tags_of_one_language_serve_each_other(named: str, asked: str, tmp_path: Path) -> None:
    path = tmp_path / "a.po"
    path.write_text(OBSOLETE.format(named), "utf-8")
    target = languages.find(asked)
    assert lines(path, EN, target)[0] == Pair("Sea", "See")
    assert pairs.notes(path, EN, target) == []


@pytest.mark.parametrize("tag, asked, close", [
    ("sr@latin", "sr-Latn", 4), ("sr@latin", "sr@cyrillic", 1), ("sr@latin", "sr", 2), ("de@formal", "en", 0), ("de-AT@formal", "de-AT", 3),
    ("no", "nb", 2), ("nb-NO", "no", 2), ("no-NO", "nb-NO", 3), ("nb", "nb", 4), ("nn", "no", 0), ("nb", "da", 0), ("@", "de", 0),
])  # fmt: skip
def test_closeness(tag: str, asked: str, close: int) -> None:
    assert languages.closeness(tag, asked) == languages.closeness(asked, tag) == close


def test_the_nearest_of_two_tags_of_norwegian_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "a.tmx"
    texts = {"en": "Sea", "no": "Sjø", "nb": "Hav", "nn": "Hav, au"}
    body = "".join(f'<tuv xml:lang="{tag}"><seg>{text}</seg></tuv>' for tag, text in texts.items())
    path.write_text(f'<tmx version="1.4"><body><tu>{body}</tu></body></tmx>', "utf-8")
    assert lines(path, EN, languages.find("nb")) == [Pair("Sea", "Hav")]
    assert lines(path, EN, languages.find("no")) == [Pair("Sea", "Sjø")]
    path.write_text(path.read_text("utf-8").replace('"nb"', '"sv"'), "utf-8")
    assert lines(path, EN, languages.find("nb")) == [Pair("Sea", "Sjø")]


@pytest.mark.parametrize("text", [
    "Hello, world;Hallo, Welt\r\nYes;Ja\r\n",
    '"Hello, world","Hallo, Welt"\r\nYes,Ja\r\n',
    'sep=;\r\n"Hello, world";"Hallo, Welt"\r\nYes;Ja',
    "\ufeffEnglish;German;note\nHello, world;Hallo, Welt;x\nYes;Ja;",
    "note,target,source\nx,\"Hallo, Welt\",\"Hello, world\"\n,Ja,Yes",
    "Hello, world\tHallo, Welt\nYes\tJa\n",
])  # fmt: skip
def test_tables_between_commas(text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(text.encode())
    assert lines(path) == [Pair("Hello, world", "Hallo, Welt"), Pair("Yes", "Ja")]


@pytest.mark.parametrize("text", [
    '"Hello"\t"Hallo"\n"Yes"\t"Ja"\n', "source\ttarget\nHello\tHallo\nYes\tJa\n", "de\ten\nHallo\tHello\nJa\tYes\n",
])  # fmt: skip
def test_tables_of_spreadsheets(text: str, tmp_path: Path) -> None:
    """Every cell quoted, heads in any order; as UTF-16 too, which is what they call Unicode text."""
    path = tmp_path / "a.tsv"
    for encoding in ("utf-8", "utf-16"):
        path.write_bytes(text.encode(encoding))
        assert lines(path) == [Pair("Hello", "Hallo"), Pair("Yes", "Ja")]


def test_a_row_that_a_table_lacks_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("Hello;Hallo\nYes\n", "utf-8")
    with pytest.raises(InputError, match="line 2 has 1 column"):
        lines(path)


BOMB = """<?xml version="1.0"?><!DOCTYPE {0} [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">
<!ENTITY f SYSTEM "file:///etc/passwd">]>{1}"""


@pytest.mark.parametrize("name, root, body", [
    ("a.xlf", "xliff", XLIFF.format("de", '<trans-unit id="1"><source>Sea &c; &f;</source><target>See</target></trans-unit>')),
    ("a.xliff", "xliff", XLIFF2.format("de", "<unit><segment><source>&c;</source><target>&f;</target></segment></unit>")),
    ("a.tmx", "tmx", '<tmx version="1.4"><body><tu><tuv xml:lang="en"><seg>&c;</seg></tuv><tuv xml:lang="de"><seg>&f;</seg></tuv></tu></body></tmx>'),
])  # fmt: skip
def test_entities_are_refused(name: str, root: str, body: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(BOMB.format(root, body), "utf-8")
    with pytest.raises(InputError, match=r"declares entities|not well-formed"):
        lines(path)


def test_a_fingerprint_knows_no_white_space() -> None:
    assert reviewing.check("a  b\n") == reviewing.check("a b") != reviewing.check("ab")


@pytest.mark.parametrize("asked, heads, columns", [
    ("en de", "de-DE,en-US", (1, 0)), ("en de", "de_DE,EN", (1, 0)), ("en de", "target,source", (1, 0)), ("en de", "German,English", (1, 0)),
    ("en de", "German (Germany),English (United States)", (1, 0)), ("en de", "note,Deutsch,English", (2, 1)), ("en zh", "zh-Hans-CN,en-US", (1, 0)),
    ("en de-CH", "de-CH,de-DE,en", (2, 0)), ("en de-CH", "de-DE,de-CH,en", (2, 1)), ("en-GB de-CH", "de-AT,de-CH,en-US,en-GB", (3, 1)),
    ("en-GB en-US", "en-US,en-GB", (1, 0)), ("en zh-HK", "zh-CN,zh-TW,en", (2, 1)), ("en zh-TW", "Chinese (Traditional),English", (1, 0)),
    ("en zh-TW", "Chinese (Simplified),Chinese (Traditional),English (US)", (2, 1)), ("en zh-Hans", "Simplified Chinese,English", (1, 0)),
    ("en pt-BR", "Portuguese (Portugal),Portuguese (Brazil),English", (2, 1)), ("en de", "fr-FR,en,de", (1, 2)),
    ("en de", "#,Source,Target", (1, 2)), ("en de", "#,German,English", (2, 1)), ("en de", "ID,Source (en),Target (de)", (1, 2)),
])  # fmt: skip
def test_heads_say_which_column_is_which(asked: str, heads: str, columns: tuple[int, int], tmp_path: Path) -> None:
    source, target = (languages.find(tag) for tag in asked.split())
    cells = [f"text {number}" for number in range(heads.count(",") + 1)]
    path = tmp_path / "a.csv"
    for before in ("", "# a note\n\n"):
        path.write_text(f"{before}{heads}\n{','.join(cells)}\n", "utf-8")
        assert pairs.read(path, source, target) == [[Pair(cells[columns[0]], cells[columns[1]])]]


@pytest.mark.parametrize(
    "row", ["German,Deutsch", "English,Englisch", "en-suite,de-luxe", "de,zu", "source,Quelle", "English,note", "en,en"]
)
def test_a_first_pair_is_no_head(row: str, tmp_path: Path) -> None:
    first = Pair(*row.split(","))
    path = tmp_path / "a.csv"
    path.write_text(f"{row}\nsea,See\n", "utf-8")
    assert lines(path) == [first, Pair("sea", "See")]
    path.write_text(f"{row}\nsea,See\n".replace(",", "\t"), "utf-8")
    assert dict(glossary.read(path, EN, DE).terms) == {first.source: first.target, "sea": "See"}


@pytest.mark.parametrize("heads, row", [
    ("source\ttarget", "sea\tSee"), ("English\tGerman\tnote", "sea\tSee\twater"), ("Target\tSource", "See\tsea"), ("de-DE\ten-US", "See\tsea"),
    ("note\tGerman (Germany)\tEnglish", "water\tSee\tsea"), ("#\tSource\tTarget", "1\tsea\tSee"),
])  # fmt: skip
def test_heads_of_a_glossary_are_no_terms(heads: str, row: str, tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text(f"# terms\n\n{heads}\n{row}\n", "utf-8")
    assert dict(glossary.read(path, EN, DE).terms) == {"sea": "See"}
    if "ource" in heads:
        assert dict(glossary.read(path).terms) == {"sea": "See"}
    path.write_text(f"{heads}\n{row.split()[0]}\n", "utf-8")
    with pytest.raises(InputError, match="line 2"):
        glossary.read(path, EN, DE)
