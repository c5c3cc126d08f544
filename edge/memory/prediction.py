"""Predicted peak memory, term by term.

Owns: the formulas of what comes and goes, and of phases. What stays is in `lasting.py`.
Does not know: torch, budgets, how a choice is carried out. It needs a model's `Shape` and settings without `auto`.
Units: bytes. S is tokens in the window, c bytes of one number of the compute dtype.

Every phase's peak is the largest of its moments (the loss, the backward pass of the last and of the first block, ...).
What a moment holds is counted tensor by tensor; `tests/unit/test_budget.py` holds the counts against real runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..machine.allocator import MAPPED
from ..settings import Settings
from . import families
from .graph import GraphTerms, Terms, largest
from .lasting import Lasting, adapted_experts
from .lasting import Machine as Machine
from .lasting import adapter_parameters as adapter_parameters
from .shape import Shape
from .sizes import ATTENTION_BLOCK, HEAD_BLOCK, PROPOSED, head_rows, room_for

SLACK = 60_000_000  # of freed heap within a block: 17 to 43 MB were measured, whatever the settings
HOLDING_SLACK = 80_000_000  # where activations are not recomputed: 19 to 64 MB
MAPPED_SLACK = 52_000_000  # where a window's hidden states are too large for the heap: 15 to 38 MB
TOKENISING = 56_000_000  # of one piece of text: 4 to 17 MB for words, 55 MB where every byte is a token
UNITS_SLACK = 50_000_000  # what oneDNN holds for bfloat16 matmuls: 128 `allocator.KERNELS`, 0.31 to 0.47 MB each
# On a GPU what is reserved beyond what is allocated, and the workspaces of cuBLAS, calibrated on two cards with a
# Llama-2-7B shape. H100, when LoRA products still ran in float32: 0.07 GB were missing while the demo model was loaded,
# 0.15 GB in one and 0.38 to 0.50 GB in three plans. H200, with products in 16 bits: 0.40 GB where weights are kept and
# no activation is computed again, 0.50 to 0.58 GB in three plans that widen weights at each use, keys and values kept.
CUDA_LOADING = 96_000_000
CUDA_SLACK = 160_000_000
CUDA_LEARNING = 440_000_000
CUDA_LEARNING_WIDENED = (
    25_000_000  # and one more widened weight, for the one before is not free yet, and a sixth of logits
)
CUDA_CONTEXT = (
    778_000_000  # no part of a budget: what nvidia-smi shows of a process less what torch reserved, on an H200
)
KEPT_SLACK = 330_000_000  # where it is kept between chunks: an upper bound, 60 to 305 MB were measured


@dataclass(frozen=True)
class Prediction:
    """Bytes of each term in each phase; a phase's peak is the sum of its terms and the baseline."""

    baseline: int
    phases: dict[str, Terms]

    def peak(self, phase: str | None = None) -> int:
        """The largest use in one phase, or in any."""
        chosen = [phase] if phase else list(self.phases)
        return self.baseline + max(sum(self.phases[name].values()) for name in chosen)

    @property
    def highest(self) -> str:
        """The phase that needs most."""
        return max(self.phases, key=lambda name: sum(self.phases[name].values()))

    def largest_term(self) -> tuple[str, int]:
        """The largest term of the highest phase, and its bytes."""
        terms = {"framework baseline": self.baseline, **self.phases[self.highest]}
        name = max(terms, key=lambda key: terms[key])
        return name, terms[name]

    def to_json(self) -> dict[str, Any]:
        """Everything, for `--json` and reports."""
        return {
            "baseline": self.baseline,
            "phases": self.phases,
            "peaks": {name: self.peak(name) for name in self.phases},
            "peak": self.peak(),
            "highest_phase": self.highest,
        }


def predict(settings: Settings, shape: Shape, machine: Machine, *, decodes: bool = False) -> Prediction:
    """Peak bytes of every phase, for settings without `auto`."""
    counted = _Count(settings, shape, machine)
    held = counted.weights()
    learns = settings.learn.mode != "none"
    cache = {"KV cache": counted.cache(settings.window.size)} if decodes else {}
    phases = {"load": {**held, "embeddings and head": counted.embeddings(), "reading": counted.reading()}}
    if learns:
        held = held | counted.learner()
        if decodes and counted.c != 4:  # a step reads A and B in the compute dtype
            held = held | {"adapter for decoding": counted.c * (counted.parameters + counted.mended)}
    graph = GraphTerms(settings, counted.shape) if settings.graph_precision else None
    if graph:
        held = held | graph.sessions(counted.parameters + counted.mended if learns else 0, on_cpu=machine.kind == "cpu")
        cache = {"KV cache": graph.cache(settings.window.size)} if decodes else {}
    by_graph = graph.scoring() if graph and settings.forward == "onnx" else None
    phases["score"] = held | (by_graph or largest(counted.scoring()))
    if learns:
        kept = {} if settings.compute.paging in ("cache", "all") else cache
        phases["learn"] = held | kept | largest(counted.learning())
    if decodes:
        phases["decode"] = held | (graph.decoding() if graph else largest(counted.decoding()))
    phases = {name: counted.with_slack(terms, name) for name, terms in phases.items()}
    phases["text"] = held | {"tokenising": TOKENISING}
    if settings.compute.heap == "keep":
        highest = max(sum(terms.values()) for terms in phases.values())
        for name in phases.keys() - {"load"}:  # what one phase has needed, the others hold
            phases[name] = phases[name] | {"freed memory kept": highest - sum(phases[name].values())}
    return Prediction(machine.baseline, phases)


class _Count(Lasting):
    """The counting itself; every method gives bytes."""

    # - moments -

    def scratch(self, *names: str) -> int:
        """The largest dequantised weight among the linear layers named (all without names, one expert's too)."""
        if self.full:
            return 0
        sizes = [i * o for name, (i, o) in self.shape.linears().items() if not names or name in names]
        sizes = [] if self.kept >= self.shape.layers else sizes
        if self.shape.mixture is not None and self.shape.mixture.held and not names:
            sizes.append(self.shape.mixture.matrix(self.shape.hidden))
        return max(sizes, default=0) * self.c + max(sizes, default=0) // 8

    def blocks(self, tokens: int, count: int, before: int = 0) -> int:
        """Block attention's scratch: `count` matrices of (heads, 256, keys seen), the mask and flags for it.

        `before`: tokens of a prefix, whose full layers too go through blocks.
        """
        s = self.shape
        if s.matrices:
            return s.heads * tokens * (tokens + before) * self.c * (count + 2)
        if not (s.sliding or s.softcapped or before):
            return 0
        flash = self.machine.kind == "cuda" and not s.softcapped  # a kept prefix is no obstacle to it
        if flash and not s.sliding:
            return 0
        wide = (s.softcapped or (before and not flash)) and s.sliding < s.layers
        span = min(tokens + before, tokens + before if wide else (s.window or tokens + before) + ATTENTION_BLOCK)
        rows = min(ATTENTION_BLOCK, tokens)
        return s.heads * rows * span * self.c * count + rows * span * (self.c + 3)

    def repeats(self) -> int:
        """Features of the keys and values that full attention repeats for every query head."""
        s = self.shape
        repeated = 1 < s.groups < s.heads and not s.softcapped and s.sliding < s.layers
        return 2 * s.queries if repeated else 0

    def forward(self, tokens: int, *, labels: bool) -> list[Terms]:
        """Moments of a forward without gradients: MLP, attention, and the loss with `labels`."""
        s = self.shape
        unit = self.c * tokens
        h, i, q, k = s.hidden * s.copies, s.wide, s.queries, s.keys
        low = 4 * tokens * self.settings.adapter.rank
        mlp = unit * (4 * h + self.rotary) + low
        attention = unit * (3 * h + self.rotary) + low
        moments = [
            {"activations": mlp + unit * max((4 if s.fused else 3) * i, 4 * s.spread)},
            {"activations": mlp + unit * 2 * i, "scratch": self.scratch()},
            {"activations": attention + unit * (4 * q + 4 * k)},
            {"activations": attention + unit * (2 * q + 2 * k + self.repeats()), "scratch": self.blocks(tokens, 1)},
        ]
        if s.more:
            moments.append({"activations": attention + unit * self.beside(), "scratch": self.scratch()})
        if labels:
            moments.append({"activations": unit * (3 * h + self.rotary)} | self.head(grad=False))
        return moments

    def head(self, *, grad: bool) -> Terms:
        """The logits slice and what comes with it; `grad`: the labels' hidden gradients too."""
        s = self.shape
        chunk = self.settings.window.chunk
        if "loss" in self.settings.compute.plain:
            return {"logits slice": 4 * chunk * s.vocab * (3 if grad else 2)}
        widened = self._embedding_bytes() != self.c and self.machine.kind == "cpu"
        copies = 2 if s.architecture == "gemma2" and grad else 1
        if self.machine.passes_head:
            rows = min(s.vocab, head_rows(s.hidden, self.slice))
            terms = {"logits slice": 4 * self.slice * (rows * copies + 2 * s.hidden)}
            terms["scratch"] = 4 * rows * s.hidden if widened else 0
        else:
            terms = {"logits slice": 4 * self.slice * s.vocab * copies}
            terms["scratch"] = min(HEAD_BLOCK, s.vocab * s.hidden * self.c) if widened else 0
        if self.machine.kind == "cuda":  # the product comes in the weight's dtype, then in float32
            terms["logits slice"] += self.c * self.slice * s.vocab
        terms["activations of the loss"] = (self.c * chunk * s.hidden if grad else 0) + 24 * chunk
        return terms

    def scoring(self) -> list[Terms]:
        return self.forward(self.settings.window.size, labels=True)

    def kept_per_block(self) -> int:
        """Features per token that a block keeps for its backward pass, its input left out."""
        s = self.shape
        full = 2 * s.queries + (self.repeats() or 2 * s.keys)
        blockwise = 2 * s.queries + 2 * s.keys
        attention = blockwise if s.softcapped or s.sliding == s.layers else max(full, blockwise)
        if s.fused:  # the values are a view of the fused product, which they keep whole
            attention = max(4 * s.queries + 3 * s.keys, 3 * s.queries + self.repeats())
        norms = (5 if s.sandwich else 3) * s.hidden * s.copies
        beside = self.beside() + (3 * s.heads * self.settings.window.size if s.matrices else 0)
        return (
            norms + attention + (s.queries + s.keys if s.qk_norm else 0) + 4 * s.wide + s.spread + s.heads + 8 + beside
        )

    def beside(self) -> int:
        """Features per token of what a block has beside a Llama's: what its layers take and give, and a state's own."""
        return 2 * sum(inputs + outputs for _, inputs, outputs in self.shape.more) + self.shape.scanned

    def learning(self) -> list[Terms]:
        """Moments of forward, loss, backward and step."""
        s = self.shape
        settings = self.settings
        tokens = settings.window.size
        before = 0  # tokens that are seen, but not computed here
        if settings.learn.prefix != "full":
            before = tokens - settings.window.chunk
            tokens = settings.window.chunk
        unit = self.c * tokens
        h, i, q, k = s.hidden * s.copies, s.wide, s.queries, s.keys
        adapted = min(settings.adapter.top or s.layers, s.layers)
        mix = adapted_experts(settings, s)
        sent = 0 if mix is None else min(mix.routed, mix.experts)  # copies of a token, each with its own A x
        lows = (7 + 2 * sent) * settings.adapter.rank * self.c * tokens
        block = unit * self.kept_per_block() + lows + 2 * s.keys * self.c * before
        if settings.adapter.dropout:  # what each layer was given, thinned, and where
            block += (self.c + 1) * tokens * (5 * s.hidden + q + i)
            block += 0 if mix is None else (self.c + 1) * tokens * sent * (s.hidden + mix.size)
        saving = settings.compute.checkpointing == "on"
        inputs = unit * (adapted * h + h + self.rotary)
        narrow = 0 if self.c == 4 else self.c * self.parameters  # A and B in the compute dtype
        block += narrow // max(1, adapted)
        kept = inputs if saving else inputs + adapted * block
        gradients = 4 * self.parameters
        # in the first block's backward the later blocks' activations are gone, but all gradients are there
        # of experts the gradients come one by one, and are put together
        together = 0 if mix is None else 4 * self.largest_parameter
        last = {"activations": inputs + block if saving else kept, "gradients": gradients // max(1, adapted) + together}
        first = {"activations": unit * (2 * h + self.rotary) + block, "gradients": gradients + together}
        moments: list[Terms] = [*self.forward(tokens, labels=False)]
        for moment in moments:
            moment["activations"] += inputs - unit * h if saving else kept - block
        moments.append({"activations": kept + 2 * unit * h} | self.head(grad=True))
        for base in (last, first):
            moments += [
                _plus(base, {"activations": unit * max(h + 2 * i, 4 * s.spread)}),
                _plus(base, {"activations": unit * (h + i), "scratch": self.scratch()}),
                _plus(base, {
                    "activations": unit * (h - 4 * i - s.spread + 2 * q + (self.repeats() or 2 * k)),
                    "scratch": self.blocks(tokens, 3 if s.softcapped else 2, before),
                }),
            ]  # fmt: skip
        moments.append({"gradients": gradients, "scratch": 8 * self.largest_parameter})
        if before:
            held = self.cache(before) + 2 * s.keys * s.layers * self.c * tokens  # and the chunk's own, to be kept
            moments += self.forward(before, labels=False)
            moments = [moment | {"keys and values": held} for moment in moments]
        return moments

    def decoding(self) -> list[Terms]:
        """Moments of reading the context into a cache, and of one token."""
        s = self.shape
        tokens = self.settings.window.size
        room = room_for(tokens)
        one = {"KV cache": self.cache(room), "logits": 4 * s.vocab * (8 + PROPOSED), "scratch": self.scratch()}
        one["scratch"] += 2 * s.keys * self.c * tokens  # a layer's keys and values, copied as they grow
        if s.architecture in families.STEPPED:  # a sliding layer drops what it has seen as soon as it is computed
            whole = {"KV cache": self.cache(room)}
        else:  # those blocks, too, hold every token that was read until the first one is decoded
            whole = {"KV cache": 2 * s.keys * self.c * s.layers * tokens}
        if s.window is not None:  # sliding layers as they were before a line, for another attempt at it
            one["KV cache"] += 2 * s.keys * self.c * s.sliding * min(tokens, s.window)
        lines = self.settings.generate.lines
        if lines > 1 and s.architecture in families.STEPPED:  # each has the context, too
            one["KV cache"] += lines * self.cache(room)
        return [*(moment | whole for moment in self.forward(tokens, labels=False)), one]

    def with_slack(self, terms: Terms, phase: str) -> Terms:
        """Freed heap that the allocator has not given back: measured (`scripts/bench/memory`), not derived.

        On a CPU freed heap goes back before each block (`tended.tended_blocks`); what a block itself frees stays.
        """
        if self.machine.kind == "cuda":
            held = CUDA_LOADING if phase == "load" else CUDA_SLACK
            if phase == "learn":
                held = CUDA_LEARNING + self.parameters  # a quarter of the gradients
                if self.scratch() and self.settings.learn.prefix != "full":
                    held += CUDA_LEARNING_WIDENED + self.scratch() + self.slice * self.shape.vocab
            return terms | {"kernels and what the allocator holds": held}
        if phase == "load":
            return terms
        compute = self.settings.compute
        slack = HOLDING_SLACK if compute.checkpointing == "off" else SLACK
        if self.c * self.settings.window.size * self.shape.hidden > MAPPED:
            slack = MAPPED_SLACK
        if compute.heap == "keep":
            slack = KEPT_SLACK
        mix = self.shape.mixture
        matmuls = UNITS_SLACK + (0 if mix is None else mix.units)
        units = {"matmul units": matmuls} if self.machine.matmul != "float32" else {}
        return terms | {"allocator slack": slack} | units


def _plus(terms: Terms, more: Terms) -> Terms:
    return {name: terms.get(name, 0) + more.get(name, 0) for name in {**terms, **more}}
