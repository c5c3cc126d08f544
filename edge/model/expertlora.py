"""The adapter's part on the experts of a mixture: an A and a B for each expert of each parameter.

Owns: these parameters, and when the experts' forward (`experts.py`) is given them.
Does not know: how a product is computed, linear layers, optimisers. peft cannot wrap experts in 4 bits.
Units: parameters in float32. E experts, r rank; A (E, r, in) and B (E, out, r) whichever way a model stores a matrix.
"""

from __future__ import annotations

from collections.abc import Container, Iterator

import torch
from torch import Tensor, nn

from ..errors import SettingsError
from ..memory.mixture import EXPERTS
from ..settings import AdapterSettings
from ..weights import packed
from . import experts
from .base import Base

_HELD = "_templora_adapters"  # in a module's own dictionary: how many adapters lie on it


class ExpertLora:
    """One adapter's A and B on experts, by the full names of the parameters that hold these.

    Attributes:
        names: of the parameters, in the model's order.
    """

    def __init__(self, base: Base, settings: AdapterSettings, names: list[str]) -> None:
        self.names = names
        self.dropout = settings.dropout
        self._modules: dict[str, nn.Module] = {}
        self._pairs: dict[str, tuple[nn.Parameter, nn.Parameter]] = {}
        for name in names:
            module = base.model.get_submodule(name.rpartition(".")[0])
            count, rows, columns = getattr(module, name.rpartition(".")[2]).shape
            outputs, inputs = (columns, rows) if packed.is_transposed(module) else (rows, columns)
            self._modules[name] = module
            sizes = (count, settings.rank, inputs), (count, outputs, settings.rank)
            a, b = (torch.zeros(size, device=base.device.name, dtype=torch.float32) for size in sizes)
            self._pairs[name] = nn.Parameter(a), nn.Parameter(b)
        for module in self._distinct():
            held = module.__dict__[_HELD] = module.__dict__.get(_HELD, 0) + 1
            experts.prepare(module, held)

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """A and B of every parameter with experts."""
        for name, (a, b) in self._pairs.items():
            yield f"{name}.lora_A", a
            yield f"{name}.lora_B", b

    def turn_on(self, learns: Container[str], scaling: float, *, training: bool) -> None:
        """The model computes with them; `learns`: names of those that get a gradient; `scaling`: what B A is
        multiplied by.
        """
        dropout = self.dropout if training else 0.0
        for name, (a, b) in self._pairs.items():
            a.requires_grad_(name in learns)
            b.requires_grad_(name in learns)
            experts.turn_on(self._modules[name], name.rpartition(".")[2], experts.Factors(a, b, scaling, dropout))

    def turn_off(self) -> None:
        """The model computes without any."""
        for module in self._distinct():
            experts.turn_off(module)

    def discard(self) -> None:
        """Forgets them; the model's experts are as they were before the first adapter on them."""
        for module in self._distinct():
            held = module.__dict__[_HELD] = module.__dict__[_HELD] - 1
            experts.prepare(module, held)
            if not held:
                del module.__dict__[_HELD]
        self.names = []
        self._modules = {}
        self._pairs = {}

    def _distinct(self) -> list[nn.Module]:
        return list(dict.fromkeys(self._modules.values()))


@torch.no_grad()
def fill(parameter: Tensor, bound: float, generator: torch.Generator) -> None:
    """Uniform numbers from the CPU's generator, one expert at a time: the same on any device, and no second copy."""
    for part in parameter:
        part.copy_(torch.empty(part.shape, dtype=torch.float32).uniform_(-bound, bound, generator=generator))


def names_of(base: Base, settings: AdapterSettings) -> list[str]:
    """Full names of the parameters whose experts are adapted; empty where the settings do not name them.

    Raises:
        SettingsError: they do, and the model has no experts that an adapter can lie on.
    """
    if EXPERTS not in settings.modules:
        return []
    found = packed.names(base.model)
    if not found:
        raise SettingsError(
            f"adapter.modules names '{EXPERTS}', and {base.reference} has none that an adapter can lie on",
            "a mixture of experts", f"leave '{EXPERTS}' out of adapter.modules",
        )  # fmt: skip
    return found
