"""Attention without masks: causal and sliding-window attention computed only where it is not zero.

Owns: the attention function that every base uses, registered with transformers as `templora`.
Does not know: models, caches, learning.
Units: tokens; shapes (1, heads, tokens, head size).

Plain equivalent: softmax(scale * Q K^T + mask) V with a dense mask of (queries, keys). Here full attention goes to
torch's own causal kernel, and sliding or soft-capped attention runs over blocks of queries against the keys that
they can see, in the way of FlashAttention-2's backward (arXiv 2307.08691): probabilities are recomputed, not kept.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..memory.families import FUSED
from ..memory.sizes import ATTENTION_BLOCK

NAME = "templora"


def use(model: Any) -> bool:
    """Gives the model this attention function, through transformers' registry; False where it keeps its own.

    Only architectures whose layers are known to be causal or sliding and to pass their window along.
    """
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    if model.config.get_text_config().model_type not in FUSED:
        return False
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, _no_mask)
    model.set_attn_implementation(NAME)
    return True


def is_used(model: Any) -> bool:
    """Whether the model has this attention function."""
    return bool(getattr(model.config, "_attn_implementation", None) == NAME)


def _no_mask(*args: Any, **kwargs: Any) -> None:
    """The function below knows from the shapes alone what each query sees; a document is never padded."""
    return None


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Causal attention of the last S_q of S_k tokens, in transformers' calling convention.

    Args:
        query: (1, H, S_q, D).
        key, value: (1, G, S_k, D); each of the G groups serves H / G heads.
        sliding_window: how many tokens each query sees, itself included; None for all.
        softcap: c of c * tanh(scores / c) (Gemma 2), or None.

    Returns:
        (1, S_q, H, D), and None for the weights that are never made.
    """
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    queries = query.shape[2]
    keys = key.shape[2]
    window = keys if sliding_window is None else min(sliding_window, keys)
    if softcap is None and (queries == 1 or (window >= keys and queries == keys)):
        seen = slice(keys - window, keys) if queries == 1 else slice(None)
        out = F.scaled_dot_product_attention(
            query, _repeat(key[:, :, seen], query), _repeat(value[:, :, seen], query),
            is_causal=queries > 1, scale=scale,
        )  # fmt: skip
    elif softcap is None and window >= keys and query.device.type == "cuda":
        from torch.nn.attention.bias import causal_lower_right  # flash attention's own form of a kept prefix

        out = F.scaled_dot_product_attention(
            query, _repeat(key, query), _repeat(value, query), attn_mask=causal_lower_right(queries, keys), scale=scale
        )
    else:
        out = _BlockAttention.apply(query, key, value, window, scale, softcap)  # type: ignore[no-untyped-call]
    return out.transpose(1, 2).contiguous(), None


def dense(query: Tensor, key: Tensor, value: Tensor, window: int, scale: float, softcap: float | None) -> Tensor:
    """The plain equivalent of `attend` that it is tested against: (1, H, S_q, D) with a dense mask."""
    scores = (query @ _repeat(key, query).transpose(-1, -2)) * scale
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    at = torch.arange(key.shape[2] - query.shape[2], key.shape[2], device=query.device)[:, None]
    seen = torch.arange(key.shape[2], device=query.device)[None]
    scores = scores.masked_fill((seen > at) | (seen <= at - window), -torch.inf)
    return scores.softmax(-1) @ _repeat(value, query)


def _repeat(tensor: Tensor, query: Tensor) -> Tensor:
    """(1, G, S, D) as (1, H, S, D): a copy, except with one group or as many as heads. Several texts at once, too."""
    batch, groups, tokens, size = tensor.shape
    heads = query.shape[1]
    if groups == heads:
        return tensor
    return tensor[:, :, None].expand(batch, groups, heads // groups, tokens, size).reshape(batch, heads, tokens, size)


class _BlockAttention(torch.autograd.Function):
    """Blocks of queries against the keys they see; heads that share keys are rows of one matmul."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, window: int, scale: float, softcap: float | None
    ) -> Tensor:
        heads, queries, size = query.shape[1:]
        # laid out as the caller wants it, (S_q, H, D), so that nothing is copied afterwards
        out = torch.empty(1, queries, heads, size, dtype=query.dtype, device=query.device).transpose(1, 2)
        q = _folded(query, key)
        folded = _folded(out, key)
        for rows, seen, mask in _blocks(query, key, window):
            p, _ = _probabilities(q[:, :, rows], key[0][:, seen], mask, scale, softcap)
            folded[:, :, rows] = _product(p.flatten(1, 2), value[0][:, seen]).view(folded[:, :, rows].shape)
            del p, mask  # or the next block's would stand beside them
        ctx.save_for_backward(query, key, value, out)
        ctx.window = window
        ctx.scale = scale
        ctx.softcap = softcap
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None, None]:
        query, key, value, out = ctx.saved_tensors
        q, o, g = (_folded(tensor, key) for tensor in (query, out, grads[0]))
        grad_query = torch.empty_like(query)
        grad_q = _folded(grad_query, key)
        grad_k = torch.zeros_like(key[0])
        grad_v = torch.zeros_like(value[0])  # (G, S_k, D)
        for rows, seen, mask in _blocks(query, key, ctx.window):
            k = key[0][:, seen]
            v = value[0][:, seen]
            upstream = g[:, :, rows].flatten(1, 2)
            p, slope = _probabilities(q[:, :, rows], k, mask, ctx.scale, ctx.softcap, slopes=True)
            flat = p.flatten(1, 2)  # (G, rows of all heads, keys)
            _add_product(grad_v[:, seen], flat.transpose(1, 2), upstream)
            along = (upstream * o[:, :, rows].flatten(1, 2)).sum(-1, keepdim=True)
            grad_s = _product(upstream, v.transpose(1, 2)).sub_(along).mul_(flat)
            if slope is not None:
                grad_s *= slope.flatten(1, 2)
            grad_s *= ctx.scale
            grad_q[:, :, rows] = _product(grad_s, k).view(grad_q[:, :, rows].shape)
            _add_product(grad_k[:, seen], grad_s.transpose(1, 2), q[:, :, rows].flatten(1, 2))
            del p, slope, flat, grad_s, mask
        return grad_query, grad_k[None], grad_v[None], None, None, None


def _product(left: Tensor, right: Tensor) -> Tensor:
    """left @ right, (G, n, m) each; for one group without a batch, which a CPU takes up to twice as long for."""
    return (left[0] @ right[0])[None] if len(left) == 1 else left @ right


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left @ right; see `_product`."""
    if len(total) == 1:
        total[0].addmm_(left[0], right[0])
    else:
        total += left @ right


def _folded(tensor: Tensor, key: Tensor) -> Tensor:
    """(1, H, S, D) seen as (G, H / G, S, D)."""
    groups = key.shape[1]
    heads, tokens, size = tensor.shape[1:]
    return tensor[0].view(groups, heads // groups, tokens, size)


def _blocks(query: Tensor, key: Tensor, window: int) -> Any:
    """Query rows, the keys that any of them sees, and (rows, keys) that are 0, and -inf for what a row does not see."""
    queries = query.shape[2]
    keys = key.shape[2]
    for start in range(0, queries, ATTENTION_BLOCK):
        end = min(start + ATTENTION_BLOCK, queries)
        first = max(0, keys - queries + start - window + 1)
        last = keys - queries + end
        yield slice(start, end), slice(first, last), _mask(query, keys - queries + start, first, last, window)


def _mask(query: Tensor, start: int, first: int, last: int, window: int) -> Tensor:
    """(rows, keys) for queries at [start, last) and keys at [first, last)."""
    at = torch.arange(start, last, device=query.device)[:, None]
    seen = torch.arange(first, last, device=query.device)[None]
    hidden = (seen > at) | (seen <= at - window)
    return torch.zeros(hidden.shape, dtype=query.dtype, device=query.device).masked_fill_(hidden, -torch.inf)


def _probabilities(
    q: Tensor, k: Tensor, mask: Tensor, scale: float, softcap: float | None, *, slopes: bool = False
) -> tuple[Tensor, Tensor | None]:
    """(G, H / G, rows, keys) attention weights, and the slope of the soft cap where there is one."""
    scores = _product(q.flatten(1, 2) * scale, k.transpose(1, 2)).view(*q.shape[:3], k.shape[1])
    slope = None
    if softcap is not None:
        scores.div_(softcap).tanh_()
        slope = scores.square().neg_().add_(1) if slopes else None
        scores.mul_(softcap)
    scores += mask
    if scores.dtype == torch.float32:
        return torch.softmax(scores, -1, out=scores), slope
    return torch.softmax(scores, -1, dtype=torch.float32).to(q.dtype), slope
