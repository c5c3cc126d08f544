"""`templora eval translate`: perplexity, BLEU, chrF and name consistency on aligned text, by protocol."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast

from .. import journal, places
from ..errors import InputError, JournalError, SettingsError
from ..machine.allocator import release_memory
from ..records import ChunkEvaluated, Record, finite, perplexity
from ..terminal import Progress, Stop, print_table, say, working
from ..translation import evaluate, glossary, languages, loop, pairs, prompts, scores
from ..translation.learned import Metric, Sample
from ..translation.prompts import Pair
from . import options
from .driver import drive
from .prompting import TRANSLATOR, knowing_words, prompting, prompts_of, side_by_side

if TYPE_CHECKING:
    from ..session import Runtime


def add(verbs: options.Verbs) -> None:
    """Registers the verb."""
    verb = options.verb(verbs, "eval", run, "measure translation on aligned text, by protocol")
    verb.add_argument("task", choices=["translate"], help="what is measured")
    verb.add_argument("file", type=options.path, metavar="FILE", help="aligned text: JSON chunks, TSV, TMX or XLIFF")
    verb.add_argument(
        "--protocols",
        default=",".join(evaluate.USUAL),
        metavar="NAMES",
        help="off (the base alone), oracle (learns past references), self (its own output), source (each chunk's "
        "source lines, before it is translated), corrections (the first references, see --given) "
        "(default: %(default)s)",
    )
    verb.add_argument(
        "--generate",
        type=options.named,
        default="none",
        metavar="WHICH",
        help="chunks to translate, for BLEU, chrF and names: none, all, or a JSON file that holds them (default: none)",
    )
    verb.add_argument("--chunks", type=options.positive, metavar="N", help="only the first N chunks")
    verb.add_argument("--given", type=options.positive, metavar="N",
                      help="corrections: the references of the first N chunks (default: a tenth of all)")  # fmt: skip
    verb.add_argument(
        "--metric", type=options.path, metavar="PATH",
        help="a checkpoint of COMET or MetricX on this disk, which scores the translations too",
    )  # fmt: skip
    verb.add_argument("--report", type=options.path, metavar="DIR", help="write eval.json to DIR")
    prompting(verb)
    verb.add_argument(
        "--run", dest="run_folder", type=options.path, metavar="DIR", help="keep a run folder per protocol"
    )
    options.going_on(verb)
    options.forward(verb)
    options.common(verb, TRANSLATOR)


def run(args: argparse.Namespace) -> int:
    """Runs it; returns the exit code."""
    protocols = _protocols(args)
    source = languages.find(args.source)
    target = languages.find(args.target)
    chunks = pairs.read(args.file, source, target)[: args.chunks]
    wanted = _wanted(args.generate, source, target)
    terms = glossary.read(args.glossary, source, target) if args.glossary else glossary.Glossary({})
    settings = side_by_side(args, options.settings_of(args))
    job = loop.Job(
        (), source, target, args.context_units, frozenset(), terms,
        names=args.names == "on", candidates=args.candidates, lines=settings.generate.lines,
    )  # fmt: skip
    if settings.learn.mode == "none":
        raise SettingsError("learn.mode is none", "an adapter that can learn", "use --protocols off for the base alone")
    metric = _metric(args)
    if args.report:
        options.make_folder(args.report)
    marked = [wanted(chunk) for chunk in chunks]
    key = journal.fingerprint(json.dumps([chunks, marked, source.tag, target.tag, args.context_units]))
    places = {name: _place(args, name) for name in protocols}
    if args.resume and not any(where.there for where in places.values()):
        got = (
            "--resume without --run"
            if args.run_folder is None
            else f"no run of {', '.join(protocols)} in {args.run_folder}"
        )
        raise JournalError(got, "a folder with a run that began so", "name it with --run, or leave --resume out")
    first = next(iter(places.values()))
    runtime = options.load(
        args,
        options.as_begun(args, first, settings),
        decodes=True,
        writes=args.generate != "none" or "self" in protocols,
    )
    if metric is not None:
        metric.require_room(runtime.plan.prediction.baseline, runtime.plan.budget)
    made = prompts_of(args, runtime, job)
    job = knowing_words(job, runtime)
    key = journal.fingerprint(f"{key} names={job.names} candidates={job.candidates} given={args.given}")
    texts = {"text": key, "template": repr(made.template), "glossary": json.dumps(sorted(terms.terms.items()))}
    references = [pair for chunk in chunks for pair in chunk]
    scored = [is_marked for chunk, is_marked in zip(chunks, marked, strict=True) for _ in chunk]
    names = scores.reference_names(references, source, target)
    start = time.perf_counter()
    stopped = 0
    results = {}
    outputs: dict[str, list[Sample]] = {}
    for name in protocols:
        last = name == protocols[-1]
        done, stopped = _measure(args, name, chunks, wanted, job, made, runtime, places[name], texts, last=last)
        outputs[name] = _scored(done, references, scored)
        results[name] = _result(done, outputs[name], names, job)
        if stopped:
            break
    result = {
        "command": "eval translate",
        "file": str(args.file),
        "from": source.tag,
        "to": target.tag,
        "chunks": len(chunks),
        "stopped": bool(stopped),
        "seconds": time.perf_counter() - start,
        "reference_names": scores.name_consistency(names, references, target),
        "protocols": results,
        "model": {"reference": args.model},
        "settings": settings.to_dict(),
    }
    try:
        if metric is not None and not stopped:
            device = runtime.base.device.name
            del runtime, made  # the base's memory is what the metric takes
            release_memory()
            with working(f"scoring with {metric.name}"):
                for name, found in metric.scores(device, outputs).items():
                    results[name]["metric"] = found
    finally:  # what was translated is worth its table, whatever the metric does
        _show(args, result)
    return stopped


def _protocols(args: argparse.Namespace) -> list[str]:
    names = [name.strip() for name in args.protocols.split(",")]
    if not set(names) <= set(evaluate.PROTOCOLS):
        raise SettingsError(
            f"--protocols is '{args.protocols}'", "some of " + ",".join(evaluate.PROTOCOLS), "correct it"
        )
    return names


def _metric(args: argparse.Namespace) -> Metric | None:
    """The learned metric that is asked for."""
    if args.metric is None:
        return None
    if args.generate == "none":
        raise SettingsError("--metric without translations", "--generate all, or a file of chunks", "name them")
    from ..translation import metrics  # it needs torch

    return metrics.find(args.metric)


def _show(args: argparse.Namespace, result: dict[str, Any]) -> None:
    """Prints the table and what it was made with, and writes the report."""
    print_table(_table(result))
    overlaps = [row["overlap"] for row in result["protocols"].values() if row["overlap"]]
    for signature in {overlap[key] for overlap in overlaps for key in overlap if "sig" in key}:
        print(signature)
    if args.report:
        options.write_text(args.report / "eval.json", json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    if args.json:
        print(json.dumps(result))


def _wanted(which: str, source: languages.Language, target: languages.Language) -> Callable[[Sequence[Pair]], bool]:
    """Whether a chunk is to be translated."""
    if which in ("none", "all"):
        return lambda chunk: which == "all"
    marked = {(chunk[0].source, chunk[-1].source) for chunk in pairs.read(which, source, target)}
    return lambda chunk: (chunk[0].source, chunk[-1].source) in marked


def _place(args: argparse.Namespace, protocol: str) -> places.Place:
    """Each protocol is a run of its own below --run; one that was not begun begins, a finished one is read."""
    if args.run_folder is None:
        return places.Place(None)
    folder = args.run_folder / protocol
    return places.place("eval", protocol, {}, folder=folder, fresh=args.fresh)


def _measure(
    args: argparse.Namespace,
    protocol: str,
    chunks: Sequence[Sequence[Pair]],
    wanted: Callable[[Sequence[Pair]], bool],
    job: loop.Job,
    made: prompts.Prompts,
    runtime: Runtime,
    where: places.Place,
    texts: dict[str, str],
    *,
    last: bool,
) -> tuple[list[ChunkEvaluated], int]:
    """The records of one protocol, and the exit code of a stop; after the `last` one nothing is left to stop."""
    from ..translation.decoding import ModelTranslator
    from ..translation.lessons import Lessons, strength
    from ..translation.meaning import Meaning

    with (
        options.run(args, where, "eval", runtime, {**texts, "protocol": protocol}, len(chunks)) as run,
        runtime.session() as session,
        Stop() as stop,
    ):
        if run.finished:
            return cast(list[ChunkEvaluated], run.kept), 0
        lessons = Lessons(session, made, job.glossary)
        if session.adapter is not None:
            session.adapter.strength = strength([protocol], repairs=session.adapter.repairs)
        text = evaluate.blocks(chunks, lessons, wanted, args.given)
        if not any(block.pairs for block in text):
            raise InputError(f"{args.file} has no pairs", "aligned text", "check --from and --to")
        translator = ModelTranslator(session, made)
        judge = Meaning(session, made) if job.candidates > 1 else None
        done: list[ChunkEvaluated] = []
        with Progress(protocol, len(text), "chunks") as progress:

            def begin(before: list[Record]) -> Iterable[Record]:
                done.extend(cast(list[ChunkEvaluated], before))
                return evaluate.evaluate(protocol, text, job, session, translator, lessons, done[:], judge)

            def shown(record: Record) -> None:
                chunk = cast(ChunkEvaluated, record)
                done.append(chunk)
                progress(chunk.index + 1, f"perplexity {perplexity(chunk.nll, chunk.tokens):.1f}")

            summary = {"chunks": len(text)}
            stopped = drive(
                run, session, stop, begin, shown, lambda _: summary, more=lambda _: not last or len(done) < len(text)
            )
        if stopped:
            say(f"stopped after {len(done)} of {len(text)} chunks of {protocol}")
            options.say_how_to_go_on(run, args.run_folder)
    return done, stopped


def _scored(done: Sequence[ChunkEvaluated], references: Sequence[Pair], scored: Sequence[bool]) -> list[Sample]:
    """The translations that count, the same units in every protocol, with what they are held against."""
    texts = [(record.start + i, text) for record in done for i, text in enumerate(record.texts)]
    return [Sample(references[i].source, text, references[i].target) for i, text in texts if scored[i]]


def _result(
    done: Sequence[ChunkEvaluated], samples: Sequence[Sample], names: Sequence[Any], job: loop.Job
) -> dict[str, Any]:
    """What a table says of a protocol."""
    nll = sum(r.nll for r in done)
    tokens = sum(r.tokens for r in done)
    result: dict[str, Any] = {
        "nll": nll,
        "tokens": tokens,
        "perplexity": finite(perplexity(nll, tokens)),
        "seconds": sum(r.seconds for r in done),
        "translated": sum(len(r.texts) for r in done),
        "scored": len(samples),
        "marked": sum(r.marked for r in done),
        "overlap": None,
        "names": None,
        "metric": None,
        "chunks": [record.to_json() for record in done],
    }
    if samples:
        hypotheses = [sample.translation for sample in samples]
        result["overlap"] = scores.overlap(hypotheses, [sample.reference for sample in samples], job.target)
        own = [Pair(sample.source, sample.translation) for sample in samples]
        result["names"] = scores.name_consistency(names, own, job.target)
    return result


def _table(result: dict[str, Any]) -> Any:
    from rich.table import Table

    table = Table(title=f"{result['file']}: {result['from']} → {result['to']}, by protocol", title_justify="left")
    metric = next((row["metric"] for row in result["protocols"].values() if row["metric"]), None)
    learned = [f"{metric['name']} ({metric['better']} is better)"] if metric else []
    for head in (
        "protocol", "perplexity", "against off", "BLEU", "chrF", *learned, "names", "names mean", "marked",
        "s/chunk",
    ):  # fmt: skip
        table.add_column(head, justify="left" if head == "protocol" else "right")
    for name, row in result["protocols"].items():
        overlap = row["overlap"] or {}
        names = row["names"] or {}
        change = None if name == "off" else _against_off(result["protocols"].get("off"), row)
        table.add_row(
            name,
            _cell(row["perplexity"], ".2f"),
            _cell(change, "+.1%"),
            _cell(overlap.get("bleu"), ".2f"),
            _cell(overlap.get("chrf"), ".2f"),
            *([_cell((row["metric"] or {}).get("score"), ".4f")] if learned else []),
            _cell(names.get("share"), ".0%"),
            _cell(names.get("mean"), ".0%"),
            f"{row['marked']} of {row['translated']}" if row["translated"] else "–",
            _cell(row["seconds"] / max(1, len(row["chunks"])), ".1f"),
        )
    return table


def _against_off(off: dict[str, Any] | None, row: dict[str, Any]) -> float | None:
    """The change of perplexity against the base, over the chunks that both have."""
    count = min(len(off["chunks"]) if off else 0, len(row["chunks"]))
    if off is None or not count:
        return None
    nats = [sum(chunk["nll"] for chunk in side["chunks"][:count]) for side in (row, off)]
    tokens = sum(chunk["tokens"] for chunk in off["chunks"][:count])
    return perplexity(nats[0], tokens) / perplexity(nats[1], tokens) - 1


def _cell(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
