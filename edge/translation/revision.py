"""The user's corrections while a run goes on: taken in between two chunks, taught, and obeyed from there on.

Owns: what of an edited review is new, what is taught and translated again for it, in which order; all of it follows
from the records, so that a run that continues after a stop does the same.
Does not know: files, how a unit is translated, how a lesson is learned.
Units: units of the document.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from functools import partial

from ..documents import Unit
from ..records import Corrected, Record, UnitTranslated
from .languages import Language
from .log import Log
from .prompts import Pair, key
from .settled import Settled

Edits = Callable[[], Mapping[str, Pair]]  # the rows of a review that are corrections, by unit id


def no_edits() -> Mapping[str, Pair]:
    """Of a run that nobody corrects while it goes on."""
    return {}


class Revision:
    """What the user has corrected so far, and what follows.

    Attributes:
        settled: the units so far, as they count.
    """

    def __init__(
        self,
        units: Sequence[Unit],
        languages: tuple[Language, Language],
        edits: Edits = no_edits,
        *,
        redo: bool = False,
        teaches: bool = False,
    ) -> None:
        """`redo`: units that hold a corrected name are translated again; `teaches`: corrections are learned."""
        self.settled = Settled(*languages)
        self.number = {unit.id: number for number, unit in enumerate(units)}
        self._texts = {unit.id: unit.text for unit in units}
        self._edits = edits
        self._redo = redo
        self._teaches = teaches

    def noticed(self, *, given: Mapping[str, str] | None = None) -> Corrected | None:
        """What is new in the review, and what is to be done again; None where nothing is.

        Args:
            given: translations that the user gave before, by unit id and source text, or by source text.
        """
        new = {id: pair for id, pair in self._edits().items() if self._is_new(id, pair, given or {})}
        again = self.settled.after(new) if self._redo else []
        if not new and not again:
            return None
        new = dict(sorted(new.items(), key=lambda item: self.number[item[0]]))
        return Corrected(
            len(self.settled.units),
            tuple(new),
            tuple(self._texts[id] for id in new),
            tuple(pair.target for pair in new.values()),
            self._teaches,
            tuple(again),
        )

    def _is_new(self, id: str, pair: Pair, given: Mapping[str, str]) -> bool:
        """A row of this text that says something else than what is known to be the user's word."""
        source = self._texts.get(id)
        if source is None or key(source) != key(pair.source):
            return False
        if id in self.settled.corrections:
            return self.settled.corrections[id].target != pair.target
        done = self.settled.units.get(id)
        if done is not None:
            return done.status != "corrected" or done.text != pair.target
        return given.get(f"{id}\n{key(source)}", given.get(key(source))) != pair.target

    def take_in(
        self,
        log: Log,
        known: dict[str, str],
        teach: Callable[[int, Sequence[Pair]], Iterator[Record]],
        again: Callable[[str], UnitTranslated],
        remember: Callable[[Record], None] = lambda record: None,
    ) -> Generator[Record, None, dict[Pair, Pair]]:
        """Takes in what the user has corrected since the last time.

        Args:
            log: where the loop stands in the records of a run that continues.
            known: the translations that are given; these become some of them.
            teach: the lessons on pairs, after so many units.
            again: translates a unit once more.
            remember: gets what the names of the book are learned from.

        Yields:
            What is new for the run: a `Corrected`, lessons, units.

        Returns:
            The pairs that are others now.
        """
        changed: dict[Pair, Pair] = {}
        while (record := log.corrected(partial(self.noticed, given=known))) is not None:
            if log.new():
                yield record
            changed |= self.settled.see(record)
            remember(record)
            for id, source, target in zip(record.ids, record.sources, record.targets, strict=True):
                known[f"{id}\n{key(source)}"] = known[key(source)] = target
            if record.taught:
                yield from teach(record.end, self.settled.lesson)
            for id in record.again:
                done = log.unit(partial(again, id))
                changed |= self.settled.see(done)
                if log.new():
                    yield done
                remember(done)
        return changed
