"""A and B of experts as peft writes them: those of all experts of a parameter in one matrix, under its module's name.

Owns: names and layout of `lora.ParamWrapper` (peft's `target_parameters`), both ways.
Does not know: files, configs beyond that list, models.
Units: tensors. E experts, r rank. Ours: A (E, r, in), B (E, out, r), by `MODULE.LEAF.lora_A`.

    peft's A  (E r, in)   an expert's rows one after the other
    peft's B  (out, r E)  the experts' columns by turns: column i E + e is column i of expert e
    names     the wrapper of the module's last parameter has the module's name; each one before it `.base_layer` more

Where a model does not say that its matrices are (in, out), as Llama 4's are, peft takes them for (out, in): `swapped`.
Its product is the transposed one then, and ours has to be turned round: its A is our B, its B our A.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from torch import Tensor

from .packed import PARAMETERS

_INNER = ".base_layer"
_WEIGHT = ".weight"  # a target that ends so is a linear layer
_OLD = ("gate_proj", "up_proj", "down_proj")  # peft takes layers of a mixture with these names for experts of before


class Place(NamedTuple):
    """Where peft has a parameter's A and B: the name that they follow on."""

    module: str
    leaf: str
    holder: str


def places(names: Iterable[str]) -> list[Place]:
    """For full names of parameters with experts."""
    leaves: dict[str, set[str]] = {}
    for name in names:
        module, _, leaf = name.rpartition(".")
        leaves.setdefault(module, set()).add(leaf)
    found = []
    for module, held in leaves.items():
        ordered = [leaf for leaf in PARAMETERS if leaf in held]
        found += [
            Place(module, leaf, module + _INNER * (len(ordered) - 1 - index)) for index, leaf in enumerate(ordered)
        ]
    return found


def targets(layers: Iterable[str], experts: Iterable[str]) -> tuple[list[str], list[str]]:
    """`target_modules` and `target_parameters` of an adapter that lies on both.

    Layers of a mixture that have the names of old experts' are named by their weights: peft would put the adapter on
    all experts instead.
    """
    old = [name for name in layers if name.rpartition(".")[2] in _OLD]
    others = [name for name in layers if name not in old]
    return others, [*experts, *(name + _WEIGHT for name in old)]


def resolved(holders: Iterable[str], wanted: Iterable[str]) -> list[Place]:
    """Which of the names that A and B follow on in a file are of experts, by the `target_parameters`, which may leave
    the beginnings of names out.

    Raises:
        ValueError: a target is of something else, or of nothing.
    """
    modules = dict.fromkeys(holder.replace(_INNER, "") for holder in holders)
    found = []
    for target in wanted:
        above, _, leaf = target.rpartition(".")
        named = [f"{name}.{leaf}" for name in modules if name == above or name.endswith(f".{above}")]
        if leaf in PARAMETERS and named:
            found += named
        elif not target.endswith(_WEIGHT):
            raise ValueError(target)
    return places(found)


def to_peft(a: Tensor, b: Tensor, *, swapped: bool) -> tuple[Tensor, Tensor]:
    """peft's A and B of one parameter."""
    if swapped:
        a, b = b.mT, a.mT
    return a.reshape(-1, a.shape[2]), b.permute(1, 2, 0).reshape(b.shape[1], -1)


def from_peft(a: Tensor, b: Tensor, rank: int, *, swapped: bool) -> tuple[Tensor, Tensor]:
    """Ours, of peft's.

    Raises:
        ValueError: they are not of whole experts of that rank.
    """
    count = len(a) // rank
    if a.ndim != 2 or b.ndim != 2 or not count or len(a) != count * rank or b.shape[1] != len(a):
        raise ValueError(f"{tuple(a.shape)} and {tuple(b.shape)}")
    ours = a.view(count, rank, -1)
    other = b.view(len(b), rank, count).permute(2, 0, 1)
    return (other.mT, ours.mT) if swapped else (ours, other)
