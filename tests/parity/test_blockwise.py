"""Reading texts block by block: against the whole full model in memory, for families of every kind of block."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edge.learning import blockwise
from edge.model import base as bases
from edge.model.base import Base, weight_of
from edge.weights import packed, quantize
from edge.weights.pieces import Original
from tests import families, tiny

TEXTS = torch.randint(0, 320, (5, 40), generator=torch.Generator().manual_seed(3))
SINGLE = ("llama", "gemma2", "gemma3_text", "qwen3_moe", "gpt_oss", "llama4_text", "lfm2", "qwen3_next", "falcon_h1",
          "opt", "gpt_neox", "cohere2")  # fmt: skip
SHARING = ("gemma3n_text", "gemma4_text")  # the upper blocks read keys and values of lower ones


def pair(family: str) -> tuple[Base, Base, dict[str, Original], list[str]]:
    """The full model, the 4-bit one, the full one's weights, and the log of their readings."""
    full, made = families.language_model(family), families.language_model(family)
    quantize.quantize_in_place(made, "cpu", torch.float32)
    log: list[str] = []

    def original(name: str, weight: Tensor) -> Original:
        return Original(tuple(weight.shape), lambda: log.append(name) or weight.detach())  # type: ignore[func-returns-value]

    weights = {name: original(name, weight) for name, weight in full.named_parameters()}
    words = tiny.tokenizer()
    return bases.from_model(full, words, tiny.CPU), bases.from_model(made, words, tiny.CPU), weights, log


@torch.no_grad()
def plain(base: Base, texts: Tensor, count: int) -> tuple[dict[str, Tensor], Tensor]:
    """All weights in memory, each text in one call of the decoder: moments of every linear layer, last hidden states."""
    inputs: dict[str, list[Tensor]] = {}

    def see(name: str) -> Any:
        return lambda module, given: inputs.setdefault(name, []).append(given[0].reshape(-1, given[0].shape[-1]))

    hooks = [layer.register_forward_pre_hook(see(name)) for name, layer in base.linears()]
    states = []
    for index, text in enumerate(texts):
        states.append(base.decoder(input_ids=text[None], use_cache=False).last_hidden_state[0])
        if index + 1 == count:
            moments = {name: torch.cat(parts).double() for name, parts in inputs.items()}
    for hook in hooks:
        hook.remove()
    tokens = texts[:count].numel()  # some layers are called twice for each
    return {name: (x.T @ x / tokens).float() for name, x in moments.items()}, torch.stack(states)


@pytest.mark.parametrize("family", [*SINGLE, *SHARING])
def test_what_the_whole_model_says(family: str) -> None:
    full, held, weights, log = pair(family)
    moments, states = plain(full, TEXTS, 3)
    checksum = held.checksum()
    found: dict[str, Tensor] = {}

    def seen(name: str, layer: nn.Linear, weight: Tensor, moment: Tensor) -> None:
        assert name not in found and layer is held.model.get_submodule(name)
        assert torch.equal(weight, full.model.get_submodule(name).weight)
        assert not torch.equal(weight, weight_of(layer, torch.float32))  # that is the 4-bit one, at any time
        found[name] = moment

    parts = blockwise.groups(held)
    assert len(parts) == (1 if family in SHARING else len(held.blocks))
    last = blockwise.read(held, weights, TEXTS, 3, seen, parts)
    assert torch.allclose(last, states, rtol=1e-3, atol=1e-4 * float(states.std()))
    narrow = {name for name, layer in held.linears() if hasattr(layer.weight, "quant_state")}
    assert found.keys() == narrow
    for name, moment in found.items():
        assert torch.allclose(moment, moments[name], rtol=1e-3, atol=1e-4 * float(moments[name].diagonal().mean()))
    assert held.checksum() == checksum  # and it computes as before
    assert all(module.full is None for module in held.model.modules() if isinstance(module, packed.Packed))
    again = blockwise.hidden_states(held, TEXTS[0])
    assert not torch.allclose(again, states[0], rtol=1e-3, atol=1e-3)
    expected = narrow | {name for name, m in held.model.named_modules() if isinstance(m, packed.Packed)}
    assert sorted(name.removesuffix(".weight") for name in log) == sorted(expected)  # each once


def test_one_block_is_in_memory_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the full weights that were read, only those of one block are alive when the next is read."""
    import weakref

    _, held, weights, _ = pair("qwen3_moe")
    alive: list[tuple[int, weakref.ref[Tensor]]] = []
    real = blockwise._tensor

    def counted(full: Any, name: str, device: str) -> Tensor:
        block = int(name.split(".")[2])
        assert all(other == block for other, tensor in alive if tensor() is not None)
        tensor = real(full, name, device).clone()
        alive.append((block, weakref.ref(tensor)))
        return tensor

    monkeypatch.setattr(blockwise, "_tensor", counted)
    blockwise.read(held, weights, TEXTS, 3, lambda *seen: None, blockwise.groups(held))
    assert {block for block, _ in alive} == {0, 1} and all(tensor() is None for _, tensor in alive)
