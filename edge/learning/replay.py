"""Lessons of before, kept to be learned again.

Owns: which older lessons are kept, and which comes next. Does not know: how they are learned.
Units: token ids, lessons. A reservoir (Vitter's algorithm R): of all lessons so far each is kept with equal probability.
Chance depends on seed and count alone, so that a run that goes on after a stop chooses the same.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

import torch
from torch import Tensor

KEPT = 256  # lessons: a few MB of token ids at most
Taught = tuple[Tensor, int, Tensor | None]  # (S,) token ids, how many of the last are labels, which of these count


class Replay:
    """At most `KEPT` of the lessons so far.

    Attributes:
        seen: how many lessons there were.
    """

    def __init__(self, seed: int) -> None:
        self.seed, self.seen = seed, 0
        self._lessons: list[Taught] = []

    def __len__(self) -> int:
        return len(self._lessons)

    def add(self, taught: Taught) -> None:
        """A lesson that has been learned."""
        input_ids, labels, only = taught
        lesson = input_ids.to("cpu", torch.int32, copy=True), labels, None if only is None else only.cpu()
        place = self._chance("add").randrange(self.seen + 1)
        self.seen += 1
        if len(self._lessons) < KEPT:
            self._lessons.append(lesson)
        elif place < KEPT:
            self._lessons[place] = lesson

    def draw(self, count: int) -> list[Taught]:
        """At most `count` different lessons."""
        chosen = self._chance("draw").sample(self._lessons, min(count, len(self._lessons)))
        return [(ids.long(), labels, only) for ids, labels, only in chosen]

    def tensors(self) -> dict[str, Tensor]:
        """Everything that must be kept to go on from here, by name."""
        sizes = [self.seen, *(n for ids, labels, _ in self._lessons for n in (len(ids), labels))]
        ids = [ids for ids, _, _ in self._lessons]
        masks = [torch.ones(labels, dtype=torch.bool) if only is None else only for _, labels, only in self._lessons]
        return {
            "sizes": torch.tensor(sizes),
            "ids": torch.cat(ids) if ids else torch.empty(0, dtype=torch.int32),
            "only": torch.cat(masks).to(torch.uint8) if masks else torch.empty(0, dtype=torch.uint8),
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Puts back what `tensors` gave."""
        self.seen, *sizes = [int(n) for n in state["sizes"].tolist()]
        parts = torch.split(state["ids"], sizes[::2]) if sizes else ()
        masks = torch.split(state["only"].bool(), sizes[1::2]) if sizes else ()
        self._lessons = [
            (ids.clone(), labels, None if bool(only.all()) else only.clone())
            for ids, labels, only in zip(parts, sizes[1::2], masks, strict=True)
        ]

    def _chance(self, what: str) -> random.Random:
        return random.Random(f"{self.seed} {what} {self.seen}")
