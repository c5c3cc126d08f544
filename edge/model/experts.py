"""The experts of a mixture, computed from 4 bits: only those that a token was sent to are dequantised, one at a time.

Owns: the forward that stands for an experts module's own, its gradient to the input.
Does not know: how experts are packed (`weights/packed.py`), routers, adapters: what is adapted is attention and shared
layers. Units: tokens. T tokens, K experts a token, H features.

Equal to transformers' own loop over the experts on the dequantised matrices (its `experts` modules of
mixtral, qwen3_moe, gpt_oss, granitemoehybrid, qwen3_next, ...). Nothing of a matrix is kept for the backward
pass: it is dequantised again.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..weights import packed
from . import patches


def use(model: nn.Module) -> None:
    """Puts the forward below on every module of packed experts."""
    for _, module in packed.modules(model):
        if isinstance(module.down_proj, packed.Packed):
            patched = _patched_sorted if packed.is_sorted(module) else _patched
            patches.put(module, "packed experts", partial(patched, module))


def _patched(module: nn.Module, own: Callable[..., Any]) -> Callable[..., Any]:
    def called(*args: Tensor, **named: Tensor) -> Tensor:
        # families name the last two differently, and give them in one order
        return forward(module, *args, *named.values())

    return called


def _patched_sorted(module: nn.Module, own: Callable[..., Any]) -> Callable[..., Any]:
    return partial(forward_sorted, module)


def forward_sorted(module: Any, hidden: Tensor) -> Tensor:
    """What Llama 4's experts make of their inputs: every token is there once for each expert, times its share.

    A share of 0 makes a row of zeros, whose result and gradient are 0: there is no bias, and the gate's activation of 0
    is 0. Such rows are left out, and so are experts that nobody was sent to.

    Args:
        module: transformers' `Llama4TextExperts` whose parameters are packed.
        hidden: (E * T, H), expert by expert.

    Returns:
        (E * T, H).
    """
    tokens = len(hidden) // module.num_experts
    out = torch.zeros_like(hidden)
    sent = hidden.detach().ne(0).any(dim=1).view(module.num_experts, tokens)
    for index in torch.where(sent.any(dim=1))[0].tolist():
        rows = index * tokens + torch.where(sent[index])[0]
        gate, up = _multiply(hidden[rows], module.gate_up_proj, index, True).chunk(2, dim=-1)
        made = _multiply(up * module.act_fn(gate), module.down_proj, index, True)
        out.index_copy_(0, rows, made)
    return out


def forward(module: Any, hidden: Tensor, chosen: Tensor, shares: Tensor) -> Tensor:
    """What the experts make of each token.

    Args:
        module: an experts module of transformers whose parameters are packed.
        hidden: (T, H).
        chosen: (T, K), which experts; what is beyond the last one stands for none.
        shares: (T, K), the weight of each.

    Returns:
        (T, H) in the dtype of `hidden`.
    """
    first = module.gate_up_proj if module.has_gate else module.up_proj
    out = torch.zeros_like(hidden)
    for index in torch.unique(chosen).tolist():
        if index >= module.num_experts:
            continue
        tokens, places = torch.where(chosen == index)
        rows = hidden[tokens]
        rows = product(rows, first, index, module, "gate_up_proj_bias" if module.has_gate else "up_proj_bias")
        rows = module._apply_gate(rows) if module.has_gate else module.act_fn(rows)
        rows = product(rows, module.down_proj, index, module, "down_proj_bias")
        if getattr(module, "has_post_expert_norm", False):
            rows = module.post_expert_norm(rows)
        out.index_add_(0, tokens, (rows * shares[tokens, places, None]).to(out.dtype))
    return out


def product(rows: Tensor, weight: packed.Packed, index: int, module: Any, bias: str) -> Tensor:
    """`rows` through one matrix of one expert; its gradient flows to `rows` and nowhere else."""
    out = _multiply(rows, weight, index, module.is_transposed)
    return out + getattr(module, bias)[index].to(out.dtype) if module.has_bias else out


def _multiply(rows: Tensor, weight: packed.Packed, index: int, transposed: bool) -> Tensor:
    out: Tensor = _Product.apply(rows, weight, index, transposed)  # type: ignore[no-untyped-call]
    return out


class _Product(torch.autograd.Function):
    """rows W^T, or rows W where the model stores the transposed matrix."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: packed.Packed, index: int, transposed: bool) -> Tensor:
        ctx.weight = weight
        ctx.index = index
        ctx.transposed = transposed
        matrix = weight.expert(index, rows.dtype)
        return rows @ (matrix if transposed else matrix.T)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        matrix = ctx.weight.expert(ctx.index, grads[0].dtype)
        return grads[0] @ (matrix.T if ctx.transposed else matrix), None, None, None
