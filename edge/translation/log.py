"""Where a translation stands in the records of a run that continues.

Owns: which records are there already, and which of them the adapter holds. Does not know: the order of the loop, files.
Units: records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ..records import Corrected, Lesson, Record, UnitTranslated


class Log:
    """The records of a run, in the order in which the loop makes them; of a new run there are none.

    Attributes:
        kept: the records that are there.
        restored: how many of them the adapter has learned already.
        count: records that the loop has passed.
        lessons: how many of them are lessons.
    """

    def __init__(self, kept: Sequence[Record] = (), restored: int = 0) -> None:
        self.kept = kept
        self.restored = restored
        self.count = 0
        self.lessons = 0

    def new(self) -> bool:
        """Counts a record; whether it is to be yielded."""
        self.count += 1
        return self.count > self.restored

    def unit(self, make: Callable[[], UnitTranslated]) -> UnitTranslated:
        """The kept record, or a new one."""
        if self.count < len(self.kept) and isinstance(found := self.kept[self.count], UnitTranslated):
            return found
        return make()

    def corrected(self, notice: Callable[[], Corrected | None]) -> Corrected | None:
        """The kept record, where one stands here; a new one only after all that are kept."""
        if self.count < len(self.kept):
            found = self.kept[self.count]
            return found if isinstance(found, Corrected) else None
        return notice()

    def lesson(self, span: tuple[int, int], make: Callable[[tuple[int, int]], Lesson]) -> Iterator[Lesson]:
        """A lesson that the adapter does not hold yet, on units [start, end); none where the run went on without it, as
        it did where another version made fewer of them.
        """
        if self.count < len(self.kept):
            found = self.kept[self.count]
            if not isinstance(found, Lesson) or (found.start, found.end) != span:
                return
        self.lessons += 1
        if self.new():
            yield make(span)
