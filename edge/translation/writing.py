"""One line while it is written: which token comes next, when it ends.

Owns: the penalty's reach, the token limit, loops, the text so far.
Does not know: prompts, caches, how logits are made. Units: tokens.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING

import torch

from ..generate import TextStream
from ..model import control
from ..model.picking import Picker
from . import guards
from .asking import Draft, Request

if TYPE_CHECKING:
    from ..core.state import State

LOOK = 16  # tokens between two looks for a loop


class Line:
    """One line while it is written.

    Attributes:
        token: the last one.
    """

    def __init__(self, session: State, parts: Sequence[list[int]], limit: int, request: Request) -> None:
        attempt = request.attempt
        settings = dataclasses.replace(
            session.settings.generate,
            temperature=attempt.temperature,
            repetition_penalty=attempt.repetition_penalty,
        )
        self.token = -1
        self._limit = limit
        self._ends = session.base.eos_ids
        # the penalty looks at this line alone: names of the context are meant to come again
        barred = control.barred(session.base)
        if request.without:
            barred = torch.cat([barred, control.written_in(session.base, *request.without)])
        self._picker = Picker(settings, barred, request.seed)
        self._stream = TextStream(session.base, list(chain(*parts)), ("\n",))
        self._expects_loop = guards.loop(request.source, guards.Limits.loop // 3)
        self._count = 0
        self._text = ""
        self._cut = True

    @property
    def room(self) -> int:
        """Tokens that the line may still have behind the next one."""
        return max(0, self._limit - self._count - 1)

    def take(self, logits: torch.Tensor) -> bool:
        """Chooses the next token by (V,) logits; whether another one is to follow."""
        self.token, _ = self._picker.pick(logits, self._count)
        self._count += 1
        if self.token in self._ends:
            self._cut = False
            return False
        self._text += self._stream.add(self.token)
        if self._stream.stopped:
            self._cut = False
            return False
        if self._count % LOOK == 0 and not self._expects_loop and guards.loop(self._text):
            return False
        return self._count < self._limit

    def draft(self) -> Draft:
        """What was written."""
        return Draft(self._text + self._stream.flush(), self._count, self._cut)
