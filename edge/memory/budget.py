"""Fits settings to a memory budget, or refuses.

Owns: the plan, the order in which things are given up, the refusal.
Does not know: torch; the formulas (`prediction.py`); how a choice is carried out.
Units: bytes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ..errors import BudgetError, ModelError
from ..settings import Settings
from ..values.amounts import format_bytes
from . import mixture
from .lasting import kept_blocks
from .pace import Pace, estimate
from .prediction import Machine, Prediction, predict
from .shape import Shape

SLICE_BYTES = 128 << 20  # of logits held at a time; twice that where memory is not short
PASSING_SLICE = 512  # positions, where logits exist for a block of the vocabulary only
SMALLEST_SLICE = 16  # positions
TYPICAL_CORES = 4  # that steps are ordered for, so that two machines with as much memory go the same way
SLICED = "logits slice of "  # how that step begins
ABOUT = "weights "  # begins what is said of their copies
ALL_KEPT = f"{ABOUT}kept for all blocks"
PARTS = 4  # steps from all weights kept to none
MARGIN = 0.05  # of free memory, left to the system where no budget was named


@dataclass(frozen=True)
class Plan:
    """Settings without any `auto` about memory, and what they are predicted to need.

    Attributes:
        budget: bytes that must not be exceeded.
        named: whether the user named the budget; otherwise it is what was free.
        given_up: what was given up to fit, in order.
    """

    settings: Settings
    prediction: Prediction
    shape: Shape
    machine: Machine
    budget: int
    named: bool
    decodes: bool = False
    given_up: tuple[str, ...] = field(default=())

    def tighter(self) -> Plan | None:
        """The plan one step down the result-preserving ladder; None at its end."""
        for said, settings in _steps(self.settings, self.shape, self.machine, self.decodes, degrade=False):
            return dataclasses.replace(
                self,
                settings=settings,
                prediction=predict(settings, self.shape, self.machine, decodes=self.decodes),
                given_up=_and(self.given_up, said),
            )
        return None

    def pace(self) -> Pace:
        """Estimated seconds of a chunk under it, on this machine."""
        return estimate(self.settings, self.shape, self.machine, decodes=self.decodes)

    def rungs(self, asked: Settings) -> list[tuple[str, Plan]]:
        """What memory buys: the fastest plan for the settings that were asked for, and each step down from it, with
        what it gives up; the same prefix and forward path throughout.
        """
        learn = dataclasses.replace(asked.learn, prefix=self.settings.learn.prefix)
        open_ = dataclasses.replace(asked, learn=learn, forward=self.settings.forward, onnx=self.settings.onnx)
        fast = settle(open_, self.shape, self.machine, roomy=True)
        first = predict(fast, self.shape, self.machine, decodes=self.decodes)
        plan = dataclasses.replace(self, settings=fast, prediction=first, given_up=())
        found = [("nothing", plan)]
        while (lower := plan.tighter()) is not None:
            said = next(step for step in lower.given_up if step not in plan.given_up)
            found.append((said, lower))
            plan = lower
        return found

    def to_json(self) -> dict[str, Any]:
        """The plan as reports keep it."""
        chosen = self.settings.compute
        return {
            "budget": self.budget,
            "budget_named": self.named,
            "given_up": list(self.given_up),
            "chosen": {
                "loss_slice": chosen.loss_slice, "checkpointing": chosen.checkpointing,
                "weights": chosen.weights, "paging": chosen.paging, "heap": chosen.heap,
                "prefix": self.settings.learn.prefix,
            },
            "predicted": self.prediction.to_json(),
        }  # fmt: skip


def fit(
    settings: Settings,
    shape: Shape,
    machine: Machine,
    free: int,
    *,
    decodes: bool = False,
    degrade: bool = False,
    share: float = 0.0,
) -> Plan:
    """Settles every `auto`, and gives things up in order until the prediction fits.

    `learn.prefix=auto` becomes `full` only where nothing with kept keys and values fits.

    Args:
        free: bytes that this process may hold on the device in all, where the settings name no budget.
        decodes: whether the run decodes, and so holds a KV cache.
        degrade: whether what changes results may be given up too.
        share: of the free memory, that the fastest choices may take where no budget is named; else small ones are made.

    Raises:
        ModelError: kept keys and values are asked for, and the model has layers that keep none.
        SettingsError: an adapter on experts is asked for, and none can lie on any (`mixture.require`).
        BudgetError: it does not fit: what it needs, what there is, the largest term, what to change.
    """
    mixture.require(settings, shape.mixture, shape.architecture)
    named = settings.budget is not None
    budget = settings.budget if settings.budget is not None else int(free * (1 - MARGIN))
    prefixes = ("cached", "full") if settings.learn.prefix == "auto" else (settings.learn.prefix,)
    if shape.anew and settings.learn.mode != "none":
        if settings.learn.prefix in ("cached", "frozen"):
            raise ModelError(
                f"learn.prefix={settings.learn.prefix} with a model that keeps no keys: {shape.anew}",
                "learn.prefix=full or auto", "leave it at auto",
            )  # fmt: skip
        prefixes = ("full",)
    refused: list[Prediction] = []
    for allowed in (False, True) if degrade else (False,):
        for prefix in prefixes:
            learn = dataclasses.replace(settings.learn, prefix=prefix)  # type: ignore[arg-type]
            open_ = dataclasses.replace(settings, learn=learn)
            fast = settle(open_, shape, machine, roomy=True, keeps=named)
            if not named:
                fast = _within_share(fast, shape, machine, share * free, decodes) or settle(
                    open_, shape, machine, roomy=False
                )
            plan = _give_up(fast, shape, machine, budget, named, decodes, allowed)
            if isinstance(plan, Plan):
                return plan
            refused.append(plan)
    raise _refusal(min(refused, key=Prediction.peak), budget, named, degrade)


def _within_share(fast: Settings, shape: Shape, machine: Machine, limit: float, decodes: bool) -> Settings | None:
    """The fastest choices that fit a share of what is free, without paging anything; None where none do.

    Measured with 1.5 billion weights on a CPU: short pieces are read at 103 tokens a second with copies of all weights,
    at 9 without; recomputing activations costs a third of a lesson (by FLOPs).
    """
    first = fast
    while predict(fast, shape, machine, decodes=decodes).peak() > limit:
        paging = fast.compute.paging
        steps = (step for _, step in _steps(fast, shape, machine, decodes, False) if step.compute.paging == paging)
        step = next(steps, None)
        if step is None:
            return None
        fast = step
    return _filled(fast, first, shape, machine, limit, decodes)


def _give_up(
    chosen: Settings, shape: Shape, machine: Machine, budget: int, named: bool, decodes: bool, degrade: bool
) -> Plan | Prediction:
    """The first plan down the ladder that fits, or the smallest prediction on it."""
    given_up: tuple[str, ...] = ()
    first = chosen
    best = prediction = predict(chosen, shape, machine, decodes=decodes)
    while prediction.peak() > budget:
        step = next(_steps(chosen, shape, machine, decodes, degrade), None)
        if step is None:
            return best
        said, chosen = step
        given_up = _and(given_up, said)
        prediction = predict(chosen, shape, machine, decodes=decodes)
        best = min(best, prediction, key=Prediction.peak)
    full = _filled(chosen, first, shape, machine, budget, decodes) if given_up else chosen
    if kept_blocks(full, shape) != kept_blocks(chosen, shape):
        given_up = _and(given_up, _kept_said(full, shape))
    if full.compute.loss_slice != chosen.compute.loss_slice:
        given_up = tuple(one for one in given_up if not one.startswith(SLICED))
    if full != chosen:
        prediction = predict(full, shape, machine, decodes=decodes)
    return Plan(full, prediction, shape, machine, budget, named, decodes, given_up)


def _filled(
    settings: Settings, first: Settings, shape: Shape, machine: Machine, limit: float, decodes: bool
) -> Settings:
    """Copies of as many blocks as fit, up to those of `first`: the ladder's steps are several blocks wide, and what it
    gave up after a step may have made that one needless. On a GPU, where each slice of logits is work to start, slices
    as wide as those of `first`, too.
    """
    for kept in range(kept_blocks(first, shape), kept_blocks(settings, shape), -1):
        more = _with(settings, weights="cached" if kept == shape.layers else f"some:{kept}")
        if predict(more, shape, machine, decodes=decodes).peak() <= limit:
            settings = more
            break
    if machine.kind == "cuda" and first.compute.loss_slice > settings.compute.loss_slice:
        wider = _with(settings, loss_slice=first.compute.loss_slice)
        if predict(wider, shape, machine, decodes=decodes).peak() <= limit:
            return wider
    return settings


def _and(given_up: tuple[str, ...], said: str) -> tuple[str, ...]:
    """What was given up, and more: of the weights' copies only the last, and nothing where all are there."""
    found = [said if old.startswith(ABOUT) and said.startswith(ABOUT) else old for old in given_up]
    if said not in found:
        found.append(said)
    return tuple(one for one in found if one != ALL_KEPT)


def settle(settings: Settings, shape: Shape, machine: Machine, *, roomy: bool, keeps: bool | None = None) -> Settings:
    """Settings without `auto`: the fastest choices when `roomy`, else small ones that cost little time. A forward path
    that nobody chose (`planning.py`) is torch's.

    `keeps`: whether freed memory is among them (as `roomy`, where not said): it lets the process grow to what it held.
    """
    forward = "torch" if settings.forward == "auto" else settings.forward
    settings = dataclasses.replace(settings, forward=forward)
    compute = settings.compute
    four_bit = settings.base.precision == "nf4"
    fast = "cached" if roomy and four_bit and machine.kind == "cpu" else "packed"
    return _with(
        settings,
        weights=fast if compute.weights == "auto" else compute.weights,
        checkpointing=("off" if roomy else "on") if compute.checkpointing == "auto" else compute.checkpointing,
        heap=("keep" if (roomy if keeps is None else keeps) and machine.kind == "cpu" else "return")
        if compute.heap == "auto"
        else compute.heap,
        loss_slice=compute.loss_slice or default_slice(shape.vocab, machine, roomy=roomy),
        paging=("off" if roomy or machine.kind == "cpu" else "guard") if compute.paging == "auto" else compute.paging,
    )


def default_slice(vocab: int, machine: Machine, *, roomy: bool = False) -> int:
    """Label positions whose float32 logits take about `SLICE_BYTES`, or twice that."""
    if machine.passes_head:
        return PASSING_SLICE
    return min(1024, max(SMALLEST_SLICE, SLICE_BYTES * (2 if roomy else 1) // (4 * vocab)))


def _with(settings: Settings, **changes: Any) -> Settings:
    return dataclasses.replace(settings, compute=dataclasses.replace(settings.compute, **changes))


def _steps(
    settings: Settings, shape: Shape, machine: Machine, decodes: bool, degrade: bool
) -> Iterator[tuple[str, Settings]]:
    """What may be given up next, in order: each with what it says and the settings after it.

    Result-preserving first: freed memory that is kept, logits slice (where whole rows of logits exist); then what costs
    the fewest estimated seconds for a byte of activation checkpointing, a part of the dequantised copies and, after a
    still smaller slice, paging: of the guard's copy, of the KV cache while learning, of the optimiser's state. On a GPU
    that slice comes last: a forward took 0.1 s longer in 128 slices than in 2 (H200), for 9 MB. After them, only with
    `degrade`: 8-bit optimiser state (it rounds differently), rank, adapted blocks, window.
    """
    compute = settings.compute
    learns = settings.learn.mode != "none"
    if compute.heap == "keep":
        yield "freed memory given back to the system", _with(settings, heap="return")
    if compute.loss_slice > 64 and not machine.passes_head:
        yield f"{SLICED}64 positions", _with(settings, loss_slice=64)
    finer = compute.loss_slice > SMALLEST_SLICE and not machine.passes_head
    for said, step in _by_seconds(settings, shape, machine, decodes):
        if finer and machine.kind == "cpu" and step.compute.paging != compute.paging:
            finer = False
            yield f"{SLICED}{SMALLEST_SLICE} positions", _with(settings, loss_slice=SMALLEST_SLICE)
        yield said, step
    if finer:
        yield f"{SLICED}{SMALLEST_SLICE} positions", _with(settings, loss_slice=SMALLEST_SLICE)
    if degrade:
        yield from _degrading(settings, shape, learns)


def _by_seconds(settings: Settings, shape: Shape, machine: Machine, decodes: bool) -> list[tuple[str, Settings]]:
    """Steps that cost time, first the one that costs the fewest seconds for each byte that it frees of the peak."""
    compute = settings.compute
    learns = settings.learn.mode != "none"
    found: list[tuple[str, Settings]] = []
    if learns and compute.checkpointing != "on":
        found.append(("activations recomputed in the backward pass", _with(settings, checkpointing="on")))
    if kept := kept_blocks(settings, shape):
        lower = [shape.layers * part // PARTS for part in range(PARTS)]
        left = max(count for count in lower if count < kept)
        fewer = _with(settings, weights=f"some:{left}" if left else "packed")
        found.append((_kept_said(fewer, shape), fewer))
    if learns:
        found += _paging(settings, machine, decodes)[:1]

    def worth(settings: Settings) -> tuple[int, float]:
        peak = predict(settings, shape, machine, decodes=decodes).peak()
        return peak, estimate(settings, shape, machine, decodes=decodes, cores=TYPICAL_CORES).seconds

    peak, seconds = worth(settings) if len(found) > 1 else (0, 0.0)

    def price(entry: tuple[str, Settings]) -> float:
        lower, longer = worth(entry[1])
        return max(0.0, longer - seconds) / (peak - lower) if lower < peak else float("inf")

    return sorted(found, key=price) if len(found) > 1 else found


def _kept_said(settings: Settings, shape: Shape) -> str:
    kept = kept_blocks(settings, shape)
    if kept == shape.layers:
        return ALL_KEPT
    return f"weights kept for {kept} of {shape.layers} blocks" if kept else "weights dequantised at each use"


def _paging(settings: Settings, machine: Machine, decodes: bool) -> list[tuple[str, Settings]]:
    """What may still be paged, in order."""
    found = []
    levels = ["off", "guard", "cache", "all"]
    for level in levels[levels.index(settings.compute.paging) + 1 :]:
        if (level == "guard" and not settings.learn.can_roll_back) or (level == "cache" and not decodes):
            continue
        if level == "all" and settings.learn.optimizer != "adamw":
            continue
        said = {"guard": "the guard's copy", "cache": "the KV cache while learning", "all": "the optimiser's state"}
        place = "a file" if machine.kind == "cpu" else "CPU memory"
        found.append((f"{said[level]} paged to {place}", _with(settings, paging=level)))
    return found


def _degrading(settings: Settings, shape: Shape, learns: bool) -> Iterator[tuple[str, Settings]]:
    adapter = settings.adapter
    window = settings.window
    learn = settings.learn
    if learns and learn.optimizer != "adamw8bit":
        yield (
            "8-bit optimiser state",
            dataclasses.replace(settings, learn=dataclasses.replace(learn, optimizer="adamw8bit")),
        )
    if learns and adapter.rank > 8:
        rank = adapter.rank // 2
        small = dataclasses.replace(adapter, rank=rank, alpha=adapter.alpha * rank / adapter.rank)
        yield f"rank {rank} instead of {adapter.rank}", dataclasses.replace(settings, adapter=small)
    top = adapter.top or shape.layers
    if learns and top > max(1, shape.layers // 4):
        half = max(1, top // 2)
        yield (
            f"adapter on the last {half} of {shape.layers} blocks",
            dataclasses.replace(settings, adapter=dataclasses.replace(adapter, layers=f"top:{half}")),
        )
    if window.size > 512 and window.chunk >= 256:
        half_window = dataclasses.replace(window, chunk=window.chunk // 2, size=window.size // 2)
        yield (
            f"window of {half_window.size} tokens, chunk of {half_window.chunk}",
            dataclasses.replace(settings, window=half_window),
        )


def _refusal(best: Prediction, budget: int, named: bool, degrade: bool) -> BudgetError:
    term, size = best.largest_term()
    has = f"{format_bytes(budget)} {'budget' if named else 'free'}"
    remedies = ["a smaller rank (--set adapter.rank=8)", "a smaller window (--set window.size=... window.chunk=...)"]
    if not degrade:
        remedies.insert(0, "--allow-degrade to change what affects results")
    remedies.append("a smaller model" if term.startswith(("weights", "embed")) else "a larger budget")
    return BudgetError(
        f"needs at least {format_bytes(best.peak())} "
        f"(phase {best.highest}; largest term: {term}, {format_bytes(size)})",
        f"no more than the {has}",
        "try " + ", or ".join(remedies),
    )
