"""`templora quantize`: make a 4-bit folder."""

from __future__ import annotations

import argparse
import json
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from .. import journal
from ..errors import SettingsError
from ..machine import device, versions
from ..store import sources
from ..terminal import Converting, say
from ..values.amounts import format_bytes, parse_bytes
from . import options

if TYPE_CHECKING:
    from ..weights.quantize import Finish


def add(verbs: options.Verbs) -> None:
    """Registers the verb."""
    quantize = options.verb(verbs, "quantize", run, "make a 4-bit folder that loads without the full weights")
    quantize.add_argument(
        "model", type=options.named, metavar="MODEL", help="an embedded model, a hub id, a model folder or a .gguf file"
    )
    quantize.add_argument(
        "out", type=options.path, metavar="OUT", nargs="?",
        help="the folder to make; without it, for an embedded model or a .gguf file: the conversion that --model uses",
    )  # fmt: skip
    quantize.add_argument(
        "--repair",
        action="store_true",
        help="add a starting adapter against quantisation's error; full weights are read block by block",
    )
    quantize.add_argument("--repair-rank", type=int, metavar="N", help="its rank")
    quantize.add_argument("--repair-texts", type=int, metavar="N", help="calibration texts that it is made from")
    quantize.add_argument(
        "--repair-epochs", type=int, metavar="N", help="passes of distillation; 0: the fit of each layer alone"
    )
    quantize.add_argument("--memory-budget", metavar="SIZE", help="keep under this much memory, e.g. 2GiB")
    quantize.add_argument("--offline", action="store_true", help="never use the network")
    quantize.add_argument("--json", action="store_true", help="print one JSON line last")


def run(args: argparse.Namespace) -> int:
    """Runs it; returns the exit code."""
    versions.require()
    from ..weights import checkpoint, quantize

    checkpoint.quiet_libraries()
    start = time.perf_counter()
    out = args.out
    replace = False
    of_repairs = [name for name in ("rank", "texts", "epochs") if getattr(args, f"repair_{name}", None) is not None]
    if of_repairs and not args.repair:
        raise SettingsError(f"--repair-{of_repairs[0]} without --repair", "both", "add --repair")
    source = sources.resolve(args.model)
    if out is None:
        if source.kind != "gguf":
            raise SettingsError("no OUT", "a folder to make", f"templora quantize {args.model} FOLDER")
        out = sources.conversion_folder(source)
        replace = True
    budget = None if args.memory_budget is None else parse_bytes(args.memory_budget)
    finish = _repair(args, source, budget) if args.repair else None
    place = device.choose("auto").name
    with journal.making(out) if replace else nullcontext(), Converting(args.model) as report:
        manifest = quantize.quantize_to_folder(
            args.model, out, finish=finish, replace=replace, source=source, device=place,
            budget=budget, report=report, notice=say,
        )  # fmt: skip
    size = sum(f.stat().st_size for f in out.iterdir())
    seconds = time.perf_counter() - start
    print(f"{out}: {format_bytes(size)} in {seconds:.0f} s")
    if args.repair:
        apart = manifest["repair"]["nats_from_full"]
        steps = ", ".join(f"{value:.3f} {name}" for name, value in apart.items())
        print(f"nats a token from the full model, on held-out text: {steps}")
        cost = _repair_cost(out / manifest["repair"]["file"])
        print(
            f"the repair takes {format_bytes(cost['disk_bytes'])} on disk, {cost['load_seconds']:.2f} s to read, and "
            f"{format_bytes(cost['adapter_bytes'])} of the adapter that a session has anyway"
        )
        manifest = {**manifest, "repair_cost": cost}
    if args.json:
        print(json.dumps({"command": "quantize", "out": str(out), "bytes": size, "seconds": seconds, **manifest}))
    return 0


def _repair_cost(path: Path) -> dict[str, float]:
    """What a session pays for beginning with a repair: bytes on disk and as float32 A and B, seconds to read them."""
    from ..weights.tensorfile import TensorFile

    start = time.perf_counter()
    numbers = sum(tensor.numel() for tensor in TensorFile(path).values())
    return {
        "disk_bytes": path.stat().st_size,
        "adapter_bytes": 4 * numbers,
        "load_seconds": time.perf_counter() - start,
    }


def _repair(args: argparse.Namespace, source: sources.Source, budget: int | None) -> Finish:
    """What makes the repair, when what it needs is known to fit.

    Raises:
        BudgetError: it does not.
    """
    from ..learning import repair
    from ..memory import repairing

    named = {"rank": args.repair_rank, "texts": args.repair_texts, "epochs": args.repair_epochs}
    chosen = repair.RepairSettings(**{name: value for name, value in named.items() if value is not None})
    way, predicted = repairing.fit(source, repair.needs(chosen), budget)
    if predicted is not None:
        kept = "kept" if way.cached else "made at each use"
        say(
            f"the repair needs about {format_bytes(predicted.peak())} (phase: {predicted.highest}; dequantised copies "
            f"{kept}; texts by the {'full' if way.full else '4-bit'} model, {way.rows} side by side)"
        )
    return lambda folder, source: repair.make(folder, source, chosen, say, budget)
