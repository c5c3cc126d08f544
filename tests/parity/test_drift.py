"""The drift guard: garbage never costs much, and what helps is kept."""

from __future__ import annotations

import math
import random

import pytest
import torch

from edge import records
from edge.core import state
from edge.learning.drift import DriftGuard
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
    runtime = tiny.runtime("llama", "learn.lr=0.05", *options)
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
    monkeypatch.setattr(state, "PROBE_EVERY", 1)
    assert any(c.learned.reason == "resting" for c in _told_bad(monkeypatch, with_base=False) if c.learned)
    monkeypatch.setattr(state, "PROBE_EVERY", 100)
    assert not any(c.learned.reason for c in _told_bad(monkeypatch, with_base=False) if c.learned)


def _rested(guard: DriftGuard) -> int:
    """Chunks that pass until it does not rest; asking changes nothing."""
    count = 0
    while guard.rests and guard.rests:
        guard.passed()
        count += 1
    return count


def test_rests_grow_and_success_ends_that() -> None:
    guard = DriftGuard()
    rests = []
    for _ in range(4):
        assert not guard.sees(2.0, 1.0, 1) and guard.sees(2.0, 1.0, 1)
        rests.append(_rested(guard))
    assert rests == [1, 2, 4, 8]
    assert not guard.sees(0.5, 1.0, 1)
    assert not guard.sees(2.0, 1.0, 1) and guard.sees(math.nan, 1.0, 1)
    assert guard.resting == 1
    other = DriftGuard()
    other.restore(guard.state())
    assert other.state() == guard.state()
    assert not DriftGuard(on=False).sees(9.0, 1.0, 1)


def _worse(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, float]]:
    """The guard takes every adapter that it is shown for one that stays worse; what it was shown."""
    shown: list[tuple[float, float]] = []

    def sees(self: DriftGuard, adapter_nll: float, base_nll: float, tokens: int) -> bool:
        shown.append((adapter_nll, base_nll))
        self.drops += 1
        self.resting = 1
        return True

    monkeypatch.setattr(DriftGuard, "sees", sees)
    return shown


@pytest.mark.parametrize("cache", ["rebuild", "reuse"])
def test_it_looks_while_the_model_writes(cache: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both score the end of the text that was given, which the model did not write."""
    shown = _worse(monkeypatch)
    monkeypatch.setattr(state, "MIN_NOVELTY", 0)
    monkeypatch.setattr(state, "PROBE_EVERY", 1)
    options = ["generate.ignore_eos=true", f"generate.cache={cache}"]
    runtime = tiny.runtime("llama", *options)
    with runtime.session() as session:
        records_ = list(session.generate(tiny.TEXT[:100], max_tokens=200))
        given = runtime.base.encode(tiny.TEXT[:100])
        piece = torch.tensor([given[0], *given[-15:]])  # W/8 tokens after as many, BOS among them
        expected = float(session.forward.nll(piece, 8, adapter=False).double().sum())
    learned = [r.learned.reason for r in records_ if isinstance(r, records.ChunkWritten) and r.learned]
    assert "resting" in learned and "" in learned
    assert shown and all(adapter != base for adapter, base in shown)
    assert any(base == pytest.approx(expected, rel=1e-5) for _, base in shown)


def test_it_looks_while_the_model_translates(monkeypatch: pytest.MonkeyPatch) -> None:
    from edge.translation import languages, prompts
    from edge.translation.lessons import Lessons
    from edge.translation.prompts import Pair

    shown = _worse(monkeypatch)
    monkeypatch.setattr(state, "PROBE_EVERY", 1)
    runtime = tiny.runtime("llama", "window.chunk=256", "window.size=512")
    pairs = [Pair(f"The {n}th ship went out.", f"Das {n}. Schiff fuhr aus.") for n in range(6)]
    with runtime.session() as session:
        form = prompts.Prompts(
            prompts.load_template("plain"), languages.find("en"), languages.find("de"), runtime.base.tokenizer
        )
        lessons = Lessons(session, form)
        said = [lessons.teach("self", (0, 2), [], pairs[n : n + 2]).learned for n in (0, 2, 4)]
        assert session.learner is not None and session.learner.drift.drops == 1
    assert [learned.reason for learned in said if learned] == ["", "resting", ""]
    assert len(shown) == 1 and shown[0][0] != shown[0][1]
