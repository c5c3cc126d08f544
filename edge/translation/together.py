"""Units that are decoded side by side: asked for together, given one by one as the loop comes to them.

Owns: which units make a group, what its prompts show, where it ends.
Does not know: torch, how a draft is made, whether it is any good.
Units: units of a document.

The units of a group are asked for before any of them is finished: their prompts show what stood before the group, with
the names and terms as they were then. A draft is used where the loop asks for just that; where a name was found since
that stands in the unit, or a first draft fails, the unit is asked for by itself, as always. A group ends with the next
lesson. All of it follows from the records, and a run that continues makes the drafts of a broken group again, all of
them, so that they are the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..documents import Unit
from .asking import Asking, Draft, Request, Translator, given
from .context import Context
from .guards import needs_no_translation
from .job import Job
from .names import Memory


class Together:
    """A translator that drafts up to `job.lines` units together, the first time one of them is asked for."""

    def __init__(self, job: Job, translator: Translator, known: Mapping[str, str], memory: Memory) -> None:
        """`known`: see `translate_unit`."""
        self._job = job
        self._translator = translator
        self._known = known
        self._memory = memory
        self._end = -1  # the unit after the group
        self._lessons = 0
        self._shown = Context()
        self._requests: list[Request] = []
        self._drafts: Sequence[Draft] = ()

    def context(self, units: Sequence[Unit], number: int, shown: Context, lessons: int = 0) -> Context:
        """What the prompts of `units[number]` show, after so many lessons: `shown`, or what the first one of its group
        did.
        """
        if self._job.lines == 1:
            return shown
        if number >= self._end or lessons != self._lessons:
            self._lessons = lessons
            self._begin(units, number, shown)
        return self._shown

    def translate(self, request: Request) -> Draft:
        """See `Translator`."""
        asked = request._replace(similar=())  # lines that are known since then change no draft
        if len(self._requests) < 2 or asked not in self._requests:
            return self._translator.translate(request)
        if not self._drafts:
            self._drafts = self._translator.translate_lines(self._requests)
        return self._drafts[self._requests.index(asked)]

    def translate_lines(self, requests: Sequence[Request]) -> Sequence[Draft]:
        """See `Translator`."""
        return self._translator.translate_lines(requests)

    def _begin(self, units: Sequence[Unit], number: int, shown: Context) -> None:
        self._shown = shown
        self._drafts = ()
        self._requests = []
        self._end = number
        while self._end < len(units) and len(self._requests) < self._job.lines:
            unit = units[self._end]
            if given(unit, self._known) is None and not needs_no_translation(unit.text):
                asking = Asking(self._job, self._translator, unit, self._memory, None)
                self._requests.append(asking.first(shown))
            self._end += 1
