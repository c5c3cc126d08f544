"""What making a repair needs, and the fastest way to make it that a budget holds.

Owns: the phases `sample`, `walk` and `distil`, their terms, the choice between ways, the refusal.
Does not know: torch, how a repair is made (`learning/repair.py`).
Units: bytes; tokens. Counted from above: moments that follow each other are added where they are small.
"""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass

from .. import settings as settings_module
from ..errors import BudgetError, ModelError
from ..settings import Settings
from ..store.sources import Source
from ..values.amounts import format_bytes
from . import conversion, planning, prediction, shape
from .prediction import Machine, Prediction
from .shape import Shape
from .sizes import slice_rows

AT_ONCE = (64, 16, 4, 1)  # texts that are written side by side
_FIT = 3  # numbers of the largest second moment while a layer is fitted: itself, its root, the solver's copy
_HEAP = 80_000_000  # freed between tokens and not given back: without it a measured peak lay 24 MB above the count
_LOGITS = 5  # arrays of logits at a time: theirs, ours, chances, two for a soft cap


@dataclass(frozen=True)
class Needs:
    """What is to be made: products of rank `rank`, from `texts` texts in all of `tokens` tokens."""

    rank: int
    texts: int
    tokens: int


@dataclass(frozen=True)
class Way:
    """How it is made.

    `cached`: dequantised copies of all weights and the head are kept. `rows`: texts that are written side by side.
    `full`: the full model writes them, all its weights in memory; else the 4-bit one does.
    """

    cached: bool
    rows: int
    full: bool = False


def fit(source: Source, needs: Needs, budget: int | None, *, together: bool = False) -> tuple[Way, Prediction | None]:
    """The best way that fits, the full model's text before speed, and what it takes.

    None where a config is not known here, which is tried unplanned.

    Args:
        budget: bytes that the process may hold; None: what is free, half of it for what makes it fast.
        together: the full weights of all blocks have to be in memory at once, in the compute dtype.

    Raises:
        BudgetError: no way fits.
    """
    chosen = settings_module.load("economical")
    try:
        dims = dataclasses.replace(shape.read(source), packed=True)
    except ModelError:
        return Way(False, AT_ONCE[-1]), None
    machine = planning.estimate(chosen, dims)
    terms = conversion.predict(source).phases["convert"]
    reading = sum(terms.get(name, 0) for name in ("rows of a tensor", "largest tensors"))
    if machine.kind != "cpu":
        return Way(False, AT_ONCE[0]), None
    has = budget if budget is not None else planning.free_for_all("cpu")
    fast = has if budget is not None else int(planning.FAST_SHARE * has)
    for full, cached, rows in itertools.product((True, False), (True, False), AT_ONCE):
        way = Way(cached, rows, full)
        found = predict(dims, machine, needs, way, reading=reading, together=together)
        if found.peak() <= (fast if way.cached else has):
            return way, found
    phase = found.highest
    term, size = found.largest_term()
    raise BudgetError(
        f"repairing {source.reference} needs {format_bytes(found.peak())} (phase: {phase}, largest term: {term}, "
        f"{format_bytes(size)})",
        f"no more than the {format_bytes(has)} {'budget' if budget is not None else 'free'}",
        "a larger budget, a smaller --repair-rank, fewer --repair-texts, or no --repair",
    )


def predict(
    dims: Shape, machine: Machine, needs: Needs, way: Way, *, reading: int = conversion.ROWS, together: bool = False
) -> Prediction:
    """Peak bytes of each phase, for a model with these dimensions; `reading`: of one tensor takes that much."""
    plain = prediction.predict(_settings(needs, way, learns=False), dims, machine).phases["score"]
    learns = prediction.predict(_settings(needs, way, learns=True), dims, machine)
    c = machine.compute
    states = {"texts' hidden states": needs.texts * needs.tokens * dims.hidden * dims.copies * c}
    fitted = 4 * prediction.adapter_parameters(_settings(needs, way, learns=True), dims)[0]
    rows = min(way.rows, needs.texts)
    logits = {"logits": 4 * _LOGITS * min(slice_rows(dims.vocab), needs.tokens) * dims.vocab}
    head = {"widened head": dims.vocab * dims.hidden * c} if way.cached else {}
    cache = rows * needs.tokens * 2 * dims.keys * dims.layers * c
    written = {
        "keys and values": 2 * cache,  # grown by copying
        "logits": 4 * rows * dims.vocab + 24 * dims.vocab,
        "heap between tokens": _HEAP,
    }
    if way.full or together:
        wide = c if way.cached or together else dims.stored
        written["full weights"] = wide * dims.linear_parameters + max(wide, dims.stored) * dims.expert_parameters
    quiet = {name: size for name, size in plain.items() if not (way.full and name == "dequantised copies")}
    phases = {
        "sample": quiet | written | head,
        "walk": plain
        | states
        | _block(dims, needs, c if together else 0)
        | {"reading": reading, "fitted products": fitted},
        "distil": learns.phases["learn"] | states | {"fitted products": fitted} | logits,
    }
    return Prediction(machine.baseline, phases)


def _block(dims: Shape, needs: Needs, together: int) -> dict[str, int]:
    """A block's full weights and its layers' second moments; of all blocks, in so many bytes a number, where they are
    needed together.
    """
    blocks = dims.layers if together else 1
    linears = dims.linears().values()
    mix = dims.mixture
    experts = 0 if mix is None else 3 * mix.experts * mix.size * dims.hidden
    wide = max(inputs * outputs for inputs, outputs in linears)
    most = max(inputs for inputs, _ in linears)
    sketch = (needs.rank + 16) * 4 * max(inputs + outputs for inputs, outputs in linears)
    return {
        "full weights": blocks * (together or dims.stored) * (sum(i * o for i, o in linears) + experts),
        "second moments": 4 * blocks * sum(inputs * inputs for inputs, _ in linears) + 4 * (_FIT - 1) * most * most,
        "a layer's error": 4 * 3 * wide + 4 * sketch,
    }


def _settings(needs: Needs, way: Way, *, learns: bool) -> Settings:
    """A session that does what a repair does: one window of a text, an adapter on all layers."""
    return settings_module.load(
        "economical",
        [
            f"window.size={needs.tokens}", f"window.chunk={max(1, needs.tokens // 2)}", f"adapter.rank={needs.rank}",
            "adapter.start=fresh", f"learn.mode={'all' if learns else 'none'}", "learn.prefix=full", "learn.guard=off",
            f"compute.weights={'cached' if way.cached else 'packed'}", "compute.checkpointing=on", "compute.paging=off",
            "compute.heap=return", "compute.loss_slice=16", "forward=torch",
        ],
    )  # fmt: skip
