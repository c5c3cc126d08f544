"""Units that are written side by side: asked for ahead of the loop, given one by one as the loop comes to them.

Owns: which units have a slot, what their prompts show.
Does not know: torch, how a draft is made, whether it is any good.
Units: units of a document.

As many units as there are slots are written at a time: the one that the loop is at, and those after it. The next one
begins when that one is done, and its prompt shows what was finished then: with K slots all but the K - 1 units before
it, with the names and terms of that moment. A draft is used where the loop asks for just that. Where a name was found
since that stands in the unit, or a draft fails, the unit is asked for again in its slot while the others go on. What is
taught or corrected ends what was begun before it. All of it follows from the records: a run that continues asks for the
same, and begins again what was on its way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from ..documents import Unit
from .asking import Asking, Draft, Request, Translator, given
from .context import Context
from .guards import needs_no_translation
from .job import Job
from .names import Memory


class Writer(Translator, Protocol):
    """A translator that writes several lines at a time, each in a slot of its own."""

    def begin(self, slot: int, request: Request, *, again: bool = False) -> None:
        """A line is to be written in a slot, in place of what was asked for there; no slot sees another.

        Args:
            again: whether it is another attempt at the same line.
        """
        ...

    def finish(self, slot: int) -> Draft:
        """The draft of the line in a slot."""
        ...

    def forget(self) -> None:
        """No draft that was begun is asked for any more."""
        ...


class Ahead(NamedTuple):
    """A unit that has a slot: what it is shown, and asked for at first."""

    slot: int
    shown: Context
    request: Request


class Together:
    """A translator that writes `job.lines` units at a time."""

    def __init__(self, job: Job, translator: Writer, known: Mapping[str, str], memory: Memory) -> None:
        """`known`: see `translate_unit`."""
        self._job = job
        self._translator = translator
        self._known = known
        self._memory = memory
        self._turn = 0
        self._number = -1  # the unit that the loop is at
        self._end = 0  # the first one that no slot was looked for
        self._free = set(range(job.lines))
        self._ahead: dict[int, Ahead] = {}  # by number
        self._begun: set[int] = set()  # those that the translator knows of
        self._asked = False  # whether the loop has asked for the unit that it is at

    def context(self, units: Sequence[Unit], number: int, shown: Context, turn: int = 0) -> Context:
        """What the prompts of `units[number]` show: `shown`, or what was shown when it was begun.

        Args:
            turn: whatever was begun at another one is not used.
        """
        if self._job.lines == 1:
            return shown
        if turn != self._turn:
            self._turn = turn
            self._let_go(list(self._ahead))
            self._translator.forget()
            self._end = number
        self._let_go([before for before in self._ahead if before < number])
        while self._free and self._end < len(units):
            self._begin(units[self._end], shown)
            self._end += 1
        self._number = number
        self._asked = False
        mine = self._ahead.get(number)
        return shown if mine is None else mine.shown

    def translate(self, request: Request) -> Draft:
        """See `Translator`."""
        mine = self._ahead.get(self._number)
        if mine is None:
            return self._translator.translate(request)
        for number, ahead in self._ahead.items():
            if number not in self._begun:
                self._begun.add(number)
                self._translator.begin(ahead.slot, ahead.request)
        request = request._replace(similar=())  # nothing is looked up in lines side by side
        if self._asked or request != mine.request:
            self._translator.begin(mine.slot, request, again=True)
        self._asked = True
        return self._translator.finish(mine.slot)

    def _begin(self, unit: Unit, shown: Context) -> None:
        if given(unit, self._known) is not None or needs_no_translation(unit.text):
            return
        slot = min(self._free)
        self._free.remove(slot)
        request = Asking(self._job, self._translator, unit, self._memory, None).first(shown)
        self._ahead[self._end] = Ahead(slot, shown, request)

    def _let_go(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            self._free.add(self._ahead.pop(number).slot)
            self._begun.discard(number)
