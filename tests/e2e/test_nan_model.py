"""A model whose weights are no numbers is refused by every verb that asks it for some."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from edge import cli
from edge.measure import doctor
from tests import tiny
from tests.e2e.test_resume import COMMON


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("nan") / "model"
    made: Any = tiny.model("qwen3", max_position_embeddings=2048)
    with torch.no_grad():
        made.model.norm.weight[3] = torch.nan
    made.save_pretrained(path)
    tiny.tokenizer().save_pretrained(path)
    return str(path)


ERROR = (
    "error: the model gives no numbers; expected finite probabilities; its weights are damaged: make or get it again"
)
WRITE = ["write", "--prompt-file", "BOOK", "--tokens", "5"]
WIDE = ["--set", "window.chunk=128", "--set", "window.size=400"]


@pytest.mark.parametrize(
    "args",
    [["score", "BOOK"], ["score", "BOOK", "--no-base"], WRITE, [*WRITE, "--set", "generate.temperature=1.0"],
     ["translate", "BOOK", "--from", "en", "--to", "de", *WIDE]],
)  # fmt: skip
def test_a_model_that_gives_no_numbers_is_refused(
    args: list[str], broken: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    book = tmp_path / "book.txt"
    book.write_text("Old sea.\n\nNew ship. " * 12)
    common = [*COMMON, *(args[-4:] if args[0] == "translate" else [])]
    args = [str(book) if arg == "BOOK" else arg for arg in args]
    assert cli.main([*args, "--model", broken, *common, "--run", str(tmp_path / "run"), "--json"]) == 4
    said = capsys.readouterr()
    assert "error: the model gives no numbers" in said.err and "nll" not in said.out
    assert "cannot keep keys" not in said.err  # true of no model that gives numbers elsewhere
    assert not (tmp_path / "run" / "summary.json").exists()
    records = tmp_path / "run/records.jsonl"
    assert not records.exists() or not records.read_bytes()


def test_the_doctor_and_an_export_say_it_too(
    broken: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "examine", lambda: iter(()))  # the machine is another test's
    for args in (["doctor", "--model", broken], ["export", broken, str(tmp_path / "graph")]):
        if args[0] == "export":
            pytest.importorskip("onnxruntime")
        assert cli.main(args) == 4
        said = capsys.readouterr()
        assert [line for line in said.err.splitlines() if "note" in line or "error" in line] == [ERROR]
        assert not said.out and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "damaged", ["model.norm.weight", "model.layers.1.mlp.down_proj.weight", "model.embed_tokens.weight"]
)
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_no_number_is_not_made_4_bit(
    damaged: str, value: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made: Any = tiny.model("llama")
    with torch.no_grad():
        made.state_dict()[damaged].view(-1)[3] = value
    made.save_pretrained(tmp_path / "model")
    tiny.tokenizer().save_pretrained(tmp_path / "model")
    for more in ([], ["--repair"]):
        assert cli.main(["quantize", str(tmp_path / "model"), str(tmp_path / "out"), *more]) == 4
        errors = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
        assert errors == [next(line for line in errors if damaged in line and "no number" in line)]
        assert not (tmp_path / "out").exists()


def test_inputs_that_overflow_are_not_repaired(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made: Any = tiny.model("llama")
    with torch.no_grad():
        made.model.norm.weight.fill_(1e38)
        made.model.layers[0].input_layernorm.weight.fill_(3e38)
    made.save_pretrained(tmp_path / "model")
    tiny.tokenizer().save_pretrained(tmp_path / "model")
    args = ["quantize", str(tmp_path / "model"), str(tmp_path / "out"), "--repair", "--repair-texts", "2"]
    assert cli.main(args) == 4
    assert "error: the model gives no numbers" in capsys.readouterr().err


def test_a_bench_of_it_is_refused(broken: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    book = tmp_path / "book.txt"
    book.write_text(tiny.TEXT * 2)
    for contender in ("paper", "default", "base"):
        args = ["bench", str(book), "--model", broken, *COMMON, "--chunks", "2", "--contenders", contender]
        assert cli.main([*args, "--json"]) == 4
        said = capfd.readouterr()
        assert [line for line in said.err.splitlines() if "rror" in line] == [ERROR]
        assert not said.out
