"""torch's compiler, which nothing here uses, stays out of a process until something asks for it.

Owns: how `torch._dynamo` is put off; what libraries are told of torch's distributed package while they are imported.
Does not know: which libraries those are.
Units: none. torch is imported inside functions.

transformers names the compiler in decorators that do nothing without it, and torch in its checkpoints. To import it
takes a second of processor time and 1,100 modules. Python's own `importlib.util.LazyLoader` would do, if those
decorators were not the first thing that is asked of the package; here they are answered without its code, which is told
of them when it runs.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

PACKAGE = "torch._dynamo"
LEAF = "torch._dynamo._trace_wrapped_higher_order_op"  # transformers takes one class from it, for a mask of its own
TAKEN = "TransformGetItemToIndex"


class _Unread(types.ModuleType):
    """The package before its code has run. What it cannot answer runs that code, in this very module."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # `inspect` asks every module for a few of these
            raise AttributeError(name)
        _read(self)
        return getattr(self, name)

    @property
    def __path__(self) -> Any:  # type: ignore[override]
        """Where its submodules lie. Whoever imports one has the package's code run first, as ever."""
        _read(self)
        return self.__path__


def put_off() -> bool:
    """Puts the package off; False where some of it is there already. Then everything stays as it is."""
    if any(name == PACKAGE or name.startswith(f"{PACKAGE}.") for name in sys.modules):
        return False
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.loader is None:
        return False
    module = sys.modules[PACKAGE] = importlib.util.module_from_spec(spec)
    importlib.import_module(f"{PACKAGE}.config")  # plain values, which a checkpoint looks at
    for answer in (disable, assume_constant_result, allow_in_graph):
        setattr(module, answer.__name__, answer)
    module.__class__ = _Unread
    return True


def is_read() -> bool:
    """Whether the package's code has run, or runs."""
    return PACKAGE in sys.modules and not isinstance(sys.modules[PACKAGE], _Unread)


_told: list[tuple[str, Any]] = []  # decorators that were answered, and what they were given


def _read(module: types.ModuleType) -> None:
    """Runs the package's code in its module, then tells it what it was asked before."""
    module.__class__ = types.ModuleType
    for answer in (disable, assume_constant_result, allow_in_graph):
        module.__dict__.pop(answer.__name__, None)
    if isinstance(sys.modules.get(LEAF), _Leaf):
        del sys.modules[LEAF]
    spec = module.__spec__
    assert spec is not None and spec.loader is not None
    spec.loader.exec_module(module)
    while _told:
        name, function = _told.pop(0)
        getattr(module, name)(function)


def disable(
    function: Any = None, recursive: bool = True, *, reason: str | None = None, wrapping: bool = True
) -> Callable[..., Any]:
    """`torch._dynamo.disable`: the function itself, as long as nothing can be compiled; after that, what the package
    makes of it.
    """
    if function is None:
        return functools.partial(disable, recursive=recursive, reason=reason, wrapping=wrapping)
    made: list[Callable[..., Any]] = []

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        if not is_read():
            return function(*args, **kwargs)
        if not made:
            real = sys.modules[PACKAGE].disable
            made.append(real(function, recursive, reason=reason, wrapping=wrapping))
        return made[0](*args, **kwargs)

    return run


def assume_constant_result(function: Any) -> Any:
    """`torch._dynamo.assume_constant_result`, said to the package when it comes."""
    _told.append(("assume_constant_result", function))
    return function


def allow_in_graph(function: Any) -> Any:
    """`torch._dynamo.allow_in_graph`, said to the package when it comes."""
    _told.append(("allow_in_graph", function))
    return function


class _Leaf(types.ModuleType):
    """A module of the package that is imported for one name only, which is looked up where it is called."""

    def __init__(self) -> None:
        super().__init__(LEAF)
        setattr(self, TAKEN, _taken)


def _taken(*args: Any, **kwargs: Any) -> Any:
    return getattr(importlib.import_module(LEAF), TAKEN)(*args, **kwargs)


@contextmanager
def alone() -> Iterator[None]:
    """Libraries that are imported inside learn that this process computes alone: no compiler, no other processes.

    They ask torch once whether it has its distributed package, import it where it has, and keep the answer: half a
    second for what one process on one device never calls.
    """
    import torch.distributed

    if not put_off():
        yield
        return
    available = torch.distributed.is_available
    torch.distributed.is_available = lambda: False
    _forget("transformers.utils.import_utils", "is_torch_distributed_available")
    sys.modules[LEAF] = _Leaf()
    try:
        yield
    finally:
        torch.distributed.is_available = available
        if isinstance(sys.modules.get(LEAF), _Leaf):
            del sys.modules[LEAF]


def _forget(module: str, name: str) -> None:
    """Empties a cache that holds what a library was told before."""
    forget = getattr(getattr(sys.modules.get(module), name, None), "cache_clear", None)
    if forget is not None:
        forget()
