"""The header of a GGUF file: its values, and where each tensor lies.

Owns: the format's header. Does not know: torch, what the values mean, how a tensor's numbers are packed.
Units: bytes. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, BinaryIO

_NUMBERS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING = 8
_ARRAY = 9
_MAX_ENTRIES = 1_000_000


@dataclass(frozen=True)
class Place:
    """One tensor: its dimensions (innermost first), ggml's number for its type, its offset in the file's data."""

    dims: tuple[int, ...]
    kind: int
    offset: int


@dataclass(frozen=True)
class Header:
    """What a file says of itself.

    Attributes:
        values: by key; an array by its length, where it was not asked for.
        data: where the tensors' data begins in the file.
        words: entries of all arrays, strings counted twice: what a reader that keeps an object for each holds.
    """

    values: dict[str, Any]
    tensors: dict[str, Place]
    data: int
    words: int


def read(file: BinaryIO, arrays: Collection[str] | None = ()) -> Header:
    """The header of an open file.

    Args:
        arrays: keys whose arrays are read whole, all for None; texts in them as bytes (about 0.2 s for 262K words).

    Raises:
        ValueError, KeyError, struct.error: it is none.
    """
    words = 0

    def number(kind: int) -> Any:
        layout = _NUMBERS[kind]
        return struct.unpack(layout, file.read(struct.calcsize(layout)))[0]

    def stored() -> bytes:
        length = number(10)
        if length > 1 << 24:
            raise ValueError("a string longer than any header")
        return file.read(length)

    def text() -> str:
        return stored().decode("utf-8", "replace")

    def value(key: str, kind: int) -> Any:
        nonlocal words
        if kind == _STRING:
            return text()
        if kind != _ARRAY:
            return number(kind)
        inner = number(4)
        count = number(10)
        words += count * (2 if inner == _STRING else 1)
        whole = arrays is None or key in arrays
        if whole and count > _MAX_ENTRIES:
            raise ValueError(f"a list of {count}, more than any header")
        if inner in _NUMBERS:
            size = struct.calcsize(_NUMBERS[inner])
            if whole:
                return list(struct.unpack(f"<{count}{_NUMBERS[inner][1]}", file.read(count * size)))
            file.seek(count * size, 1)
        elif inner == _STRING and whole:
            return [stored() for _ in range(count)]
        elif inner == _STRING:
            for _ in range(count):
                file.seek(_checked(number(10)), 1)
        else:
            raise ValueError("an array of arrays")
        return count

    if file.read(4) != b"GGUF":
        raise ValueError("not a GGUF file")
    number(4)
    num_tensors = number(10)
    num_values = number(10)
    if max(num_tensors, num_values) > _MAX_ENTRIES:
        raise ValueError(f"{max(num_tensors, num_values)} entries, more than any header")
    values = {}
    for _ in range(num_values):
        key = text()
        values[key] = value(key, number(4))
    tensors = {}
    for _ in range(num_tensors):
        name = text()
        dims = tuple(number(10) for _ in range(min(number(4), 8)))
        tensors[name] = Place(dims, number(4), number(10))
    align = values.get("general.alignment", 32)
    if not isinstance(align, int) or not 0 < align <= 1 << 20:
        raise ValueError(f"an alignment of {align}")
    return Header(values, tensors, -(-file.tell() // align) * align, words)


def _checked(length: int) -> int:
    if length > 1 << 32:
        raise ValueError("a string longer than any header")
    return length
