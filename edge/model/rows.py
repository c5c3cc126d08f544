"""A step's small work, in one kernel of ours where torch takes several; each beside its plain equivalent.

Owns: how the kernels are started, and what they stand for. Does not know: blocks, adapters, when a token is computed.
Units: n texts with a token each; H hidden values, D values of a head, keys and values of a layer (2, n, G, places, D);
rows (n, K).

Keys and values lie with their last two dimensions contiguous.
"""

from __future__ import annotations

import importlib.util

import torch
from torch import Tensor

from .blocks import Norm

PARTS = 32  # at most, that the places are shared out to: so many for each group fill a large GPU
TURN_BYTES = 1 << 14  # of keys, and as many of values, that a program takes at a time
PIECE = 1024  # values of a row
LEAST = 16  # of each side of a small product on tensor cores


def are_there() -> bool:
    """Whether there is what compiles them."""
    return importlib.util.find_spec("triton") is not None


def add_and_norm(hidden: Tensor, row: Tensor | None, after: Norm | None, norm: Norm) -> Tensor:
    """(n, H) RMS norm of hidden + row, which is in `hidden` afterwards; of hidden alone without a row.

    Args:
        after: a norm of `row` itself, before the sum.
    """
    from .row_kernels import add_and_norm as kernel

    count, size = hidden.shape
    out = torch.empty_like(hidden)
    scale, eps = norm
    own, own_eps = after or norm
    width = power(size)
    kernel[(count,)](
        hidden, hidden if row is None else row, own, scale, out, own_eps, eps, size,
        HAS_ROW=row is not None, HAS_AFTER=after is not None, WIDTH=width, num_warps=min(16, max(1, width // 256)),
    )  # fmt: skip
    return out


def turn_and_keep(
    query: Tensor, key: Tensor, value: Tensor, angles: tuple[Tensor, Tensor], at: Tensor,
    norms: tuple[Norm, Norm] | None, held: Tensor,
) -> Tensor:  # fmt: skip
    """(n, heads D) queries, normed and rotated; keys, too, which lie in `held` afterwards, and so do values.

    Args:
        query: (n, heads D); key, value: (n, G D).
        angles: cos and sin (n, D) of the tokens' positions, sin with the sign of (-second half, first half).
        at: (n,) positions; a token lies in place `at` modulo places.
    """
    from .row_kernels import turn_and_keep as kernel

    count = len(query)
    _, _, groups, places, size = held.shape
    _known(held)
    heads = query.shape[1] // size
    out = torch.empty_like(query)
    cos, sin = angles
    if cos.shape[-1] != size:
        raise ValueError(f"{cos.shape[-1]} of {size} values of a head are rotated; expected all")
    (query_scale, query_eps), (key_scale, key_eps) = norms or ((cos, 0.0), (cos, 0.0))
    kernel[(count, heads + 2 * groups)](
        query, key, value, cos, sin, at, query_scale, key_scale, out, held, query_eps, key_eps, heads, groups, places,
        held.stride(0), held.stride(1), held.stride(2), D=size, WIDTH=power(size), HAS_NORM=norms is not None,
        num_warps=1,
    )  # fmt: skip
    return out


def attend(query: Tensor, held: Tensor, at: Tensor, scaling: float, softcap: float | None = None) -> Tensor:
    """(n, heads D) of what queries (n, heads D) take from the tokens in `held` up to their own position `at` (n,).

    A token that has no place of its own any more, `at` >= places, sees every place: those are the last ones.
    """
    from .row_kernels import attend as kernel
    from .row_kernels import gather

    count = len(query)
    _, _, groups, places, size = held.shape
    _known(held)
    heads = query.shape[1] // size
    each = heads // groups
    width = max(LEAST, power(size))
    turn = max(LEAST, min(64, TURN_BYTES // (width * query.dtype.itemsize)))
    turns = -(-places // (turn * PARTS))
    parts = -(-places // (turn * turns))
    sums = torch.empty(count * heads * parts * size, device=query.device)
    tops = torch.empty(count * heads * parts * 2, device=query.device)
    kernel[(count * groups, parts)](
        query, held, at, sums, tops, scaling, softcap or 1.0, places, parts, turns, held.stride(0), held.stride(1),
        held.stride(2), GROUPS=groups, EACH=each, EACH_WIDTH=max(LEAST, power(each)), D=size, WIDTH=width, TURN=turn,
        CAPPED=softcap is not None, num_warps=4,
    )  # fmt: skip
    out = torch.empty_like(query)
    gather[(count, heads)](
        sums, tops, at, out, places, parts, turn * turns,
        HEADS=heads, EACH=each, D=size, WIDTH=width, PARTS=PARTS, num_warps=4,
    )  # fmt: skip
    return out


def times_a(x: Tensor, a: Tensor) -> Tensor:
    """(n, r) of rows (n, K) times A^T, A (r, K)."""
    from .row_kernels import times_a as kernel

    count, width = x.shape
    out = torch.empty(count, len(a), dtype=x.dtype, device=x.device)
    kernel[(len(a),)](x, a, out, width, count, len(a), COUNT=power(count), PIECE=PIECE, num_warps=4)
    return out


def silu_times(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) up, in the place of `gate`."""
    from .row_kernels import silu_times as kernel

    count = gate.numel()
    kernel[(-(-count // PIECE),)](gate, up, count, PIECE=PIECE, num_warps=4)
    return gate


def _known(held: Tensor) -> None:
    """Raises ValueError where keys and values do not lie as the kernels read them."""
    if held.stride()[3:] != (held.shape[4], 1):
        raise ValueError(f"keys and values with strides {held.stride()}; expected the last two dimensions in one piece")


def power(count: int) -> int:
    """The least power of 2 that is not below it."""
    return 1 << (count - 1).bit_length()
