"""Windows that begin in the middle of a document have its first tokens before them: in every loop, and in kept keys."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from edge import generate, windows
from edge.core import state
from edge.measure.reference import PlainLoop
from edge.model import picking
from edge.session import Session
from edge.translation import languages, prompts
from edge.translation.lessons import Lessons
from edge.translation.meaning import Meaning
from edge.translation.prompts import Pair
from tests import tiny

TOKENIZER = tiny.tokenizer()
IDS = TOKENIZER(tiny.TEXT)["input_ids"][:240]
CHUNK, SIZE = 24, 64
LIMIT = SIZE - CHUNK - 1  # kept tokens before what is computed


def _seen(length: int, sinks: int) -> torch.Tensor:
    """(length, length) bool, written down plainly: what each token sees where keys are kept and old ones dropped."""
    seen = torch.zeros(length, length, dtype=torch.bool)
    for start in range(0, length, CHUNK):
        first = max(0, start - 1)  # the token before the chunk is computed with it
        for query in range(first, min(start + CHUNK - 1, length)):
            for key in range(query + 1):
                dropped = first > LIMIT and sinks <= key < first - (LIMIT - sinks)
                seen[query, key] = not dropped
    return seen


def _plain_nll(architecture: str, ids: list[int], sinks: int) -> list[float]:
    """Nats of each chunk by transformers' own eager attention over the whole text at once, with that mask."""
    model = tiny.model(architecture)
    model.set_attn_implementation("eager")
    length = len(ids)
    seen = _seen(length, sinks)

    def mask(allowed: torch.Tensor) -> torch.Tensor:
        return torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min)[None, None]

    masks: Any = mask(seen)
    if architecture in ("gemma2", "gemma3_text"):
        at = torch.arange(length)
        near = (at[None] <= at[:, None]) & (at[None] > at[:, None] - 16)
        masks = {"full_attention": masks, "sliding_attention": mask(near)}
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids]), attention_mask=masks, use_cache=False).logits[0]
    nats = torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(ids[1:]), reduction="none")
    return [float(nats[max(0, start - 1) : start + CHUNK - 1].double().sum()) for start in range(0, length, CHUNK)]


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
@pytest.mark.parametrize("bos", [True, False])
def test_kept_keys_are_those_of_one_long_forward_without_what_was_dropped(architecture: str, bos: bool) -> None:
    """Over many chunks beyond the window, with nothing learned: the first tokens' keys stay, at their own positions."""
    ids = IDS if bos else IDS[1:]
    with tiny.runtime(architecture, "learn.prefix=cached", "learn.epochs=1", nf4=False, bos=bos).session() as session:
        assert session.sinks == (1 if bos else windows.SINKS)
        session.learner._step = lambda: None
        scored = [chunk.adapter_nll for chunk in session.score_ids(ids)]
        expected = _plain_nll(architecture, ids, session.sinks)
        assert scored == pytest.approx(expected, rel=1e-4)
        assert len(scored) == 10
        without = _plain_nll(architecture, ids, 0)
        assert scored[4:] != pytest.approx(without[4:], rel=1e-4)  # the mask without sinks is another one
        held = session.learner._prefix
        assert held.ids.tolist() == windows.last(ids[:-1], LIMIT, session.sinks)
        assert held.position == len(ids) - 1


def test_a_sliding_layer_that_sees_less_than_is_kept_keeps_no_sinks() -> None:
    with tiny.runtime("gemma3_text", "learn.prefix=cached").session() as session:
        list(session.score_ids(IDS))
        sliding, full = session.learner._prefix.cache.layers
        assert (sliding.held[0].shape[2], sliding.sinks) == (16, 0)
        assert (full.held[0].shape[2], full.sinks) == (LIMIT, 1)


class _Spy:
    """What a forward path was given."""

    def __init__(self, session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[list[int]] = []
        for name in ("nll", "loss", "prefill"):
            real = getattr(session.torch_forward, name)

            def watched(ids: torch.Tensor, *args: Any, _real: Any = real, **kwargs: Any) -> Any:
                self.seen.append(ids.tolist())
                return _real(ids, *args, **kwargs)

            monkeypatch.setattr(session.torch_forward, name, watched)


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("prefix", ["full", "cached", "frozen"])
def test_every_window_of_score_learn_and_drift_begins_as_the_document(
    prefix: str, bos: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "PROBE_EVERY", 1)
    with tiny.runtime("llama", f"learn.prefix={prefix}", bos=bos).session() as session:
        spy = _Spy(session, monkeypatch)
        ids = IDS if bos else [*IDS[1:], IDS[-1]]
        list(session.score_ids(ids, with_base=False))
        start = ids[: session.sinks]
        assert len(spy.seen) > 20
        assert all(window[: len(start)] == start for window in spy.seen)
        assert max(map(len, spy.seen)) == SIZE
        assert ids[: 2 * CHUNK] in spy.seen  # the document's own beginning, nothing before it
        last = [*start, *ids[len(ids) - SIZE + len(start) :]]
        assert last in spy.seen


@pytest.mark.parametrize("bos", [True, False])
def test_a_cache_that_is_rebuilt_while_writing_begins_as_the_document(
    bos: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "MIN_NOVELTY", 0)
    with tiny.runtime("qwen2", "generate.ignore_eos=true", bos=bos).session() as session:
        spy = _Spy(session, monkeypatch)
        list(session.generate(tiny.TEXT[:100], max_tokens=120))
        start = list(session.tokens[: session.sinks])
        assert len(spy.seen) > 5
        assert all(window[: len(start)] == start for window in spy.seen)
        assert max(map(len, spy.seen)) <= SIZE
        held = generate._context(session).tolist()
        assert held == [*start, *session.tokens[len(session.tokens) - len(held) + len(start) :]]


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text"])
@pytest.mark.parametrize("bos", [True, False])
def test_a_true_continuation_is_as_likely_while_writing_as_in_a_plain_forward(
    architecture: str, bos: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop that writes is told each token; its nats are those of transformers' own forward over what it holds."""
    ids, costs = (IDS if bos else IDS[1:])[:220], {}
    held: list[int] = []

    def pick(self: object, logits: torch.Tensor, position: int) -> tuple[int, float]:
        costs[position] = -float(logits.log_softmax(-1)[ids[position]])
        return ids[position], costs[position]

    monkeypatch.setattr(picking.Picker, "pick", pick)
    runtime = tiny.runtime(architecture, "learn.mode=none", "generate.ignore_eos=true", nf4=False, bos=bos)
    with runtime.session() as session:
        real = session.forward.prefill
        monkeypatch.setattr(session.forward, "prefill", lambda seen: held.append(len(session.tokens)) or real(seen))
        session.tokens.extend(ids[:70])
        list(session.generate(max_tokens=150))
        assert len(held) > 5
        for begin, end in zip(held, [*held[1:], len(ids)], strict=True):
            context = windows.last(ids[:begin], len(_context_at(session, ids, begin)), session.sinks)
            with torch.no_grad():
                logits = session.base.model(input_ids=torch.tensor([[*context, *ids[begin:end]]])).logits[0]
            nats = torch.nn.functional.cross_entropy(
                logits[len(context) - 1 : -1], torch.tensor(ids[begin:end]), reduction="none"
            )
            assert [costs[at] for at in range(begin, end)] == pytest.approx(nats.tolist(), abs=1e-3)


def _context_at(session: Session, ids: list[int], length: int) -> list[int]:
    """What a cache holds that is built with `length` tokens there: at most a window less one, from a chunk's border
    on."""
    position = length // CHUNK * CHUNK
    count = min(SIZE - CHUNK + length - position, SIZE - 1, length)
    return ids[:count]


@pytest.mark.parametrize("bos", [True, False])
def test_lessons_and_judgements_of_a_translation_begin_as_their_prompt(
    bos: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines longer than a window, whose text loses its middle and never its beginning."""
    plain = prompts.load_template("plain")
    form = prompts.Prompts(plain, languages.find("en"), languages.find("de"))
    pairs = [Pair(tiny.TEXT[:150], tiny.TEXT[100:250]), Pair("A short one.", "Ein kurzer.")]
    with tiny.runtime("llama", "window.size=400", "window.chunk=120", bos=bos).session() as session:
        spy = _Spy(session, monkeypatch)
        Lessons(session, form).teach("corrections", (0, 2), [], pairs)
        Lessons(session, form).teach_source((0, 2), [tiny.TEXT], [tiny.TEXT])
        assert len(spy.seen) >= 4 and max(map(len, spy.seen)) == 400
        starts = [
            session.base.encode(text)[: session.sinks] for text in (form.parts(form.examples, [], [""])[0], tiny.TEXT)
        ]
        assert all(window[: session.sinks] in starts for window in spy.seen)
        spy.seen.clear()
        Meaning(session, form).gains([Pair(tiny.TEXT, tiny.TEXT[::-1])] * 2)
        backwards = Meaning(session, form).backwards
        start = session.base.encode(backwards.parts(backwards.examples, [], [""])[0])[: session.sinks]
        assert spy.seen and all(window[: session.sinks] == start for window in spy.seen)


def test_the_published_form_is_reached_and_is_another_one() -> None:
    sound, published = (
        [chunk.base_nll for chunk in tiny.runtime("llama", "learn.mode=none", *wanted).session().score_ids(IDS)]
        for wanted in ([], ["window.sinks=off"])
    )
    with tiny.runtime("llama", "learn.mode=none").session() as session:
        for index, start in enumerate(range(0, len(IDS), CHUNK)):
            ids = torch.tensor(IDS[max(0, start + CHUNK - SIZE) : start + CHUNK])
            labels = CHUNK if start else CHUNK - 1
            assert published[index] == pytest.approx(float(session.forward.nll(ids, labels).double().sum()), rel=1e-5)
            if start + CHUNK > SIZE:
                ids[0] = IDS[0]  # BOS in place of the window's first token
            assert sound[index] == pytest.approx(float(session.forward.nll(ids, labels).double().sum()), rel=1e-5)
    assert sound[:2] == published[:2] and sound[3:] != published[3:]


def test_the_plain_loop_has_the_same_windows(tmp_path: Any) -> None:
    from edge import settings
    from edge.memory import planning
    from edge.weights import quantize

    folder = tmp_path / "four"
    quantize.quantize_to_folder(str(tiny.folder(tmp_path / "full", "llama")), folder)
    for sinks in ("on", "off"):
        chosen = settings.load("paper", [*tiny.WINDOW, "adapter.dropout=0", f"window.sinks={sinks}"])
        loop = PlainLoop.load(planning.find(str(folder), chosen), chosen, tiny.CPU)
        loop._step = lambda ids, labels: None  # type: ignore[method-assign]
        plain = [nll for _, nll, _ in loop.score(IDS)]
        runtime = tiny.runtime("llama", "learn.mode=none", f"window.sinks={sinks}")
        with runtime.session() as session:
            assert plain == pytest.approx([chunk.base_nll for chunk in session.score_ids(IDS)], rel=1e-3)
