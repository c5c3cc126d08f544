"""One chunk -> a better adapter.

Owns: the optimiser, its schedule, the epochs, the guard and its rollback.
Does not know: documents, scoring policy, generation. Every loop teaches through here.
Units: nats, tokens, optimiser steps. Source: arXiv 2401.11504, section 3 and algorithm 1.

The schedule is constant after a warm-up that starts above zero: step n uses lr * min(1, (n + 1) / warmup).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from . import optimizer as optimizers
from .adapter import Adapter
from .forward import TorchForward
from .paging import Lookup, MemoryStore, Store, Stored, Under
from .records import Learned
from .settings import LearnSettings
from .windows import Window

Retry = Callable[[Callable[[], Tensor]], Tensor]


class Learner:
    """Trains the adapter on one chunk at a time; optimiser state lives as long as the session.

    Attributes:
        steps: optimiser steps taken so far.
        chunks: chunks learned so far.
        retry: runs one forward and backward; the session's own runs it again with less memory when it ran out.
    """

    def __init__(
        self,
        adapter: Adapter,
        forward: TorchForward,
        settings: LearnSettings,
        moments: Store | None = None,
        copy: Store | None = None,
    ) -> None:
        """`moments` and `copy`: where optimiser state and the guard's copy are paged to; None keeps them beside."""
        self.adapter = adapter
        self.forward = forward
        self.settings = settings
        self.steps = 0
        self.chunks = 0
        self.retry: Retry = _once
        self.optimizer = optimizers.make(adapter.parameters(), settings, moments)
        self._saved: Store = copy or MemoryStore()
        self._saved_steps = 0
        if settings.guard != "off":
            self._save()  # its memory is taken now, not in the middle of a document

    def learn(self, input_ids: Tensor, labels: int) -> tuple[Learned, Tensor]:
        """Trains on one window; only the last `labels` tokens are labels, the rest is input.

        Args:
            input_ids: (S,) token ids, context and chunk.
            labels: how many of the last tokens are labels.

        Returns:
            What was done, and the (labels,) nats of the first epoch's forward. Without dropout these are
            the chunk's scores *before* it was learned, so no second forward is needed for them.
        """
        start = time.perf_counter()
        settings, dropout = self.settings, self.adapter.settings.dropout > 0
        losses: list[float] = []
        reason, norm, scores = "", 0.0, torch.empty(0)
        if settings.guard != "off":
            self._save()
        with torch.random.fork_rng(enabled=dropout):
            for epoch in range(settings.epochs):
                # 1. one forward and backward; the same numbers however often it must be tried
                seed = hash((settings.seed, self.chunks, epoch)) if dropout else None
                nll = self.retry(lambda seed=seed: self._gradients(input_ids, labels, seed))  # type: ignore[misc]
                losses.append(float(nll.double().sum()))
                if epoch == 0:
                    scores = nll.cpu()
                # 2. refused where it went wrong
                norm = self._gradient_norm()
                reason = self._refusal(losses)
                if not reason and not math.isfinite(norm) and settings.guard != "off":
                    reason = "the gradient is not finite"
                if reason:
                    break
                # 3. the step
                self._step(norm)
        optimizers.drop_gradients(self.adapter.parameters())
        after = None
        if settings.guard == "full" and not reason:
            after = float(self.forward.nll(input_ids, labels).double().sum())
            reason = self._refusal([losses[0], after])
        if reason and settings.guard != "off":
            self._load()
        self.chunks += 1
        return Learned(tuple(losses), after, not reason, reason, time.perf_counter() - start, norm), scores

    # --- one step ---

    def _gradients(self, input_ids: Tensor, labels: int, seed: int | None) -> Tensor:
        """The (labels,) nats of one forward; leaves the gradient of their mean in the adapter's parameters."""
        optimizers.drop_gradients(self.adapter.parameters())
        if seed is not None:
            torch.manual_seed(seed)
        with self.forward.learning(dropout=seed is not None):
            mean, nll = self.forward.loss(input_ids, labels)
            if self.settings.guard == "off" or torch.isfinite(mean):
                torch.autograd.backward(mean)
        return nll.detach()

    def _step(self, norm: float) -> None:
        limit = self.settings.max_grad_norm
        if limit is not None and norm > limit:
            for parameter in self.adapter.parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(limit / norm)
        warmup = self.settings.warmup_steps
        self.optimizer.step(self.settings.lr * (min(1.0, (self.steps + 1) / warmup) if warmup else 1.0))
        self.steps += 1
        self.adapter.version += 1

    def _gradient_norm(self) -> float:
        grads = [p.grad for p in self.adapter.parameters() if p.grad is not None]
        return float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))) if grads else 0.0

    def _refusal(self, losses: list[float]) -> str:
        """Why the update must be undone, or an empty string."""
        if self.settings.guard == "off":
            return ""
        if not math.isfinite(losses[-1]):
            return "the loss is not finite"
        limit = self.settings.guard_factor * losses[0]
        if len(losses) > 1 and losses[-1] > limit:
            return f"the loss rose from {losses[0]:.1f} to {losses[-1]:.1f} nats"
        return ""

    # --- state ---

    def use_pages(self, pages: Store, *, moments: bool) -> None:
        """From now on the guard's copy, and the optimiser's `moments` too, are kept in `pages`; their values stay."""
        if isinstance(self._saved, MemoryStore):
            if self.settings.guard != "off":
                self._saved.move_to(pages)
            self._saved = pages
        if moments and isinstance(self.optimizer, optimizers.AdamW):
            self.optimizer.use_pages(pages)

    def _save(self) -> None:
        for name, tensor in self._state():
            self._saved.put(f"saved.{name}", tensor)
        self._saved_steps = self.steps

    def _load(self) -> None:
        self.restore(Stored(self._saved, "saved."))
        self.steps = self._saved_steps

    def _state(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor that learning changes, one at a time."""
        for name, parameter in self.adapter.named_parameters():
            yield f"adapter.{name}", parameter.data
        for name, tensor in self.optimizer.tensors():
            yield f"optimizer.{name}", tensor

    def snapshot(self) -> dict[str, Tensor]:
        """A copy of the adapter and of all optimiser state."""
        return {name: tensor.clone() for name, tensor in self._state()}

    def restore(self, snapshot: Lookup) -> None:
        """Puts a snapshot's values back, bit for bit; `steps` and `chunks` are the caller's."""
        self.adapter.restore(Under(snapshot, "adapter."))
        self.optimizer.load(Under(snapshot, "optimizer."))


def _once(run: Callable[[], Tensor]) -> Tensor:
    return run()


def labels_of(window: Window, settings: LearnSettings) -> int:
    """How many labels the learner takes from a window; 0 where there are too few to learn from."""
    return window.labels if window.labels >= settings.min_tokens else 0
