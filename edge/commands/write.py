"""`templora write`: continue a text of any length."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from ..documents.text import read_text
from ..errors import BudgetError, Interrupted
from ..records import ChunkRead, ChunkWritten, TextPiece
from ..terminal import Progress, say
from . import options


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
    options.common(write)


def run(args: argparse.Namespace) -> int:
    """Runs it; returns the exit code."""
    settings = options.settings_of(args)
    prompt = args.prompt if args.prompt is not None else read_text(args.prompt_file).strip()
    if args.out:
        options.make_folder(args.out.parent)
    runtime = options.load(args, settings, decodes=True)
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
            stopped = options.out_of_memory(error)
        finally:
            progress(None)
        memory = runtime.memory(session)
    text = "".join(pieces)
    print()
    if args.out:
        options.write_text(args.out, text)
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
