"""`templora models`: the embedded models: what they are, whether they are on this disk, fetching and removing them."""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

from ..errors import ModelError, SettingsError
from ..store import embedded, parts, sources
from ..store.parts import Embedded
from ..terminal import Progress, print_table, say
from ..values.amounts import format_bytes
from . import options


def add(verbs: Any) -> None:
    """Registers the verb."""
    models = options.verb(verbs, "models", run, "list the embedded models, fetch, check or remove one")
    models.add_argument(
        "action", nargs="?", choices=("list", "fetch", "check", "remove"), default="list", help="(default: list)"
    )
    models.add_argument("name", nargs="?", metavar="NAME", help=f"{', '.join(embedded.ENTRIES)}; check: default all")
    models.add_argument("--offline", action="store_true", help="fetch: never use the network")
    models.add_argument("--json", action="store_true", help="print one JSON line last")


def run(args: argparse.Namespace) -> int:
    """Runs it; returns the exit code."""
    if args.action == "list":
        return _list(args)
    if args.action == "check":
        return _check(args)
    if args.name is None:
        raise SettingsError(
            f"no model to {args.action}", ", ".join(embedded.ENTRIES), f"templora models {args.action} NAME"
        )
    return (_fetch if args.action == "fetch" else _remove)(args, embedded.entry(args.name))


def _list(args: argparse.Namespace) -> int:
    if args.name is not None:
        raise SettingsError("a name for a list", "a name for fetch, check and remove only", "leave it out")
    from rich.table import Table

    table = Table(title="Embedded models", title_justify="left")
    for column in ("name", "what", "size", "licence", "on this disk"):
        table.add_column(column, justify="right" if column == "size" else "left", overflow="fold")
    entries = []
    for model in embedded.ENTRIES.values():
        path = embedded.here(model)
        begun = embedded.begun(model)
        near = "in its packages, assembled at first use" if parts.installed(model) else "no"
        where = str(path) if path else f"{format_bytes(begun)} of it" if begun else near
        table.add_row(model.name, model.title, format_bytes(model.size), model.licence[0], where)
        licence, terms = model.licence
        facts = {"name": model.name, "title": model.title, "bytes": model.size, "licence": licence, "terms": terms}
        entries.append({**facts, "sha256": model.sha256, "path": str(path) if path else None, "begun_bytes": begun})
    print_table(table)
    if args.json:
        print(json.dumps({"command": "models", "models": entries}))
    return 0


def _fetch(args: argparse.Namespace, model: Embedded) -> int:
    start = time.perf_counter()
    with Progress(model.name, model.size, "bytes") as progress:
        path = embedded.fetch(model, offline=args.offline, notice=say, report=progress)
        progress(None)
    seconds = time.perf_counter() - start
    print(f"{path}: {format_bytes(model.size)} in {seconds:.0f} s")
    if args.json:
        made = {"name": model.name, "path": str(path), "bytes": model.size, "sha256": model.sha256}
        print(json.dumps({"command": "models fetch", **made, "seconds": seconds}))
    return 0


def _check(args: argparse.Namespace) -> int:
    """Reads every byte again; a file that is not what it should be is named in the error."""
    asked = [embedded.entry(args.name)] if args.name else list(embedded.ENTRIES.values())
    entries = []
    for model in asked:
        digest = embedded.check(model)
        if digest is None and args.name:
            raise ModelError(
                f"{model.name} is not on this disk", "a file to check", f"templora models fetch {model.name}"
            )
        if digest is None:
            continue
        path = embedded.path_of(model)
        good = digest == model.sha256
        print(f"{model.name}: {'whole' if good else 'damaged'}, sha256 {digest} ({path})")
        entries.append({"name": model.name, "path": str(path), "sha256": digest, "whole": good})
    if not entries:
        print("no embedded model is on this disk")
    if args.json:
        print(json.dumps({"command": "models check", "models": entries}))
    damaged = [entry["name"] for entry in entries if not entry["whole"]]
    if damaged:
        raise ModelError(
            f"{', '.join(map(str, damaged))} on this disk is damaged", "the sha256 of its release",
            f"templora models remove {damaged[0]}, then fetch it again",
        )  # fmt: skip
    return 0


def _remove(args: argparse.Namespace, model: Embedded) -> int:
    source = sources.Source("gguf", embedded.path_of(model), model.name, model.sha256)
    freed = {
        "file": embedded.remove(model, say),
        "conversion": sources.remove_conversion(source, say),
        "ONNX exports": sources.remove_exports(source, say),
    }
    for what, amount in freed.items():
        if amount:
            print(f"removed the {what} of {model.name}: {format_bytes(amount)}")
    if not any(freed.values()):
        print("nothing to remove")
    if args.json:
        print(json.dumps({"command": "models remove", "name": model.name, "removed_bytes": freed}))
    return 0
