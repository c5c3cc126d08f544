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
from .prediction import Machine, Prediction, predict
from .shape import Shape

SLICE_BYTES = 128 << 20  # of logits held at a time; twice that where memory is not short
PASSING_SLICE = 512  # positions, where logits exist for a block of the vocabulary only
SMALLEST_SLICE = 16  # positions
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
                given_up=(*self.given_up, said),
            )
        return None

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
        BudgetError: it does not fit: what it needs, what there is, the largest term, what to change.
    """
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
            if not named and predict(fast, shape, machine, decodes=decodes).peak() > share * free:
                fast = settle(open_, shape, machine, roomy=False)
            plan = _give_up(fast, shape, machine, budget, named, decodes, allowed)
            if isinstance(plan, Plan):
                return plan
            refused.append(plan)
    raise _refusal(min(refused, key=Prediction.peak), budget, named, degrade)


def _give_up(
    chosen: Settings, shape: Shape, machine: Machine, budget: int, named: bool, decodes: bool, degrade: bool
) -> Plan | Prediction:
    """The first plan down the ladder that fits, or the smallest prediction on it."""
    given_up: list[str] = []
    best = prediction = predict(chosen, shape, machine, decodes=decodes)
    while prediction.peak() > budget:
        step = next(_steps(chosen, shape, machine, decodes, degrade), None)
        if step is None:
            return best
        said, chosen = step
        given_up.append(said)
        prediction = predict(chosen, shape, machine, decodes=decodes)
        best = min(best, prediction, key=Prediction.peak)
    return Plan(chosen, prediction, shape, machine, budget, named, decodes, tuple(given_up))


def settle(settings: Settings, shape: Shape, machine: Machine, *, roomy: bool, keeps: bool | None = None) -> Settings:
    """Settings without `auto`: the fastest choices when `roomy`, else small ones that cost little time. A forward path
    that nobody chose (`planning.py`) is torch's.

    `keeps`: whether freed memory is among them (as `roomy`, where not said): it lets the process grow to what it held.
    """
    forward = "torch" if settings.forward == "auto" else settings.forward
    settings = dataclasses.replace(settings, forward=forward)
    onnx = dataclasses.replace(settings.onnx, precision=settings.graph_precision or settings.onnx.precision)  # type: ignore[arg-type]
    settings = dataclasses.replace(settings, onnx=onnx)
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
        paging=("off" if machine.kind == "cpu" else "guard") if compute.paging == "auto" else compute.paging,
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

    Result-preserving first: freed memory that is kept, logits slice (where whole rows of logits exist), activation
    checkpointing, dequantised copies, a still smaller slice, then
    paging of the guard's copy, of the KV cache while learning, of the optimiser's state. After them, only with
    `degrade`: 8-bit optimiser state (it rounds differently), rank, adapted blocks, window.
    """
    compute = settings.compute
    learns = settings.learn.mode != "none"
    if compute.heap == "keep":
        yield "freed memory given back to the system", _with(settings, heap="return")
    if compute.loss_slice > 64 and not machine.passes_head:
        yield "logits slice of 64 positions", _with(settings, loss_slice=64)
    if learns and compute.checkpointing != "on":
        yield "activations recomputed in the backward pass", _with(settings, checkpointing="on")
    if compute.weights == "cached":
        yield "weights dequantised at each use", _with(settings, weights="packed")
    if compute.loss_slice > SMALLEST_SLICE and not machine.passes_head:
        yield f"logits slice of {SMALLEST_SLICE} positions", _with(settings, loss_slice=SMALLEST_SLICE)
    if learns:
        levels = ["off", "guard", "cache", "all"]
        for level in levels[levels.index(compute.paging) + 1 :]:
            if (level == "guard" and not settings.learn.can_roll_back) or (level == "cache" and not decodes):
                continue
            if level == "all" and settings.learn.optimizer != "adamw":
                continue
            said = {"guard": "the guard's copy", "cache": "the KV cache while learning", "all": "the optimiser's state"}
            place = "a file" if machine.kind == "cpu" else "CPU memory"
            yield f"{said[level]} paged to {place}", _with(settings, paging=level)
    if degrade:
        yield from _degrading(settings, shape, learns)


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
