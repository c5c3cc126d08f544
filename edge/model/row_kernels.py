"""What a step computes besides its large products, as Triton kernels. Imported only where Triton is there.

Owns: the kernels. Does not know: when they are used (`rows.py`).
Units: n texts with a token each; H hidden values, D values of a head, keys and values of a layer (2, n, G, places, D).

A step in torch's own kernels starts some thirty for a block, most of which move a few kilobytes: starting them is what
takes the time. And attention of one token to a thousand others is work for the whole GPU only when the others are
shared out (as in "flash decoding"; the running softmax is that of arXiv 2205.14135).
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit  # type: ignore[untyped-decorator]
def add_and_norm(  # type: ignore[no-untyped-def]  # Triton reads annotations as its own
    hidden_at, row_at, after_at, scale_at, out_at, after_eps, eps, H,
    HAS_ROW: tl.constexpr, HAS_AFTER: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """hidden += row, or an RMS norm of it; out = RMS norm of hidden. A program for each text."""
    text = tl.program_id(0)
    place = tl.arange(0, WIDTH)
    inside = place < H
    hidden = tl.load(hidden_at + text * H + place, mask=inside, other=0.0)
    if HAS_ROW:
        row = tl.load(row_at + text * H + place, mask=inside, other=0.0).to(tl.float32)
        if HAS_AFTER:
            after = tl.load(after_at + place, mask=inside, other=0.0).to(tl.float32)
            row = row * tl.rsqrt(tl.sum(row * row, 0) / H + after_eps) * after
        hidden = (hidden.to(tl.float32) + row).to(hidden_at.dtype.element_ty)
        tl.store(hidden_at + text * H + place, hidden, mask=inside)
    wide = hidden.to(tl.float32)
    scale = tl.load(scale_at + place, mask=inside, other=0.0).to(tl.float32)
    wide = wide * tl.rsqrt(tl.sum(wide * wide, 0) / H + eps) * scale
    tl.store(out_at + text * H + place, wide.to(out_at.dtype.element_ty), mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def turn_and_keep(  # type: ignore[no-untyped-def]
    query_at, key_at, value_at, cos_at, sin_at, at_at, query_scale_at, key_scale_at, turned_at, held_at,
    query_eps, key_eps, heads, groups, places, kept_step, text_step, group_step,
    D: tl.constexpr, WIDTH: tl.constexpr, HAS_NORM: tl.constexpr,
):  # fmt: skip
    """Norms and rotates a token's queries and keys, and puts keys and values into their place.

    A program for each text and head: `heads` of queries, `groups` of keys, `groups` of values.
    `cos`, `sin`: (n, D), the second with the sign of (-second half, first half).
    """
    text = tl.program_id(0).to(tl.int64)  # texts side by side may hold more than 2**31 values
    head = tl.program_id(1)
    one = tl.arange(0, WIDTH)
    inside = one < D
    other = (one + D // 2) % D
    at = tl.load(at_at + text)
    if head >= heads + groups:
        group = head - heads - groups
        value = tl.load(value_at + (text * groups + group) * D + one, mask=inside, other=0.0)
        kept = held_at + kept_step + text * text_step + group * group_step + (at % places) * D
        tl.store(kept + one, value, mask=inside)
    else:
        from_at = query_at + (text * heads + head) * D
        scale_at = query_scale_at
        eps = query_eps
        to_at = turned_at + (text * heads + head) * D
        if head >= heads:
            group = head - heads
            from_at = key_at + (text * groups + group) * D
            scale_at = key_scale_at
            eps = key_eps
            to_at = held_at + text * text_step + group * group_step + (at % places) * D
        row = tl.load(from_at + one, mask=inside, other=0.0).to(tl.float32)
        beside = tl.load(from_at + other, mask=inside, other=0.0).to(tl.float32)
        if HAS_NORM:
            size = tl.rsqrt(tl.sum(row * row, 0) / D + eps)
            row = row * size * tl.load(scale_at + one, mask=inside, other=0.0).to(tl.float32)
            beside = beside * size * tl.load(scale_at + other, mask=inside, other=0.0).to(tl.float32)
        cos = tl.load(cos_at + text * D + one, mask=inside, other=0.0).to(tl.float32)
        sin = tl.load(sin_at + text * D + one, mask=inside, other=0.0).to(tl.float32)
        tl.store(to_at + one, (row * cos + beside * sin).to(to_at.dtype.element_ty), mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def attend(  # type: ignore[no-untyped-def]
    query_at, held_at, at_at, sums_at, tops_at, scaling, softcap, places, parts, turns, kept_step, text_step,
    group_step,
    GROUPS: tl.constexpr, EACH: tl.constexpr, EACH_WIDTH: tl.constexpr, D: tl.constexpr, WIDTH: tl.constexpr,
    TURN: tl.constexpr, CAPPED: tl.constexpr,
):  # fmt: skip
    """A part of what a group's queries take from the tokens before them: `turns` times TURN places.

    A program for each text and group, and for each part. `sums`: (n, G, parts, EACH, D) float32, weighted values, to be
    divided by the weights' sum; `tops`: (n, G, parts, EACH, 2), the largest score and the sum.
    """
    row = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    text = row // GROUPS
    group = row % GROUPS
    each = tl.arange(0, EACH_WIDTH)
    one = tl.arange(0, WIDTH)
    known = tl.minimum(tl.load(at_at + text) + 1, places)
    first = part * TURN * turns
    if first < known:
        mine = (each < EACH)[:, None] & (one < D)[None, :]
        query = tl.load(query_at + (row * EACH + each[:, None]) * D + one[None, :], mask=mine, other=0.0)
        keys_at = held_at + text * text_step + group * group_step
        top = tl.full((EACH_WIDTH,), -float("inf"), dtype=tl.float32)
        total = tl.zeros((EACH_WIDTH,), dtype=tl.float32)
        sums = tl.zeros((EACH_WIDTH, WIDTH), dtype=tl.float32)
        for turn in range(turns):
            place = first + turn * TURN + tl.arange(0, TURN)
            there = place < known
            held = there[:, None] & (one < D)[None, :]
            key = tl.load(keys_at + place[:, None] * D + one[None, :], mask=held, other=0.0)
            value = tl.load(keys_at + kept_step + place[:, None] * D + one[None, :], mask=held, other=0.0)
            scores = tl.dot(query, tl.trans(key), input_precision="ieee") * scaling
            if CAPPED:
                scores = scores / softcap
                scores = softcap * (2 / (1 + tl.exp(-2 * scores)) - 1)
            scores = tl.where(there[None, :], scores, -float("inf"))
            above = tl.maximum(top, tl.max(scores, 1))
            settled = tl.where(above == -float("inf"), 0.0, above)  # a turn of which nothing is known changes nothing
            weights = tl.exp(scores - settled[:, None])
            before = tl.exp(top - settled)
            total = total * before + tl.sum(weights, 1)
            sums = sums * before[:, None] + tl.dot(weights.to(value.dtype), value, input_precision="ieee")
            top = above
        number = (row * parts + part) * EACH + each
        tl.store(sums_at + number[:, None] * D + one[None, :], sums, mask=mine)
        tl.store(tops_at + number * 2, top, mask=each < EACH)
        tl.store(tops_at + number * 2 + 1, total, mask=each < EACH)


@triton.jit  # type: ignore[untyped-decorator]
def gather(  # type: ignore[no-untyped-def]
    sums_at, tops_at, at_at, out_at, places, parts, span,
    HEADS: tl.constexpr, EACH: tl.constexpr, D: tl.constexpr, WIDTH: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """The parts of `attend` together, at most PARTS of `span` places each. A program for each text and head."""
    text = tl.program_id(0)
    head = tl.program_id(1)
    part = tl.arange(0, PARTS)
    one = tl.arange(0, WIDTH)
    known = tl.minimum(tl.load(at_at + text) + 1, places)
    there = (part < parts) & (part * span < known)
    number = ((text * HEADS + head) // EACH * parts + part) * EACH + head % EACH
    tops = tl.load(tops_at + number * 2, mask=there, other=-float("inf"))
    totals = tl.load(tops_at + number * 2 + 1, mask=there, other=0.0)
    weights = tl.exp(tops - tl.max(tops, 0))
    sums = tl.load(sums_at + number[:, None] * D + one[None, :], mask=there[:, None] & (one < D)[None, :], other=0.0)
    out = tl.sum(sums * weights[:, None], 0) / tl.sum(totals * weights, 0)
    tl.store(out_at + (text * HEADS + head) * D + one, out.to(out_at.dtype.element_ty), mask=one < D)


@triton.jit  # type: ignore[untyped-decorator]
def times_a(  # type: ignore[no-untyped-def]
    x_at, a_at, out_at, K, count, ranks, COUNT: tl.constexpr, PIECE: tl.constexpr,
):  # fmt: skip
    """(n, r) of rows (n, K) times A^T: what an adapter makes of them first. A program for each row of A (r, K)."""
    rank = tl.program_id(0)
    line = tl.arange(0, COUNT)
    one = tl.arange(0, PIECE)
    parts = tl.zeros((COUNT, PIECE), dtype=tl.float32)
    for start in range(0, K, PIECE):
        inside = start + one < K
        a = tl.load(a_at + rank * K + start + one, mask=inside, other=0.0).to(tl.float32)
        x = tl.load(
            x_at + line[:, None] * K + start + one[None, :], mask=(line < count)[:, None] & inside[None, :], other=0.0
        ).to(tl.float32)
        parts += x * a[None, :]
    total = tl.sum(parts, 1)
    tl.store(out_at + line * ranks + rank, total.to(out_at.dtype.element_ty), mask=line < count)


@triton.jit  # type: ignore[untyped-decorator]
def silu_times(gate_at, up_at, count, PIECE: tl.constexpr):  # type: ignore[no-untyped-def]
    """gate = silu(gate) up (arXiv 2002.05202)."""
    place = tl.program_id(0) * PIECE + tl.arange(0, PIECE)
    inside = place < count
    gate = tl.load(gate_at + place, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(up_at + place, mask=inside, other=0.0).to(tl.float32)
    tl.store(gate_at + place, (gate / (1 + tl.exp(-gate)) * up).to(gate_at.dtype.element_ty), mask=inside)
