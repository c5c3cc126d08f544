"""Records: sums, perplexity, JSON there and back."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge import errors
from edge.records import ChunkRead, ChunkScore, ChunkWritten, Learned, Side, TextPiece, from_json, perplexity, total

LEARNED = Learned((10.0, 9.0), None, True, "", 0.5, 1.25)
EXAMPLES = [
    ChunkScore(0, 0, 8, 7, 20.5, None, 1.0, 99, 30, 0.1, LEARNED),
    ChunkRead(1, 8, 16, 20, 8, 19.0, 0.5, 7, None),
    TextPiece("é", 2),
    ChunkWritten(0, 0, 8, 5, 12.0, 1.0, 0.5, 3, (4, 5), LEARNED, "eos"),
]


@pytest.mark.parametrize("record", EXAMPLES, ids=lambda r: r.kind)
def test_records_survive_json(record) -> None:  # type: ignore[no-untyped-def]
    assert from_json(json.loads(json.dumps(record.to_json()))) == record


def test_perplexity_is_the_exponential_of_the_sums() -> None:
    # Two chunks of different length: the mean of per-chunk perplexities is another number, under another name.
    side = Side().add(10.0, 10).add(90.0, 30)
    assert side.to_json()["perplexity"] == pytest.approx(math.exp(100 / 40))
    assert side.to_json()["mean_chunk_perplexity"] == pytest.approx((math.exp(1) + math.exp(3)) / 2)
    assert perplexity(1e9, 1) == math.inf
    assert math.isnan(perplexity(0.0, 0))


@given(st.lists(st.tuples(st.floats(0, 1e4), st.integers(1, 99)), min_size=1, max_size=30))
def test_totals_add_up(parts: list[tuple[float, int]]) -> None:
    chunks = [ChunkScore(i, 0, 1, tokens, nll, nll / 2, 0.0, 0) for i, (nll, tokens) in enumerate(parts)]
    base, adapter = total(chunks, "base"), total(chunks, "adapter")
    assert base.tokens == adapter.tokens == sum(tokens for _, tokens in parts)
    assert base.nll == pytest.approx(math.fsum(nll for nll, _ in parts))
    assert adapter.nll == pytest.approx(base.nll / 2)


def test_exit_codes_are_distinct_and_messages_one_line() -> None:
    kinds = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, errors.TemploraError)]
    codes = [k.exit_code for k in kinds]
    assert len(set(codes)) == len(codes) == 10
    line = errors.InputError("a\nb", "c", "d").line()
    assert line == "a b; expected c; d"
