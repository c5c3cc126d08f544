"""bitsandbytes' NF4 weights <-> what the graph holds; block-wise int8 from any weight.

Owns: the layouts that ONNX Runtime's MatMulBnb4 and MatMulNBits want, and the plain arithmetic that they stand for.
Does not know: models, graphs, sessions.
Units: bytes and float32. NF4: QLoRA (arXiv 2305.14314, section 3), through bitsandbytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edge.errors import ExportError
from edge.model.base import weight_of

from .rows import INT8_ZERO

INT8_BLOCK = 32  # weights that share a scale
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


@dataclass(frozen=True)
class Int8:
    """A matrix in symmetric 8 bits as MatMulNBits reads it: weight = (codes - 128) * scale.

    Attributes:
        codes: (rows, columns / block, block) uint8.
        scales: (rows, columns / block) float32.
    """

    codes: Tensor
    scales: Tensor

    @property
    def rows(self) -> int:
        """Outputs."""
        return self.codes.shape[0]

    @property
    def columns(self) -> int:
        """Inputs."""
        return self.codes.shape[1] * self.block

    @property
    def block(self) -> int:
        """Weights that share a scale."""
        return self.codes.shape[2]

    def tensors(self) -> tuple[Tensor, ...]:
        """What it is made of."""
        return self.codes, self.scales

    def part(self, start: int, end: int) -> Int8:
        """Rows [start, end), of the same memory."""
        return Int8(self.codes[start:end], self.scales[start:end])


Plain = Full | Int8
Matrix = Plain | Packed


def matrix_of(layer: nn.Linear, precision: str) -> Matrix:
    """The layer's weight as a graph of `precision` holds it: `nf4` keeps 4-bit weights as they are."""
    if precision == "nf4" and is_packed(layer):
        return unpack(layer)
    return held(weight_of(layer, torch.float32), precision)


def held(weight: Tensor, precision: str, blocks: Sequence[int] = (INT8_BLOCK,)) -> Plain:
    """A matrix that is not packed, as a graph of `precision` holds it."""
    if precision != "int8":
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


def from_int8(held: Int8) -> Tensor:
    """(rows, columns) float32 of what `to_int8` gave."""
    return ((held.codes.float() - INT8_ZERO) * held.scales[..., None]).flatten(1)
