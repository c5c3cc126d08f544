"""When to take a snapshot.

Owns: the decision alone. Does not know: clocks (it is given durations), what a snapshot is.
Units: seconds of work and of cost, chunks.
"""

from __future__ import annotations

import math

from ..errors import SettingsError


class SnapshotPolicy:
    """Snapshots as often as their measured cost allows, or every N chunks.

    Call `due` after each chunk; where it says yes, take the snapshot and tell `paid` what it cost. With W the work
    so far, C the cost so far and c the highest of the last four costs (`first_cost` until one is known), a snapshot
    is due when C + c <= fraction * (W + C + c): taking it keeps the cost within the fraction. The same measurements
    give the same decisions.

    Args:
        fraction: highest share of the run's time that snapshots may take.
        every: take one every so many chunks instead, whatever it costs.
        first_cost: what the first snapshot is thought to cost, in seconds.

    Raises:
        SettingsError: a value is out of its range.
    """

    def __init__(self, fraction: float = 0.02, *, every: int | None = None, first_cost: float = 1.0) -> None:
        if not 0 < fraction < 1:
            raise SettingsError(f"the snapshot fraction is {fraction}", "more than 0 and less than 1", "try 0.02")
        if every is not None and every < 1:
            raise SettingsError(f"snapshots every {every} chunks", "1 or more", "leave it out to go by the cost")
        if not 0 <= first_cost < math.inf:
            raise SettingsError(f"the first snapshot's cost is {first_cost}", "seconds, 0 or more", "try 1.0")
        self.fraction = fraction
        self.every = every
        self.work = 0.0
        self.cost = 0.0
        self._chunks = 0
        self._first_cost = first_cost
        self._recent: list[float] = []

    def due(self, chunk_seconds: float) -> bool:
        """Whether to take a snapshot now, `chunk_seconds` of work after the last call."""
        self.work += _duration(chunk_seconds)
        self._chunks += 1
        if self.every is not None:
            return self._chunks >= self.every
        cost = self.cost + max(self._recent, default=self._first_cost)
        return cost <= self.fraction * (self.work + cost)

    def paid(self, seconds: float) -> None:
        """A snapshot was taken and took `seconds`."""
        self.cost += _duration(seconds)
        self._recent = [*self._recent[-3:], _duration(seconds)]
        self._chunks = 0


def _duration(seconds: float) -> float:
    """A clock that went wrong counts as no time."""
    return seconds if 0 <= seconds < math.inf else 0.0
