"""Which token comes next, by the logits of all: chosen where the logits are, told in one small copy.

Owns: penalty, sampling, what is never chosen. Does not know: what logits are made of, what becomes of a token.
Units: nats; logits (V,) float32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import no_numbers
from ..settings import GenerateSettings


class Picker:
    """Chooses the next token: greedy or sampled, with transformers' rules for temperature, top-k and top-p."""

    def __init__(self, settings: GenerateSettings, barred: Tensor, seed: int = 0) -> None:
        """`barred`: ids that are never chosen (`control.barred`)."""
        from transformers import generation as hf

        self.penalty = settings.repetition_penalty
        self.greedy = settings.temperature == 0
        self.seed = seed
        self.generator = torch.Generator()
        self.warpers = hf.LogitsProcessorList()
        if not self.greedy:
            if settings.temperature != 1.0:
                self.warpers.append(hf.TemperatureLogitsWarper(settings.temperature))
            if settings.top_k:
                self.warpers.append(hf.TopKLogitsWarper(settings.top_k))
            if settings.top_p < 1.0:
                self.warpers.append(hf.TopPLogitsWarper(settings.top_p))
        self._barred = barred
        self._seen: Tensor | None = None  # (V,) bool: what the penalty looks at, where the logits are
        self._begun: Sequence[int] = ()

    def begin(self, ids: Sequence[int]) -> None:
        """From now on the penalty (CTRL, arXiv 1909.05858) looks at these tokens, and at those that are chosen."""
        self._begun = ids
        self._seen = None

    def pick(self, logits: Tensor, position: int) -> tuple[int, float]:
        """The token at `position`, given (V,) logits; and its nats under the unprocessed logits.

        Chance depends on seed and position alone, so that a text continues the same wherever it was stopped.

        Raises:
            ModelError: the logits are no numbers.
        """
        self._barred = self._barred.to(logits.device)  # moved once
        scores = logits
        if self.penalty != 1.0:
            seen = self._where_seen(logits)
            scores = torch.where(seen, torch.where(scores < 0, scores * self.penalty, scores / self.penalty), scores)
        scores = scores.index_fill(0, self._barred, -math.inf)
        chosen = scores.argmax() if self.greedy else self._sampled(scores, position)
        if self._seen is not None:
            self._seen.index_fill_(0, chosen, True)
        # no number where one of the logits is none; `logits[chosen]` would wait for the device
        cost = torch.logsumexp(logits, 0) - logits.gather(0, chosen[None])[0]
        token, nats = torch.stack([chosen.double(), cost.double()]).tolist()
        if not math.isfinite(nats):
            raise no_numbers()
        return int(token), nats

    def _sampled(self, scores: Tensor, position: int) -> Tensor:
        """One draw: the token in whose share of the probabilities a number between 0 and 1 falls."""
        for warper in self.warpers:
            scores = warper(torch.empty(1, 0, dtype=torch.long), scores[None])[0]
        shares = torch.softmax(scores, -1).double().cumsum(-1)
        self.generator.manual_seed(self.seed * 1_000_003 + position)
        drawn = float(torch.rand((), generator=self.generator, dtype=torch.float64))
        return torch.searchsorted(shares, shares[-1:] * drawn, right=True)[0].clamp_(max=len(shares) - 1)

    def _where_seen(self, logits: Tensor) -> Tensor:
        if self._seen is None:
            self._seen = torch.zeros(len(logits), dtype=torch.bool, device=logits.device)
            self._seen[torch.tensor(list(self._begun), dtype=torch.long, device=logits.device)] = True
        return self._seen
