"""The fused RMS norm against torch's own operators, and against every architecture's own norms."""

from __future__ import annotations

from typing import Any

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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_sixteen_bits_the_norm_is_nearer_to_the_truth_than_transformers_own(dtype: torch.dtype) -> None:
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    generator = torch.Generator().manual_seed(0)
    x, upstream = (torch.randn(40, 64, generator=generator).to(dtype) for _ in range(2))
    module = LlamaRMSNorm(64, 1e-6).to(dtype)
    with torch.no_grad():
        module.weight.copy_(torch.rand(64, generator=generator) + 0.5)

    def run(norm: Any, x: torch.Tensor, upstream: torch.Tensor) -> torch.Tensor:
        x = x.clone().requires_grad_()
        out = norm(x)
        out.backward(upstream)
        assert x.grad is not None
        return torch.cat([out.detach().double(), x.grad.double()])

    truth = run(module.double(), x.double(), upstream.double())
    theirs = run(module.to(dtype), x, upstream)
    ours = run(lambda x: norms.rms_norm(x, module.weight.float(), 1e-6), x, upstream)
    assert float((ours - truth).norm()) <= 1.05 * float((theirs - truth).norm())
    assert ours.shape == truth.shape
