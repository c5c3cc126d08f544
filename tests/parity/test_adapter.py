"""The fused LoRA forward and backward against peft's own, and the life of an adapter."""

from __future__ import annotations

import pytest
import torch

from edge.errors import SettingsError
from edge.model.adapter import Adapter, target_names
from edge.settings import AdapterSettings
from tests import tiny

IDS = torch.arange(2, 42)


def _gradients(runtime, fused: bool):  # type: ignore[no-untyped-def]
    adapter = Adapter(runtime.base, AdapterSettings(rank=4, alpha=8.0), seed=3, fused=fused)
    with torch.no_grad():
        for name, p in adapter.named_parameters():
            if name.endswith("lora_B"):
                p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(len(name))) * 0.05)
    with adapter.active():
        hidden = runtime.base.decoder(input_ids=IDS[None], use_cache=False).last_hidden_state
        hidden.square().mean().backward()
    result = hidden.detach(), {name: p.grad.clone() for name, p in adapter.named_parameters()}
    adapter.discard()
    return result


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
@pytest.mark.parametrize("nf4", [True, False], ids=["nf4", "full"])
def test_fused_equals_peft(architecture: str, nf4: bool) -> None:
    runtime = tiny.runtime(architecture, nf4=nf4)
    (plain, plain_grads), (fused, fused_grads) = _gradients(runtime, False), _gradients(runtime, True)
    assert torch.allclose(plain, fused, rtol=1e-4, atol=1e-5)
    assert len(fused_grads) == 2 * len(target_names(runtime.base, AdapterSettings()))
    for name, grad in plain_grads.items():
        assert float(grad.abs().max()) > 0, name
        assert float((grad - fused_grads[name]).norm() / grad.norm()) < 1e-3, name


@pytest.mark.parametrize("weights", ["packed", "cached"])
def test_cached_weights_change_nothing(weights: str) -> None:
    runtime = tiny.runtime("llama", f"compute.weights={weights}")
    reference = tiny.runtime("llama")
    with torch.no_grad():
        a = runtime.base.decoder(input_ids=IDS[None]).last_hidden_state
        b = reference.base.decoder(input_ids=IDS[None]).last_hidden_state
    assert torch.allclose(a, b, atol=1e-5)
    _, grads = _gradients(runtime, True)
    _, expected = _gradients(reference, True)
    assert all(torch.allclose(grads[n], expected[n], rtol=1e-4, atol=1e-7) for n in grads)


def test_discard_gives_the_base_back_bit_for_bit() -> None:
    runtime = tiny.runtime("gemma3_text")
    model, before = runtime.base.model, runtime.base.checksum()
    names = [name for name, _ in model.named_modules()]
    with torch.no_grad():
        logits = model(input_ids=IDS[None]).logits
    with runtime.session() as session:
        learned = list(session.score(tiny.TEXT))
        assert any(abs(c.base_nll - c.adapter_nll) > 1e-3 for c in learned[1:])
        other = runtime.session()  # two alive at once, closed in any order
    other.close()
    with torch.no_grad():
        assert torch.equal(model(input_ids=IDS[None]).logits, logits)
    assert runtime.base.checksum() == before
    assert [name for name, _ in model.named_modules()] == names


def test_base_inside_a_session_is_the_base() -> None:
    runtime = tiny.runtime("llama")
    with torch.no_grad():
        logits = runtime.base.model(input_ids=IDS[None]).logits
    with runtime.session() as session:
        list(session.score(tiny.TEXT))
        with torch.no_grad():
            assert torch.equal(runtime.base.model(input_ids=IDS[None]).logits, logits)


def test_snapshot_and_restore_are_exact() -> None:
    runtime = tiny.runtime("llama")
    with runtime.session() as session:
        chunks = session.score(tiny.TEXT)
        next(chunks)
        saved = session.adapter.snapshot()
        next(chunks)
        changed = session.adapter.snapshot()
        assert any(not torch.equal(saved[n], changed[n]) for n in saved)
        session.adapter.restore(saved)
        assert all(torch.equal(saved[n], p) for n, p in session.adapter.named_parameters())


@pytest.mark.parametrize(
    ("family", "options"),
    [("qwen3", ()), ("qwen3", ("compute.plain=[lora,step]",)), ("mixtral", ("adapter.modules=[experts,mlp]",))],
)
def test_part_of_an_adapter_is_the_adapter_with_so_much_of_b(family: str, options: tuple[str, ...]) -> None:
    runtime = tiny.runtime(family, *options)
    with runtime.session() as session:
        list(session.score(tiny.TEXT))
        adapter, path = session.adapter, session.torch_forward

        def said() -> torch.Tensor:
            logits, cache = path.prefill(IDS[:30])
            return torch.cat([path.nll(IDS, 20), logits, *(path.decode(int(token), cache) for token in IDS[30:34])])

        whole = said()
        adapter.strength = 0.7
        part = said()
        adapter.strength = 1.0
        assert torch.allclose(said(), whole, rtol=1e-4, atol=1e-5) and not torch.allclose(part, whole, atol=1e-3)
        with torch.no_grad():
            for name, parameter in adapter.named_parameters():
                if name.endswith("lora_B"):
                    parameter.mul_(0.7)
        adapter.version += 1
        assert torch.allclose(said(), part, rtol=1e-4, atol=1e-5)


def test_what_is_used_in_part_learns_whole() -> None:
    sums = []
    for strength in (1.0, 0.5):
        with tiny.runtime("llama").session() as session:
            session.adapter.strength = strength
            nats = [session.learner.learn(IDS + k, 24)[1] for k in range(3)]
            sums.append((session.adapter.fingerprint(), torch.stack(nats)))
            assert session.adapter.strength == strength
    assert sums[0][0] == sums[1][0] and torch.equal(sums[0][1], sums[1][1])


@pytest.mark.parametrize(
    ("settings", "count", "where"),
    [
        (AdapterSettings(), 14, ".0."),
        (AdapterSettings(layers="top:1"), 7, ".1."),
        (AdapterSettings(modules=("down_proj",)), 2, "down_proj"),
        (AdapterSettings(modules=("mlp",)), 6, "gate_proj"),
        (AdapterSettings(modules=("attention",)), 8, "o_proj"),
        (AdapterSettings(modules=("attention", "down_proj")), 10, "down_proj"),
    ],
)
def test_targets(settings: AdapterSettings, count: int, where: str) -> None:
    names = target_names(tiny.runtime("llama").base, settings)
    assert len(names) == count
    assert any(where in name for name in names)
    assert not any("lm_head" in name for name in names)


def test_group_words_reach_fused_layers() -> None:
    base = tiny.runtime("phi3").base
    names = [target_names(base, AdapterSettings(modules=(group,))) for group in ("mlp", "attention")]
    kinds = [{name.rpartition(".")[2] for name in found} for found in names]
    assert kinds == [{"gate_up_proj", "down_proj"}, {"qkv_proj", "o_proj"}]


@pytest.mark.parametrize("settings", [AdapterSettings(layers="top:9"), AdapterSettings(modules=("nonsense",))])
def test_impossible_targets(settings: AdapterSettings) -> None:
    with pytest.raises(SettingsError):
        target_names(tiny.runtime("llama").base, settings)
