"""The drift guard: garbage never costs much, and what helps is kept."""

from __future__ import annotations

import math
import random

import pytest

from edge import records
from edge.drift import DriftGuard
from tests import tiny

GARBAGE = {
    "random characters": lambda chance: "".join(chr(chance.randrange(33, 127)) for _ in range(600)),
    "one character": lambda chance: "a" * 600,
    "newlines": lambda chance: "\n" * 600,
    "mixed scripts": lambda chance: "".join(
        chr(chance.choice((65, 0x430, 0x4E00, 0x5D0)) + chance.randrange(25)) for _ in range(250)
    ),
}


def _ratio(text: str, *options: str) -> tuple[float, list[records.ChunkScore]]:
    """Adapter's perplexity over the base's."""
    runtime = tiny.runtime("llama", "learn.lr=0.05", "learn.guard=off", *options)
    with runtime.session() as session:
        chunks = list(session.score(text))
    base, adapter = records.total(chunks, "base"), records.total(chunks, "adapter")
    return math.exp((adapter.nll - base.nll) / base.tokens), chunks


@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_never_costs_more_than_five_percent(kind: str) -> None:
    text = GARBAGE[kind](random.Random(kind))
    assert _ratio(text)[0] <= 1.05


def _told_bad(monkeypatch: pytest.MonkeyPatch, *options: str, with_base: bool = True) -> list[records.ChunkScore]:
    """A session that is told at its third comparison that the adapter has been worse for two chunks."""
    told: list[float] = []

    def sees(self: DriftGuard, adapter_nll: float, base_nll: float, tokens: int) -> bool:
        told.append(adapter_nll)
        if len(told) == 3:
            self.resting = 1
        return len(told) == 3

    monkeypatch.setattr(DriftGuard, "sees", sees)
    with tiny.runtime("llama", *options).session() as session:
        return list(session.score(tiny.TEXT, with_base=with_base))


def test_a_dropped_adapter_is_fresh_and_learning_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    chunks = _told_bad(monkeypatch)
    bad = next(c.index for c in chunks if c.learned and c.learned.reason)
    assert chunks[bad].learned.reason.startswith("dropped") and not chunks[bad].learned.kept
    resting, after, later = chunks[bad + 1 : bad + 4]
    assert resting.learned.reason == "resting" and resting.learned.skipped and not after.learned.skipped
    for chunk in (resting, after):  # its score is the base's
        assert chunk.adapter_nll == pytest.approx(chunk.base_nll, rel=1e-6)
    assert later.adapter_nll != pytest.approx(later.base_nll, rel=1e-6)


def test_an_adapter_that_helps_is_never_dropped() -> None:
    ratio, chunks = _ratio(tiny.TEXT * 6, "learn.lr=0.01")
    assert ratio < 0.9 and all(c.learned is None or c.learned.kept for c in chunks)


def test_it_is_probed_where_the_base_does_not_score(monkeypatch: pytest.MonkeyPatch) -> None:
    every, never = "learn.drift_every=1", "learn.drift_every=100"
    assert any(c.learned.reason == "resting" for c in _told_bad(monkeypatch, every, with_base=False) if c.learned)
    assert not any(c.learned.reason for c in _told_bad(monkeypatch, never, with_base=False) if c.learned)


def test_rests_grow_and_success_ends_that() -> None:
    guard = DriftGuard(0.05, 2)
    rests = []
    for _ in range(4):
        assert not guard.sees(2.0, 1.0, 1) and guard.sees(2.0, 1.0, 1)
        rests.append(sum(guard.rests() for _ in range(100)))
    assert rests == [1, 2, 4, 8]
    assert not guard.sees(0.5, 1.0, 1)
    assert not guard.sees(2.0, 1.0, 1) and guard.sees(math.nan, 1.0, 1)
    assert guard.resting == 1
    other = DriftGuard(0.05, 2)
    other.restore(guard.state())
    assert other.state() == guard.state()
    assert not DriftGuard(0.0, 1).sees(9.0, 1.0, 1)
