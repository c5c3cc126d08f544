"""`templora runs`: what was run, how far it is, and what may be removed."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from .. import journal
from ..errors import SettingsError
from ..measure import report
from ..terminal import print_table
from ..values.amounts import format_bytes
from . import options


def add(verbs: Any) -> None:
    """Registers the verb."""
    runs = options.verb(verbs, "runs", run, "list the run folders, or remove what is not needed any more")
    runs.add_argument("action", nargs="?", choices=("list", "prune"), default="list", help="(default: list)")
    runs.add_argument("names", nargs="*", metavar="NAME", help="prune: only these runs (default: all)")
    runs.add_argument("--root", type=Path, metavar="DIR", help="where they lie (default: ~/.local/state/templora/runs)")
    runs.add_argument("--whole", action="store_true", help="prune: the runs themselves, not only their snapshots")
    runs.add_argument("--unfinished", action="store_true", help="prune: also runs that could be resumed")
    runs.add_argument("--dry-run", action="store_true", help="prune: say what would be removed, and remove nothing")
    runs.add_argument("--json", action="store_true", help="print one JSON line last")


def run(args: argparse.Namespace) -> int:
    """Runs it; returns the exit code."""
    root = args.root or journal.default_root()
    if args.action == "list":
        if args.names:
            raise SettingsError("names for a list", "names for 'prune' only", "leave them out")
        found = journal.list_runs(root)
        if found:
            print_table(report.runs_table(found))
        else:
            print(f"no runs in {root}")
        if args.json:
            print(json.dumps({"command": "runs", "root": str(root), "runs": [report.run_json(r) for r in found]}))
        return 0
    pruned = journal.prune(
        root, names=args.names or None, whole=args.whole, unfinished=args.unfinished, dry_run=args.dry_run
    )
    for entry in pruned:
        what = f"{entry.what} of {entry.folder.name}" if entry.what == "snapshots" else entry.folder.name
        print(f"{'would remove' if args.dry_run else 'removed'} {what}: {format_bytes(entry.bytes)}")
    if not pruned:
        print("nothing to remove")
    if args.json:
        entries = [{"run": entry.folder.name, "what": entry.what, "bytes": entry.bytes} for entry in pruned]
        print(json.dumps({"command": "runs prune", "dry_run": args.dry_run, "removed": entries}))
    return 0
