"""Tensors in a safetensors file, written and read one at a time.

Owns: the streaming writers, the lazy reader, what a file's header says. Does not know: what the tensors are.
Units: bytes. Format: https://github.com/huggingface/safetensors (8 bytes of header length, JSON header, data).

The library's own writer first copies every tensor into memory; a snapshot must not need memory that the plan
does not know of.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import ModelError
from .paging import Under

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_ORDER = ("I64", "F64", "F32", "I32", "BF16", "F16", "I16", "I8", "U8", "BOOL")  # of the library's writer
_MAX_HEADER = 100 << 20
Kind = tuple[torch.dtype, tuple[int, ...]]  # dtype and shape of a tensor


@dataclass(frozen=True)
class Entry:
    """A tensor in a file: its bytes are those from `begin` to `end`."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


def broken(path: Path) -> ModelError:
    """What is raised where a file is not what its header says."""
    return ModelError(f"{path} is damaged", "a whole safetensors file", "copy or make it again")


def entries(path: Path) -> list[Entry]:
    """The tensors of a file, in the order of their bytes.

    Raises:
        ModelError: the file is missing, cut short, or its header does not describe it.
    """
    try:
        with path.open("rb") as file:
            room = os.fstat(file.fileno()).st_size
            prefix = file.read(8)
            length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else room
            if length > min(room - 8, _MAX_HEADER):
                raise broken(path)
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        found = []
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"][0]):
            begin, end = (8 + length + offset for offset in entry["data_offsets"])
            if isinstance(entry["dtype"], str) and entry["dtype"] not in DTYPES:
                raise ModelError(
                    f"{path} holds numbers of type {entry['dtype'][:40]}", "full precision or 4 bits made of it",
                    "use the model in full precision",
                )  # fmt: skip
            kind = DTYPES[entry["dtype"]], tuple(entry["shape"])
            if end - begin != size(kind) or not 8 + length <= begin <= end <= room:
                raise broken(path)
            found.append(Entry(name, *kind, begin, end))
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}", "a readable file", "check the folder") from error
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, RecursionError) as error:
        raise broken(path) from error
    return found


def require_numbers(folder: Path, wanted: int) -> None:
    """Refuses files that hold less than a quarter (4-bit ones are packed) of the numbers that a config speaks of.

    A library makes what a config speaks of, of any size, before it says that the files hold something else.

    Raises:
        ModelError: they do, or one is damaged.
    """
    held = sum(math.prod(entry.shape) for path in folder.glob("*.safetensors") for entry in entries(path))
    if held and wanted > 4 * held:
        raise ModelError(
            f"{folder}/config.json speaks of matrices of {wanted:,} numbers, and the weights hold {held:,}",
            "a config and weights of one model", "get the folder again, whole",
        )  # fmt: skip


def size(kind: Kind) -> int:
    """Bytes of a tensor."""
    return math.prod(kind[1]) * kind[0].itemsize


def in_order(kinds: Mapping[str, Kind]) -> list[str]:
    """Names as the library's writer puts them: by type, then by name."""
    return sorted(kinds, key=lambda name: (_ORDER.index(_NAMES[kinds[name][0]]), name.encode()))


def offsets(kinds: Mapping[str, Kind]) -> dict[str, int]:
    """Where each tensor begins in a file's data, as the library's writer lays them out."""
    places = {}
    end = 0
    for name in in_order(kinds):
        places[name] = end
        end += size(kinds[name])
    return places


def head(kinds: Mapping[str, Kind]) -> bytes:
    """What the library's writer puts before the data, byte for byte: length, header, padding."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    for name, begin in offsets(kinds).items():
        dtype, shape = kinds[name]
        span = [begin, begin + size(kinds[name])]
        header[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": span}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


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
