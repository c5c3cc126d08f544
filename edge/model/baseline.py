"""What a user could do without the adapter: the same base reads everything so far by attention.

Owns: the keys and values of a whole document, as far as the model was trained and memory reaches, and the base's nats
behind them.
Does not know: adapters, learning, printing.
Units: tokens, nats, bytes.

When positions run out the last tokens are read again, at positions from 0, with room for an eighth of the limit: then
between seven eighths and all of the limit are in view. Where that happens follows from the chunks alone, so that a run
that goes on after a stop computes the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .. import windows
from ..memory.budget import Plan
from ..memory.sizes import ATTENTION_BLOCK
from .forward import TorchForward
from .prefix import Prefix


class FullAttention:
    """The base with full attention over the document.

    Attributes:
        limit: tokens in view at most, those of the chunk included.
    """

    def __init__(self, forward: TorchForward, plan: Plan, sinks: int, limit: int | None = None) -> None:
        """`plan`: what is left of its budget holds the keys and values. `limit`: that of a run that goes on."""
        window = plan.settings.window
        self.limit = limit or max(window.size, min(forward.position_limit, _room(plan)))
        self._forward = forward
        self._sinks = sinks
        self._chunk = window.chunk
        self._step = max(window.chunk, self.limit // 8)
        self._prefix: Prefix | None = None
        self._position = 0  # tokens that it holds or has dropped

    def nll(self, tokens: Sequence[int], start: int, end: int) -> float:
        """Summed nats of the chunk [start, end), predicted from all tokens before it;
        the document's first is no label.
        """
        first = max(start, 1)
        if end <= first:
            return 0.0
        try:
            return self._nll(tokens, start, first, end)
        except BaseException:
            self._prefix = None  # half a chunk longer: read again
            raise

    def _nll(self, tokens: Sequence[int], start: int, first: int, end: int) -> float:
        if self._prefix is None or self._position != first - 1:
            self._read_again(tokens, start)
        elif self._full(self._prefix.position, first, end):
            self._begin(tokens, first)
        assert self._prefix is not None
        ids = torch.tensor(tokens[first - 1 : end])
        nats = self._forward.nll(ids, end - first, adapter=False, prefix=self._prefix)
        self._prefix.take(ids[:-1])
        self._position = end - 1
        return float(nats.double().sum())

    def _full(self, held: int, first: int, end: int) -> bool:
        return held + end - first > self.limit

    def _read_again(self, tokens: Sequence[int], start: int) -> None:
        """Comes to where the chunk at `start` begins in the same pieces as if all chunks before had been scored."""
        # 1. which chunk the last reading began at
        held = 0
        began = 0
        for at in range(0, start, self._chunk):
            first = max(at, 1)
            end = min(at + self._chunk, start)
            if self._full(held, first, end):
                held = self._kept(first)
                began = at
            held += end - first
        if self._full(held, max(start, 1), start + self._chunk):
            began = start
        # 2. from there on, chunk by chunk
        self._begin(tokens, max(began, 1))
        assert self._prefix is not None
        for at in range(began, start, self._chunk):
            self._read(tokens[max(at, 1) - 1 : min(at + self._chunk, start) - 1])

    def _kept(self, first: int) -> int:
        """Tokens that are read again before the chunk whose first label is `first`."""
        return min(first - 1, self.limit - self._step)

    def _begin(self, tokens: Sequence[int], first: int) -> None:
        """Reads the last tokens before `first - 1` again."""
        self._prefix = self._forward.read_prefix(torch.empty(0, dtype=torch.long), self.limit, self._sinks)
        ids = windows.last(tokens[: first - 1], self._kept(first), self._sinks) if first > 1 else []
        for at in range(0, len(ids), self._chunk):
            self._read(ids[at : at + self._chunk])

    def _read(self, ids: Sequence[int]) -> None:
        assert self._prefix is not None
        if ids:
            self._forward.read_on(self._prefix, torch.tensor(ids), adapter=False)


def roomier(plan: Plan, tokens: int) -> Plan:
    """The plan, or the first one down its ladder whose budget has room for the keys and values of `tokens` tokens.

    What is kept for speed is given up for them, dequantised weights among it; nothing is paged.
    """
    while _room(plan) < tokens:
        tighter = plan.tighter()
        if tighter is None or tighter.settings.compute.paging != plan.settings.compute.paging:
            break
        plan = tighter
    return plan


def _room(plan: Plan) -> int:
    """How many tokens' keys and values the plan's budget has left: with the scratch that attention over them takes
    while a chunk is scored, and alone while it is learned.
    """
    shape = plan.shape
    width = plan.machine.compute
    one_layer = 2 * shape.keys * width
    kept = max(1, one_layer * (shape.layers - shape.sliding))
    near = one_layer * shape.sliding * (shape.window or 0)
    copies = 3 * one_layer  # of the layer that is growing: old and new, joined, and cut
    scores = 2 * shape.heads * ATTENTION_BLOCK * width
    scoring = (plan.budget - plan.prediction.peak("score") - near) // (kept + copies + scores)
    return max(0, min(scoring, (plan.budget - plan.prediction.peak() - near) // kept))
