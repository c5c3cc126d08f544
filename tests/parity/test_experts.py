"""Mixtures of experts in 4 bits: the same function and the same gradients as transformers' own loop over the experts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from edge import settings
from edge.errors import ModelError
from edge.memory import prediction, shape
from edge.model import base as bases
from edge.model import experts, patches
from edge.session import Runtime
from edge.store import sources
from edge.weights import checkpoint, packed, quantize
from tests import families, tiny
from tests.planned import lesson_of_experts

FAMILIES: dict[str, dict[str, Any]] = {
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen3_moe": {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 96},
    "gpt_oss": {
        "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 16,
        "layer_types": ["sliding_attention", "full_attention"], "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
    },
    "granitemoehybrid": {
        "num_local_experts": 4, "num_experts_per_tok": 2, "shared_intermediate_size": 32, "layer_types": ["attention"] * 2,
        "position_embedding_type": "rope",
    },
    "qwen3_next": {
        "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 96, "shared_expert_intermediate_size": 32,
        "layer_types": ["full_attention"] * 2,
    },
    "llama4_text": {
        "num_local_experts": 4, "num_experts_per_tok": 2, "intermediate_size_mlp": 96, "interleave_moe_layer_step": 1,
    },
}  # fmt: skip
MARKED = [family for family in FAMILIES if family != "llama4_text"]


def model(family: str, **changes: Any) -> Any:
    """A tiny model of the family, its experts computed by transformers' plain loop."""
    made = tiny.model(family, **FAMILIES[family], **changes)
    for module in made.modules():
        if hasattr(module, "config") and hasattr(module.config, "_experts_implementation"):
            module.config._experts_implementation = "eager"
    return made


def dequantised(own: Any, held: Any) -> None:
    """Gives `own` the values that `held` has in 4 bits."""
    for name, module in packed.modules(held):
        for leaf in packed.PARAMETERS:
            weight = getattr(module, leaf, None)
            if weight is not None:
                matrices = [weight.expert(i, torch.float32) for i in range(weight.shape[0])]
                getattr(own.get_submodule(name), leaf).data = torch.stack(matrices)


@pytest.mark.parametrize("family", MARKED)
def test_forward_and_gradient_are_those_of_transformers(family: str) -> None:
    own, held = model(family), model(family)
    assert packed.pack(held) > 0
    experts.use(held)
    dequantised(own, held)
    found = dict(packed.modules(held))
    assert found and all(patches.names(module) == ["packed experts"] for module in found.values())
    for name, module in found.items():
        plain: Any = own.get_submodule(name)
        torch.manual_seed(1)
        x = torch.randn(33, 64)
        chosen = torch.stack([torch.randperm(module.num_experts)[:2] for _ in range(33)])
        chosen[chosen == 1] = 0  # an expert that no token is sent to, and a token that is sent to one twice
        shares = torch.rand(33, 2)
        results = []
        for one in (plain, module):
            inputs, weights = x.clone().requires_grad_(), shares.clone().requires_grad_()
            out = one(inputs, chosen, weights)
            (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
            results.append((out.detach(), inputs.grad, weights.grad))
        for ours, theirs in zip(results[1], results[0], strict=True):
            torch.testing.assert_close(ours, theirs)
        assert float(results[0][0].abs().max()) > 0.01


def test_experts_that_get_all_tokens_are_those_of_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Llama 4's: rows of zeros stand for tokens that are sent elsewhere; their experts are not touched."""
    own, held = model("llama4_text"), model("llama4_text")
    assert packed.pack(held) == 4
    experts.use(held)
    dequantised(own, held)
    used: list[int] = []
    real = packed.Packed.expert
    monkeypatch.setattr(packed.Packed, "expert", lambda self, i, dtype: used.append(i) or real(self, i, dtype))
    for name, module in packed.modules(held):
        torch.manual_seed(1)
        x = torch.randn(4, 33, 64)
        x[1], x[0, 5:], x[3, :7] = 0, 0, 0
        results = []
        for one in (own.get_submodule(name), module):
            inputs = x.view(-1, 64).clone().requires_grad_()
            out = one(inputs)
            (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
            results.append((out.detach(), inputs.grad))
        for ours, theirs in zip(results[1], results[0], strict=True):
            torch.testing.assert_close(ours, theirs)
        assert float(results[0][0].abs().max()) > 0.001
    assert set(used) == {0, 2, 3}


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_of_the_whole_model(family: str) -> None:
    """All else unquantised: only the experts differ in how they are held."""
    own, held = model(family), model(family)
    packed.pack(held)
    dequantised(own, held)
    bases.freeze(held)
    ids = torch.arange(40)[None] * 7 % 320
    with torch.no_grad():
        ours, theirs = held(input_ids=ids, use_cache=False).logits, own(input_ids=ids, use_cache=False).logits
    assert float((ours - theirs).abs().max()) < 1e-4 * float(theirs.std())


def test_only_experts_that_were_chosen_are_dequantised(monkeypatch: pytest.MonkeyPatch) -> None:
    held = model("qwen3_moe")
    packed.pack(held)
    experts.use(held)
    (_, module), *_ = packed.modules(held)
    used: list[int] = []
    real = packed.Packed.expert
    monkeypatch.setattr(packed.Packed, "expert", lambda self, i, dtype: used.append(i) or real(self, i, dtype))
    chosen = torch.tensor([[2, 5], [5, 2], [2, 6]])  # 6 is beyond the last one: nobody
    out = module(torch.randn(3, 64), chosen, torch.ones(3, 2))
    assert set(used) == {2, 5} and out.shape == (3, 64)


def test_an_expert_has_the_bytes_of_a_linear_layer() -> None:
    """The same matrix as a layer of bitsandbytes: data, statistics and values, number for number."""
    import bitsandbytes as bnb

    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(3, 192, 80))
    held = packed.Packed.of(weight)
    for index in range(3):
        layer = checkpoint.empty_linear4bit(80, 192, False, torch.float32)
        layer.weight = bnb.nn.Params4bit(
            weight.data[index].clone(), requires_grad=False, quant_type="nf4", compress_statistics=True, module=layer
        )
        layer = layer.to("cpu")
        state = layer.weight.quant_state
        assert torch.equal(held.packed[index], layer.weight.data.view(-1))
        assert torch.equal(held.absmax[index], state.absmax) and torch.equal(held.nested_offset[index], state.offset)
        assert torch.equal(held.nested_absmax[index], state.state2.absmax)
        assert torch.equal(held.expert(index, torch.float32), bases.weight_of(layer, torch.float32))


@pytest.mark.parametrize("family", FAMILIES)
def test_almost_all_weights_are_held_in_four_bits(family: str) -> None:
    held = model(family)
    weights = {
        n: p.numel() for n, p in held.named_parameters() if p.ndim > 1 and "embed" not in n and "lm_head" not in n
    }
    quantize.quantize_in_place(held, "cpu", torch.float32)
    left = sum(packed.unheld(held).values())
    assert left < 0.1 * sum(weights.values()), packed.unheld(held)
    kept = {name for name, p in held.named_parameters() if p.dtype != torch.uint8 and p.ndim > 1}
    assert sum(count for name, count in weights.items() if name in kept) == left


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_holds_them_packed_and_gives_them_back(family: str, tmp_path: Path) -> None:
    made = model(family)
    made.save_pretrained(tmp_path / "full")
    tiny.tokenizer().save_pretrained(tmp_path / "full")
    quantize.quantize_to_folder(str(tmp_path / "full"), tmp_path / "four")
    quantize.quantize_in_place(made, "cpu", torch.float32)
    names = dict(checkpoint.read_safetensors(tmp_path / "four" / "model.safetensors"))
    assert not any(tensor.ndim == 3 and min(tensor.shape) > 1 for tensor in names.values())
    config = checkpoint.load_config(tmp_path / "four", False)
    loaded = checkpoint.load_four_bit(tmp_path / "four", config, tiny.CPU)
    theirs = made.state_dict()
    ours = loaded.state_dict()
    assert [n for n in ours if n.endswith(".packed")] and ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_a_folder_without_one_of_their_tensors_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    made = model("mixtral")
    made.save_pretrained(tmp_path / "full")
    tiny.tokenizer().save_pretrained(tmp_path / "full")
    quantize.quantize_to_folder(str(tmp_path / "full"), tmp_path / "four")
    file = tmp_path / "four" / "model.safetensors"
    state = load_file(file)
    key = next(name for name in state if name.endswith("down_proj.absmax"))
    for change, says in (
        (None, "lacks .*down_proj.absmax"),
        (state[key][:, 1:].contiguous(), "holds .*down_proj.absmax"),
    ):
        save_file({n: t for n, t in {**state, key: change}.items() if t is not None}, file)
        with pytest.raises(ModelError, match=says):
            checkpoint.load_four_bit(tmp_path / "four", checkpoint.load_config(tmp_path / "four", False), tiny.CPU)


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe", "gpt_oss", "llama4_text"])
def test_a_session_learns_on_a_mixture(family: str) -> None:
    """Adapters lie on attention and shared layers; the loss of a text that comes again falls, the base stays."""
    made = tiny.model(family, **FAMILIES[family])
    quantize.quantize_in_place(made, "cpu", torch.float32)
    chosen = settings.load("economical", tiny.WINDOW)
    runtime = Runtime(bases.from_model(made, tiny.tokenizer(), tiny.CPU, family), chosen)
    before = runtime.base.checksum()
    with runtime.session() as session:
        records = list(session.score(tiny.TEXT * 3))
        assert not any("experts" in name for name, _ in session.adapter.named_parameters())
    last = records[len(records) // 2 :]
    assert sum(r.adapter_nll for r in last) < 0.9 * sum(r.base_nll for r in last) and runtime.base.checksum() == before


@pytest.mark.parametrize("family", FAMILIES)
def test_the_plan_counts_experts_from_the_config_alone(family: str) -> None:
    """Against the tensors of a model that was made: packed bytes of the experts, weights of linear layers."""
    made = model(family)
    made.config.architectures = [type(made).__name__]
    dims = shape.from_config(json.loads(made.config.to_json_string()))
    assert dims.mixture is not None and dims.mixture.held
    counts = [
        getattr(m, leaf).numel() for _, m in packed.modules(made) for leaf in packed.PARAMETERS if hasattr(m, leaf)
    ]
    assert dims.expert_parameters == sum(counts)
    assert dims.mixture.matrix(dims.hidden) == max(counts) // dims.mixture.experts
    quantize.quantize_in_place(made, "cpu", torch.float32)
    chosen = settings.load("economical", tiny.WINDOW)
    terms = prediction.predict(chosen, dims, prediction.Machine()).phases["load"]
    held = [m for m in made.modules() if isinstance(m, packed.Packed)]
    exact = sum(t.nbytes for m in held for name, t in m.named_buffers() if not name.endswith("_map"))
    assert abs(terms["experts"] - exact) < 0.02 * exact
    held_linears = [m for m in made.modules() if isinstance(m, nn.Linear) and m.weight.dtype == torch.uint8]
    linears = sum(m.in_features * m.out_features for m in held_linears)
    if family != "qwen3_next":  # its queries are gated, which a Llama's are not
        assert dims.linear_parameters - _more(dims) == linears


def _more(dims: shape.Shape) -> int:
    """What is counted from above beside a Llama's layers: routers, and the parts of other kinds of blocks."""
    return dims.layers * sum(inputs * outputs for _, inputs, outputs in dims.more)


def test_shapes_of_models_that_are_known() -> None:
    """Sizes as their makers give them: 46.7 billion weights in all of Mixtral 8x7B, 12.9 for a token."""
    mixtral = shape.from_config({
        "model_type": "mixtral", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 32000, "num_local_experts": 8,
        "num_experts_per_tok": 2,
    })  # fmt: skip
    ends = 2 * mixtral.vocab * mixtral.hidden
    assert round((mixtral.linear_parameters + mixtral.expert_parameters + ends) / 1e9, 1) == 46.7
    assert round((mixtral.active_parameters + ends) / 1e9, 1) == 12.9
    dense = shape.from_config({
        "model_type": "qwen3_moe", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4,
        "num_attention_heads": 4, "vocab_size": 320, "num_experts": 8, "num_experts_per_tok": 2,
        "moe_intermediate_size": 32, "mlp_only_layers": [0],
    })  # fmt: skip
    assert dense.expert_parameters == 3 * 8 * 3 * 64 * 32
    assert dense.linear_parameters - _more(dense) == 4 * 4 * 64 * 64 + 3 * 64 * 128


def test_experts_that_cannot_be_held_are_counted_whole_and_named() -> None:
    """A family whose experts transformers does not mark: the plan says so, with their full size."""
    config = {
        "model_type": "unmarked", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "vocab_size": 320, "num_local_experts": 4, "num_experts_per_tok": 1,
    }  # fmt: skip
    dims = shape.from_config(config)
    assert dims.mixture is not None and not dims.mixture.held
    chosen = settings.load("economical", tiny.WINDOW)
    terms = prediction.predict(chosen, dims, prediction.Machine()).phases["load"]
    assert terms["experts, which cannot be held in 4 bits"] == 4 * dims.expert_parameters


def test_what_cannot_be_held_is_said_before_weights_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A family whose experts are not marked, as another version of transformers may have it: one line with the size."""
    made = model("mixtral")
    made.save_pretrained(tmp_path / "full")
    tiny.tokenizer().save_pretrained(tmp_path / "full")
    whole = sum(p.numel() for n, p in made.named_parameters() if n.endswith(packed.PARAMETERS))
    monkeypatch.setattr(checkpoint, "load_pretrained", lambda *args, **options: pytest.fail("weights were read"))
    quantize.quantize_to_folder(str(tmp_path / "full"), tmp_path / "four")
    assert "cannot be held" not in capsys.readouterr().err
    monkeypatch.setattr(packed, "modules", lambda model: iter(()))
    with pytest.raises(pytest.fail.Exception):
        quantize.quantize_to_folder(str(tmp_path / "full"), tmp_path / "other")
    how, said = capsys.readouterr().err.strip().splitlines()
    assert "is loaded whole (the experts of a mixtral model cannot be held in 4 bits)" in how
    router = 2 * 4 * 64
    assert f"full: {2 * (whole + router) / 1e3:.0f} kB" in said
    assert "MixtralExperts.gate_up_proj" in said and "cannot be held in 4 bits" in said


def test_learning_takes_no_more_memory_than_is_planned(tmp_path: Path) -> None:
    """In a process of its own, beyond what the libraries take: every expert gets another number of tokens, for which
    oneDNN makes a kernel anew."""
    measured, predicted = lesson_of_experts(tmp_path, "adapter.rank=16", "learn.epochs=1")
    assert measured <= predicted <= 1.6 * measured, predicted / measured


def test_what_files_hold_beyond_what_their_config_speaks_of_is_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a family that names its experts as no other does, the plan would not know them."""
    path = tiny.folder(tmp_path / "full", "ernie4_5_moe", **families.LANGUAGE["ernie4_5_moe"])
    monkeypatch.setattr(shape, "_HEADERS", 10_000)
    known = shape.read(sources.resolve(str(path)))
    assert known.mixture is not None and known.mixture.experts == 4 and known.mixture.shared == 32
    config = json.loads((path / "config.json").read_text())
    config = {name: value for name, value in config.items() if name != "moe_num_experts"}
    (path / "config.json").write_text(json.dumps(config | {"moe_experts_of_a_new_name": 4}))
    found = shape.read(sources.resolve(str(path)))
    assert found.mixture is None
    counted = [one.linear_parameters + one.expert_parameters + one.whole for one in (found, known)]
    assert 0.9 * counted[1] < counted[0]
    assert found.whole > 4_000 > known.whole
