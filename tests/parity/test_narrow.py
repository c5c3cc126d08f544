"""Learning in 16 bits: products in them, sums in float32, and what float16 cannot hold."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from edge import settings
from edge.learning.learner import Learner
from edge.machine.device import Device
from edge.model import base as bases
from edge.model.adapter import Adapter
from edge.model.forward import TorchForward
from edge.model.loss import HALF_SCALE, Head, plain_nll, sliced_nll
from edge.weights import quantize
from tests import tiny
from tests.waits import Waits

IDS = torch.arange(3, 67) * 7 % 320


def learner(dtype: torch.dtype, *overrides: str, family: str = "llama") -> Learner:
    model = tiny.model(family)
    quantize.quantize_in_place(model, "cpu", dtype)
    base = bases.from_model(
        model.to(dtype), tiny.tokenizer(), Device("cpu", "cpu", str(dtype).removeprefix("torch.")), family
    )
    chosen = settings.load("economical", [*tiny.WINDOW, "learn.epochs=1", "compute.loss_slice=16", *overrides])
    adapter = Adapter(base, chosen.adapter, seed=1)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)) * 0.1)
    adapter.version += 1
    return Learner(adapter, TorchForward(base, adapter, chosen.compute), chosen.learn, 40)


def gradient(dtype: torch.dtype, family: str = "llama") -> Tensor:
    made = learner(dtype, family=family)
    for scale in made._scales()[:1]:
        made._gradients((IDS, 24, None), None, None, scale)
    grads = [p.grad for p in made.adapter.parameters()]
    assert all(g is not None and g.dtype == torch.float32 for g in grads)
    return torch.cat([g.flatten() for g in grads if g is not None])


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gradients_in_sixteen_bits_are_those_of_float32_but_for_roundings(dtype: torch.dtype, family: str) -> None:
    exact, narrow = gradient(torch.float32, family), gradient(dtype, family)
    error = float((narrow - exact).norm() / exact.norm())
    assert error < (0.05 if dtype == torch.bfloat16 else 0.02)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_lesson_in_sixteen_bits_teaches(dtype: torch.dtype) -> None:
    made = learner(dtype, "learn.lr=1e-2")
    losses = [made.learn(IDS, 24)[0] for _ in range(6)]
    assert all(lesson.kept for lesson in losses)
    assert losses[-1].losses[0] < 0.8 * losses[0].losses[0]
    assert all(p.dtype == torch.float32 for p in made.adapter.parameters())


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gemma2"])
def test_a_lesson_is_waited_for_once(family: str) -> None:
    """Its nats and the gradient's norm are fetched together; on a CPU, where that costs nothing, nats are looked at
    before the backward pass as well.
    """
    made = learner(torch.bfloat16, "learn.prefix=cached", family=family)
    made.learn(IDS, 24)
    with Waits() as waits:
        made.learn(torch.cat([IDS, IDS[:24]])[-64:], 24)
    assert len(waits.found) <= 1, waits.found


def test_float16_loses_nothing_of_a_small_gradient() -> None:
    """Of one token among many the gradient is below the least number of float16."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(2048, 16, generator=generator)
    head = Head(torch.randn(64, 16, generator=generator) * 0.02)
    labels = torch.randint(0, 64, (2048,), generator=generator)
    wanted = hidden.clone().requires_grad_()
    plain_nll(wanted, head, labels)[0].backward()
    assert wanted.grad is not None
    half = hidden.half().requires_grad_()
    mean, _ = sliced_nll(half, Head(head.weight.half()), labels, slice_size=256)
    torch.autograd.backward(mean, mean.new_tensor(HALF_SCALE))
    assert half.grad is not None
    error = float((half.grad.float() / HALF_SCALE - wanted.grad).norm() / wanted.grad.norm())
    assert error < 0.01
    lost = hidden.half().requires_grad_()
    plain_nll(lost, Head(head.weight.half()), labels)[0].backward()
    assert lost.grad is not None
    assert float((lost.grad.float() - wanted.grad).norm() / wanted.grad.norm()) > 2 * error


def test_a_scale_that_was_too_much_is_lowered_once_and_then_the_lesson_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = learner(torch.float16)
    real = made._gradients
    tried: list[float] = []

    def overflowing(lesson, prefix, seed, scale):  # type: ignore[no-untyped-def]
        tried.append(scale)
        nll = real(lesson, prefix, seed, scale)
        if scale > limit:
            made.adapter.parameters()[0].grad.fill_(math.inf)  # type: ignore[union-attr]
        return nll

    monkeypatch.setattr(made, "_gradients", overflowing)
    limit = HALF_SCALE / 2
    assert made.learn(IDS, 24)[0].kept and tried == [HALF_SCALE, HALF_SCALE / 64]
    tried.clear()
    limit = 0.0
    before = made.adapter.fingerprint()
    refused = made.learn(IDS, 24)[0]
    assert not refused.kept and "not finite" in refused.reason and tried == [HALF_SCALE, HALF_SCALE / 64]
    assert made.adapter.fingerprint() == before
