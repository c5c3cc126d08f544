"""How much a text repeats itself.

Owns: the counting. Does not know: texts, models, what is done about it.
Units: token ids; shares of n-grams.
"""

from __future__ import annotations

from collections.abc import Sequence


def novelty(before: Sequence[int], tokens: Sequence[int], n: int = 4) -> float:
    """Share of the n-grams that end in `tokens` and occur neither in `before` nor earlier in `tokens`; 1
    for none at all.
    """
    text = [*before, *tokens]
    grams = _grams(text, n)
    first = max(0, len(before) - n + 1)  # the first one that ends in `tokens`
    seen = set(grams[:first])
    new = 0
    for gram in grams[first:]:
        new += gram not in seen
        seen.add(gram)
    return new / len(grams[first:]) if grams[first:] else 1.0


def _grams(tokens: Sequence[int], n: int) -> list[tuple[int, ...]]:
    return list(zip(*(tokens[i:] for i in range(n)), strict=False))
