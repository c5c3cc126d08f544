"""AdamW for the adapter: all of its state exists from the start, in memory or paged out.

Owns: Adam's moments, where they are kept, the step.
Does not know: losses, schedules, when to step.
Units: bytes. AdamW is arXiv 1711.05101, through torch's fused kernel; the 8-bit state is bitsandbytes'
(arXiv 2110.02861). Nothing is allocated late: what the first step needs is there before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from ..settings import LearnSettings
from ..weights.paging import Lookup, Store

BETAS = (0.9, 0.999)
EPS = 1e-7  # the paper's; no weight decay: of what is thrown away with its document nothing decays


class AdamW:
    """torch.optim.AdamW's numbers; with a `pages` store, moments visit the device one parameter at a time."""

    def __init__(self, parameters: Sequence[nn.Parameter], pages: Store | None = None) -> None:
        self.parameters = list(parameters)
        self.steps = [torch.zeros((), device=p.device, dtype=torch.float32) for p in self.parameters]
        self.pages = pages
        self.moments = [] if pages else [(torch.zeros_like(p), torch.zeros_like(p)) for p in self.parameters]
        if pages:
            self._make_scratch()
            for index, parameter in enumerate(self.parameters):
                zeros = self._scratch[0, : parameter.numel()].view(parameter.shape)
                self._page_out(index, (zeros, zeros))

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """One update of every parameter that has a gradient; the gradients are dropped."""
        chosen = [i for i, p in enumerate(self.parameters) if p.grad is not None]
        for group in [[i] for i in chosen] if self.pages else [chosen] if chosen else []:
            moments = [self._moments(i) for i in group]
            parameters = [self.parameters[i] for i in group]
            grads = [p.grad for p in parameters if p.grad is not None]
            adamw(
                [p.data for p in parameters],
                grads,
                [m for m, _ in moments],
                [v for _, v in moments],
                [],
                [self.steps[i] for i in group],
                fused=True,
                amsgrad=False,
                beta1=BETAS[0],
                beta2=BETAS[1],
                lr=lr,
                weight_decay=0.0,
                eps=EPS,
                maximize=False,
            )
            if self.pages:
                self._page_out(group[0], moments[0])
        drop_gradients(self.parameters)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor of the state, named `index.key`; a paged one is valid until the next is asked for."""
        for index, step in enumerate(self.steps):
            first, second = self._moments(index)
            yield f"{index}.step", step
            yield f"{index}.exp_avg", first
            yield f"{index}.exp_avg_sq", second

    @torch.no_grad()
    def load(self, state: Lookup) -> None:
        """Puts a state's values back, bit for bit."""
        for index, step in enumerate(self.steps):
            step.copy_(state[f"{index}.step"])
            moments = self._moments(index)
            for own, key in zip(moments, ("exp_avg", "exp_avg_sq"), strict=True):
                own.copy_(state[f"{index}.{key}"])
            if self.pages:
                self._page_out(index, moments)

    @torch.no_grad()
    def reset(self) -> None:
        """As if no step had been taken."""
        for index, step in enumerate(self.steps):
            step.zero_()
            moments = self._moments(index)
            for moment in moments:
                moment.zero_()
            if self.pages:
                self._page_out(index, moments)

    def use_pages(self, pages: Store) -> None:
        """From now on the moments are kept in `pages`; their values stay."""
        if self.pages is not None:
            return
        self.pages = pages
        for index in reversed(range(len(self.parameters))):
            self._page_out(index, self.moments.pop())
        self._make_scratch()

    def _make_scratch(self) -> None:
        largest = max(self.parameters, key=lambda p: p.numel())
        self._scratch = torch.zeros(2, largest.numel(), dtype=largest.dtype, device=largest.device)

    def _moments(self, index: int) -> tuple[Tensor, Tensor]:
        if not self.pages:
            return self.moments[index]
        shape = self.parameters[index].shape
        size = self.parameters[index].numel()
        first, second = (self._scratch[row, :size].view(shape) for row in (0, 1))
        return self.pages.get(f"{index}.exp_avg", first), self.pages.get(f"{index}.exp_avg_sq", second)

    def _page_out(self, index: int, moments: tuple[Tensor, Tensor]) -> None:
        assert self.pages is not None
        self.pages.put(f"{index}.exp_avg", moments[0])
        self.pages.put(f"{index}.exp_avg_sq", moments[1])


class AdamW8bit:
    """bitsandbytes' AdamW with 8-bit moments: a quarter of the memory, other roundings than `AdamW`."""

    def __init__(self, parameters: Sequence[nn.Parameter], settings: LearnSettings) -> None:
        import bitsandbytes as bnb

        self.parameters = list(parameters)
        self.settings = settings
        self._inner: Any = bnb.optim.AdamW8bit(self.parameters, lr=settings.lr, betas=BETAS, eps=EPS, weight_decay=0.0)
        self._inner.check_overrides()
        self._inner.initialized = True
        for number, group in enumerate(self._inner.param_groups):
            for index, parameter in enumerate(group["params"]):
                self._inner.init_state(group, parameter, number, index)

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """See `AdamW.step`."""
        for group in self._inner.param_groups:
            group["lr"] = lr
        self._inner.step()
        drop_gradients(self.parameters)

    def reset(self) -> None:
        """See `AdamW.reset`."""
        self._inner.state.clear()
        self.__init__(self.parameters, self.settings)  # type: ignore[misc]

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """See `AdamW.tensors`; the step count is a tensor here, and a number inside."""
        for index, parameter in enumerate(self.parameters):
            for key, value in self._inner.state[parameter].items():
                yield f"{index}.{key}", torch.as_tensor(value)

    @torch.no_grad()
    def load(self, state: Lookup) -> None:
        """See `AdamW.load`."""
        for index, parameter in enumerate(self.parameters):
            own = self._inner.state[parameter]
            for key, value in own.items():
                if isinstance(value, Tensor):
                    value.copy_(state[f"{index}.{key}"])
                else:
                    own[key] = int(state[f"{index}.{key}"])


def make(parameters: Sequence[nn.Parameter], settings: LearnSettings, pages: Store | None = None) -> AdamW | AdamW8bit:
    """The optimiser that `learn.optimizer` names; the 8-bit one is never paged."""
    return AdamW8bit(parameters, settings) if settings.optimizer == "adamw8bit" else AdamW(parameters, pages)


def drop_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Frees the gradients' memory."""
    for parameter in parameters:
        parameter.grad = None
