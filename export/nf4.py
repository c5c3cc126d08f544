"""bitsandbytes' NF4 weights <-> what the graph holds; block-wise 8 and 4 bits from any weight.

Owns: the layouts that ONNX Runtime's MatMulBnb4 and MatMulNBits want, and the plain arithmetic that they stand for.
Does not know: models, graphs, sessions.
Units: bytes and float32. NF4: QLoRA (arXiv 2305.14314, section 3), through bitsandbytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edge.errors import ExportError
from edge.model.base import weight_of
from edge.settings import OnnxSettings

from .rows import INT8_ZERO

INT8_BLOCK = 32  # weights that share a scale
WIDE_BLOCK = 128  # the same, and inputs that are rounded together: a product in 0.7 of the time, and rounder
ROUNDER = ("q_proj", "k_proj", "gate_proj", "up_proj")  # in 4 bits where a graph has some: what the others do not bear
VOCABULARY_BLOCKS = (64, 32)  # the same in a vocabulary's matrices: 0.003 nats better than with 32


@dataclass(frozen=True)
class Full:
    """A matrix (rows, columns) that the graph holds in float32; here in the dtype that it is stored in."""

    weight: Tensor

    @property
    def rows(self) -> int:
        """Outputs."""
        return self.weight.shape[0]

    @property
    def columns(self) -> int:
        """Inputs."""
        return self.weight.shape[1]

    def tensors(self) -> tuple[Tensor, ...]:
        """What it is made of."""
        return (self.weight,)

    def part(self, start: int, end: int) -> Full:
        """Rows [start, end), of the same memory."""
        return Full(self.weight[start:end])


@dataclass(frozen=True)
class Packed:
    """An NF4 matrix as MatMulBnb4 reads it.

    Attributes:
        codes: (rows * columns / 2,) uint8, two weights a byte, bitsandbytes' own bytes.
        scales: (rows * columns / block,) float32, one a block, no longer quantised themselves.
        table: (16,) float32, the value of each code.
    """

    codes: Tensor
    scales: Tensor
    table: Tensor
    rows: int
    columns: int
    block: int


class _InBlocks:
    """A matrix whose codes MatMulNBits reads: (rows, columns / block, block / weights in a byte) uint8."""

    codes: Tensor
    in_a_byte: ClassVar[int]

    @property
    def block(self) -> int:
        """Weights that share a scale."""
        return self.codes.shape[2] * self.in_a_byte

    @property
    def rows(self) -> int:
        """Outputs."""
        return self.codes.shape[0]

    @property
    def columns(self) -> int:
        """Inputs."""
        return self.codes.shape[1] * self.block


@dataclass(frozen=True)
class Int8(_InBlocks):
    """A matrix in symmetric 8 bits as MatMulNBits reads it: weight = (codes - 128) * scale.

    Attributes:
        codes: (rows, columns / block, block) uint8.
        scales: (rows, columns / block) float32.
    """

    in_a_byte: ClassVar[int] = 1
    codes: Tensor
    scales: Tensor

    def tensors(self) -> tuple[Tensor, ...]:
        """What it is made of."""
        return self.codes, self.scales

    def part(self, start: int, end: int) -> Int8:
        """Rows [start, end), of the same memory."""
        return Int8(self.codes[start:end], self.scales[start:end])


@dataclass(frozen=True)
class Int4(_InBlocks):
    """A matrix in 4 bits as MatMulNBits reads it: weight = (code - zero) * scale.

    Attributes:
        codes: (rows, columns / block, block / 2) uint8, two a byte, the first in the low half.
        scales: (rows, columns / block) float32.
        zeros: (rows, columns / block / 2, rounded up) uint8, two a byte.
    """

    in_a_byte: ClassVar[int] = 2
    codes: Tensor
    scales: Tensor
    zeros: Tensor


Plain = Full | Int8
Matrix = Plain | Packed | Int4


def matrix_of(layer: nn.Linear, precision: str, name: str, *, wide: bool = False) -> Matrix:
    """The weight of the layer called `name` as a graph of `precision` holds it: `nf4` keeps 4-bit weights as they are.

    `wide`: int8 in blocks of `WIDE_BLOCK`, where they divide a row.
    """
    if precision == "nf4" and is_packed(layer):
        return unpack(layer)
    weight = weight_of(layer, torch.float32)
    if precision == "int4" and name.endswith(ROUNDER):
        return to_int4(weight)
    return held(weight, precision, (WIDE_BLOCK, INT8_BLOCK) if wide else (INT8_BLOCK,))


def held(weight: Tensor, precision: str, blocks: Sequence[int] = (INT8_BLOCK,)) -> Plain:
    """A matrix that is not packed, as a graph of `precision` holds it."""
    if precision not in OnnxSettings.ROUNDING:
        return Full(weight)
    return to_int8(weight, next((block for block in blocks if weight.shape[1] % block == 0), blocks[-1]))


def vocabulary(weight: Tensor, precision: str) -> Plain:
    """The same for an embedding or a head."""
    return held(weight, precision, VOCABULARY_BLOCKS)


def is_packed(layer: nn.Module) -> bool:
    """Whether the layer's weight is in bitsandbytes' 4 bits."""
    return getattr(getattr(layer, "weight", None), "quant_state", None) is not None


def unpack(layer: nn.Linear) -> Packed:
    """The layer's NF4 weight (rows, columns); shares the bytes of its codes.

    Raises:
        ExportError: the weight is in another 4-bit format, or in blocks that MatMulBnb4 does not read.
    """
    import bitsandbytes.functional as bnb

    weight: Any = layer.weight
    state = weight.quant_state
    rows, columns = (int(n) for n in state.shape)
    if state.quant_type != "nf4" or (rows * columns) % state.blocksize or columns % 2:
        raise ExportError(
            f"a 4-bit weight {rows} x {columns} of type {state.quant_type} in blocks of {state.blocksize}",
            "whole NF4 blocks",
            "export with --precision fp32",
        )
    absmax = state.absmax
    if state.nested:  # double quantisation: the scales are 8-bit themselves
        absmax = bnb.dequantize_blockwise(absmax, state.state2) + state.offset
    return Packed(
        weight.data.reshape(-1), absmax.float().cpu(), state.code.float().cpu(), rows, columns, state.blocksize
    )


def dequantize(packed: Packed) -> Tensor:
    """(rows, columns) float32: table[code] * absmax, the high half byte first. What MatMulBnb4 multiplies with."""
    codes = packed.codes.cpu()
    pairs = torch.stack([codes >> 4, codes & 15], 1).reshape(-1, packed.block).long()
    return (packed.table[pairs] * packed.scales[:, None]).view(packed.rows, packed.columns)


def to_int8(weight: Tensor, block: int = INT8_BLOCK) -> Int8:
    """Symmetric 8 bits, one scale for `block` weights of a row.

    Args:
        weight: (rows, columns), columns a multiple of `block`.

    Raises:
        ExportError: the columns are no whole number of blocks.
    """
    rows, columns = weight.shape
    if columns % block:
        raise ExportError(f"a weight of {columns} columns", f"a multiple of {block}", "export with --precision nf4")
    codes = torch.empty(rows, columns // block, block, dtype=torch.uint8)
    scales = torch.empty(rows, columns // block)
    for start in range(0, rows, 4096):  # a vocabulary is never held in float32 twice
        part = slice(start, start + 4096)
        blocks = weight[part].float().cpu().reshape(-1, columns // block, block)
        scale = blocks.abs().amax(-1).div_(INT8_ZERO - 1)
        scales[part] = scale
        steps = blocks / scale.clamp_min(torch.finfo(torch.float32).tiny)[..., None]
        codes[part] = steps.round_().add_(INT8_ZERO).to(torch.uint8)
    return Int8(codes, scales)


def to_int4(weight: Tensor) -> Int4:
    """4 bits between the least and the largest of `INT8_BLOCK` weights of a row, 0 among them and exact.

    Args:
        weight: (rows, columns), columns a multiple of `INT8_BLOCK`.

    Raises:
        ExportError: the columns are no whole number of blocks.
    """
    rows, columns = weight.shape
    if columns % INT8_BLOCK:
        raise ExportError(
            f"a weight of {columns} columns", f"a multiple of {INT8_BLOCK}", "export with --precision nf4"
        )
    blocks = weight.float().cpu().reshape(rows, -1, INT8_BLOCK)
    least = blocks.amin(-1).clamp_max(0)
    scales = ((blocks.amax(-1).clamp_min(0) - least) / 15).clamp_min(torch.finfo(torch.float32).tiny)
    zeros = (-least / scales).round().clamp(0, 15)
    codes = (blocks / scales[..., None] + zeros[..., None]).round().clamp(0, 15)
    return Int4(_in_pairs(codes), scales, _in_pairs(zeros))


def from_int4(held: Int4) -> Tensor:
    """(rows, columns) float32 of what `to_int4` gave."""
    codes = _apart(held.codes, held.block)
    zeros = _apart(held.zeros, held.codes.shape[1])
    return ((codes - zeros[..., None]) * held.scales[..., None]).flatten(1)


def _in_pairs(values: Tensor) -> Tensor:
    """Two of the last dimension a byte, the first in the low half; an odd last one alone."""
    even = F.pad(values.to(torch.uint8), (0, values.shape[-1] % 2))
    return even[..., ::2] | even[..., 1::2] << 4


def _apart(pairs: Tensor, count: int) -> Tensor:
    """What `_in_pairs` was given, in float32."""
    return torch.stack([pairs & 15, pairs >> 4], -1).flatten(-2)[..., :count].float()


def from_int8(held: Int8) -> Tensor:
    """(rows, columns) float32 of what `to_int8` gave."""
    return ((held.codes.float() - INT8_ZERO) * held.scales[..., None]).flatten(1)
