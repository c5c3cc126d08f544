"""A GGUF file's tensors, one at a time, as transformers would make them.

Owns: unpacking them by rows; which of them become which of the model.
Does not know: how the model's own names are changed at loading (`originals.py`), 4 bits.
Units: bytes.

Names and transforms (the order of rotary features, norms less one, joined experts) are those of transformers itself
(`modeling_gguf_pytorch_utils`), called a tensor at a time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import ModelError
from ..memory import gguf
from . import alone, ggufvalues, pieces
from .pieces import Original


def read(path: Path) -> tuple[Any, dict[str, Original], list[Any]]:
    """The model without weights, the tensors by the names that transformers gives them, and what it does with those.

    Raises:
        ModelError: the file is cut short, or holds what no part of the model is made of.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping

    with path.open("rb") as file:
        header = gguf.read(file)
    packed = {name: _packed(path, name, place, header.data) for name, place in header.tensors.items()}
    for part in {part.kind: part for part in packed.values()}.values():
        part.numbers(0, 1 if len(part.shape) > 1 else part.shape[0])  # raises where it cannot be unpacked
    config, values = alone.gguf_config(path, header)
    model = pieces.skeleton(config, torch.bfloat16, False)
    mapping = _own_mapping(str(header.values["general.architecture"]), config)
    if mapping is not None:
        _require_used(model, header, mapping, path)
        return model, {name: part.original() for name, part in packed.items()}, mapping
    processor, names = alone.gguf_names(model, header, values)
    sources: dict[str, dict[str, _Packed]] = {}
    for name, part in packed.items():
        target = names.get(name) or names.get(name.removesuffix(".weight"))
        if target is not None:
            sources.setdefault(target, {})[name] = part
    state = model.state_dict()
    ggufvalues.require_used(
        packed, (name for target, parts in sources.items() if target in state for name in parts), path
    )
    found = {
        target: _from_gguf(processor, names, target, parts, state[target])
        for target, parts in sources.items()
        if target in state
    }
    return model, found, get_model_conversion_mapping(model)


def _packed(path: Path, name: str, place: gguf.Place, data: int) -> _Packed:
    """Where a tensor lies.

    Raises:
        ModelError: beyond the file's end.
    """
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    block, width = GGML_QUANT_SIZES[GGMLQuantizationType(place.kind)]
    shape = tuple(reversed(place.dims))
    part = _Packed(path, shape, place.kind, data + place.offset, place.dims[0] // block * width)
    if place.dims[0] % block or part.begin + part.row_bytes * math.prod(shape[:-1]) > path.stat().st_size:
        raise ModelError(f"{path} is cut short at {name}", "a whole GGUF file", "download it again")
    return part


def _own_mapping(kind: str, config: Any) -> list[Any] | None:
    """How transformers renames and changes the tensors of such a file in its newer way; None where it has none."""
    try:
        from transformers.integrations.gguf.utils import get_gguf_conversion_mapping, is_gguf_arch_supported
    except ImportError:
        return None
    return list(get_gguf_conversion_mapping(kind, config)) if is_gguf_arch_supported(kind) else None


def _require_used(model: Any, header: gguf.Header, mapping: list[Any], path: Path) -> None:
    """Refuses a file with a tensor that becomes none of the model's; blocks that predict more tokens are left out."""
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    state = model.state_dict()
    renamings = [entry for entry in mapping if isinstance(entry, WeightRenaming)]
    converters = [entry for entry in mapping if isinstance(entry, WeightConverter)]
    found = {name: rename_source_key(name, renamings, converters, "", state)[0] for name in header.tensors}
    ggufvalues.require_used(found, (name for name, to in found.items() if to in state or to.startswith("mtp.")), path)


@dataclass(frozen=True)
class _Packed:
    """A tensor in a GGUF file; a row is one of its innermost dimension."""

    path: Path
    shape: tuple[int, ...]
    kind: int
    begin: int
    row_bytes: int

    def original(self) -> Original:
        """The tensor as it is stored, in float32."""

        def rows(start: int, stop: int) -> Tensor:
            return torch.from_numpy(self.numbers(start, stop))

        return Original(self.shape, lambda: rows(0, self.shape[0]), rows if len(self.shape) > 1 else None)

    def numbers(self, start: int, stop: int) -> Any:
        """float32 numbers of the rows of the first dimension from `start` to `stop`, as a numpy array."""
        from gguf import GGMLQuantizationType, dequantize

        inner = math.prod(self.shape[1:-1]) if len(self.shape) > 1 else 1
        lines = (stop - start) * inner if len(self.shape) > 1 else 1
        data = pieces.read(self.path, self.begin + start * inner * self.row_bytes, lines * self.row_bytes)
        shape = (stop - start, *self.shape[1:]) if len(self.shape) > 1 else self.shape
        return dequantize(data.reshape(lines, self.row_bytes), GGMLQuantizationType(self.kind)).reshape(shape)


def _from_gguf(
    processor: Any, names: dict[str, str], target: str, parts: dict[str, _Packed], wanted: Tensor
) -> Original:
    """A tensor of the model, made of one tensor of the file, or of several, by transformers' own processor."""
    dtype = wanted.dtype

    def made(start: int, stop: int | None) -> Tensor:
        numbers = {name: part.numbers(start, stop or part.shape[0]) for name, part in parts.items()}
        tensor = _processed(processor, names, numbers, dtype).get(target)
        if tensor is None:
            raise ModelError(f"{', '.join(parts)} give no {target}", "tensors that transformers knows", "another file")
        return tensor.to(dtype)

    def rows(start: int, stop: int) -> Tensor:
        return torch.from_numpy(part.numbers(start, stop)).to(dtype)

    def experts(start: int, stop: int) -> Tensor:
        return pieces.fitting(made(start, stop), wanted[start:stop])

    name, part = next(iter(parts.items()))
    if len(parts) == 1 and len(part.shape) > 1 and _left_alone(processor, names, name, part):
        return Original(part.shape, lambda: made(0, None), rows)
    if _one_by_one(processor, names, target, parts, wanted):
        return Original(tuple(wanted.shape), lambda: made(0, None), experts)
    return Original((), lambda: made(0, None))  # its shape is known when it is made


def _processed(processor: Any, names: dict[str, str], parts: dict[str, Any], dtype: torch.dtype) -> dict[str, Tensor]:
    """What transformers' processor makes of tensors of the file, by the names of the model."""
    import numpy as np

    made: dict[str, Any] = {"tensors": {}}
    for name, numbers in parts.items():
        result = processor.process(weights=numbers, name=name, tensor_key_mapping=names, parsed_parameters=made)
        if result.name in names:
            made["tensors"][names[result.name]] = torch.from_numpy(np.copy(result.weights)).to(dtype)
    return dict(made["tensors"])


def _one_by_one(processor: Any, names: dict[str, str], target: str, parts: dict[str, _Packed], wanted: Tensor) -> bool:
    """Whether the tensor holds one matrix for each expert, and what the processor makes of an expert does not depend on
    the others: tried on random numbers.
    """
    import numpy as np

    if wanted.ndim != 3 or any(len(part.shape) != 3 or part.shape[0] != wanted.shape[0] for part in parts.values()):
        return False
    random = np.random.default_rng(0)
    both = {name: random.standard_normal((2, 2, 2), np.float32) for name in parts}
    try:
        together = _processed(processor, names, both, torch.float32)[target]
        alone = [
            _processed(processor, names, {name: numbers[at : at + 1] for name, numbers in both.items()}, torch.float32)
            for at in (0, 1)
        ]
        return torch.equal(together, torch.cat([one[target] for one in alone]))
    except Exception:
        return False  # it does something else


def _left_alone(processor: Any, names: dict[str, str], name: str, part: _Packed) -> bool:
    """Whether the processor gives such a tensor back as it is: it decides by the name."""
    import numpy as np

    probe = np.zeros((2, *part.shape[1:-1], 2), np.float32)
    try:
        result = processor.process(
            weights=probe, name=name, tensor_key_mapping=names, parsed_parameters={"tensors": {}}
        )
    except Exception:
        return False  # it does something that two rows are too few for
    return result.weights is probe and result.name == name
