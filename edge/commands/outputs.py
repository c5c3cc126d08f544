"""What a translation leaves: the document in its forms, and its report; made from the records of a run alone.

Owns: which files are written from records, what of a run is kept beside its records so that they can be written again.
Does not know: models, how records were made, torch.
Units: units of the document.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import journal
from ..documents import Document, in_chapters
from ..errors import InputError, JournalError, OutcomeError
from ..journal import RunInfo
from ..records import Record
from ..terminal import say
from ..translation import glossary, interchange, languages, loop, names, pairs, report
from ..translation.prompts import Pair, key
from ..translation.revision import Revision
from . import carry, options

if TYPE_CHECKING:
    from ..resume import Run

PARTIAL_EVERY = 60.0  # seconds between two writings of the unfinished book, where they cost little
PARTIAL_SHARE = 0.05  # of the run's time that they may take: a book with its pictures may be large
SIDE_BY_SIDE = (".html", ".htm")


def forms(verb: argparse.ArgumentParser) -> None:
    """The option of both verbs that write the document beside itself."""
    verb.add_argument(
        "--report", type=options.path, metavar="DIR", help="write report.json, report.html, review.tsv and names.tsv"
    )
    verb.add_argument(
        "--review", type=options.path, metavar="FILE",
        help="where the review goes, for the editor that its ending names: .xlf or .xliff (XLIFF 1.2, 2.0), .po, .csv, "
        ".tsv (default: review.tsv of the report)",
    )  # fmt: skip


def review_of(args: argparse.Namespace) -> Path | None:
    """The file of the review; None where there is none.

    Raises:
        SettingsError: see `interchange.check`.
    """
    if args.review:
        interchange.check(args.review)
        named: Path = args.review
        return named
    return args.report / "review.tsv" if args.report else None


class Review:
    """The review file of a translation: written while a run goes on, and read back where the user has edited it.

    What is in it and was not read yet is never written over.
    """

    def __init__(self, path: Path, document: Document, job: loop.Job) -> None:
        self.path = path
        self._languages = job.source, job.target
        self._texts = {unit.id: unit.text for unit in document.units}
        self._known: bytes | None = None  # what we wrote or have read last
        self._left: bytes | None = None  # what we cannot take in: it stays

    def edits(self) -> dict[str, Pair]:
        """The rows that are corrections, by unit id; none where there is no such file, or it cannot be read."""
        data = self._content()
        if data in (None, self._left):
            return {}
        try:
            found = pairs.by_unit(self.path)
            ours = bool(found) or pairs.is_review(self.path)
        except InputError as error:  # an editor may be writing it
            self._leave(data, error.got)
            return {}
        if not ours:  # another tool's, or one in which a tool has left our marks out
            self._leave(data, f"{self.path} is no review of templora")
            return {}
        strange = [id for id, pair in found.items() if key(self._texts.get(id, "")) != key(pair.source)]
        if strange:
            self._leave(data, f"{self.path} holds corrections of another text (unit {strange[0]})")
            return {}
        self._known = data
        return found

    def write(self, done: Sequence[Record]) -> None:
        """Writes the units so far, unless somebody has changed the file since it was read."""
        doubtful = {unit.id for unit, _ in report.doubtful(done)}
        text = interchange.write(self.path, report.settled(done), *self._languages, doubtful)
        if self._content() in (None, self._known):  # looked at last: an editor may save at any moment
            self._known = text.encode("utf-8", "backslashreplace")  # and not what lies there after it
            options.write_bytes(self.path, self._known)

    def _content(self) -> bytes | None:
        """What lies there; None where nothing does. What cannot be read is not known, and so stays."""
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            return f"not readable: {error.strerror}".encode()

    def _leave(self, data: bytes | None, why: str) -> None:
        self._left = data
        say(f"note: {why}; it is left as it is, and not used")


@dataclass(frozen=True)
class Outputs:
    """The document's files.

    Attributes:
        out: the translated document; `bilingual` keeps each source text before its translation.
        also: the bilingual document beside `out`, where one is wanted too.
        review: what the user may edit while the run goes on.
    """

    document: Document
    tag: str
    out: Path
    bilingual: bool = False
    also: Path | None = None
    review: Review | None = None

    def write(self, done: Sequence[Record]) -> None:
        """Writes all of them, as far as units are done; the others keep their source text."""
        texts = report.texts(done)
        self.document.write(self.out.resolve(), texts, language=self.tag, bilingual=self.bilingual)
        if self.also:
            self.document.write(self.also.resolve(), texts, language=self.tag, bilingual=True)
        if self.review:
            self.review.write(done)


class Unfinished:
    """The book as far as it is done, written again and again within `PARTIAL_SHARE` of the time."""

    def __init__(self, write: Callable[[], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._write = write
        self._clock = clock
        self._written = clock()
        self._cost = 0.0

    def advance(self, *, at_once: bool) -> None:
        """Writes it where its last writing leaves time for one, and a chunk has ended or a minute has passed."""
        waited = self._clock() - self._written
        if waited < self._cost / PARTIAL_SHARE or not (at_once or waited > PARTIAL_EVERY):
            return
        begun = self._clock()
        self._write()
        self._written = self._clock()
        self._cost = self._written - begun


def describe(run: Run, args: argparse.Namespace, job: loop.Job, carried: carry.Carried | None) -> None:
    """Keeps in the run what its outputs are made from besides its records: the book's path and sum, and the terms."""
    run.describe(
        book=str(args.book.absolute()),
        book_sha256=journal.file_fingerprint(args.book),
        languages=[job.source.tag, job.target.tag],
        learn=sorted(job.learn),
        names=job.names,
        chapters=args.chapters,
        carried=carried and carried.to_json(),
    )
    carry.leave(run, job)


def book_of(found: RunInfo, named: Path | None = None) -> Path:
    """The book of a run of `translate`: that which it was given, or the one that is named.

    Raises:
        JournalError: it is a run of something else, of an earlier version, or the book is not what it was.
        StorageError: the book cannot be read.
    """
    extra = found.manifest.extra if found.manifest else {}
    if found.command != "translate":
        raise JournalError(f"{found.folder} is a run of {found.command}", "a run of translate", "see templora runs")
    path = named or (Path(extra["book"]) if isinstance(extra.get("book"), str) else None)
    if path is None or not isinstance(extra.get("book_sha256"), str):
        raise JournalError(
            f"{found.folder} does not say which book it is of: an earlier version of templora began it",
            "a run that does", "give the command that began it once more: its outputs are written again",
        )  # fmt: skip
    if path.is_file() and journal.file_fingerprint(path) != extra["book_sha256"]:
        raise JournalError(f"{path} is not the book that {found.folder} translated", "the same file",
                           "name a copy of it with --book")  # fmt: skip
    return path


def job_of(found: RunInfo, document: Document) -> loop.Job:
    """The job of a run, as far as its report asks for it."""
    extra: Mapping[str, Any] = found.manifest.extra if found.manifest else {}
    source, target = (languages.find(tag) for tag in extra["languages"])
    units = document.units if extra.get("chapters") is None else in_chapters(document, extra["chapters"])
    job = loop.Job(units, source, target, learn=frozenset(extra["learn"]), names=bool(extra.get("names")))
    return carry.with_what_was_left(found, job)


def write_report(folder: Path, result: Mapping[str, Any], done: Sequence[Record], job: loop.Job, name: str) -> None:
    """Writes the report into a folder that is there, but for the review; `name` is the book's."""
    options.write_text(folder / "report.json", json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    options.write_text(folder / "report.html", report.page(result, name))
    if job.names:
        rows = names.table(job.glossary.terms, report.memory(done, job).names())
        options.write_text(folder / "names.tsv", names.HEAD + glossary.write(rows))


def write_review(path: Path, document: Document, job: loop.Job, done: Sequence[Record]) -> None:
    """Writes the review of a run that does not go on, unless one is there that was edited since."""
    review = Review(path, document, job)
    revision = Revision(job.units, (job.source, job.target), review.edits)
    for record in done:
        revision.settled.see(record)
    if revision.noticed() is None:
        review.write(done)
    else:
        say(f"note: {path} was edited and is left as it is; the command of the run takes that in")


def check_marked(result: Mapping[str, Any], *, reported: bool) -> None:
    """The last word on outputs that hold marked units.

    Raises:
        OutcomeError: they do.
    """
    units = result["units"]
    if units["marked"]:
        raise OutcomeError(
            f"{units['marked']} of {units['total']} units could not be translated and are marked with ⚠",
            "",
            "correct them in the document" + ("" if reported else ", or see them all with --report DIR"),
        )
