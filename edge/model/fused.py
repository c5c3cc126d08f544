"""A frozen linear layer with a LoRA on it, in one autograd node: forward, and the gradients of x, A and B.

Owns: both products and their backward passes. Does not know: which layers are adapted, peft's bookkeeping.
Units: x (..., K), W (N, K), A (r, K), B (N, r). LoRA: y = W x + s B A x (arXiv 2106.09685).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .base import linear_product, weight_of
from .lowrank import gathered


def fused_forward(layer: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Equal to peft's forward: base_layer(x) + scaling * lora_B(lora_A(dropout(x))), in one autograd node.

    Nothing of the frozen weight is saved for the backward pass; it is dequantised again there.
    """
    if layer.disable_adapters or layer._active_adapter[0] not in layer.lora_A:
        result: Tensor = frozen_linear(layer.base_layer, x)
        return result
    name = layer._active_adapter[0]
    a = layer.lora_A[name].weight
    b = layer.lora_B[name].weight
    scaling = layer.scaling[name]
    dropout = layer.lora_dropout[name]
    if dropout.training and isinstance(dropout, nn.Dropout):
        low = F.linear(dropout(x), a.to(x.dtype))
        out: Tensor = frozen_linear(layer.base_layer, x) + F.linear(low, b.to(x.dtype)) * scaling
        return out
    used = a.data.to(x.dtype), b.data.to(x.dtype)
    fused: Tensor = _LoraLinear.apply(x, a, b, layer.base_layer, scaling, used)  # type: ignore[no-untyped-call]
    return fused


def frozen_linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """The base layer alone; its gradient flows to `x` and nowhere else."""
    if x.requires_grad and torch.is_grad_enabled():
        result: Tensor = _FrozenLinear.apply(x, layer)  # type: ignore[no-untyped-call]
        return result
    if getattr(layer, "dequantized", None) is None and x.device.type != "cpu":
        fast: Tensor = layer(x)  # bitsandbytes' own kernels for few tokens
        return fast
    return linear_product(layer, x)


class _FrozenLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: nn.Linear) -> Tensor:
        ctx.layer = layer
        return linear_product(layer, x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0] @ weight_of(ctx.layer, grads[0].dtype), None


class _LoraLinear(torch.autograd.Function):
    """y = x W^T + b + s (x A^T) B^T; saves x and x A^T, never W.

    Products run in x's dtype, with A and B rounded to it; the gradients of A and B are summed up in float32.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, a: Tensor, b: Tensor, layer: nn.Linear, scaling: float, used: tuple[Tensor, Tensor]
    ) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])  # (T, K)
        low = rows @ used[0].T  # (T, r)
        weight = weight_of(layer, x.dtype)
        # made in its final shape: what a model changes in place must be no view of something else
        whole = x.new_empty(*x.shape[:-1], len(weight))
        out = whole.view(-1, len(weight))
        if layer.bias is None:
            torch.mm(rows, weight.T, out=out)
        else:
            torch.addmm(layer.bias, rows, weight.T, out=out)
        out.addmm_(low, used[1].T, alpha=scaling)
        ctx.save_for_backward(x, low)
        ctx.layer = layer
        ctx.scaling = scaling
        ctx.used = used
        ctx.dtype = a.dtype
        return whole

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None, None]:
        x, low = ctx.saved_tensors
        a, b = ctx.used
        grad = grads[0].reshape(-1, grads[0].shape[-1])  # (T, N)
        rows = x.reshape(-1, x.shape[-1])  # (T, K)
        grad_low = (grad @ b).mul_(ctx.scaling)  # (T, r)
        grad_a = grad_b = grad_x = None
        if ctx.needs_input_grad[1]:
            grad_b = gathered(grad, low, ctx.dtype).mul_(ctx.scaling)
            grad_a = gathered(grad_low, rows, ctx.dtype)
        if ctx.needs_input_grad[0]:
            grad_x = torch.mm(grad, weight_of(ctx.layer, grad.dtype)).addmm_(grad_low, a).view(x.shape)
        return grad_x, grad_a, grad_b, None, None, None
