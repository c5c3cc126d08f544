"""Work on a book is never repeated: outputs are written again without a model, a part goes on as the whole."""

from __future__ import annotations

import dataclasses
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edge import cli, journal, terminal
from edge.documents import chapters_of, in_chapters, open_document
from edge.errors import SettingsError
from edge.translation import decoding, loop, prompts
from tests.e2e.test_translate import GERMAN, LINES, command, german, last_json, model, plain, records
from tests.unit.documents import books

__all__ = ["german", "model"]  # fixtures


@pytest.fixture
def book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    path = tmp_path / "book.txt"
    path.write_text("\n\n".join(LINES) + "\n", "utf-8")
    return path


def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on nothing is translated."""

    def translate(self: Any, request: loop.Request) -> loop.Draft:
        raise AssertionError(f"'{request.source}' is translated again")

    monkeypatch.setattr(decoding.ModelTranslator, "translate", translate)


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err


# --- outputs again ---


def test_a_finished_run_is_written_in_any_form(
    model: str,
    book: Path,
    german: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """By the same command with other outputs, and by `render` to the same bytes."""
    both = tmp_path / "both.txt"
    assert cli.main(command(model, book, "--bilingual-out", str(both), "--report", str(tmp_path / "rep"))) == 0
    (run,) = (tmp_path / "state/templora/runs").iterdir()
    kept = (run / "records.jsonl").read_bytes()
    no_model(monkeypatch)
    capsys.readouterr()
    two = tmp_path / "two.txt"
    assert cli.main(command(model, book, "--bilingual", "--out", str(two))) == 0
    assert "is finished: its outputs are written again" in said(capsys)
    assert two.read_bytes() == both.read_bytes()
    whole = (tmp_path / "book.de.txt").read_bytes()
    for name in (run.name, str(run)):
        for more, wanted in (([], whole), (["--bilingual"], both.read_bytes())):
            out = tmp_path / "new" / "again.txt"
            assert cli.main(["render", name, "--out", str(out), *more]) == 0
            assert out.read_bytes() == wanted
            out.unlink()
    assert (run / "records.jsonl").read_bytes() == kept
    assert (
        cli.main(["render", run.name, "--out", str(tmp_path / "r.txt"), "--report", str(tmp_path / "rep2"), "--json"])
        == 0
    )
    result = last_json(capsys)
    assert result["units"]["done"] == result["units"]["total"] == 20 and result["state"] == "finished"
    assert (tmp_path / "rep/review.tsv").read_bytes() == (tmp_path / "rep2/review.tsv").read_bytes()
    before = json.loads((tmp_path / "rep/report.json").read_text("utf-8"))
    assert {name: result[name] for name in ("units", "names", "lessons", "learn", "terms")} == {
        name: before[name] for name in ("units", "names", "lessons", "learn", "terms")
    }


def test_side_by_side_is_a_page_of_two_columns(model: str, book: Path, german: None, tmp_path: Path) -> None:
    book.write_text("\n\n".join(LINES[:4]) + "\n", "utf-8")
    assert cli.main(command(model, book, "--run", str(tmp_path / "run"))) == 0
    page = tmp_path / "page.html"
    assert cli.main(["render", str(tmp_path / "run"), "--out", str(page), "--side-by-side"]) == 0
    from lxml import html

    rows = [[cell.text for cell in row] for row in html.fromstring(page.read_bytes()).iter("tr")]
    assert rows == [[line, GERMAN[line]] for line in LINES[:4]]


def test_rendering_needs_neither_model_nor_torch(model: str, book: Path, german: None, tmp_path: Path) -> None:
    assert cli.main(command(model, book, "--run", str(tmp_path / "run"))) == 0
    line = (
        "import sys; from edge import cli; code = cli.main(sys.argv[1:]); "
        "assert not {'torch', 'transformers', 'peft'} & set(sys.modules); sys.exit(code)"
    )
    args = ["render", str(tmp_path / "run"), "--out", str(tmp_path / "out.txt")]
    done = subprocess.run([sys.executable, "-c", line, *args], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.txt").read_bytes() == (tmp_path / "book.de.txt").read_bytes()


def test_what_cannot_be_rendered_is_refused_in_one_line(
    model: str, book: Path, german: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = tmp_path / "run", tmp_path / "out.txt"
    assert cli.main(command(model, book, "--run", str(run))) == 0
    capsys.readouterr()

    def refused(code: int, words: str, *more: str, name: Path = run) -> None:
        assert cli.main(["render", str(name), "--out", str(out), *more]) == code
        (line,) = said(capsys).splitlines()
        assert line.startswith("error: ") and words in line
        assert not out.exists()

    refused(7, "holds no run", name=tmp_path / "nothing")
    refused(2, "ends in .html", "--side-by-side")
    text = book.read_bytes()
    book.write_bytes(text.replace(b"whale", b"Whale"))
    refused(7, "is not the book")
    book.rename(tmp_path / "moved.txt")
    refused(3, "book.txt")
    refused(7, "is not the book", "--book", str(tmp_path / "moved.txt"))
    (tmp_path / "moved.txt").write_bytes(text)
    assert cli.main(["render", str(run), "--out", str(out), "--book", str(tmp_path / "moved.txt")]) == 0
    out.unlink()
    (tmp_path / "moved.txt").rename(book)
    capsys.readouterr()
    assert cli.main(["render", str(run), "--out", str(book)]) == 2  # the book itself
    assert book.read_bytes() == text and "over the document" in said(capsys)
    other = tmp_path / "score"
    journal.Journal.create(other, journal.Manifest("score")).close()
    refused(7, "run of score", name=other)
    older = tmp_path / "older"
    journal.Journal.create(older, journal.Manifest("translate")).close()
    refused(7, "does not say which book", name=older)


# --- a part of it ---


def test_a_limit_stops_and_the_same_command_goes_on(
    model: str,
    book: Path,
    german: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In steps to the same book, records and adapter; what is done is done once."""
    assert cli.main(command(model, book, "--run", str(tmp_path / "whole"), "--out", str(tmp_path / "whole.txt"))) == 0
    asked: list[str] = []
    translate = decoding.ModelTranslator.translate

    def counted(self: Any, request: loop.Request) -> loop.Draft:
        asked.append(request.source)
        return translate(self, request)

    monkeypatch.setattr(decoding.ModelTranslator, "translate", counted)
    args = command(model, book, "--run", str(tmp_path / "run"), "--out", str(tmp_path / "out.txt"), "--json")
    capsys.readouterr()
    for limit in (7, 3, 7, 15):
        assert cli.main([*args, "--limit", str(limit)]) == 0
        captured = capsys.readouterr()
        done = max(limit, 7)
        assert json.loads(captured.out.splitlines()[-1])["units"]["done"] == done == len(asked)
        assert f"the first {done} units are done" in captured.err
        texts = [unit.text for unit in open_document(tmp_path / "out.txt").units]
        assert texts == [GERMAN[line] for line in LINES[:done]] + LINES[done:]
    render = ["render", str(tmp_path / "run"), "--out", str(tmp_path / "part.txt")]
    assert cli.main(render) == 0 and "is resumable" in said(capsys)
    assert (tmp_path / "part.txt").read_bytes() == (tmp_path / "out.txt").read_bytes()
    assert cli.main(args) == 0
    assert asked == LINES
    assert (tmp_path / "out.txt").read_bytes() == (tmp_path / "whole.txt").read_bytes()
    assert plain(records(tmp_path / "run")) == plain(records(tmp_path / "whole"))
    ends = [json.loads((tmp_path / name / "summary.json").read_text())["summary"] for name in ("run", "whole")]
    assert ends[0] == ends[1] and "adapter_sha256" in ends[0]


def test_chapters_are_named_by_number(
    model: str, german: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "b.md"
    path.write_text(
        "".join(f"# Part {n}\n\n{LINES[n]}\n\n## Chapter {n}\n\n{LINES[n + 5]}\n\n" for n in range(3)), "utf-8"
    )
    args = command(model, path, "--no-run")
    assert cli.main([*args, "--chapters", "2-3,6", "--json"]) == 9  # headings are not known to that model
    result = last_json(capsys)
    assert result["units"]["total"] == 6
    texts = [unit.text for unit in open_document(tmp_path / "b.de.md").units]
    assert texts[3] == GERMAN[LINES[5]] and texts[5] == GERMAN[LINES[1]] and texts[11] == GERMAN[LINES[7]]
    assert texts[1] == LINES[0] and texts[7] == LINES[6]
    for wrong in ("7", "0", "2-9", "x", " ", "5-4", "1,,2"):
        assert cli.main([*args, "--chapters", wrong]) == 2
        (line,) = said(capsys).splitlines()
        assert "1 'Part 0', 2 'Chapter 0'" in line and "6 'Chapter 2'" in line


def test_chapters_of_a_book_are_its_files(tmp_path: Path) -> None:
    document = open_document(books.make_epub(tmp_path / "b.epub"))
    found = chapters_of(document)
    assert found[0].number == 1
    assert [unit for chapter in found for unit in chapter.units] == list(document.units)
    assert in_chapters(document, f"1-{found[-1].number}") == document.units
    assert in_chapters(document, "1-") == document.units and in_chapters(document, "-1") == found[0].units
    long = tmp_path / "long.txt"
    long.write_text("".join(f"Chapter {n}\n\nText.\n\n" for n in range(1, 100)))
    with pytest.raises(SettingsError) as wrong:
        in_chapters(open_document(long), "100")
    assert "1 'Chapter 1'" in str(wrong.value) and "99 'Chapter 99'" in str(wrong.value) and len(str(wrong.value)) < 600


def test_the_first_lines_are_shown_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each on one line, in harmless characters, and not wider than the terminal."""
    from rich.console import Console

    screen = io.StringIO()
    monkeypatch.setattr(terminal, "console", lambda: Console(file=screen, force_terminal=True, width=40, markup=False))
    with terminal.Progress("translating", 9, "units") as progress:
        progress(3)
        progress.above("One\x1b[31m [bold]line[/] → Eine\nZeile " + "x" * 99)
        progress(None)
    shown = screen.getvalue()
    assert "One\\u001b[31m [bold]line[/]" in shown and "\x1b[31m " not in shown and "x" * 50 not in shown
    quiet = terminal.Progress("translating", 9, "units")
    quiet.bar = None
    quiet.above("nothing")


# --- what a run outlives ---


def test_a_run_says_in_one_line_what_differs(
    model: str,
    book: Path,
    german: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Another shipped template, another default: a run that is not finished names the part that differs; a finished
    one is finished all the same."""
    args = command(model, book, "--run", str(tmp_path / "run"))
    assert cli.main([*args, "--limit", "5"]) == 0
    shipped = prompts.load_template

    def changed(name: str) -> prompts.Template:
        found = shipped(name)
        return dataclasses.replace(found, block=found.block + "!")

    monkeypatch.setattr(prompts, "load_template", changed)
    capsys.readouterr()
    assert cli.main(args) == 7
    (line,) = said(capsys).splitlines()
    assert "template block " in line and "!; expected the same run" in line and "template end" not in line
    monkeypatch.setattr(prompts, "load_template", shipped)
    assert cli.main(args) == 0
    monkeypatch.setattr(prompts, "load_template", changed)
    no_model(monkeypatch)
    capsys.readouterr()
    assert cli.main([*args, "--bilingual"]) == 0
    lines = said(capsys)
    assert "it was made otherwise: template block" in lines and "is finished" in lines
    assert cli.main([*args, "--learn", "off"]) == 7
    assert "options learn corrections -> off" in said(capsys)


def test_a_new_run_says_what_there_is_of_the_text(
    model: str, book: Path, german: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = command(model, book)
    assert cli.main([*args, "--limit", "5"]) == 0
    (run,) = (tmp_path / "state/templora/runs").iterdir()
    capsys.readouterr()
    assert cli.main([*args, "--limit", "2", "--set", "learn.lr=1e-5"]) == 0
    (line,) = [line for line in said(capsys).splitlines() if "a new run begins" in line]
    assert f"{run.name} (resumable, 5 of 20) began otherwise: settings learn.lr 0.0008 -> 1e-05; --run {run}" in line
    assert cli.main([*args, "--limit", "2", "--chapters", "0"]) == 0  # goes on with the first one: it is that already
    assert "a new run begins" not in said(capsys)
    assert len(list(run.parent.iterdir())) == 2
