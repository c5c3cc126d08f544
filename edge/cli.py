"""The `templora` command: the only place that prints.

Owns: arguments, progress, what goes to standard output and standard error, exit codes.
Does not know: how anything is computed.

Standard output holds the result (table, text, and with --json one JSON line last); progress and errors go to
standard error. Exit codes are those of `edge.errors`; an unexpected failure is 70.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NoReturn

from . import __version__, report
from . import settings as settings_module
from .documents.text import read_text
from .errors import BudgetError, InputError, Interrupted, StorageError, TemploraError, describe
from .records import ChunkRead, ChunkScore, ChunkWritten, TextPiece
from .settings import Settings, format_bytes
from .terminal import Progress, console, print_table, say

INTERNAL = 70


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    args: argparse.Namespace | None = None
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        args = parser().parse_args(argv)
        return int(args.run(args))
    except TemploraError as error:
        say(f"error: {error.line()}")
        return error.exit_code
    except KeyboardInterrupt:
        say("stopped")
        return Interrupted.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if os.environ.get("TEMPLORA_DEBUG"):
            raise
        say(f"error: internal failure ({describe(error)}); set TEMPLORA_DEBUG=1 for the traceback")
        return INTERNAL


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = _Parser(
        prog="templora",
        description="Read, score and write texts far longer than the model's window: a 4-bit base and a temporary "
        "LoRA that learns the text as it passes.",
        epilog="exit codes: 0 done, 2 settings or usage, 3 input, 4 model, 5 memory budget, 6 device, 7 run folder, "
        "8 disk, 9 done with failures marked, 10 ONNX graph, 70 internal, 130 stopped",
    )
    top.add_argument("--version", action="version", version=f"templora {__version__}")
    verbs = top.add_subparsers(title="commands", metavar="COMMAND", required=True)

    score = _verb(verbs, "score", _score, "perplexity by position, base beside adapter")
    score.add_argument("file", metavar="FILE", help="a UTF-8 text file, or - for standard input")
    score.add_argument("--max-tokens", type=_positive, metavar="N", help="score only the first N tokens")
    score.add_argument("--no-base", action="store_true", help="do not score with the base alone")
    score.add_argument("--report", type=Path, metavar="DIR", help="write report.json and perplexity.png to DIR")
    _common(score)

    write = _verb(verbs, "write", _write, "continue a text of any length")
    prompt = write.add_mutually_exclusive_group(required=True)
    prompt.add_argument("--prompt", metavar="TEXT", help="the text to continue")
    prompt.add_argument("--prompt-file", metavar="FILE", help="a UTF-8 file to continue, or - for standard input")
    write.add_argument(
        "--tokens", type=_positive, default=256, metavar="N", help="how many tokens (default: %(default)s)"
    )
    write.add_argument("--out", type=Path, metavar="FILE", help="also write the new text to FILE")
    _common(write)

    quantize = _verb(verbs, "quantize", _quantize, "make a 4-bit folder that loads without the full weights")
    quantize.add_argument("model", metavar="MODEL", help="demo, a hub id, a model folder or a .gguf file")
    quantize.add_argument("out", type=Path, metavar="OUT", help="the folder to make")
    quantize.add_argument("--offline", action="store_true", help="never use the network")
    quantize.add_argument("--json", action="store_true", help="print one JSON line last")

    plan = _verb(verbs, "plan", _plan, "predict the peak memory of every phase, before anything is loaded")
    plan.add_argument("--score-only", action="store_true", help="without the phase that writes text")
    _common(plan)

    bench = _verb(verbs, "bench", _bench, "measure side by side: the paper's loop, the default, swift, the base alone")
    bench.add_argument("file", metavar="FILE", help="a UTF-8 text file, or - for standard input")
    bench.add_argument("--chunks", type=_positive, default=5, metavar="N", help="chunks each (default: %(default)s)")
    bench.add_argument(
        "--contenders",
        default="paper,plain,exact,default,swift,base",
        metavar="NAMES",
        help="some of paper, plain, exact, default, base and presets; the first is what the others are compared with "
        "(default: %(default)s)",
    )
    bench.add_argument("--decode", type=_positive, metavar="N", help="also decode N tokens each")
    bench.add_argument("--limit", metavar="SIZE", help="end a contender whose memory grows beyond SIZE")
    bench.add_argument("--report", type=Path, metavar="DIR", help="write bench.json and bench.png to DIR")
    _common(bench)

    doctor = _verb(verbs, "doctor", _doctor, "try out what this machine can do")
    doctor.add_argument("--json", action="store_true", help="print one JSON line last")
    return top


def _common(verb: argparse.ArgumentParser) -> None:
    presets = ", ".join(settings_module.preset_names())
    verb.add_argument(
        "--model", default="demo", help="demo, hub id, model folder, 4-bit folder or .gguf (default: demo)"
    )
    verb.add_argument("--preset", default="economical", help=f"{presets}, or a YAML file (default: economical)")
    verb.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting, e.g. learn.lr=1e-4"
    )
    verb.add_argument(
        "--memory-budget", metavar="SIZE", help="keep under this much memory, e.g. 6GiB (default: what is free)"
    )
    verb.add_argument(
        "--allow-degrade", action="store_true", help="fit the budget by changing what affects results too"
    )
    verb.add_argument("--device", help="auto, cpu or cuda (default: auto)")
    verb.add_argument("--offline", action="store_true", help="never use the network")
    verb.add_argument("--json", action="store_true", help="print one JSON line last")


def settings_of(args: argparse.Namespace) -> Settings:
    """Settings from --preset, --set and the short options."""
    overrides = list(args.set)
    if args.device:
        overrides.append(f"compute.device={json.dumps(args.device)}")
    if args.offline:
        overrides.append("base.offline=true")
    if args.memory_budget:
        overrides.append(f"budget={json.dumps(args.memory_budget)}")
    return settings_module.load(args.preset, overrides)


# --- verbs ---


def _score(args: argparse.Namespace) -> int:
    settings = settings_of(args)
    text = read_text(args.file).strip()
    if args.report:
        _make_folder(args.report)
    runtime = _load(args, settings)
    ids = runtime.base.encode(text)[: args.max_tokens]
    if len(ids) < 2:
        got, least = f"{args.file} holds {len(ids)} token(s)", "at least 2 (the first one is never scored)"
        raise InputError(got, least, "give more text")
    chunks: list[ChunkScore] = []
    start, stopped = time.perf_counter(), 0
    with Progress("scoring", len(ids)) as progress, runtime.session() as session:
        try:
            for chunk in session.score_ids(ids, with_base=not args.no_base):
                chunks.append(chunk)
                progress(chunk.end)
        except KeyboardInterrupt:
            stopped = Interrupted.exit_code
        except BudgetError as error:
            stopped = _out_of_memory(error)
        memory = runtime.memory(session)
    seconds = time.perf_counter() - start
    result = report.score_json(
        chunks,
        seconds,
        {
            "file": args.file,
            "document_tokens": len(ids),
            "stopped": bool(stopped),
            "memory": memory,
            "model": {"reference": args.model, "load_seconds": runtime.base.load_seconds},
            "device": {"name": runtime.base.device.name, "dtype": runtime.base.device.dtype},
            "settings": settings.to_dict(),
        },
    )
    if chunks:
        print_table(report.score_table(chunks))
        print(report.summary(chunks, seconds, result["peak_bytes"]))
    if args.report and chunks:
        _write_text(args.report / "report.json", json.dumps(result, indent=1) + "\n")
        report.score_plot(chunks, args.report / "perplexity.png", Path(args.file).name)
        print(f"report: {args.report / 'report.json'}, plot: {args.report / 'perplexity.png'}")
    if args.json:
        print(json.dumps(result))
    if stopped:
        say(f"stopped after {chunks[-1].end if chunks else 0} of {len(ids)} tokens; what was done is reported above")
    return stopped


def _write(args: argparse.Namespace) -> int:
    settings = settings_of(args)
    prompt = args.prompt if args.prompt is not None else read_text(args.prompt_file).strip()
    if args.out:
        _make_folder(args.out.parent)
    runtime = _load(args, settings)
    pieces: list[str] = []
    written: list[ChunkWritten] = []
    reads: list[ChunkRead] = []
    start, stopped = time.perf_counter(), 0
    with runtime.session() as session:
        records = session.generate(prompt, max_tokens=args.tokens)
        prompt_tokens = len(session.tokens)
        progress = Progress("reading", prompt_tokens)
        try:
            for record in records:
                if isinstance(record, ChunkRead):
                    reads.append(record)
                    progress(record.end)
                elif isinstance(record, TextPiece):
                    progress(None)
                    pieces.append(record.text)
                    sys.stdout.write(record.text)
                    sys.stdout.flush()
                else:
                    written.append(record)
        except KeyboardInterrupt:
            stopped = Interrupted.exit_code
        except BudgetError as error:
            stopped = _out_of_memory(error)
        finally:
            progress(None)
        memory = runtime.memory(session)
    text = "".join(pieces)
    print()
    if args.out:
        _write_text(args.out, text)
    made = sum(w.tokens for w in written)
    decode = sum(w.decode_seconds for w in written)
    say(f"{made} tokens, {made / decode if decode else 0:.1f} tokens/s while decoding, {len(reads)} chunks read first")
    if args.json:
        result = {
            "command": "write",
            "prompt_tokens": prompt_tokens,
            "tokens": made,
            "seconds": time.perf_counter() - start,
            "peak_bytes": max(memory["measured"].values(), default=0),
            "finish": written[-1].finish if written else "stopped",
            "text": text,
            "read": [r.to_json() for r in reads],
            "chunks": [w.to_json() for w in written],
            "memory": memory,
            "settings": settings.to_dict(),
        }
        print(json.dumps(result))
    return stopped


def _quantize(args: argparse.Namespace) -> int:
    from . import checkpoint, quantize

    checkpoint.quiet_libraries()
    start = time.perf_counter()
    manifest = quantize.quantize_to_folder(args.model, args.out, offline=args.offline)
    size = sum(f.stat().st_size for f in args.out.iterdir())
    seconds = time.perf_counter() - start
    print(f"{args.out}: {format_bytes(size)} in {seconds:.0f} s")
    if args.json:
        print(json.dumps({"command": "quantize", "out": str(args.out), "bytes": size, "seconds": seconds, **manifest}))
    return 0


def _plan(args: argparse.Namespace) -> int:
    from . import planning

    settings = settings_of(args)
    source = planning.find(args.model, settings)
    chosen = planning.plan(source, settings, decodes=not args.score_only, degrade=args.allow_degrade)
    print_table(report.plan_table(chosen))
    print(report.plan_summary(chosen))
    if args.json:
        print(json.dumps({"command": "plan", "model": args.model, **chosen.to_json(), "settings": settings.to_dict()}))
    return 0


def _bench(args: argparse.Namespace) -> int:
    from . import bench

    settings = settings_of(args)
    if args.report:
        _make_folder(args.report)
    text = read_text(args.file).strip()
    limit = settings_module.parse_bytes(args.limit, "--limit") if args.limit else None
    with Progress("measuring", args.chunks, "chunks") as progress:
        result = bench.run(
            args.model,
            text,
            settings,
            [name.strip() for name in args.contenders.split(",")],
            chunks=args.chunks,
            decode=args.decode or 0,
            limit=limit,
            progress=progress,
        )
    print_table(report.bench_table(result))
    if args.report:
        _write_text(args.report / "bench.json", json.dumps(result, indent=1) + "\n")
        report.bench_plot(result, args.report / "bench.png")
    if args.json:
        print(json.dumps(result))
    return 0


def _doctor(args: argparse.Namespace) -> int:
    from . import doctor

    checks = []
    for check in doctor.examine():
        checks.append(check)
        print(f"{'ok  ' if check.ok else 'FAIL'} {check.name}: {check.result}")
        if not check.ok and check.remedy:
            print(f"     -> {check.remedy}")
    if args.json:
        print(json.dumps({"command": "doctor", "checks": [vars(c) for c in checks]}))
    needed = [c for c in checks if not c.ok and not c.name.startswith("ONNX")]
    return 6 if needed else 0


# --- helpers ---


def _load(args: argparse.Namespace, settings: Settings) -> Any:
    import edge

    out = console()
    with (
        out.status(f"loading {args.model} (the first time it is converted to 4 bits)")
        if out.is_terminal
        else nullcontext()
    ):
        decodes = args.run is _write
        runtime = edge.load(args.model, settings=settings, decodes=decodes, allow_degrade=args.allow_degrade)
    if runtime.plan.given_up:
        budget = format_bytes(runtime.plan.budget)
        say(f"to fit {budget}: " + "; ".join(runtime.plan.given_up))
    return runtime


def _out_of_memory(error: BudgetError) -> int:
    say(f"error: {error.line()}")
    return error.exit_code


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        say(f"error: {message}; see {self.prog} --help")
        raise SystemExit(2)


def _verb(verbs: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    verb: argparse.ArgumentParser = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    verb.set_defaults(run=run)
    return verb


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number above 0")
    return int(text)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"cannot make {folder}: {error.strerror}", "a writable folder", "name another one"
        ) from error


def _write_text(path: Path, text: str) -> None:
    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}", "a writable place", "name another one") from error


def _interrupt(number: int, frame: Any) -> NoReturn:
    raise Interrupted


if __name__ == "__main__":
    raise SystemExit(main())
