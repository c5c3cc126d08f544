"""A module's forward under patches: the last one first, taken off in any order, its own again at the end."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from edge.model import patches


class Said(nn.Module):
    """Says where the call came through."""

    def forward(self, x: str) -> str:
        return f"own({x})"


def _saying(name: str) -> patches.Patch:
    return lambda inner: lambda x: f"{name}({inner(x)})"


@pytest.mark.parametrize("order", itertools.permutations(["a", "b", "c"]))
def test_patches_come_off_in_any_order(order: tuple[str, ...]) -> None:
    module = Said()
    before = dict(module.__dict__)
    left = ["a", "b", "c"]
    for name in left:
        patches.put(module, name, _saying(name))
    assert module("x") == "c(b(a(own(x))))"
    for name in order:
        patches.take(module, name)
        left.remove(name)
        expected = "own(x)"
        for other in left:
            expected = f"{other}({expected})"
        assert module("x") == expected
        assert patches.names(module) == left
    assert module.__dict__ == before


def test_a_patch_of_a_name_is_replaced_where_it_stands() -> None:
    module = Said()
    patches.put(module, "a", _saying("a"))
    patches.put(module, "b", _saying("b"))
    patches.put(module, "a", _saying("new"))
    assert module("x") == "b(new(own(x)))"


def test_what_a_library_put_on_the_module_stays_below() -> None:
    module = Said()
    hook = _saying("hook")(module.forward)
    module.forward = hook
    patches.replace(module, "a", lambda x: "a")
    assert module("x") == "a"
    patches.take(module, "missing")
    patches.take(module, "a")
    assert module.__dict__["forward"] is hook
    assert module("x") == "hook(own(x))"


def test_hooks_still_run() -> None:
    """A patch stands for `forward`, below what torch does around it."""
    module = nn.Linear(2, 2)
    seen = []
    module.register_forward_hook(lambda *args: seen.append("hook"))
    patches.replace(module, "double", lambda x: 2 * x)
    assert module(torch.ones(2)).tolist() == [2, 2]
    assert seen == ["hook"]
