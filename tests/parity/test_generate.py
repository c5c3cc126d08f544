"""Generation against transformers.generate, and the KV cache against recomputation."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from edge.core import state
from edge.generate import TextStream
from edge.learning.repetition import novelty
from edge.model import control
from edge.records import ChunkRead, ChunkWritten, TextPiece
from tests import tiny

PROMPT = tiny.TEXT[:60]


def _ours(runtime, prompt: str, tokens: int):  # type: ignore[no-untyped-def]
    with runtime.session() as session:
        records = list(session.generate(prompt, max_tokens=tokens))
        return list(session.tokens), records


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
@pytest.mark.parametrize("penalty", [1.0, 1.12])
def test_greedy_equals_transformers(architecture: str, penalty: float) -> None:
    overrides = ["learn.mode=none", "window.chunk=64", "window.size=256", f"generate.repetition_penalty={penalty}"]
    runtime = tiny.runtime(architecture, *overrides, "generate.ignore_eos=true")
    ids = torch.tensor([runtime.base.encode(PROMPT)])
    with torch.no_grad():
        expected = runtime.base.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=40, do_sample=False,
            repetition_penalty=penalty, eos_token_id=[319], suppress_tokens=control.barred(runtime.base).tolist(),
        )  # fmt: skip
    tokens, records = _ours(runtime, PROMPT, 40)
    assert tokens == expected[0].tolist()
    assert records[-1].finish == "length"


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_decoding_with_a_cache_equals_recomputation(architecture: str) -> None:
    """With a frozen adapter that has learned something, cached decoding and a fresh prefill agree."""
    with tiny.runtime(architecture).session() as session:
        list(session.read(tiny.TEXT))
        ids = torch.tensor(session.tokens[:40])
        _, cache = session.forward.prefill(ids[:20])
        for token in ids[20:].tolist():
            step = session.forward.decode(token, cache)
        whole, _ = session.forward.prefill(ids)
        assert cache.length == 40
        assert torch.allclose(step, whole, rtol=1e-4, atol=1e-4)
        base, _ = session.forward.prefill(ids, adapter=False)
        assert not torch.allclose(base, whole, rtol=1e-2, atol=1e-2)  # the adapter does take part


def test_nll_equals_the_logits_of_decoding() -> None:
    with tiny.runtime("gemma3_text").session() as session:
        list(session.read(tiny.TEXT))
        ids = torch.tensor(session.tokens[:30])
        nll = session.forward.nll(ids, 10)
        logits, cache = session.forward.prefill(ids[:20])
        for i, token in enumerate(ids[20:].tolist()):
            assert float(nll[i]) == pytest.approx(-float(logits.log_softmax(-1)[token]), abs=1e-4)
            logits = session.forward.decode(token, cache)


@pytest.mark.parametrize("policy", ["reuse", "rebuild"])
def test_long_prompt_is_read_then_continued(policy: str) -> None:
    runtime = tiny.runtime("llama", f"generate.cache={policy}", "generate.ignore_eos=true")
    prompt = tiny.TEXT * 2
    tokens, records = _ours(runtime, prompt, 60)
    prompt_ids = runtime.base.encode(prompt)
    assert tokens[: len(prompt_ids)] == prompt_ids and len(tokens) == len(prompt_ids) + 60
    reads = [r for r in records if isinstance(r, ChunkRead)]
    written = [r for r in records if isinstance(r, ChunkWritten)]
    assert len(reads) == len(prompt_ids) // 24  # every whole chunk of the prompt was learned
    assert [i for r in [*reads, *written] for i in range(r.start, r.end)] == list(range(len(tokens)))
    assert [t for w in written for t in w.token_ids] == tokens[len(prompt_ids) :]
    assert all(w.learned is not None for w in written[:-1])
    assert "".join(r.text for r in records if isinstance(r, TextPiece)) == runtime.base.decode(
        tokens[len(prompt_ids) :]
    )


def test_cache_never_exceeds_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = tiny.runtime("llama", "generate.ignore_eos=true")
    lengths, prefills = [], []
    with runtime.session() as session:
        decode, prefill = session.forward.decode, session.forward.prefill
        monkeypatch.setattr(session.forward, "decode", lambda t, c: (lengths.append(c.length + 1), decode(t, c))[1])
        monkeypatch.setattr(session.forward, "prefill", lambda ids: (prefills.append(len(ids)), prefill(ids))[1])
        list(session.generate(tiny.TEXT, max_tokens=120))
    assert max(lengths) <= 64
    assert len(prefills) > 2 and max(prefills) < 64


def test_two_runs_with_one_seed_agree_and_another_differs() -> None:
    sampling = ["generate.temperature=1", "generate.ignore_eos=true"]
    a, _ = _ours(tiny.runtime("llama", *sampling), PROMPT, 50)
    b, _ = _ours(tiny.runtime("llama", *sampling), PROMPT, 50)
    c, _ = _ours(tiny.runtime("llama", *sampling, "seed=1"), PROMPT, 50)
    assert a == b != c


def test_stop_strings_end_the_text_and_are_left_out() -> None:
    runtime = tiny.runtime("llama", "learn.mode=none", "generate.ignore_eos=true")
    _, records = _ours(runtime, PROMPT, 40)
    text = "".join(r.text for r in records if isinstance(r, TextPiece))
    stop = text[10:13]
    chosen = tiny.runtime("llama", "learn.mode=none", "generate.ignore_eos=true", f"generate.stop=[{stop!r}]")
    _, records = _ours(chosen, PROMPT, 40)
    stopped = "".join(r.text for r in records if isinstance(r, TextPiece))
    assert stopped == text[: text.index(stop)]
    assert records[-1].finish == "stop"


@hypothesis_settings(max_examples=60, deadline=None)
@given(st.text(min_size=1, max_size=40))
def test_streamed_text_is_the_whole_text(text: str) -> None:
    """Whatever the bytes of the characters are, the pieces join to the decoded whole."""
    tokenizer = tiny.tokenizer()

    class Fake:
        eos_ids = frozenset()

        @staticmethod
        def decode(ids: list[int]) -> str:
            return str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    stream = TextStream(Fake, tokenizer("before ")["input_ids"], ())  # type: ignore[arg-type]
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    pieces = [stream.add(token) for token in ids]
    assert "".join(pieces) + stream.flush() == Fake.decode(ids)


def test_what_repeats_itself_is_not_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny model without a penalty writes in circles; with the gate those chunks leave the adapter alone."""
    common = ["generate.ignore_eos=true", "generate.repetition_penalty=1", "learn.guard=off"]
    learned, prints = {}, {}
    for limit in (0.0, 0.8):
        monkeypatch.setattr(state, "MIN_NOVELTY", limit)
        with tiny.runtime("llama", *common).session() as session:
            records = list(session.generate(tiny.TEXT[:100], max_tokens=96))
            learned[limit] = [r.learned for r in records if isinstance(r, ChunkWritten) and r.learned]
            prints[limit] = session.adapter.fingerprint()
            shares = [
                novelty(session.tokens[max(0, r.start - 40) : r.start], session.tokens[r.start : r.end])
                for r in records
                if isinstance(r, ChunkWritten) and r.learned
            ]
    assert not any(x.skipped for x in learned[0.0])
    assert [x.skipped for x in learned[0.8]] == [share < 0.8 for share in shares]
    skipped = [x for x in learned[0.8] if x.skipped]
    assert skipped and all(x.reason == "repeats itself" and not x.losses for x in skipped)
    assert prints[0.0] != prints[0.8]
