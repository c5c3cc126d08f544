"""Which model translates where none is named, how it comes to this disk, and what is said of one that cannot."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edge import cli
from edge.commands import consent, prompting
from edge.store import embedded, folders
from edge.translation import languages, loop

TO = ["--from", "zh", "--to", "en"]


@pytest.fixture
def empty(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A disk without any embedded model, installed packages included."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(embedded.parts, "installed", lambda model: False)


def test_a_model_that_can_translate_is_the_default() -> None:
    parser = cli.parser()
    for args in (["translate", "b.txt"], ["eval", "translate", "b.json"], ["glossary", "b.txt"]):
        assert parser.parse_args([*args, *TO]).model == "demo-instruct"
    assert parser.parse_args(["score", "b.txt"]).model == "demo"


def test_unattended_one_line_says_what_to_run(
    empty: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "fetch", lambda *a, **k: pytest.fail("nothing is fetched unasked"))
    (tmp_path / "b.txt").write_text("他走了。\n", "utf-8")
    assert cli.main(["translate", str(tmp_path / "b.txt"), *TO]) == 4
    captured = capsys.readouterr()
    (line,) = captured.err.strip().splitlines()
    assert line.startswith("error: demo-instruct is not on this disk") and "templora models fetch demo-instruct" in line


@pytest.mark.parametrize("answer, fetched", [("y\n", True), ("\n", False), ("no\n", False), ("", False)])
def test_whoever_sits_there_is_asked_once(
    answer: str, fetched: bool, empty: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(consent, "_attended", lambda: True)
    monkeypatch.setattr("sys.stdin", io.StringIO(answer))
    monkeypatch.setattr(embedded, "fetch", lambda model, **more: asked.append(model.name))
    consent.fetch_if_wanted("demo-instruct")
    said = capsys.readouterr().err
    assert asked == ["demo-instruct"] * fetched and "Apache License 2.0" in said and "[y/N]" in said
    for reference in ("some/model", "./folder"):
        consent.fetch_if_wanted(reference)
    with folders.without_network():
        consent.fetch_if_wanted("demo-instruct")
    monkeypatch.setattr(embedded, "find", lambda *a: Path("there"))
    consent.fetch_if_wanted("demo-instruct")
    assert asked == ["demo-instruct"] * fetched and capsys.readouterr().err == ""


@pytest.mark.parametrize("model, warned", [("demo", 1), ("demo-instruct", 0), ("some/folder", 0)])
def test_the_demo_model_is_warned_of(model: str, warned: int, capsys: pytest.CaptureFixture[str]) -> None:
    args: Any = SimpleNamespace(model=model, template=None)
    base = SimpleNamespace(tokenizer=object(), config=None, reference=model)
    job = loop.Job((), languages.find("zh"), languages.find("en"))
    made = prompting.prompts_of(args, SimpleNamespace(base=base), job)  # type: ignore[arg-type]
    lines = capsys.readouterr().err.splitlines()
    assert made.template.form == "plain" and len(lines) == warned
    assert all("cannot translate" in line and "demo-instruct" in line for line in lines)
