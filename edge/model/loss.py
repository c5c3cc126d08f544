"""Summed negative log-likelihood of the label positions, never the full logits.

Owns: the head's matmul, the log-softmax, and the gradient of both with respect to the hidden states.
Does not know: the blocks below the head, windows, adapters.
Units: nats.

Sliced in the way of cut-cross-entropy (arXiv 2411.09009) and Liger Kernel (arXiv 2410.10989): a slice of label
positions meets the head, its loss and its gradient are computed at once, and its logits are dropped; on a CPU block by
block of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..memory.sizes import HEAD_BLOCK, head_rows

HALF_SCALE = 4096.0  # in float16 a gradient waits for the backward pass multiplied by this, or its least would be lost
SUMS_WIDE = tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 8)  # torch.mm knows out_dtype


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
        """Float32 logits (N, V) of hidden states (N, H); a weight of another dtype is widened block by block."""
        out = torch.empty(len(hidden), len(self.weight), device=hidden.device)
        for block, weight in self.blocks(hidden):
            self.block_logits(hidden, block, weight, out[:, block])
        return out

    def block_logits(self, hidden: Tensor, block: slice, weight: Tensor, out: Tensor) -> Tensor:
        """The logits of one vocabulary block, written to `out` (N, n) float32."""
        if hidden.dtype == weight.dtype == out.dtype:
            torch.mm(hidden, weight.T, out=out)
        elif out.device.type == "cuda" and SUMS_WIDE and weight.dtype != out.dtype:
            torch.mm(hidden.to(weight.dtype), weight.T, out_dtype=out.dtype, out=out)
        else:
            out.copy_(hidden.to(weight.dtype) @ weight.T)
        return self._finished(out, None if self.bias is None else self.bias[block])

    def block_scores(self, features: Tensor, block: slice, weight: Tensor, out: Tensor) -> Tensor:
        """`block_logits` the other way round: features (H, N), out (n, N); the faster product on a CPU."""
        torch.mm(weight, features, out=out)
        return self._finished(out, None if self.bias is None else self.bias[block, None])

    def _finished(self, out: Tensor, bias: Tensor | None) -> Tensor:
        if bias is not None:
            out += bias
        if self.scale != 1.0:
            out *= self.scale
        if self.softcap is not None:
            out.div_(self.softcap).tanh_().mul_(self.softcap)
        return out

    def product(self, grad_logits: Tensor, dtype: torch.dtype) -> Tensor:
        """grad_logits (N, V) @ weight (V, H) in `dtype`, the compute dtype: the way back through the head's matmul."""
        result = torch.zeros(len(grad_logits), self.weight.shape[1], dtype=dtype, device=grad_logits.device)
        for block, weight in self.blocks(result):
            result.addmm_(grad_logits[:, block].to(weight.dtype), weight)
        return result

    def blocks(self, like: Tensor, rows: int | None = None) -> Iterator[tuple[slice, Tensor]]:
        """Blocks of the vocabulary with their weights, (n, H); on a CPU in the dtype of `like`, and valid until the
        next is asked for.

        Args:
            rows: entries in a block; None: on a CPU as many as its cache holds the weights of, else all.
        """
        count, width = self.weight.shape
        on_cpu = like.device.type == "cpu"
        rows = min(count, rows or (max(1, HEAD_BLOCK // (width * like.element_size())) if on_cpu else count))
        narrow = self.weight.dtype != like.dtype and on_cpu
        wide = torch.empty(rows, width, dtype=like.dtype) if narrow else self.weight
        for start in range(0, count, rows):
            block = slice(start, min(start + rows, count))
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


def sliced_nll(hidden: Tensor, head: Head, labels: Tensor, *, slice_size: int) -> tuple[Tensor, Tensor]:
    """Equal to `plain_nll`, holding the logits of at most `slice_size` positions (a vocabulary block of them on a CPU).

    The gradient of the mean with respect to `hidden` is computed in the same pass, slice by slice, so
    the backward pass only scales it.
    """
    loss, nll = _SlicedNLL.apply(hidden, head, labels, slice_size)  # type: ignore[no-untyped-call]
    return loss, nll


class _SlicedNLL(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Head, labels: Tensor, size: int) -> tuple[Tensor, Tensor]:
        count = len(labels)
        size = min(size, count)
        nll = torch.empty(count, dtype=torch.float32, device=hidden.device)
        grad = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        in_passing = hidden.device.type == "cpu" and hidden.dtype == torch.float32
        one_slice = _in_passing if in_passing else _whole
        for start in range(0, count, size):
            rows = slice(start, min(start + size, count))
            nll[rows], upstream = one_slice(hidden[rows], head, labels[rows], grad is not None)
            if grad is not None:
                grad[rows] = upstream.mul_(head.scale * _waiting(hidden.dtype) / count)
        ctx.mark_non_differentiable(nll)
        if grad is not None:
            ctx.save_for_backward(grad)
        return nll.mean(), nll

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None, None]:
        (grad,) = ctx.saved_tensors
        return grad * (upstream[0] / _waiting(grad.dtype)).to(grad.dtype), None, None, None


def _waiting(dtype: torch.dtype) -> float:
    """What a gradient of that dtype is multiplied by while it waits."""
    return HALF_SCALE if dtype == torch.float16 else 1.0


def _in_passing(hidden: Tensor, head: Head, labels: Tensor, backward: bool) -> tuple[Tensor, Tensor]:
    """(N,) nats and the (N, H) gradient of their sum with respect to `hidden` / `head.scale`.

    Each vocabulary block is worked through while it is in the CPU's cache, and forgotten: sums and gradient so far
    are relative to the largest logit so far, and are scaled when a larger one turns up (as the online softmax of
    arXiv 1805.02867 does). In float32 only: the label's share is taken off last, from numbers as large as itself.
    """
    count = len(labels)
    features = hidden.T.contiguous()
    top = hidden.new_full((count,), -torch.inf)
    total = hidden.new_zeros(count)
    own = hidden.new_zeros(count)
    upstream = torch.zeros_like(hidden)
    rows = min(len(head.weight), head_rows(hidden.shape[1], count))
    scratch = hidden.new_empty(rows, count)
    for block, weight in head.blocks(hidden, rows):
        # 1. logits (n, N), and those of labels
        part = head.block_scores(features, block, weight, scratch[: len(weight)])
        here = ((labels >= block.start) & (labels < block.stop)).nonzero().squeeze(1)
        own[here] = part[labels[here] - block.start, here]
        # 2. the largest so far; what was summed up was relative to an older one
        larger = torch.maximum(top, part.amax(0))
        rescale = (top - larger).exp_()
        top = larger
        # 3. exp(logits - top), its sum, and its product with the weight: the gradient, but for that sum and the label
        slope = None if head.softcap is None or not backward else 1.0 - (part / head.softcap).square_()
        total.mul_(rescale).add_(part.sub_(top).exp_().sum(0))
        if not backward:
            continue
        if slope is not None:
            part.mul_(slope)
        upstream.mul_(rescale[:, None]).addmm_(part.T, weight)
    nll = top - own + total.log()
    if not backward:
        return nll, upstream
    own_slope = 1.0 if head.softcap is None else 1.0 - (own / head.softcap).square_()[:, None]
    return nll, upstream.div_(total[:, None]).sub_(head.weight[labels].to(upstream.dtype).mul_(own_slope))


def _whole(hidden: Tensor, head: Head, labels: Tensor, backward: bool) -> tuple[Tensor, Tensor]:
    """What `_in_passing` gives, over all of the vocabulary at once: for a device with a fast fused softmax."""
    y = labels[:, None]
    logits = head.logits(hidden)
    slope = None if head.softcap is None or not backward else 1.0 - (logits / head.softcap).square_()
    gap = logits.amax(-1, keepdim=True) - logits.gather(-1, y)
    softmax = torch.softmax(logits, -1, out=logits)  # its largest entry is 1 / sum(exp(logits - max))
    nll = (gap - softmax.amax(-1, keepdim=True).log()).squeeze(-1)
    if not backward:
        return nll, hidden
    softmax.scatter_add_(-1, y, torch.full_like(y, -1, dtype=softmax.dtype))  # d nll / d logits = softmax - onehot
    if slope is not None:
        softmax.mul_(slope)
    return nll, head.product(softmax, hidden.dtype)
