"""The whole command: its verbs, its errors, its exit codes.

Owns: the list of verbs, which error ends with which exit code.
Does not know: what a verb does.

Exit codes are those of `edge.errors`; an unexpected failure is 70.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import NoReturn

from .. import __version__
from ..errors import Interrupted, TemploraError, describe
from ..machine import allocator
from ..store.folders import without_network
from ..terminal import say, streams
from ..tokenstream import is_panic, own_process
from . import options, overwrite, writable

VERBS = {  # each with its module
    "score": "score", "write": "write", "translate": "translate", "render": "render", "glossary": "glossary",
    "eval": "evaluate", "runs": "runs", "models": "models", "quantize": "quantize", "plan": "plan", "bench": "bench",
    "doctor": "doctor",
}  # fmt: skip
INTERNAL = 70


def run(argv: Sequence[str] | None) -> int:
    """Runs the command; returns its exit code."""
    os.environ.setdefault("TQDM_DISABLE", "1")  # read once, when torch imports it: the libraries' own bars stay away
    if argv is None:
        allocator.own_process()
        own_process()
    with streams():
        return _run(argv)


def _run(argv: Sequence[str] | None) -> int:
    try:
        words = list(sys.argv[1:] if argv is None else argv)
        args = parser(words[0] if words else "").parse_args(words)
        overwrite.check(args)
        writable.check(args)
        alone = without_network(getattr(args, "offline", False))
        with options.as_private_as(overwrite.texts(args)), alone:
            return int(args.run(args))
    except TemploraError as error:
        say(f"error: {error.line()}")
        return error.exit_code
    except KeyboardInterrupt:
        say("stopped")
        return Interrupted.exit_code
    except BaseException as error:
        if not (isinstance(error, Exception) or is_panic(error)):
            raise
        if os.environ.get("TEMPLORA_DEBUG"):
            raise
        say(f"error: internal failure ({describe(error)}); set TEMPLORA_DEBUG=1 for the traceback")
        return INTERNAL


def parser(verb: str = "") -> argparse.ArgumentParser:
    """The whole command line; of one verb only, where it begins with one: the others' rooms are not imported."""
    top = _Parser(
        prog="templora",
        description="Read, score and write texts far longer than the model's window: a 4-bit base and a temporary "
        "LoRA that learns the text as it passes.",
        epilog="exit codes: 0 done, 2 settings or usage, 3 input, 4 model, 5 memory budget, 6 device, 7 run folder, "
        "8 disk, 9 done with failures marked, 10 ONNX graph, 70 internal, 130 stopped",
    )
    top.add_argument("--version", action="version", version=f"templora {__version__}")
    verbs = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in (verb,) if verb in VERBS else VERBS:
        importlib.import_module(f".{VERBS[name]}", __package__).add(verbs)
    for entry in () if verb in VERBS else metadata.entry_points(group="templora.commands"):
        entry.load().add(verbs)
    return top


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        say(f"error: {message}; see {self.prog} --help")
        raise SystemExit(2)
