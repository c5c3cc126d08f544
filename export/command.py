"""`templora export`: a model as an ONNX graph that takes the adapter as inputs.

Owns: the verb's arguments and what it prints. Does not know: how a graph is made.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from typing import TYPE_CHECKING

from edge import settings as settings_module
from edge.commands import options
from edge.errors import ExportError
from edge.machine.allocator import tune_allocator
from edge.settings import OnnxSettings, Settings
from edge.store.folders import without_network
from edge.terminal import working
from edge.values.amounts import format_bytes

if TYPE_CHECKING:
    from edge.model.base import Base


def add(verbs: options.Verbs) -> None:
    """Registers the verb."""
    arguments(options.verb(verbs, "export", run, "make an ONNX graph that takes the adapter as inputs, and check it"))


def arguments(verb: argparse.ArgumentParser) -> None:
    """The arguments, here and in Optimum's command line."""
    verb.add_argument(
        "model",
        type=options.named,
        metavar="MODEL",
        help="demo, a hub id, a model folder, a 4-bit folder or a .gguf file",
    )
    verb.add_argument("out", type=options.path, metavar="OUT", help="the folder to make")
    verb.add_argument("--precision", choices=OnnxSettings.PRECISIONS, default="nf4", help="(default: %(default)s)")
    verb.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="what it will run on (default: cpu)")
    verb.add_argument("--offline", action="store_true", help="never use the network")
    verb.add_argument("--json", action="store_true", help="print one JSON line last")


def run(args: argparse.Namespace) -> int:
    """Runs it; returns the exit code."""
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise ExportError(
            f"'{error.name}' is not installed", "onnx and onnxruntime", "pip install templora[onnx]"
        ) from error
    assert onnx and onnxruntime
    from . import exporter

    tune_allocator()
    start = time.perf_counter()
    with working(f"exporting {args.model}"), without_network(args.offline):
        made = exporter.export_from(partial(_load, args.model), args.out, args.precision, args.device)
    seconds = time.perf_counter() - start
    size = sum(path.stat().st_size for path in args.out.iterdir())
    gap = max(made.parity["adapter"], made.parity["base"])
    nats = f", {made.parity['nats']:+.4f} nats a token of a text" if "nats" in made.parity else ""
    print(f"{args.out}: {format_bytes(size)} in {seconds:.0f} s; logits within {gap:.1e} of their spread{nats}")
    if args.json:
        values = {"out": str(args.out), "bytes": size, "seconds": seconds, "precision": made.precision}
        print(json.dumps({"command": "export", **values, "parity": made.parity, "versions": made.versions}))
    return 0


def _load(model: str) -> Base:
    """The base on the CPU, where every graph is written and checked."""
    from edge.memory import planning
    from edge.model import base as bases

    settings: Settings = settings_module.load("economical", ["learn.mode=none", "compute.device=cpu"])
    source = planning.find(model, settings)
    return bases.load(source, planning.plan(source, settings, decodes=False, degrade=False).settings)
