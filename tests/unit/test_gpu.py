"""On a CUDA device: the same promises as on the CPU. Collected only where there is one."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from edge import settings
from edge.machine import device
from edge.memory.sizes import ROOM_STEP
from edge.model import base as bases
from edge.model.adapter import Adapter
from edge.model.forward import TorchForward
from edge.session import Runtime
from edge.weights import quantize
from tests import tiny

pytestmark = pytest.mark.gpu
GPU = "cuda"
IDS = torch.arange(3, 720) * 7 % 320


def based(architecture: str, place: str, dtype: str, **changes: Any) -> bases.Base:
    """A tiny model, quantised on the CPU, so that all devices hold the same bytes."""
    chosen = device.choose(place, dtype)
    model = tiny.model(architecture, **changes)
    quantize.quantize_in_place(model, "cpu", chosen.torch_dtype)
    return bases.from_model(model.to(chosen.name, chosen.torch_dtype), tiny.tokenizer(), chosen, architecture)


def stepped(family: str, *plain: str, dtype: str = "float32", place: str = GPU) -> TorchForward:
    """What decodes on the GPU, with an adapter that has learned something."""
    base = based(family, place, dtype, max_position_embeddings=2048)
    adapter = Adapter(base, settings.load("economical", tiny.WINDOW).adapter, seed=1)
    taught(adapter, 0.1)
    return TorchForward(base, adapter, settings.load("economical", [f"compute.plain=[{','.join(plain)}]"]).compute)


@torch.no_grad()
def taught(adapter: Adapter, size: float) -> None:
    """Gives the adapter other values, as a lesson does."""
    for parameter in adapter.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)) * size)
    adapter.version += 1


def decoded(forward: TorchForward, begin: int, end: int, *, adapter: bool = True) -> Tensor:
    logits, cache = forward.prefill(IDS[:begin], adapter=adapter)
    steps = [forward.decode(int(token), cache, adapter=adapter).clone() for token in IDS[begin:end]]
    return torch.stack([logits, *steps]).cpu()


def gap(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).square().mean().sqrt() / theirs.std())


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_cuda_scores_as_the_cpu_does_and_learns(architecture: str) -> None:
    results = []
    for name in ("cpu", "cuda"):
        chosen = device.choose(name, "float32")
        model = tiny.model(architecture)
        quantize.quantize_in_place(model, "cpu", torch.float32)
        base = bases.from_model(model.to(chosen.name), tiny.tokenizer(), chosen, architecture)
        before = base.checksum()
        with Runtime(base, settings.load("economical", tiny.WINDOW)).session() as session:
            results.append(list(session.score(tiny.TEXT * 2)))
        assert base.checksum() == before
    for ours, theirs in zip(*results, strict=True):
        assert ours.base_nll == pytest.approx(theirs.base_nll, rel=1e-3)
    assert results[1][-1].adapter_nll < 0.9 * results[1][-1].base_nll


@pytest.mark.parametrize("rows", [1, 4, 8])
def test_our_kernel_multiplies_as_bitsandbytes_widens(rows: int) -> None:
    from bitsandbytes import functional as F

    from edge.model import kernels

    torch.manual_seed(0)
    weight = torch.randn(1000, 4096, device="cuda", dtype=torch.bfloat16)
    packed, state = F.quantize_4bit(weight, quant_type="nf4", blocksize=64, compress_statistics=True)
    x = torch.randn(rows, 4096, device="cuda", dtype=torch.bfloat16)
    lora = (torch.randn(16, 4096).to(x).T, torch.randn(1000, 16).to(x).T, 0.5)
    wanted = x.double() @ F.dequantize_4bit(packed, state).double().T
    wanted += 0.5 * (x @ lora[0]).double() @ lora[1].double()
    for form in kernels.forms(rows):
        ours = kernels.product(x, packed, state, None, lora, form)
        assert float((ours.double() - wanted).square().mean().sqrt() / wanted.std()) < 0.01


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize(("heads", "groups", "size"), [(8, 8, 128), (12, 2, 128), (4, 1, 256)])
def test_our_small_kernels_compute_what_torch_does(heads: int, groups: int, size: int, dtype: torch.dtype) -> None:
    from edge.model import rows

    torch.manual_seed(0)
    bound = 1e-4 if dtype == torch.float32 else 0.02

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, device=GPU, dtype=dtype)

    hidden, row, scale = random(3, 1000), random(3, 1000), random(1000)
    whole = hidden.double() + row.double()
    wanted = whole * (whole.square().mean(1, keepdim=True) + 1e-6).rsqrt() * scale.double()
    assert gap(rows.add_and_norm(hidden, row, None, (scale, 1e-6)).double(), wanted) < bound
    assert gap(hidden.double(), whole) < bound
    for places, at in ((100, [3, 99]), (1536, [1100, 700]), (5000, [9000, 4999])):
        held, positions = random(2, 2, groups, places, size), torch.tensor(at, device=GPU)
        query, key, value = random(2, heads * size), random(2, groups * size), random(2, groups * size)
        cos, sin = random(2, size), random(2, size)
        turned = rows.turn_and_keep(query, key, value, (cos, sin), positions, None, held)
        apart = query.double().view(2, heads, size)
        rotated = apart * cos.double()[:, None] + apart.roll(size // 2, 2) * sin.double()[:, None]
        assert gap(turned.double(), rotated.flatten(1)) < bound
        for text, position in enumerate(at):
            assert torch.equal(held[1, text, :, position % places], value[text].view(groups, size))
        keys, values = held.double().unbind(0)
        scores = turned.double().view(2, groups, -1, size) @ keys.transpose(2, 3) * size**-0.5
        unseen = torch.arange(places, device=GPU) > positions[:, None]
        seen = scores.masked_fill(unseen[:, None, None], -torch.inf).softmax(-1) @ values
        assert gap(rows.attend(turned, held, positions, size**-0.5).double(), seen.flatten(1)) < bound
    x, a = random(3, 5000), random(40, 5000)
    assert gap(rows.times_a(x, a).double(), x.double() @ a.double().T) < bound
    gate, up = random(3, 5000), random(3, 5000)
    wanted = torch.nn.functional.silu(gate.double()) * up.double()
    assert gap(rows.silu_times(gate, up).double(), wanted) < bound


@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-3), ("auto", 0.02)])
@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gemma3_text"])
def test_kept_keys_and_values_are_seen_as_on_the_cpu(architecture: str, dtype: str, bound: float) -> None:
    """Attention of a chunk to what was kept before it, in the GPU's own form of it, and back."""
    results = []
    for place, wanted in (("cpu", "float32"), (GPU, dtype)):
        chosen = settings.load("economical", [*tiny.WINDOW, "learn.prefix=cached"])
        with Runtime(based(architecture, place, wanted), chosen).session() as session:
            results.append(list(session.score(tiny.TEXT * 2)))
    for ours, theirs in zip(*results, strict=True):
        assert ours.adapter_nll == pytest.approx(theirs.adapter_nll, rel=bound)


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "gemma3_text", "gemma2"])
def test_captured_tokens_are_those_of_the_models_own_forward(family: str) -> None:
    """Before and after the room grows, with the adapter and without."""
    ours, theirs = stepped(family), stepped(family, "step")
    for adapter in (True, False):
        for begin in (20, ROOM_STEP - 6):
            assert gap(*(decoded(one, begin, begin + 12, adapter=adapter) for one in (ours, theirs))) < 1e-3
    assert ours.step is not None
    assert ours.step.failure == ours.step.choices.failure == ""
    assert ours.step.fused
    assert ours.step.trusted and ours.step.captures


def test_in_sixteen_bits_captured_tokens_are_those_that_are_not() -> None:
    ours, plain = stepped("llama", dtype="auto"), stepped("llama", "graph", dtype="auto")
    assert gap(decoded(ours, 20, 60), decoded(plain, 20, 60)) < 0.02
    assert ours.step is not None and ours.step.captures and ours.step.trusted


def test_a_captured_step_reads_what_the_adapter_has_learned_since() -> None:
    ours, theirs = stepped("qwen3"), stepped("qwen3", "step")
    for forward in (ours, theirs):
        forward.decode(5, forward.prefill(IDS[:4])[1])
    caches = [forward.prefill(IDS[:20])[1] for forward in (ours, theirs)]
    before = ours.decode(7, caches[0]).cpu()
    assert ours.rewind(caches[0], 20)
    for forward in (ours, theirs):
        assert forward.adapter is not None
        taught(forward.adapter, 0.3)
    after = ours.decode(7, caches[0]).cpu()
    assert gap(after, before) > 0.01
    assert gap(after, theirs.decode(7, caches[1]).cpu()) < 1e-3


def test_texts_that_are_decoded_in_turn_keep_what_was_captured_for_each() -> None:
    """Of several lengths, and with memory that is given back in between."""
    ours, theirs = stepped("llama"), stepped("llama", "step")
    found: dict[int, list[Tensor]] = {20: [], 600: []}
    caches = {begin: ours.prefill(IDS[:begin])[1] for begin in found}
    for step in range(8):
        for begin, cache in caches.items():
            found[begin].append(ours.decode(int(IDS[begin + step]), cache).clone())
        torch.cuda.empty_cache()
        torch.full((1 << 20,), -1, device=GPU)  # what was freed holds other numbers now
    for begin, steps in found.items():
        assert gap(torch.stack(steps).cpu(), decoded(theirs, begin, begin + 8)[1:]) < 1e-3


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_captured_texts_side_by_side_are_the_texts_one_by_one(family: str) -> None:
    ours, theirs = stepped(family), stepped(family, "step")
    lines = ours.lines(ours.prefill(IDS[:40])[1], 4, 16)
    assert lines is not None
    rows = [ours.decode_lines([5 + step + line for line in range(4 - step // 4)], lines).cpu() for step in range(12)]
    for line in range(4):
        _, cache = theirs.prefill(IDS[:40])
        count = min(12, 4 * (4 - line))
        alone = torch.stack([theirs.decode(5 + step + line, cache).cpu() for step in range(count)])
        assert gap(torch.stack([row[line] for row in rows[:count]]), alone) < 1e-3


def test_a_lesson_waits_for_the_gpu_only_where_it_tells_its_nats() -> None:
    """For the token ids that go there, for losses and norm, and for the scores that come back."""
    chosen = settings.load("economical", [*tiny.WINDOW, "learn.epochs=1"])
    with Runtime(based("llama", GPU, "auto"), chosen).session() as session:
        assert session.learner is not None
        session.learner.learn(IDS[:64], 24)
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                session.learner.learn(IDS[64:128], 24)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert sum("synchroniz" in str(one.message) for one in said) <= 4


def test_what_one_plan_may_hold_does_not_bind_the_next() -> None:
    from edge.machine import held

    chosen = device.choose(GPU)
    torch.cuda.empty_cache()
    with held.capped(chosen, 1 << 20), pytest.raises(RuntimeError, match="out of memory"):
        torch.empty(64 << 20, device=GPU)
    torch.empty(64 << 20, device=GPU)
