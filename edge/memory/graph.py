"""The ONNX path's sizes, and the terms of its predicted memory.

Owns: how much of a text and of a vocabulary meets the graphs at a time, what their sessions, caches and runs hold.
Does not know: torch, ONNX Runtime, budgets, the learner's side (`memory`).
Units: bytes; tokens.

A graph stands beside the learner's base. Its runs are short, so no scratch grows with the window but
its keys and values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .sizes import PROPOSED

if TYPE_CHECKING:
    from ..settings import Settings
    from .shape import Shape

SLICE = 32  # label positions that meet the head at a time, at most
PART = 16384  # entries of the vocabulary that they meet at a time
RUN = 128  # tokens of a window that meet the decoder at a time
ROOM = 256  # tokens by which the cache grows
INT4_BYTES = 1 + 4 / 32  # a weight of a graph in 4 bits at most: some layers stay in 8
RUNTIME = 60_000_000  # ONNX Runtime and its sessions, without weights

Terms = dict[str, int]


def largest(moments: list[Terms]) -> Terms:
    """The moment that needs most."""
    return max(moments, key=lambda terms: sum(terms.values()))


def rounded(tokens: int) -> int:
    """Tokens that a cache which grows to `tokens` has room for."""
    return -(-tokens // ROOM) * ROOM


def sliding_room(window: int) -> int:
    """Tokens that a layer which sees the last `window` has room for in the cache: these, and a run."""
    return window + RUN


class GraphTerms:
    """What the sessions hold, and what scoring and decoding add to it."""

    def __init__(self, settings: Settings, shape: Shape) -> None:
        self.settings = settings
        self.shape = shape
        self.precision = settings.graph_precision or "nf4"

    def sessions(self, adapted: int, *, on_cpu: bool) -> Terms:
        """The weights (in use, so read in from the file), and copies of A and B, `adapted` numbers in all."""
        s = self.shape
        linear = s.linear_parameters
        head = s.vocab * s.hidden * (1 if s.tied else 2)
        codes = 0.0 if on_cpu else 0.5  # torch's own
        width = {"nf4": codes + 4 / 64, "fp32": 4.0, "int8": 1 + 4 / 32, "int4": INT4_BYTES}[self.precision]
        wide = 1 + 4 / 64 if self.precision in ("int8", "int4") else 4
        terms = {"graph weights": int(linear * width), "graph head": int(head * wide)}
        return terms | {"graph runtime": RUNTIME, **({"graph adapter": 4 * adapted} if adapted else {})}

    def file(self) -> int:
        """The graph's weights on the disk."""
        terms = self.sessions(0, on_cpu=False)
        return terms["graph weights"] + terms["graph head"]

    def cache(self, tokens: int) -> int:
        """Layers that see everything hold every token; the others, what they see and a run."""
        s = self.shape
        tokens = rounded(tokens)
        near = min(tokens, sliding_room(s.window)) if s.window is not None else tokens
        return 2 * s.keys * 4 * ((s.layers - s.sliding) * tokens + s.sliding * near)

    def run(self, window: int) -> Terms:
        """The widest moment of a run over a piece of a window: a gated MLP, or attention with its scores."""
        s = self.shape
        tokens = min(window, RUN)
        attention = 4 * tokens * (2 * s.queries + 4 * s.keys) + 4 * s.heads * tokens * window
        mlp = 4 * tokens * 3 * s.intermediate
        scratch = 0 if self.precision == "fp32" else 4 * max(i * o for i, o in s.linears().values())
        return {"activations": 4 * tokens * 4 * s.hidden + max(mlp, attention), "scratch": scratch}

    def scoring(self) -> Terms:
        """The decoder reads a window after the keys and values so far; then its labels'
        states meet the head in slices.
        """
        tokens = self.settings.window.size
        chunk = self.settings.window.chunk
        rows = min(self.settings.compute.loss_slice, chunk, SLICE)
        slices = {"logits slice": 2 * 4 * rows * PART, "activations": 0}
        states = {"keys and values": self.cache(tokens), "labels' states": 4 * chunk * self.shape.hidden}
        return states | largest([slices, self.run(tokens)])

    def decoding(self) -> Terms:
        """Reading the context, which is the widest moment, into the cache."""
        s = self.shape
        tokens = self.settings.window.size
        near = min(tokens, sliding_room(s.window or 0))  # as they were before a line, for another attempt at it
        held = self.cache(tokens) + 2 * s.keys * 4 * s.sliding * near
        lines = self.settings.generate.lines
        if lines > 1:
            held += lines * self.cache(tokens)
        rows = 8 + 2 * (1 + PROPOSED)  # of a token, and of those that are verified, which lie in parts and together
        return {"KV cache": held, "logits": 4 * s.vocab * rows} | self.run(tokens)
