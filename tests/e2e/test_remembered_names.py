"""Names that a run remembers, through the command line: shown, written out, given back, the same after a stop."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edge import cli
from edge.commands import prompting
from edge.translation import decoding, glossary, loop
from tests import chinese, tiny
from tests.scenes import SCENES

SMALL = [
    "--set",
    "compute.threads=1",
    "--set",
    "window.chunk=256",
    "--set",
    "window.size=1024",
    "--set",
    "adapter.rank=4",
]
PEOPLE = {"Captain Ahab": "Kapitän Ahab", "Starbuck": "Sternbock", "Queequeg": "Quiqueg"}
GERMAN = {scene.format(n): said.format(c) for scene, said in SCENES.items() for n, c in PEOPLE.items()}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny.folder(tmp_path_factory.mktemp("names") / "model", "qwen3", max_position_embeddings=2048))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[loop.Request]:
    """A model that knows the book, and says the names that it is told."""
    requests: list[loop.Request] = []

    def translate(self: Any, request: loop.Request) -> loop.Draft:
        self.session.at_rest = False
        requests.append(request)
        text = GERMAN[request.source]
        for name, called in request.terms:
            text = text.replace(PEOPLE[name], called)
        return loop.Draft(text, 9)

    monkeypatch.setattr(decoding.ModelTranslator, "translate", translate)
    return requests


@pytest.fixture
def book(tmp_path: Path) -> Path:
    path = tmp_path / "book.txt"
    path.write_text("\n\n".join(GERMAN) + "\n", "utf-8")
    return path


def command(model: str, book: Path, *more: str) -> list[str]:
    return ["translate", str(book), "--from", "en", "--to", "de", "--model", model, *SMALL, "--learn", "off", *more]


def test_names_are_shown_and_written_out(
    model: str, book: Path, asked: list[loop.Request], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = tmp_path / "first"
    assert cli.main(command(model, book, "--no-run", "--report", str(first), "--json")) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {name["source"]: name["target"] for name in result["remembered"]} == PEOPLE
    told = [request for request in asked if request.terms]
    assert len(told) >= 6 and all(name in request.source for request in told for name, _ in request.terms)
    assert dict(glossary.read(first / "names.tsv").terms) == PEOPLE
    assert "Names that were remembered" in (first / "report.html").read_text("utf-8")
    # the file comes back, edited; it is never written over
    edited = (first / "names.tsv").read_text("utf-8").replace("Sternbock", "Starbuck")
    (first / "names.tsv").write_text(edited, "utf-8")
    again = [*command(model, book, "--no-run"), "--glossary", str(first / "names.tsv")]
    assert cli.main([*again, "--report", str(first)]) == 2
    assert (first / "names.tsv").read_text("utf-8") == edited
    second = tmp_path / "second"
    assert cli.main([*again, "--report", str(second)]) == 0
    assert "Starbuck" in (tmp_path / "book.de.txt").read_text("utf-8")
    assert "Sternbock" not in (tmp_path / "book.de.txt").read_text("utf-8")
    assert dict(glossary.read(second / "names.tsv").terms) == {**PEOPLE, "Starbuck": "Starbuck"}


def test_without_names_nothing_is_shown(model: str, book: Path, asked: list[loop.Request], tmp_path: Path) -> None:
    rep = tmp_path / "rep"
    assert cli.main(command(model, book, "--no-run", "--report", str(rep), "--names", "off")) == 0
    assert len(asked) == len(GERMAN) and not any(request.terms for request in asked)
    assert not (rep / "names.tsv").exists()


def interrupted(patched: pytest.MonkeyPatch, asked: list[loop.Request], after: int) -> None:
    """The process is interrupted when the model has been asked so often."""
    translate = decoding.ModelTranslator.translate

    def stopping(self: Any, request: loop.Request) -> loop.Draft:
        if len(asked) == after:
            os.kill(os.getpid(), signal.SIGINT)
        return translate(self, request)

    patched.setattr(decoding.ModelTranslator, "translate", stopping)


@pytest.mark.parametrize("stop", [4, 9])
def test_a_stopped_run_remembers_the_same(
    stop: int, model: str, book: Path, asked: list[loop.Request], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rep = tmp_path / "rep"
    assert cli.main(command(model, book, "--run", str(tmp_path / "whole"), "--report", str(rep))) == 0
    whole = (tmp_path / "book.de.txt").read_bytes(), (rep / "names.tsv").read_bytes(), list(asked)
    asked.clear()
    with monkeypatch.context() as patched:
        interrupted(patched, asked, stop)
        assert cli.main(command(model, book, "--run", str(tmp_path / "run"), "--report", str(rep))) == 130
    assert len(asked) < len(GERMAN)
    assert cli.main(command(model, book, "--run", str(tmp_path / "run"), "--report", str(rep))) == 0
    assert ((tmp_path / "book.de.txt").read_bytes(), (rep / "names.tsv").read_bytes(), asked) == whole


ENGLISH = [
    "{} walked into the yard.", "Everybody looked at {}, and nobody spoke.", "“{}, come home quickly!”", "I heard {} singing.",
    "{} smiled and closed the door.", "Last night it was {} who cooked.", "{} gave him the letter.",
]  # fmt: skip
READ = {"张艳杰": "Zhang Yanjie", "魏敏": "Wei Min"}


@pytest.fixture
def chinese_model(monkeypatch: pytest.MonkeyPatch) -> list[loop.Request]:
    """A model with Chinese words that calls people as it is told, and Somebody who is told nothing."""
    requests: list[loop.Request] = []
    lines = {scene.format(n): (said, n) for scene, said in zip(chinese.SCENES, ENGLISH, strict=True) for n in READ}

    def ids_of(tokenizer: Any, text: str) -> list[int]:
        assert hasattr(tokenizer, "decode") and text[0] == "\n"
        return [0] * (1 if text == "\n" else 2 if chinese.is_word(text[1:]) else 3)

    def translate(self: Any, request: loop.Request) -> loop.Draft:
        self.session.at_rest = False
        requests.append(request)
        said, name = lines[request.source]
        return loop.Draft(said.format(dict(request.terms).get(name, "Somebody")), 9)

    monkeypatch.setattr(prompting, "tokenstream", SimpleNamespace(ids_of=ids_of))
    monkeypatch.setattr(decoding.ModelTranslator, "translate", translate)
    return requests


def chinese_command(model: str, book: Path, *more: str) -> list[str]:
    return ["translate", str(book), "--from", "zh", "--to", "en", "--model", model, *SMALL, "--learn", "off", *more]


def test_chinese_names_are_called_as_they_are_read(
    model: str, tmp_path: Path, chinese_model: list[loop.Request]
) -> None:
    book = tmp_path / "book.txt"
    book.write_text("\n\n".join(chinese.book(*READ)) + "\n", "utf-8")
    out = tmp_path / "book.en.txt"
    rep = tmp_path / "rep"
    assert cli.main(chinese_command(model, book, "--no-run", "--report", str(rep))) == 0
    assert all(request.terms for request in chinese_model)
    assert "Somebody" not in out.read_text("utf-8")
    assert dict(glossary.read(rep / "names.tsv").terms) == READ  # remembered, as they were accepted
    terms = tmp_path / "terms.tsv"
    terms.write_text("魏敏\tVimin\n", "utf-8")
    assert cli.main(chinese_command(model, book, "--no-run", "--glossary", str(terms))) == 0
    text = out.read_text("utf-8")
    assert text.count("Vimin") == text.count("Zhang Yanjie") == 7 and "Wei Min" not in text
    assert cli.main(chinese_command(model, book, "--no-run", "--names", "off")) == 0
    assert out.read_text("utf-8").count("Somebody") == 14


def test_a_stopped_run_calls_chinese_names_the_same(
    model: str, tmp_path: Path, chinese_model: list[loop.Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    book = tmp_path / "book.txt"
    book.write_text("\n\n".join(chinese.book(*READ)) + "\n", "utf-8")
    assert cli.main(chinese_command(model, book, "--run", str(tmp_path / "whole"))) == 0
    whole, asked = (tmp_path / "book.en.txt").read_bytes(), list(chinese_model)
    chinese_model.clear()
    with monkeypatch.context() as patched:
        interrupted(patched, chinese_model, 5)
        assert cli.main(chinese_command(model, book, "--run", str(tmp_path / "run"))) == 130
    assert cli.main(chinese_command(model, book, "--run", str(tmp_path / "run"))) == 0
    assert (tmp_path / "book.en.txt").read_bytes() == whole and chinese_model == asked
