"""What stands for a module's own forward: applied and undone by name, in any order.

Owns: every replacement of a module's `forward`. Does not know: what the replacements compute.

A module has at most one patch of a name. The patch put last is entered first, and is given what it stands before:
the patches put earlier, and below them the module's own forward. Taking one off leaves the others as they are,
whichever was put first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

Forward = Callable[..., Any]
Patch = Callable[[Forward], Forward]  # from what it stands before to what is called instead
_STACK = "_templora_patches"  # in the module's own dictionary: name -> patch, in the order they were put
_OWN = "_templora_own_forward"  # a forward that a library had put on the module itself, if one had


def put(module: nn.Module, name: str, patch: Patch) -> None:
    """Puts `patch` on the module; one of that name is replaced where it stands."""
    if _STACK not in module.__dict__:
        module.__dict__[_STACK] = {}
        module.__dict__[_OWN] = module.__dict__.get("forward")
    module.__dict__[_STACK][name] = patch
    _build(module)


def replace(module: nn.Module, name: str, forward: Forward) -> None:
    """Puts a patch that needs nothing of what it stands before."""
    put(module, name, lambda own: forward)


def take(module: nn.Module, name: str) -> None:
    """Takes the patch of that name off; nothing where there is none."""
    stack = module.__dict__.get(_STACK, {})
    if stack.pop(name, None) is not None:
        _build(module)


def names(module: nn.Module) -> list[str]:
    """The module's patches, in the order they were put."""
    return list(module.__dict__.get(_STACK, {}))


def _build(module: nn.Module) -> None:
    """The module's forward from what is on its stack; its own again, and no trace left, where nothing is."""
    own = module.__dict__[_OWN]
    module.__dict__.pop("forward", None)
    if own is not None:
        module.__dict__["forward"] = own
    forward = module.forward
    for patch in module.__dict__[_STACK].values():
        forward = patch(forward)
        module.__dict__["forward"] = forward
    if not module.__dict__[_STACK]:
        del module.__dict__[_STACK], module.__dict__[_OWN]
