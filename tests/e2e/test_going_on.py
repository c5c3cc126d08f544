"""Work is never repeated or lost: the same command continues, outputs are part of the run, a broken stdout is only
that."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge import cli, journal, score, terminal
from edge.core import keeper
from edge.errors import StorageError
from edge.journal import manifest
from tests import tiny
from tests.e2e.test_resume import COMMON, command, outcome


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny.folder(tmp_path_factory.mktemp("going-on") / "model", "qwen3"))


@pytest.fixture
def book(tmp_path: Path) -> Path:
    path = tmp_path / "book.txt"
    path.write_text(tiny.TEXT * 2)
    return path


def full(name: str) -> Callable[[Path, bytes], None]:
    """Writing that finds the disk full under outputs of that name."""
    real = journal.atomic_write

    def write(path: Path, data: bytes) -> None:
        if Path(path).name == name:
            raise StorageError(f"cannot write {path}: No space left on device")
        real(path, data)

    return write


def no_work(*_: Any, **__: Any) -> None:
    raise AssertionError("work is done again")


@pytest.mark.parametrize("lost", ["report.json", "perplexity.png"])
def test_a_report_that_could_not_be_written_is_written_by_the_same_command(
    lost: str,
    model: str,
    book: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    args = ["score", str(book), "--model", model, *COMMON, "--report", str(tmp_path / "rep"), "--json"]
    assert cli.main([*args, "--run", str(tmp_path / "whole")]) == 0
    whole = json.loads((tmp_path / "whole/summary.json").read_text())["summary"]
    (tmp_path / "rep" / lost).unlink()
    with monkeypatch.context() as patch:
        patch.setattr(journal, "atomic_write", full(lost))
        assert cli.main(args) == 8
    (folder,) = (tmp_path / "state/templora/runs").iterdir()
    assert not (folder / "summary.json").exists() and not (tmp_path / "rep" / lost).exists()
    capsys.readouterr()
    monkeypatch.setattr(score, "score", no_work)
    assert cli.main(args) == 0
    first = outcome(capsys.readouterr().out.encode())
    assert (folder / "summary.json").exists() and (tmp_path / "rep" / lost).stat().st_size > 100
    assert json.loads((folder / "summary.json").read_text())["summary"] == whole  # of the adapter that is gone, too
    # finished: it says so, and writes its outputs again
    (tmp_path / "rep" / lost).unlink()
    assert cli.main(args) == 0
    said = capsys.readouterr()
    assert f"the run in {folder} is finished: its outputs are written again; --fresh starts over" in said.err
    assert outcome(said.out.encode()) == first and (tmp_path / "rep" / lost).exists()
    result = json.loads(said.out.splitlines()[-1])
    took = sum(chunk["seconds"] for chunk in result["chunks"])  # not in the process that writes outputs again
    assert took == pytest.approx(result["chunk_seconds"])
    assert f"{result['tokens']} tokens in {took:.0f} s ({result['tokens'] / took:.0f} tokens/s)" in said.out
    assert len(list(folder.parent.iterdir())) == 1


def test_a_text_that_could_not_be_written_is_written_by_the_same_command(
    model: str, book: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.txt"
    args = [*command("write", model, book, tmp_path / "run"), "--out", str(out)]
    args[args.index("300")] = "40"
    with monkeypatch.context() as patch:
        patch.setattr(journal, "atomic_write", full("out.txt"))
        assert cli.main(args) == 8
    said = capsys.readouterr().out
    monkeypatch.setattr(keeper.Keeper, "retrying", no_work)  # nothing is decoded
    for _ in range(2):
        out.unlink(missing_ok=True)
        assert cli.main(args) == 0
        result = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert out.read_bytes().decode() == result["text"] and result["tokens"] == 40 and result["finish"] == "length"
        assert said.startswith(terminal.harmless(result["text"]))


def test_fresh_keeps_the_run_that_was_there(
    model: str, book: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    args = ["score", str(book), "--model", model, *COMMON]
    assert cli.main(args) == 0 and cli.main([*args, "--fresh"]) == 0
    assert len(list((tmp_path / "state/templora/runs").iterdir())) == 2
    named = [*args, "--run", str(tmp_path / "run")]
    for _ in range(3):
        assert cli.main([*named, "--fresh"]) == 0
    capsys.readouterr()
    assert sorted(p.name for p in tmp_path.glob("run*")) == ["run", "run-before", "run-before-2"]
    assert all((folder / "summary.json").exists() for folder in tmp_path.glob("run*"))
    # something else is another run, not a mistake
    assert cli.main([*args, "--max-tokens", "100"]) == 0
    assert len(list((tmp_path / "state/templora/runs").iterdir())) == 3


def test_a_finished_run_of_another_model_is_not_in_the_way(
    book: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    args = ["score", str(book), "--model", str(tiny.folder(tmp_path / "model", "qwen3")), *COMMON, "--json"]
    assert cli.main(args) == 0
    before = outcome(capsys.readouterr().out.encode())
    tiny.folder(tmp_path / "model", "qwen3", seed=7)
    assert cli.main(args) == 0
    said = capsys.readouterr()
    assert "a new run begins" in said.err and outcome(said.out.encode()) != before


# --- standard output ---


def shell(args: list[str], after: str, tmp_path: Path, **more: str) -> tuple[int, str]:
    """The command with its standard output as `after` says; its exit code and what it said on standard error."""
    line = f'"$PY" -m edge.cli "$@" {after}; exit ${{PIPESTATUS[0]}}'
    env = {
        **os.environ,
        "PY": sys.executable,
        "OMP_NUM_THREADS": "1",
        "XDG_STATE_HOME": str(tmp_path / "state"),
        **more,
    }
    done = subprocess.run(["bash", "-c", line, "bash", *args], env=env, capture_output=True, text=True, timeout=600)
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    "after", ["| true", "| head -c 1", ">&-", "> /dev/full", "2>&-", "<&- >&- 2>&-", ">&- 2>/dev/full"]
)
def test_a_broken_stdout_ends_printing_only(after: str, model: str, book: Path, tmp_path: Path) -> None:
    book.write_text("Old sea.\n\nNew ship.\n")
    report = tmp_path / "rep"
    args = ["translate", str(book), "--from", "en", "--to", "de", "--model", model, *COMMON, "--report", str(report)]
    args[args.index("window.chunk=64")], args[args.index("window.size=128")] = "window.chunk=128", "window.size=400"
    code, err = shell(args, after, tmp_path)
    assert code == 9 and "Traceback" not in err, err
    assert all((report / name).stat().st_size for name in ("report.json", "report.html", "review.tsv"))
    assert list((tmp_path / "state/templora/runs").glob("*/summary.json"))
    assert ("No space left" in err) == (after == "> /dev/full")


def test_what_is_written_is_kept_where_its_reader_goes_away(model: str, book: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.txt"
    code, err = shell(
        [*command("write", model, book, tmp_path / "run"), "--out", str(out)], "| head -c 1 > /dev/null", tmp_path
    )
    assert code == 0 and out.stat().st_size > 1, err


def test_a_run_of_an_earlier_version_is_refused_in_one_line(
    model: str, book: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its settings have names that there are no more: it is neither misread nor lost."""
    folder = tmp_path / "run"
    args = command("score", model, book, folder)
    assert cli.main(args) == 0
    (folder / "summary.json").unlink()  # as if it had been stopped
    made = manifest.load(folder)
    compute = {**made.extra["compute"], "fuse_first_epoch": True}
    manifest.save(folder, dataclasses.replace(made, extra={**made.extra, "compute": compute}))
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    capsys.readouterr()
    assert cli.main(args) == 7
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and "begun by another version" in said[0] and "fuse_first_epoch" in said[0]
    assert "--fresh" in said[0]
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    assert cli.main([*args, "--fresh"]) == 0
