"""A frozen base, a plan for its memory, and the sessions that are opened on it.

Owns: loading inside a budget, what the user should know of a base, what was measured.
Does not know: how a session learns or a loop proceeds, files, printing.
Units: bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import base as bases
from . import budget, planning, soundness
from . import settings as settings_module
from . import shape as shapes
from .allocator import release_memory
from .base import Base
from .budget import Plan
from .device import PeakMeter
from .errors import BudgetError
from .forward import other_path
from .memory import Machine
from .session import Session
from .settings import Settings


class Runtime:
    """A frozen base with a plan for its memory: opens sessions.

    Attributes:
        settings: as asked for.
        plan: the same without any `auto`, with what it is predicted to need.
        measured: bytes at most held, for every phase so far.
        notes: what the user should know of this base, one line each.
    """

    def __init__(self, base: Base, settings: Settings, plan: Plan | None = None) -> None:
        self.base = base
        self.settings = settings
        self.plan = plan or _plan_for(base, settings)
        self.measured: dict[str, int] = {}
        self.notes: list[str] = []
        if self.plan.settings.compute.weights == "cached":
            base.cache_weights()
        self._other_path = other_path(base, self.plan.settings)

    def memory(self, session: Session) -> dict[str, Any]:
        """Plan, prediction and measurement, phase by phase, in bytes, for reports."""
        return {**session.plan.to_json(), "measured": {**self.measured, **session.meter.peaks}}

    def session(self) -> Session:
        """A new session, with a fresh adapter; independent of every other one."""
        return Session(self.base, self.plan, self._other_path)


def load(
    model: str,
    preset: str | Path = "economical",
    *,
    overrides: Sequence[str] = (),
    settings: Settings | None = None,
    decodes: bool = True,
    allow_degrade: bool = False,
) -> Runtime:
    """Loads a model and gives the runtime on it, inside the memory budget that the settings name.

    Args:
        model: `demo`, a hub id, a model folder, a 4-bit folder or a `.gguf` file.
        preset: name of a shipped preset or a YAML file.
        overrides: `section.key=value` strings on top of the preset.
        settings: whole settings instead of preset and overrides.
        decodes: whether text will be generated, and room is needed for a KV cache.
        allow_degrade: whether the planner may change what affects results (rank, blocks, window).

    Raises:
        BudgetError: it does not fit; raised before any weight is loaded.
        SettingsError, ModelError, DeviceError, StorageError: see `edge.errors`.
    """
    chosen = settings or settings_module.load(preset, overrides)
    source = planning.find(model, chosen)
    if source.kind == "gguf" and chosen.base.precision == "nf4":
        planning.require_conversion(source, chosen)
    rough = planning.plan(source, chosen, decodes=decodes, degrade=allow_degrade)  # refuses before torch is needed
    final = rough

    def before_weights() -> Settings:
        nonlocal final
        final = planning.again(rough, chosen, degrade=allow_degrade)
        return final.settings

    base = bases.load(source, rough.settings, before_weights)
    meter = PeakMeter(base.device)
    final, notes = _sound(base, chosen, final, allow_degrade)
    runtime = Runtime(base, chosen, final)
    runtime.notes += notes
    runtime.measured["load"] = meter.read()
    release_memory()
    return runtime


def _sound(base: Base, asked: Settings, plan: Plan, degrade: bool) -> tuple[Plan, list[str]]:
    """The plan, without kept keys and values where they make this base worse and nobody asked for them; what to say."""
    learn = plan.settings.learn
    if learn.mode == "none" or learn.prefix != "cached":
        return plan, []
    found = soundness.of(base, plan.settings)
    if found.sound:
        return plan, []
    if asked.learn.prefix != "auto":
        return plan, [f"{found.said()}; learn.prefix=cached was asked for and is kept"]
    try:
        anew = planning.without_kept_keys(plan, asked, degrade=degrade)
    except BudgetError as error:
        return plan, [f"{found.said()}; computing every window anew {error.got}: keys and values are kept all the same"]
    return anew, [f"{found.said()}: every window is computed anew (learn.prefix=full), which is slower"]


def _plan_for(base: Base, settings: Settings) -> Plan:
    """A plan for a model that is in memory already: only what is still open is settled."""
    shape = shapes.from_config(base.config.to_dict(), packed=True)
    width = base.device.torch_dtype.itemsize
    machine = Machine(base.device.kind, width, 0, base.device.matmul)
    return budget.fit(settings, shape, machine, free=1 << 62)
