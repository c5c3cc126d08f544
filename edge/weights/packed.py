"""Experts in 4 bits: matrices of many experts in one parameter, each of them quantised as a linear layer's weight is.

Owns: which parameters hold experts, packing them, their tensors in a 4-bit folder, one expert's matrix back; which
linear layers can be held in 4 bits, and what cannot. Does not know: how experts compute (`model/experts.py`), how
linear layers are quantised (`quantize.py`), what a plan counts.
Units: bytes. E experts, each a matrix (rows, columns) as the model has it: (out, in), or (in, out) in gpt_oss.

transformers 5 keeps the experts of a block in parameters of three dimensions, which bitsandbytes leaves as they are;
they are most of such a model. Here every expert's matrix is NF4 with double quantisation on its own (QLoRA, arXiv
2305.14314, section 3), always computed on the CPU, so that a model has the same bytes wherever it was made. In a folder
the parameter NAME becomes

    NAME.packed            (E, bytes)   two numbers a byte
    NAME.absmax            (E, blocks)  largest of each 64 numbers, in 8 bits
    NAME.nested_absmax     (E, groups)  largest of each 256 of those, float32
    NAME.nested_offset     (E,)         their mean, float32
    NAME.quant_map, NAME.nested_quant_map   what the codes mean
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ModelError
from ..store.sources import print_to_stderr
from ..values.amounts import format_bytes
from . import libraries, packing
from .alone import sealed
from .tensorfile import Kind

PARAMETERS = ("gate_up_proj", "up_proj", "down_proj")  # of an experts module
SORTED = "Llama4TextExperts"  # transformers' class whose experts get all tokens each, zeros where they are not chosen
_WRITTEN_OUT = ("FalconLinear",)  # classes of transformers whose forward is a linear layer's, x W^T + b
_WORTH_SAYING = 0.01  # of all weights: routers and convolutions are less
_PARTS = ("packed", "absmax", "nested_absmax", "nested_offset", "quant_map", "nested_quant_map")
SHARED = _PARTS[4:]  # what all experts of a parameter have together; of the others each expert has a row


class Packed(nn.Module):
    """One parameter (E, rows, columns) in 4 bits. Its tensors are buffers: nothing learns them, all are saved.

    Attributes:
        shape: of the parameter that it stands for.
        full: that parameter, where it is to be used in the place of the 4 bits.
    """

    full: Tensor | None = None

    packed: Tensor
    absmax: Tensor
    nested_absmax: Tensor
    nested_offset: Tensor
    quant_map: Tensor
    nested_quant_map: Tensor

    def __init__(self, shape: torch.Size) -> None:
        super().__init__()
        self.shape = shape
        for part in _PARTS:
            self.register_buffer(part, None)

    @classmethod
    def of(cls, weight: Tensor) -> Packed:
        """Quantises a parameter, one expert after the other; the result lies on the parameter's device."""
        made = cls(weight.shape)
        rows: dict[str, list[Tensor]] = {part: [] for part in _PARTS}
        for matrix in weight.detach():
            for part, tensor in quantised([matrix.cpu().reshape(-1)], matrix.shape).items():
                rows[part].append(tensor)
        for part, tensors in rows.items():
            kept = tensors[-1] if part in SHARED else torch.stack(tensors)
            setattr(made, part, kept.to(weight.device))
        return made

    def expert(self, index: int, dtype: torch.dtype) -> Tensor:
        """One expert's matrix (rows, columns), dequantised now."""
        if self.full is not None:
            return self.full[index].to(dtype)
        import bitsandbytes.functional as bnb

        nested = bnb.QuantState(
            absmax=self.nested_absmax[index], code=self.nested_quant_map, blocksize=packing.NESTED, dtype=torch.float32
        )
        state = bnb.QuantState(
            absmax=self.absmax[index], shape=self.shape[1:], code=self.quant_map, blocksize=packing.BLOCK,
            quant_type="nf4", offset=self.nested_offset[index], state2=nested,
            dtype=torch.float32 if self.packed.device.type == "cpu" else dtype,
        )  # fmt: skip
        matrix: Tensor = bnb.dequantize_4bit(self.packed[index].unsqueeze(1), state)
        return matrix if matrix.dtype == dtype else matrix.to(dtype)

    def put(self, part: str, tensor: Tensor) -> bool:
        """Takes one of its tensors, as it was stored; says whether it can be one."""
        dtype, shape = kinds(self.shape)[part]
        fits = tuple(tensor.shape) == shape and (tensor.dtype == torch.uint8) == (dtype == torch.uint8)
        if fits:
            setattr(self, part, tensor)
        return fits

    def missing(self) -> list[str]:
        """Which of its tensors are not there."""
        return [part for part in _PARTS if getattr(self, part) is None]


def kinds(shape: tuple[int, ...]) -> dict[str, Kind]:
    """What a parameter (E, rows, columns) becomes."""
    experts = shape[0]
    numbers = shape[1] * shape[2]
    blocks = -(-numbers // packing.BLOCK)
    return {
        "packed": (torch.uint8, (experts, -(-numbers // 2))),
        "absmax": (torch.uint8, (experts, blocks)),
        "nested_absmax": (torch.float32, (experts, -(-blocks // packing.NESTED))),
        "nested_offset": (torch.float32, (experts,)),
        "quant_map": (torch.float32, (16,)),
        "nested_quant_map": (torch.float32, (256,)),
    }


def quantised(blocks: Iterable[Tensor], shape: tuple[int, ...]) -> dict[str, Tensor]:
    """One expert's part of each of those tensors, on the CPU; `blocks` as in `packing.pack`."""
    data, state = packing.quantised(blocks, shape)
    return {
        "packed": data.view(-1),
        "absmax": state.absmax,
        "nested_absmax": state.state2.absmax,
        "nested_offset": state.offset.view(()),
        "quant_map": state.code,
        "nested_quant_map": state.state2.code,
    }


def modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every module that holds experts in a form that is known here, packed or not, with its name.

    transformers marks them: `has_gate` and `is_transposed` say how they are laid out (`use_experts_implementation`).
    Llama 4's are not marked, and known by their class.
    """
    for name, module in model.named_modules():
        marked = hasattr(module, "has_gate") and hasattr(module, "is_transposed")
        if (marked or is_sorted(module)) and any(_held(module)):
            yield name, module


def is_sorted(module: nn.Module) -> bool:
    """Whether its input holds all tokens once for each expert, as Llama 4's does."""
    return type(module).__name__ == SORTED


def is_transposed(module: nn.Module) -> bool:
    """Whether an expert's matrix is stored as (in, out)."""
    return is_sorted(module) or bool(getattr(module, "is_transposed", False))


def are_swapped(model: nn.Module) -> bool:
    """Whether peft takes the model's experts for (out, in), though they are (in, out) and do not say so."""
    return any(is_sorted(module) for _, module in modules(model))


def names(model: nn.Module) -> list[str]:
    """Full names of the parameters with experts in a form that is known here, in the model's order."""
    return [f"{name}.{leaf}" for name, module in modules(model) for leaf in _held(module)]


def _held(module: nn.Module) -> Iterator[str]:
    """Names of the parameters with experts of one module."""
    for leaf in PARAMETERS:
        held = getattr(module, leaf, None)
        if isinstance(held, Packed) or (isinstance(held, nn.Parameter) and held.ndim == 3):
            yield leaf


def parameters(model: nn.Module) -> set[str]:
    """`names`, of a model that holds none in 4 bits."""
    return set(names(model))


def pack(model: nn.Module) -> int:
    """Packs the experts of a model in place, one parameter at a time; returns how many parameters it packed."""
    count = 0
    for _, module in list(modules(model)):
        for leaf in list(_held(module)):
            weight = getattr(module, leaf)
            if isinstance(weight, Packed):
                continue
            _replace(module, leaf, Packed.of(weight))
            weight.data = torch.empty(0)  # others may still name the parameter
            count += 1
    return count


def put(model: nn.Module, name: str, tensor: Tensor, folder: Path) -> bool:
    """Puts a stored tensor where it belongs, if it is one of packed experts; says whether it was.

    Raises:
        ModelError: it is of packed experts, but not of this model's.
    """
    whole, _, part = name.rpartition(".")
    parent, _, leaf = whole.rpartition(".")
    if part not in _PARTS or leaf not in PARAMETERS:
        return False
    module = dict(modules(model)).get(parent)
    held = getattr(module, leaf, None)
    if module is not None and isinstance(held, nn.Parameter):
        held = Packed(held.shape)
        _replace(module, leaf, held)
    if not isinstance(held, Packed) or not held.put(part, tensor):
        raise ModelError(
            f"{folder} holds {name} {tuple(tensor.shape)}", "the tensors that config.json names", "make it again"
        )
    return True


def incomplete(model: nn.Module) -> list[str]:
    """Names of tensors of packed experts that are not there."""
    return [
        f"{name}.{part}"
        for name, module in model.named_modules()
        if isinstance(module, Packed)
        for part in module.missing()
    ]


def _replace(module: nn.Module, leaf: str, packed: Packed) -> None:
    del module._parameters[leaf]
    module.add_module(leaf, packed)


def replaceable(module: nn.Module) -> bool:
    """Whether 4-bit weights may take the layer's place: it is linear, and computes nothing else as some routers do."""
    own = type(module)
    return isinstance(module, nn.Linear) and (own.forward is nn.Linear.forward or own.__name__ in _WRITTEN_OUT)


def widen_at_once(model: nn.Module) -> None:
    """Lets a GPU dequantise into the compute dtype; folders name float32, which would be written first, and cast.

    The numbers are the same: the kernel computes in float32, and rounds once.
    """
    for module in model.modules():
        state: Any = getattr(getattr(module, "weight", None), "quant_state", None)
        compute: torch.dtype | None = getattr(module, "compute_dtype", None)
        if state is not None and compute is not None and module.weight.device.type != "cpu":
            state.dtype = compute


def unheld(model: nn.Module) -> dict[str, int]:
    """Weights of a model that stay as they are, by the kind of module and parameter: how many numbers.

    Counted are matrices and what has more dimensions, without linear layers, experts in a known form, embeddings, head.
    """
    ends = (model.get_input_embeddings(), model.get_output_embeddings())  # type: ignore[operator]
    known = {id(module) for _, module in modules(model)}
    counts: dict[str, int] = {}
    for module in model.modules():
        if replaceable(module) or any(module is end for end in ends):
            continue
        for leaf, parameter in module.named_parameters(recurse=False):
            if (
                parameter.ndim > 1
                and parameter.dtype != torch.uint8
                and not (id(module) in known and leaf in PARAMETERS)
            ):
                kind = f"{type(module).__name__}.{leaf}"
                counts[kind] = counts.get(kind, 0) + parameter.numel()
    return counts


def say_unheld(model: nn.Module, name: str) -> None:
    """Says of a model that holds no weights yet what of it will stay as it is, and how large that is."""
    counts = unheld(model)
    total = sum(parameter.numel() for parameter in model.parameters() if parameter.ndim > 1)
    if sum(counts.values()) <= _WORTH_SAYING * total:
        return
    size = next(model.parameters()).element_size()
    largest = ", ".join(sorted(counts, key=lambda kind: -counts[kind])[:3])
    share = 100 * sum(counts.values()) // total
    print_to_stderr(
        f"{name}: {format_bytes(size * sum(counts.values()))} ({share}% of its weights: {largest}) "
        "cannot be held in 4 bits, and stay as they are"
    )


def say_what_stays(folder: Path, config: Any, dtype: torch.dtype, remote_code: bool = False) -> None:
    """The same before a folder's weights are read; only of mixtures of experts, as a model is built for it."""
    from transformers import AutoModelForCausalLM

    if "expert" not in str(config.to_dict().keys()):
        return
    with libraries.weightless(), sealed():
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=remote_code)
    say_unheld(model, folder.name)
