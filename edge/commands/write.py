"""`templora write`: continue a text of any length."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from ..documents.text import Text, open_text
from ..records import ChunkRead, ChunkWritten, Record, TextPiece
from ..terminal import Progress, Stop, say
from . import options
from .driver import drive


def add(verbs: Any) -> None:
    """Registers the verb."""
    write = options.verb(verbs, "write", run, "continue a text of any length")
    prompt = write.add_mutually_exclusive_group(required=True)
    prompt.add_argument("--prompt", metavar="TEXT", help="the text to continue")
    prompt.add_argument("--prompt-file", metavar="FILE", help="a UTF-8 file to continue, or - for standard input")
    write.add_argument(
        "--tokens", type=options.positive, default=256, metavar="N", help="how many tokens (default: %(default)s)"
    )
    write.add_argument("--out", type=Path, metavar="FILE", help="also write the new text to FILE")
    options.resumable(write)
    options.forward(write)
    options.common(write)


def run(args: argparse.Namespace) -> int:
    """Runs it; returns the exit code."""
    settings = options.settings_of(args)
    prompt = Text.of(args.prompt) if args.prompt is not None else open_text(args.prompt_file, strip=True)
    if args.out:
        options.make_folder(args.out.parent)
    name = Path(args.prompt_file).stem if args.prompt_file else "prompt"
    what: dict[str, str | Text] = {"prompt": prompt, "options": f"tokens={args.tokens}"}
    where = options.place(args, name, settings, prompt.sha256, what)
    runtime = options.load(args, options.as_begun(args, where, settings), decodes=True)
    ids = runtime.base.stream(prompt.parts())
    pieces: list[str] = []
    done: list[Record] = []
    start = time.perf_counter()
    stopped = 0
    with (
        options.run(args, where, "write", runtime, what, None) as run,
        runtime.session() as session,
        Stop() as stop,
    ):
        ended = bool(run.kept and getattr(run.kept[-1], "finish", ""))
        done += run.kept if ended else run.restore(session)
        written = sum(r.tokens for r in done if isinstance(r, ChunkWritten))
        if ended:  # nothing is left to do but to write it out
            session.coming = ids
            session.fill(sys.maxsize)
            session.tokens.extend(token for r in done if isinstance(r, ChunkWritten) for token in r.token_ids)
        else:
            ids.skip(len(session.tokens) - written)
        ids.look(options.AHEAD)
        records = session.generate(
            ids,
            max_tokens=written if ended else args.tokens,
            written=written,
            reading=bool(done) and not written,
        )
        progress = Progress("reading", len(session.tokens) - written + ids.waiting if ids.ended else None)

        def shown(record: Record) -> None:
            if isinstance(record, TextPiece):
                progress(None)
                pieces.append(record.text)
                sys.stdout.write(record.text)
                sys.stdout.flush()
                return
            done.append(record)
            if isinstance(record, ChunkRead):
                progress(record.end)

        try:
            stopped = drive(records, run, session, stop, shown, more=lambda record: not getattr(record, "finish", ""))
        finally:
            progress(None)
        memory = runtime.memory(session)
        text = "".join(pieces)
        if args.out:
            options.write_text(args.out, text)
        if not stopped:
            run.finish(session, {"tokens": sum(r.tokens for r in done if isinstance(r, ChunkWritten))})
    chunks = [r for r in done if isinstance(r, ChunkWritten)]
    reads = [r for r in done if isinstance(r, ChunkRead)]
    print()
    made = sum(w.tokens for w in chunks)
    decode = sum(w.decode_seconds for w in chunks)
    say(f"{made} tokens, {made / decode if decode else 0:.1f} tokens/s while decoding, {len(reads)} chunks read first")
    if stopped:
        options.say_how_to_go_on(run)
    if args.json:
        result = {
            "command": "write",
            "prompt_tokens": len(session.tokens) - made,
            "tokens": made,
            "seconds": time.perf_counter() - start,
            "peak_bytes": max(memory["measured"].values(), default=0),
            "finish": "stopped" if stopped or not chunks else chunks[-1].finish,
            "text": text,
            "read": [r.to_json() for r in reads],
            "chunks": [w.to_json() for w in chunks],
            "memory": memory,
            "settings": settings.to_dict(),
        }
        print(json.dumps(result))
    return stopped
