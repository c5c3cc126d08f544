"""The pairs that passed the guards: those that a prompt shows, and those that the next lesson teaches.

Owns: what was taught and what was not. Does not know: prompts, how a lesson is learned, which records there are.
Units: units of the document.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from ..records import Lesson
from .context import Context
from .prompts import Pair


class Passed:
    """Pairs in the order of the document.

    Attributes:
        before: the last ones that were taught; at most as many as a prompt shows.
        pending: those since, which the next lesson teaches.
        taught: units before the first pair that is not taught.
    """

    def __init__(self, keep: int) -> None:
        """`keep`: pairs that a prompt shows."""
        self.keep = keep
        self.before: list[Pair] = []
        self.pending: list[Pair] = []
        self.taught = 0

    def shown(self) -> Context:
        """What the next prompt shows."""
        return Context(self.before, tuple(self.pending), self.keep)

    def lesson(self, teach: Callable[..., Lesson], of: str) -> Callable[[tuple[int, int]], Lesson]:
        """The lesson on all that is pending, to be called with its span; `teach`: see `loop.Teacher`."""
        return partial(teach, of, context=self.before, pairs=self.pending)

    def close(self, number: int) -> None:
        """All that was pending is taught; the next lesson begins with unit `number`."""
        pairs = [*self.before, *self.pending]
        self.before = pairs[max(0, len(pairs) - self.keep) :]
        self.pending = []
        self.taught = number

    def change(self, changed: Mapping[Pair, Pair]) -> None:
        """Some pairs are others now: the user has corrected them."""
        self.before = [changed.get(pair, pair) for pair in self.before]
        self.pending = [changed.get(pair, pair) for pair in self.pending]
