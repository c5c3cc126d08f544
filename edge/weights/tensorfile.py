"""Tensors in a safetensors file, written and read one at a time.

Owns: the streaming writer, the lazy reader. Does not know: what the tensors are.
Units: bytes. Format: https://github.com/huggingface/safetensors (8 bytes of header length, JSON header, data).

The library's own writer first copies every tensor into memory; a snapshot must not need memory that the plan
does not know of.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .paging import Under

_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
}


def write(path: Path, tensors: Callable[[], Iterator[tuple[str, Tensor]]]) -> None:
    """Writes what `tensors` yields; it is called twice, and a tensor is used before the next one is asked for.

    Raises:
        OSError: the file cannot be written.
    """
    header: dict[str, object] = {}
    end = 0
    for name, tensor in tensors():
        size = tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [end, end + size]}
        end += size
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    with path.open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        for _, tensor in tensors():
            if tensor.numel():
                data = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8)
                file.write(data.numpy().data)


class TensorFile(Mapping[str, Tensor]):
    """A safetensors file as a mapping whose tensors are read when they are asked for."""

    def __init__(self, path: Path) -> None:
        import safetensors

        library: Any = safetensors
        self._file = library.safe_open(str(path), framework="pt")
        self._names: list[str] = list(self._file.keys())

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            raise KeyError(name)
        tensor: Tensor = self._file.get_tensor(name)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class Part(Under, Mapping[str, Tensor]):
    """`Under` of a whole mapping: its names can be listed, too."""

    _source: Mapping[str, Tensor]

    def __init__(self, source: Mapping[str, Tensor], prefix: str) -> None:
        super().__init__(source, prefix)

    def __iter__(self) -> Iterator[str]:
        return (name.removeprefix(self._prefix) for name in self._source if name.startswith(self._prefix))

    def __len__(self) -> int:
        return sum(1 for _ in self)
