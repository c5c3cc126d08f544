"""FLOPs counted on paper against torch's own counter."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode, mm_flop, sdpa_backward_flop_count, sdpa_flop_count

from edge import settings
from edge.memory import flops, shape
from edge.model import base as bases
from edge.session import Runtime
from edge.weights import quantize
from tests import tiny


def _attention(q: Any, k: Any, v: Any, *args: Any, **kwargs: Any) -> int:
    return sdpa_flop_count(q, k, v)


def _attention_backward(grad: Any, q: Any, k: Any, v: Any, *args: Any, **kwargs: Any) -> int:
    return sdpa_backward_flop_count(grad, q, k, v)


def _addmm_in_place(own: Any, left: Any, right: Any, *args: Any, **kwargs: Any) -> int:
    return mm_flop(left, right)


_aten = torch.ops.aten
UNCOUNTED = {  # by torch: what a CPU uses, and products added in place
    _aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    _aten.addmm_: _addmm_in_place,
}


def _counted(run: Any) -> int:
    with FlopCounterMode(display=False, custom_mapping=UNCOUNTED) as counter:
        run()
    return int(counter.get_total_flops())


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
@pytest.mark.parametrize("checkpointing", ["on", "off"])
@pytest.mark.parametrize("prefix", ["full", "frozen"])
def test_forward_and_step(architecture: str, checkpointing: str, prefix: str) -> None:
    overrides = ["learn.epochs=2", f"compute.checkpointing={checkpointing}", f"learn.prefix={prefix}"]
    runtime = tiny.runtime(architecture, *overrides)
    dims = shape.from_config(runtime.base.config.to_dict(), packed=True)
    ids, labels = torch.arange(64), 24
    with runtime.session() as session:
        settings = session.plan.settings
        predicted = flops.forward(settings, dims, 64, labels)
        assert _counted(lambda: session.forward.nll(ids, labels)) == predicted
        base = flops.forward(settings, dims, 64, labels, adapter=False)
        assert _counted(lambda: session.forward.nll(ids, labels, adapter=False)) == base < predicted
        # the first block's input needs no gradient, and recomputation stops before a block's last product
        step = sum(flops.per_chunk(settings, dims).values())
        assert _counted(lambda: session.learner.learn(ids, labels)) == pytest.approx(step, rel=0.12)


def test_adapted_experts_are_counted_for_the_tokens_that_are_sent_to_them() -> None:
    made = tiny.model("qwen3_moe", num_experts=6, num_experts_per_tok=2, moe_intermediate_size=96)
    quantize.quantize_in_place(made, "cpu", torch.float32)
    chosen = settings.load("economical", [*tiny.WINDOW, "adapter.modules=[experts]"])
    runtime = Runtime(bases.from_model(made, tiny.tokenizer(), tiny.CPU), chosen)
    dims = shape.from_config(runtime.base.config.to_dict(), packed=True)
    ids, labels = torch.arange(64), 24
    with runtime.session() as session:
        used = session.plan.settings
        on, off = (_counted(lambda a=a: session.forward.nll(ids, labels, adapter=a)) for a in (True, False))
    predicted = [flops.forward(used, dims, 64, labels, adapter=adapter) for adapter in (True, False)]
    assert on - off == predicted[0] - predicted[1] > 0


def test_lessons_that_differ_from_chunk_to_chunk() -> None:
    """Shallow ones count as their mean with the deep ones."""
    ids, labels = torch.arange(64), 24
    runtime = tiny.runtime("llama", "learn.epochs=1", "compute.checkpointing=off", "learn.deep_every=2")
    dims = shape.from_config(runtime.base.config.to_dict(), packed=True)
    with runtime.session() as session:
        step = sum(flops.per_chunk(session.plan.settings, dims).values())
        counts = [_counted(lambda s=session: s.learner.learn(ids, labels)) for _ in range(2)]
    assert sum(counts) / 2 == pytest.approx(step, rel=0.12)
    assert counts[0] != counts[1]
