"""Words with their reading: the words are translated, the reading is for readers of the source."""

from __future__ import annotations

import re
from pathlib import Path

import books
import docx
import pytest
from lxml import etree

from edge.documents import Document, open_document

_XHTML = "{http://www.w3.org/1999/xhtml}"
_SCHOOL = "<ruby>彼女<rt>かのじょ</rt></ruby>は<ruby>学校<rp>（</rp><rt>がっこう</rt><rp>）</rp></ruby>に行った。"
_WORDS = "彼女は学校に行った。"


def _made(path: Path, content: str) -> Document:
    path.write_text(content, "utf-8")
    return open_document(path)


def _page(body: str) -> str:
    return f'<?xml version="1.0"?>\n<html xmlns="http://www.w3.org/1999/xhtml" xmlns:epub="http://www.idpf.org/2007/ops"><head></head><body>{body}</body></html>'


def _body(path: Path) -> str:
    """What stands in the body of a page, which must be well-formed."""
    text = etree.tostring(etree.fromstring(path.read_bytes()), encoding="unicode")
    found = re.search("<body>(.*)</body>", text, re.S)
    assert found
    return found[1]


def _one(folder: Path, body: str, translated: str | None, **options: object) -> tuple[list[str], str]:
    """The units of an XHTML page, and its body where each unit is translated so."""
    document = _made(folder / "a.xhtml", _page(body))
    translations = {unit.id: translated for unit in document.units} if translated is not None else {}
    document.write(folder / "b.xhtml", translations, **options)  # type: ignore[arg-type]
    return [unit.text for unit in document.units], _body(folder / "b.xhtml")


# --- EPUB and HTML ---


@pytest.mark.parametrize("kind", ["html", "xhtml", "epub"])
def test_words_are_translated_and_readings_go(kind: str, tmp_path: Path) -> None:
    page = _page(f"<p>{_SCHOOL}</p>").replace('<?xml version="1.0"?>\n' if kind == "html" else "", "")
    path = tmp_path / f"a.{kind}"
    document = (
        open_document(books.make_epub(path, {"OEBPS/one.xhtml": page.encode()}))
        if kind == "epub"
        else _made(path, page)
    )
    assert document.units[0].text == _WORDS
    document.write(tmp_path / f"b.{kind}", {document.units[0].id: "She went to school."}, language="en")
    out = tmp_path / f"b.{kind}"
    written = books.entries_of(out)["OEBPS/one.xhtml"] if kind == "epub" else out.read_bytes()
    assert etree.fromstring(written).findtext(f".//{_XHTML}p") == "She went to school."
    assert b"<p>She went to school.</p>" in written


@pytest.mark.parametrize("body, unit, translated, written", [
    ("<p><em><ruby>彼女<rt>かのじょ</rt></ruby></em></p>", "彼女", "She", "<p><em>She</em></p>"),
    ("<p><em><ruby>彼女<rt>か</rt></ruby></em>は</p>", "⟦1⟧彼女⟦/1⟧は", "⟦1⟧She⟦/1⟧ is", "<p><em>She</em> is</p>"),
    ("<p><ruby><em>漢</em><rt>かん</rt>字<rt>じ</rt></ruby>は</p>", "⟦1⟧漢⟦/1⟧字は", "a ⟦1⟧Han⟦/1⟧ b", "<p>a <em>Han</em> b</p>"),
    ("<p><ruby><em>漢</em><rt>かん</rt>字<rt>じ</rt></ruby>は</p>", "⟦1⟧漢⟦/1⟧字は", "Han", "<p>Han</p>"),
    ('<p>a <ruby class="x"><rb>漢</rb><rb lang="ja">字</rb><rt>か<b>ん</b></rt><rt>じ</rt></ruby> b</p>', "a 漢字 b", "x", "<p>x</p>"),
    ("<p><ruby><rbc><rb>漢</rb><rb>字</rb></rbc><rtc><rt>かん</rt><rt>じ</rt></rtc><rtc>kanji</rtc></ruby>は</p>", "漢字は", "x", "<p>x</p>"),
    ("<p>彼は\n <ruby>\n  漢\n  <rt>かん</rt>\n  字\n  <rt>じ</rt>\n </ruby>\n を</p>", "彼は漢字を", "x", "<p>x</p>"),
    ("<p>The <ruby>World <rt>W</rt>Wide <rt>W</rt></ruby>Web</p>", "The World Wide Web", "x", "<p>x</p>"),
    ('<p><ruby><img src="a.png" alt=""/>字<rt>じ</rt></ruby>は</p>', "字は", "x", '<p><img src="a.png" alt=""/>x</p>'),
    ('<p>彼<ruby>字<img src="a.png" alt=""/><rt>じ</rt></ruby>は</p>', "彼字⟦1/⟧は", "x", '<p>x<img src="a.png" alt=""/></p>'),
    ("<p>話说<ruby>天下<rt>tiānxià</rt></ruby>大势</p>", "話说天下大势", "x", "<p>x</p>"),
    ("<p>我<ruby>東<rt>ㄉㄨㄥ</rt></ruby>方</p>", "我東方", "x", "<p>x</p>"),
    ("<p><ruby><ruby>漢<rt>かん</rt></ruby><rt>kan</rt></ruby>字</p>", "漢字", "x", "<p>x</p>"),
    ('<p>a <ruby translate="no">漢<rt>かん</rt></ruby> b</p>', "a ⟦1/⟧ b", "x", '<p>x<ruby translate="no">漢<rt>かん</rt></ruby></p>'),
    ("<h1><ruby>序章<rt>じょしょう</rt></ruby></h1>", "序章", "Prologue", "<h1>Prologue</h1>"),
    ("<table><tr><td><ruby>名<rt>な</rt></ruby>前</td></tr></table>", "名前", "Name", "<table><tr><td>Name</td></tr></table>"),
    ('<nav epub:type="toc"><ol><li><a href="#x"><ruby>第<rt>だい</rt></ruby>一章</a></li></ol></nav>', "第一章", "One", '<nav epub:type="toc"><ol><li><a href="#x">One</a></li></ol></nav>'),
])  # fmt: skip
def test_what_stands_in_and_around_a_ruby(body: str, unit: str, translated: str, written: str, tmp_path: Path) -> None:
    assert _one(tmp_path, body, translated) == ([unit], written)


def test_a_reading_that_html_leaves_unclosed_is_a_reading(tmp_path: Path) -> None:
    for body in (
        "<p><ruby>君<rt>くん<rb>子<rt>し</ruby>は",
        "<p><ruby>君<rp>(<rt>くん<rp>)</ruby>子は",
        "<p><ruby><rb>君<rb>子<rt>くん<rt>し<rtc>kunshi</ruby>は",
    ):
        document = _made(tmp_path / "a.html", body)
        assert [unit.text for unit in document.units] == ["君子は"], body
        document.write(tmp_path / "b.html", {"u000000": "A man"})
        assert (tmp_path / "b.html").read_text("utf-8") == "<p>A man</p>"


def test_an_id_that_no_tree_may_be_given_is_left_out(tmp_path: Path) -> None:
    body = '<p><ruby id="a&#1;">君<rt><a href="b&#1;" id="c">くん</a><?x id="d"?></rt></ruby>は</p>'
    document = _made(tmp_path / "a.html", body)
    document.write(tmp_path / "b.html", {"u000000": "⟦1⟧You⟦/1⟧ are"})
    assert (
        re.sub('href="[^"]*"', "", (tmp_path / "b.html").read_text("utf-8")) == '<p><i id="c"></i><a >You</a> are</p>'
    )


@pytest.mark.parametrize("body, unit, written", [
    # an id that may be linked to stays before the text, inside what is around it
    ('<p>はい、<ruby id="w">彼女<rt id="r">かのじょ</rt></ruby>は</p>', "はい、彼女は", '<p><i id="w"/><i id="r"/>x</p>'),
    ('<ol><li><a href="#w"><ruby><rb id="w">彼</rb><rt>か</rt></ruby></a></li></ol>', "彼", '<ol><li><a href="#w"><i id="w"/>x</a></li></ol>'),
    ('<p>はい、<ruby>彼女<rt><a name="w"></a>かのじょ</rt></ruby>は</p>', "はい、彼女は", '<p><i id="w"/>x</p>'),
    # the mark of a note stays, where the reading is all there is of it, too
    ('<p><ruby>彼女<rt>か<a epub:type="noteref" href="#n" id="r">1</a></rt></ruby>は</p>', "彼女⟦1/⟧は", '<p>x<a epub:type="noteref" href="#n" id="r">1</a></p>'),
    ('<p><ruby>彼女<a href="#n" id="r">1</a><rt>かのじょ</rt></ruby>は</p>', "彼女⟦1/⟧は", '<p>x<a href="#n" id="r">1</a></p>'),
    # a link that names what it is of goes around the words that it is beside
    ('<p>彼<ruby>女<rt><a href="#n" id="r">じょ</a></rt></ruby>は</p>', "彼⟦1⟧女⟦/1⟧は", '<p><i id="r"/>x</p>'),
])  # fmt: skip
def test_nothing_that_a_link_needs_is_lost(body: str, unit: str, written: str, tmp_path: Path) -> None:
    assert _one(tmp_path, body, "x") == ([unit], written)


def test_a_link_of_a_reading_goes_around_its_words(tmp_path: Path) -> None:
    body = '<p>彼<ruby>女<rt><a href="#n" id="r">じょ</a></rt>子<rt><a href="#m">し</a></rt></ruby>は</p>'
    units, written = _one(tmp_path, body, "A ⟦1⟧girl⟦/1⟧ or ⟦2⟧child⟦/2⟧")
    assert units == ["彼⟦1⟧女⟦/1⟧⟦2⟧子⟦/2⟧は"]
    assert written == '<p><i id="r"/>A <a href="#n">girl</a> or <a href="#m">child</a></p>'
    both = '<p><ruby><a href="#o">彼</a>女<rt><a href="#n">かのじょ</a></rt></ruby>は</p>'  # no link in a link
    assert _one(tmp_path, both, "⟦1⟧She⟦/1⟧")[1] == '<p><a href="#o">She</a><a href="#n">かのじょ</a></p>'


@pytest.mark.parametrize("body", [
    f"<p>{_SCHOOL}</p>", f"<p>\n {_SCHOOL}\n</p>", f'<p xml:lang="ja"><em id="e">{_SCHOOL}</em></p>', f"<table><tr><td>{_SCHOOL}</td></tr></table>",
    '<p><ruby id="w">彼女<rt><a href="#n">かのじょ</a></rt></ruby></p>', f'<nav epub:type="toc"><ol><li><a href="#x">{_SCHOOL}</a></li></ol></nav>',
])  # fmt: skip
def test_a_source_that_is_kept_keeps_its_readings(body: str, tmp_path: Path) -> None:
    (text,), kept = _one(tmp_path, body, None, language="en")
    assert kept == body
    assert _one(tmp_path, body, text, language="en")[1] == body
    written = _one(tmp_path, body, f"⚠ {text}", language="en")[1]
    assert "⚠ " in written and written.replace("⚠ ", "") == body
    assert not re.search(r"<li>⚠|<p[^>]*>⚠ <em", written)
    assert "<rt>" not in _one(tmp_path, body, f"He said: {text}")[1]


def test_only_the_source_of_a_bilingual_edition_has_readings(tmp_path: Path) -> None:
    bilingual = {"language": "en", "bilingual": True}
    mark = 'lang="en" xml:lang="en"'
    written = _one(tmp_path, f'<p id="p">{_SCHOOL}</p>', "She went.", **bilingual)[1]
    assert written == f'<p id="p">{_SCHOOL}</p><p {mark}>She went.</p>'
    cell = "<table><tr><td>%s</td></tr></table>"
    written = _one(tmp_path, cell % _SCHOOL, "She went.", **bilingual)[1]
    assert written == cell % f"{_SCHOOL}<br/><span {mark}>She went.</span>"
    nav = '<nav epub:type="toc"><ol><li><a href="#x">%s</a></li></ol></nav>'
    assert _one(tmp_path, nav % _SCHOOL, "Her school", **bilingual)[1] == nav % f"{_SCHOOL} / Her school"
    alone = "<ruby>学校<rt>がっこう</rt></ruby>"
    assert _one(tmp_path, nav % alone, "School", **bilingual)[1] == nav % f"{alone} / School"
    linked = '<p><ruby id="w">彼<rt>か<a href="#n" id="r">1</a></rt></ruby>は</p>'
    assert _one(tmp_path, linked, "He⟦1/⟧", **bilingual)[1] == f'{linked}<p {mark}>He<a href="#n">1</a></p>'
    source = _one(tmp_path, f"<p>{_SCHOOL}</p>", _WORDS, **bilingual)[1]
    assert source == f"<p>{_SCHOOL}</p><p {mark}>{_WORDS}</p>"


# --- DOCX ---

_W = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"


def _ruby(base: str, reading: str) -> str:
    """As Word writes it; `base` and `reading` are runs."""
    hint = '<w:rPr><w:rFonts w:hint="eastAsia"/></w:rPr>'
    settings = '<w:rubyPr><w:rubyAlign w:val="distributeSpace"/><w:hps w:val="10"/><w:lid w:val="ja-JP"/></w:rubyPr>'
    return f"<w:r>{hint}<w:ruby>{settings}<w:rt>{reading}</w:rt><w:rubyBase>{base}</w:rubyBase></w:ruby></w:r>"


def _run(text: str, format: str = "", more: str = "") -> str:
    return f"<w:r><w:rPr>{format}</w:rPr><w:t>{text}</w:t>{more}</w:r>"


_SMALL = '<w:rFonts w:ascii="x"/><w:sz w:val="10"/>'
_HINT = '<w:rFonts w:hint="eastAsia"/>'
_SHE = _ruby(_run("彼女", _HINT), _run("かのじょ", _SMALL))
_TO_SCHOOL = _ruby(_run("学校", _HINT), _run("がっこう", _SMALL))


def _word(folder: Path, content: str, translated: str | None, **options: object) -> tuple[str, list[etree._Element]]:
    """The unit of a document of one paragraph, and its paragraphs where it is translated so."""
    document = docx.Document()
    document.add_paragraph()
    document.save(str(folder / "x.docx"))
    entries = books.entries_of(folder / "x.docx")
    body = re.sub(r"<w:p\b[^>]*/>", f'<w:p xmlns:w="{_W}">{content}</w:p>', entries["word/document.xml"].decode())
    (folder / "a.docx").write_bytes(books.zipped({**entries, "word/document.xml": body.encode()}))
    read = open_document(folder / "a.docx")
    (unit,) = read.units
    read.write(folder / "b.docx", {} if translated is None else {unit.id: translated}, **options)  # type: ignore[arg-type]
    root = etree.fromstring(books.entries_of(folder / "b.docx")["word/document.xml"])
    return unit.text, list(root.iter(f"{{{_W}}}p"))


def _has(paragraph: etree._Element, name: str) -> int:
    return len(list(paragraph.iter(f"{{{_W}}}{name}")))


def _text(paragraph: etree._Element) -> str:
    return "".join(element.text or "" for element in paragraph.iter(f"{{{_W}}}t"))


@pytest.mark.parametrize("content, unit", [
    (f"{_SHE}{_run('は')}{_TO_SCHOOL}{_run('に行った。')}", _WORDS),
    (_SHE.replace("</w:ruby></w:r>", "</w:ruby><w:t>は</w:t>") + _TO_SCHOOL.partition("</w:rPr>")[2] + _run("に行った。"), _WORDS),  # in one run
    (_SHE.replace("</w:ruby></w:r>", "</w:ruby>") + _TO_SCHOOL.partition("</w:rPr>")[2], "彼女学校"),
    (f'<w:ins w:id="1">{_SHE}{_run("は")}</w:ins>', "彼女は"),
    (_ruby(_run("彼") + _run("女"), _run("か") + _run("のじょ")) + _run("は"), "彼女は"),
    (_ruby(_run("彼女", "<w:b/>"), _run("かのじょ", "<w:b/>")) + _run("は学校に"), "⟦1⟧彼女⟦/1⟧は学校に"),
])  # fmt: skip
def test_words_of_a_ruby_in_word(content: str, unit: str, tmp_path: Path) -> None:
    found, (paragraph,) = _word(tmp_path, content, "She went.", language="en")
    assert (found, _text(paragraph), _has(paragraph, "ruby")) == (unit, "She went.", 0)


def test_what_a_ruby_in_word_holds_besides(tmp_path: Path) -> None:
    note = '<w:r><w:footnoteReference w:id="1"/></w:r>'
    base = f'<w:bookmarkStart w:id="1" w:name="a"/>{_run("彼女", "", "<w:tab/>")}<w:bookmarkEnd w:id="1"/>'
    reading = '<w:bookmarkStart w:id="2" w:name="b"/>' + _run("か", "", "<w:footnoteReference w:id='2'/>")
    content = f'{_ruby(base + note, reading)}{_run("は")}<w:bookmarkEnd w:id="2"/>'
    unit, (paragraph,) = _word(tmp_path, content, "She")
    assert unit == "彼女⟦1/⟧は"
    assert _text(paragraph) == "She" and not _has(paragraph, "ruby")
    assert [_has(paragraph, name) for name in ("bookmarkStart", "bookmarkEnd", "footnoteReference", "tab")] == [
        2,
        2,
        2,
        1,
    ]
    assert all(element.getparent() is paragraph for element in paragraph.iter(f"{{{_W}}}bookmarkStart", f"{{{_W}}}r"))


def test_a_source_that_is_kept_keeps_its_readings_in_word(tmp_path: Path) -> None:
    content = f"<w:pPr><w:keepNext/></w:pPr>{_SHE}{_run('は')}"
    before = _word(tmp_path, content, None)[1][0]
    for translated, text in (("彼女は", "かのじょ彼女は"), ("⚠ 彼女は", "⚠ かのじょ彼女は")):
        (kept,) = _word(tmp_path, content, translated, language="en")[1]
        assert _text(kept) == text and _has(kept, "ruby") == 1 and kept[0].tag == f"{{{_W}}}pPr"
        assert etree.tostring(kept[-2]) == etree.tostring(before[-2])
    source, target = _word(tmp_path, content, "She", language="en", bilingual=True)[1]
    assert etree.tostring(source[-2]) == etree.tostring(before[-2])
    assert _text(source) == "かのじょ彼女は" and (_text(target), _has(target, "ruby")) == ("She", 0)


# --- HTML in Markdown, subtitles ---


@pytest.mark.parametrize("content, unit, translated, written", [
    (_SCHOOL, _WORDS, "She went.", "She went."),
    (f"# {_SCHOOL}", _WORDS, "She went.", "# She went."),
    ("彼は\n<ruby>学校<rt>がっこう</rt></ruby>に", "彼は学校に", "x", "x"),
    ("*<ruby>彼<rt>*か*</rt></ruby>* は", "⟦1⟧彼⟦/1⟧ は", "⟦1⟧He⟦/1⟧", "*He*"),
    ("a <ruby><rb>**漢**</rb><rt>かん</rt>字<rt>じ</ruby>は", "a ⟦1⟧漢⟦/1⟧字は", "⟦1⟧H⟦/1⟧", "**H**"),
    ('a <ruby id="w">漢<rt>かん[^1]</rt></ruby>は', "a 漢⟦1/⟧は", "x", '<i id="w"></i>x[^1]'),
    ('a <ruby>漢<rt>かん<a href="#n" id="r">1</a></rt></ruby>は', "a 漢⟦1/⟧1⟦2/⟧は", "x⟦1/⟧1⟦2/⟧", 'x<a href="#n" id="r">1</a>'),
    ("a <ruby>漢<rt>かん</rt>は", "a ⟦1/⟧漢⟦2/⟧かん⟦3/⟧は", "x", "x<ruby><rt></rt>"),  # it does not close
])  # fmt: skip
def test_ruby_in_markdown(content: str, unit: str, translated: str, written: str, tmp_path: Path) -> None:
    document = _made(tmp_path / "a.md", f"{content}\n\n[^1]: 42\n")
    assert [unit.text for unit in document.units] == [unit]
    document.write(tmp_path / "b.md", {"u000000": translated})
    assert (tmp_path / "b.md").read_text("utf-8") == f"{written}\n\n[^1]: 42\n"


def test_ruby_in_subtitles(tmp_path: Path) -> None:
    head = "1\n00:00:01,000 --> 00:00:04,000\n"
    for body, unit in (
        (_SCHOOL, _WORDS),
        ("<i><ruby>彼女<rt>かのじょ</ruby>は</i>", "彼女は"),
        ("<b>彼</b><ruby><rb>女</rb><rt>じょ</rt></ruby>は", "⟦1⟧彼⟦/1⟧女は"),
    ):
        document = _made(tmp_path / "a.srt", f"{head}{body}\n")
        assert [unit.text for unit in document.units] == [unit]
        document.write(tmp_path / "b.srt", {"u000000": "She went."})
        assert re.sub("</?[ib]>", "", (tmp_path / "b.srt").read_text("utf-8")) == f"{head}She went.\n"


@pytest.mark.parametrize("suffix", ["md", "srt"])
def test_a_kept_line_keeps_its_readings(suffix: str, tmp_path: Path) -> None:
    head = "1\n00:00:01,000 --> 00:00:04,000\n" if suffix == "srt" else ""
    document = _made(tmp_path / f"a.{suffix}", f"{head}{_SCHOOL}\n")
    out = tmp_path / f"b.{suffix}"
    for translated, line in ((_WORDS, _SCHOOL), (f"⚠ {_WORDS}", f"⚠ {_SCHOOL}"), (f"# {_WORDS}", None)):
        document.write(out, {"u000000": translated})
        text = out.read_text("utf-8")
        assert text == f"{head}{line}\n" if line else "<rt>" not in text
    document.write(out, {"u000000": "She went."}, bilingual=True)
    text = out.read_text("utf-8")
    assert text.startswith(f"{head}{_SCHOOL}\n") and text.endswith("\nShe went.\n") and text.count("<rt>") == 2
