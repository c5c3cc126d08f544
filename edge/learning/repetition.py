"""How much a text repeats itself.

Owns: the counting. Does not know: texts, models, what is done about it.
Units: token ids; shares of n-grams.
"""

from __future__ import annotations

from collections.abc import Sequence


def distinct(tokens: Sequence[int], n: int) -> float:
    """Different n-grams over all n-grams (distinct-n of arXiv 1510.03055); 1 for a text too short to have one."""
    grams = _grams(tokens, n)
    return len(set(grams)) / len(grams) if grams else 1.0


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


def longest_repeat(tokens: Sequence[int]) -> int:
    """Length of the longest span that occurs at least twice, by neighbours in the
    sorted suffixes; the two may overlap.
    """
    suffixes = sorted(list(tokens[i:]) for i in range(len(tokens)))
    longest = 0
    for one, two in zip(suffixes, suffixes[1:], strict=False):
        if len(one) > longest and one[:longest] == two[:longest]:
            length = next(
                (i for i, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two))
            )
            longest = max(longest, length)
    return longest


def _grams(tokens: Sequence[int], n: int) -> list[tuple[int, ...]]:
    return list(zip(*(tokens[i:] for i in range(n)), strict=False))
