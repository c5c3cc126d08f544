"""Tensors kept outside the memory that is scarce, bit for bit.

Owns: the three places: beside the model (`MemoryStore`), CPU memory for a GPU (the same, pinned), a file for a CPU.
Does not know: what the tensors are for.
Units: bytes. A file store's file has no name: it is gone when the process is.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from ..errors import StorageError
from ..machine.device import Device


class Store(Protocol):
    """Holds copies of tensors under names."""

    def put(self, name: str, tensor: Tensor) -> None:
        """Keeps a copy of `tensor`."""
        ...

    def get(self, name: str, out: Tensor) -> Tensor:
        """Copies what was put under `name` into `out` (contiguous), and returns it."""
        ...

    def read(self, name: str) -> Tensor:
        """What was put under `name`; not to be written to."""
        ...

    def close(self) -> None:
        """Forgets everything."""
        ...


class MemoryStore:
    """Copies in memory, made once and reused; `on_cpu` keeps them in page-locked CPU memory.

    Between a GPU and page-locked memory they are made in the GPU's own time, in the order they were asked for; it is
    waited for where the CPU looks at one.
    """

    def __init__(self, *, on_cpu: bool = False) -> None:
        self._on_cpu = on_cpu
        self._on_the_way = False
        self._held: dict[str, Tensor] = {}

    @torch.no_grad()
    def put(self, name: str, tensor: Tensor) -> None:
        """See `Store.put`."""
        pinned = self._on_cpu and tensor.device.type == "cuda"
        if name not in self._held or self._held[name].shape != tensor.shape:
            place = "cpu" if self._on_cpu else tensor.device
            self._held[name] = torch.empty(tensor.shape, dtype=tensor.dtype, device=place, pin_memory=pinned)
        self._held[name].copy_(tensor, non_blocking=pinned)
        self._on_the_way |= pinned

    @torch.no_grad()
    def get(self, name: str, out: Tensor) -> Tensor:
        """See `Store.get`."""
        if out.device.type == "cpu":
            self._wait()
        return out.copy_(self._held[name], non_blocking=True)

    def read(self, name: str) -> Tensor:
        """See `Store.read`."""
        self._wait()
        return self._held[name]

    def _wait(self) -> None:
        if self._on_the_way:
            torch.cuda.synchronize()
            self._on_the_way = False

    def close(self) -> None:
        """See `Store.close`."""
        self._held.clear()

    def move_to(self, other: Store) -> None:
        """Puts everything into another store, and holds nothing any more."""
        self._wait()
        while self._held:
            name, tensor = self._held.popitem()
            other.put(name, tensor)


class FileStore:
    """Copies in a temporary file under `folder`, which should lie on a disk and not in memory.

    Raises:
        StorageError: the disk is full or not writable.
    """

    def __init__(self, folder: Path) -> None:
        self._places: dict[str, tuple[int, int, torch.Size, torch.dtype]] = {}  # begin, room, ...
        self._end = 0
        self._folder = folder
        self._file: Any = None

    def _number(self) -> int:
        """The file's descriptor; the file is made when it is first needed."""
        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115 (closed by `close`)
        return int(self._file.fileno())

    def close(self) -> None:
        """See `Store.close`."""
        if self._file is not None:
            self._file.close()
        self._file = None
        self._places = {}

    def put(self, name: str, tensor: Tensor) -> None:
        """See `Store.put`."""
        data = _bytes(tensor.detach().contiguous())
        size = len(data)
        done = 0
        begin, room, *_ = self._places.get(name, (self._end, 0))
        if room < size:
            begin = self._end
            room = size + size // 8
            self._end += room
        self._places[name] = (begin, room, tensor.shape, tensor.dtype)
        try:
            while done < size:
                done += os.pwrite(self._number(), data[done:], begin + done)
        except OSError as error:
            raise self._failed(error) from error

    def get(self, name: str, out: Tensor) -> Tensor:
        """See `Store.get`."""
        begin = self._places[name][0]
        data = _bytes(out.detach())
        done = 0
        while done < len(data):
            count = os.preadv(self._number(), [data[done:]], begin + done)
            if not count:
                raise StorageError(f"a page of {self._folder} is cut short", "what was written to it", "check the disk")
            done += count
        return out

    def read(self, name: str) -> Tensor:
        """See `Store.read`."""
        _, _, shape, dtype = self._places[name]
        return self.get(name, torch.empty(shape, dtype=dtype))

    def _failed(self, error: OSError) -> StorageError:
        return StorageError(
            f"cannot page to {self._folder}: {error.strerror}", "a writable disk with room", "set TEMPLORA_CACHE"
        )


def outside(device: Device, folder: Path) -> Store:
    """The store for what must not lie in the device's memory."""
    return FileStore(folder) if device.kind == "cpu" or device.unified else MemoryStore(on_cpu=True)


def _bytes(tensor: Tensor) -> memoryview:
    return memoryview(tensor.view(-1).view(torch.uint8).numpy().data) if tensor.numel() else memoryview(bytearray())


class Lookup(Protocol):
    """Tensors by name: a dictionary, or something that fetches them one at a time."""

    def __getitem__(self, name: str, /) -> Tensor: ...


class Stored:
    """A store's tensors, read as they are asked for."""

    def __init__(self, store: Store, prefix: str) -> None:
        self._store = store
        self._prefix = prefix

    def __getitem__(self, name: str) -> Tensor:
        return self._store.read(self._prefix + name)


class Under:
    """The names of `source` that begin with `prefix`, called without it."""

    def __init__(self, source: Lookup, prefix: str) -> None:
        self._source = source
        self._prefix = prefix

    def __getitem__(self, name: str) -> Tensor:
        return self._source[self._prefix + name]
