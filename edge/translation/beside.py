"""Lines that are written side by side: each step reads the weights once for all of them.

Owns: the slots, what is written in each, when a line is begun again.
Does not know: how prompts come about, which lines there are, whether a draft is any good.
Units: tokens.

A slot has a cache of its own. A line begins there after what its prompt shows, goes on while any line is asked for, and
ends by itself; then another one may begin. Each step computes all slots, those that rest too: what a line gets depends
neither on the others nor on how far they are. So a run that continues writes the same lines, whichever it has to begin
again. A slot that rests keeps what it has read, for another attempt at its line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch

from ..model.forward import Cache
from . import reading
from .asking import Draft, Request
from .reading import Kept, Reading
from .writing import Line

if TYPE_CHECKING:
    from ..core.state import State


class Prompt(NamedTuple):
    """A prompt's parts, the tokens that its answer may have, and what it asks for."""

    parts: Sequence[list[int]]
    limit: int
    request: Request


@dataclass
class Written:
    """What a slot is to write.

    Attributes:
        again: whether it is another attempt at the line that stands there.
        line: once it has begun, in the caches of `of`; where these are gone, it begins again.
        draft: once it has ended.
    """

    prompt: Prompt
    again: bool
    line: Line | None = None
    of: Kept | None = None
    draft: Draft | None = None


class Beside:
    """The slots of a session, `generate.lines` of them."""

    def __init__(self, session: State) -> None:
        self.session = session
        self._written: dict[int, Written] = {}  # by slot, in the order in which they were asked for
        self._able = True

    def begin(self, slot: int, prompt: Prompt | None, *, again: bool) -> None:
        """A line is to be written in a slot, in place of what is written there; nothing without a prompt."""
        self._written.pop(slot, None)
        if prompt is not None:
            self._written[slot] = Written(prompt, again)

    def forget(self) -> None:
        """Nothing that was begun is asked for any more."""
        self._written.clear()

    def finish(self, slot: int) -> Draft | None:
        """What a slot writes, the others going on meanwhile; None where nothing was begun there, or the forward path
        has no lines side by side.
        """
        session = self.session
        session.at_rest = False
        if slot not in self._written or not self._able:
            return None
        wanted = self._written[slot]
        with session.memory.phase("decode"):
            of = reading.kept(session)
            for number, written in self._written.items():
                begun = written.draft is not None or (written.line is not None and written.of is of)
                if not begun and not self._begin(number, written, of):
                    return None
            while wanted.draft is None:
                self._step(of)
        return wanted.draft

    def _begin(self, number: int, written: Written, of: Kept) -> bool:
        """Reads a slot's prompt; whether there are slots."""
        forward = self.session.forward
        *shown, last = written.prompt.parts
        tail = torch.tensor(last)
        if written.again and of.slots is not None:
            logits = self._read_again(number, shown, tail, of.slots)
        else:
            main = reading.hold(self.session, shown)
            logits, cache = forward.prefill(tail) if main is None else (None, main.cache)
            if of.slots is None and not self._make(of, cache):
                return False
            assert of.slots is not None
            held = of.slots[number]
            forward.begin_line(held.cache, cache)
            held.parts = list(shown)
            if logits is None:
                logits = forward.extend(tail, held.cache)
        written.line = Line(self.session, *written.prompt)
        written.of = of
        self._take(written, logits)
        return True

    def _read_again(
        self, number: int, shown: Sequence[list[int]], tail: torch.Tensor, slots: list[Reading]
    ) -> torch.Tensor:
        """Logits after a prompt that is read in its slot, as far as that does not hold it."""
        forward = self.session.forward
        cache = slots[number].cache

        def anew(ids: torch.Tensor) -> Cache:
            forward.begin_line(cache, None)
            forward.extend(ids, cache)
            return cache

        held = reading.read(forward, slots[number], shown, anew)
        if held is None:
            forward.begin_line(cache, None)
            held = Reading(cache)
        slots[number] = held
        return forward.extend(tail, cache)

    def _make(self, of: Kept, cache: Cache) -> bool:
        """The slots, each of which has room for a window; whether the forward path has some."""
        settings = self.session.settings
        caches = self.session.forward.lines(cache, settings.generate.lines, settings.window.size - cache.length)
        if caches is None:
            self._able = False
            return False
        of.slots = [Reading(one) for one in caches]
        for one in caches:
            self.session.forward.begin_line(one, None)
        return True

    def _step(self, of: Kept) -> None:
        """A token of each line that has not ended."""
        forward = self.session.forward
        assert of.slots is not None
        going = {
            number: (written, written.line)
            for number, written in self._written.items()
            if written.line is not None and written.draft is None
        }
        lengths = [held.cache.length for held in of.slots]
        tokens = [going[number][1].token if number in going else 0 for number in range(len(of.slots))]
        logits = forward.decode_lines(tokens, [held.cache for held in of.slots])
        for number, held in enumerate(of.slots):
            if number in going:
                self._take(going[number][0], logits[number])
            elif not forward.rewind(held.cache, lengths[number]):  # a sliding layer has dropped a token for it
                forward.begin_line(held.cache, None)
                held.parts = []

    def _take(self, written: Written, logits: torch.Tensor) -> None:
        assert written.line is not None
        if not written.line.take(logits):
            written.draft = written.line.draft()
