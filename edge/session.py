"""One document's life: a fresh adapter, chunks, discard.

Owns: the adapter, the learner, the forward path and the document's token stream together; the runtime that
opens sessions on one base.
Does not know: how a loop proceeds (`score.py`, `generate.py`), files, printing.
Units: tokens, bytes, seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

import torch

from . import base as bases
from . import generate as generating
from . import score as scoring
from . import settings as settings_module
from .adapter import Adapter
from .base import Base
from .device import PeakMeter
from .forward import Forward, TorchForward
from .learner import Learner
from .records import ChunkRead, ChunkScore, ChunkWritten, TextPiece
from .settings import Settings
from .windows import Window, window_at


class Runtime:
    """A frozen base with settings: opens sessions."""

    def __init__(self, base: Base, settings: Settings) -> None:
        self.base = base
        self.settings = settings
        if settings.compute.weights == "cached":
            base.cache_weights()

    def session(self) -> Session:
        """A new session, with a fresh adapter; independent of every other one."""
        return Session(self.base, self.settings)


def load(
    model: str,
    preset: str | Path = "economical",
    *,
    overrides: Sequence[str] = (),
    settings: Settings | None = None,
) -> Runtime:
    """Loads a model and gives the runtime on it.

    Args:
        model: `demo`, a hub id, a model folder, a 4-bit folder or a `.gguf` file.
        preset: name of a shipped preset or a YAML file.
        overrides: `section.key=value` strings on top of the preset.
        settings: whole settings instead of preset and overrides.

    Raises:
        SettingsError, ModelError, DeviceError, StorageError: see `edge.errors`.
    """
    chosen = settings or settings_module.load(preset, overrides)
    return Runtime(bases.load(model, chosen), chosen)


class Session:
    """One document: its tokens so far, and the adapter that learns them. Use it as a context manager.

    Calls add to the document in turn: `score` and `read` take text that exists, `generate` continues it.

    Attributes:
        tokens: token ids of the document so far, BOS included.
        position: first token that is not yet part of a finished chunk.
        chunk_index: number of finished chunks.
    """

    def __init__(self, base: Base, settings: Settings) -> None:
        self.base = base
        self.settings = settings
        self.tokens: list[int] = []
        self.position = 0
        self.chunk_index = 0
        self.meter = PeakMeter(base.device)
        self.adapter: Adapter | None = None
        self.learner: Learner | None = None
        if settings.learn.mode != "none":
            fused = settings.compute.lora == "fused"
            self.adapter = Adapter(base, settings.adapter, seed=settings.learn.seed, fused=fused)
        torch_forward = TorchForward(base, self.adapter, settings.compute)
        self.forward: Forward = torch_forward
        if self.adapter is not None:
            self.learner = Learner(self.adapter, torch_forward, settings.learn)

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Discards the adapter. The base is bit for bit what it was."""
        if self.adapter is not None:
            self.adapter.discard()
        self.adapter = self.learner = None

    # --- the three loops ---

    def score(self, text: str, *, with_base: bool = True, max_tokens: int | None = None) -> Iterator[ChunkScore]:
        """Scores `text` chunk by chunk, each with the adapter that has learned all chunks before it."""
        return scoring.score(self, self._encode(text)[:max_tokens], with_base=with_base)

    def score_ids(self, input_ids: Sequence[int], *, with_base: bool = True) -> Iterator[ChunkScore]:
        """`score` for text that is already tokenised."""
        return scoring.score(self, list(input_ids), with_base=with_base)

    def read(self, text: str) -> Iterator[ChunkRead]:
        """Reads `text` into the adapter; an unfinished last chunk waits for what comes next."""
        self.tokens.extend(self._encode(text))
        return generating.read(self)

    def generate(self, prompt: str = "", *, max_tokens: int = 256) -> Iterator[ChunkRead | TextPiece | ChunkWritten]:
        """Continues the document, `prompt` appended to it, by at most `max_tokens` tokens.

        A document longer than the context is first read into the adapter; nothing is truncated.
        """
        self.tokens.extend(self._encode(prompt) if prompt or not self.tokens else [])
        return generating.generate(self, max_tokens)

    def _encode(self, text: str) -> list[int]:
        ids = self.base.encode(text)
        bos = self.base.tokenizer.bos_token_id
        return ids[1:] if self.tokens and ids[:1] == [bos] else ids

    # --- what the loops share ---

    def window(self, end: int, *, learning: bool = False) -> Window:
        """The window of the chunk [position, end)."""
        context = self.settings.learn_context if learning else self.settings.window.context
        return window_at(self.chunk_index, self.position, end, context=context)

    def ids(self, window: Window) -> torch.Tensor:
        """(S,) token ids of a window, on the CPU."""
        return torch.tensor(self.tokens[window.context_start : window.end])

    def finish_chunk(self, end: int) -> None:
        """Moves on: [position, end) is done."""
        self.position = end
        self.chunk_index += 1

    @property
    def fresh(self) -> bool:
        """Whether the adapter has not learned yet: it changes nothing, its scores are the base's."""
        return self.learner is None or self.learner.steps == 0

    @property
    def fuses(self) -> bool:
        """Whether the first epoch's forward may serve as the score: same context, no dropout."""
        settings = self.settings
        return (
            self.learner is not None
            and settings.compute.fuse_first_epoch
            and settings.adapter.dropout == 0
            and settings.learn_context == settings.window.context
            and isinstance(self.forward, TorchForward)
        )
