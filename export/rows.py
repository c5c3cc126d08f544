"""The vocabulary's matrices in an export's data file: rows of the embedding as a text asks for them, the
head as a whole.

Owns: where a matrix lies, how it is read, what its bytes mean, when its memory is given back.
Does not know: graphs, sessions, tokens' meaning.
Units: bytes; float32.

A lookup in a mapped matrix maps the row's neighbours too, up to 64 KiB for 2 KiB: a long text would map most of a
vocabulary that it uses a hundredth of. A read costs a few microseconds, and nothing stays. The head is used from end
to end, and mapped.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from edge.errors import ExportError, describe

Array = np.ndarray[Any, Any]
INT8_ZERO = 128  # unsigned bytes lie around it


@dataclass(frozen=True)
class Place:
    """Where a matrix lies in the data file.

    Attributes:
        rows, columns: its shape.
        offset: of its first row: float32, or bytes where `block` is not 0.
        block: bytes that share a scale: value = (byte - 128) * scale; 0 for float32.
        scales: offset of the first row's scales, float32.
    """

    rows: int
    columns: int
    offset: int
    block: int = 0
    scales: int = 0

    def spans(self) -> list[tuple[int, int]]:
        """The bytes [start, end) that it takes: of its numbers, and of their scales where it has some."""
        count = self.rows * self.columns
        if not self.block:
            return [(self.offset, self.offset + 4 * count)]
        scales = 4 * (count // self.block)
        return [(self.offset, self.offset + count), (self.scales, self.scales + scales)]


class Mapped:
    """A float32 matrix of the data file, which comes into memory as it is used.

    Attributes:
        matrix: (rows, columns) float32. Writing to it changes this process's memory alone, up to the next `release`.
    """

    def __init__(self, path: Path, place: Place) -> None:
        """Maps the file.

        Raises:
            ExportError: it cannot be opened, or ends before the matrix does.
        """
        start = place.offset // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
        skipped = place.offset - start
        count = place.rows * place.columns
        try:
            with path.open("rb") as file:
                self._memory = mmap.mmap(file.fileno(), skipped + 4 * count, access=mmap.ACCESS_COPY, offset=start)
        except (OSError, ValueError) as error:
            raise _damaged(path, describe(error)) from error
        values = np.frombuffer(self._memory, np.float32, count, skipped)
        self.matrix: Array = values.reshape(place.rows, place.columns)

    def release(self) -> None:
        """Gives its memory back where the system knows how; the next use reads it in again, from
        the system's own cache.
        """
        if hasattr(mmap, "MADV_DONTNEED"):
            self._memory.madvise(mmap.MADV_DONTNEED)


class Rows:
    """The embedding of one data file."""

    def __init__(self, path: Path, place: Place) -> None:
        """Opens the file; it stays open.

        Raises:
            ExportError: it cannot be opened.
        """
        self.path = path
        self.place = place
        self._lock = Lock()
        try:
            self._file = path.open("rb", buffering=0)
        except OSError as error:
            raise _damaged(path, describe(error)) from error

    def __call__(self, ids: Array) -> Array:
        """(S, columns) float32 of (S,) token ids.

        Raises:
            IndexError: an id that the matrix does not hold.
            ExportError: the file was changed or taken away.
        """
        place = self.place
        wanted, order = np.unique(ids, return_inverse=True)
        if len(wanted) and not (wanted[0] >= 0 and wanted[-1] < place.rows):
            raise IndexError(f"token ids {wanted[0]} to {wanted[-1]}, of a vocabulary of {place.rows}")
        if not place.block:
            return self._read(wanted, place.offset, place.columns, np.float32)[order]
        codes = self._read(wanted, place.offset, place.columns, np.uint8)
        scales = self._read(wanted, place.scales, place.columns // place.block, np.float32)
        steps = codes.reshape(*scales.shape, place.block).astype(np.float32) - INT8_ZERO
        values: Array = (steps * scales[..., None]).reshape(codes.shape)[order]
        return values

    def _read(self, wanted: Array, offset: int, columns: int, kind: Any) -> Array:
        values = np.empty((len(wanted), columns), kind)
        length = columns * values.itemsize
        with self._lock:
            for row, index in zip(values, wanted.tolist(), strict=True):
                try:
                    self._file.seek(offset + index * length)
                    read = self._file.readinto(row.data.cast("B"))
                except OSError as error:
                    raise _damaged(self.path, describe(error)) from error
                if read != length:
                    raise _damaged(self.path, f"{read} of {length} bytes of row {index}")
        return values


def _damaged(path: Path, why: str) -> ExportError:
    return ExportError(f"{path} cannot be read ({why})", "the export's weights", "export it again")
