"""From a model and settings to a plan: what the budget rooms need to know of this machine and this source.

Owns: the device's kind before torch is there, free memory, the framework baseline, refusal before loading.
Does not know: how anything is loaded or computed. torch is imported only where a GPU's free memory is asked for.
Units: bytes.
"""

from __future__ import annotations

import dataclasses

from ..errors import BudgetError
from ..machine import device, held
from ..settings import Settings
from ..store import sources
from ..store.sources import Source
from . import budget, families, paths, shape
from .budget import Plan
from .lasting import Machine
from .shape import Shape

LIBRARIES = 430_000_000  # resident with torch, transformers, peft and bitsandbytes imported (measured: 391 MB)
FAST_SHARE = 0.5  # of free memory, for what makes a run fast, where no budget was named
WORD = 450  # bytes that a word of the vocabulary takes in a tokenizer (measured: 420)


def plan(source: Source, settings: Settings, *, decodes: bool, degrade: bool, writes: bool = False) -> Plan:
    """A plan from the model's config alone, with the usual size of the framework.

    Args:
        writes: text will be written: by a graph, where nobody says what by, it pays, and it fits as torch alone does.

    Raises:
        BudgetError: it does not fit.
    """
    return plan_shape(model_shape(source), settings, decodes=decodes, degrade=degrade, writes=writes)


def plan_shape(dims: Shape, settings: Settings, *, decodes: bool, degrade: bool, writes: bool = False) -> Plan:
    """The same for a model that need not be on this disk.

    Raises:
        BudgetError: it does not fit.
    """
    machine = estimate(settings, dims)
    free = free_for_all(machine.kind, settings.compute.device)
    alone = budget.fit(settings, dims, machine, free, decodes=decodes, degrade=degrade, share=FAST_SHARE)
    if not (writes and settings.forward == "auto" and paths.pays(settings, dims, machine)):
        return alone
    try:
        by_graph = budget.fit(paths.mixed(settings), dims, machine, free, decodes=decodes, share=FAST_SHARE)
    except BudgetError:
        return alone
    return by_graph if by_graph.settings.learn == alone.settings.learn else alone


def again(rough: Plan, settings: Settings, *, degrade: bool) -> Plan:
    """The same plan with the framework as it is: libraries and tokenizer loaded, no weights yet."""
    baseline = measured_baseline(rough.machine.kind)
    machine = dataclasses.replace(rough.machine, baseline=baseline, compute=_width(rough, settings))
    free = free_for_all(machine.kind, settings.compute.device)
    try:
        return budget.fit(
            _by(rough, settings), rough.shape, machine, free, decodes=rough.decodes, degrade=degrade, share=FAST_SHARE
        )
    except BudgetError:
        if settings.forward != "auto":
            raise
        return budget.fit(
            settings, rough.shape, machine, free, decodes=rough.decodes, degrade=degrade, share=FAST_SHARE
        )


def with_torch(plan: Plan, settings: Settings, *, degrade: bool) -> Plan:
    """The plan for `settings` without a graph: for a base that none can be made of."""
    return _anew(plan, dataclasses.replace(settings, forward="torch"), degrade)


def _by(plan: Plan, settings: Settings) -> Settings:
    """The settings with the forward path of the plan, where they leave it open."""
    if settings.forward != "auto":
        return settings
    return dataclasses.replace(settings, forward=plan.settings.forward, onnx=plan.settings.onnx)


def _anew(plan: Plan, settings: Settings, degrade: bool) -> Plan:
    free = int(plan.budget / (1 - budget.MARGIN))  # as it was before the weights were there
    return budget.fit(
        settings, plan.shape, plan.machine, free, decodes=plan.decodes, degrade=degrade, share=FAST_SHARE
    )  # fmt: skip


def without_kept_keys(plan: Plan, settings: Settings, *, degrade: bool) -> Plan:
    """The plan for `settings` where each window is computed anew: for a base that kept keys and values make worse."""
    learn = dataclasses.replace(settings.learn, prefix="full")
    return _anew(plan, dataclasses.replace(_by(plan, settings), learn=learn), degrade)


def find(model: str, settings: Settings) -> Source:
    """What will be loaded for a model reference: a GGUF file's 4-bit conversion, where it was made already."""
    source = sources.resolve(model)
    return sources.converted(source) if settings.base.precision == "nf4" else source


def model_shape(source: Source) -> Shape:
    """The model's dimensions as it will be held; a GGUF file is held as its 4-bit conversion.

    Raises:
        ModelError: config or header cannot be used.
    """
    dims = shape.read(source)
    return dataclasses.replace(dims, packed=True) if source.kind == "gguf" else dims


def estimate(settings: Settings, dims: Shape) -> Machine:
    """Device and baseline, without torch."""
    kind = device.probable_kind(settings.compute.device)
    dtype: str = settings.compute.dtype
    if dtype == "auto":
        dtype = "float32" if kind == "cpu" else "bfloat16"
    baseline = LIBRARIES + WORD * dims.vocab if kind == "cpu" else 0
    return Machine(
        kind, 4 if dtype == "float32" else 2, baseline, device.units_for(kind, dtype, settings.compute.matmul)
    )


def _width(rough: Plan, settings: Settings) -> int:
    """Bytes of a number: of the GPU that is there, which a family may be too wide for."""
    if rough.machine.kind != "cuda" or settings.compute.dtype != "auto":
        return rough.machine.compute
    dtype = device.choose(settings.compute.device).dtype
    return 4 if dtype == "float16" and rough.shape.architecture in families.BEYOND_HALF else rough.machine.compute


def measured_baseline(kind: str) -> int:
    """What this process holds now, before any weight: on a GPU nothing that torch's allocator knows of."""
    return held.resident_memory() if kind == "cpu" else 0


def free_for_all(kind: str, name: str = "auto") -> int:
    """Bytes that this process may hold in all: what is free, and what it holds already. `name`: of the device."""
    if kind == "cpu":
        return held.available_memory() + held.resident_memory()
    chosen = device.choose(name)
    return held.free_memory(chosen) if chosen.kind == "cuda" else held.available_memory()
