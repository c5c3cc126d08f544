"""Learning behind a prefix without gradient, skipped lessons and the filtered head gradient, against plain code."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from transformers import DynamicCache, cache_utils

from edge.model.forward import TorchForward
from edge.model.prefix import Prefix, windows_of
from edge.session import Session
from tests import tiny

IDS = torch.tensor(tiny.tokenizer()(tiny.TEXT)["input_ids"][:240])
WINDOW, LABELS = 64, 24


def test_windows_are_found_in_what_older_and_newer_transformers_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """5.17 has one set of options for all layers, later ones have one for each."""
    config = tiny.model("gemma3_text").config
    kinds = ["sliding_attention", "full_attention"]
    for options in ({"sliding_window": 16}, [{"sliding_window": 16}, {}]):
        monkeypatch.setattr(cache_utils, "get_layer_types_and_kwargs", lambda config, said=options: (kinds, said))
        assert windows_of(config) == [16, None]


def _taught(session: Session, chunks: int = 2) -> None:
    for index in range(chunks):
        session.learner.learn(IDS[index * LABELS : index * LABELS + WINDOW], LABELS)


def _gradients(session: Session, ids: torch.Tensor, prefix: object) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    with session.forward.learning():
        mean, nll = session.forward.loss(ids, LABELS, prefix)
        mean.backward()
    grads = {name: p.grad.clone() for name, p in session.adapter.named_parameters()}
    for parameter in session.adapter.parameters():
        parameter.grad = None
    return nll, grads


def _plain(session: Session, ids: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """transformers' own cache, filled without gradient, then the chunk with the full logits."""
    model, first = session.base.model, len(ids) - LABELS
    cache = DynamicCache(config=session.base.config)
    with session.adapter.active():
        with torch.no_grad():
            model(input_ids=ids[None, : first - 1], past_key_values=cache, use_cache=True)
        logits = model(input_ids=ids[None, first - 1 : -1], past_key_values=cache, use_cache=True).logits[0]
        nll = torch.nn.functional.cross_entropy(logits, ids[first:], reduction="none")
        nll.mean().backward()
    grads = {name: p.grad.clone() for name, p in session.adapter.named_parameters()}
    for parameter in session.adapter.parameters():
        parameter.grad = None
    return nll.detach(), grads


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
@pytest.mark.parametrize("checkpointing", ["on", "off"])
def test_a_frozen_prefix_is_a_cache_without_gradient(architecture: str, checkpointing: str) -> None:
    with tiny.runtime(architecture, f"compute.checkpointing={checkpointing}").session() as session:
        _taught(session)
        ids = IDS[:WINDOW]
        prefix = session.forward.read_prefix(ids[: WINDOW - LABELS - 1], WINDOW)
        nll, grads = _gradients(session, ids, prefix)
        expected, plain = _plain(session, ids)
        assert torch.allclose(nll, expected, atol=1e-4)
        assert torch.allclose(nll, session.forward.nll(ids, LABELS), atol=1e-4)  # the score is the whole window's
        for name, value in plain.items():
            assert float((grads[name] - value).norm()) <= 1e-3 * float(value.norm()) + 1e-7, name
        _, whole = _gradients(session, ids, None)
        assert any(float((grads[n] - whole[n]).norm()) > 1e-2 * float(whole[n].norm()) for n in whole)


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text"])
def test_a_cached_prefix_equals_one_long_forward_while_nothing_is_learned(architecture: str) -> None:
    """With no update in between, the kept keys and values are those of the whole text so far."""
    with tiny.runtime(architecture, "learn.prefix=cached", "window.size=200", "window.chunk=24").session() as session:
        learner = session.learner
        learner._step = lambda: None
        for start in range(0, 192, LABELS):
            window = IDS[max(0, start - 176) : start + LABELS]
            labels = LABELS if start else LABELS - 1
            _, nll = learner.learn(window, labels)
            assert torch.allclose(nll, session.forward.nll(window, labels), atol=1e-4)
            assert session.learner._prefix.position == start + LABELS - 1


def test_a_cached_prefix_is_kept_short_and_read_again_where_it_does_not_fit() -> None:
    with tiny.runtime("llama", "learn.prefix=cached").session() as session:
        learner, reads = session.learner, []
        real = session.forward.read_prefix
        session.forward.read_prefix = lambda ids, *more: reads.append(len(ids)) or real(ids, *more)
        records = list(session.score_ids(IDS.tolist()))
        assert reads == [0]  # once, at the start
        assert learner._prefix.ids.tolist() == [int(IDS[0]), *IDS[-39:-1].tolist()]
        assert learner._prefix.cache.layers[0].get_seq_length() == 39
        assert all(record.learned.kept for record in records)
        learner.learn(IDS[:WINDOW], LABELS)  # another place in the text
        assert reads == [0, WINDOW - LABELS - 1]
        learner._prefix.position = 500  # the model knows 512
        learner.learn(torch.cat([learner._prefix.ids, IDS[: LABELS + 1]]), LABELS)
        assert len(reads) == 3 and learner._prefix.position < 100


def test_where_positions_run_out_the_old_keys_are_given_up_before_new_ones_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runtime = tiny.runtime("llama", "learn.prefix=cached", "learn.epochs=1")
    monkeypatch.setattr(TorchForward, "position_limit", property(lambda self: 130))
    read = TorchForward.read_prefix
    made: list[weakref.ref[Prefix]] = []
    held: list[int] = []

    def watched(self: TorchForward, *args: Any, **kwargs: Any) -> Prefix:
        held.append(sum(one() is not None for one in made))
        prefix = read(self, *args, **kwargs)
        made.append(weakref.ref(prefix))
        return prefix

    monkeypatch.setattr(TorchForward, "read_prefix", watched)
    with runtime.session() as session:
        list(session.score_ids(runtime.base.encode(tiny.TEXT)[:300]))
    assert len(held) >= 3 and set(held) == {0}


@pytest.mark.parametrize("prefix", ["frozen", "cached"])
def test_learning_behind_a_prefix_lowers_the_loss(prefix: str) -> None:
    def total(*overrides: str) -> float:
        with tiny.runtime("qwen3", *overrides).session() as session:
            return sum(c.adapter_nll for c in session.score_ids(IDS.tolist() * 2))

    assert total(f"learn.prefix={prefix}") < 0.9 * total("learn.lr=1e-9")


def test_a_snapshot_with_kept_keys_goes_on_bit_for_bit() -> None:
    chunks = [IDS[start : start + WINDOW] for start in range(0, 5 * LABELS, LABELS)]

    def run(cut: bool) -> dict[str, torch.Tensor]:
        with tiny.runtime("gemma3_text", "learn.prefix=cached").session() as session:
            for ids in chunks[:3]:
                session.learner.learn(ids, LABELS)
            if cut:
                saved = session.learner.snapshot()
                session.learner.learn(chunks[0], LABELS)
                session.learner.restore(saved)
            for ids in chunks[3:]:
                session.learner.learn(ids, LABELS)
            return session.learner.snapshot()

    straight, resumed = run(False), run(True)
    assert straight.keys() == resumed.keys() and any("prefix" in name for name in straight)
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)


@pytest.mark.parametrize("more", [1, 2, 3, 5])
@pytest.mark.parametrize("bos", [True, False])
def test_the_smallest_windows_keep_their_prefix_too(more: int, bos: bool) -> None:
    overrides = ["learn.prefix=cached", "window.chunk=24", f"window.size={24 + more}"]
    with tiny.runtime("llama", *overrides, bos=bos).session() as session:
        reads: list[int] = []
        real = session.forward.read_prefix
        session.forward.read_prefix = lambda ids, *rest: reads.append(len(ids)) or real(ids, *rest)
        list(session.score_ids(IDS.tolist()[0 if bos else 1 :], with_base=False))
        assert len(reads) == 1
