"""The temporary LoRA: attach, switch on and off, reset, snapshot, restore, discard.

Owns: peft's layers while a session is alive, the adapter's parameters.
Does not know: how a layer's product is computed (`fused`), how experts get A and B (`expertlora`), losses, texts,
optimisers.
Units: parameters in float32. LoRA: y = W x + s B A x (arXiv 2106.09685), through peft.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ModelError, SettingsError
from ..memory import families
from ..memory.mixture import EXPERTS
from ..settings import AdapterSettings, group_of
from ..weights import libraries
from ..weights.paging import Lookup
from . import expertlora, patches
from .base import Base
from .expertlora import ExpertLora
from .fused import fused_forward

_numbers = itertools.count()


class Adapter:
    """One temporary adapter on a base. Several may live at once; each forward names the one it uses.

    Attributes:
        version: grows whenever the parameters change, so that a cache can know that it is stale.
    """

    def __init__(self, base: Base, settings: AdapterSettings, *, seed: int = 0, fused: bool = True) -> None:
        """Attaches a fresh adapter: A random, B zero, so that it changes nothing until it learns.

        Raises:
            SettingsError: `adapter.modules` or `adapter.layers` matches nothing; a repair is asked for, and the base
                has none.
        """
        self._start = None if settings.start == "fresh" else base.repair()
        if settings.start == "repair" and self._start is None:
            raise SettingsError(
                f"adapter.start is 'repair', and {base.reference} holds none", "a 4-bit folder made with --repair",
                "templora quantize MODEL OUT --repair, or adapter.start=auto",
            )  # fmt: skip
        self.base = base
        self.settings = settings
        self.name = f"templora{next(_numbers)}"
        self.version = 0
        self._strength = 1.0
        self._factor = settings.alpha / settings.rank
        self.targets = target_names(base, settings)
        chosen = expert_names(base, settings)
        if not (self.targets or chosen):
            raise SettingsError(
                f"adapter.layers={settings.layers} holds none of {', '.join(settings.modules)}",
                "a block that has some", "name more layers or modules",
            )  # fmt: skip
        mended = set(self._start or ())  # layers that are repaired, though they do not learn
        every = _adaptable(base)
        attached = [name for name in every if name in self.targets or f"{name}.lora_A" in mended]
        self._tuner: Any = self._attach(attached) if attached else None
        self._alive = True
        self._learns = frozenset([*self.targets, *chosen])
        self._copies: dict[str, list[Tensor]] = {}  # A and B in the compute dtype, by layer
        self._stacks: dict[tuple[str, ...], Tensor] = {}  # A's copies of layers that take the same
        self._copies_of = -1  # the version that they are of
        half = len(base.blocks) // 2
        self._upper = frozenset(name for name in self._learns if block_of(name, default=half) >= half)
        self.layers: dict[str, Any] = {name: base.model.get_submodule(name) for name in attached}
        for layer in self.layers.values():
            layer.eval()
            for store in (layer.lora_A, layer.lora_B):
                store[self.name].to(device=base.device.name, dtype=torch.float32)
                nn.init.zeros_(store[self.name].weight)  # of a layer that is only repaired, some stay so
            if fused:
                patches.replace(layer, "fused LoRA", partial(fused_forward, layer))
            layer._disable_adapters = True
        self.experts = ExpertLora(base, settings, chosen)
        self.reset(seed)

    def _attach(self, layers: list[str]) -> Any:
        """Puts peft's layers in the place of the base's own; gives what holds them all."""
        import peft

        model = self.base.model
        config = peft.LoraConfig(
            r=self.settings.rank,
            lora_alpha=self.settings.alpha,  # peft accepts fractions
            lora_dropout=self.settings.dropout,
            target_modules=layers,
            bias="none",
            init_lora_weights=False,  # it would draw A a second time
        )
        config.templora_layers = layers
        tuner = getattr(model, "_templora_tuner", None)
        if tuner is None:
            tuner = libraries.tuner()(model, config, self.name)
            object.__setattr__(model, "_templora_tuner", tuner)  # not a submodule: it would contain itself
        else:
            tuner.peft_config[self.name] = config
            tuner.inject_adapter(model, self.name)
        return tuner

    # --- parameters ---

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """A (rank, in) and B (out, rank) of every layer that learns, in the model's order; then those of experts, which
        have one dimension more, the expert.
        """
        for name in self.targets:
            yield f"{name}.lora_A", self.layers[name].lora_A[self.name].weight
            yield f"{name}.lora_B", self.layers[name].lora_B[self.name].weight
        yield from self.experts.named_parameters()

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """All that it adds to the base, also in layers that are repaired and do not learn."""
        for name, layer in self.layers.items():
            yield f"{name}.lora_A", layer.lora_A[self.name].weight.detach()
            yield f"{name}.lora_B", layer.lora_B[self.name].weight.detach()
        for name, parameter in self.experts.named_parameters():
            yield name, parameter.detach()

    def parameters(self) -> list[nn.Parameter]:
        """The trainable parameters; those of layers that are only repaired never change."""
        return [parameter for _, parameter in self.named_parameters()]

    @property
    def repairs(self) -> bool:
        """Whether it changes the base before it has learned anything."""
        return self._start is not None

    @property
    def num_parameters(self) -> int:
        """How many numbers the adapter holds."""
        return sum(parameter.numel() for parameter in self.parameters())

    @torch.no_grad()
    def reset(self, seed: int) -> None:
        """A fresh adapter: A as peft initialises it (Kaiming uniform, a = sqrt 5), B zero; same bits on any device.

        Where the base has a repair it takes the place of the first ranks, as many as there are on both sides.
        """
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if name.endswith("lora_B"):
                parameter.zero_()
                continue
            bound = 1 / math.sqrt(parameter.shape[-1])
            if parameter.ndim == 3:
                expertlora.fill(parameter, bound, generator)
            else:
                drawn = torch.empty(parameter.shape, dtype=torch.float32)
                parameter.copy_(drawn.uniform_(-bound, bound, generator=generator))
        if self._start is not None:
            for name, layer in self.layers.items():
                if f"{name}.lora_A" in self._start:
                    self._begin_with(layer, self._start[f"{name}.lora_A"], self._start[f"{name}.lora_B"])
        self.version += 1

    def _begin_with(self, layer: Any, a: Tensor, b: Tensor) -> None:
        """B A of the repair, whatever this adapter's own factor is."""
        own_a = layer.lora_A[self.name].weight
        own_b = layer.lora_B[self.name].weight
        if a.shape[1] != own_a.shape[1] or b.shape[0] != own_b.shape[0]:
            raise ModelError(
                f"the repair's layers are {tuple(a.shape)} and {tuple(b.shape)}", f"inputs of {own_a.shape[1]}",
                "make the folder again with templora quantize --repair",
            )  # fmt: skip
        ranks = min(len(a), len(own_a))
        own_a[:ranks] = a[:ranks].to(own_a)
        own_b[:, :ranks] = b[:, :ranks].to(own_b) / self._factor

    @torch.no_grad()
    def snapshot(self) -> dict[str, Tensor]:
        """A copy of all parameters."""
        return {name: parameter.detach().clone() for name, parameter in self.named_parameters()}

    def fingerprint(self) -> str:
        """SHA-256 of all names and values: equal where the adapters are, bit for bit."""
        digest = hashlib.sha256()
        for name, parameter in self.named_parameters():
            digest.update(name.encode())
            digest.update(parameter.detach().cpu().contiguous().numpy().data)
        return digest.hexdigest()

    @torch.no_grad()
    def restore(self, snapshot: Lookup) -> None:
        """Puts a snapshot's values back, bit for bit."""
        for name, parameter in self.named_parameters():
            parameter.copy_(snapshot[name])
        self.version += 1

    def factors(self, name: str) -> tuple[Tensor, Tensor, float]:
        """A (r, K), B (N, r) and the factor of one layer, as a step reads them: in the compute dtype.

        Where that is narrower they are copies that stay where they are, and hold what `refresh` put there last.
        """
        if name not in self._copies:
            layer = self.layers[name]
            dtype = self.base.device.torch_dtype
            masters = [store[self.name].weight.data for store in (layer.lora_A, layer.lora_B)]
            self._copies[name] = [master if master.dtype == dtype else master.to(dtype) for master in masters]
            self._copies_of = -1
        a, b = self._copies[name]
        return a, b, self.scaling

    @torch.no_grad()
    def stacked(self, names: Sequence[str]) -> Tensor | None:
        """A of several layers of the same input one above the other, (r of all, K): what `factors` gives are parts of
        it from now on. None where those are no copies, and lie apart.
        """
        if self.base.device.dtype == "float32":
            return None
        key = tuple(names)
        if key not in self._stacks:
            parts = [self.factors(name)[0] for name in names]
            self._stacks[key] = torch.cat(parts)
            for name, part in zip(
                names, self._stacks[key].split_with_sizes([len(part) for part in parts]), strict=True
            ):
                self._copies[name][0] = part
        return self._stacks[key]

    @torch.no_grad()
    def refresh(self) -> None:
        """Brings what `factors` gave to what A and B hold now: what was recorded on a GPU reads the new values."""
        if self._copies_of == self.version or self.base.device.dtype == "float32":
            return
        masters = [store[self.name].weight.data for name in self._copies
                   for store in (self.layers[name].lora_A, self.layers[name].lora_B)]  # fmt: skip
        if masters:
            torch._foreach_copy_([copy for pair in self._copies.values() for copy in pair], masters)
        self._copies_of = self.version

    # --- switching ---

    @property
    def strength(self) -> float:
        """How much of what it has learned is used, 1 for all. What was computed with another one is stale."""
        return self._strength

    @strength.setter
    def strength(self, strength: float) -> None:
        self._strength = strength
        self.version += 1

    @property
    def scaling(self) -> float:
        """What B A is multiplied by where it is used: alpha / rank, and `strength`."""
        return self._factor * self._strength

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Inside, its strength is 1, as lessons need it. Nothing that is kept for later may be computed inside."""
        strength = self._strength
        self._strength = 1.0
        try:
            yield
        finally:
            self._strength = strength

    @contextmanager
    def active(self, *, training: bool = False, shallow: bool = False) -> Iterator[None]:
        """Inside the block the model computes with this adapter; outside always without any.

        `shallow`: no gradient reaches the lower half of the blocks, and nothing is kept there for one.
        """
        learns = self._upper if shallow else self._learns
        for layer in self.layers.values():
            layer._disable_adapters = False
            layer._active_adapter = [self.name]
            layer.scaling[self.name] = self.scaling
            layer.lora_dropout[self.name].train(training)
        for name, layer in self.layers.items():  # peft turns it off when another adapter is added
            for store in (layer.lora_A, layer.lora_B):
                store[self.name].weight.requires_grad_(name in learns)
        self.experts.turn_on(learns, self.scaling, training=training)
        try:
            yield
        finally:
            self.experts.turn_off()
            for layer in self.layers.values():
                layer._disable_adapters = True
                layer.lora_dropout[self.name].train(False)

    def discard(self) -> None:
        """Removes the adapter; with the last one gone the model has its own layers back."""
        if not self._alive:
            return
        self._alive = False
        self.experts.discard()
        if self._tuner is not None:
            self._detach()
        self.layers = {}
        self.targets = []
        self._copies = {}
        self._stacks = {}
        self.version += 1

    def _detach(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # peft reports which other adapter it makes active; we name it each time
            for layer in self.layers.values():
                layer.delete_adapter(self.name)
        del self._tuner.peft_config[self.name]
        if not self._tuner.peft_config:
            self._tuner.unload()
            del self.base.model._templora_tuner


def target_names(base: Base, settings: AdapterSettings) -> list[str]:
    """Full names of the linear layers to adapt.

    Raises:
        SettingsError: nothing matches, or more layers are asked for than there are.
    """
    linears = _adaptable(base)
    kinds = sorted({name.rpartition(".")[2] for name in linears})
    kinds += sorted({group_of(kind) for kind in kinds})
    if EXPERTS in settings.modules:  # beside experts a group may be empty
        kinds += [EXPERTS, "attention", "mlp"]
    unknown = [name for name in settings.modules if name not in kinds]
    if unknown:
        raise SettingsError(f"adapter.modules names '{unknown[0]}'", "some of " + ", ".join(kinds), "correct the name")
    first = _first_block(base, settings)
    chosen = []
    for name in linears:
        if not settings.takes(name.rpartition(".")[2]):
            continue
        if block_of(name, default=first) < first:
            continue
        chosen.append(name)
    return chosen


def expert_names(base: Base, settings: AdapterSettings) -> list[str]:
    """Full names of the parameters whose experts are adapted: none where `adapter.modules` does not name them.

    Raises:
        SettingsError: it does, and the model has none; or more layers are asked for than there are.
    """
    first = _first_block(base, settings)
    return [name for name in expertlora.names_of(base, settings) if block_of(name, default=first) >= first]


def _first_block(base: Base, settings: AdapterSettings) -> int:
    """The first block that is adapted."""
    count = len(base.blocks)
    top = count if settings.top is None else settings.top
    if top > count:
        raise SettingsError(f"adapter.layers is 'top:{top}'", f"at most top:{count} on this model", "lower it")
    return count - top


def _adaptable(base: Base) -> list[str]:
    """Full names of the layers that an adapter may change (`memory/families.py`)."""
    names = (name.replace(".base_layer", "") for name, _ in base.linears())
    return [name for name in names if families.adapts(name)]


def block_of(name: str, *, default: int) -> int:
    """Which transformer block a layer lies in, by its full name; `default` where in none."""
    return next((int(part) for part in name.split(".") if part.isdigit()), default)
