"""`templora translate`: a whole book, in its own format."""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .. import journal
from ..documents import open_document
from ..errors import InputError
from ..records import Corrected, Record, UnitTranslated
from ..terminal import Progress, Stop, say
from ..translation import languages, loop, pairs, prompts, report
from ..translation.log import Log
from ..translation.revision import Revision, no_edits
from . import carry, options, outputs, overwrite
from .driver import drive
from .options import path
from .prompting import TRANSLATOR, job_of, knowing_words, prompting, prompts_of, settings_for, texts_of, words_of

if TYPE_CHECKING:
    from ..resume import Run
    from ..session import Runtime, Session

PREVIEWED = 6  # units that a process shows on the terminal when they are done


def add(verbs: options.Verbs) -> None:
    """Registers the verb."""
    translate = options.verb(verbs, "translate", run, "translate a document: txt, md, epub, docx, srt or html")
    translate.add_argument("book", type=path, metavar="BOOK", help="the document")
    translate.add_argument("--out", type=path, metavar="FILE", help="the translated document (default: BOOK.TO.suffix)")
    form = translate.add_mutually_exclusive_group()
    form.add_argument("--bilingual", action="store_true", help="keep each source text, followed by its translation")
    form.add_argument("--bilingual-out", type=path, metavar="FILE", help="write the bilingual document too, as FILE")
    outputs.forms(translate)
    prompting(translate)
    translate.add_argument(
        "--chapters", metavar="LIST", help="only these, e.g. 3-5,8 (a list that is wrong says which there are)"
    )
    translate.add_argument(
        "--limit", type=options.positive, metavar="N",
        help="stop after the first N units; the same command without it goes on with the run",
    )  # fmt: skip
    translate.add_argument(
        "--learn", metavar="WHAT",
        help="what the adapter learns from: off, or some of self,source,corrections "
        "(default: corrections, those of the review too)",
    )  # fmt: skip
    translate.add_argument(
        "--corrections", type=path, metavar="FILE",
        help="your own translations: TSV, TMX, XLIFF or an edited review.tsv",
    )  # fmt: skip
    translate.add_argument(
        "--judge",
        action="store_true",
        help="read what was translated backwards, and list first in report and review what says little of its source "
        "(with --learn self; about a quarter more time)",
    )
    translate.add_argument(
        "--redo", action="store_true",
        help="translate those units again that hold a name which an edit of the review has corrected",
    )  # fmt: skip
    translate.add_argument(
        "--carry", type=options.named, metavar="RUN",
        help="begin with adapter, corrections and terms of an earlier volume's run, or with a peft folder's adapter",
    )  # fmt: skip
    options.resumable(translate)
    options.forward(translate)
    options.common(translate, TRANSLATOR)


def run(args: argparse.Namespace) -> int:
    """Runs it; returns the exit code."""
    with options.within_budget(args, str(args.book)):
        document = open_document(args.book, language=languages.find(args.source).code)
        job = job_of(args, document)
    carried = carry.find(args.carry) if args.carry else None
    if carried:
        job = carried.into(job)
    for note in document.notes:
        say(f"note: {note}")
    for note in pairs.notes(args.corrections, job.source, job.target) if args.corrections else ():
        say(f"note: {note}")
    if not job.units:
        raise InputError(f"{args.book} has no text to translate", "a document with text", "name another one")
    settings = settings_for(args, job)
    job = dataclasses.replace(job, lines=settings.generate.lines)
    carry.check_learns(carried, settings)
    out = args.out or overwrite.beside(args.book, job.target.tag)
    place = outputs.review_of(args)
    review = outputs.Review(place, document, job) if place else None
    files = outputs.Outputs(document, job.target.tag, out, args.bilingual, args.bilingual_out, review)
    for folder in (out.parent, args.report, *(file and file.parent for file in (args.bilingual_out, place))):
        if folder:
            options.make_folder(folder)
    texts = texts_of(job, carried, judge=args.judge)
    key = journal.fingerprint(texts)
    named = prompts.load_template(args.template) if args.template else None
    if named:
        texts["template"] = repr(named)
    where = options.place(args, args.book.stem, settings, key, texts, words_of(job, named, judge=args.judge))
    runtime = options.load(args, options.as_begun(args, where, settings), decodes=True, writes=True)
    made = prompts_of(args, runtime, job)
    texts["template"] = repr(made.template)
    words = words_of(job, made.template, judge=args.judge)
    wanted = min(len(job.units), args.limit or len(job.units))
    start = time.perf_counter()
    with (
        options.run(
            args, where, "translate", runtime, texts, len(job.units), words, () if named else ("template",)
        ) as run,
        Progress("translating", wanted, "units") as progress,
        runtime.session() as session,
        Stop() as stop,
    ):
        outputs.describe(run, args, job, carried)
        _begin(session, runtime, job, carried)
        result: dict[str, Any] = {}

        def write(done: list[Record], stopped: int) -> dict[str, int] | None:
            files.write(done)
            result.update(
                {
                    "command": "translate",
                    "file": str(args.book),
                    "out": str(out),
                    "stopped": bool(stopped),
                    "seconds": time.perf_counter() - start,
                    **report.summary(done, job),
                    "carried": carried and carried.to_json(),
                    "memory": runtime.memory(session),
                    "model": {"reference": args.model, "load_seconds": runtime.base.load_seconds},
                    "settings": settings.to_dict(),
                }
            )
            if args.report:
                outputs.write_report(args.report, result, done, job, args.book.name)
            return {"units": len(job.units)} if result["units"]["done"] == len(job.units) else None

        book = _Book(args, knowing_words(job, runtime), run, session, files, wanted)
        stopped = book.translate(made, progress, stop, write)
    return _tell(args, result, run, stopped)


def _begin(session: Session, runtime: Runtime, job: loop.Job, carried: carry.Carried | None) -> None:
    """The adapter begins as it is carried, and it is settled how much of it is used."""
    from ..translation.lessons import strength

    used = carried.begin(session, runtime) if carried else None
    if session.adapter is not None:
        session.adapter.strength = strength(job.learn, used, repairs=session.adapter.repairs)


@dataclass(frozen=True)
class _Book:
    """A translation and its run, in the form in which this command goes through it; `wanted`: how many units this
    process is to have in the records.
    """

    args: argparse.Namespace
    job: loop.Job
    run: Run
    session: Session
    files: outputs.Outputs
    wanted: int

    def translate(
        self,
        made: prompts.Prompts,
        progress: Progress,
        stop: Stop,
        write: Callable[[list[Record], int], dict[str, int] | None],
    ) -> int:
        """The exit code of a stop, or 0. `write` gets all records and that code, and writes what comes of them."""
        run = self.run
        session = self.session
        whole = self._is_there()  # nothing is left to do but to write it out
        done: list[Record] = []
        began = time.monotonic()
        unfinished = outputs.Unfinished(lambda: self.files.write(done))
        tokens = marked = previewed = 0

        def begin(before: list[Record]) -> Iterable[Record]:
            done.extend(before)
            return () if whole else self._loop(made, len(before))

        def shown(record: Record) -> None:
            nonlocal tokens, marked, previewed
            done.append(record)
            if isinstance(record, UnitTranslated):
                new = len(done) > len(run.kept)  # not what an earlier process made
                tokens += record.tokens if new else 0
                marked += record.status == "marked"
                if new and record.status != "copied" and previewed < PREVIEWED:
                    previewed += 1
                    progress.above(f"{record.source} → {report.shown(record)}")
                speed = tokens / max(1e-9, time.monotonic() - began)
                progress(record.end, f"{speed:.1f} tokens/s, {marked} marked")
            elif isinstance(record, Corrected) and len(done) > len(run.kept):
                _say_corrected(record)
            unfinished.advance(at_once=record.kind == "lesson")

        def enough(record: Record) -> bool:
            return isinstance(record, UnitTranslated) and self.wanted <= record.end < len(self.job.units)

        def finish(stopped: int) -> dict[str, int] | None:
            if not stopped and not whole and self.wanted == len(self.job.units):
                run.keep_adapter(session)
            return write(max(done, run.kept, key=len), stopped)  # a stop may come while lessons are learned again

        try:
            return drive(run, session, stop, begin, shown, finish, whole=whole, enough=enough)
        finally:
            progress(None)

    def _loop(self, made: prompts.Prompts, before: int) -> Iterator[Record]:
        """The loop over what comes after the records that are done, `before` of them."""
        from ..translation.decoding import ModelTranslator, require_languages
        from ..translation.lessons import Lessons
        from ..translation.meaning import Meaning

        job = self.job
        session = self.session
        require_languages(session, [unit.text for unit in job.units[:200]], job.source, job.target)
        judges = Meaning(session, made) if job.candidates > 1 else None
        teacher = Lessons(session, made, job.glossary, judges=self.args.judge)
        log = Log(self.run.kept, before)
        return loop.translate(job, ModelTranslator(session, made), teacher, log, judges, self._revision())

    def _revision(self) -> Revision:
        """What the user corrects in the review while the run goes on."""
        job = self.job
        review = self.files.review
        teaches = self.session.adapter is not None and bool(job.learn & {"self", "corrections"})
        edits = review.edits if review else no_edits
        return Revision(job.units, (job.source, job.target), edits, redo=self.args.redo, teaches=teaches)

    def _is_there(self) -> bool:
        """Whether all that is wanted is in the records. What the user has corrected since the end of a run is put
        there; where units are to be done again for it, the run goes on.
        """
        run = self.run
        units = self.job.units
        revision = self._revision()
        for record in run.kept:
            revision.settled.see(record)
        done = len(revision.settled.units)
        if done < self.wanted:
            return False
        if done < len(units):
            return True
        if not run.finished and self.session.adapter is not None and not run.has_kept and run.folder is not None:
            return False  # its last lessons are not kept
        late = revision.noticed()
        if late is None:
            return True
        if late.again:
            run.reopen()
            return False
        run.append(dataclasses.replace(late, taught=False))  # nothing comes after it that would profit
        _say_corrected(late)
        return True


def _say_corrected(record: Corrected) -> None:
    again = f"; {len(record.again)} units are translated again" if record.again else ""
    say(f"{len(record.ids)} corrections of the review are taken in{again}")


def _tell(args: argparse.Namespace, result: dict[str, Any], run: Run, stopped: int) -> int:
    units = result["units"]
    kept = result["names"]
    print(f"{result['out']}: {units['done']} of {units['total']} units, {units['marked']} marked")
    if args.report:
        print(f"report: {args.report / 'report.html'}")
    if review := outputs.review_of(args):
        print(f"to be corrected: {review}")
    say(f"{result['tokens_per_second']:.1f} tokens/s, {result['retried']} units retried, {kept['names']} names kept")
    if result["affected"]:
        say(f"{len(result['affected'])} units hold a name that was corrected elsewhere: --redo translates them again")
    if args.json:
        print(json.dumps(result))
    if stopped:
        say(f"stopped after {units['done']} of {units['total']} units; {result['out']} holds what was done")
        options.say_how_to_go_on(run)
        return stopped
    if units["done"] < units["total"] and run.folder:
        say(f"the first {units['done']} units are done, as --limit asks; the same command without it goes on with them")
    outputs.check_marked(result, reported=bool(args.report))
    return 0
