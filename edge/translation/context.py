"""Which finished pairs a prompt shows, and in what arrangement, so that a cache of it can be resumed.

Owns: the context block, the pairs that follow it line by line, when the block moves on.
Does not know: torch, templates, caches. Units: tokens.

A block that moved on with every unit would change the prompt from its beginning, and no cache of it could be used.
So the block stays, and each new pair follows it as a line of its own. When several times as many pairs follow as a
prompt has to show, the last of them become the block: reading it costs what writing several lines does.
All of it follows from the pairs and where the last lesson was, never from what a process did before: a run that
continues after a stop arranges its prompts the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from .prompts import Pair

FOLLOWING = 3  # pairs that follow the block at most, by those that a prompt shows at least


class Context(NamedTuple):
    """Finished pairs in their order: `before` the last lesson, and `since`; a prompt shows at least `keep` of them."""

    before: Sequence[Pair] = ()
    since: Sequence[Pair] = ()
    keep: int = 0

    def last(self, count: int | None = None) -> list[Pair]:
        """The last `count` pairs; `keep` of them where none is named."""
        count = self.keep if count is None else count
        pairs = [*self.before, *self.since]
        return pairs[max(0, len(pairs) - count) :]

    @property
    def shown(self) -> list[Pair]:
        """All that a prompt may show."""
        return self.last((1 + FOLLOWING) * self.keep)

    def only(self, count: int | None) -> Context:
        """A context of at most `count` pairs in one block; itself where None is named."""
        return self if count is None else Context(self.last(min(count, self.keep)), (), min(count, self.keep))

    def also(self, pair: Pair) -> Context:
        """The context with one pair more."""
        return self._replace(since=[*self.since, pair])


def arrange(
    context: Context, room: int, size: Callable[[Pair], int], following: int = FOLLOWING
) -> tuple[list[Pair], list[Pair]]:
    """(the block, the pairs that follow it line by line).

    Args:
        room: tokens that all of them may take; the block takes half of it at most when it is made.
        size: tokens of a pair.
        following: see `FOLLOWING`.
    """
    keep = context.keep
    if keep == 0:
        return [], []
    block = _fitting(context.before, keep, room // 2, size)
    lines = []
    used = sum(map(size, block))
    for pair in context.since:
        lines.append(pair)
        used += size(pair)
        if len(lines) >= following * keep or used > room:
            block = _fitting([*block, *lines], keep, room // 2, size)
            lines = []
            used = sum(map(size, block))
    return block, lines


def _fitting(pairs: Sequence[Pair], count: int, room: int, size: Callable[[Pair], int]) -> list[Pair]:
    """The last pairs: at most `count`, and what there is room for."""
    first = len(pairs)
    while first > max(0, len(pairs) - count) and (room := room - size(pairs[first - 1])) >= 0:
        first -= 1
    return list(pairs[first:])
