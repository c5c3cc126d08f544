"""The sliced loss equals the plain one, within the plain one's own float32 error against float64."""

from __future__ import annotations

import pytest
import torch

from edge.memory import sizes
from edge.model import loss
from edge.model.loss import Head, plain_nll, sliced_nll


def _both(head: Head, hidden: torch.Tensor, labels: torch.Tensor, size: int):  # type: ignore[no-untyped-def]
    results = []
    for run in (lambda h: plain_nll(h, head, labels), lambda h: sliced_nll(h, head, labels, slice_size=size)):
        h = hidden.clone().requires_grad_()
        mean, nll = run(h)
        (mean * 3.0).backward()  # any multiple of the mean
        results.append((mean.detach(), nll, h.grad))
    exact_head = Head(head.weight.double(), None if head.bias is None else head.bias.double(), head.softcap, head.scale)
    h = hidden.double().requires_grad_()
    logits = torch.nn.functional.linear(h, exact_head.weight, exact_head.bias) * head.scale
    if head.softcap is not None:
        logits = torch.tanh(logits / head.softcap) * head.softcap
    nll = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    (nll.mean() * 3.0).backward()
    return results[0], results[1], (nll.mean().detach(), nll.detach(), h.grad)


@pytest.mark.parametrize("size", [1, 5, 16, 33, 100])
@pytest.mark.parametrize("variant", ["plain", "bias", "softcap", "scale", "bf16 weight"])
def test_sliced_equals_plain(size: int, variant: str) -> None:
    torch.manual_seed(1)
    weight = torch.randn(1000, 48)
    head = Head(
        weight.bfloat16() if variant == "bf16 weight" else weight,
        torch.randn(1000) if variant == "bias" else None,
        20.0 if variant == "softcap" else None,
        0.3 if variant == "scale" else 1.0,
    )
    hidden, labels = torch.randn(33, 48), torch.randint(0, 1000, (33,))
    plain, sliced, exact = _both(head, hidden, labels, size)
    for ours, theirs, truth in zip(sliced, plain, exact, strict=True):
        # the plain code's own rounding, with room for a few more operations of the same kind
        rounding = float((theirs.double() - truth).abs().max()) + 1e-6 * float(truth.abs().max())
        assert float((ours.double() - truth).abs().max()) <= 4 * rounding


def test_vocabulary_blocks_do_not_show() -> None:
    torch.manual_seed(0)
    head = Head(torch.randn(40_000, 8))  # several blocks
    hidden = torch.randn(3, 8)
    assert torch.allclose(head.logits(hidden), hidden @ head.weight.T, atol=1e-5)
    grad = torch.randn(3, 40_000)
    assert torch.allclose(head.product(grad, grad.dtype), grad @ head.weight, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("size", [4, 33])
@pytest.mark.parametrize("softcap", [None, 20.0])
def test_both_ways_through_a_slice_agree(size: int, softcap: float | None) -> None:
    """The one for CPUs, vocabulary block by block, and the one for devices with a fused softmax."""
    torch.manual_seed(2)
    head = Head(torch.randn(70_000, 40) * 0.3, None, softcap)
    hidden, labels = torch.randn(size, 40), torch.randint(0, 70_000, (size,))
    ways = [way(hidden, head, labels, True) for way in (loss._in_passing, loss._whole)]
    (nll, grad), (other_nll, other_grad) = ways
    assert torch.allclose(nll, other_nll, rtol=1e-5, atol=1e-5)
    assert float((grad - other_grad).abs().max()) <= 1e-5 * float(other_grad.abs().max())
    for way in (loss._in_passing, loss._whole):
        assert torch.equal(way(hidden, head, labels, False)[0], way(hidden, head, labels, True)[0])


def test_logits_that_grow_from_block_to_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest logit so far grows by hundreds, block after block: nothing overflows."""
    monkeypatch.setattr(sizes, "HEAD_BLOCK", 40_000)  # about a thousand entries each
    weight = torch.zeros(60_000, 4)
    weight[:, 0] = torch.linspace(-400, 400, 60_000)
    labels = torch.tensor([0, 59_999, 30_000, 17, 4_000])
    plain, sliced, exact = _both(Head(weight), torch.randn(5, 4), labels, 5)
    for ours, theirs, truth in zip(sliced, plain, exact, strict=True):
        rounding = float((theirs.double() - truth).abs().max()) + 1e-6 * float(truth.abs().max())
        assert float((ours.double() - truth).abs().max()) <= 4 * rounding


def test_narrow_hidden_states_on_a_cpu() -> None:
    """CPUs with bfloat16 units compute in it; the loss stays in float32."""
    torch.manual_seed(3)
    head = Head(torch.randn(500, 16).bfloat16())
    hidden, labels = torch.randn(9, 16).bfloat16().requires_grad_(), torch.randint(0, 500, (9,))
    mean, nll = sliced_nll(hidden, head, labels, slice_size=4)
    mean.backward()
    wide = hidden.detach().float().requires_grad_()
    theirs, exact = plain_nll(wide, Head(head.weight.float()), labels)
    theirs.backward()
    assert nll.dtype == torch.float32 and torch.allclose(nll, exact, rtol=0.02, atol=0.05)
    assert torch.allclose(hidden.grad.float(), wide.grad, rtol=0.05, atol=0.01)


def test_extreme_logits_stay_finite() -> None:
    head = Head(torch.tensor([[1.0], [-1.0], [0.0]]))
    hidden = torch.tensor([[1e4], [-1e4]], requires_grad=True)
    mean, nll = sliced_nll(hidden, head, torch.tensor([0, 0]), slice_size=1)
    mean.backward()
    assert nll.tolist() == pytest.approx([0.0, 2e4])
    assert torch.isfinite(hidden.grad).all()
