"""A model whose weights are no numbers is refused by every verb that asks it for some."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from edge import cli
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
    assert not (tmp_path / "run" / "summary.json").exists() and not (tmp_path / "run/records.jsonl").read_bytes()
