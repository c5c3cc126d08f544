"""What a run remembers, names and lines: a fold over its records, with what the user has corrected meanwhile.

Owns: which records change the memory, and how.
Does not know: how names are found (`names`), which lines are alike (`similar`), the loop, files.
Units: units of the document.

It follows from the job and the records in their order alone: a run that continues, its report and `render` remember
the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from ..records import Corrected, Record, UnitTranslated
from . import sounds
from .candidates import Candidates
from .job import Job
from .languages import Language
from .names import Memory
from .prompts import Pair
from .similar import Similar


def memory_of(job: Job, sources: Sequence[str]) -> Memory:
    """A name memory for a text with these sources, which knows the user's own translations."""
    candidates = _candidates(tuple(sources) if job.names else (), job.source)
    memory = Memory(candidates, job.target, job.glossary.terms, read(job, sources))
    for pair in job.earlier if job.names else ():
        memory.learn(pair)
    for pair in (*job.carried, *job.corrections):
        memory.learn(pair, by_user=True)
    return memory


def read(job: Job, sources: Sequence[str]) -> dict[str, str]:
    """The names in a text with these sources that are called as they are read (`sounds`)."""
    if job.is_word is None or not job.names:
        return {}
    return sounds.readings(sources, _candidates(tuple(sources), job.source), (job.source, job.target), job.is_word)


@lru_cache(maxsize=1)
def _candidates(sources: tuple[str, ...], language: Language) -> Candidates:
    """Kept, for the report remembers the same text again."""
    return Candidates(sources, language)


class Recall:
    """The names and lines of a run as far as its records go.

    Attributes:
        memory: the names that are remembered now.
        lines: those that were translated.
    """

    def __init__(self, job: Job) -> None:
        self.memory = memory_of(job, [unit.text for unit in job.units])
        self.lines = Similar(job.source)
        for pair in (*job.earlier, *job.carried, *job.corrections):
            self.lines.learn(pair)
        self._texts: dict[str, str] = {}  # what each unit says that counts, by id

    def see(self, record: Record) -> None:
        """Takes in a unit that was accepted, and what the user has corrected; what he gave before is known already."""
        if isinstance(record, Corrected):
            for id, source, target in zip(record.ids, record.sources, record.targets, strict=True):
                self.memory.correct(self._texts.get(id, ""), Pair(source, target))
                self.lines.learn(Pair(source, target))
                self._texts[id] = target
        elif isinstance(record, UnitTranslated) and record.status in ("model", "pieces", "corrected"):
            before = self._texts.get(record.id)
            self._texts[record.id] = record.text
            self.lines.learn(Pair(record.source, record.text))
            if record.status != "corrected" and record.text != before:  # the same where doing it again failed
                self.memory.learn(Pair(record.source, record.text))
