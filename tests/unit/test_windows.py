"""Windows: every token is new exactly once, the context is what lies before it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import SettingsError
from edge.windows import check, last, windows


@given(st.integers(0, 400), st.integers(1, 60), st.integers(1, 90))
def test_every_token_is_new_exactly_once(length: int, chunk: int, context: int) -> None:
    pieces = list(windows(length, chunk=chunk, context=context))
    assert [t for w in pieces for t in range(w.start, w.end)] == list(range(length))
    for index, w in enumerate(pieces):
        assert w.index == index
        assert w.context == min(w.start, context)
        assert w.size <= chunk + context
        # a plain statement of the labels: each new token that has a token before it
        labels = [t for t in range(w.start, w.end) if t > 0]
        assert w.labels == len(labels)
        if labels:
            assert w.context_start + w.size - w.labels == labels[0]


@given(st.integers(0, 400), st.integers(1, 60), st.integers(1, 90), st.integers(0, 5))
def test_a_window_is_the_documents_first_tokens_and_its_last(length: int, chunk: int, context: int, sinks: int) -> None:
    document = list(range(1000, 1000 + length))
    plain = windows(length, chunk=chunk, context=context)
    for w, without in zip(windows(length, chunk=chunk, context=context, sinks=sinks), plain, strict=True):
        assert (w.index, w.start, w.end, w.size, w.labels) == (
            without.index, without.start, without.end, without.size, without.labels
        )  # fmt: skip
        ids = w.of(document)
        assert len(ids) == w.size and len(set(ids)) == w.size
        count = min(sinks, context - 1) if w.start > context else 0
        assert ids[:count] == document[:count]
        assert ids[count:] == document[w.end - w.size + count : w.end]
        assert last(document[: w.start], context, sinks) == ids[: w.context]


def test_the_documented_example() -> None:
    first, second, third = windows(1100, chunk=512, context=512)
    assert (first.labels, second.labels, third.labels) == (511, 512, 76)
    assert (third.context_start, third.start, third.end) == (512, 1024, 1100)
    *_, third = windows(1100, chunk=512, context=512, sinks=4)
    assert (third.sinks, third.context_start, third.context, third.size, third.labels) == (4, 516, 512, 588, 76)


@pytest.mark.parametrize(("chunk", "size"), [(0, 10), (-1, 4), (8, 8), (8, 3)])
def test_impossible_sizes(chunk: int, size: int) -> None:
    with pytest.raises(SettingsError):
        check(chunk, size)
