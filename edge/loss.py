"""Summed negative log-likelihood of the label positions, never the full logits.

Owns: the head's matmul, the log-softmax, and the gradient of both with respect to the hidden states.
Does not know: the blocks below the head, windows, adapters.
Units: nats.

Sliced in the way of cut-cross-entropy (arXiv 2411.09009) and Liger Kernel (arXiv 2410.10989): a slice of label
positions meets the head, its loss and its gradient are computed at once, and its logits are dropped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .memory import HEAD_BLOCK

PADDING = 64  # columns of the workspace: rows a power of two bytes apart push each other out of a CPU's cache


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
        for block, weight in self.blocks(hidden):
            self.block_logits(hidden, block, weight, out[:, block])
        return out

    def block_logits(self, hidden: Tensor, block: slice, weight: Tensor, out: Tensor) -> Tensor:
        """The logits of one vocabulary block, written to `out` (N, n) float32."""
        if hidden.dtype == weight.dtype == out.dtype:
            torch.mm(hidden, weight.T, out=out)
        else:
            out.copy_(hidden.to(weight.dtype) @ weight.T)
        if self.bias is not None:
            out += self.bias[block]
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

    def partial_product(self, grad_logits: Tensor, entries: Tensor) -> Tensor:
        """`product` over some (n,) vocabulary entries alone: grad_logits (N, n)."""
        return grad_logits @ self.weight[entries].to(grad_logits.dtype)

    def spans(self, like: Tensor) -> list[slice]:
        """Blocks of the vocabulary: on a CPU their weights in the dtype of `like` fit its cache; else all in one."""
        size = self.weight.shape[1] * like.element_size()
        rows = max(1, HEAD_BLOCK // size) if like.device.type == "cpu" else len(self.weight)
        return [slice(start, min(start + rows, len(self.weight))) for start in range(0, len(self.weight), rows)]

    def blocks(self, like: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """`spans` with their weights, (n, H); on a CPU in the dtype of `like`, valid until the next is asked for."""
        spans = self.spans(like)
        narrow = self.weight.dtype != like.dtype and like.device.type == "cpu"
        wide = torch.empty(spans[0].stop, self.weight.shape[1], dtype=like.dtype) if narrow else self.weight
        for block in spans:
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
        blockwise = hidden.device.type == "cpu" and hidden.dtype == torch.float32
        one_slice = _by_blocks if blockwise else _whole
        vocabulary = len(head.weight)
        workspace = torch.empty(size, vocabulary + (PADDING if blockwise else 0), device=hidden.device)[:, :vocabulary]
        for start in range(0, count, size):
            rows = slice(start, min(start + size, count))
            logits = workspace[: rows.stop - rows.start]
            nll[rows], upstream = one_slice(hidden[rows], head, labels[rows], logits, grad is not None, gradient_filter)
            if grad is not None:
                grad[rows] = upstream.mul_(head.scale / count)
        ctx.mark_non_differentiable(nll)
        if grad is not None:
            ctx.save_for_backward(grad)
        return nll.mean(), nll

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None, None, None]:
        (grad,) = ctx.saved_tensors
        return grad * upstream[0].to(grad.dtype), None, None, None, None


def _by_blocks(
    hidden: Tensor, head: Head, labels: Tensor, logits: Tensor, backward: bool, gradient_filter: float
) -> tuple[Tensor, Tensor]:
    """(N,) nats and the (N, H) gradient of their sum with respect to `hidden` / `head.scale`; `logits` is workspace.

    What is done to a vocabulary block is done while it is in the CPU's cache. In float32 only: the label's share is
    taken off last, from numbers as large as itself.
    """
    y = labels[:, None]
    # 1. logits, and the largest of each row
    top = torch.full((len(hidden), 1), -torch.inf)
    for block, weight in head.blocks(hidden):
        torch.maximum(top, head.block_logits(hidden, block, weight, logits[:, block]).amax(-1, keepdim=True), out=top)
    own = logits.gather(-1, y)
    own_slope = 1.0 if head.softcap is None else 1.0 - (own / head.softcap).square_()
    # 2. exp(logits - top) and its sum; its product with the weight is the gradient, but for that sum and the label
    total = torch.zeros_like(top)
    fused = backward and not gradient_filter
    upstream = torch.zeros_like(hidden)
    blocks: Iterable[tuple[slice, Tensor | None]]
    blocks = head.blocks(hidden) if fused else ((block, None) for block in head.spans(hidden))
    for block, wide in blocks:
        part = logits[:, block]
        slope = None if head.softcap is None or not backward else 1.0 - (part / head.softcap).square_()
        total += part.sub_(top).exp_().sum(-1, keepdim=True)
        if slope is not None:
            part.mul_(slope)
        if wide is not None:
            upstream.addmm_(part, wide)
    nll = (top - own + total.log()).squeeze(-1)
    if not backward:
        return nll, upstream
    if gradient_filter:
        largest = torch.empty(len(head.weight))
        for block in head.spans(hidden):
            largest[block] = (logits[:, block] / total).amax(0)
        entries = _likely(largest[None], labels, gradient_filter)
        upstream = head.partial_product(logits.index_select(1, entries), entries)
    return nll, upstream.div_(total).sub_(head.weight[labels].to(upstream.dtype).mul_(own_slope))


def _whole(
    hidden: Tensor, head: Head, labels: Tensor, logits: Tensor, backward: bool, gradient_filter: float
) -> tuple[Tensor, Tensor]:
    """What `_by_blocks` gives, over all of the vocabulary at once: for a device with a fast fused softmax."""
    y = labels[:, None]
    head.logits_into(hidden, logits)
    slope = None if head.softcap is None or not backward else 1.0 - (logits / head.softcap).square_()
    gap = logits.amax(-1, keepdim=True) - logits.gather(-1, y)
    softmax = torch.softmax(logits, -1, out=logits)  # its largest entry is 1 / sum(exp(logits - max))
    nll = (gap - softmax.amax(-1, keepdim=True).log()).squeeze(-1)
    if not backward:
        return nll, hidden
    entries = _likely(softmax, labels, gradient_filter) if gradient_filter else None
    softmax.scatter_add_(-1, y, torch.full_like(y, -1, dtype=softmax.dtype))  # d nll / d logits = softmax - onehot
    if slope is not None:
        softmax.mul_(slope)
    if entries is None:
        return nll, head.product(softmax, hidden.dtype)
    return nll, head.partial_product(softmax.index_select(1, entries), entries).to(hidden.dtype)


def _likely(softmax: Tensor, labels: Tensor, threshold: float) -> Tensor:
    """(n,) vocabulary entries that are likelier than `threshold` somewhere in (N, V), or labels."""
    kept = softmax.amax(0) > threshold
    kept[labels] = True
    return kept.nonzero().squeeze(1)
