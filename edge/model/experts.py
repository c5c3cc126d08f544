"""The experts of a mixture, computed from 4 bits: only those that a token was sent to are dequantised, one at a time.

Owns: the forward that stands for an experts module's own, with the A and B of the adapter that is on, if it has any
there; its gradients to the input, to A and to B.
Does not know: how experts are packed (`weights/packed.py`), routers, where A and B come from (`expertlora.py`).
Units: tokens. T tokens, K experts a token, H features, E experts, r rank.

Equal to transformers' own loop over the experts on the dequantised matrices (its `experts` modules of
mixtral, qwen3_moe, gpt_oss, granitemoehybrid, qwen3_next, ...), each of them plus s B A of that expert (arXiv
2106.09685). Nothing of a matrix is kept for the backward pass: it is dequantised again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..weights import packed
from . import patches
from .lowrank import gathered

_ON = "_templora_factors"  # in a module's own dictionary: parameter -> what the adapter that is on adds to it
_ADAPTED = "experts with an adapter"  # the patch on experts that are not packed


@dataclass(frozen=True)
class Factors:
    """What an adapter adds to the experts of one parameter: s B A x.

    Attributes:
        a: (E, r, in) float32.
        b: (E, out, r) float32.
        scaling: s.
        dropout: share of x that A does not see in this forward.
    """

    a: Tensor
    b: Tensor
    scaling: float
    dropout: float = 0.0


def use(model: nn.Module) -> None:
    """Puts the forward below on every module of packed experts."""
    for _, module in packed.modules(model):
        if isinstance(module.down_proj, packed.Packed):
            patched = _patched_sorted if packed.is_sorted(module) else _patched
            patches.put(module, "packed experts", partial(patched, module))


def prepare(module: nn.Module, adapters: int) -> None:
    """Experts that are not packed compute by themselves while none of so many adapters on them is on; with none at all
    they have their own forward back.
    """
    if isinstance(getattr(module, "down_proj", None), packed.Packed):
        return
    if not adapters:
        patches.take(module, _ADAPTED)
    elif _ADAPTED not in patches.names(module):
        patches.put(module, _ADAPTED, partial(_patched_while_on, module))


def turn_on(module: nn.Module, leaf: str, factors: Factors) -> None:
    """From now on the module computes with these on its parameter `leaf`."""
    module.__dict__.setdefault(_ON, {})[leaf] = factors


def turn_off(module: nn.Module) -> None:
    """From now on the module computes as the base does."""
    module.__dict__.pop(_ON, None)


def _patched_while_on(module: nn.Module, own: Callable[..., Any]) -> Callable[..., Any]:
    adapted = (_patched_sorted if packed.is_sorted(module) else _patched)(module, own)
    return lambda *args, **named: (adapted if _ON in module.__dict__ else own)(*args, **named)


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
    first = _Matrices(module, "gate_up_proj")
    last = _Matrices(module, "down_proj")
    out = torch.zeros_like(hidden)
    sent = hidden.detach().ne(0).any(dim=1).view(module.num_experts, tokens)
    for index in torch.where(sent.any(dim=1))[0].tolist():
        rows = index * tokens + torch.where(sent[index])[0]
        gate, up = first.product(hidden[rows], index).chunk(2, dim=-1)
        made = last.product(up * module.act_fn(gate), index)
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
    first = _Matrices(module, "gate_up_proj" if module.has_gate else "up_proj")
    last = _Matrices(module, "down_proj")
    out = torch.zeros_like(hidden)
    for index in torch.unique(chosen).tolist():
        if index >= module.num_experts:
            continue
        tokens, places = torch.where(chosen == index)
        rows = first.product(hidden[tokens], index)
        rows = module._apply_gate(rows) if module.has_gate else module.act_fn(rows)
        rows = last.product(rows, index)
        if getattr(module, "has_post_expert_norm", False):
            rows = module.post_expert_norm(rows)
        out.index_add_(0, tokens, (rows * shares[tokens, places, None]).to(out.dtype))
    return out


class _Matrices:
    """One parameter of an experts module for one forward: the matrices, their biases, and what an adapter adds."""

    def __init__(self, module: Any, leaf: str) -> None:
        self.weight = getattr(module, leaf)
        self.bias = getattr(module, f"{leaf}_bias") if getattr(module, "has_bias", False) else None
        self.transposed = packed.is_transposed(module)
        self.factors: Factors | None = module.__dict__.get(_ON, {}).get(leaf)
        self.parts: list[tuple[Tensor, Tensor]] | None = None
        if self.factors is not None and torch.is_grad_enabled() and self.factors.a.requires_grad:
            # all experts' at once: their gradients come together in one step then, in one tensor
            self.parts = list(zip(self.factors.a.unbind(), self.factors.b.unbind(), strict=True))

    def product(self, rows: Tensor, index: int) -> Tensor:
        """(t, in) rows through one expert's matrix; gradients flow to `rows`, and to that expert's A and B."""
        if self.factors is None:
            out: Tensor = _Product.apply(rows, self, index)  # type: ignore[no-untyped-call]
        elif self.factors.dropout:
            a, b = self._pair(self.factors, index)
            low = F.linear(F.dropout(rows, self.factors.dropout), a.to(rows.dtype))
            plain: Tensor = _Product.apply(rows, self, index)  # type: ignore[no-untyped-call]
            out = plain + F.linear(low, b.to(rows.dtype)) * self.factors.scaling
        else:
            a, b = self._pair(self.factors, index)
            out = _LoraProduct.apply(rows, a, b, self, index, self.factors.scaling)  # type: ignore[no-untyped-call]
        return out if self.bias is None else out + self.bias[index].to(out.dtype)

    def _pair(self, factors: Factors, index: int) -> tuple[Tensor, Tensor]:
        """(r, in) and (out, r) of one expert."""
        return (factors.a[index], factors.b[index]) if self.parts is None else self.parts[index]

    def expert(self, index: int, dtype: torch.dtype) -> Tensor:
        """One expert's matrix, (out, in)."""
        if isinstance(self.weight, packed.Packed):
            matrix = self.weight.expert(index, dtype)
        else:
            matrix = self.weight.detach()[index].to(dtype)
        return matrix.T if self.transposed else matrix


class _Product(torch.autograd.Function):
    """rows W^T."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, matrices: _Matrices, index: int) -> Tensor:
        ctx.matrices = matrices
        ctx.index = index
        return rows @ matrices.expert(index, rows.dtype).T

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return grads[0] @ ctx.matrices.expert(ctx.index, grads[0].dtype), None, None


class _LoraProduct(torch.autograd.Function):
    """rows W^T + s (rows A^T) B^T; saves the rows and rows A^T, never W.

    Products run in the dtype of the rows, with A and B rounded to it; the gradients of A and B are summed up in
    float32, as those of linear layers are (`fused.py`).
    """

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, a: Tensor, b: Tensor, matrices: _Matrices, index: int, scaling: float
    ) -> Tensor:
        low = rows @ a.to(rows.dtype).T  # (t, r)
        out = rows @ matrices.expert(index, rows.dtype).T
        out.addmm_(low, b.to(rows.dtype).T, alpha=scaling)
        ctx.save_for_backward(rows, low, a, b)
        ctx.matrices = matrices
        ctx.index = index
        ctx.scaling = scaling
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None, None]:
        rows, low, a, b = ctx.saved_tensors
        (grad,) = grads  # (t, out)
        grad_low = (grad @ b.to(grad.dtype)).mul_(ctx.scaling)  # (t, r)
        grad_a = grad_b = grad_rows = None
        if ctx.needs_input_grad[1]:
            grad_b = gathered(grad, low, b.dtype).mul_(ctx.scaling)
            grad_a = gathered(grad_low, rows, a.dtype)
        if ctx.needs_input_grad[0]:
            grad_rows = (grad @ ctx.matrices.expert(ctx.index, grad.dtype)).addmm_(grad_low, a.to(grad.dtype))
        return grad_rows, grad_a, grad_b, None, None, None
