"""Summed negative log-likelihood of the label positions, never the full logits.

Owns: the head's matmul, the log-softmax, and the gradient of both with respect to the hidden states.
Does not know: the blocks below the head, windows, adapters.
Units: nats.

Sliced in the way of cut-cross-entropy (arXiv 2411.09009) and Liger Kernel (arXiv 2410.10989): a slice of label
positions meets the head, its loss and its gradient are computed at once, and its logits are dropped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .memory import HEAD_BLOCK


@dataclass(frozen=True)
class Head:
    """The language-model head: logits = softcap(scale * (hidden @ weight.T + bias)).

    Attributes:
        weight: (V, H), in the dtype that it is stored in; tied to the embeddings in many models, never copied.
        bias: (V,) or None.
        softcap: c of c * tanh(x / c) (Gemma 2), or None.
        scale: factor on the logits before the cap (Cohere, Granite).
    """

    weight: Tensor
    bias: Tensor | None = None
    softcap: float | None = None
    scale: float = 1.0

    def logits(self, hidden: Tensor) -> Tensor:
        """Float32 logits (N, V) of hidden states (N, H)."""
        return self.logits_into(hidden, torch.empty(len(hidden), len(self.weight), device=hidden.device))

    def logits_into(self, hidden: Tensor, out: Tensor) -> Tensor:
        """`logits` written to `out` (N, V) float32; a weight of another dtype is widened block by block."""
        if hidden.device.type == "cpu":
            for block, weight in self._blocks(hidden.dtype):
                torch.mm(hidden, weight.T, out=out[:, block])
        else:
            out.copy_(hidden.to(self.weight.dtype) @ self.weight.T)
        if self.bias is not None:
            out += self.bias
        if self.scale != 1.0:
            out *= self.scale
        if self.softcap is not None:
            out.div_(self.softcap).tanh_().mul_(self.softcap)
        return out

    def product(self, grad_logits: Tensor) -> Tensor:
        """grad_logits (N, V) @ weight (V, H): the way back through the head's matmul."""
        if grad_logits.device.type != "cpu":
            return grad_logits.to(self.weight.dtype) @ self.weight
        result = grad_logits.new_zeros(len(grad_logits), self.weight.shape[1])
        for block, weight in self._blocks(grad_logits.dtype):
            result.addmm_(grad_logits[:, block], weight)
        return result

    def partial_product(self, grad_logits: Tensor, entries: Tensor) -> Tensor:
        """`product` over some (n,) vocabulary entries alone: grad_logits (N, n)."""
        return grad_logits @ self.weight[entries].to(grad_logits.dtype)

    def _blocks(self, dtype: torch.dtype) -> Iterator[tuple[slice, Tensor]]:
        """Vocabulary blocks of the weight in `dtype`: small enough for the cache, large enough for the matmul."""
        rows = max(1, HEAD_BLOCK // (self.weight.shape[1] * dtype.itemsize))
        narrow = self.weight.dtype != dtype
        wide = torch.empty(min(rows, len(self.weight)), self.weight.shape[1], dtype=dtype) if narrow else self.weight
        for start in range(0, len(self.weight), rows):
            block = slice(start, min(start + rows, len(self.weight)))
            weight = self.weight[block]
            yield block, wide[: len(weight)].copy_(weight) if narrow else weight


def plain_nll(hidden: Tensor, head: Head, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The reference that `sliced_nll` must equal: cross entropy on the full logits, by torch's own operators.

    Args:
        hidden: (N, H) states that predict the labels.
        labels: (N,) token ids.

    Returns:
        The mean over the labels, differentiable, and the (N,) nats, detached.
    """
    logits = F.linear(hidden, head.weight.to(hidden.dtype), head.bias).float() * head.scale
    if head.softcap is not None:
        logits = torch.tanh(logits / head.softcap) * head.softcap
    nll = F.cross_entropy(logits, labels, reduction="none")
    return nll.mean(), nll.detach()


def sliced_nll(
    hidden: Tensor, head: Head, labels: Tensor, *, slice_size: int, gradient_filter: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Equal to `plain_nll`, holding the logits of at most `slice_size` positions.

    The gradient of the mean with respect to `hidden` is computed in the same pass, slice by slice, so
    the backward pass only scales it.

    Args:
        gradient_filter: vocabulary entries whose probability lies below it at every position of a slice, and that are
            no label, add nothing to the gradient (in the way of cut-cross-entropy's gradient filtering). 0: exact.
    """
    loss, nll = _SlicedNLL.apply(hidden, head, labels, slice_size, gradient_filter)  # type: ignore[no-untyped-call]
    return loss, nll


class _SlicedNLL(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, head: Head, labels: Tensor, size: int, gradient_filter: float
    ) -> tuple[Tensor, Tensor]:
        count = len(labels)
        size = min(size, count)
        nll = torch.empty(count, dtype=torch.float32, device=hidden.device)
        grad = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        workspace = torch.empty(size, len(head.weight), device=hidden.device)  # every slice's logits in turn
        for start in range(0, count, size):
            rows = slice(start, min(start + size, count))
            logits = head.logits_into(hidden[rows], workspace[: rows.stop - rows.start])
            y = labels[rows, None]
            slope = None if head.softcap is None or grad is None else 1.0 - (logits / head.softcap).square_()
            gap = logits.amax(-1, keepdim=True) - logits.gather(-1, y)
            # One in-place softmax serves both: its largest entry is 1 / sum(exp(logits - max)).
            # (logsumexp on a CPU takes 20 times as long as softmax.)
            softmax = torch.softmax(logits, -1, out=logits)
            nll[rows] = (gap - softmax.amax(-1, keepdim=True).log()).squeeze(-1)
            if grad is not None:  # d mean(nll) / d logits = (softmax - onehot) / count
                entries = _likely(softmax, labels[rows], gradient_filter) if gradient_filter else None
                softmax.scatter_add_(-1, y, torch.full_like(y, -1, dtype=softmax.dtype))
                if slope is not None:
                    softmax.mul_(slope)
                if entries is None:
                    upstream = head.product(softmax)
                else:
                    upstream = head.partial_product(softmax.index_select(1, entries), entries)
                grad[rows] = upstream.mul_(head.scale / count)
        ctx.mark_non_differentiable(nll)
        if grad is not None:
            ctx.save_for_backward(grad)
        return nll.mean(), nll

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None, None, None]:
        (grad,) = ctx.saved_tensors
        return grad * upstream[0].to(grad.dtype), None, None, None, None


def _likely(softmax: Tensor, labels: Tensor, threshold: float) -> Tensor:
    """(n,) vocabulary entries that are likelier than `threshold` somewhere in (N, V), or labels."""
    kept = softmax.amax(0) > threshold
    kept[labels] = True
    return kept.nonzero().squeeze(1)
