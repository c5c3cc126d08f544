"""A review that is edited while the book is translated, through the command line: used, taught, kept, the same after
any stop; nothing that the user writes there is lost."""

from __future__ import annotations

import json
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from edge import cli
from edge.documents import open_document
from edge.translation import decoding, loop, pairs
from tests.commands import Command
from tests.e2e.test_translate import LINES, OWN, command, last_json, model, plain, records

__all__ = ["model"]  # a fixture
NAMED = [line.replace("The captain", "Then captain Ahab").replace("My brother", "So Ahab") for line in LINES]


def german(line: str) -> str:
    """What the model of these tests says: always the wrong name."""
    said = {
        "went out to sea": "fuhr hinaus aufs Meer", "was seen by all of us": "wurde von uns allen gesehen",
        "did not come back": "kam nicht zurück", "slept through the storm": "schlief während des Sturms",
        "was never found": "wurde nie gefunden", "Then captain Ahab": "Und Kapitän Achab", "So Ahab": "Und Achab",
        "Her old ship": "Ihr altes Schiff", "A white whale": "Ein weißer Wal",
    }  # fmt: skip
    for english, translated in said.items():
        line = line.replace(english, translated)
    return line


@pytest.fixture
def book(tmp_path: Path) -> Path:
    path = tmp_path / "book.txt"
    path.write_text("\n\n".join(NAMED) + "\n", "utf-8")
    return path


class Author:
    """A user who edits the review while the model translates: after so many requests, these edits."""

    def __init__(self, review: Path, edits: dict[int, list[tuple[str, str]]]) -> None:
        self.review = review
        self.edits = edits
        self.asked: list[str] = []

    def translate(self, translator: Any, request: loop.Request) -> loop.Draft:
        translator.session.at_rest = False
        self.asked.append(request.source)
        for old, new in self.edits.pop(len(self.asked), []):
            text = self.review.read_text("utf-8")
            assert old in text
            self.review.write_text(text.replace(old, new), "utf-8")
        return loop.Draft(german(request.source), 9)


def author(monkeypatch: pytest.MonkeyPatch, review: Path, edits: dict[int, list[tuple[str, str]]]) -> Author:
    made = Author(review, edits)
    monkeypatch.setattr(decoding.ModelTranslator, "translate", lambda self, request: made.translate(self, request))
    return made


RIGHT = [("Und Kapitän Achab fuhr hinaus aufs Meer.", "Und Kapitän Ahab stach in See.")]


def test_an_edit_is_used_at_once_and_units_with_the_name_are_named(
    model: str, book: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rep = tmp_path / "rep"
    args = command(model, book, "--run", str(tmp_path / "run"), "--report", str(rep), "--json", *OWN)
    at_work = author(monkeypatch, rep / "review.tsv", {12: RIGHT})
    assert cli.main(args) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out.splitlines()[-1])
    assert "1 corrections of the review are taken in" in captured.err and "--redo translates them again" in captured.err
    assert list(dict.fromkeys(at_work.asked)) == NAMED
    done = [record for record in records(tmp_path / "run") if record["kind"] == "unit"]
    assert [unit["source"] for unit in done] == NAMED  # each once
    asked = list(at_work.asked)
    assert open_document(tmp_path / "book.de.txt").units[0].text == "Und Kapitän Ahab stach in See."
    kinds = [(lesson["of"], lesson["end"]) for lesson in result["lessons"]]
    assert [of for of, _ in kinds].count("corrections") == 1 and kinds[0][0] == "self"
    assert result["corrected_meanwhile"] == 1 and result["units"]["corrected"] == 1
    affected = [entry["id"] for entry in result["affected"]]
    assert affected == [f"u{n:06d}" for n, line in enumerate(NAMED) if "Ahab" in line and n]
    rows = [line.split("\t") for line in (rep / "review.tsv").read_text("utf-8").splitlines()[1:]]
    assert rows[0][1:3] == ["Und Kapitän Ahab stach in See.", "corrected"] and len(rows) == 20
    # the run is finished: an edit that comes now is put into the outputs, without the model
    text = (rep / "review.tsv").read_text("utf-8")
    (rep / "review.tsv").write_text(
        text.replace("Ihr altes Schiff kam nicht zurück.", "Ihr Schiff blieb aus."), "utf-8"
    )
    assert cli.main(args) == 0 and at_work.asked == asked
    result = last_json(capsys)
    assert (
        result["units"]["corrected"] == 2
        and open_document(tmp_path / "book.de.txt").units[7].text == "Ihr Schiff blieb aus."
    )
    kept = (tmp_path / "run/records.jsonl").read_bytes()
    assert cli.main(args) == 0 and (tmp_path / "run/records.jsonl").read_bytes() == kept
    assert "are taken in" not in capsys.readouterr().err
    # and on request what holds the name is done again: that and nothing else, once
    monkeypatch.setattr(
        decoding.ModelTranslator, "translate",
        lambda self, r: (at_work.asked.append(r.source), loop.Draft(german(r.source).replace("Achab", "Ahab"), 9))[1],
    )  # fmt: skip
    del at_work.asked[:]
    for again in (affected, []):
        assert cli.main([*args, "--redo"]) == 0
        assert list(dict.fromkeys(at_work.asked)) == [NAMED[int(id[1:])] for id in again]
        del at_work.asked[:]
        texts = [unit.text for unit in open_document(tmp_path / "book.de.txt").units]
        assert not any("Achab" in text for text in texts) and texts[7] == "Ihr Schiff blieb aus."
        assert last_json(capsys)["affected"] == []
    assert cli.main(["render", str(tmp_path / "run"), "--out", str(tmp_path / "again.txt")]) == 0
    assert (tmp_path / "again.txt").read_bytes() == (tmp_path / "book.de.txt").read_bytes()


def test_what_the_user_writes_is_never_lost(
    model: str, book: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not by a stop, not by a file that is half written or of another text."""
    rep = tmp_path / "rep"
    review = rep / "review.tsv"
    args = command(model, book, "--run", str(tmp_path / "run"), "--report", str(rep))
    author(monkeypatch, review, {})
    assert cli.main([*args, "--limit", "9"]) == 0
    whole = review.read_text("utf-8").replace(*RIGHT[0])
    review.write_text(whole[: len(whole) // 2], "utf-8")  # an editor is writing
    half = review.read_bytes()
    capsys.readouterr()
    assert cli.main([*args, "--limit", "12"]) == 0
    assert review.read_bytes() == half
    review.write_text(whole, "utf-8")
    assert cli.main(args) == 0
    assert "1 corrections" in capsys.readouterr().err and "Und Kapitän Ahab stach in See." in review.read_text("utf-8")
    other = tmp_path / "other.txt"
    other.write_text("The dog Rex barked.\n\n" + "\n\n".join(NAMED[1:4]) + "\n", "utf-8")
    text = review.read_text("utf-8")
    assert cli.main(command(model, other, "--no-run", "--report", str(rep))) == 9  # that line is not known
    assert review.read_text("utf-8") == text
    assert "corrections of another text" in capsys.readouterr().err


def test_killed_runs_with_edits_give_the_same_book(model: str, tmp_path: Path) -> None:
    """SIGKILL at random moments, the review edited before and between: the same book, records and adapter as of a run
    that nobody disturbed. Random weights translate, so that most units are marked; corrections are what is learned."""
    book = tmp_path / "book.txt"
    book.write_text("\n\n".join(NAMED[:12]) + "\n", "utf-8")

    def args(name: str) -> list[str]:
        more = [
            "--run",
            str(tmp_path / name),
            "--out",
            str(tmp_path / f"{name}.txt"),
            "--report",
            str(tmp_path / f"{name}.rep"),
        ]
        return command(model, book, "--learn", "self,source,corrections", "--corrections", str(given), *more, "--redo",
                       "--set", "learn.lr=1e-3")  # fmt: skip

    given = tmp_path / "given.tsv"
    given.write_text("".join(f"{line}\t{german(line)}\n" for n, line in enumerate(NAMED[:12]) if n % 3), "utf-8")
    for name in ("whole", "killed"):  # a review that is there from the start, with one row that says something new
        (tmp_path / f"{name}.rep").mkdir()
        row = [NAMED[1], "Und Kapitän Ahab sahen wir alle.", "model", "u000001", "00000000", ""]
        head = "# templora review: edit the second column"
        (tmp_path / f"{name}.rep/review.tsv").write_text(head + "\n" + "\t".join(row) + "\n", "utf-8")
    whole = Command(args("whole"), anew=True)
    _, err = whole.communicate(timeout=600)
    assert whole.returncode == 9, err
    chance, killed, folder = random.Random(5), 0, tmp_path / "killed"
    for _ in range(2):
        child = Command(args("killed"))
        wanted = len(records(folder)) + chance.randrange(1, 6)
        while child.poll() is None and len(records(folder)) < wanted:
            time.sleep(0.01)
        child.kill()
        killed += child.wait() == -signal.SIGKILL
    last = Command(args("killed"))
    _, err = last.communicate(timeout=600)
    assert killed == 2 and last.returncode == 9, err
    assert (tmp_path / "killed.txt").read_bytes() == (tmp_path / "whole.txt").read_bytes()
    assert plain(records(folder)) == plain(records(tmp_path / "whole"))
    assert [r["kind"] for r in records(folder)].count("corrected") >= 1
    ends = [json.loads((tmp_path / name / "summary.json").read_text())["summary"] for name in ("killed", "whole")]
    assert ends[0]["adapter_sha256"] == ends[1]["adapter_sha256"]
    reviews = [(tmp_path / f"{name}.rep/review.tsv").read_bytes() for name in ("killed", "whole")]
    assert reviews[0] == reviews[1]


@pytest.mark.parametrize("name", ["review.xlf", "review.xliff", "review.po", "review.csv"])
def test_an_editor_for_translators_can_be_the_review(
    name: str, model: str, book: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An edit meanwhile, one after the end, and the file that `render` makes of the run: what `--corrections` reads."""
    review = tmp_path / "for the editor" / name
    out = tmp_path / "out.txt"
    more = ["--run", str(tmp_path / "run"), "--out", str(out), "--review", str(review)]
    args = command(model, book, *more)
    author(monkeypatch, review, {12: RIGHT})
    assert cli.main(args) == 0
    later = ("Und Achab kam nicht zurück.", "Auch er kam nie wieder.")
    written = review.read_text("utf-8")
    assert RIGHT[0][1] in written and written.count(later[0]) == 1
    review.write_text(written.replace(*later), "utf-8")
    assert cli.main(args) == 0
    texts = [unit.text for unit in open_document(out).units]
    assert RIGHT[0][1] in texts and later[1] in texts
    again = tmp_path / name
    assert cli.main(["render", str(tmp_path / "run"), "--out", str(tmp_path / "b.txt"), "--review", str(again)]) == 0
    corrected = {pair.target for pair in pairs.by_unit(again).values()}
    assert corrected == {RIGHT[0][1], later[1]}


def test_a_review_of_another_kind_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_text("A line.")
    args = ["translate", str(tmp_path / "a.txt"), "--from", "en", "--to", "de", "--review", str(tmp_path / "a.docx")]
    assert cli.main([*args, "--model", "/no/model"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert ".xlf" in line and not (tmp_path / "a.docx").exists()
