"""Full attention over everything so far: what it sees, where it reads again, and that continuing gives the same
numbers."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from edge import cli, windows
from edge.model import baseline
from edge.model.baseline import FullAttention
from edge.session import Session
from tests import tiny

IDS = tiny.tokenizer()(tiny.TEXT)["input_ids"]
IDS = [*IDS, *IDS[1:]][:500]
CHUNK = 24


def _plain(session: Session, ids: list[int], start: int, end: int) -> float:
    """transformers' own forward over all of `ids`."""
    with torch.no_grad():
        logits = session.base.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    nats = torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(ids[1:]), reduction="none")
    return float(nats[len(nats) - (end - start) :].double().sum())


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_it_is_one_forward_over_the_whole_text(architecture: str) -> None:
    with tiny.runtime(architecture, nf4=False).session() as session:
        chunks = list(session.score_ids(IDS[:200], full=True))
        for chunk in chunks:
            expected = _plain(session, IDS[: chunk.end], max(1, chunk.start), chunk.end)
            assert chunk.full_nll == pytest.approx(expected, rel=1e-4)
        assert chunks[0].full_nll == pytest.approx(chunks[0].base_nll, rel=1e-5)
        assert chunks[-1].full_nll != pytest.approx(chunks[-1].base_nll, rel=1e-4)


def _limited(session: Session, limit: int) -> FullAttention:
    """With a model that knows `limit` positions."""
    session.base.model.config.max_position_embeddings = limit
    return FullAttention(session.torch_forward, session.plan, session.sinks)


def test_where_positions_run_out_the_last_tokens_are_read_again() -> None:
    with tiny.runtime("llama", "learn.mode=none", nf4=False).session() as session:
        full = _limited(session, 120)
        assert full.limit == 120
        last, seen = 0, []
        for start in range(0, len(IDS), CHUNK):
            end = min(start + CHUNK, len(IDS))
            nll, first = full.nll(IDS, start, end), max(1, start)
            if last + end - first > 120:
                last = 120 - CHUNK  # a chunk is more than an eighth
            context = windows.last(IDS[: first - 1], last, 1)
            assert nll == pytest.approx(_plain(session, [*context, *IDS[first - 1 : end]], first, end), rel=1e-4)
            last += end - first
            seen.append(last)
        assert max(seen) <= 120 and len(IDS) > 4 * 120


@pytest.mark.parametrize("at", [0, 24, 96, 120, 144, 480])
def test_going_on_gives_the_same_bits(at: int) -> None:
    with tiny.runtime("gemma3_text", "learn.mode=none").session() as session:
        full = _limited(session, 120)
        straight = [full.nll(IDS, start, min(start + CHUNK, len(IDS))) for start in range(0, len(IDS), CHUNK)]
        other = _limited(session, 120)
        assert [other.nll(IDS, s, min(s + CHUNK, len(IDS))) for s in range(at, len(IDS), CHUNK)] == straight[
            at // CHUNK :
        ]


KEPT = ("learn.mode=none", "compute.weights=cached", "compute.paging=off")


def test_what_is_kept_for_speed_gives_way_to_what_it_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    with tiny.runtime("llama", *KEPT).session() as session:
        plan = session.plan
        straight = [chunk.full_nll for chunk in session.score_ids(IDS, full=True)]
        assert session.plan is plan
    room = {"cached": 100, "some": 100, "packed": 10_000}
    monkeypatch.setattr(baseline, "_room", lambda plan: room[plan.settings.compute.weights.partition(":")[0]])
    with tiny.runtime("llama", *KEPT).session() as session:
        found = [chunk.full_nll for chunk in session.score_ids(IDS, full=True)]
        assert session.plan.settings.compute.weights == "packed" and session.plan.given_up
        assert session.full_limit is not None and session.full_limit > 100
    assert found == pytest.approx(straight, rel=1e-5)


def test_no_more_gives_way_than_must() -> None:
    """Down the plan's ladder until there is room, not further; nothing is paged for it."""
    with tiny.runtime("llama", *KEPT).session() as session:
        plan = session.plan
    tight = dataclasses.replace(plan, budget=plan.prediction.peak() + (200 << 10))
    seen = []
    for tokens in (baseline._room(tight), baseline._room(tight) + 1, 1 << 30):
        found = baseline.roomier(tight, tokens)
        seen.append(len(found.given_up))
        assert found.settings.compute.paging == "off"
        assert tokens == 1 << 30 or baseline._room(found) >= tokens
    assert seen[0] == len(tight.given_up) < seen[1] <= seen[2]


def test_it_sees_what_memory_holds() -> None:
    with tiny.runtime("llama", "learn.mode=none").session() as session:
        peak = session.plan.prediction.peak("score")
        # keys and values of 2 layers (2 groups of 16, float32), three copies of one, scores of 4 heads for 256 queries
        each = 2 * 2 * 32 * 4 + 3 * 2 * 32 * 4 + 2 * 4 * 256 * 4
        plan = dataclasses.replace(session.plan, budget=peak + 200 * each)
        assert FullAttention(session.torch_forward, plan, 1).limit == 200
        none = dataclasses.replace(session.plan, budget=peak)
        assert FullAttention(session.torch_forward, none, 1).limit == 64  # never less than a window


def test_the_command_shows_it_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, book = tiny.folder(tmp_path / "model", "qwen3"), tmp_path / "book.txt"
    book.write_text(tiny.TEXT)

    def run(*more: str) -> dict[str, Any]:
        command = [
            "score",
            str(book),
            "--model",
            str(model),
            "--against",
            "full",
            "--json",
            "--run",
            str(tmp_path / "run"),
        ]
        for setting in ("window.chunk=24", "window.size=64", "adapter.rank=4", "compute.threads=1"):
            command += ["--set", setting]
        assert cli.main([*command, *more]) == 0
        out = capsys.readouterr().out
        assert "full attention" in out
        result: dict[str, Any] = json.loads(out.splitlines()[-1])
        return result

    result = run("--report", str(tmp_path / "report"))
    assert result["full"]["nll"] == pytest.approx(sum(chunk["full_nll"] for chunk in result["chunks"]))
    assert result["full"]["perplexity"] > 1 and result["full"]["nll"] != result["base"]["nll"]
    assert (tmp_path / "report" / "perplexity.png").stat().st_size > 1000


def test_a_document_that_goes_on_between_two_chunks_sees_nothing_of_what_comes() -> None:
    with tiny.runtime("llama", "learn.mode=none", nf4=False).session() as session:
        list(session.score_ids(IDS[:100], full=True))
        for chunk in session.score_ids(IDS[100:148], full=True):
            expected = _plain(
                session, IDS[: 100 + chunk.end - chunk.start + (chunk.start - 100)], chunk.start, chunk.end
            )
            assert chunk.full_nll == pytest.approx(expected, rel=1e-4)


def test_a_first_chunk_without_labels_and_chunks_of_one_token() -> None:
    with tiny.runtime("llama", "learn.mode=none", "window.chunk=1", "window.size=40", nf4=False).session() as session:
        nats = [chunk.full_nll for chunk in session.score_ids(IDS[:20], full=True)]
        assert nats[0] == 0.0
        assert sum(nats) == pytest.approx(_plain(session, IDS[:20], 1, 20), rel=1e-4)


@pytest.mark.parametrize("architecture", ["mistral", "phi3"])
def test_layers_that_slide_by_the_config_alone_keep_their_window_only(architecture: str) -> None:
    with tiny.runtime(architecture, nf4=False, sliding_window=32).session() as session:
        chunks = list(session.score_ids(IDS[:200], full=True))
        for chunk in chunks:
            expected = _plain(session, IDS[: chunk.end], max(1, chunk.start), chunk.end)
            assert chunk.full_nll == pytest.approx(expected, rel=1e-4)
        prefix = session.torch_forward.read_prefix(torch.tensor(IDS[:200]), 300, 1)
        assert {layer.held[0].shape[2] for layer in prefix.cache.layers} == {32}


def test_a_run_that_goes_on_keeps_its_limit() -> None:
    with tiny.runtime("llama", "learn.mode=none").session() as session:
        session.full_limit = 120
        straight = [chunk.full_nll for chunk in session.score_ids(IDS[:240], full=True)]
        limit, state = session.full_limit, dict(session.tensors())
        assert limit == 120
    with tiny.runtime("llama", "learn.mode=none").session() as other:  # more memory is free now
        other.restore(state)
        assert other.full_limit == limit
        other.tokens, other.position, other.chunk_index = IDS[:120], 120, 5
        assert [chunk.full_nll for chunk in other.score_ids(IDS[120:240], full=True)] == straight[5:]
