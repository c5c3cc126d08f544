"""The drift guard: an adapter that stays worse than the base is dropped, and learning rests for a while.

Owns: the decision alone. Does not know: torch, what is dropped, who scores.
Units: nats, tokens, chunks.

After each drop learning rests for twice as many chunks as before, so that on a text from which nothing can be
learned (random bytes) the chunks that the adapter makes worse become ever fewer; a chunk that it makes better by
the margin ends that.
"""

from __future__ import annotations

import math

LONGEST_REST = 64
MARGIN = 0.05  # of perplexity above the base's
PATIENCE = 2  # chunks in a row that are behind, before the adapter is dropped


class DriftGuard:
    """Compares adapter and base as the text goes.

    Attributes:
        resting: chunks that are still not to be learned.
        drops: how often the adapter was dropped.
    """

    def __init__(self, *, on: bool = True) -> None:
        """The adapter is dropped when its perplexity has been above the base's by `MARGIN` for `PATIENCE` chunks.

        Where it is not `on` nothing is dropped.
        """
        self.on = on
        self.resting = 0
        self.drops = 0
        self._behind = 0
        self._rest = 1

    def sees(self, adapter_nll: float, base_nll: float, tokens: int) -> bool:
        """Whether the adapter is to be dropped, now that both have scored the same `tokens` tokens."""
        if not self.on or not tokens:
            return False
        gap = (adapter_nll - base_nll) / tokens
        limit = math.log1p(MARGIN)
        if gap <= limit:  # false for nan: an adapter that gives no number is behind
            self._behind = 0
            if gap < -limit:
                self._rest = 1
            return False
        self._behind += 1
        if self._behind < PATIENCE:
            return False
        self._behind = 0
        self.resting = self._rest
        self._rest = min(2 * self._rest, LONGEST_REST)
        self.drops += 1
        return True

    @property
    def rests(self) -> bool:
        """Whether the next chunk is not to be learned."""
        return self.resting > 0

    def passed(self) -> None:
        """A chunk went by while learning rested."""
        self.resting -= 1

    def state(self) -> list[int]:
        """What it resumes from."""
        return [self.resting, self.drops, self._behind, self._rest]

    def restore(self, state: list[int]) -> None:
        """Goes back to a `state`."""
        self.resting, self.drops, self._behind, self._rest = state
