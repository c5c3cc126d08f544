"""`templora score`: perplexity by position, base beside adapter."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..documents.text import Text, open_text
from ..errors import InputError
from ..measure import report
from ..records import ChunkScore, Record
from ..terminal import Progress, Stop, print_table, say
from . import carry, options
from .driver import drive

if TYPE_CHECKING:
    from ..session import Runtime, Session
    from ..settings import Settings
    from ..tokenstream import TokenStream


def add(verbs: options.Verbs) -> None:
    """Registers the verb."""
    score = options.verb(verbs, "score", run, "perplexity by position, base beside adapter")
    score.add_argument("file", type=options.named, metavar="FILE", help="a UTF-8 text file, or - for standard input")
    score.add_argument("--max-tokens", type=options.positive, metavar="N", help="score only the first N tokens")
    score.add_argument("--no-base", action="store_true", help="do not score with the base alone")
    score.add_argument(
        "--against",
        choices=("full",),
        help="score also with what the adapter competes with: full, the base with attention over all that was read",
    )
    score.add_argument("--report", type=options.path, metavar="DIR", help="write report.json and perplexity.png to DIR")
    carry.add(score)
    options.resumable(score)
    options.forward(score)
    options.common(score)


def run(args: argparse.Namespace) -> int:
    """Runs it; returns the exit code."""
    settings = options.settings_of(args)
    carried = carry.asked(args, settings)
    text = open_text(args.file)
    if args.report:
        options.make_folder(args.report)
    full = args.against == "full"
    what: dict[str, str | Text] = {
        "text": text,
        "options": f"max_tokens={args.max_tokens} base={not args.no_base} full={full}",
    }
    if carried:
        what["carried"] = carried.text()
    where = options.place(args, Path(args.file).stem, settings, carry.key(text.sha256, carried), what)
    carry.check_kept(args, where)
    runtime = options.load(args, options.as_begun(args, where, settings), decodes=False)
    ids = runtime.base.stream(text.parts(), limit=args.max_tokens)
    _require_two(ids, args.file)
    total = ids.waiting if ids.ended else None  # of a text that is longer than any book it is known at its end
    chunks: list[ChunkScore] = []
    result: dict[str, Any] = {}
    start = time.perf_counter()
    with (
        options.run(args, where, "score", runtime, what, total) as run,
        Progress("scoring", total) as progress,
        runtime.session() as session,
        Stop() as stop,
    ):
        if carried:
            carried.begin(session, runtime)
        kept = cast(list[ChunkScore], run.kept)
        there = run.finished or bool(kept and kept[-1].end == total and run.knows(session))
        whole = carry.is_kept(args, run) and there

        def begin(done: list[Record]) -> Iterable[Record]:
            chunks.extend(cast(list[ChunkScore], done))
            ids.skip(len(session.tokens))
            return () if whole else session.score_ids(ids, with_base=not args.no_base, full=full)

        def shown(record: Record) -> None:
            chunks.append(cast(ChunkScore, record))
            progress(chunks[-1].end)

        def outputs(stopped: int) -> dict[str, Any]:
            read = chunks[-1].end if chunks else 0
            if full and session.full_limit is not None and session.full_limit < (total or read):
                say(f"note: full attention saw at most {session.full_limit} tokens, as memory and training allow")
            ends = {
                "file": args.file,
                "document_tokens": total or (None if stopped else read),
                "stopped": bool(stopped),
                "carried": carried and carried.to_json(),
                **_circumstances(args.model, runtime, session, settings),
            }
            result.update(report.score_json(chunks, time.perf_counter() - start, ends))
            if args.keep_adapter and not stopped and not whole:
                run.keep_adapter(session)
            if args.report and chunks:
                _write(args.report, Path(args.file).name, chunks, result)
            return {"tokens": read}

        stopped = drive(run, session, stop, begin, shown, outputs, whole=whole, more=lambda _: bool(ids.look(1)))
    _tell(args, chunks, result)
    if stopped:
        of = f" of {total}" if total else ""
        say(f"stopped after {chunks[-1].end if chunks else 0}{of} tokens; what was done is reported above")
        options.say_how_to_go_on(run)
    return stopped


def _tell(args: argparse.Namespace, chunks: list[ChunkScore], result: dict[str, Any]) -> None:
    """What was found, on standard output."""
    if chunks:
        print_table(report.score_table(chunks))
        print(report.summary(chunks, result["peak_bytes"]))
    if args.report and chunks:
        print(f"report: {args.report / 'report.json'}, plot: {args.report / 'perplexity.png'}")
    if args.json:
        print(json.dumps(result))


def _write(folder: Path, name: str, chunks: list[ChunkScore], result: dict[str, Any]) -> None:
    """The report and its plot."""
    options.write_text(folder / "report.json", json.dumps(result, indent=1) + "\n")
    options.write_bytes(folder / "perplexity.png", report.score_plot(chunks, name))


def _circumstances(model: str, runtime: Runtime, session: Session, settings: Settings) -> dict[str, Any]:
    """What was scored with, for the JSON line and the report."""
    base = runtime.base
    return {
        "full_limit": session.full_limit,
        "memory": runtime.memory(session),
        "model": {"reference": model, "load_seconds": base.load_seconds},
        "device": {"name": base.device.name, "dtype": base.device.units},
        "settings": settings.to_dict(),
    }


def _require_two(ids: TokenStream, name: str) -> None:
    """Refuses a text that has nothing to score."""
    if ids.look(options.AHEAD) < 2:
        got = f"{name} holds {ids.waiting} token(s)"
        least = "at least 2 (the first one is never scored)"
        raise InputError(got, least, "give more text")
