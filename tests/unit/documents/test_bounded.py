"""Time and memory grow with a document, not with its square; what would take minutes is refused at once."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from pathlib import Path

import books
import docx
import pytest
from docx.oxml import OxmlElement
from docx.oxml.ns import qn

from edge.documents import Unit, inline, open_document, placeholders, srt
from edge.errors import InputError


def _page(body: str) -> str:
    return f"<html><head><title>t</title></head><body>{body}</body></html>"


# content of n parts, and how many parts are enough to see what they cost
TEXTS: dict[str, tuple[Callable[[int], str], int]] = {
    "words.md": (lambda n: "some *words* and a [link](x) here\n" * n, 1000),
    "marks.md": (lambda n: "a `b` \\* & <b>x</b> ~~y~~ $z$ {{ q }}\n" * n, 700),
    "open.md": (lambda n: "![a]( {{ $a `` \\( [[a *b " * n, 400),
    "lines.md": (lambda n: "| a line\n" * n + "\na\nb\n" + "c\n: d\n" * n + "\n" + "+--+\n" * n, 700),
    "terms.md": (lambda n: "a term\n" * n + ": defined\n\n" + "a word\n" * n + "\n: e\n" + ": f\n" * n, 700),
    "statements.md": (lambda n: "export const a = {\n\n" * n + "export default a b c {\n" * n, 1000),
    "blocks.md": (lambda n: "$$\na\n\n{% raw %}\n\n" * n, 1000),
    "wbr.xhtml": (lambda n: "<?xml version='1.0'?>" + _page("<p>a " + "<wbr/>" * n + " b</p>"), 10_000),
    "tags.html": (lambda n: _page("<p>" + "<b>x</b> <i>y</i>" * n + "</p>"), 4000),
    "lines.html": (lambda n: _page("<div>" + "one line<br><br>" * n + "</div>"), 1000),
    "ruby.html": (lambda n: _page("<p>" + '<ruby id="i">字<rt>a<a href="#i">b</a></rt></ruby>は' * n + "</p>"), 2000),
    "links.html": (lambda n: _page("<p><ruby>字<rt>" + '<a href="#i">b</a>' * n + "</rt></ruby>は</p>"), 4000),
    "ruby.md": (lambda n: "<ruby>字<rt>a[^1]</rt></ruby>は <ruby>\n" * n, 1000),
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


def _documents(folder: Path, text: str) -> list[Path]:
    """One paragraph in every format."""
    paths = [folder / f"a.{kind}" for kind in ("html", "xhtml", "md", "txt", "srt")]
    for path, around in zip(
        paths, ("<p>%s</p>",) * 2 + ("%s\n",) * 2 + ("1\n00:00:01,000 --> 00:00:02,000\n%s\n",), strict=True
    ):
        whole = around.replace("%s", text)
        path.write_text(_page(whole) if path.suffix.endswith("html") else whole, "utf-8")
    word = docx.Document()
    word.add_paragraph(text)
    word.save(str(folder / "a.docx"))
    chapter = books.CHAPTER[: books.CHAPTER.index("<body>")] + f"<body><p>{text}</p></body></html>"
    return [*paths, folder / "a.docx", books.make_epub(folder / "a.epub", {"OEBPS/one.xhtml": chapter.encode()})]


@pytest.mark.parametrize("bilingual", [False, True])
def test_what_follows_very_many_placeholders_stays_as_it_is(
    bilingual: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "Begin ⟦one⟧ and ⟦two⟧ and ⟦three⟧ to the end"
    monkeypatch.setattr(inline, "MOST", 3)
    for path in _documents(tmp_path, text):
        unit = next(unit for unit in open_document(path).units if unit.text.startswith("Begin"))
        assert unit.text == "Begin ⟦1/⟧one⟦2/⟧ and", path
        assert "with 3 brackets or pieces of markup: the rest of it stays as it is" in open_document(path).notes[-1]
        target = tmp_path / f"out{path.suffix}"
        open_document(path).write(target, {unit.id: books.upper(unit.text)}, bilingual=bilingual)
        monkeypatch.setattr(inline, "MOST", 100)
        shown = "\n".join("".join(_shown(unit)) for unit in open_document(target).units)
        before, _, after = shown.partition("BEGIN ⟦ONE⟧ AND")
        assert text in before if bilingual else after.startswith(" ⟦two⟧ and ⟦three⟧ to the end"), (path, shown)
        monkeypatch.setattr(inline, "MOST", 3)


def _shown(unit: Unit) -> list[str]:
    """A unit's text; of the marks in it, each stands for the bracket that comes next in these tests."""
    brackets = itertools.cycle("⟦⟧")
    return [piece if at % 2 == 0 else next(brackets) for at, piece in enumerate(placeholders.parted(unit.text))]


def test_half_a_million_brackets_in_one_paragraph_take_seconds(tmp_path: Path) -> None:
    path = tmp_path / "a.html"
    path.write_text(_page("<p>Begin " + "⟦a" * 480_000 + "</p>"), "utf-8")
    began = time.process_time()
    document = open_document(path)
    document.write(tmp_path / "b.html", {unit.id: unit.text for unit in document.units})
    assert time.process_time() - began < 6  # two on a machine with nothing else to do; before, twelve
    assert (tmp_path / "b.html").read_text("utf-8").replace('<meta charset="utf-8">', "") == path.read_text("utf-8")


def test_literal_brackets_in_a_run_stay_in_one_run(tmp_path: Path) -> None:
    path = _word(tmp_path / "a.docx", lambda run: setattr(run[0], "text", "An ⟦old⟧ song"))
    document = open_document(path)
    document.write(tmp_path / "b.docx", books.translated(document))
    assert [run.text for run in docx.Document(str(tmp_path / "b.docx")).paragraphs[0].runs] == ["AN ⟦OLD⟧ SONG"]


def test_a_paragraph_of_very_much_markup_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def word(count: int) -> Path:
        return _word(tmp_path / "a.docx", lambda run: [run.append(OxmlElement("w:br")) for _ in range(count - 1)])

    def text(name: str, around: str) -> Callable[[int], Path]:
        def make(count: int) -> Path:
            path = tmp_path / name
            path.write_text(around.replace("%s", "<i>a</i> " * (count // (2 if name.endswith("srt") else 1))))
            return path

        return make

    page = books.CHAPTER[: books.CHAPTER.index("<body>")] + "<body><div>Two <b>x</b><p>%s</p></div></body></html>"

    def book(count: int) -> Path:
        return books.make_epub(
            tmp_path / "a.epub", {"OEBPS/one.xhtml": page.replace("%s", "<i>a</i> " * count).encode()}
        )

    srt = "1\n00:00:01,000 --> 00:00:02,000\n%s\n"
    monkeypatch.setattr(inline, "MOST_MARKUP", 41)
    for make in (word, book, text("a.html", page), text("a.srt", srt)):
        assert open_document(make(40)).units
        with pytest.raises(
            InputError, match=r"a\.\w+.* a paragraph with more than 41 pieces of markup; expected fewer"
        ):
            open_document(make(44))


def test_pairs_in_pairs_take_time_in_proportion() -> None:
    count = 8000
    pairs = range(1, count + 1)
    source = "".join(f"⟦{number}⟧a⟦/{number}⟧" for number in pairs)
    nested = "".join(f"⟦{number}⟧a" for number in pairs) + "".join(f"⟦/{number}⟧" for number in reversed(pairs))
    began = time.process_time()
    assert placeholders.restore(source, nested) == nested
    assert placeholders.check(source, nested) == [
        f"⟦{number}⟧ is not outside every pair, as in the source" for number in pairs[1:]
    ]
    unclosed = "".join(f"⟦{number}⟧a" for number in pairs)
    assert placeholders.restore(source, unclosed) == "a" * count
    assert time.process_time() - began < 3


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


def test_a_cue_of_many_dashes_is_laid_out_in_linear_time() -> None:
    """Each begins another speaker's words and stays on the line before it: 0.4 s, where one long line that grew took 13."""
    start = time.process_time()
    lines = srt._balanced("a " + "- " * 500_000)
    assert time.process_time() - start < 4
    assert " ".join(lines) == "a" + " -" * 500_000
