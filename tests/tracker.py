"""Counts the bytes of live tensor storages, at every operator: what a planner's prediction is held against."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Tracker(TorchDispatchMode):
    """Inside the block, `live` is what tensors made there hold now, `peak` the most they held."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._seen: set[int] = set()
        self.at_peak: dict[str, int] = {}
        self._now: dict[int, tuple[int, str]] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._add(tensor.untyped_storage(), before, f"{function} {tuple(tensor.shape)}")
        return result

    def _add(self, storage: Any, before: set[int], what: str) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._seen or key in before:
            return
        self._seen.add(key)
        self._now[key] = (size, what)
        self.live += size
        weakref.finalize(storage, self._remove, key, size)
        if self.live > self.peak:
            self.peak = self.live
            self.at_peak = dict(self._now)  # type: ignore[arg-type]

    def _remove(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self._now.pop(key, None)
        self.live -= size
