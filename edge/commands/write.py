"""`templora write`: continue a text of any length."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..documents.text import Text, open_text
from ..records import ChunkRead, ChunkWritten, Record, TextPiece
from ..terminal import Progress, Stop, say
from . import carry, options
from .driver import drive

if TYPE_CHECKING:
    from ..session import Session
    from ..tokenstream import TokenStream


def add(verbs: options.Verbs) -> None:
    """Registers the verb."""
    write = options.verb(verbs, "write", run, "continue a text of any length")
    prompt = write.add_mutually_exclusive_group(required=True)
    prompt.add_argument("--prompt", metavar="TEXT", help="the text to continue")
    prompt.add_argument(
        "--prompt-file", type=options.named, metavar="FILE", help="a UTF-8 file to continue, or - for standard input"
    )
    write.add_argument(
        "--tokens", type=options.positive, default=256, metavar="N", help="how many tokens (default: %(default)s)"
    )
    write.add_argument("--out", type=options.path, metavar="FILE", help="also write the new text to FILE")
    carry.add(write)
    options.resumable(write)
    options.forward(write)
    options.common(write)


def run(args: argparse.Namespace) -> int:
    """Runs it; returns the exit code."""
    settings = options.settings_of(args)
    carried = carry.asked(args, settings)
    prompt = Text.of(args.prompt) if args.prompt is not None else open_text(args.prompt_file, strip=True)
    if args.out:
        options.make_folder(args.out.parent)
    name = Path(args.prompt_file).stem if args.prompt_file else "prompt"
    what: dict[str, str | Text] = {"prompt": prompt, "options": f"tokens={args.tokens}"}
    if carried:
        what["carried"] = carried.text()
    where = options.place(args, name, settings, carry.key(prompt.sha256, carried), what)
    carry.check_kept(args, where)
    runtime = options.load(args, options.as_begun(args, where, settings), decodes=True, writes=True)
    shown = Shown()
    start = time.perf_counter()
    with (
        options.run(args, where, "write", runtime, what, None) as run,
        runtime.session() as session,
        Stop() as stop,
    ):
        if carried:
            carried.begin(session, runtime)
        there = bool(run.kept) and not _is_open(run.kept[-1]) and run.knows(session)
        whole = carry.is_kept(args, run) and there
        memory: dict[str, Any] = {}

        def outputs(stopped: int) -> dict[str, int]:
            memory.update(runtime.memory(session))
            if args.keep_adapter and not stopped and not whole:
                run.keep_adapter(session)
            if args.out:
                options.write_text(args.out, shown.text)
            return {"tokens": sum(chunk.tokens for chunk in shown.chunks)}

        begin = partial(_coming, session, runtime.base.stream(prompt.parts()), args.tokens, shown, whole)
        try:
            stopped = drive(run, session, stop, begin, shown, outputs, whole=whole, more=_is_open)
        finally:
            shown.progress(None)
    made = sum(chunk.tokens for chunk in shown.chunks)
    decode = sum(chunk.decode_seconds for chunk in shown.chunks)
    print()
    rate = made / decode if decode else 0
    say(f"{made} tokens, {rate:.1f} tokens/s while decoding, {len(shown.reads)} chunks read first")
    if stopped:
        options.say_how_to_go_on(run)
    if args.json:
        result = {
            "command": "write",
            "prompt_tokens": len(session.tokens) - made,
            "tokens": made,
            "seconds": time.perf_counter() - start,
            "peak_bytes": max(memory["measured"].values(), default=0),
            "carried": carried and carried.to_json(),
            "finish": "stopped" if stopped or not shown.chunks else shown.chunks[-1].finish,
            "text": shown.text,
            "read": [chunk.to_json() for chunk in shown.reads],
            "chunks": [chunk.to_json() for chunk in shown.chunks],
            "memory": memory,
            "settings": settings.to_dict(),
        }
        print(json.dumps(result))
    return stopped


class Shown:
    """What the loop has yielded, as it is shown: text on standard output, how far reading is on standard error.

    Attributes:
        chunks: of written text; reads: of read text.
    """

    def __init__(self) -> None:
        self.chunks: list[ChunkWritten] = []
        self.reads: list[ChunkRead] = []
        self.progress = Progress("reading", None)
        self._pieces: list[str] = []

    @property
    def text(self) -> str:
        """All that was written."""
        return "".join(self._pieces)

    def keep(self, record: Record) -> None:
        """One of an earlier loop's, which was shown by it."""
        if isinstance(record, ChunkWritten):
            self.chunks.append(record)
        elif isinstance(record, ChunkRead):
            self.reads.append(record)

    def __call__(self, record: Record) -> None:
        if isinstance(record, TextPiece):
            self.progress(None)
            self._pieces.append(record.text)
            sys.stdout.write(record.text)
            sys.stdout.flush()
            return
        self.keep(record)
        if isinstance(record, ChunkRead):
            self.progress(record.end)


def _is_open(record: Record) -> bool:
    """Whether a text goes on after a record."""
    return not getattr(record, "finish", "")


def _coming(
    session: Session, prompt: TokenStream, tokens: int, shown: Shown, whole: bool, done: list[Record]
) -> Iterator[Record]:
    """What comes after the records that are `done`, of `tokens` tokens after `prompt`; of an ended text all of it, to
    be shown again.

    `whole`: the text has ended, and its adapter is known. Where that is not known any more, the session goes on from
    its last snapshot, and learns again what came after.
    """
    ended = bool(done) and not _is_open(done[-1])
    for record in done:
        shown.keep(record)
    written = sum(chunk.tokens for chunk in shown.chunks)
    if whole:  # nothing is left to do but to write it out
        session.coming = prompt
        session.fill(sys.maxsize)
        session.tokens.extend(token for chunk in shown.chunks for token in chunk.token_ids)
    else:
        prompt.skip(len(session.tokens) - written)
    prompt.look(options.AHEAD)
    total = len(session.tokens) - written + prompt.waiting if prompt.ended else None
    shown.progress = Progress("reading", total)
    reading = bool(done) and not written
    return session.generate(prompt, max_tokens=written if ended else tokens, written=written, reading=reading)
