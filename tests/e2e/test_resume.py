"""Killed in the middle and resumed: through the command line, as a user would."""

from __future__ import annotations

import argparse
import json
import random
import signal
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edge import cli, settings
from edge.commands import options
from edge.resume import Run
from tests import tiny
from tests.commands import Command

COMMON = [
    "--set",
    "compute.threads=1",
    "--set",
    "window.chunk=64",
    "--set",
    "window.size=128",
    "--set",
    "adapter.rank=4",
]
TIMINGS = ("seconds", "chunk_seconds", "score_seconds", "decode_seconds", "peak_bytes")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny.folder(tmp_path_factory.mktemp("resume") / "model", "qwen3"))


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("resume") / "book.txt"
    path.write_text(tiny.TEXT * 20)
    return path


def command(verb: str, model: str, book: Path, folder: Path) -> list[str]:
    what = [str(book)] if verb == "score" else ["--prompt-file", str(book), "--tokens", "300"]
    more = [] if verb == "score" else ["--set", "generate.ignore_eos=true", "--set", "generate.temperature=1.0"]
    return [verb, *what, "--model", model, *COMMON, *more, "--run", str(folder), "--json"]


def records(folder: Path) -> int:
    try:
        return (folder / "records.jsonl").read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def outcome(out: bytes) -> Any:
    """What the command said, timings left aside."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                k: plain(v) for k, v in value.items() if k not in (*TIMINGS, "memory", "model", "tokens_per_second")
            }
        return [plain(v) for v in value] if isinstance(value, list) else value

    return plain(json.loads(out.splitlines()[-1]))


@pytest.mark.parametrize("verb", ["score", "write"])
def test_killed_runs_come_to_the_same_end(verb: str, model: str, book: Path, tmp_path: Path) -> None:
    """SIGKILL at random moments, twice; then to the end."""
    whole = Command(command(verb, model, book, tmp_path / "whole"), anew=True)
    out, err = whole.communicate(timeout=240)
    assert whole.returncode == 0, err
    folder = tmp_path / "killed"
    args, chance, killed = command(verb, model, book, folder), random.Random(verb), 0
    for attempt in range(2):
        child = Command([*args, "--resume"] if attempt else args)
        before = records(folder)
        wanted = before + chance.randrange(2, 6)
        while child.poll() is None and records(folder) < wanted:
            time.sleep(0.02)
        time.sleep(chance.random() * 0.1)
        killed += child.poll() is None
        child.kill()
        child.communicate()
    assert killed == 2
    last = Command([*args, "--resume"])
    again, err = last.communicate(timeout=240)
    assert last.returncode == 0, err
    assert outcome(again) == outcome(out)
    assert (folder / "summary.json").exists() and not list((folder / "snapshots").glob("*.safetensors"))


class Killed(BaseException):
    """Nothing after it runs, as after a SIGKILL."""


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("verb", ["score", "write"])
def test_killed_after_its_last_record_a_run_still_tells_its_adapter(
    verb: str, early: bool, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All records are there, and nothing says yet what the adapter was: what came after the snapshot is learned again.

    `early`: no snapshot was made before.
    """
    book = tmp_path / "book.txt"
    book.write_text(tiny.TEXT * 2)
    assert cli.main(command(verb, model, book, tmp_path / "whole")) == 0
    args = command(verb, model, book, tmp_path / "run")

    def killed(run: Run, session: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Run, "all_done", killed)
        if early:
            patched.setattr(Run, "snapshot", lambda run, session: None)
        with pytest.raises(Killed):
            cli.main(args)
    assert not (tmp_path / "run/summary.json").exists() and records(tmp_path / "run") > 3
    assert cli.main(args) == 0
    ends = [json.loads((tmp_path / name / "summary.json").read_text())["summary"] for name in ("whole", "run")]
    assert len(ends[0]["adapter_sha256"]) == 64 and ends[0] == ends[1]
    lines = [(tmp_path / name / "records.jsonl").read_text().splitlines() for name in ("whole", "run")]
    assert len(lines[0]) == len(lines[1])


def test_stop_and_go_on(model: str, book: Path, tmp_path: Path) -> None:
    args = command("score", model, book, tmp_path / "run")
    child = Command(args)
    while records(tmp_path / "run") < 3:
        time.sleep(0.05)
        assert child.poll() is None
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 130 and b"--resume" in err and json.loads(out.splitlines()[-1])["stopped"]
    done = json.loads(out.splitlines()[-1])["chunks"][-1]["end"]
    second = Command([*args, "--resume", "--set", "compute.heap=keep"])
    out, err = second.communicate(timeout=240)
    assert second.returncode == 0, err
    assert b"note: the run continues compute.heap=return as it began, not keep; --force changes it" in err
    chunks = json.loads(out.splitlines()[-1])["chunks"]
    assert chunks[-1]["end"] > done and [c["index"] for c in chunks] == list(range(len(chunks)))


def test_what_is_named_and_forced_is_computed_as_asked(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    options.common(parser)
    options.going_on(parser)
    began = settings.load("economical", ["compute.threads=1", "compute.heap=return", "compute.paging=guard"])
    where = SimpleNamespace(settings=lambda _: began)
    asked = ["--set", "compute.threads=2", "--set", "compute.heap=keep", "--set", "compute.paging=auto", "--resume"]
    args = parser.parse_args(asked)
    assert options.as_begun(args, where, options.settings_of(args)) == began
    assert "compute.threads=1 as it began, not 2" in capsys.readouterr().err
    args = parser.parse_args(["--set", " compute.plain = [first_epoch]", "--resume"])
    assert options.as_begun(args, where, options.settings_of(args)) == began
    assert "compute.plain=() as it began, not ('first_epoch',)" in capsys.readouterr().err
    args = parser.parse_args([*asked, "--force"])
    assert options.as_begun(args, where, options.settings_of(args)).compute == replace(
        began.compute, threads=2, heap="keep"
    )
    assert not capsys.readouterr().err


def test_runs_are_listed_pruned_and_told_apart(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    text = tmp_path / "short.txt"
    text.write_text(tiny.TEXT)
    args = ["score", str(text), "--model", model, *COMMON]
    assert cli.main(args) == 0 and cli.main([*args, "--fresh"]) == 0  # two runs of the same
    assert cli.main([*args, "--resume"]) == 0  # none is unfinished: its outputs are written again
    capsys.readouterr()
    assert cli.main(["runs", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out.splitlines()[-1])["runs"]
    assert [r["state"] for r in listed] == ["finished"] * 2 and listed[0]["position"] == listed[0]["total"]
    name = Path(listed[0]["folder"]).name
    assert cli.main(["runs", "prune", name, "--whole", "--dry-run"]) == 0
    assert cli.main(["runs", "prune", name, "--whole"]) == 0
    assert cli.main(["runs", "prune", name]) == 7
    capsys.readouterr()
    assert cli.main(["runs", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out.splitlines()[-1])["runs"]) == 1
    assert cli.main([*args, "--no-run"]) == 0
    assert cli.main([*args, "--max-tokens", "9", "--run", listed[1]["folder"]]) == 7  # taken
    assert cli.main([*args, "--run", listed[1]["folder"], "--resume"]) == 0  # finished: its outputs again
    assert cli.main(["runs", "prune", "--whole"]) == 0
    capsys.readouterr()
    assert cli.main(["runs"]) == 0 and "no runs" in capsys.readouterr().out


def test_a_damaged_older_run_is_not_in_the_way(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    text = tmp_path / "short.txt"
    text.write_text(tiny.TEXT)
    args = ["score", str(text), "--model", model, *COMMON]
    assert cli.main(args) == 0
    (manifest,) = tmp_path.glob("templora/runs/*/manifest.json")
    manifest.write_text("{")
    assert cli.main(args) == 0
    assert str(manifest.parent) in capsys.readouterr().err
    assert cli.main([*args, "--resume"]) == 0  # the second one, which is finished
    assert str(manifest.parent) in capsys.readouterr().err
