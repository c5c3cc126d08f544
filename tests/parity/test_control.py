"""Control, special and unused tokens are never written, however likely the model finds them."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from edge import generate, settings
from edge.model import base as bases
from edge.model import control, picking
from edge.session import Runtime
from edge.settings import GenerateSettings
from edge.translation import decoding, loop
from edge.weights import quantize
from export import exporter
from export.engine import Engine
from export.runtime import OnnxForward
from tests import tiny
from tests.parity.test_translation import PAIRS, made, request

SPECIAL = ["<start_of_image>", "<image_soft_token>"]  # as a tokenizer marks them
FORMED = ["<|im_start|>", "<unused12>", "[unused3]", "<｜tool▁sep｜>"]  # as words whose form says it
TEXT = ["<b>", "</table>", "<0x0A>", "[1]", "<s"]
WORDS = [*SPECIAL, *FORMED, *TEXT]


def biased(*overrides: str) -> Any:
    """A runtime whose head finds control tokens far likelier than any text."""
    model, tokenizer = tiny.model("qwen3", max_position_embeddings=2048), tiny.tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": SPECIAL})
    tokenizer.add_tokens([*FORMED, *TEXT])
    ids = tokenizer.convert_tokens_to_ids([*SPECIAL, *FORMED])
    with torch.no_grad():
        for number, index in enumerate([*ids, 300, 319]):  # the last two are rows without a word
            row = torch.randn(64, generator=torch.Generator().manual_seed(number // 2))
            model.get_output_embeddings().weight[index] = row * (9 if number % 2 else -9)  # one of two is likely
    quantize.quantize_in_place(model, "cpu", torch.float32)
    chosen = settings.load(
        "economical", [*tiny.WINDOW, "window.chunk=96", "window.size=1400", "learn.mode=none", *overrides]
    )
    return Runtime(bases.from_model(model, tokenizer, tiny.CPU, "biased"), chosen)


def written(opened: Any) -> tuple[set[int], str]:
    records = list(opened.generate(tiny.TEXT[:60], max_tokens=60))
    ids = {token for record in records for token in getattr(record, "token_ids", ())}
    return ids, "".join(getattr(record, "text", "") for record in records)


def test_which_tokens_are_barred() -> None:
    runtime = biased()
    tokenizer = runtime.base.tokenizer
    found = set(control.barred(runtime.base).tolist())
    assert found == {0, *tokenizer.convert_tokens_to_ids([*SPECIAL, *FORMED]), *range(len(tokenizer), 320)}
    assert 1 not in found and 1 in runtime.base.eos_ids  # what ends a text may be chosen


@pytest.mark.parametrize("path", ["torch", "onnx"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_no_control_token_is_written(
    path: str, temperature: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = biased(f"generate.temperature={temperature}", "generate.ignore_eos=true")
    engine = None
    if path == "onnx":
        exporter.export(runtime.base, tmp_path / "graph", "nf4")
        engine = Engine(tmp_path / "graph")
    barred = set(control.barred(runtime.base).tolist())

    def once() -> tuple[set[int], str]:
        with runtime.session() as opened:
            if engine is not None:
                opened.forward = OnnxForward(engine, opened.adapter)
            return written(opened)

    with monkeypatch.context() as patch:
        patch.setattr(control, "barred", lambda base: torch.empty(0, dtype=torch.int64))
        assert once()[0] & barred  # the model would write them
    ids, text = once()
    assert ids and not ids & barred
    assert not any(word in text for word in ["</s>", "<s>", *SPECIAL, *FORMED])


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_no_control_token_is_in_a_translation(temperature: float, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = biased()
    barred = set(control.barred(runtime.base).tolist())
    chosen: list[int] = []
    real = picking.Picker.pick

    def pick(self: Any, *args: Any) -> tuple[int, float]:
        token, cost = real(self, *args)
        chosen.append(token)
        return token, cost

    monkeypatch.setattr(picking.Picker, "pick", pick)
    with runtime.session() as opened:
        translator = decoding.ModelTranslator(opened, made(opened))
        draft = translator.translate(request("A new line.", PAIRS[:2], loop.Attempt(temperature=temperature)))
    assert chosen and not set(chosen) & barred
    assert not any(word in draft.text for word in [*SPECIAL, *FORMED])


def test_what_ends_a_text_is_not_in_it() -> None:
    """Not even where its tokenizer takes it for a word, as that of a GGUF file does."""
    base = biased().base
    base.tokenizer.add_tokens(["<end_of_turn>"])
    end = base.tokenizer.convert_tokens_to_ids("<end_of_turn>")
    base.model.generation_config.eos_token_id = [1, end]
    stream = generate.TextStream(base, [], ())
    assert stream.add(base.encode("A")[-1]) + stream.add(end) + stream.flush() == "A"


def test_the_marks_of_a_gguf_file_are_kept(tmp_path: Path) -> None:
    path = tiny.gguf(tmp_path / "m.gguf")
    assert quantize.control_tokens(path) == [0, 1, *range(259, 320)]
    quantize.quantize_to_folder(str(path), tmp_path / "nf4")
    assert json.loads((tmp_path / "nf4/templora.json").read_text())["control_tokens"] == [0, 1, *range(259, 320)]


def test_it_costs_next_to_nothing() -> None:
    """Against choosing at all, over the largest vocabulary, with every unused token of Gemma's."""
    logits = torch.randn(262_144, generator=torch.Generator().manual_seed(0))

    def seconds(barred: torch.Tensor) -> float:
        picker, best = picking.Picker(GenerateSettings(temperature=0.0), barred), 1e9
        for _ in range(30):
            start = time.perf_counter()
            picker.pick(logits, 0)
            best = min(best, time.perf_counter() - start)
        return best

    assert seconds(torch.arange(6400)) < 1.5 * seconds(torch.empty(0, dtype=torch.int64))


def test_a_large_vocabulary_is_looked_through_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting the words takes as long as reading them all: done for each word it took minutes for 262,144."""
    runtime = tiny.runtime("llama", "learn.mode=none")
    kind, counted = type(runtime.base.tokenizer), []
    real = kind.__len__
    monkeypatch.setattr(kind, "__len__", lambda self: counted.append(1) or real(self))
    control.barred(runtime.base)
    assert len(counted) <= 2
