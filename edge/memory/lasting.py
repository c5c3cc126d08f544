"""Predicted memory of what stays: weights and their copies, embeddings, adapter and optimiser, keys and values.

Owns: what the prediction knows of a machine, and those formulas.
Does not know: torch, budgets, what a phase holds beside it (`prediction.py`).
Units: bytes.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from ..settings import AdapterSettings, Settings
from . import mixture
from .graph import Terms
from .mixture import Mixture
from .shape import Shape


@dataclass(frozen=True)
class Machine:
    """What the prediction needs to know of the device.

    Attributes:
        kind: `cpu` or `cuda`.
        compute: bytes of one number of the compute dtype.
        baseline: bytes that the process holds before any weight: interpreter, libraries, tokenizer.
        matmul: what float32 matmuls round their operands to.
    """

    kind: str = "cpu"
    compute: int = 4
    baseline: int = 0
    matmul: str = "float32"

    @property
    def passes_head(self) -> bool:
        """Whether logits exist for a block of the vocabulary at a time only (`loss.sliced_nll`)."""
        return self.kind == "cpu" and self.compute == 4


def adapter_parameters(settings: Settings, shape: Shape) -> tuple[int, int]:
    """Numbers in A and B of every adapted layer and of all adapted experts, and in the largest of them."""
    count, largest = _of_linears(settings.adapter, shape)
    mix = adapted_experts(settings, shape)
    if mix is None:
        return count, largest
    each = settings.adapter.rank * mix.experts
    blocks = _blocks(settings.adapter, mix.blocks)
    sizes = mix.matrices(shape.hidden)
    return count + each * blocks * sum(i + o for i, o in sizes), max(largest, each * max(map(max, sizes)))


def met_parameters(settings: Settings, shape: Shape) -> int:
    """Numbers in A and B that one token is multiplied with: of the experts, those that it is sent to."""
    count, _ = _of_linears(settings.adapter, shape)
    mix = adapted_experts(settings, shape)
    if mix is None:
        return count
    each = settings.adapter.rank * min(mix.routed, mix.experts) * _blocks(settings.adapter, mix.blocks)
    return count + each * sum(i + o for i, o in mix.matrices(shape.hidden))


def adapted_experts(settings: Settings, shape: Shape) -> Mixture | None:
    """The model's experts, where an adapter lies on them."""
    return shape.mixture if mixture.EXPERTS in settings.adapter.modules else None


def _of_linears(adapter: AdapterSettings, shape: Shape) -> tuple[int, int]:
    chosen = [dims for name, dims in shape.linears().items() if adapter.takes(name)]
    count = _blocks(adapter, shape.layers) * sum(i + o for i, o in chosen)
    return adapter.rank * count, adapter.rank * max([max(dims) for dims in chosen], default=0)


def _blocks(adapter: AdapterSettings, count: int) -> int:
    """How many of so many blocks are adapted, at most."""
    return min(adapter.top or count, count)


def kept_blocks(settings: Settings, shape: Shape) -> int:
    """How many blocks, from the last one down, keep dequantised copies of their weights."""
    copied = settings.compute.copied
    return shape.layers if copied is None else min(copied, shape.layers)


class Lasting:
    """The counting of what stays; every method gives bytes.

    Attributes:
        kept: how many blocks keep dequantised copies of their weights.
    """

    def __init__(self, settings: Settings, shape: Shape, machine: Machine) -> None:
        if shape.window is not None and shape.window >= settings.window.size:
            shape = dataclasses.replace(shape, sliding=0, window=None)  # no token is out of sight
        self.settings = settings
        self.shape = shape
        self.machine = machine
        self.c = machine.compute
        self.kept = kept_blocks(settings, shape)
        self.full = settings.base.precision == "full"
        self.parameters, self.largest_parameter = adapter_parameters(settings, shape)
        every = dataclasses.replace(settings.adapter, modules=(), layers="all")
        mends = shape.repaired and settings.adapter.start != "fresh"  # linear layers alone
        learned = _of_linears(settings.adapter, shape)[0]
        self.mended = _of_linears(every, shape)[0] - learned if mends else 0
        self.rotary = shape.head_dim * (4 if shape.architecture == "gemma3_text" else 2)
        self.slice = min(settings.compute.loss_slice, settings.window.chunk)

    def weights(self) -> Terms:
        s = self.shape
        c = self.c
        linear = s.linear_parameters
        norms = s.layers * s.hidden * (4 if s.sandwich else 2) * c
        packed = 0.5 + 1 / 64 + 4 / (64 * 256)  # NF4, its absmax in 8 bits per 64, theirs in 32 per 256
        terms = {"weights": int(linear * (c if self.full else packed)) + norms + s.layers * 7 * 1200}
        if s.mixture is not None:
            held = s.mixture.held and not self.full
            name = "experts" if held or self.full else "experts, which cannot be held in 4 bits"
            terms[name] = int(s.expert_parameters * (packed if held else c))
        if s.whole:
            terms["weights in full"] = s.whole * c
        if self.kept and not self.full:  # blocks of a mixture differ: the largest is counted
            one = sum(i * o for i, o in s.linears().values())
            terms["dequantised copies"] = min(linear, self.kept * one) * c
        if not self.graph_holds_embedding:
            terms["embeddings and head"] = self.embeddings()
        return terms

    def embeddings(self) -> int:
        """Embedding and head as they are loaded; `graph_holds_embedding` says whether they stay."""
        return self.shape.vocab * self.shape.hidden * self._embedding_bytes() * (1 if self.shape.tied else 2)

    def _embedding_bytes(self) -> int:
        keeps = self.machine.kind == "cpu" and self.shape.packed
        return min(self.shape.stored, self.c) if keeps else self.c

    def reading(self) -> int:
        """Scratch while loading: nothing for a 4-bit folder; else the largest layer in float32, being quantised."""
        if self.shape.packed or self.full:
            return 8 << 20
        linear = 8 * max(i * o for i, o in self.shape.linears().values())
        return linear + self.shape.expert_parameters * self.c  # experts come whole, and are packed one by one

    def learner(self) -> Terms:
        paging = self.settings.compute.paging
        count = self.parameters
        eight = self.settings.learn.optimizer == "adamw8bit"
        moments = int(count * 2 * (1 + 4 / 256)) if eight else 8 * count
        terms = {
            "adapter": 4 * count,
            **({"repair of other layers": 4 * self.mended} if self.mended else {}),
            "optimiser state": 8 * self.largest_parameter if paging == "all" and not eight else moments,
        }
        if self.settings.learn.can_roll_back and paging == "off":
            terms["guard copy"] = 4 * count + moments
        return terms

    def cache(self, tokens: int) -> int:
        s = self.shape
        sliding = s.sliding * min(tokens, s.window or tokens)
        return 2 * s.keys * self.c * (sliding + (s.layers - s.sliding) * tokens)

    @property
    def graph_holds_embedding(self) -> bool:
        """Whether torch reads the graph's float32 embedding, which is the head too, and drops its own
        (`export.sharing`).
        """
        chosen = self.settings
        wide = chosen.graph_precision in ("nf4", "fp32") and self.machine.kind == "cpu"
        return wide and self.shape.tied and self._embedding_bytes() < self.c == 4
