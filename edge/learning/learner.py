"""One chunk -> a better adapter.

Owns: the optimiser, its schedule, the epochs, the guard and its rollback.
Does not know: documents, scoring policy, generation. Every loop teaches through here.
Units: nats, tokens, optimiser steps. Source: arXiv 2401.11504, section 3 and algorithm 1.

The schedule is constant after a warm-up that starts above zero: step n uses lr * min(1, (n + 1) / WARMUP).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
from torch import Tensor

from ..machine.device import Clock
from ..model.adapter import Adapter
from ..model.forward import TorchForward
from ..model.loss import HALF_SCALE
from ..model.prefix import Prefix
from ..records import Learned
from ..settings import LearnSettings
from ..weights.paging import Lookup, MemoryStore, Store, Stored, Under
from . import optimizer as optimizers
from .drift import DriftGuard

Retry = Callable[[Callable[[], Tensor]], Tensor]
Taught = tuple[Tensor, int, Tensor | None]  # (S,) token ids, how many of the last are labels, which of these count

MIN_LABELS = 2  # fewer teach nothing
WARMUP = 2  # steps until the whole rate, as published
MAX_RISE = 1.5  # a loss that is this many times the first epoch's is undone
# Of the rate, where the adapter starts from a repair: its B is not 0, so that A learns at once, too.
REPAIRED_PACE = 0.5


class Learner:
    """Trains the adapter on one chunk at a time; optimiser state lives as long as the session.

    Attributes:
        steps: optimiser steps taken so far.
        chunks: chunks learned so far.
        clock: seconds spent so far in `forward` (with the loss and its gradient), `backward`, `optimiser`.
        drift: what watches whether the adapter is worse than the base.
        retry: runs one forward and backward; the session's own runs it again with less memory when it ran out.
    """

    def __init__(
        self,
        adapter: Adapter,
        forward: TorchForward,
        settings: LearnSettings,
        context: int,
        moments: Store | None = None,
        copy: Store | None = None,
        sinks: int = 0,
        seed: int = 0,
    ) -> None:
        """`context`: tokens that a lesson sees before its labels (the paper's L_T), `sinks` of
        them the document's first. `seed`: of a fresh adapter and of dropout.

        `moments` and `copy`: where optimiser state and the guard's copy are paged to; None keeps them beside.
        """
        self.adapter = adapter
        self.forward = forward
        self.settings = settings
        self.steps = 0
        self.chunks = 0
        self.clock = Clock(("forward", "backward", "optimiser"), forward.base.device)
        self.retry: Retry = _once
        self.drift = DriftGuard(on=settings.guard == "on")
        self.optimizer = optimizers.make(adapter.parameters(), settings, moments)
        self._saved: Store = copy or MemoryStore()
        self._saved_steps = 0
        self._sinks = sinks
        self._seed = seed
        self._limit = context - 1  # the last context token predicts the first label, and is computed with the labels
        self._prefix: Prefix | None = None
        self._share = 1.0
        self._pace = REPAIRED_PACE if adapter.repairs else 1.0
        if settings.can_roll_back:
            self._save()  # its memory is taken now, not in the middle of a document

    def learn(
        self, input_ids: Tensor, labels: int, *, share: float = 1.0, only: Tensor | None = None
    ) -> tuple[Learned, Tensor]:
        """Trains on one window; only the last `labels` tokens are labels, the rest is input.

        Args:
            input_ids: (S,) token ids, context and chunk.
            labels: how many of the last tokens are labels.
            share: of the learning rate, for this lesson.
            only: (labels,) bool, which of the labels count; all where None is named.

        Returns:
            What was done, and the (labels,) nats of the first epoch's forward, of those that count. Without dropout
            these are the chunk's scores *before* it was learned, so no second forward is needed for them.
        """
        self._share = share
        with self.adapter.whole():
            return self._learn((input_ids, labels, only))

    def _learn(self, lesson: Taught) -> tuple[Learned, Tensor]:
        start = time.perf_counter()
        input_ids, labels, _ = lesson
        settings = self.settings
        dropout = self.adapter.settings.dropout > 0
        losses: list[float] = []
        reason = ""
        norm = 0.0
        scores = torch.empty(0)
        if settings.can_roll_back:
            self._save()
        with self.clock.phase("forward"):
            prefix = self._prefix_for(input_ids[: len(input_ids) - labels - 1], labels)
        with torch.random.fork_rng(enabled=dropout):
            for epoch in range(settings.epochs):
                # 1. one forward and backward; the same numbers however often it must be tried
                seed = hash((self._seed, self.chunks, epoch)) if dropout else None
                for scale in self._scales():
                    nll = self.retry(partial(self._gradients, lesson, prefix, seed, scale))
                    # the only time that the device is waited for
                    total, norm = torch.stack([nll.double().sum(), self._gradient_norm(nll)]).tolist()
                    if math.isfinite(norm):
                        break
                losses.append(total)
                if epoch == 0:
                    scores = nll
                # 2. refused where it went wrong
                reason = self._refusal(losses, norm)
                if reason:
                    break
                # 3. the step
                with self.clock.phase("optimiser"):
                    self._step()
        optimizers.drop_gradients(self.adapter.parameters())
        if reason and settings.can_roll_back:
            self._load()
        if prefix is not None and settings.prefix == "cached" and math.isfinite(losses[-1]):
            prefix.take(input_ids[-labels - 1 : -1])
            self._prefix = prefix
        self.chunks += 1
        seconds = time.perf_counter() - start
        return Learned(tuple(losses), not reason, reason, seconds, norm), scores.cpu()

    def start_anew(self) -> None:
        """Drops what the adapter has learned."""
        self.adapter.reset(self._seed)
        self.optimizer.reset()
        self.steps = 0
        self._prefix = None

    # --- one step ---

    def _gradients(self, lesson: Taught, prefix: Prefix | None, seed: int | None, scale: float = 1.0) -> Tensor:
        """The nats of one forward's labels; leaves the gradient of their mean in the adapter's parameters.

        `scale`: what gradients are multiplied by on their way (`_scales`).
        """
        input_ids, labels, only = lesson
        optimizers.drop_gradients(self.adapter.parameters())
        if seed is not None:
            torch.manual_seed(seed)
        shallow = self.chunks % self.settings.deep_every != 0
        with self.forward.learning(dropout=seed is not None, shallow=shallow):
            with self.clock.phase("forward"):
                mean, nll = self.forward.loss(input_ids, labels, prefix, only)
            # on a GPU it is not waited for: a gradient that is no number is dropped with the rest
            if mean.device.type != "cpu" or self.settings.guard == "off" or torch.isfinite(mean):
                with self.clock.phase("backward"):
                    # the same gradients as with `scale` handed in, for which torch would import sympy
                    torch.autograd.backward(mean if scale == 1.0 else mean * scale)
                    if scale != 1.0:
                        torch._foreach_div_([p.grad for p in self.adapter.parameters() if p.grad is not None], scale)
        return nll.detach()

    def _scales(self) -> tuple[float, ...]:
        """What gradients are multiplied by on their way (arXiv 1710.03740), each tried where the one before it was too
        much: float16 knows no number below 6e-8, and none above 65,504.
        """
        return (HALF_SCALE, HALF_SCALE / 64) if self.forward.base.device.dtype == "float16" else (1.0,)

    def _step(self) -> None:
        rate = self.settings.lr * min(1.0, (self.steps + 1) / WARMUP)
        self.optimizer.step(self._share * self._pace * rate)
        self.steps += 1
        self.adapter.version += 1

    def _prefix_for(self, before: Tensor, labels: int) -> Prefix | None:
        """Keys and values of the tokens `before` what is computed with gradients; None where all of it is."""
        if self.settings.prefix == "full":
            return None
        kept = self._prefix
        self._prefix = None
        if kept is not None and kept.holds(before) and self.forward.reaches(kept, labels):
            return kept
        del kept  # its memory is what the new one takes
        return self.forward.read_prefix(before, self._limit, self._sinks)

    def _gradient_norm(self, like: Tensor) -> Tensor:
        """() float64, where `like` is."""
        grads = [p.grad for p in self.adapter.parameters() if p.grad is not None]
        if not grads:
            return like.new_zeros((), dtype=torch.float64)
        norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
        return norm.double()

    def _refusal(self, losses: list[float], norm: float = 0.0) -> str:
        """Why the update must be undone, or an empty string. `norm`: of the last gradient."""
        if self.settings.guard == "off":
            return ""
        if not math.isfinite(losses[-1]):
            return "the loss is not finite"
        if len(losses) > 1 and losses[-1] > MAX_RISE * losses[0]:
            return f"the loss rose from {losses[0]:.1f} to {losses[-1]:.1f} nats"
        if not math.isfinite(norm):
            return "the gradient is not finite"
        return ""

    # --- state ---

    def use_pages(self, pages: Store, *, moments: bool) -> None:
        """From now on the guard's copy, and the optimiser's `moments` too, are kept in `pages`; their values stay."""
        if isinstance(self._saved, MemoryStore):
            if self.settings.can_roll_back:
                self._saved.move_to(pages)
            self._saved = pages
        if moments and isinstance(self.optimizer, optimizers.AdamW):
            self.optimizer.use_pages(pages)

    def _save(self) -> None:
        for name, tensor in self._state():
            self._saved.put(f"saved.{name}", tensor)
        self._saved_steps = self.steps

    def _load(self) -> None:
        self._put_back(Stored(self._saved, "saved."))
        self.steps = self._saved_steps

    def _put_back(self, state: Lookup) -> None:
        self.adapter.restore(Under(state, "adapter."))
        self.optimizer.load(Under(state, "optimizer."))

    def _state(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor that a lesson changes and the guard may put back, one at a time."""
        for name, parameter in self.adapter.named_parameters():
            yield f"adapter.{name}", parameter.data
        for name, tensor in self.optimizer.tensors():
            yield f"optimizer.{name}", tensor

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """All that learning resumes from, one at a time: adapter, optimiser, counts, kept keys and values."""
        yield from self._state()
        counts = [self.steps, self.chunks, *self.drift.state()]
        yield "lessons", torch.tensor(counts)
        if self._prefix is not None:
            for name, tensor in self._prefix.tensors().items():
                yield f"prefix.{name}", tensor

    def snapshot(self) -> dict[str, Tensor]:
        """A copy of `tensors`."""
        return {name: tensor.clone() for name, tensor in self.tensors()}

    def restore(self, snapshot: Mapping[str, Tensor]) -> None:
        """Goes back to a snapshot, bit for bit."""
        self._put_back(snapshot)
        self.steps, self.chunks, *drift = [int(value) for value in snapshot["lessons"].tolist()]
        self.drift.restore(drift)
        held = {name.removeprefix("prefix."): snapshot[name] for name in snapshot if name.startswith("prefix.")}
        self._prefix = None
        if held:
            self._prefix = self.forward.read_prefix(held["ids"][:0], self._limit, self._sinks)
            self._prefix.load(held, self.forward.base.device.name)


def _once(run: Callable[[], Tensor]) -> Tensor:
    return run()
