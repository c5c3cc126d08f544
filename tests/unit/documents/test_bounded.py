"""Time and memory grow with a document, not with its square; what would take minutes is refused at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import books
import docx
import pytest
from docx.oxml import OxmlElement
from docx.oxml.ns import qn

from edge.documents import open_document
from edge.errors import InputError


def _page(body: str) -> str:
    return f"<html><head><title>t</title></head><body>{body}</body></html>"


# content of n parts, and how many parts are enough to see what they cost
TEXTS: dict[str, tuple[Callable[[int], str], int]] = {
    "words.md": (lambda n: "some *words* and a [link](x) here\n" * n, 1000),
    "marks.md": (lambda n: "a `b` \\* & <b>x</b> ~~y~~ $z$ {{ q }}\n" * n, 700),
    "open.md": (lambda n: "![a]( {{ $a `` \\( [[a *b " * n, 400),
    "blocks.md": (lambda n: "$$\na\n\n{% raw %}\n\n" * n, 1000),
    "wbr.xhtml": (lambda n: "<?xml version='1.0'?>" + _page("<p>a " + "<wbr/>" * n + " b</p>"), 10_000),
    "tags.html": (lambda n: _page("<p>" + "<b>x</b> <i>y</i>" * n + "</p>"), 4000),
    "lines.html": (lambda n: _page("<div>" + "one line<br><br>" * n + "</div>"), 1000),
    "cue.srt": (lambda n: "1\n00:00:01,000 --> 00:00:02,000\n" + "<i>a</i> b &amp; - c\n" * n, 2000),
    "arrows.srt": (lambda n: "1\n00:00:01,000 --> 00:00:02,000\n" + "a 1 -> " * n, 20_000),
    **{
        f"brackets{suffix}": (made, 2000)
        for suffix, made in {
            ".html": lambda n: _page("<p>" + "⟦x⟧\n" * n + "</p>"),
            ".md": lambda n: "⟦x⟧ *y* ⟦1⟧\n" * n,
            ".srt": lambda n: "1\n00:00:01,000 --> 00:00:02,000\n" + "⟦x⟧\n" * n,
            ".txt": lambda n: "⟦x⟧ and some words\n" * n,
        }.items()
    },
    "lines.txt": (lambda n: "some words that fill a line until the next would not fit in\n" * n, 2000),
}


def _seconds(path: Path) -> float:
    """The time of one reading and of writing both languages."""
    began = time.process_time()
    document = open_document(path)
    document.write(path.with_name(f"out{path.suffix}"), books.translated(document), bilingual=True)
    return time.process_time() - began


def _grows_with_its_size(make: Callable[[int], Path], parts: int) -> None:
    """Four times as much takes about four times as long; sixteen times as long would be the square."""
    small, large = (min(_seconds(make(count)) for _ in range(2)) for count in (parts, 4 * parts))
    assert large < 11 * small + 0.1, (small, large)


@pytest.mark.parametrize("name", TEXTS)
def test_texts_take_time_in_proportion(name: str, tmp_path: Path) -> None:
    content, parts = TEXTS[name]

    def make(count: int) -> Path:
        path = tmp_path / name
        path.write_text(content(count), "utf-8")
        return path

    _grows_with_its_size(make, parts)


def _word(path: Path, fill: Callable[[object], None]) -> Path:
    document = docx.Document()
    fill(document.add_paragraph().add_run("Begin")._r)
    document.save(str(path))
    return path


def _mark(run: object, kind: str) -> None:
    new = OxmlElement("w:r")
    char = OxmlElement("w:fldChar")
    char.set(qn("w:fldCharType"), kind)
    new.append(char)
    run.getparent().append(new)  # type: ignore[attr-defined]


def test_brackets_in_one_run_take_time_in_proportion(tmp_path: Path) -> None:
    def make(count: int) -> Path:
        def fill(run: object) -> None:
            text = OxmlElement("w:t")
            text.text = "⟦x⟧ " * count
            run.append(text)  # type: ignore[attr-defined]

        return _word(tmp_path / "a.docx", fill)

    _grows_with_its_size(make, 2000)


def test_breaks_in_one_run_take_time_in_proportion(tmp_path: Path) -> None:
    def make(count: int) -> Path:
        def fill(run: object) -> None:
            for _ in range(count):
                run.append(OxmlElement("w:br"))  # type: ignore[attr-defined]
                text = OxmlElement("w:t")
                text.text = "line of words"
                run.append(text)  # type: ignore[attr-defined]

        return _word(tmp_path / "a.docx", fill)

    _grows_with_its_size(make, 500)


@pytest.mark.parametrize("closed", [False, True])
def test_fields_in_fields_take_time_in_proportion(closed: bool, tmp_path: Path) -> None:
    def make(count: int) -> Path:
        def fill(run: object) -> None:
            for _ in range(count):
                _mark(run, "begin")
                _mark(run, "separate")
            text = OxmlElement("w:r")
            text.append(OxmlElement("w:t"))
            text[0].text = "inside"
            run.getparent().append(text)  # type: ignore[attr-defined]
            for _ in range(count * closed):
                _mark(run, "end")

        return _word(tmp_path / "a.docx", fill)

    _grows_with_its_size(make, 500)
    assert any("inside" in unit.text for unit in open_document(make(2000)).units)  # deep or not, it is translated


def test_too_many_paragraphs_are_refused_before_they_are_read(tmp_path: Path) -> None:
    chapter = books.CHAPTER[: books.CHAPTER.index("<body>")] + "<body>" + "<p>a</p>" * 120_000 + "</body></html>"
    path = books.make_epub(
        tmp_path / "a.epub", {"OEBPS/one.xhtml": chapter.encode(), "OEBPS/two.xhtml": chapter.encode()}
    )
    began = time.process_time()
    with pytest.raises(InputError, match=r"about 24\d{4} paragraphs; expected at most 200000"):
        open_document(path)
    (tmp_path / "a.html").write_text(_page("<p>a</p>" * 250_000))
    with pytest.raises(InputError, match="about 250000 paragraphs"):
        open_document(tmp_path / "a.html")
    assert time.process_time() - began < 3
