"""A weight in 4 bits, made from its rows as they come.

Owns: NF4 with double quantisation in steps, the tensors that it becomes on disk.
Does not know: files, models, where the rows come from.
Units: bytes. QLoRA (arXiv 2305.14314, section 3), through bitsandbytes.

Blocks of 64 numbers are quantised each by itself, so steps of whole blocks give what one call for all gives; what comes
after them, the mean of all scales and their own quantisation, is done once, on the CPU. `bitsandbytes.nn.Params4bit` is
the plain equivalent.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from .tensorfile import Kind

BLOCK = 64  # numbers under one scale
NESTED = 256  # scales under one scale of their own
STATE = ".quant_state.bitsandbytes__nf4"  # JSON, as bytes: the one part whose length is not known before
_LIKELY = 0.020312345676124096  # the mean of all scales, written as long as most are


def kinds(shape: tuple[int, ...]) -> dict[str, Kind]:
    """What a weight becomes, by what is added to its name; `STATE` as long as it likely is."""
    numbers = math.prod(shape)
    scales = -(-numbers // BLOCK)
    state = (
        f'{{"quant_type": "nf4", "blocksize": {BLOCK}, "dtype": "float32", "shape": {list(shape)}, '
        f'"nested_blocksize": {NESTED}, "nested_dtype": "float32", "nested_offset": {_LIKELY}}}'
    )
    return {
        "": (torch.uint8, ((numbers + 1) // 2, 1)),
        ".absmax": (torch.uint8, (scales,)),
        ".quant_map": (torch.float32, (16,)),
        ".nested_absmax": (torch.float32, (-(-scales // NESTED),)),
        ".nested_quant_map": (torch.float32, (256,)),
        STATE: (torch.uint8, (len(state),)),
    }


def _mean(scales: Tensor) -> Tensor:
    """The mean as one thread sums it: more threads add in another order, and the folder would have other bytes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return scales.mean()
    finally:
        torch.set_num_threads(threads)


def pack(blocks: Iterable[Tensor], shape: tuple[int, ...], device: str = "cpu") -> dict[str, Tensor]:
    """The tensors of `kinds`, on the CPU.

    Args:
        blocks: the weight's numbers in order, in tensors that each hold a whole number of `BLOCK`s but the last.
        device: where the blocks are quantised.
    """
    packed, state = quantised(blocks, shape, device)
    return {"": packed} | {f".{name}": tensor for name, tensor in state.as_dict(packed=True).items()}


def quantised(blocks: Iterable[Tensor], shape: tuple[int, ...], device: str = "cpu") -> tuple[Tensor, Any]:
    """The (bytes, 1) codes and bitsandbytes' state of them, on the CPU; arguments as in `pack`."""
    from bitsandbytes import functional

    numbers = math.prod(shape)
    packed = torch.empty((numbers + 1) // 2, 1, dtype=torch.uint8)
    scales = torch.empty(-(-numbers // BLOCK), dtype=torch.float32)
    begin = 0
    for block in blocks:
        wide = block.to(device).float().contiguous()
        codes, state = functional.quantize_4bit(wide, blocksize=BLOCK, compress_statistics=False, quant_type="nf4")
        packed[begin // 2 : begin // 2 + len(codes)] = codes.cpu()
        scales[begin // BLOCK : begin // BLOCK + len(state.absmax)] = state.absmax.cpu()
        begin += wide.numel()
    offset = _mean(scales)
    nested, nested_state = functional.quantize_blockwise(scales - offset, blocksize=NESTED)
    return packed, functional.QuantState(
        absmax=nested,
        shape=torch.Size(shape),
        code=functional.get_4bit_type("nf4", device="cpu"),
        blocksize=BLOCK,
        quant_type="nf4",
        dtype=torch.float32,
        offset=offset,
        state2=nested_state,
    )
