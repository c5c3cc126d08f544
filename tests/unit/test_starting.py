"""What start-up does not pay for: a compiler that nothing uses, a vocabulary that is read twice."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edge.weights import checkpoint, words
from tests import tiny

ROOT = Path(__file__).resolve().parents[2]

IMPORTS = """
import sys
import torch
from edge.weights import libraries
before = torch.compile
libraries.load()
assert torch.compile is before
assert "bitsandbytes" in sys.modules and "peft" in sys.modules
print("torch._inductor.compile_fx" in sys.modules)
import bitsandbytes.functional as bnb
x = torch.randn(64, 64)
packed, state = bnb.quantize_4bit(x, quant_type="nf4")
assert (bnb.dequantize_4bit(packed, state) - x).abs().max() < 1
"""


FREED = """
import gc, sys, weakref
from pathlib import Path
from edge.machine import allocator
allocator.own_process()
from edge import settings
from edge.memory import planning
from edge.model import base as bases

def load():
    asked = settings.load("economical", ["learn.mode=none", "compute.device=cpu"])
    source = planning.find(sys.argv[1], asked)
    base = bases.load(source, planning.plan(source, asked, decodes=False, degrade=False).settings)
    return weakref.ref(base.model)

model = load()
assert gc.get_freeze_count() > 100_000
allocator.release_memory()
print(model() is None)
"""


def test_what_the_command_makes_after_its_imports_can_be_freed(tmp_path: Path) -> None:
    folder = tiny.folder(tmp_path / "m", "qwen2")
    done = subprocess.run(
        [sys.executable, "-c", FREED, str(folder)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "True"


def test_no_compiler_is_imported_with_the_libraries() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTS], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_what_is_compiled_later_is_what_was_handed_in() -> None:
    from edge.weights import libraries

    made: list[Any] = []

    def compiles(function: Any, **options: Any) -> Any:
        made.append(options)
        return lambda x: function(x) + 1

    @libraries._later(compiles, dynamic=False)
    def double(x: int) -> int:
        return 2 * x

    assert not made
    assert [double(3), double(4)] == [7, 9]
    assert made == [{"dynamic": False}]
    assert libraries._later(compiles, lambda x: x)(1) == 2


def test_a_tokenizer_without_its_json_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny.folder(tmp_path / "m", "qwen3")
    given = words.added_tokens(folder)["added_tokens_decoder"]
    assert {token["content"] for token in given.values()} >= {"<s>", "</s>"}
    fast = checkpoint.load_tokenizer(folder)
    with monkeypatch.context() as patch:
        patch.setattr(words, "added_tokens", lambda folder: {})
        plain = checkpoint.load_tokenizer(folder)
    assert fast.added_tokens_decoder == plain.added_tokens_decoder
    assert fast.special_tokens_map == plain.special_tokens_map
    assert fast.all_special_ids == plain.all_special_ids
    assert fast.init_kwargs == plain.init_kwargs
    assert fast(tiny.TEXT)["input_ids"] == plain(tiny.TEXT)["input_ids"]


def test_another_layout_is_read_as_transformers_reads_it(tmp_path: Path) -> None:
    folder = tiny.folder(tmp_path / "m", "qwen3")
    path = folder / "tokenizer.json"
    values = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({"normalizer": values.pop("normalizer"), **values}))
    assert words.added_tokens(folder) == {}
    (folder / "added_tokens.json").write_text("{}")
    assert words.added_tokens(folder) == {}
    assert words.added_tokens(tmp_path) == {}
