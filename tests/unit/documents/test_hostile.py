"""Hostile and damaged input: refused in one line, never a traceback, never a file elsewhere."""

from __future__ import annotations

import os
import random
import stat
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import books
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from lxml import etree

from edge.documents import FORMATS, Limits, open_document, placeholders
from edge.errors import InputError, StorageError, TemploraError

_ENCRYPTION = (
    '<encryption xmlns="urn:oasis:names:tc:opendocument:xmlns:container" xmlns:e="http://www.w3.org/2001/04/xmlenc#">'
    '<e:EncryptedData><e:EncryptionMethod Algorithm="{}"/><e:CipherData><e:CipherReference URI="OEBPS/one.xhtml"/>'
    "</e:CipherData></e:EncryptedData></encryption>"
)


def _refused(path: Path, match: str, **options: object) -> None:
    with pytest.raises(InputError, match=match) as caught:
        open_document(path, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


# --- archives ---


def test_drm_is_refused_with_its_reason(tmp_path: Path) -> None:
    path = tmp_path / "a.epub"
    for changes, match in (
        ({"META-INF/encryption.xml": _ENCRYPTION.format("http://www.w3.org/2001/04/xmlenc#aes128-cbc")}, "aes128-cbc"),
        ({"META-INF/encryption.xml": _ENCRYPTION.format("")}, "encrypted by DRM"),
        ({"META-INF/rights.xml": "<rights/>"}, "Adobe DRM"),
        ({"META-INF/sinf.xml": "<sinf/>"}, "Apple DRM"),
    ):
        _refused(books.make_epub(path, {name: text.encode() for name, text in changes.items()}), match)


def test_obscured_fonts_are_allowed(tmp_path: Path) -> None:
    for algorithm in ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC"):
        data = {"META-INF/encryption.xml": _ENCRYPTION.format(algorithm).encode()}
        assert open_document(books.make_epub(tmp_path / "a.epub", data)).units


@pytest.mark.parametrize("name", ["../evil.xhtml", "/etc/evil", "OEBPS/../../evil", "C:/evil", "a\\..\\evil"])
@pytest.mark.parametrize("kind", ["epub", "docx"])
def test_path_traversal_is_refused(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    make = books.make_epub if kind == "epub" else books.make_docx
    with zipfile.ZipFile(make(path), "a") as archive:
        archive.writestr(name, b"evil")
    _refused(path, "unsafe path")


def test_references_out_of_the_archive_are_refused(tmp_path: Path) -> None:
    for target in ("../../../etc/passwd", "file:///etc/passwd", "http://example.com/x", "/etc/passwd", ""):
        package = books.epub_entries()["OEBPS/book.opf"].replace(b'href="one.xhtml"', f'href="{target}"'.encode())
        _refused(books.make_epub(tmp_path / "a.epub", {"OEBPS/book.opf": package}), "its spine lists")


def test_symbolic_link_is_refused(tmp_path: Path) -> None:
    path = books.make_epub(tmp_path / "a.epub")
    link = zipfile.ZipInfo("OEBPS/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    _refused(path, "symbolic link")


def test_zip_bombs_are_refused(tmp_path: Path) -> None:
    path = books.make_epub(tmp_path / "a.epub", {"OEBPS/bomb.css": b" " * 3_000_000})
    _refused(path, "zip bombs")
    path = books.make_epub(tmp_path / "a.epub")
    total = sum(len(data) for data in books.epub_entries().values())
    assert open_document(path, limits=Limits(unpacked=total)).units
    _refused(path, "unpacks to", limits=Limits(unpacked=total - 1))
    _refused(path, "holds 10 entries", limits=Limits(entries=9))


def test_size_that_the_directory_hides(tmp_path: Path) -> None:
    """An entry that unpacks to more than it says is damaged, and is not unpacked further."""
    entries = books.epub_entries()
    data = bytearray(books.zipped({**entries, "OEBPS/one.xhtml": entries["OEBPS/one.xhtml"] + b" " * 500_000}))
    at = data.rfind(b"PK\x01\x02", 0, data.rfind(b"OEBPS/one.xhtml"))
    data[at + 24 : at + 28] = (100).to_bytes(4, "little")
    path = tmp_path / "a.epub"
    path.write_bytes(data)
    _refused(path, "damaged")


def test_encrypted_and_odd_archives_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.epub"
    data = bytearray(books.zipped(books.epub_entries()))
    at = data.find(b"PK\x01\x02")
    data[at + 8] |= 1
    path.write_bytes(data)
    _refused(path, "encrypted with a password")
    for method in (zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2):
        books.make_epub(path)
        with zipfile.ZipFile(path, "a", method) as archive:
            archive.writestr("x", b"y" * 100)
        _refused(path, "by method")
    with pytest.warns(UserWarning), zipfile.ZipFile(books.make_epub(path), "a") as archive:
        archive.writestr("OEBPS/one.xhtml", b"again")
    _refused(path, "two entries")


def test_wrong_formats_are_named(tmp_path: Path) -> None:
    for name, data, match in (
        ("a.epub", b"", "is empty"),
        ("a.epub", b"just text", "is no zip archive"),
        ("a.docx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "password-protected"),
        ("a.txt", b"%PDF-1.7 text", "is a PDF"),
        ("a.pdf", b"%PDF-1.7", "suffix .pdf"),
        ("a.docx", books.zipped(books.epub_entries()), "holds EPUB"),
        ("a.epub", books.make_docx(tmp_path / "x.docx").read_bytes(), "holds DOCX"),
        ("a.txt", books.zipped(books.epub_entries()), "binary|holds EPUB"),
        ("a.epub", books.zipped({"other": b"x"}), "damaged"),
        ("a.docx", books.zipped({"other": b"x"}), "no Word document"),
        ("archive", books.zipped({"other": b"x"}), "is an archive"),
        ("a.srt", b"no cue here", "no subtitle"),
        ("a.txt", b"123 456", "no letter"),
        ("a.md", b"```\ncode\n```\n", "no text"),
        ("a.html", b"<p>42</p>", "no text"),
        ("a.txt", b"abc\xff", "not UTF-8 at byte 3"),
        ("a.html", b'<meta charset="big5"><p>caf\xe9</p>', "encoding that it names"),
        ("a.html", b'<meta charset="zip"><p>cafe</p>', "encoding that it names"),
    ):
        path = tmp_path / name
        path.write_bytes(data)
        _refused(path, match)


def test_content_decides_without_a_suffix(tmp_path: Path) -> None:
    path = tmp_path / "book"
    for data, kind in (
        (books.zipped(books.epub_entries()), "epub"),
        (books.SRT.encode(), "srt"),
        (books.HTML.encode(), "html"),
        (books.TEXT.encode(), "txt"),
    ):
        path.write_bytes(data)
        assert open_document(path).format == kind


def test_paths_and_sizes(tmp_path: Path) -> None:
    _refused(tmp_path / "none.txt", "no such file")
    _refused(tmp_path / "none.xyz", "no such file")
    _refused(tmp_path, "is a folder")
    _refused(Path("a\0.txt"), "cannot be read")
    os.mkfifo(tmp_path / "pipe.txt")
    _refused(tmp_path / "pipe.txt", "device or pipe")
    path = tmp_path / "a.txt"
    path.write_text("long text " * 20)
    _refused(path, "larger than 100 B", text_limit=100)
    with open(tmp_path / "big.epub", "wb") as stream:
        stream.write(b"PK\x03\x04")
        stream.truncate(1 << 20)
    _refused(tmp_path / "big.epub", "larger than", limits=Limits(unpacked=1000))


# --- XML ---


def test_entities_are_never_read_or_expanded(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("TOP SECRET")
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    kinds = f'<!DOCTYPE html [<!ENTITY x SYSTEM "{secret.as_uri()}"><!ENTITY l0 "ha">{laughs}]>'
    text = books.CHAPTER.replace("<!DOCTYPE html>", kinds).replace("purse.", "purse &x; &l0; end.")
    path = books.make_epub(tmp_path / "a.epub", {"OEBPS/one.xhtml": text.encode()})
    begin = time.monotonic()
    document = open_document(path)
    document.write(tmp_path / "b.epub", books.translated(document))
    assert time.monotonic() - begin < 5
    written = books.entries_of(tmp_path / "b.epub")["OEBPS/one.xhtml"]
    assert b"SECRET" not in written and len(written) < 3 * len(text)
    assert not any("SECRET" in unit.text or "haha" in unit.text for unit in document.units)
    for bomb in (text.replace('class="first"', 'class="&l9;"'), text.replace("&l0; end", "&l9; end")):
        begin = time.monotonic()
        open_or_refuse(books.make_epub(path, {"OEBPS/one.xhtml": bomb.encode()}))
        assert time.monotonic() - begin < 5


def test_html_entities_are_characters(tmp_path: Path) -> None:
    text = books.CHAPTER.replace("purse.", "purse&nbsp;&eacute;&amp;&lt;.")
    document = open_document(books.make_epub(tmp_path / "a.epub", {"OEBPS/one.xhtml": text.encode()}))
    assert any("purse\xa0é&<." in unit.text for unit in document.units)


def test_bad_xml_is_refused(tmp_path: Path) -> None:
    deep = "<div>" * 5000 + "x" + "</div>" * 5000
    for name, data, match in (
        ("OEBPS/one.xhtml", b"<html><p>open</html>", "not well-formed"),
        ("OEBPS/one.xhtml", f"<html>{deep}</html>".encode(), "not well-formed|nested deeper"),
        ("OEBPS/one.xhtml", b"", "not well-formed"),
        ("OEBPS/book.opf", b"<package/>", "no text"),
        ("META-INF/container.xml", b"<container/>", "no package file"),
        ("META-INF/container.xml", b'<c><rootfile full-path="../../x"/></c>', "no package file"),
    ):
        _refused(books.make_epub(tmp_path / "a.epub", {name: data}), match)
    path = tmp_path / "a.html"
    path.write_text(f"<html><body>{deep}</body></html>")
    _refused(path, "nested deeper|not readable")
    path = tmp_path / "a.md"
    path.write_text("> " * 3000 + "x")
    open_or_refuse(path)


def test_hostile_texts_take_no_long_time(tmp_path: Path) -> None:
    size = 100_000
    cue = "1\n00:00:01,000 --> 00:00:02,000\n"
    for name, text in (
        ("a.srt", cue + "x\n" + " " * size + "\n" * size),
        ("a.srt", cue + "<i" * size + "x" + "{\\" * size),
        ("a.srt", cue + "<i>x" * 5_000 + "</b>" * 5_000),
        ("a.srt", cue + "<i>x" * 3_000 + "</i>" * 3_000),
        ("a.srt", cue + "<br/>\ny" * 130_000),
        ("a.srt", cue + "- y\n" * 100_000),
        ("a.srt", cue + "<i>\n" * 100_000),
        ("a.md", '"\n' * 500_000),
        ("a.txt", "x" + "." * size + "⟦" * size),
        ("a.txt", "a\n" * 10_000),
        ("a.html", "<b>x" * 100 + "<" * size),
        ("a.html", "<br>x" * 3_000),
        ("a.html", "<b>" * 125 + "x"),
        ("a.md", "x" + "*a_" * 2_000 + "[" * 500),
        ("a.md", "*a " * 2_000 + "a* " * 2_000),
        ("a.md", "^[a " * 500 + "]" * 500),
        ("a.md", "[a](b " * 500 + "![" * 500),
        ("a.md", "|a" * 300 + "|\n" + "|-" * 300 + "|\n" + "|b" * 300 + "|\n"),
    ):
        path = tmp_path / name
        path.write_text(text)
        begin = time.process_time()  # other work on the machine is none of it
        for step in steps(path):
            assert time.process_time() - begin < 10, (name, text[:60], step)
            begin = time.process_time()


def test_a_paragraph_of_markup_alone_is_one_text_as_it_stands(tmp_path: Path) -> None:
    """A million characters of markup are followed by nobody; words of that length are."""
    path = tmp_path / "a.md"
    for one, followed in (("[x", False), ("^[你好", False), ("**x** ", False), ("wo*r*ds, ", True)):
        text = "Begin " + one * (1_000_000 // len(one) if not followed else 10_000) + "end.\n"
        path.write_text(text, "utf-8")
        begin = time.process_time()
        document = open_document(path)
        assert time.process_time() - begin < 10, one
        assert any("⟦1⟧" in unit.text for unit in document.units) == followed
        document.write(tmp_path / "out.md", {unit.id: unit.text for unit in document.units}, language="en")
        assert (tmp_path / "out.md").read_text("utf-8") == text
        document.write(tmp_path / "out.md", {unit.id: unit.text for unit in document.units}, bilingual=True)
        assert (tmp_path / "out.md").read_text("utf-8") == f"{text}\n{text}"


# --- fuzz ---


def open_or_refuse(path: Path) -> None:
    """Opens, translates and writes, or ends in an error of ours."""
    assert list(steps(path))


def steps(path: Path) -> Iterator[str]:
    """What was done, after each step of `open_or_refuse`."""
    try:
        document = open_document(path)
        yield "opened"
        target = path.with_name(f"out{path.suffix}")
        document.write(target, books.translated(document), language="ar")
        yield "written"
        document.write(target, books.translated(document), language="zh", bilingual=True)
        yield "written in both languages"
    except TemploraError as error:
        assert isinstance(error, (InputError, StorageError)) and "\n" not in str(error)
        yield "refused"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(sorted(FORMATS)), st.binary(max_size=300))
@example(".htm", b"\x01A&#1;b<p>\x0bc")
def test_random_bytes(tmp_path: Path, suffix: str, data: bytes) -> None:
    path = tmp_path / f"in{suffix}"
    path.write_bytes(data)
    open_or_refuse(path)


def _sources(folder: Path) -> list[Path]:
    paths = [books.make_epub(folder / "s.epub"), books.make_docx(folder / "s.docx")]
    for kind, text in (("srt", books.SRT), ("md", books.MARKDOWN), ("html", books.HTML), ("xhtml", books.CHAPTER)):
        paths.append(folder / f"s.{kind}")
        paths[-1].write_text(text, "utf-8")
    return paths


def test_damaged_files(tmp_path: Path) -> None:
    chance = random.Random(5)
    for source in _sources(tmp_path):
        data = source.read_bytes()
        path = tmp_path / f"in{source.suffix}"
        for turn in range(24):
            broken = bytearray(data)
            if turn % 3 == 0:
                broken = broken[: chance.randrange(len(broken))]
            for _ in range(chance.randrange(1, 12) if turn % 3 else 0):
                broken[chance.randrange(len(broken))] = chance.randrange(256)
            path.write_bytes(broken)
            open_or_refuse(path)


def test_damaged_parts(tmp_path: Path) -> None:
    """The damage is inside well-packed archives, where the parsers meet it."""
    chance = random.Random(6)
    for source in _sources(tmp_path)[:2]:
        entries = books.entries_of(source)
        names = [name for name in entries if name.endswith((".xml", ".rels", ".opf", ".xhtml", ".ncx"))]
        for turn in range(24):
            name = chance.choice(names)
            part = bytearray(entries[name])
            if turn % 2:
                begin = chance.randrange(len(part))
                del part[begin : begin + chance.randrange(1, 60)]
            else:
                tags = part.split(b">")
                chance.shuffle(tags) if turn % 4 else tags.pop(chance.randrange(len(tags)))
                part = bytearray(b">".join(tags))
            path = tmp_path / f"in{source.suffix}"
            path.write_bytes(books.zipped({**entries, name: bytes(part)}))
            open_or_refuse(path)


def test_removed_elements_and_attributes(tmp_path: Path) -> None:
    """Well-formed XML that lacks what its format asks for."""
    chance = random.Random(7)
    for source in _sources(tmp_path)[:2]:
        entries = books.entries_of(source)
        names = [n for n in entries if n.endswith((".xml", ".rels", ".opf", ".xhtml", ".ncx")) and "theme" not in n]
        for _ in range(25):
            name = chance.choice(names)
            root = etree.fromstring(entries[name])
            elements = list(root.iter(etree.Element))
            for element in chance.sample(elements, min(len(elements), chance.randrange(1, 4))):
                if element.attrib and chance.random() < 0.6:
                    del element.attrib[chance.choice(list(element.attrib))]
                elif element.getparent() is not None:
                    element.getparent().remove(element)
            path = tmp_path / f"in{source.suffix}"
            path.write_bytes(books.zipped({**entries, name: etree.tostring(root)}))
            open_or_refuse(path)


# --- properties: no unit lost, duplicated or reordered, whatever the text ---

_line = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)
_texts = st.lists(_line | st.sampled_from(["Word one.", "字。", "⟦1⟧", "# x", "", "  indented words"]), min_size=1).map(
    "\n".join
)


def _round_trip(path: Path, text: str) -> tuple[list[str], list[str]] | None:
    path.write_text(text, "utf-8", newline="")
    try:
        document = open_document(path)
    except InputError:
        return None
    for unit in document.units:
        assert placeholders.check(unit.text, books.upper(unit.text)) == []
    result = books.written(document, path.with_name(f"out{path.suffix}"), {u.id: f"{u.text} Q" for u in document.units})
    return [f"{unit.text} Q" for unit in document.units], [unit.text for unit in result.units]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_texts)
@example("⟦a\u2028b\u0085c⟧ \x0b\x1c d\u3000")
@example("\u00ad\x1fA")
@example("A\x1f\u00ad \u00ad")
@example("\u00ad⟦A⟧\u00ad")
def test_any_text_keeps_its_units(tmp_path: Path, text: str) -> None:
    found = _round_trip(tmp_path / "a.txt", text)
    if found is None:
        assert not any(char.isalpha() for char in text)
        return
    before, after = found
    assert before == after
    kept = "".join(char for char in "".join(before) if char.isalpha())
    assert "".join(char for char in text if char.isalpha()) == "".join(kept.split("Q")) or "Q" in text


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(_line, min_size=1, max_size=6))
def test_any_words_in_markup_keep_their_units(tmp_path: Path, lines: list[str]) -> None:
    paragraphs = []
    for at, line in enumerate(lines):
        element = etree.Element("p" if at % 3 else "li")
        bold = etree.SubElement(element, "b" if at % 2 else "br")
        words = "".join(char for char in line if char.isprintable())
        element.text, bold.tail = words, words
        if at % 2:
            bold.text = words
        paragraphs.append(etree.tostring(element, encoding="unicode"))
    html = "<html xmlns='http://www.w3.org/1999/xhtml'><head/><body>" + "".join(paragraphs) + "</body></html>"
    found = _round_trip(tmp_path / "a.xhtml", '<?xml version="1.0"?>' + html)
    if found is None:
        assert not any(char.isalpha() for char in "".join(lines) if char.isprintable())
        return
    assert [" ".join(text.split()) for text in found[0]] == [" ".join(text.split()) for text in found[1]]
    assert len(found[0]) == sum(any(c.isalpha() and c.isprintable() for c in line) for line in lines)


_cue = st.text(st.characters(codec="utf-8", exclude_characters="\0\n\r", exclude_categories=["Cc"]), max_size=30)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(_cue | st.sampled_from(["<i>one</i>", "- two", "<b>x", "</i>"]), max_size=3), max_size=5))
@example([["0", "-", "a"]])
def test_any_cues_keep_their_units(tmp_path: Path, cues: list[list[str]]) -> None:
    text = "".join(f"{n}\n00:00:0{n},000 --> 00:00:0{n},900\n" + "\n".join(cue) + "\n\n" for n, cue in enumerate(cues))
    found = _round_trip(tmp_path / "a.srt", text)
    if found is None:
        return
    words = [[" ".join(placeholders.plain(t).split()) for t in texts] for texts in found]
    assert words[0] == words[1]


_markdown = st.lists(
    st.text(st.sampled_from("ab *_`[]()<>#-+1.|~!\\&\n \t^:="), max_size=25)
    | st.sampled_from(["**b**", "[a](b)", "\n\n"])
).map("".join)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_markdown)
def test_any_markdown_keeps_its_units(tmp_path: Path, text: str) -> None:
    found = _round_trip(tmp_path / "a.md", text)
    if found is None:
        return
    letters = [["".join(char for char in t if char.isalpha()) for t in texts] for texts in found]
    assert letters[0] == letters[1]  # emphasis of a mere number may come back as HTML, its number as text
