"""Counts of repetition, by hand and against plain definitions."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge.learning.repetition import novelty
from scripts.lab.studies import distinct, longest_repeat

TOKENS = st.lists(st.integers(0, 3), max_size=30)


def test_by_hand() -> None:
    assert distinct([1, 2, 1, 2, 1], 1) == 2 / 5 and distinct([1, 2, 1, 2, 1], 2) == 2 / 4
    assert distinct([1], 2) == 1.0
    assert longest_repeat([1, 2, 3, 9, 1, 2, 3, 4]) == 3 and longest_repeat([1, 2, 3]) == 0
    assert longest_repeat([5] * 10) == 9  # the two may overlap
    assert novelty([], [1, 2, 3, 4, 1, 2, 3, 4], 2) == 4 / 7  # 12 23 34 41 | 12 23 34
    assert novelty([1, 2, 3], [4, 1, 2], 2) == 2 / 3  # 34 41 | 12
    assert novelty([1, 2, 3], [], 2) == novelty([], [1], 2) == 1.0


@given(TOKENS, TOKENS, st.integers(1, 4))
def test_against_the_definitions(before: list[int], tokens: list[int], n: int) -> None:
    text = before + tokens
    ends = [end for end in range(n, len(text) + 1) if end > len(before)]
    new = [end for end in ends if text[end - n : end] not in [text[e - n : e] for e in range(n, end)]]
    assert novelty(before, tokens, n) == (len(new) / len(ends) if ends else 1.0)
    spans = [(i, j) for i in range(len(tokens)) for j in range(i + 1, len(tokens) + 1)]
    twice = [j - i for i, j in spans if any(tokens[k : k + j - i] == tokens[i:j] for k in range(i + 1, len(tokens)))]
    assert longest_repeat(tokens) == max(twice, default=0)
