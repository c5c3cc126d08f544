"""A few rows times NF4 weights with a LoRA beside them, as one Triton kernel. Imported only where Triton is there.

Owns: the kernel. Does not know: when it is chosen (`kernels.py`).
Units: x (n, K), packed weights of two values a byte, the first in the high half, row by row; a scale for each 64
values, which is a byte itself with a scale for each 256 of them and one offset for all (QLoRA, arXiv 2305.14314).

A program makes TILE outputs of every row. It reads the bytes of its weight rows once, in pieces of BLOCKS blocks,
whatever the number of rows, keeps its sums apart until the end, and adds what the adapter says before it writes.
"""

from __future__ import annotations

import triton
import triton.language as tl

HALF = tl.constexpr(32)  # bytes of a block of 64 values


@triton.jit  # type: ignore[untyped-decorator]
def nf4_rows(  # type: ignore[no-untyped-def]  # Triton reads annotations as its own
    x_at, packed_at, code_at, scales_at, inner_code_at, inner_scales_at, offset_at, bias_at, low_at, b_at, out_at,
    scaling, N, K, low_step, b_step,
    ROWS: tl.constexpr, RANK: tl.constexpr, HAS_BIAS: tl.constexpr, TILE: tl.constexpr, BLOCKS: tl.constexpr,
    PADDED: tl.constexpr, RANKS: tl.constexpr,
):  # fmt: skip
    """TILE outputs of each row: y = x W^T + bias + scaling low B^T, summed up in float32.

    `low`: (n, RANK), x A^T; RANK 0: no adapter. `BLOCKS`: of 64 values, that one turn takes of each weight row.
    """
    rows = tl.program_id(0) * TILE + tl.arange(0, TILE)
    inside = rows < N
    per_row = K // 64
    group = tl.arange(0, BLOCKS)
    byte = tl.arange(0, HALF)
    line = tl.arange(0, PADDED)
    offset = tl.load(offset_at).to(tl.float32)
    parts = tl.zeros((PADDED, TILE, BLOCKS, HALF), dtype=tl.float32)
    for start in range(0, per_row, BLOCKS):
        block = start + group
        there = block < per_row
        known = inside[:, None] & there[None, :]
        number = rows[:, None] * per_row + block[None, :]
        # 1. the scale of each block of 64 values
        quantised = tl.load(scales_at + number, mask=known, other=0).to(tl.int32)
        scale = tl.load(inner_code_at + quantised) * tl.load(inner_scales_at + number // 256, mask=known, other=0.0)
        scale = scale + offset
        # 2. two values of each byte
        pairs = tl.load(packed_at + number[:, :, None] * HALF + byte[None, None, :], mask=known[:, :, None], other=0)
        index = pairs.to(tl.int32)
        first = tl.load(code_at + (index >> 4)) * scale[:, :, None]
        second = tl.load(code_at + (index & 15)) * scale[:, :, None]
        # 3. times x
        place = line[:, None, None] * K + block[None, :, None] * 64 + byte[None, None, :] * 2
        seen = (line < ROWS)[:, None, None] & there[None, :, None]
        even = tl.load(x_at + place, mask=seen, other=0.0).to(tl.float32)
        odd = tl.load(x_at + place + 1, mask=seen, other=0.0).to(tl.float32)
        parts += first[None] * even[:, None] + second[None] * odd[:, None]
    total = tl.sum(tl.sum(parts, 3), 2)
    if HAS_BIAS:
        total += tl.load(bias_at + rows, mask=inside, other=0.0).to(tl.float32)[None, :]
    if RANK > 0:
        rank = tl.arange(0, RANKS)
        b = tl.load(
            b_at + rows[:, None] * b_step + rank[None, :], mask=inside[:, None] & (rank < RANK)[None, :], other=0.0
        ).to(tl.float32)
        seen = (line < ROWS)[:, None] & (rank < RANK)[None, :]
        low = tl.load(low_at + line[:, None] * low_step + rank[None, :], mask=seen, other=0.0).to(tl.float32)
        total += tl.sum(low[:, None, :] * b[None], 2) * scaling
    kept = (line < ROWS)[:, None] & inside[None, :]
    tl.store(out_at + line[:, None] * N + rows[None, :], total.to(out_at.dtype.element_ty), mask=kept)
