"""`templora quantize`: make a 4-bit folder."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from ..settings import format_bytes
from . import options


def add(verbs: Any) -> None:
    """Registers the verb."""
    quantize = options.verb(verbs, "quantize", run, "make a 4-bit folder that loads without the full weights")
    quantize.add_argument("model", metavar="MODEL", help="demo, a hub id, a model folder or a .gguf file")
    quantize.add_argument("out", type=Path, metavar="OUT", help="the folder to make")
    quantize.add_argument("--offline", action="store_true", help="never use the network")
    quantize.add_argument("--json", action="store_true", help="print one JSON line last")


def run(args: argparse.Namespace) -> int:
    """Runs it; returns the exit code."""
    from .. import checkpoint, quantize

    checkpoint.quiet_libraries()
    start = time.perf_counter()
    manifest = quantize.quantize_to_folder(args.model, args.out, offline=args.offline)
    size = sum(f.stat().st_size for f in args.out.iterdir())
    seconds = time.perf_counter() - start
    print(f"{args.out}: {format_bytes(size)} in {seconds:.0f} s")
    if args.json:
        print(json.dumps({"command": "quantize", "out": str(args.out), "bytes": size, "seconds": seconds, **manifest}))
    return 0
