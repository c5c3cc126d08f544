"""The library's face: a base inside a memory budget, and one document's life on it: fresh adapter, loops, discard.

Owns: loading inside a budget, what the user should know of a base, what was measured; how text comes to the loops.
Does not know: how a loop proceeds (`score.py`, `generate.py`), how it learns, files, printing.
Units: bytes, tokens.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from . import generate as generating
from . import score as scoring
from . import settings as settings_module
from .core.state import State
from .errors import BudgetError, DeviceError, ExportError, StorageError
from .machine.allocator import keep_heap, release_memory, tune_allocator
from .machine.held import PeakMeter
from .memory import budget, conversion, paths, planning
from .memory import shape as shapes
from .memory.budget import Plan
from .memory.prediction import Machine
from .model import base as bases
from .model import soundness
from .model.base import Base
from .model.baseline import FullAttention, roomier
from .model.forward import Opener, other_path
from .records import ChunkRead, ChunkScore, ChunkWritten, TextPiece
from .settings import Settings
from .store import sources
from .tokenstream import TokenStream
from .values.amounts import format_bytes


class Session(State):
    """One document: its tokens so far, and the adapter that learns them. Use it as a context manager.

    Calls add to the document in turn: `score` and `read` take text that exists, `generate` continues it.
    """

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def score(
        self, text: str, *, with_base: bool = True, max_tokens: int | None = None, full: bool = False
    ) -> Iterator[ChunkScore]:
        """Scores `text` chunk by chunk, each with the adapter that has learned all chunks before it.

        What `read` has left waiting is learned with the first chunk, and not scored. `full`: with the base that reads
        everything so far by attention, too (`model/baseline.py`).
        """
        return self.score_ids(self._encode(text)[:max_tokens], with_base=with_base, full=full)

    def score_ids(
        self, input_ids: Sequence[int] | TokenStream, *, with_base: bool = True, full: bool = False
    ) -> Iterator[ChunkScore]:
        """`score` for text that is tokenised, or that is while it is read."""
        self._feed(input_ids if isinstance(input_ids, TokenStream) else TokenStream.of(input_ids))
        against = None
        if full:
            limit = self.torch_forward.position_limit
            given = len(self.tokens) + self.coming.waiting  # of a longer text more, when it comes
            wanted = self.full_limit or (min(limit, given) if self.coming.ended else limit)
            plan = roomier(self.plan, wanted)
            if plan is not self.plan:
                self.memory.change(plan)
            against = FullAttention(self.torch_forward, self.plan, self.sinks, self.full_limit)
            self.full_limit = against.limit
        return scoring.score(self, with_base=with_base, against=against)

    def read(self, text: str) -> Iterator[ChunkRead]:
        """Reads `text` into the adapter; an unfinished last chunk waits for what comes next."""
        self._feed(TokenStream.of(()))
        self.tokens.extend(self._encode(text))
        return generating.read(self)

    def generate(
        self, prompt: str | TokenStream = "", *, max_tokens: int = 256, written: int = 0, reading: bool = False
    ) -> Iterator[ChunkRead | TextPiece | ChunkWritten]:
        """Continues the document, `prompt` appended to it, by at most `max_tokens` tokens.

        A document longer than the context is first read into the adapter; nothing is truncated. `written` and
        `reading` continue a text that was begun before (`generate.generate`).
        """
        self._feed(prompt if isinstance(prompt, TokenStream) else TokenStream.of(()))
        if not isinstance(prompt, TokenStream) and (prompt or not self.tokens):
            self.tokens.extend(self._encode(prompt))
        return generating.generate(self, max_tokens, written=written, reading=reading)

    def _feed(self, text: TokenStream) -> None:
        self.fill(sys.maxsize)  # what was given before, where nobody has read it
        self.coming = text

    def _encode(self, text: str) -> list[int]:
        ids = self.base.encode(text)
        bos = self.base.bos_id
        return ids[1:] if self.tokens and ids[:1] == [bos] else ids


class Runtime:
    """A frozen base with a plan for its memory: opens sessions.

    Attributes:
        settings: as asked for.
        plan: the same without any `auto`, with what it is predicted to need.
        measured: bytes at most held, for every phase so far.
        notes: what the user should know of this base, one line each.
    """

    def __init__(
        self, base: Base, settings: Settings, plan: Plan | None = None, making: Callable[[str], None] | None = None
    ) -> None:
        """`making`: is told before a graph is made, which takes minutes once."""
        self.base = base
        self.settings = settings
        self.plan = plan or _plan_for(base, settings)
        self.measured: dict[str, int] = {}
        self.notes: list[str] = []
        if self.plan.shape.anew and settings.learn.mode != "none":
            self.notes.append(
                f"{self.plan.shape.anew}: every window is computed anew (learn.prefix=full), which is slower"
            )
        self._other_path = self._opened(making or (lambda said: None))
        if (copied := self.plan.settings.compute.copied) != 0:
            base.cache_weights(copied)

    def memory(self, session: Session) -> dict[str, Any]:
        """Plan, prediction and measurement, phase by phase, in bytes, for reports."""
        return {**session.plan.to_json(), "measured": {**self.measured, **session.meter.peaks}}

    def _opened(self, making: Callable[[str], None]) -> Opener | None:
        """The forward path that the plan names; torch's where it was the planner's choice and cannot be had."""
        chosen = self.plan.settings
        if chosen.graph_precision and not chosen.onnx.graph:
            folder = sources.export_folder(self.base.fingerprint(), chosen.graph_precision, self.base.device.kind)
            if not sources.is_exported(folder):
                size, seconds = paths.cost(chosen, self.plan.shape)
                making(
                    f"making a graph of this model that writes faster, once: {format_bytes(size)} in {folder}, "
                    f"about {max(1, round(seconds / 60))} min (--forward torch does without)"
                )
        try:
            return other_path(self.base, chosen)
        except (ExportError, DeviceError, StorageError) as error:
            if self.settings.forward != "auto":
                raise
            self.plan = planning.with_torch(self.plan, self.settings, degrade=False)
            self.notes.append(f"torch writes, which is slower: {error.line()}")
            return None

    def session(self) -> Session:
        """A new session, with a fresh adapter; independent of every other one."""
        if self.base.device.kind == "cpu":
            keep_heap(self.plan.settings.compute.heap == "keep")
        return Session(self.base, self.plan, self._other_path)


def load(
    model: str,
    preset: str | Path = "economical",
    *,
    overrides: Sequence[str] = (),
    settings: Settings | None = None,
    decodes: bool = True,
    allow_degrade: bool = False,
    converting: Callable[[int, int], None] = lambda done, total: None,
    making: Callable[[str], None] | None = None,
) -> Runtime:
    """Loads a model and gives the runtime on it, inside the memory budget that the settings name.

    Args:
        model: `demo`, a hub id, a model folder, a 4-bit folder or a `.gguf` file.
        preset: name of a shipped preset or a YAML file.
        overrides: `section.key=value` strings on top of the preset.
        settings: whole settings instead of preset and overrides.
        decodes: whether text will be generated, and room is needed for a KV cache.
        allow_degrade: whether the planner may change what affects results (rank, blocks, window).
        converting: gets the bytes that are written, and those of all, while a GGUF file is converted, once.
        making: where it is given, `forward: auto` may write with a graph, and it is told before one is made.

    Raises:
        BudgetError: it does not fit; raised before any weight is loaded.
        SettingsError, ModelError, DeviceError, StorageError: see `edge.errors`.
    """
    tune_allocator()
    chosen = settings or settings_module.load(preset, overrides)
    source = planning.find(model, chosen)
    if source.kind == "gguf" and chosen.base.precision == "nf4":
        conversion.require(source, chosen.budget)
    rough = planning.plan(  # refuses before torch is needed
        source, chosen, decodes=decodes, degrade=allow_degrade, writes=making is not None
    )
    final = rough

    def before_weights() -> Settings:
        nonlocal final
        final = planning.again(rough, chosen, degrade=allow_degrade)
        return final.settings

    base = bases.load(source, rough.settings, before_weights, converting)
    meter = PeakMeter(base.device)
    final, notes = _sound(base, chosen, final, allow_degrade)
    runtime = Runtime(base, chosen, final, making)
    runtime.notes += notes
    runtime.measured["load"] = meter.read()
    release_memory()
    return runtime


def _sound(base: Base, asked: Settings, plan: Plan, degrade: bool) -> tuple[Plan, list[str]]:
    """The plan, and notes for the user. Kept keys and values that make this base worse are given up, unless they were
    asked for.
    """
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
        return plan, [f"{found.said()}; recomputing every window {error.got}: keys and values are kept all the same"]
    return anew, [f"{found.said()}: every window is recomputed (learn.prefix=full), which is slower"]


def _plan_for(base: Base, settings: Settings) -> Plan:
    """A plan for a model that is in memory already: only what is still open is settled."""
    shape = shapes.from_config(base.config.to_dict(), packed=True)
    width = base.device.torch_dtype.itemsize
    machine = Machine(base.device.kind, width, 0, base.device.matmul)
    return budget.fit(settings, shape, machine, free=1 << 62)
