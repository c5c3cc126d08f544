"""`templora models`: embedded models, conversions in the cache, models of the hub: what they are, whether they are on
this disk and fit this machine; fetching, checking and removing them."""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

from .. import settings as settings_module
from ..errors import BudgetError, ModelError, SettingsError
from ..memory import planning, shape
from ..memory.shape import Shape
from ..store import embedded, known, parts, sources
from ..store.parts import Embedded
from ..terminal import Progress, print_table, say
from ..values.amounts import format_bytes
from . import options


def add(verbs: options.Verbs) -> None:
    """Registers the verb."""
    models = options.verb(
        verbs, "models", run, "list models that work and fit this machine; fetch, check or remove one"
    )
    models.add_argument(
        "action", nargs="?", choices=("list", "fetch", "check", "remove"), default="list", help="(default: list)"
    )
    models.add_argument("name", nargs="?", type=options.named, metavar="NAME",
        help=f"{', '.join(embedded.ENTRIES)}; check: default all; remove: a conversion's name, too",
    )  # fmt: skip
    models.add_argument("--offline", action="store_true", help="fetch: never use the network")
    models.add_argument("--json", action="store_true", help="print one JSON line last")


def run(args: argparse.Namespace) -> int:
    """Runs it; returns the exit code."""
    if args.action == "list":
        return _list(args)
    if args.action == "check":
        return _check(args)
    other = next((cached for cached in sources.others() if cached.name == args.name), None)
    if args.action == "remove" and other is not None:
        return _remove_other(args, other)
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
    for column in ("name", "what", "size", "licence", "made of it", "needs at least", "on this disk"):
        table.add_column(column, justify="right" if column in ("size", "made of it") else "left", overflow="fold")
    entries = []
    for model in embedded.ENTRIES.values():
        path = embedded.here(model)
        begun = embedded.begun(model)
        near = "in its packages, assembled at first use" if parts.installed(model) else "no"
        where = str(path) if path else f"{format_bytes(begun)} of it" if begun else near
        source = sources.Source("gguf", embedded.path_of(model), model.name, model.sha256)
        made = sources.cached_bytes(source)
        needs, fits = _said(source, path is not None)
        total = sum(made.values())
        size = format_bytes(model.size)
        table.add_row(
            model.name, model.title, size, model.licence[0], format_bytes(total) if total else "", fits, where
        )
        licence, terms = model.licence
        facts = {"name": model.name, "title": model.title, "bytes": model.size, "licence": licence, "terms": terms}
        here = {"path": str(path) if path else None, "begun_bytes": begun, "made_bytes": made, "peak_bytes": needs}
        entries.append({**facts, "sha256": model.sha256, **here})
    print_table(table)
    print("made of it: the 4-bit conversion and ONNX graphs in the cache; needed: predicted peak, default preset")
    others = sources.others()
    if others:
        print("Conversions of other files in the cache; templora models remove NAME")
    for cached in others:
        print(f"  {cached.name}: {cached.origin}, {format_bytes(cached.size)}")
    on_hub = _hub()
    if args.json:
        also = [{"name": cached.name, "source": cached.origin, "bytes": cached.size} for cached in others]
        print(json.dumps({"command": "models", "models": entries, "conversions": also, "hub": on_hub}))
    return 0


def _hub() -> list[dict[str, Any]]:
    """Prints the models of the hub that are known here, and what each needs on this machine."""
    from rich.table import Table

    table = Table(title="Models of the hub whose families are tested", title_justify="left")
    for column in ("name", "licence", "to fetch", "needs at least", "on this disk"):
        table.add_column(column, justify="right" if column == "to fetch" else "left", overflow="fold")
    entries = []
    for model in known.ALL:
        dims = shape.from_config(model.config)
        needs = _least(dims)
        size = 2 * _weights(dims)
        here = known.snapshot(model.name)
        licence = f"{model.licence[0]}{', to be accepted first' if model.gated else ''}"
        fits = "more than is free" if needs is None else format_bytes(needs)
        table.add_row(model.name, licence, f"about {format_bytes(size)}", fits, "yes" if here else "no")
        facts = {"name": model.name, "family": dims.architecture, "licence": model.licence[0], "gated": model.gated}
        about = {"terms": model.licence[1], "bytes": size, "peak_bytes": needs, "path": str(here) if here else None}
        entries.append({**facts, **about})
    print_table(table)
    print("planned from their configs, not run here; the first use fetches them, e.g. templora score TEXT --model NAME")
    print("a licence is accepted on the model's page, https://huggingface.co/NAME; then run: hf auth login")
    return entries


def _weights(dims: Shape) -> int:
    """All numbers of a model but its norms."""
    tables = dims.vocab * dims.hidden * (1 if dims.tied else 2)
    return dims.linear_parameters + dims.expert_parameters + dims.whole + tables


def _needs(source: sources.Source) -> int | None:
    """Predicted peak of the smallest plan with the default preset; None where it does not fit this machine.

    Raises:
        ModelError: the file cannot be used.
    """
    return _least(planning.model_shape(sources.converted(source)))


def _least(dims: Shape) -> int | None:
    """The same for a model of these dimensions."""
    try:
        plan = planning.plan_shape(dims, settings_module.load(), decodes=True, degrade=False)
    except BudgetError:
        return None
    while (tighter := plan.tighter()) is not None:
        plan = tighter
    return plan.prediction.peak()


def _said(source: sources.Source, here: bool) -> tuple[int | None, str]:
    """What `_needs` gives, and how the table says it."""
    if not here:
        return None, "fetch it first"
    try:
        needs = _needs(source)
    except ModelError:
        return None, "damaged: check it"
    return needs, "more than is free" if needs is None else format_bytes(needs)


def _fetch(args: argparse.Namespace, model: Embedded) -> int:
    start = time.perf_counter()
    with Progress(model.name, model.size, "bytes") as progress:
        path = embedded.fetch(model, notice=say, report=progress)
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


def _remove_other(args: argparse.Namespace, cached: sources.Cached) -> int:
    freed = sources.remove_other(cached, say)
    print(f"removed the conversion of {cached.origin}: {format_bytes(freed)}")
    if args.json:
        print(json.dumps({"command": "models remove", "name": cached.name, "removed_bytes": {"conversion": freed}}))
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
