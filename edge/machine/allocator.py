"""Where freed memory goes: back to the system, or kept for the next chunk.

Owns: what glibc's and torch's allocators are told, and how many kernels oneDNN keeps.
Does not know: what the memory is used for.
Units: bytes.
"""

from __future__ import annotations

import ctypes
import gc
import inspect
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import cache
from types import FrameType
from typing import Any

MAPPED = 4 << 20  # bytes from which on a CPU tensor goes back to the system when it is freed
KEPT = 32 << 20  # the same where freed memory is kept: the most that glibc allows
KERNELS = 128  # that oneDNN keeps for matmuls: a chunk's scoring and learning need 36 to 113, whatever the architecture
_M_ARENA_MAX = -8
_M_MMAP_THRESHOLD = -3
_M_TRIM_THRESHOLD = -1  # mallopt(3)


class _Heap:
    """What this process's allocator was told; there is one heap, and one of these."""

    tuned = False
    kept = False
    own = False


def tune_allocator() -> None:
    """Huge pages for tensors, few malloc arenas, expandable CUDA segments, few kernels of oneDNN and cuDNN.

    Call it before torch computes anything: all of it is read at the first use. What the environment says already is
    left as it is.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    if "PYTORCH_ALLOC_CONF" not in os.environ:  # the newer name, which would not be heard beside the older one
        os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    # On Hopper torch prefers cuDNN's attention, which plans anew for each length: 30 ms or more, for every token
    os.environ.setdefault("TORCH_CUDNN_SDPA_DEPRIORITIZED", "1")
    _bound_kernels()
    _mallopt(_M_ARENA_MAX, 2)
    _Heap.tuned = True
    keep_heap(False)


def _bound_kernels() -> None:
    """The least recently used matmul kernels are dropped beyond `KERNELS`; both caches are of 1024 by default.

    oneDNN makes a kernel for every new shape. It takes about 1 ms, and holds 0.3 to 0.6 MB of the heap,
    nearly all of it descriptors. torch keeps a second copy of those by shape, without which a product takes 1
    us more; 0 crashes there.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(KERNELS))
    os.environ.setdefault("LRU_CACHE_CAPACITY", "1")


def keep_heap(keep: bool) -> None:
    """Whether freed memory stays with the process or goes back to the system, where `tune_allocator` was called.

    Going back: tensors from 4 MiB up when they are freed, the rest at each `trim`. Each is handed out again page by
    page, which takes up to a fifth of a learning step's time. Kept: tensors up to 32 MiB (glibc's limit) come from a
    heap that grows to the peak and stays there.
    """
    _Heap.kept = keep and _Heap.tuned
    if _Heap.tuned:
        _mallopt(_M_MMAP_THRESHOLD, KEPT if keep else MAPPED)
        _mallopt(_M_TRIM_THRESHOLD, 2**31 - 1 if keep else MAPPED)


def keep_scratch() -> AbstractContextManager[None]:
    """Inside, what is freed is handed out again, up to `KEPT` bytes; after it the heap is tended as before.

    For work that asks for the same few blocks over and over: a decoder that widens a weight at each use would have the
    system clear pages for all of them at every token. What is free at the end stays until the next `trim`.
    """
    return nullcontext() if _Heap.kept else _meanwhile({_M_MMAP_THRESHOLD: KEPT, _M_TRIM_THRESHOLD: KEPT})


def own_pages() -> AbstractContextManager[None]:
    """Inside, blocks from 128 KiB up are mapped by themselves: for what lasts, so
    that it leaves no holes in the heap.
    """
    return _meanwhile({_M_MMAP_THRESHOLD: 128 << 10})


@contextmanager
def _meanwhile(options: Mapping[int, int]) -> Iterator[None]:
    """Other options inside, where `tune_allocator` was called; after it those of `keep_heap` again."""
    if not _Heap.tuned:
        yield
        return
    for option, value in options.items():
        _mallopt(option, value)
    try:
        yield
    finally:
        keep_heap(_Heap.kept)


def _mallopt(option: int, value: int) -> None:
    if (libc := _glibc()) is not None:
        libc.mallopt(option, value)


def trim() -> None:
    """Gives freed heap pages back to the system, also those between others; nothing where the heap is kept."""
    if not _Heap.kept:
        _malloc_trim()


def _malloc_trim() -> None:
    if (libc := _glibc()) is not None:
        libc.malloc_trim(0)


@cache
def _glibc() -> Any:
    """The C library; None where it is another one, whose own allocator decides."""
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:
        return None
    return libc if hasattr(libc, "mallopt") else None


def own_process() -> None:
    """This process is the command and nothing else: what it has imported stays to its end."""
    _Heap.own = True


def own() -> bool:
    """Whether this process is the command and nothing else."""
    return _Heap.own


@contextmanager
def uncollected() -> Iterator[None]:
    """Inside, Python looks for no circles: where objects are made by the 100,000 and nearly all of them stay, looking
    takes as long as making them.
    """
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()


@contextmanager
def importing() -> Iterator[None]:
    """Inside, nothing is collected; after it, in a process of our own, what is there is never looked at again.

    A collection goes through all that the libraries have made, a third of a second each time, and finds nothing.
    """
    with uncollected():
        yield
        if _Heap.own:
            _let_go_of_frames()
            gc.freeze()


def _let_go_of_frames() -> None:
    """Libraries leave frames in circles, which would hold for ever what their callers make next. This ends those of
    functions that have returned, in a tenth of a collection's time.
    """
    suspended = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
    for found in gc.get_objects():
        if type(found) is FrameType and not found.f_code.co_flags & suspended:
            with suppress(RuntimeError):  # it runs
                found.clear()


def release_memory() -> None:
    """Gives freed heap pages back to the system (and cached CUDA blocks to the driver)."""
    import sys

    gc.collect()
    _malloc_trim()

    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
