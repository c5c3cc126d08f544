"""Adapters on the experts of a mixture in 4 bits, against peft's own on the dequantised full-precision parameters."""

from __future__ import annotations

import dataclasses
import json
import warnings
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from edge import cli, settings
from edge.errors import ModelError, SettingsError
from edge.learning import learner
from edge.memory import shape
from edge.memory.lasting import adapter_parameters
from edge.model import base as bases
from edge.model import patches
from edge.model.adapter import Adapter
from edge.session import Runtime, Session
from edge.settings import AdapterSettings
from edge.weights import adapterfolder, packed, peftexperts, quantize
from edge.weights.adapterfolder import Kept
from tests import tiny
from tests.parity.test_experts import FAMILIES, dequantised, model
from tests.planned import lesson_of_experts

IDS = torch.arange(40)[None] * 7 % 320
RANK = 3
ONLY = AdapterSettings(rank=RANK, alpha=6.0, modules=("experts",))
EVERY = AdapterSettings(rank=RANK, alpha=6.0, modules=("attention", "mlp", "experts"))
WITH = "adapter.modules=[attention,mlp,experts]"
PAIR = ("lora_A", "lora_B")


def held_base(family: str, *, four_bit: bool = True, dtype: torch.dtype = torch.float32) -> tuple[Any, bases.Base]:
    """transformers' model of a family, and a base with the same numbers; its experts in 4 bits, all else as it is."""
    own, held = model(family), model(family)
    if four_bit:
        packed.pack(held)
        dequantised(own, held)
    own.to(dtype)
    held.to(dtype)
    for module in held.modules():
        if isinstance(module, packed.Packed):  # what they are made of stays in float32
            for part in ("nested_absmax", "nested_offset", "quant_map", "nested_quant_map"):
                setattr(module, part, getattr(module, part).float())
    return own, bases.from_model(held, tiny.tokenizer(), tiny.CPU, family)


@torch.no_grad()
def shake(adapter: Adapter, seed: int = 5) -> None:
    """B as if it had learned."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in adapter.named_parameters():
        if name.endswith("lora_B"):
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    adapter.version += 1


def with_peft(own: Any, adapter: Adapter) -> Any:
    """The model with peft's own wrappers, which hold the adapter's numbers."""
    names = packed.names(own)
    config = peft.LoraConfig(r=RANK, lora_alpha=6.0, target_modules=[], target_parameters=names)
    wrapped = peft.get_peft_model(own, config)
    values = dict(adapter.named_parameters())
    theirs = dict(wrapped.named_parameters())
    for place, name in zip(peftexperts.places(names), names, strict=True):
        pair = [values[f"{name}.{part}"].detach() for part in PAIR]
        both = peftexperts.to_peft(*pair, swapped=packed.are_swapped(own))
        for part, tensor in zip(PAIR, both, strict=True):
            theirs[f"base_model.model.{place.holder}.{part}.default.weight"].data.copy_(tensor)
    return wrapped


def gradients_of_peft(wrapped: Any, names: list[str], *, swapped: bool) -> dict[str, Tensor]:
    """Under our names, in our layout."""
    theirs = dict(wrapped.named_parameters())
    found = {}
    for place, name in zip(peftexperts.places(names), names, strict=True):
        pair = [theirs[f"base_model.model.{place.holder}.{part}.default.weight"].grad for part in PAIR]
        ours = peftexperts.from_peft(*pair, RANK, swapped=swapped)
        found |= {f"{name}.{part}": tensor for part, tensor in zip(PAIR, ours, strict=True)}
    return found


def loss(logits: Tensor) -> Tensor:
    return (logits * torch.linspace(-1, 1, logits.numel()).view_as(logits)).sum()


def logits_of(run: Any, adapter: Adapter | None = None) -> Tensor:
    """(S, V) of a model without gradients."""
    with torch.no_grad():
        if adapter is None:
            return run(input_ids=IDS, use_cache=False).logits[0]
        with adapter.active():
            return run(input_ids=IDS, use_cache=False).logits[0]


@pytest.mark.parametrize("four_bit", [True, False], ids=["nf4", "full"])
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_and_gradients_are_those_of_peft(family: str, four_bit: bool) -> None:
    """The whole model: matrices (out, in) and (in, out), biases, and experts that get all tokens each. Off, it is the
    base, bit for bit; and so it is when the adapter is gone."""
    own, base = held_base(family, four_bit=four_bit)
    names = packed.names(own)
    before = logits_of(base.model)
    found = [module for _, module in packed.modules(base.model)]
    patched = [patches.names(module) for module in found]
    adapter = Adapter(base, ONLY, seed=3)
    assert [name for name, _ in adapter.named_parameters()] == [f"{name}.{part}" for name in names for part in PAIR]
    fresh = logits_of(base.model, adapter)
    assert torch.equal(fresh, before) if four_bit else torch.allclose(fresh, before, atol=1e-4)
    shake(adapter)
    with adapter.active():
        ours = base.model(input_ids=IDS, use_cache=False).logits[0]
        loss(ours).backward()
    wrapped = with_peft(own, adapter)
    theirs = wrapped(input_ids=IDS, use_cache=False).logits[0]
    loss(theirs).backward()
    ours, theirs = ours.detach(), theirs.detach()
    assert float((ours - theirs).abs().max()) < 1e-4 * float(theirs.std())
    assert float((ours - before).abs().max()) > 0.05 * float(before.std())
    grads = gradients_of_peft(wrapped, names, swapped=packed.are_swapped(base.model))
    for name, parameter in adapter.named_parameters():
        assert parameter.grad is not None and parameter.dtype == torch.float32
        assert float(grads[name].norm()) > 0
        assert float((parameter.grad - grads[name]).norm() / grads[name].norm()) < 1e-3, name
    assert torch.equal(logits_of(base.model), before)
    adapter.discard()
    assert torch.equal(logits_of(base.model), before)
    assert [patches.names(module) for module in found] == patched
    assert not any(key.startswith("_templora_") and "patch" not in key and "forward" not in key
                   for module in found for key in module.__dict__)  # fmt: skip


def test_the_gradient_of_the_input_is_that_of_autograd() -> None:
    """What flows back to the layers below, through the adapter too; with dropout, in the same order of random numbers.
    An expert that nobody is sent to has no gradient."""
    own, base = held_base("mixtral")
    adapter = Adapter(base, AdapterSettings(rank=RANK, alpha=6.0, dropout=0.5, modules=("experts",)))
    shake(adapter)
    (name, module), *_ = packed.modules(base.model)
    plain: Any = own.get_submodule(name)
    held = {key.removeprefix(f"{name}."): value for key, value in adapter.named_parameters() if key.startswith(name)}
    chosen = torch.tensor([[0, 2], [2, 3], [0, 3], [3, 3]])
    shares = torch.rand(4, 2, generator=torch.Generator().manual_seed(1))
    x = torch.randn(4, 64, generator=torch.Generator().manual_seed(2))

    def through(rows: Tensor, leaf: str, index: int, thin: float) -> Tensor:
        low = F.dropout(rows, thin, training=thin > 0) @ copies[f"{leaf}.lora_A"][index].T
        return rows @ getattr(plain, leaf)[index].T + low @ copies[f"{leaf}.lora_B"][index].T * 2.0

    for thin in (0.0, 0.5):
        copies = {key: value.detach().clone().requires_grad_() for key, value in held.items()}
        expected_x = x.clone().requires_grad_()
        torch.manual_seed(7)
        expected = torch.zeros(4, 64)
        for index in (0, 2, 3):
            tokens, places = torch.where(chosen == index)
            made = through(expected_x[tokens], "gate_up_proj", index, thin)
            gate, up = made.chunk(2, dim=-1)
            made = through(F.silu(gate) * up, "down_proj", index, thin)
            expected = expected.index_add(0, tokens, made * shares[tokens, places, None])
        loss(expected).backward()
        ours_x = x.clone().requires_grad_()
        for parameter in adapter.parameters():
            parameter.grad = None
        torch.manual_seed(7)
        with adapter.active(training=thin > 0):
            ours = module(ours_x, chosen, shares)
            loss(ours).backward()
        torch.testing.assert_close(ours, expected)
        torch.testing.assert_close(ours_x.grad, expected_x.grad)
        for key, value in held.items():
            assert value.grad is not None and not value.grad[1].any() and bool(value.grad[2].any())
            torch.testing.assert_close(value.grad, copies[key].grad)


def test_in_two_bytes_gradients_err_no_more_than_those_of_peft() -> None:
    """Sums over tokens are float32, whatever the products are: the distance from float32 is peft's own at most."""
    own, base = held_base("mixtral")
    names = packed.names(own)
    adapter = Adapter(base, ONLY, seed=3)
    shake(adapter)
    wrapped = with_peft(own, adapter)
    loss(wrapped(input_ids=IDS, use_cache=False).logits[0]).backward()
    exact = gradients_of_peft(wrapped, names, swapped=False)
    narrow_own, narrow = held_base("mixtral", dtype=torch.bfloat16)
    other = Adapter(narrow, ONLY, seed=3)
    shake(other)
    with other.active():
        loss(narrow.model(input_ids=IDS, use_cache=False).logits[0].float()).backward()
    wrapped = with_peft(narrow_own, other)
    loss(wrapped(input_ids=IDS, use_cache=False).logits[0].float()).backward()
    theirs = gradients_of_peft(wrapped, names, swapped=False)
    errors = [0.0, 0.0]
    for name, parameter in other.named_parameters():
        assert parameter.grad is not None and parameter.grad.dtype == torch.float32
        for at, grad in enumerate((parameter.grad, theirs[name].float())):
            errors[at] += float((grad - exact[name]).norm() / exact[name].norm())
    assert 0 < errors[0] < 1.2 * errors[1], errors


def test_no_dequantised_matrix_is_kept_for_the_backward_pass() -> None:
    """What autograd saves of an expert: rows and their low products, nothing of the size of a matrix."""
    _, base = held_base("mixtral")
    adapter = Adapter(base, ONLY)
    (_, module), *_ = packed.modules(base.model)
    saved: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    x = torch.randn(5, 64, requires_grad=True)
    chosen = torch.tensor([[0, 1]] * 5)
    with adapter.active(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        module(x, chosen, torch.ones(5, 2)).sum().backward()
    assert saved and max(tensor.numel() for tensor in saved) <= 5 * 256
    assert any(tensor.shape == (5, RANK) for tensor in saved)


# --- sessions ---


def runtime_of(family: str, *overrides: str) -> Runtime:
    made = tiny.model(family, **FAMILIES[family])
    quantize.quantize_in_place(made, "cpu", torch.float32)
    chosen = settings.load("economical", [*tiny.WINDOW, *overrides])
    return Runtime(bases.from_model(made, tiny.tokenizer(), tiny.CPU, family), chosen)


def scored(runtime: Runtime, text: str = tiny.TEXT * 2) -> tuple[float, float, dict[str, Tensor]]:
    """Nats of the second half with adapter and base, and the adapter."""
    with runtime.session() as session:
        records = list(session.score(text))
        adapter = session.adapter.snapshot()
    last = records[len(records) // 2 :]
    return sum(r.adapter_nll for r in last), sum(r.base_nll for r in last), adapter


@pytest.mark.parametrize("family", ["mixtral", "gpt_oss", "llama4_text"])
def test_experts_that_learn_lower_the_loss_further(family: str) -> None:
    without = runtime_of(family)
    mine, base, _ = scored(without)
    runtime = runtime_of(family, WITH)
    before = runtime.base.checksum()
    more, same, adapter = scored(runtime)
    assert same == base and more < mine < base
    assert runtime.base.checksum() == before == without.base.checksum()
    learned = [tensor for name, tensor in adapter.items() if ".experts." in name and name.endswith("lora_B")]
    assert learned and all(bool(tensor.any()) for tensor in learned)


@pytest.mark.parametrize(
    "options", [(), ("adapter.dropout=0.1", "learn.prefix=cached"), ("learn.optimizer=adamw8bit",)]
)
def test_what_goes_on_has_the_same_bits(options: tuple[str, ...]) -> None:
    runtime = runtime_of("qwen3_moe", WITH, *options)
    ids = runtime.base.encode(tiny.TEXT)

    def state(session: Session) -> dict[str, Tensor]:
        return {name: tensor.clone() for name, tensor in session.tensors()}

    with runtime.session() as session:
        chunks = session.score_ids(ids)
        for _ in range(3):
            next(chunks)
        saved = state(session)
        list(chunks)
        end, sum_of_all = state(session), session.adapter.fingerprint()
    assert any(".experts." in name for name in saved)
    with runtime.session() as again:
        again.restore(saved)
        list(again.score_ids(ids[again.position :]))
        other = state(again)
        assert again.adapter.fingerprint() == sum_of_all
    assert other.keys() == end.keys() and all(torch.equal(other[name], tensor) for name, tensor in end.items())


def test_paging_and_recomputing_change_nothing() -> None:
    _, _, plain = scored(runtime_of("mixtral", WITH, "compute.checkpointing=off"), tiny.TEXT)
    paged = ["compute.paging=all", "compute.checkpointing=on"]
    _, _, other = scored(runtime_of("mixtral", WITH, *paged), tiny.TEXT)
    assert plain.keys() == other.keys() and all(torch.equal(other[name], tensor) for name, tensor in plain.items())


def test_a_lesson_that_is_undone_and_a_dropped_adapter_leave_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learner, "MAX_RISE", 0.5)  # what does not halve the loss at once is undone
    runtime = runtime_of("mixtral", WITH, "learn.epochs=2")
    with runtime.session() as session:
        before = session.adapter.fingerprint()
        learned, _ = session.learner.learn(torch.arange(64), 24)
        assert not learned.kept and session.adapter.fingerprint() == before
        shake(session.adapter)
        session.learner.start_anew()
        assert session.adapter.fingerprint() == before


def test_shallow_lessons_leave_the_lower_experts_alone() -> None:
    runtime = runtime_of("mixtral", WITH)
    with runtime.session() as session:
        with session.torch_forward.learning(shallow=True):
            mean, _ = session.torch_forward.loss(torch.arange(64), 24)
            mean.backward()
        for name, parameter in session.adapter.named_parameters():
            assert (parameter.grad is None) == (".layers.0." in name), name


# --- plans ---


@pytest.mark.parametrize("family", FAMILIES)
def test_the_plan_counts_their_numbers_from_the_config_alone(family: str) -> None:
    made = model(family)
    dims = shape.from_config(json.loads(made.config.to_json_string()))
    chosen = settings.load("economical", [*tiny.WINDOW, "adapter.modules=[experts]"])
    _, base = held_base(family)
    for layers in ("all", "top:1"):
        one = chosen.override([f"adapter.layers={layers}"])
        adapter = Adapter(base, one.adapter)
        largest = max(parameter.numel() for parameter in adapter.parameters())
        assert adapter_parameters(one, dims) == (adapter.num_parameters, largest)
        adapter.discard()


def test_learning_takes_no_more_memory_than_is_planned(tmp_path: Path) -> None:
    """In a process of its own. The adapter is most of what it holds: parameters, gradients, moments, the guard's copy."""
    measured, predicted = lesson_of_experts(tmp_path, WITH, "adapter.rank=128", "learn.epochs=2")
    assert measured <= predicted <= 1.15 * measured, predicted / measured


# --- peft's folders ---


def kept_of(adapter: Adapter, base: bases.Base, folder: Path) -> Kept:
    chosen = adapter.settings
    tensors = {name: tensor.clone() for name, tensor in adapter.tensors()}
    swapped = packed.are_swapped(base.model)
    return Kept(folder, tensors, chosen.rank, chosen.alpha / chosen.rank, mixture=True, swapped=swapped)


@pytest.mark.parametrize(
    ("family", "modules"), [*((family, EVERY.modules) for family in FAMILIES), ("qwen3_next", ()), ("llama4_text", ())]
)
def test_a_folder_that_peft_reads_and_that_comes_back(family: str, modules: tuple[str, ...], tmp_path: Path) -> None:
    """Plain peft on the full-precision model gives the same logits; what is read again is what was written. A shared
    expert's layers, which are called as experts were in older checkpoints, are not taken for those."""
    own, base = held_base(family)
    adapter = Adapter(base, dataclasses.replace(EVERY, modules=modules), seed=3)
    shake(adapter)
    kept = kept_of(adapter, base, tmp_path)
    adapterfolder.write(tmp_path / "out", kept, family)
    plain = logits_of(own)
    ours = logits_of(base.model, adapter)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*missing.*")
        theirs = logits_of(peft.PeftModel.from_pretrained(own, str(tmp_path / "out")))
    assert float((ours - theirs).abs().max()) < 1e-4 * float(theirs.std())
    assert float((plain - theirs).abs().max()) > 0.05 * float(theirs.std())
    back = adapterfolder.read(tmp_path / "out", swapped=packed.are_swapped(base.model))
    assert set(back.tensors) == set(kept.tensors) and (back.rank, back.scale) == (kept.rank, kept.scale)
    assert all(torch.equal(back.tensors[name], tensor) for name, tensor in kept.tensors.items())


def test_a_folder_of_peft_own_making_is_read(tmp_path: Path) -> None:
    """Its targets may be the ends of names."""
    own, base = held_base("qwen3_moe")
    parameters = ["experts.gate_up_proj", "experts.down_proj"]
    config = peft.LoraConfig(r=RANK, lora_alpha=6.0, target_modules=["q_proj"], target_parameters=parameters)
    torch.manual_seed(0)
    wrapped = peft.get_peft_model(own, config)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    wrapped.save_pretrained(tmp_path)
    adapter = Adapter(base, AdapterSettings(rank=RANK, alpha=6.0, modules=("q_proj", "experts")))
    kept = adapterfolder.read(tmp_path)
    assert set(kept.tensors) == {name for name, _ in adapter.named_parameters()}
    adapter.restore(kept.tensors)
    theirs = logits_of(wrapped)
    assert float((logits_of(base.model, adapter) - theirs).abs().max()) < 1e-4 * float(theirs.std())


def test_folders_of_something_else_are_refused(tmp_path: Path) -> None:
    _, base = held_base("mixtral")
    adapter = Adapter(base, ONLY)
    adapterfolder.write(tmp_path, kept_of(adapter, base, tmp_path), "mixtral")
    path = tmp_path / adapterfolder.CONFIG
    config = json.loads(path.read_text())

    def changed(**values: Any) -> None:
        path.write_text(json.dumps({**config, **values}))

    for targets in (["lm_head.bias"], ["model.layers.7.mlp.experts.up_proj"], "experts", [3]):
        changed(target_parameters=targets)
        with pytest.raises(ModelError, match=r"target_parameters|lora_A"):
            dict(adapterfolder.read(tmp_path).tensors.items())
    changed(r=5)
    kept = adapterfolder.read(tmp_path)
    with pytest.raises(ModelError, match="rank 5 for each expert"):
        kept.tensors["model.layers.0.mlp.experts.down_proj.lora_A"]


# --- refusals ---


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["adapter.modules=[experts]"], "a llama model has none; expected a mixture of experts; leave 'experts' out"),
        (["adapter.modules=[expert]"], "adapter.modules names 'expert'"),
    ],
)
def test_a_model_without_experts_is_refused_in_one_line(
    options: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny.folder(tmp_path / "llama")
    text = tmp_path / "text.txt"
    text.write_text(tiny.TEXT, "utf-8")
    sets = [word for option in (*tiny.WINDOW, *options) for word in ("--set", option)]
    assert cli.main(["score", str(text), "--model", str(folder), "--no-run", *sets]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("error: ") and says in lines[-1]


def test_what_no_adapter_on_experts_can_be_is_refused() -> None:
    for options, says in (
        (["forward=onnx"], "a graph carries no adapter on experts; expected forward=torch"),
        (["forward=mixed"], "forward is 'mixed'"),
    ):
        with pytest.raises(SettingsError, match=says):
            runtime_of("mixtral", WITH, *options)
    _, base = held_base("llama4_text")
    base.reference = "scout"
    with pytest.raises(SettingsError, match="at most top:2"):
        Adapter(base, AdapterSettings(modules=("experts",), layers="top:3"))
    runtime = tiny.runtime("llama")
    with pytest.raises(SettingsError, match="llama has none that an adapter can lie on"):
        Adapter(runtime.base, ONLY)
    mixed = tiny.model("qwen3_moe", **FAMILIES["qwen3_moe"], mlp_only_layers=[1])
    base = bases.from_model(mixed, tiny.tokenizer(), tiny.CPU, "dense at the top")
    with pytest.raises(SettingsError, match=r"adapter.layers=top:1 holds none of experts"):
        Adapter(base, AdapterSettings(modules=("experts",), layers="top:1"))


def test_without_being_named_experts_are_left_alone() -> None:
    with runtime_of("mixtral").session() as session:
        assert not session.adapter.experts.names
        assert not any(".experts." in name for name, _ in session.adapter.named_parameters())
