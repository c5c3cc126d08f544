"""`score` and `write` that begin with another text's adapter, and keep their own when they are asked to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import edge
from edge import cli, journal, score
from edge.commands import carry
from edge.records import ChunkScore
from edge.weights import tensorfile
from tests import tiny

SET = ["compute.threads=1", "window.chunk=64", "window.size=128", "adapter.rank=4", "learn.lr=1e-3", "learn.guard=off"]
COMMON = [part for each in SET for part in ("--set", each)]
OTHER = "The whale rose and fell, and the harpooner counted the waves. " * 8


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny.folder(tmp_path_factory.mktemp("carry") / "model", "qwen3"))


@pytest.fixture
def texts(tmp_path: Path) -> tuple[Path, Path]:
    """Two volumes."""
    one, two = tmp_path / "one.txt", tmp_path / "two.txt"
    one.write_text(OTHER, "utf-8")
    two.write_text(tiny.TEXT, "utf-8")
    return one, two


@pytest.fixture
def first(model: str, texts: tuple[Path, Path], tmp_path: Path) -> Path:
    """The run of the first volume, which has kept its adapter."""
    run = tmp_path / "first"
    assert cli.main(["score", str(texts[0]), "--model", model, *COMMON, "--keep-adapter", "--run", str(run)]) == 0
    return run


def kept(run: Path) -> dict[str, torch.Tensor]:
    return dict(tensorfile.TensorFile(run / "files" / journal.ADAPTER).items())


def result(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


def nats(chunks: list[dict[str, Any]]) -> list[tuple[float, float]]:
    return [(chunk["base_nll"], chunk["adapter_nll"]) for chunk in chunks]


def test_a_score_begins_with_another_texts_adapter(
    model: str, texts: tuple[Path, Path], first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same numbers as of a session whose adapter was put there by hand."""
    _, two = texts
    runtime = edge.load(model, overrides=SET)
    with runtime.session() as session:
        list(session.score(OTHER))
        assert session.adapter is not None
        learned = session.adapter.snapshot()
    assert learned.keys() == kept(first).keys()
    assert all(torch.equal(learned[name], tensor) for name, tensor in kept(first).items())
    with runtime.session() as session:
        assert session.adapter is not None
        session.adapter.restore(learned)
        session.carries = True
        expected = list(session.score(tiny.TEXT))
    capsys.readouterr()
    again = ["score", str(two), "--model", model, *COMMON, "--carry", str(first), "--json"]
    assert cli.main([*again, "--run", str(tmp_path / "second")]) == 0
    captured = capsys.readouterr()
    assert f"begins with the adapter of {first}" in captured.err
    found = json.loads(captured.out.splitlines()[-1])
    assert found["carried"]["from"] == str(first)
    assert nats(found["chunks"]) == [(chunk.base_nll, chunk.adapter_nll) for chunk in expected]
    assert found["chunks"][0]["base_nll"] != found["chunks"][0]["adapter_nll"]
    # without being asked, a run keeps no adapter; and one that began otherwise is another run
    assert not (tmp_path / "second/files" / journal.ADAPTER).exists()
    assert cli.main(["score", str(two), "--model", model, *COMMON, "--run", str(tmp_path / "second")]) == 7
    assert "carried" in capsys.readouterr().err


def test_a_carried_score_goes_on_where_it_was_stopped(
    model: str, texts: tuple[Path, Path], first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    _, two = texts

    def command(run: str) -> list[str]:
        more = ["--carry", str(first), "--keep-adapter", "--snapshot-every", "1", "--json"]
        return ["score", str(two), "--model", model, *COMMON, *more, "--run", str(tmp_path / run)]

    capsys.readouterr()
    assert cli.main(command("whole")) == 0
    whole = result(capsys)
    plainly = score.score

    def stopping(*args: Any, **more: Any) -> Any:
        for number, chunk in enumerate(plainly(*args, **more)):
            assert isinstance(chunk, ChunkScore)
            yield chunk
            if number == 1:
                raise KeyboardInterrupt

    monkeypatch.setattr(score, "score", stopping)
    assert cli.main(command("stopped")) == 130
    assert not (tmp_path / "stopped/files" / journal.ADAPTER).exists()
    monkeypatch.setattr(score, "score", plainly)
    capsys.readouterr()
    assert cli.main(command("stopped")) == 0
    assert nats(result(capsys)["chunks"]) == nats(whole["chunks"])
    assert all(torch.equal(tensor, kept(tmp_path / "whole")[n]) for n, tensor in kept(tmp_path / "stopped").items())
    # finished: the same command writes its outputs again and keeps what it has kept
    assert cli.main(command("stopped")) == 0
    assert nats(result(capsys)["chunks"]) == nats(whole["chunks"])


def test_a_text_is_continued_with_another_ones_adapter(
    model: str, texts: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = texts
    first, folder = tmp_path / "first", tmp_path / "adapter"
    prompt = [*COMMON, "--model", model, "--set", "generate.ignore_eos=true", "--tokens", "40", "--json"]
    begin = ["write", "--prompt-file", str(one), *prompt, "--keep-adapter", "--run", str(first)]
    assert cli.main(begin) == 0
    assert cli.main(["runs", "export-adapter", "first", "--root", str(tmp_path), "--out", str(folder)]) == 0
    capsys.readouterr()
    read = []
    for carried in ([], ["--carry", str(first)], ["--carry", str(folder)]):
        assert cli.main(["write", "--prompt-file", str(two), *prompt, *carried, "--no-run"]) == 0
        found = result(capsys)
        assert (found["carried"] or {}).get("from") == (carried[1] if carried else None)
        read.append([chunk["learned"]["losses"] for chunk in found["read"]])
    assert read[0] and read[1] == read[2] != read[0]


def test_what_cannot_be_kept_is_refused_in_one_line(
    model: str, texts: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = texts
    first, second = tmp_path / "first", tmp_path / "second"
    score_one = ["score", str(one), "--model", model, *COMMON]
    assert cli.main([*score_one, "--run", str(first)]) == 0

    def refused(code: int, words: str, command: list[str]) -> None:
        capsys.readouterr()
        assert cli.main(command) == code
        line = capsys.readouterr().err.strip().splitlines()[-1]
        assert line.startswith("error: ") and words in line, line

    refused(2, "--keep-adapter with --no-run", [*score_one, "--keep-adapter", "--no-run"])
    off = ["--set", "learn.mode=none"]
    refused(2, "--keep-adapter with learn.mode=none", [*score_one, *off, "--keep-adapter", "--run", str(second)])
    refused(7, "its adapter was discarded", [*score_one, "--keep-adapter", "--run", str(first)])
    carrying = ["score", str(two), "--model", model, "--no-run", "--carry", str(first)]
    refused(7, "learned nothing that was kept", [*carrying, *COMMON])
    assert cli.main([*score_one, "--keep-adapter", "--run", str(first), "--fresh"]) == 0
    refused(2, "has rank 4; expected adapter.rank=8", [*carrying, *COMMON, "--set", "adapter.rank=8"])
    refused(2, "--carry with learn.mode=none", [*carrying, *COMMON, *off])
    assert cli.main(["runs", "prune", "first", "--root", str(tmp_path)]) == 0
    refused(7, "was removed", [*carrying, *COMMON])
    # the outputs of a finished run are written again all the same
    assert cli.main([*score_one, "--keep-adapter", "--run", str(first)]) == 0
    assert "was removed; --fresh learns it anew" in capsys.readouterr().err


def test_a_carried_run_is_not_taken_for_the_plain_one(
    model: str, texts: tuple[Path, Path], first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """In the folders that nobody names."""
    _, two = texts
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    plain = ["score", str(two), "--model", model, *COMMON, "--json"]
    plainly = score.score

    def stopping(*args: Any, **more: Any) -> Any:
        yield next(plainly(*args, **more))
        raise KeyboardInterrupt

    monkeypatch.setattr(score, "score", stopping)
    assert cli.main([*plain, "--carry", str(first)]) == 130
    monkeypatch.setattr(score, "score", plainly)
    capsys.readouterr()
    assert cli.main(plain) == 0
    assert result(capsys)["carried"] is None
    assert cli.main([*plain, "--carry", str(first)]) == 0
    carried = result(capsys)
    assert carried["carried"]["from"] == str(first)
    assert cli.main(plain) == 0
    captured = capsys.readouterr()
    assert "is finished: its outputs are written again" in captured.err
    assert nats(json.loads(captured.out.splitlines()[-1])["chunks"]) != nats(carried["chunks"])


def test_of_another_run_a_score_takes_the_adapter_alone(model: str, texts: tuple[Path, Path], first: Path) -> None:
    _, two = texts
    found = carry.find(str(first))
    assert found.adapter_alone and not found.corrections
    (first / "files" / carry.JOB).write_text("no JSON", "utf-8")  # of no use here
    assert carry.find(str(first), adapter_alone=True).text() == found.text()
    assert cli.main(["score", str(two), "--model", model, *COMMON, "--carry", str(first), "--no-run"]) == 0


def test_what_is_learned_of_a_private_text_is_private(model: str, texts: tuple[Path, Path], tmp_path: Path) -> None:
    one, two = texts
    first, second = tmp_path / "first", tmp_path / "second"
    one.chmod(0o600)
    two.chmod(0o644)
    assert cli.main(["score", str(one), "--model", model, *COMMON, "--keep-adapter", "--run", str(first)]) == 0
    assert (first / "files" / journal.ADAPTER).stat().st_mode & 0o077 == 0
    out = tmp_path / "adapter"
    assert cli.main(["runs", "export-adapter", str(first), "--out", str(out)]) == 0
    assert {path.stat().st_mode & 0o077 for path in (out, *out.iterdir())} == {0}
    more = ["--carry", str(first), "--keep-adapter", "--run", str(second)]
    assert cli.main(["score", str(two), "--model", model, *COMMON, *more]) == 0
    assert (second / "files" / journal.ADAPTER).stat().st_mode & 0o077 == 0
