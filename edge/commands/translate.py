"""`templora translate`: a whole book, in its own format."""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import journal
from ..documents import Document, open_document
from ..errors import InputError, OutcomeError, SettingsError
from ..records import Record, UnitTranslated
from ..settings import Settings
from ..terminal import Progress, Stop, say
from ..translation import families, glossary, languages, loop, names, pairs, prompts, report
from . import options, overwrite
from .driver import drive

if TYPE_CHECKING:
    from ..resume import Run
    from ..session import Runtime, Session

TRANSLATOR = "demo-instruct"  # the embedded model that can translate
PARTIAL_EVERY = 60.0  # seconds between two writings of the unfinished book, where they cost little
PARTIAL_SHARE = 0.05  # of the run's time that they may take: a book with its pictures may be large


def add(verbs: Any) -> None:
    """Registers the verb."""
    translate = options.verb(verbs, "translate", run, "translate a document: txt, md, epub, docx, srt or html")
    translate.add_argument("book", type=Path, metavar="BOOK", help="the document")
    translate.add_argument("--out", type=Path, metavar="FILE", help="the translated document (default: BOOK.TO.suffix)")
    translate.add_argument(
        "--bilingual", action="store_true", help="keep each source text, followed by its translation"
    )
    translate.add_argument(
        "--report", type=Path, metavar="DIR", help="write report.json, report.html, review.tsv and names.tsv"
    )
    prompting(translate)
    translate.add_argument(
        "--learn",
        metavar="WHAT",
        help="what the adapter learns from: off, or some of self,source,corrections "
        "(default: self, and corrections where there are any)",
    )
    translate.add_argument(
        "--corrections",
        type=Path,
        metavar="FILE",
        help="your own translations: TSV, TMX, XLIFF or an edited review.tsv",
    )
    translate.add_argument(
        "--judge",
        action="store_true",
        help="read what was translated backwards, and list first in report and review what says little of its source "
        "(with --learn self; about a quarter more time)",
    )
    options.resumable(translate)
    options.forward(translate)
    options.common(translate, TRANSLATOR)


def prompting(verb: argparse.ArgumentParser) -> None:
    """The options that decide what a prompt holds."""
    verb.add_argument("--from", dest="source", required=True, metavar="CODE", help="its language, e.g. zh")
    verb.add_argument(
        "--to", dest="target", required=True, metavar="CODE", help="the language wanted, e.g. en or pt-BR"
    )
    verb.add_argument("--glossary", type=Path, metavar="TSV", help="terms and their translations: source, tab, target")
    verb.add_argument(
        "--context-units", type=int, default=8, metavar="K", help="finished units that a prompt shows (default: 8)"
    )
    verb.add_argument(
        "--names",
        choices=("on", "off"),
        default="on",
        help="remember names as the book goes, show them where they occur, and ask again where one is missing "
        "(default: on)",
    )
    verb.add_argument(
        "--candidates",
        type=int,
        choices=(1, 2),
        default=1,
        help="2: a second draft of what leaves doubts, judged by reading both backwards; the better one is taken "
        "(default: 1)",
    )
    template(verb)


def template(verb: argparse.ArgumentParser) -> None:
    """The option that names a template."""
    shipped = ", ".join(prompts.template_names())
    verb.add_argument(
        "--template", metavar="NAME", help=f"{shipped}, or a YAML file (default: what fits the model by its metadata)"
    )


def job_of(args: argparse.Namespace, document: Document) -> loop.Job:
    """What is to be done, from the options; everything that can be wrong with them is found here.

    Raises:
        SettingsError, InputError: see `languages.find`, `glossary.read`, `pairs.read`.
    """
    source = languages.find(args.source)
    target = languages.find(args.target)
    if args.context_units < 0:
        raise SettingsError(f"--context-units is {args.context_units}", "0 or more")
    corrections = (
        [p for chunk in pairs.read(args.corrections, source, target) for p in chunk] if args.corrections else []
    )
    named = args.learn or ("self,corrections" if corrections else "self")
    learn = {word.strip() for word in named.split(",")}
    if not learn <= {"off", *loop.LEARN} or ("off" in learn and len(learn) > 1):
        raise SettingsError(f"--learn is '{named}'", "off, or some of " + ",".join(loop.LEARN), "correct it")
    if "corrections" in learn and not corrections:
        raise SettingsError("--learn corrections without --corrections", "a file of corrections", "name one")
    return loop.Job(
        document.units,
        source,
        target,
        args.context_units,
        frozenset(learn - {"off"}),
        glossary.read(args.glossary) if args.glossary else glossary.Glossary({}),
        corrections,
        pairs.by_unit(args.corrections) if args.corrections else {},
        names=args.names == "on",
        candidates=args.candidates,
    )


def prompts_of(args: argparse.Namespace, runtime: Runtime, job: loop.Job) -> prompts.Prompts:
    """Prompts in the template that was named, or in the one that fits the model; warns of one that cannot translate.

    Raises:
        SettingsError: see `prompts.load_template`, `prompts.Prompts`.
    """
    base = runtime.base
    fitting = families.fitting(
        base.tokenizer,
        job.source,
        job.target,
        architecture=str(getattr(base.config, "model_type", "")),
        reference=base.reference,
    )
    if args.model == "demo":
        say(f"warning: demo is a base model of 270M parameters that cannot translate; {TRANSLATOR} can")
    return prompts.Prompts(prompts.load_template(args.template or fitting), job.source, job.target, base.tokenizer)


def settings_for(args: argparse.Namespace, job: loop.Job) -> Settings:
    """The settings; without an adapter where nothing is learned."""
    settings = options.settings_of(args)
    if job.learn:
        return settings
    return dataclasses.replace(settings, learn=dataclasses.replace(settings.learn, mode="none"))


def texts_of(job: loop.Job, *, judge: bool = False) -> dict[str, str]:
    """What decides the outcome besides settings and model, by name."""
    lines = [f"{unit.id}\t{unit.text}" for unit in job.units]
    return {
        "text": "\n".join(lines),
        "glossary": json.dumps(sorted(job.glossary.terms.items())),
        "corrections": json.dumps([job.corrections, job.corrected] if job.corrected else job.corrections),
        "options": f"{job.source.tag} {job.target.tag} learn={sorted(job.learn)} context={job.context_units}"
        + (" judge" if judge else "")
        + (" names" if job.names else "")
        + (f" candidates={job.candidates}" if job.candidates > 1 else ""),
    }


def run(args: argparse.Namespace) -> int:
    """Runs it; returns the exit code."""
    with options.within_budget(args, str(args.book)):
        document = open_document(args.book, language=languages.find(args.source).code)
        job = job_of(args, document)
    for note in document.notes:
        say(f"note: {note}")
    for note in pairs.notes(args.corrections, job.source, job.target) if args.corrections else ():
        say(f"note: {note}")
    if not job.units:
        raise InputError(f"{args.book} has no text to translate", "a document with text", "name another one")
    settings = settings_for(args, job)
    out = args.out or overwrite.beside(args.book, job.target.tag)
    for folder in (out.parent, args.report):
        if folder:
            options.make_folder(folder)
    texts = texts_of(job, judge=args.judge)
    key = journal.fingerprint(texts)
    if args.template:
        texts["template"] = repr(prompts.load_template(args.template))
    where = options.place(args, args.book.stem, settings, key, texts)
    runtime = options.load(args, options.as_begun(args, where, settings), decodes=True, writes=True)
    made = prompts_of(args, runtime, job)
    texts["template"] = repr(made.template)
    start = time.perf_counter()
    with (
        options.run(args, where, "translate", runtime, texts, len(job.units)) as run,
        Progress("translating", len(job.units), "units") as progress,
        runtime.session() as session,
        Stop() as stop,
    ):
        done, stopped = _translate(job, made, run, session, progress, stop, document, out, args.bilingual, args.judge)
        _write_book(document, out, done, job, args.bilingual)
        result = {
            "command": "translate",
            "file": str(args.book),
            "out": str(out),
            "stopped": bool(stopped),
            "seconds": time.perf_counter() - start,
            **report.summary(done, job),
            "memory": runtime.memory(session),
            "model": {"reference": args.model, "load_seconds": runtime.base.load_seconds},
            "settings": settings.to_dict(),
        }
        if args.report:
            _write_report(args, result, done, job)
        if not stopped:
            run.finish(session, {"units": len(job.units)})
    return _tell(args, result, run, stopped)


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


def _translate(
    job: loop.Job,
    made: prompts.Prompts,
    run: Run,
    session: Session,
    progress: Progress,
    stop: Stop,
    document: Document,
    out: Path,
    bilingual: bool,
    judge: bool,
) -> tuple[list[Record], int]:
    """All records, and the exit code of a stop."""
    from ..translation.decoding import ModelTranslator, require_languages
    from ..translation.lessons import Lessons
    from ..translation.meaning import Meaning

    if run.finished or sum(isinstance(record, UnitTranslated) for record in run.kept) == len(job.units):
        return run.kept, 0  # nothing is left to do but to write it out
    require_languages(session, [unit.text for unit in job.units[:200]], job.source, job.target)
    done: list[Record] = list(run.restore(session))
    translator = ModelTranslator(session, made)
    judges = Meaning(session, made) if job.candidates > 1 else None
    teacher = Lessons(session, made, job.glossary, judges=judge)
    began = time.monotonic()
    unfinished = Unfinished(lambda: _write_book(document, out, done, job, bilingual))
    tokens = marked = 0

    def shown(record: Record) -> None:
        nonlocal tokens, marked
        done.append(record)
        if isinstance(record, UnitTranslated):
            tokens += record.tokens if len(done) > len(run.kept) else 0  # not what an earlier process made
            marked += record.status == "marked"
            speed = tokens / max(1e-9, time.monotonic() - began)
            progress(record.end, f"{speed:.1f} tokens/s, {marked} marked")
        unfinished.advance(at_once=record.kind == "lesson")

    try:
        stopped = drive(
            loop.translate(job, translator, teacher, run.kept, len(done), judges), run, session, stop, shown
        )
    finally:
        progress(None)
    return done, stopped


def _write_book(document: Document, out: Path, done: list[Record], job: loop.Job, bilingual: bool) -> None:
    document.write(out, report.texts(done), language=job.target.tag, bilingual=bilingual)


def _write_report(args: argparse.Namespace, result: dict[str, Any], done: list[Record], job: loop.Job) -> None:
    options.write_text(args.report / "report.json", json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    options.write_text(args.report / "report.html", report.page(result, args.book.name))
    doubtful = {unit.id for unit, _ in report.doubtful(done)}
    reviewed = pairs.review((r for r in done if isinstance(r, UnitTranslated)), doubtful)
    options.write_text(args.report / "review.tsv", reviewed)
    if job.names:
        rows = names.table(job.glossary.terms, report.memory(done, job).names())
        options.write_text(args.report / "names.tsv", names.HEAD + glossary.write(rows))


def _tell(args: argparse.Namespace, result: dict[str, Any], run: Run, stopped: int) -> int:
    units = result["units"]
    kept = result["names"]
    print(f"{result['out']}: {units['done']} of {units['total']} units, {units['marked']} marked")
    if args.report:
        print(f"report: {args.report / 'report.html'}, to be corrected: {args.report / 'review.tsv'}")
    say(f"{result['tokens_per_second']:.1f} tokens/s, {result['retried']} units retried, {kept['names']} names kept")
    if args.json:
        print(json.dumps(result))
    if stopped:
        say(f"stopped after {units['done']} of {units['total']} units; {result['out']} holds what was done")
        options.say_how_to_go_on(run)
        return stopped
    if units["marked"]:
        raise OutcomeError(
            f"{units['marked']} of {units['total']} units could not be translated and are marked with ⚠",
            "",
            "correct them in the document" + ("" if args.report else ", or see them all with --report DIR"),
        )
    return 0
