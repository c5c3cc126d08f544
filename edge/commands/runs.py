"""`templora runs`: what was run, how far it is, what may be removed, and what was learned."""

from __future__ import annotations

import argparse
import json

from .. import journal
from ..errors import SettingsError
from ..measure import report
from ..terminal import print_table
from ..values.amounts import format_bytes
from . import carry, options

ACTIONS = ("list", "prune", "export-adapter")


def add(verbs: options.Verbs) -> None:
    """Registers the verb."""
    runs = options.verb(verbs, "runs", run, "list the run folders, remove what is not needed, or export an adapter")
    runs.add_argument("action", nargs="?", choices=ACTIONS, default="list", help="(default: list)")
    runs.add_argument(
        "names",
        nargs="*",
        type=options.named,
        metavar="NAME",
        help="prune: only these (default: all); export-adapter: the run",
    )
    runs.add_argument(
        "--out", type=options.path, metavar="DIR", help="export-adapter: the folder to write, for peft or --carry"
    )
    runs.add_argument(
        "--root", type=options.path, metavar="DIR", help="where they lie (default: ~/.local/state/templora/runs)"
    )
    runs.add_argument("--whole", action="store_true", help="prune: the runs themselves, not only their snapshots")
    runs.add_argument("--unfinished", action="store_true", help="prune: also runs that could be resumed")
    runs.add_argument("--dry-run", action="store_true", help="prune: say what would be removed, and remove nothing")
    runs.add_argument("--json", action="store_true", help="print one JSON line last")


def run(args: argparse.Namespace) -> int:
    """Runs it; returns the exit code."""
    if (args.action == "export-adapter") != (args.out is not None):
        raise SettingsError("--out without export-adapter" if args.out else "export-adapter without --out", "both")
    root = args.root or journal.default_root()
    of_prune = [name for name in ("whole", "unfinished", "dry_run") if getattr(args, name)]
    if of_prune and args.action != "prune":
        raise SettingsError(f"--{of_prune[0].replace('_', '-')} without prune", "both", "leave it out")
    if args.action == "export-adapter":
        return _export(args)
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


def _export(args: argparse.Namespace) -> int:
    if len(args.names) != 1:
        raise SettingsError(f"export-adapter of {len(args.names)} runs", "the name of one run, or its folder")
    name = args.names[0]
    found = journal.Journal.peek(args.root / name if args.root else journal.find(name))
    carry.export(found, args.out)
    print(f"{args.out}: the adapter of {found.folder.name}")
    if args.json:
        print(json.dumps({"command": "runs export-adapter", "run": str(found.folder), "out": str(args.out)}))
    return 0
