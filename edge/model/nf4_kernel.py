"""NF4 weights times one row, or times a few, with a LoRA beside them: two Triton kernels, and how values are unpacked.

Owns: the kernels. Does not know: when they are chosen (`kernels.py`). Imported only where Triton is there.
Units: x (n, K), packed weights of two values a byte, the first in the high half, row by row; a scale for each 64
values, which is a byte itself with a scale for each 256 of them and one offset for all (QLoRA, arXiv 2305.14314).

A row times NF4 takes a large GPU as long as one times four times the bytes in 16 bits (H200), so what is done for a
byte counts more than reading it. A value is not looked up in memory: four bytes of weights name eight of sixteen values
of 16 bits, and `prmt`, which permutes the bytes of two registers, finds four low or high halves of them at a time.
Without PTX, values are looked up.
"""

from __future__ import annotations

import triton
import triton.language as tl


def _unpacking(wide: bool) -> str:
    """PTX from four bytes to the values v0 ... v3 and v4 ... v7 in their order: of 16 bits, or widened to float32.

    Operands: 4 registers of 16-bit pairs (or 8 of float32), the bytes, then 4 times each of 8 registers of tables: the
    low bytes of the codes 0-3, 4-7, 8-11, 12-15, and the high ones. They come 4 times as an operand is read for each of
    4 values; a table in a register of each thread costs no move at each use, as a constant does.
    """
    outputs = 8 if wide else 4
    low = [f"${outputs + 1 + 4 * table}" for table in range(4)]
    high = [f"${outputs + 17 + 4 * table}" for table in range(4)]
    lines = [
        ".reg .b32 which, upper, mask, p, q, l, h;",
        f"and.b32 which, ${outputs}, 0x77777777;",  # a place among 8 codes ...
        f"shr.u32 upper, ${outputs}, 3;",
        "and.b32 upper, upper, 0x11111111;",  # ... and whether among the upper 8
    ]
    for half in range(2):
        if half:
            lines += ["shr.u32 which, which, 16;", "shr.u32 upper, upper, 16;"]
        lines.append("prmt.b32 mask, 0x0000ff00, 0, upper;")
        for out, table in (("l", low), ("h", high)):
            lines += [
                f"prmt.b32 p, {table[0]}, {table[1]}, which;",
                f"prmt.b32 q, {table[2]}, {table[3]}, which;",
                f"lop3.b32 {out}, mask, q, p, 0xca;",  # mask ? q : p
            ]
        first = 4 * half if wide else 2 * half
        if wide:
            lines += ["prmt.b32 p, l, h, 0x4051;", "prmt.b32 q, l, h, 0x6273;"]
            for place, pair in enumerate(("p", "q")):
                lines += [
                    f"shl.b32 ${first + 2 * place}, {pair}, 16;",
                    f"and.b32 ${first + 2 * place + 1}, {pair}, 0xffff0000;",
                ]
        else:
            lines += [f"prmt.b32 ${first}, l, h, 0x4051;", f"prmt.b32 ${first + 1}, l, h, 0x6273;"]
    return "{\n" + "\n".join(lines) + "\n}"


UNPACK = tl.constexpr(_unpacking(wide=False))
UNPACK_OPERANDS = tl.constexpr("=&r," * 4 + "r" + ",r" * 32)
WIDEN = tl.constexpr(_unpacking(wide=True))
WIDEN_OPERANDS = tl.constexpr("=&r," * 8 + "r" + ",r" * 32)


@triton.jit
def _tables(own):  # type: ignore[no-untyped-def]  # Triton reads annotations as its own
    """The 8 registers of tables, one of each for each block."""
    return (
        tl.load(own), tl.load(own + 1), tl.load(own + 2), tl.load(own + 3),
        tl.load(own + 4), tl.load(own + 5), tl.load(own + 6), tl.load(own + 7),
    )  # fmt: skip


@triton.jit
def _scale(scales_at, inner_code_at, inner_scales_at, offset, number, known):  # type: ignore[no-untyped-def]
    """The scale of each block of 64 values, by the blocks' numbers."""
    quantised = tl.load(scales_at + number, mask=known, other=0).to(tl.int32)
    inner = tl.load(inner_scales_at + number // 256, mask=known, other=0.0)
    return tl.load(inner_code_at + quantised) * inner + offset


@triton.jit
def _looked_up(at, code_at, byte, known):  # type: ignore[no-untyped-def]
    """What PTX unpacks, without it: of each 4 bytes v0 ... v3 and v4 ... v7. `byte`: their numbers, shaped."""
    named = byte // 4 * 4 + byte % 4 // 2
    shift = 4 - byte % 2 * 4
    first = tl.load(at + named, mask=known, other=0).to(tl.int32)
    second = tl.load(at + named + 2, mask=known, other=0).to(tl.int32)
    return tl.load(code_at + (first >> shift & 15)), tl.load(code_at + (second >> shift & 15))


@triton.jit  # type: ignore[untyped-decorator]
def nf4_row(  # type: ignore[no-untyped-def]
    x_at, packed_at, table_at, code_at, scales_at, inner_code_at, inner_scales_at, offset_at, bias_at, low_at, b_at,
    out_at, scaling, N, K, count, low_step, b_step,
    RANK: tl.constexpr, HAS_BIAS: tl.constexpr, TILE: tl.constexpr, BLOCKS: tl.constexpr,
    RANKS: tl.constexpr, PTX: tl.constexpr,
):  # fmt: skip
    """TILE outputs of one row: y = x W^T + bias + scaling low B^T, summed up in float32.

    `low`: (1, RANK), x A^T; RANK 0: no adapter. `BLOCKS`: of 64 values, that one turn takes of each weight row, half a
    block a thread. `table`: (64, 8), the codes' bytes; `code`: (16,), the codes.
    """
    rows = tl.program_id(0) * TILE + tl.arange(0, TILE)
    inside = rows < N
    per_row = K // 64
    group = tl.arange(0, BLOCKS)
    half = tl.arange(0, 2)
    byte = tl.arange(0, 16)
    four = tl.arange(0, 4)
    offset = tl.load(offset_at)
    if PTX:
        l0, l1, l2, l3, h0, h1, h2, h3 = _tables(table_at + group * 8)
        l0, l1, l2, l3 = (
            l0[None, :, None, None],
            l1[None, :, None, None],
            l2[None, :, None, None],
            l3[None, :, None, None],
        )
        h0, h1, h2, h3 = (
            h0[None, :, None, None],
            h1[None, :, None, None],
            h2[None, :, None, None],
            h3[None, :, None, None],
        )
    parts = tl.zeros((TILE, BLOCKS, 2), dtype=tl.float32)
    for start in range(0, per_row, BLOCKS):
        block = start + group
        there = block < per_row
        known = inside[:, None] & there[None, :]
        number = rows[:, None] * per_row + block[None, :]
        at = packed_at + number[:, :, None, None] * 32 + half[None, None, :, None] * 16
        # 1. two values of each byte, v0 ... v3 and v4 ... v7 of each eight
        if PTX:
            pairs = tl.load(at + byte[None, None, None, :], mask=known[:, :, None, None], other=0)
            first, second = tl.inline_asm_elementwise(
                WIDEN, WIDEN_OPERANDS, [pairs, l0, l1, l2, l3, h0, h1, h2, h3],
                dtype=(tl.float32, tl.float32), is_pure=True, pack=4,
            )  # fmt: skip
        else:
            first, second = _looked_up(at, code_at, byte[None, None, None, :], known[:, :, None, None])
        scale = _scale(scales_at, inner_code_at, inner_scales_at, offset, number, known)
        # 2. times x, which each thread reads in the order that it has the weights in
        place = (block[None, :, None] * 64 + half[None, None, :] * 32 + rows[:, None, None] * 0)[:, :, :, None, None]
        place = x_at + place + four[None, None, None, :, None] * 8 + four[None, None, None, None, :]
        seen = known[:, :, None, None, None]
        before = tl.reshape(tl.load(place, mask=seen, other=0.0), (TILE, BLOCKS, 2, 16)).to(tl.float32)
        behind = tl.reshape(tl.load(place + 4, mask=seen, other=0.0), (TILE, BLOCKS, 2, 16)).to(tl.float32)
        parts += tl.sum(first * before + second * behind, 3) * scale[:, :, None]
    total = tl.sum(tl.sum(parts, 2), 1)
    if HAS_BIAS:
        total += tl.load(bias_at + rows, mask=inside, other=0.0).to(tl.float32)
    if RANK > 0:
        rank = tl.arange(0, RANKS)
        held = inside[:, None] & (rank < RANK)[None, :]
        b = tl.load(b_at + rows[:, None] * b_step + rank[None, :], mask=held, other=0.0).to(tl.float32)
        low = tl.load(low_at + rank, mask=rank < RANK, other=0.0).to(tl.float32)
        total += tl.sum(low[None, :] * b, 1) * scaling
    tl.store(out_at + rows, total.to(out_at.dtype.element_ty), mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def nf4_rows(  # type: ignore[no-untyped-def]
    x_at, packed_at, table_at, code_at, scales_at, inner_code_at, inner_scales_at, offset_at, bias_at, low_at, b_at,
    out_at, scaling, N, K, count, low_step, b_step,
    RANK: tl.constexpr, HAS_BIAS: tl.constexpr, TILE: tl.constexpr, BLOCKS: tl.constexpr,
    RANKS: tl.constexpr, PTX: tl.constexpr,
):  # fmt: skip
    """TILE outputs of each of up to 8 rows on tensor cores: what `nf4_row` gives of one.

    BLOCKS blocks of 64 values are as many products beside each other, and each has its scale afterwards.
    """
    rows = tl.program_id(0) * TILE + tl.arange(0, TILE)
    inside = rows < N
    per_row = K // 64
    group = tl.arange(0, BLOCKS)
    byte = tl.arange(0, 32)
    line = tl.arange(0, 8)
    eight = tl.arange(0, 8)
    four = tl.arange(0, 4)
    kind = x_at.dtype.element_ty
    offset = tl.load(offset_at)
    if PTX:
        l0, l1, l2, l3, h0, h1, h2, h3 = _tables(table_at + group * 8)
        l0, l1, l2, l3 = l0[:, None, None], l1[:, None, None], l2[:, None, None], l3[:, None, None]
        h0, h1, h2, h3 = h0[:, None, None], h1[:, None, None], h2[:, None, None], h3[:, None, None]
    parts = tl.zeros((BLOCKS, TILE, 8), dtype=tl.float32)
    for start in range(0, per_row, BLOCKS):
        block = start + group
        there = block < per_row
        known = there[:, None] & inside[None, :]
        number = rows[None, :] * per_row + block[:, None]
        at = packed_at + number[:, :, None] * 32
        if PTX:
            pairs = tl.load(at + byte[None, None, :], mask=known[:, :, None], other=0)
            first, second = tl.inline_asm_elementwise(
                UNPACK, UNPACK_OPERANDS, [pairs, l0, l1, l2, l3, h0, h1, h2, h3],
                dtype=(kind, kind), is_pure=True, pack=4,
            )  # fmt: skip
        else:
            first, second = _looked_up(at, code_at, byte[None, None, :], known[:, :, None])
            first, second = first.to(kind), second.to(kind)
        scale = _scale(scales_at, inner_code_at, inner_scales_at, offset, number, known)
        place = line[None, :, None, None] * K + block[:, None, None, None] * 64
        place = x_at + place + eight[None, None, :, None] * 8 + four[None, None, None, :]
        seen = ((line < count)[None, :] & there[:, None])[:, :, None, None]
        before = tl.reshape(tl.load(place, mask=seen, other=0.0), (BLOCKS, 8, 32))
        behind = tl.reshape(tl.load(place + 4, mask=seen, other=0.0), (BLOCKS, 8, 32))
        product = tl.dot(first, tl.permute(before, (0, 2, 1)), input_precision="ieee")
        product = tl.dot(second, tl.permute(behind, (0, 2, 1)), product, input_precision="ieee")
        parts += product * scale[:, :, None]
    total = tl.sum(parts, 0)
    if HAS_BIAS:
        total += tl.load(bias_at + rows, mask=inside, other=0.0).to(tl.float32)[:, None]
    kept = inside[:, None] & (line < count)[None, :]
    if RANK > 0:
        rank = tl.arange(0, RANKS)
        held = inside[:, None] & (rank < RANK)[None, :]
        b = tl.load(b_at + rows[:, None] * b_step + rank[None, :], mask=held, other=0.0)
        held = (line < count)[:, None] & (rank < RANK)[None, :]
        low = tl.load(low_at + line[:, None] * low_step + rank[None, :], mask=held, other=0.0)
        total += tl.dot(b, tl.trans(low), input_precision="ieee") * scaling
    tl.store(out_at + line[None, :] * N + rows[:, None], total.to(out_at.dtype.element_ty), mask=kept)
