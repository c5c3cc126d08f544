"""`templora bench`: measure contenders side by side."""

from __future__ import annotations

import argparse
import json
from itertools import islice

from ..documents.text import open_text
from ..measure import report
from ..terminal import Progress, print_table
from ..values import amounts
from . import options

LONGEST = 8  # parts of a text that are read: more than any bench measures


def add(verbs: options.Verbs) -> None:
    """Registers the verb."""
    bench = options.verb(
        verbs, "bench", run, "measure side by side: the paper's loop, the default, swift, the base alone"
    )
    bench.add_argument("file", type=options.named, metavar="FILE", help="a UTF-8 text file, or - for standard input")
    bench.add_argument(
        "--chunks", type=options.positive, default=5, metavar="N", help="chunks each (default: %(default)s)"
    )
    bench.add_argument(
        "--contenders",
        default="paper,plain,exact,default,swift,base",
        metavar="NAMES",
        help="some of paper, plain, exact, default, base and presets; the first is what the others are compared with "
        "(default: %(default)s)",
    )
    bench.add_argument("--decode", type=options.positive, metavar="N", help="also decode N tokens each")
    bench.add_argument("--limit", metavar="SIZE", help="end a contender whose memory grows beyond SIZE")
    bench.add_argument("--report", type=options.path, metavar="DIR", help="write bench.json and bench.png to DIR")
    options.common(bench)


def run(args: argparse.Namespace) -> int:
    """Runs it; returns the exit code."""
    from ..measure import bench

    settings = options.settings_of(args)
    if args.report:
        options.make_folder(args.report)
    text = "".join(islice(open_text(args.file).parts(), LONGEST))
    limit = amounts.parse_bytes(args.limit, "--limit") if args.limit else None
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
        options.write_text(args.report / "bench.json", json.dumps(result, indent=1) + "\n")
        options.write_bytes(args.report / "bench.png", report.bench_plot(result))
    if args.json:
        print(json.dumps(result))
    return 0
