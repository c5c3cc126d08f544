"""The promises of a session: nothing is scored after it was learned, sessions do not touch each other."""

from __future__ import annotations

import pytest
import torch

from edge import windows
from edge.records import ChunkScore, TextPiece
from tests import tiny


def _scores(runtime, text: str = tiny.TEXT, **options) -> list[ChunkScore]:  # type: ignore[no-untyped-def]
    with runtime.session() as session:
        return list(session.score(text, **options))


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_every_architecture_scores_learns_and_generates(architecture: str) -> None:
    runtime = tiny.runtime(architecture, "generate.ignore_eos=true")
    chunks = _scores(runtime, tiny.TEXT * 2)
    assert sum(c.tokens for c in chunks) == len(runtime.base.encode(tiny.TEXT * 2)) - 1
    half = len(chunks) // 2  # the text comes twice: the adapter knows it the second time, the base does not
    adapter = sum(c.adapter_nll for c in chunks[half:]) / sum(c.base_nll for c in chunks[half:])
    assert adapter < 0.9
    with runtime.session() as session:
        text = "".join(r.text for r in session.generate(tiny.TEXT, max_tokens=30) if isinstance(r, TextPiece))
    assert text


def test_no_token_is_scored_by_an_adapter_that_trained_on_it() -> None:
    """The order of calls: each chunk's score is taken before any step on it, and equals a frozen replay's."""
    runtime = tiny.runtime("llama")
    with runtime.session() as session:
        snapshots, chunks = [], []
        generator = session.score(tiny.TEXT)
        while True:
            snapshots.append(session.adapter.snapshot())  # the adapter before the next chunk is touched
            try:
                chunks.append(next(generator))
            except StopIteration:
                break
        tokens = list(session.tokens)
        for snapshot, chunk in zip(snapshots, chunks, strict=False):
            session.adapter.restore(snapshot)
            window = windows.window_at(0, chunk.start, chunk.end, context=40, sinks=1)
            replay = session.forward.nll(torch.tensor(window.of(tokens)), chunk.tokens).double().sum()
            assert chunk.adapter_nll == pytest.approx(float(replay), rel=1e-5)
            assert chunk.learned.losses[0] == pytest.approx(float(replay), rel=1e-5)


@pytest.mark.parametrize("mode", ["none", "all"])
def test_what_waits_after_reading_is_kept_and_not_scored(mode: str) -> None:
    """The end of what was read is no whole chunk: it is the beginning of the next one, of which the rest is scored."""
    runtime = tiny.runtime("llama", f"learn.mode={mode}")
    before, after = tiny.TEXT[:90], tiny.TEXT[90:200]
    with runtime.session() as session:
        list(session.read(before))
        read = list(session.tokens)
        waiting = len(read) - session.position
        assert waiting > 0
        chunks = list(session.score(after))
        given = runtime.base.encode(after)[1:]
        assert list(session.tokens) == [*read, *given]
        assert sum(chunk.tokens for chunk in chunks) == len(given)
        first = chunks[0]
        assert (first.start, first.tokens) == (len(read) - waiting, runtime.settings.window.chunk - waiting)
        if mode == "none":
            window = windows.window_at(0, first.start, first.end, context=40, sinks=1)
            nats = session.forward.nll(torch.tensor(window.of(session.tokens)), first.tokens, adapter=False)
            assert first.base_nll == pytest.approx(float(nats.double().sum()), rel=1e-6)


def test_what_nobody_has_read_counts_nothing() -> None:
    """A whole chunk that was given to `read`, and waits: the score has no tokens and no nats for it."""
    runtime = tiny.runtime("llama")
    with runtime.session() as session:
        chunk = session.settings.window.chunk
        session.read(tiny.TEXT[: 3 * chunk])  # nobody goes through it
        scored = list(session.score(tiny.TEXT))
    assert scored[0].tokens == 0 and scored[0].adapter_nll == 0.0
    assert all(row.tokens >= 0 for row in scored) and sum(row.tokens for row in scored) > 0


def test_a_repeated_chunk_is_only_cheaper_the_second_time() -> None:
    """Chunk 0 and 1 are the same tokens: were a chunk learned before it is scored, the first would be cheap too."""
    runtime = tiny.runtime("llama", "window.chunk=24", "window.size=25", "learn.epochs=8", bos=False)
    ids = runtime.base.encode(tiny.TEXT)[:24]
    with runtime.session() as session:
        first, second = session.score_ids(ids * 2)
    assert first.adapter_nll == pytest.approx(first.base_nll, rel=1e-6)
    assert second.adapter_nll < 0.8 * second.base_nll


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text"])
def test_fused_scoring_equals_separate_scoring(architecture: str) -> None:
    fused = _scores(tiny.runtime(architecture))
    plain = ["compute.plain=[loss, lora, first_epoch]", "compute.checkpointing=off"]
    separate = _scores(tiny.runtime(architecture, *plain))
    for a, b in zip(fused, separate, strict=True):
        assert a.base_nll == pytest.approx(b.base_nll, rel=1e-4)
        assert a.adapter_nll == pytest.approx(b.adapter_nll, rel=2e-3)
        assert (a.score_seconds == 0) and (b.score_seconds > 0)


def test_runs_with_one_seed_agree_exactly_and_sessions_are_independent() -> None:
    runtime = tiny.runtime("llama")
    alone = [c.adapter_nll for c in _scores(runtime)]
    with runtime.session() as one, runtime.session() as two:
        pairs = list(zip(one.score(tiny.TEXT), two.score(tiny.TEXT[::-1]), strict=False))
    assert [a.adapter_nll for a, _ in pairs] == alone[: len(pairs)]
    assert [c.adapter_nll for c in _scores(runtime)] == alone
    other = [c.adapter_nll for c in _scores(tiny.runtime("llama", "seed=5"))]
    assert other[2:] != alone[2:]


def test_modes_and_options() -> None:
    runtime = tiny.runtime("llama")
    both = _scores(runtime)
    none = _scores(tiny.runtime("llama", "learn.mode=none"))
    assert all(c.adapter_nll is None and c.learned is None for c in none)
    assert [c.base_nll for c in none] == pytest.approx([c.base_nll for c in both])
    no_base = _scores(runtime, with_base=False)
    assert all(c.base_nll is None for c in no_base)
    assert [c.adapter_nll for c in no_base] == [c.adapter_nll for c in both]
    short = _scores(runtime, max_tokens=30)
    assert short[-1].end == 30


def test_text_shorter_than_a_chunk_and_without_bos() -> None:
    (only,) = _scores(tiny.runtime("qwen2", bos=False), "short")
    assert (only.start, only.end, only.tokens) == (0, 5, 4)
    (with_bos,) = _scores(tiny.runtime("llama"), "short")
    assert with_bos.tokens == 5 and with_bos.text_bytes == 5


def test_a_session_continues_its_document() -> None:
    runtime = tiny.runtime("llama")
    whole = _scores(runtime)
    ids = runtime.base.encode(tiny.TEXT)
    with runtime.session() as session:
        parts = [*session.score_ids(ids[:48]), *session.score_ids(ids[48:])]
    assert [(c.start, c.end, c.adapter_nll) for c in parts] == [(c.start, c.end, c.adapter_nll) for c in whole]
