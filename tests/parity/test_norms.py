"""The fused RMS norm against torch's own operators, and against every architecture's own norms."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edge.model import norms
from tests import tiny


@pytest.mark.parametrize("shape", [(7, 48), (1, 5, 3, 16)])
def test_value_and_gradient(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x, scale, upstream = torch.randn(shape) * 3, torch.randn(shape[-1]), torch.randn(shape)

    def run(norm, x, scale, upstream):  # type: ignore[no-untyped-def]
        x = x.clone().requires_grad_()
        y = norm(x, scale, 1e-6)
        y.backward(upstream)
        return y.detach(), x.grad

    def plain(x, scale, eps):  # type: ignore[no-untyped-def]
        return scale * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps))

    ours, theirs = run(norms.rms_norm, x, scale, upstream), run(plain, x, scale, upstream)
    exact = run(plain, x.double(), scale.double(), upstream.double())
    for a, b, truth in zip(ours, theirs, exact, strict=True):
        rounding = float((b.double() - truth).abs().max()) + 1e-7 * float(truth.abs().max())
        assert float((a.double() - truth).abs().max()) <= 4 * rounding


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_every_architecture_keeps_its_numbers(architecture: str) -> None:
    model = tiny.model(architecture)
    ids = torch.arange(1, 40)[None] % model.config.get_text_config().vocab_size
    before = model(ids).logits.detach()
    used = norms.use(model)
    after = model(ids).logits.detach()
    own = sum(type(m).__name__.endswith("RMSNorm") for m in model.modules())
    assert used == own
    assert torch.allclose(before, after, rtol=1e-4, atol=1e-4 * float(before.abs().max()))


def test_a_norm_of_another_kind_is_left_alone() -> None:
    class HalfRMSNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.eps = nn.Parameter(torch.ones(8)), 1e-6

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 0.5 * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)

    module = nn.Sequential(HalfRMSNorm())
    x = torch.randn(2, 8)
    before = module(x)
    assert norms.use(module) == 0 and torch.equal(module(x), before)
