"""RMS norms in one autograd node, a third of the memory traffic of the models' own.

Owns: the fused norm, which norms of a model it may stand for. Does not know: blocks, adapters.
Units: none. y = scale * x / sqrt(mean(x^2) + eps) (arXiv 1910.07467), scale frozen.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import patches


def use(model: nn.Module) -> int:
    """Lets the fused norm compute what the model's RMS norms compute; how many there are.

    A norm is taken over only where its own forward, tried on random numbers, gives what the fused one gives.
    """
    found = 0
    for module in model.modules():
        norm = scale_of(module) if type(module).__name__.endswith("RMSNorm") else None
        if norm is not None:
            patches.put(module, "fused norm", _over(*norm))
            found += 1
    return found


@torch.no_grad()
def scale_of(module: Any) -> tuple[Tensor, float] | None:
    """What an RMS norm multiplies by, (H,), and its epsilon; None where the module computes something else.

    The scale is its weight, or 1 + weight in float32 (Gemma).
    """
    weight = getattr(module, "weight", None)
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if not isinstance(eps, float) or not isinstance(weight, Tensor) or weight.dim() != 1:
        return None
    x = torch.randn(3, len(weight), generator=torch.Generator().manual_seed(0)).to(weight.device)
    theirs = module(x)
    for scale in (weight, 1.0 + weight.float()):
        ours = rms_norm(x, scale.float(), eps)
        if theirs.dtype == ours.dtype and torch.allclose(theirs, ours, rtol=1e-5, atol=1e-6):
            return scale.detach(), eps
    return None


def _over(scale: Tensor, eps: float) -> patches.Patch:
    wide = scale.float()
    return lambda own: partial(_forward, scale, wide, eps)


def _forward(scale: Tensor, wide: Tensor, eps: float, x: Tensor) -> Tensor:
    if x.device.type == "cuda" and x.dtype == scale.dtype:
        return F.rms_norm(x, scale.shape, scale, eps)  # torch's own kernel, both ways
    return rms_norm(x, wide, eps)


def rms_norm(x: Tensor, scale: Tensor, eps: float) -> Tensor:
    """The norm over the last dimension of x (..., H), computed in float32; its gradient flows to `x` alone.

    `scale`: (H,) float32.
    """
    if x.requires_grad and torch.is_grad_enabled():
        result: Tensor = _RMSNorm.apply(x, scale, eps)  # type: ignore[no-untyped-call]
        return result
    return _scaled(x, _inverse_rms(x, eps), scale)


def _inverse_rms(x: Tensor, eps: float) -> Tensor:
    inverse: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    return inverse.square_().div_(x.shape[-1]).add_(eps).rsqrt_()


def _scaled(x: Tensor, inverse: Tensor, scale: Tensor) -> Tensor:
    return torch.mul(x, inverse).mul_(scale).to(x.dtype)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, eps: float) -> Tensor:
        inverse = _inverse_rms(x, eps)
        ctx.save_for_backward(x, inverse, scale)
        return _scaled(x, inverse, scale)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        x, inverse, scale = ctx.saved_tensors
        grad = grads[0] * scale  # in float32, as all of it
        # d/dx = inverse * (grad - x * inverse^2 * mean(grad * x))
        share = (grad * x).sum(-1, keepdim=True).mul_(inverse).mul_(inverse).div_(-x.shape[-1])
        return grad.addcmul_(x, share).mul_(inverse).to(x.dtype), None, None
