"""The ONNX forward path against a plain transformers model in float64, no further from it than the torch path is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor

import edge
from edge.memory.graph import ROOM, RUN, sliding_room
from edge.model.adapter import Adapter
from edge.model.base import Base, weight_of
from edge.model.forward import Cache, TorchForward
from edge.settings import AdapterSettings, ComputeSettings
from edge.weights import quantize
from edge.weights.paging import MemoryStore
from export import check, exporter, nf4
from export.engine import Engine
from export.manifest import lora_inputs
from export.runtime import OnnxForward
from tests import tiny

EXACT = [(name, precision) for name in tiny.ARCHITECTURES for precision in ("fp32", "nf4")]
FACTOR = 4  # rounding may fall otherwise than in the torch path, not be of another size
IDS = torch.randint(2, 320, (60,), generator=torch.Generator().manual_seed(3))


class Case:
    """A base, its graph, and both forward paths on one adapter."""

    def __init__(self, folder: Path, architecture: str, precision: str, **changes: Any) -> None:
        self.base: Base = tiny.runtime(architecture, nf4=precision != "fp32", **changes).base
        self.changes = {"architecture": architecture, **changes}
        exporter.export(self.base, folder, precision)
        self.engine = Engine(folder)
        self.adapter = Adapter(self.base, AdapterSettings(rank=3, alpha=6.0))
        self.torch = TorchForward(self.base, self.adapter, ComputeSettings(loss_slice=16))
        self.onnx = OnnxForward(self.engine, self.adapter, slice_size=16)

    @torch.no_grad()
    def shake(self, seed: int) -> None:
        """Another adapter, as an update would leave it."""
        generator = torch.Generator().manual_seed(seed)
        for _, parameter in self.adapter.named_parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
        self.adapter.version += 1

    @torch.no_grad()
    def reference(self, ids: Tensor, *, adapter: bool) -> Tensor:
        """(S, V) logits of the same weights, the adapter merged into them, by transformers in float64."""
        plain = tiny.model(**self.changes).double()
        plain.set_attn_implementation("eager")
        mine = dict(plain.named_modules())
        for name, layer in self.base.linears():
            name = name.removesuffix(".base_layer")
            weight = weight_of(layer, torch.float32).double()
            if adapter:
                held = self.adapter.layers[name]
                a, b = (getattr(held, side)[self.adapter.name].weight.double() for side in ("lora_A", "lora_B"))
                weight = weight + 2.0 * self.adapter.strength * (b @ a)
            mine[name].weight.copy_(weight)
        return plain(input_ids=ids[None], use_cache=False).logits[0]


@pytest.fixture(scope="module", params=EXACT, ids=lambda p: "-".join(p))
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    architecture, precision = request.param
    return Case(tmp_path_factory.mktemp("onnx") / "graph", architecture, precision)


def _in_pieces(forward: Any, *, adapter: bool) -> Tensor:
    """(5, V): after a prompt, and after each of four more tokens."""
    logits, cache = forward.prefill(IDS[:40], adapter=adapter)
    return torch.stack([logits, *(forward.decode(int(t), cache, adapter=adapter) for t in IDS[40:44])])


def test_prefill_and_decode_with_adapters_in_turn(case: Case) -> None:
    seen = []
    for seed in (1, 2, None, 1):
        if seed is not None:
            case.shake(seed)
        exact = case.reference(IDS[:44], adapter=seed is not None)[39:]
        allowed = (_in_pieces(case.torch, adapter=seed is not None) - exact).abs().max() * FACTOR
        found = _in_pieces(case.onnx, adapter=seed is not None)
        assert (found - exact).abs().max() <= allowed
        seen.append(found)
    assert torch.equal(seen[0], seen[3])
    assert all((seen[i] - seen[j]).abs().max() > 0.01 for i, j in ((0, 1), (0, 2), (1, 2)))


def test_a_graph_reads_so_much_of_the_adapter_as_is_used(case: Case) -> None:
    case.shake(1)
    whole = _in_pieces(case.onnx, adapter=True)
    case.adapter.strength = 0.5
    try:
        exact = case.reference(IDS[:44], adapter=True)[39:]
        allowed = (_in_pieces(case.torch, adapter=True) - exact).abs().max() * FACTOR
        half = _in_pieces(case.onnx, adapter=True)
        assert (half - exact).abs().max() <= allowed and (half - whole).abs().max() > 0.01
    finally:
        case.adapter.strength = 1.0
    assert torch.equal(_in_pieces(case.onnx, adapter=True), whole)


def test_a_prompt_in_chunks_is_the_prompt_at_once(case: Case) -> None:
    case.shake(1)
    exact = case.reference(IDS, adapter=True)
    allowed = (case.torch.prefill(IDS)[0] - exact[-1]).abs().max() * FACTOR
    cache = Cache(case.engine.buffers(0))
    for end, piece in ((25, IDS[:25]), (26, IDS[25:26]), (60, IDS[26:])):
        assert (case.onnx.extend(piece, cache) - exact[end - 1]).abs().max() <= allowed
    assert cache.length == len(IDS)


def test_nats(case: Case) -> None:
    for adapter in (True, False):
        case.shake(4)
        logits = case.reference(IDS, adapter=adapter)
        exact = torch.nn.functional.cross_entropy(logits[18:-1], IDS[19:], reduction="none")
        allowed = (case.torch.nll(IDS, 41, adapter=adapter) - exact).abs().max() * FACTOR
        found = case.onnx.nll(IDS, 41, adapter=adapter)
        assert found.dtype == torch.float32
        assert (found - exact).abs().max() <= allowed


def test_every_lora_input_changes_the_logits(case: Case) -> None:
    case.shake(5)
    whole = case.onnx.prefill(IDS[:20])[0]
    for layer in case.engine.manifest.lora:
        for name in lora_inputs(layer):
            held = case.onnx._copies[name]
            kept = held.numpy().copy()
            held.update_inplace(kept * 1.5)
            assert (case.onnx.prefill(IDS[:20])[0] - whole).abs().max() > 1e-5, name
            held.update_inplace(kept)
    assert torch.equal(case.onnx.prefill(IDS[:20])[0], whole)


@torch.inference_mode()
def _side_by_side(forward: Any, prefix: Tensor, tails: list[Tensor], steps: list[int]) -> list[Tensor]:
    """Of each text, (steps, V): after `steps` of its last tokens, all of them read side by side after one prefix."""
    _, cache = forward.prefill(prefix)
    lines = forward.lines(cache, len(tails), max(map(len, tails)))
    for line, tail, count in zip(lines, tails, steps, strict=True):
        forward.extend(tail[: len(tail) - count], line)
    found: list[list[Tensor]] = [[] for _ in tails]
    for step in range(max(steps)):
        rows = [number for number, count in enumerate(steps) if step < count]
        assert rows == list(range(len(rows)))  # the longest first
        tokens = [int(tails[row][len(tails[row]) - steps[row] + step]) for row in rows]
        for row, logits in zip(rows, forward.decode_lines(tokens, lines).clone(), strict=True):
            found[row].append(logits)
    return [torch.stack(rows) for rows in found]


def test_texts_side_by_side_are_the_texts_one_by_one(case: Case) -> None:
    case.shake(11)
    prefix, tails, steps = IDS[:20], [IDS[20:34], IDS[5:13], IDS[30:46]], [9, 6, 4]
    found = _side_by_side(case.onnx, prefix, tails, steps)
    for rows, tail, count in zip(found, tails, steps, strict=True):
        whole = torch.cat([prefix, tail])
        exact = case.reference(whole, adapter=True)[-count:]
        alone = case.torch.prefill(whole[:-count])[1]
        theirs = torch.stack([case.torch.decode(int(token), alone).clone() for token in whole[-count:]])
        assert (rows - exact).abs().max() <= FACTOR * (theirs - exact).abs().max()


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(tmp_path_factory.mktemp("onnx") / "graph", "gemma3_text", "nf4")


def test_texts_side_by_side_leave_their_sliding_windows(gemma: Case) -> None:
    gemma.shake(12)
    limit = sliding_room(gemma.engine.manifest.window)
    ids = torch.randint(2, 320, (2 * limit + 40,), generator=torch.Generator().manual_seed(13))
    prefix, tails, steps = ids[: limit - 6], [ids[limit : limit + 20], ids[-7:]], [12, 3]
    found = _side_by_side(gemma.onnx, prefix, tails, steps)
    for rows, tail, count in zip(found, tails, steps, strict=True):
        whole = torch.cat([prefix, tail])
        exact = gemma.reference(whole, adapter=True)[-count:]
        error = (gemma.torch.prefill(whole)[0] - exact[-1]).abs().max()
        assert (rows - exact).abs().max() <= FACTOR * error


def test_a_cache_grows_beyond_its_room(gemma: Case) -> None:
    gemma.shake(6)
    ids = torch.randint(2, 320, (ROOM + 9,), generator=torch.Generator().manual_seed(7))
    _, cache = gemma.onnx.prefill(ids[:-12])
    for token in ids[-12:]:
        last = gemma.onnx.decode(int(token), cache)
    assert cache.state.capacity == 2 * ROOM
    exact = gemma.reference(ids, adapter=True)[-1]
    assert (last - exact).abs().max() <= (gemma.torch.prefill(ids)[0] - exact).abs().max() * FACTOR


LONG = torch.randint(2, 320, (700,), generator=torch.Generator().manual_seed(8))


@pytest.mark.parametrize("architecture", ["gemma3_text", "mistral"])
def test_layers_with_a_window_forget_what_they_no_longer_see(architecture: str, tmp_path: Path) -> None:
    case = Case(tmp_path / "graph", architecture, "nf4", max_position_embeddings=1024, sliding_window=32)
    case.shake(6)
    manifest = case.engine.manifest
    room = sliding_room(manifest.window)
    assert manifest.sliding and room < len(LONG)
    logits = case.reference(LONG, adapter=True)
    exact = torch.nn.functional.cross_entropy(logits[:-1], LONG[1:], reduction="none")
    allowed = (case.torch.nll(LONG, 699) - exact).abs().max() * FACTOR
    assert (case.onnx.nll(LONG, 699) - exact).abs().max() <= allowed
    first, cache = case.onnx.prefill(LONG[:500])
    found = [first, *(case.onnx.decode(int(token), cache) for token in LONG[500:530])]
    allowed = (case.torch.prefill(LONG[:530])[0] - logits[529]).abs().max() * FACTOR
    assert (torch.stack(found) - logits[499:530]).abs().max() <= allowed
    rows = {
        array.shape[2]
        for name, array in cache.state.arrays(cache.length)
        if int(name.split(".")[1]) in manifest.sliding
    }
    assert rows == {cache.state.sliding} and cache.state.sliding < room


def test_a_cache_goes_back_bit_for_bit(gemma: Case) -> None:
    """To its mark over rows that were dropped since, and to any length where none were."""
    gemma.shake(6)
    _, cache = gemma.onnx.prefill(LONG[:505])
    gemma.onnx.mark(cache)
    tries = []
    for end in (509, 620, 509):  # the second try makes layers with a window drop rows; the third must not notice
        tries.append(torch.stack([gemma.onnx.decode(int(token), cache) for token in LONG[505:end]]))
        assert gemma.onnx.rewind(cache, 505) and cache.length == 505
    assert torch.equal(tries[0], tries[2])
    assert torch.equal(tries[0], tries[1][:4])
    gemma.onnx.extend(LONG[505:507], cache)
    logits = gemma.onnx.decode(int(LONG[507]), cache)
    assert gemma.onnx.rewind(cache, 507)
    assert torch.equal(gemma.onnx.decode(int(LONG[507]), cache), logits)
    for token in LONG[508:520]:
        gemma.onnx.decode(int(token), cache)
    before = cache.length, cache.state.sliding
    assert not gemma.onnx.rewind(cache, 500)
    assert (cache.length, cache.state.sliding) == before


def test_without_windows_a_cache_goes_back_to_any_length(tmp_path: Path) -> None:
    """However much was read since: no row was dropped."""
    case = Case(tmp_path / "graph", "llama", "fp32")
    many = torch.randint(2, 320, (RUN + 60,), generator=torch.Generator().manual_seed(4))
    _, cache = case.onnx.prefill(many[:20])
    case.onnx.mark(cache)
    expected = case.onnx.decode(7, cache)
    for piece in (many[20:100], many[100:]):
        case.onnx.extend(piece, cache)
    case.onnx.decode(7, cache)
    assert case.onnx.rewind(cache, 20)
    assert torch.equal(case.onnx.decode(7, cache), expected)


def test_a_cache_is_paged_bit_for_bit(gemma: Case) -> None:
    gemma.shake(8)
    pages = MemoryStore()
    _, stayed = gemma.onnx.prefill(IDS[:30])
    _, moved = gemma.onnx.prefill(IDS[:30])
    gemma.onnx.decode(7, stayed)
    gemma.onnx.decode(7, moved)
    gemma.onnx.page_out(moved, pages)
    assert not moved.state.values
    gemma.onnx.page_in(moved, pages)
    assert torch.equal(gemma.onnx.decode(9, stayed), gemma.onnx.decode(9, moved))


def test_adapted_layers_may_have_ranks_of_their_own(gemma: Case) -> None:
    """Blocks that are not adapted take rank 0."""
    top = Adapter(gemma.base, AdapterSettings(rank=2, alpha=2.0, layers="top:1", modules=("v_proj", "down_proj")))
    try:
        with torch.no_grad():
            for parameter in top.parameters():
                parameter.fill_(0.05)
        ours = OnnxForward(gemma.engine, top)
        theirs = TorchForward(gemma.base, top, ComputeSettings(loss_slice=16))
        assert (ours.prefill(IDS)[0] - gemma.onnx.prefill(IDS, adapter=False)[0]).abs().max() > 0.01
        assert torch.allclose(ours.prefill(IDS)[0], theirs.prefill(IDS)[0], rtol=1e-4, atol=1e-4)
    finally:
        top.discard()


def test_a_head_of_its_own_with_a_cap_and_biases(tmp_path: Path) -> None:
    case = Case(tmp_path / "graph", "gemma2", "fp32", tie_word_embeddings=False, final_logit_softcapping=5.0)
    assert case.base.head.weight.data_ptr() != case.base.model.get_input_embeddings().weight.data_ptr()
    case.shake(1)
    found = case.onnx.prefill(IDS)[0]
    assert found.abs().max() <= 5
    assert torch.allclose(found, case.torch.prefill(IDS)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("precision", ["int8", "int4"])
@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_fewer_bits_stay_close(architecture: str, precision: str, tmp_path: Path) -> None:
    case = Case(tmp_path / "graph", architecture, precision)
    case.shake(1)
    exact = case.reference(IDS, adapter=True)[-1]
    gaps = (case.onnx.prefill(IDS)[0] - exact).abs() / exact.std()
    assert gaps.max() > 1e-4
    assert gaps.max() < 0.25 if precision == "int8" else gaps.square().mean().sqrt() < 0.5


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_the_graph_multiplies_with_the_weights_that_were_rounded(precision: str, tmp_path: Path) -> None:
    """Layouts, zero points and odd numbers of blocks: the rounded weights in torch give what the graph gives, but for
    its inputs, which are rounded too."""
    case = Case(tmp_path / "graph", "llama", precision, intermediate_size=160)  # five blocks a row
    for name, layer in case.base.linears():
        held = nf4.matrix_of(layer, precision, name.removesuffix(".base_layer"))
        assert isinstance(held, nf4.Int4) == (
            precision == "int4" and name.removesuffix(".base_layer").endswith(nf4.ROUNDER)
        )
        layer.dequantized = nf4.from_int4(held) if isinstance(held, nf4.Int4) else nf4.from_int8(held)  # type: ignore[arg-type]
    rounded = case.torch.prefill(IDS, adapter=False)[0]
    gap = (case.onnx.prefill(IDS, adapter=False)[0] - rounded).square().mean().sqrt() / rounded.std()
    assert gap < 0.02


def test_four_bit_weights_are_off_by_half_a_step_and_zero_is_zero() -> None:
    weight = torch.randn(24, 96, generator=torch.Generator().manual_seed(0))
    weight[3] = 0
    weight[4] = weight[4].abs()
    weight[5, :7] = 0
    held = nf4.to_int4(weight)
    step = held.scales.repeat_interleave(held.block, 1)
    found = nf4.from_int4(held)
    assert ((found - weight).abs() <= step * 1.001).all()  # half for the weight, half for the zero point
    assert (found - weight).abs().mean() < 0.3 * step.mean()
    assert (found[weight == 0] == 0).all()
    assert (held.rows, held.columns, held.zeros.shape[1]) == (24, 96, 2)


@pytest.mark.parametrize("wide", [0.01, -1.0])
def test_wide_blocks_are_given_up_where_they_cost_too_much(
    wide: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "WIDE", wide if wide < 0 else 9.0)
    base = tiny.runtime("llama", nf4=True, hidden_size=128, intermediate_size=256).base
    exporter.export(base, tmp_path / "graph", "int8")
    nodes = onnx.load(tmp_path / "graph" / "decoder.onnx", load_external_data=False).graph.node
    blocks = {a.i for node in nodes if node.op_type == "MatMulNBits" for a in node.attribute if a.name == "block_size"}
    assert (128 in blocks) == (wide > 0)  # but where a row is no whole number of them


def test_attention_in_half_precision_for_gpus(tmp_path: Path) -> None:
    base = tiny.runtime("gemma3_text").base
    made = exporter.export(base, tmp_path / "graph", device="cuda")
    assert made.cache == "float16"
    assert 1e-5 < made.parity["adapter"] < 5e-3  # the CPU runs it too


def test_eight_bit_weights_are_off_by_half_a_step() -> None:
    weight = torch.randn(24, 96, generator=torch.Generator().manual_seed(0))
    weight[3] = 0
    held = nf4.to_int8(weight)
    step = held.scales.repeat_interleave(held.block, 1)
    assert ((nf4.from_int8(held) - weight).abs() <= step * 0.5001).all()
    assert (held.rows, held.columns) == (24, 96)


def test_nf4_is_bit_for_bit_bitsandbytes() -> None:
    base = tiny.runtime("llama").base
    for _, layer in base.linears():
        packed = nf4.unpack(layer)
        assert packed.codes.data_ptr() == layer.weight.data_ptr()  # no copy
        assert torch.equal(nf4.dequantize(packed), weight_of(layer, torch.float32))


@pytest.mark.parametrize("precision", ["nf4", "fp32", "int8"])
def test_torch_and_graph_hold_what_is_the_same_once(
    precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing changes but whose memory it is: what torch's side writes, the graph reads."""
    monkeypatch.setenv("TEMPLORA_CACHE", str(tmp_path / "cache"))
    full = tiny.model("gemma3_text", tie_word_embeddings=True).to(torch.bfloat16)
    full.save_pretrained(tmp_path / "bf16")
    tiny.tokenizer().save_pretrained(tmp_path / "bf16")
    quantize.quantize_to_folder(str(tmp_path / "bf16"), tmp_path / "nf4")
    options = ["compute.matmul=float32", "compute.dtype=float32", f"onnx.precision={precision}"]
    with edge.load(str(tmp_path / "nf4"), overrides=options).session() as session:
        alone = session.forward.nll(IDS, 41)
    runtime = edge.load(str(tmp_path / "nf4"), overrides=[*options, "forward=onnx"])
    weight = runtime.base.model.get_input_embeddings().weight
    with runtime.session() as session:
        assert torch.equal(session.torch_forward.nll(IDS, 41), alone)
        graph = session.forward.nll(IDS, 41)
        assert torch.allclose(graph, alone, atol=0.5 if precision == "int8" else 1e-4)
        with torch.no_grad():
            weight[IDS[-1]] *= 2
        changed = session.forward.nll(IDS, 41)
        assert torch.equal(changed, graph) == (precision == "int8")
        if precision == "nf4":
            next(runtime.base.linears())[1].weight.data[:4] ^= 7
            assert not torch.equal(session.forward.nll(IDS, 41), changed)
    assert weight.dtype == (torch.bfloat16 if precision == "int8" else torch.float32)
    assert runtime.base.head.weight is weight
