"""What was read of prompts: caches, and the parts whose tokens they hold.

Owns: which parts are read again, what goes when the adapter changes.
Does not know: how a prompt comes about, what is written after it.
Units: tokens.

All of it lies in `State.reading`: whoever needs its memory sets that to None.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from ..model.forward import Cache, Forward

if TYPE_CHECKING:
    from ..core.state import State


class Reading:
    """A cache, and the parts of a prompt whose tokens it begins with."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.parts: list[list[int]] = []

    def common(self, parts: Sequence[Sequence[int]]) -> int:
        """How many of the first parts it holds."""
        pairs = enumerate(zip(self.parts, parts, strict=False))
        return next((i for i, (held, part) in pairs if held != part), min(len(self.parts), len(parts)))


class Kept:
    """All that was read with the adapter as it is.

    Attributes:
        version: of the adapter.
        main: what one line after the other is read into.
        slots: those of lines side by side; None before the first.
    """

    def __init__(self, version: int) -> None:
        self.version = version
        self.main: Reading | None = None
        self.slots: list[Reading] | None = None


def kept(session: State) -> Kept:
    """What a session has read; nothing where its adapter has changed since."""
    version = session.adapter.version if session.adapter is not None else 0
    found = session.reading
    if not isinstance(found, Kept) or found.version != version:
        found = session.reading = Kept(version)
    return found


def hold(session: State, parts: Sequence[list[int]]) -> Reading | None:
    """The session's main reading of these parts, or None of none."""
    of = kept(session)
    held, of.main = of.main, None
    of.main = read(session.forward, held, parts, lambda ids: session.forward.prefill(ids)[1])
    return of.main


def read(
    forward: Forward, held: Reading | None, parts: Sequence[list[int]], begin: Callable[[torch.Tensor], Cache]
) -> Reading | None:
    """A cache that holds the parts and nothing else, or None of none; `held` where that has some of them.

    Every part is read by itself, whether or not those before it were there: the numbers are the same.

    Args:
        begin: reads the first part into a cache that is empty.
    """
    common = 0
    if held is not None:
        common = held.common(parts)
        length = sum(map(len, held.parts[:common]))
        if length != held.cache.length and not (common and forward.rewind(held.cache, length)):
            common = 0
    reading = held if common else None
    for part in parts[common:]:
        ids = torch.tensor(part)
        if reading is None:
            reading = Reading(begin(ids))
        else:
            forward.extend(ids, reading.cache)
    if reading is not None:
        reading.parts = list(parts)
    return reading
