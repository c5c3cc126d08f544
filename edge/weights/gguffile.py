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
from . import alone, pieces
from .pieces import Original, Whole


def read(path: Path) -> tuple[Any, dict[str, Original], list[Any]]:
    """The model without weights, the tensors by the names that transformers gives them, and what it does with those.

    Raises:
        Whole: transformers reads that architecture in another way.
        ModelError: the file is cut short.
    """
    from transformers import PreTrainedConfig
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor, get_gguf_hf_weights_map
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    with path.open("rb") as file:
        header = gguf.read(file)
    kind = str(header.values["general.architecture"])
    if _has_own_loader(kind):
        raise Whole(f"transformers reads {kind} files in another way")
    packed = {name: _packed(path, name, place, header.data) for name, place in header.tensors.items()}
    with alone.only(path) as folder, alone.sealed():
        values, _ = PreTrainedConfig.get_config_dict(folder, gguf_file=alone.NAME, local_files_only=True)
    config = CONFIG_MAPPING[values["model_type"]].from_dict(dict(values))
    model = pieces.skeleton(config, torch.bfloat16, False)
    processor = TENSOR_PROCESSORS.get(kind, TensorProcessor)(config=values)
    names = get_gguf_hf_weights_map(model, processor)
    sources: dict[str, dict[str, _Packed]] = {}
    kinds: set[int] = set()
    for name, part in packed.items():
        target = names.get(name) or names.get(name.removesuffix(".weight"))
        if target is None:
            continue  # transformers leaves it out, too
        if part.kind not in kinds:
            kinds.add(part.kind)
            part.numbers(0, 1 if len(part.shape) > 1 else part.shape[0])  # raises where it cannot be unpacked
        sources.setdefault(target, {})[name] = part
    state = model.state_dict()
    found = {
        target: _from_gguf(processor, names, target, parts, state[target].dtype)
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


def _has_own_loader(kind: str) -> bool:
    """Whether newer releases of transformers read that architecture past the functions used here."""
    try:
        from transformers.integrations.gguf.utils import is_gguf_arch_supported
    except ImportError:
        return False
    return bool(is_gguf_arch_supported(kind))


@dataclass(frozen=True)
class _Packed:
    """A tensor in a GGUF file; a row is one of its innermost dimension."""

    path: Path
    shape: tuple[int, ...]
    kind: int
    begin: int
    row_bytes: int

    def numbers(self, start: int, stop: int) -> Any:
        """float32 numbers of the rows of the first dimension from `start` to `stop`, as a numpy array."""
        from gguf import GGMLQuantizationType, dequantize

        inner = math.prod(self.shape[1:-1]) if len(self.shape) > 1 else 1
        lines = (stop - start) * inner if len(self.shape) > 1 else 1
        data = pieces.read(self.path, self.begin + start * inner * self.row_bytes, lines * self.row_bytes)
        shape = (stop - start, *self.shape[1:]) if len(self.shape) > 1 else self.shape
        return dequantize(data.reshape(lines, self.row_bytes), GGMLQuantizationType(self.kind)).reshape(shape)


def _from_gguf(
    processor: Any, names: dict[str, str], target: str, parts: dict[str, _Packed], dtype: torch.dtype
) -> Original:
    """A tensor of the model, made of one tensor of the file, or of several, by transformers' own processor."""
    import numpy as np

    def whole() -> Tensor:
        made: dict[str, Any] = {"tensors": {}}
        for name, part in parts.items():
            numbers = part.numbers(0, part.shape[0])
            result = processor.process(weights=numbers, name=name, tensor_key_mapping=names, parsed_parameters=made)
            if result.name in names:
                made["tensors"][names[result.name]] = torch.from_numpy(np.copy(result.weights)).to(dtype)
        if target not in made["tensors"]:
            raise ModelError(f"{', '.join(parts)} give no {target}", "tensors that transformers knows", "another file")
        tensor: Tensor = made["tensors"][target].to(dtype)
        return tensor

    def rows(start: int, stop: int) -> Tensor:
        return torch.from_numpy(part.numbers(start, stop)).to(dtype)

    name, part = next(iter(parts.items()))
    if len(parts) == 1 and len(part.shape) > 1 and _left_alone(processor, names, name, part):
        return Original(part.shape, whole, rows)
    return Original((), whole)  # its shape is known when it is made


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
