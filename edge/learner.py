"""One chunk -> a better adapter.

Owns: the optimiser, its schedule, the epochs, the guard and its rollback.
Does not know: documents, scoring policy, generation. Every loop teaches through here.
Units: nats, tokens, optimiser steps. Source: arXiv 2401.11504, section 3 and algorithm 1.

The schedule is constant after a warm-up that starts above zero: step n uses lr * min(1, (n + 1) / warmup).
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .adapter import Adapter
from .forward import TorchForward
from .records import Learned
from .settings import LearnSettings
from .windows import Window


class Learner:
    """Trains the adapter on one chunk at a time; optimiser state lives as long as the session.

    Attributes:
        steps: optimiser steps taken so far.
        chunks: chunks learned so far.
    """

    def __init__(self, adapter: Adapter, forward: TorchForward, settings: LearnSettings) -> None:
        self.adapter = adapter
        self.forward = forward
        self.settings = settings
        self.steps = 0
        self.chunks = 0
        self.optimizer = _optimizer(adapter.parameters(), settings)

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
        saved = self._save() if settings.guard != "off" else None
        with self.forward.learning(dropout=dropout), torch.random.fork_rng(enabled=dropout):
            for epoch in range(settings.epochs):
                torch.manual_seed(hash((settings.seed, self.chunks, epoch))) if dropout else None
                mean, nll = self.forward.loss(input_ids, labels)
                losses.append(float(nll.double().sum()))
                if epoch == 0:
                    scores = nll.detach().cpu()
                if reason := self._refusal(losses):
                    break
                torch.autograd.backward(mean)
                norm = self._gradient_norm()
                if not math.isfinite(norm) and settings.guard != "off":
                    reason = "the gradient is not finite"
                    break
                self._step(norm)
        self.optimizer.zero_grad(set_to_none=True)
        after = None
        if settings.guard == "full" and not reason:
            after = float(self.forward.nll(input_ids, labels).double().sum())
            reason = self._refusal([losses[0], after])
        if reason and saved is not None:
            self._load(saved)
        self.chunks += 1
        return Learned(tuple(losses), after, not reason, reason, time.perf_counter() - start, norm), scores

    # --- one step ---

    def _step(self, norm: float) -> None:
        limit = self.settings.max_grad_norm
        if limit is not None and norm > limit:
            for parameter in self.adapter.parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(limit / norm)
        warmup = self.settings.warmup_steps
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.lr * (min(1.0, (self.steps + 1) / warmup) if warmup else 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
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

    def _save(self) -> dict[str, Any]:
        return {"adapter": self.adapter.snapshot(), "optimizer": self.optimizer_state(), "steps": self.steps}

    def _load(self, saved: Mapping[str, Any]) -> None:
        self.adapter.restore(saved["adapter"])
        self.load_optimizer_state(saved["optimizer"])
        self.steps = saved["steps"]

    def optimizer_state(self) -> dict[str, Tensor]:
        """A copy of every tensor that the optimiser keeps, named `index.key`."""
        state = {}
        for index, parameter in enumerate(self.adapter.parameters()):
            for key, value in self.optimizer.state.get(parameter, {}).items():
                state[f"{index}.{key}"] = torch.as_tensor(value).detach().clone()
        return state

    @torch.no_grad()
    def load_optimizer_state(self, state: Mapping[str, Tensor]) -> None:
        """Puts a copied optimiser state back, bit for bit."""
        for index, parameter in enumerate(self.adapter.parameters()):
            prefix = f"{index}."
            values = {k.removeprefix(prefix): v.clone() for k, v in state.items() if k.startswith(prefix)}
            current = self.optimizer.state.get(parameter, {})
            self.optimizer.state[parameter] = {
                key: int(value) if isinstance(current.get(key), int) else value for key, value in values.items()
            }
            if not values:
                del self.optimizer.state[parameter]


def labels_of(window: Window, settings: LearnSettings) -> int:
    """How many labels the learner takes from a window; 0 where there are too few to learn from."""
    return window.labels if window.labels >= settings.min_tokens else 0


def _optimizer(parameters: list[torch.nn.Parameter], settings: LearnSettings) -> torch.optim.Optimizer:
    options: dict[str, Any] = {
        "lr": settings.lr,
        "betas": settings.betas,
        "eps": settings.eps,
        "weight_decay": settings.weight_decay,
    }
    if settings.optimizer == "adamw8bit":
        import bitsandbytes as bnb

        optimizer: torch.optim.Optimizer = bnb.optim.AdamW8bit(parameters, **options)
        return optimizer
    return torch.optim.AdamW(parameters, foreach=False, **options)
