"""What a translation gives away of its source, against plain transformers; and what is learned because of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from edge.documents import Unit
from edge.records import UnitTranslated
from edge.session import Session
from edge.translation import drafts, evaluate, loop, prompts
from edge.translation.decoding import ModelTranslator
from edge.translation.guards import Limits
from edge.translation.lessons import Lessons
from edge.translation.log import Log
from edge.translation.loop import Draft, Job, Request
from edge.translation.meaning import Meaning
from edge.translation.prompts import Pair
from tests import tiny
from tests.parity.test_translation import CHUNKS, DE, EN, JOB, PAIRS, SIZES, Spy, made
from tests.translators import OneByOne


@pytest.fixture(scope="module")
def runtime() -> Any:
    return tiny.runtime("qwen3", *SIZES, max_position_embeddings=2048)


def plain_nats(session: Session, lines: list[tuple[str, str]]) -> list[float]:
    """Nats per token of each second text, by transformers on the whole text."""
    form = prompts.Prompts(prompts.load_template("plain"), DE, EN)
    text, spans = form.template.start.format(source_name="German", target_name="English"), []
    for given, line in [*form.examples, *lines]:
        if (given, line) == form.examples[0]:  # the examples are one block
            text += "German:\n" + "\n".join(e.source for e in form.examples) + "\n\nEnglish:\n"
            text += "\n".join(e.target for e in form.examples) + "\n\n"
        elif (given, line) not in form.examples:
            text += f"German:\n{given}\n\nEnglish:\n"
            begin = len(session.base.encode(text))
            text += f"{line}\n\n"
            spans.append((begin, len(session.base.encode(text))))
    ids = torch.tensor(session.base.encode(text))
    with torch.inference_mode():
        logits = session.base.model(ids[None]).logits[0].double()
    nats = torch.nn.functional.cross_entropy(logits[:-1], ids[1:], reduction="none")
    return [float(nats[a - 1 : b - 1].mean()) for a, b in spans]


def test_gains_are_nats_after_another_translation_less_nats_after_its_own(runtime: Any) -> None:
    pairs = PAIRS[:3]
    with runtime.session() as session:
        found = Meaning(session, made(session)).gains(pairs)
        own = plain_nats(session, [(p.target, p.source) for p in pairs])
        others = plain_nats(session, [(pairs[(n + 1) % 3].target, p.source) for n, p in enumerate(pairs)])
    assert found == pytest.approx([b - a for a, b in zip(own, others, strict=True)], abs=2e-5)
    assert max(map(abs, found)) > 2e-3


def test_the_adapter_has_no_part_in_it(runtime: Any) -> None:
    with runtime.session() as session:
        before = Meaning(session, made(session)).gains(PAIRS)
        Lessons(session, made(session)).teach("corrections", (0, 0), [], PAIRS[:4])
        assert Meaning(session, made(session)).gains(PAIRS) == before


def test_a_single_pair_is_compared_with_the_templates(runtime: Any) -> None:
    with runtime.session() as session:
        meaning = Meaning(session, made(session))
        (example,) = meaning._example(PAIRS[:1])
        assert example.target == "Der alte Mann schloss die Tür und setzte sich ans Feuer."
        assert meaning.gains(PAIRS[:1]) != [0.0]


def test_no_line_is_lost_between_windows(runtime: Any) -> None:
    lines = [(f"given {n} " + "g" * (37 * n % 700), f"line {n}") for n in range(30)] + [("g" * 3000, "l" * 3000)]
    with runtime.session() as session:
        windows = list(Meaning(session, made(session))._windows(lines))
        assert len(windows) > 3 and all(len(ids) <= 1400 for ids, _ in windows)
        texts = [session.base.decode(ids[span]) for ids, spans in windows for span in spans]
    assert texts[:-1] == [f"{line}\n\n" for _, line in lines[:-1]]
    assert set(texts[-1]) == {"l"} and len(texts[-1]) == 1399


# --- two drafts ---

ANY = Limits(
    off=frozenset(
        ["empty", "cut", "noise", "loop", "copy", "again", "language", "script", "length", "placeholders", "numbers"]
    )
)
LINES = [Unit(f"u{number}", pair.source) for number, pair in enumerate(PAIRS[:5])]


def written(runtime: Any, candidates: int, judge: bool, done: Sequence[UnitTranslated] = ()) -> list[UnitTranslated]:
    """Five lines by a random model whose every draft passes."""
    job = Job(LINES, EN, DE, 3, frozenset(), limits=ANY, candidates=candidates)
    with runtime.session() as session:
        form = made(session)
        translator = ModelTranslator(session, form, ratio=0.5, extra=8)
        judges = Meaning(session, form) if judge else None
        teacher = Lessons(session, form)
        records = list(loop.translate(job, translator, teacher, Log(done, len(done)), judges))
    return [record for record in records if isinstance(record, UnitTranslated)]


def test_judging_changes_no_draft_and_a_doubt_makes_a_second_one(runtime: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache of the prompt is where it was; a run that goes on after a stop takes the same drafts."""
    plain = [record.text for record in written(runtime, 1, False)]
    monkeypatch.setattr(drafts, "GAIN", -1e9)
    monkeypatch.setattr(drafts, "nearer", lambda limits: limits)
    assert [record.text for record in written(runtime, 2, True)] == plain
    monkeypatch.setattr(drafts, "GAIN", 1e9)
    whole = written(runtime, 2, True)
    assert all(record.attempts == 2 and record.problems[0].startswith("judge") for record in whole)
    for count in (1, 3):
        rest = written(runtime, 2, True, whole[:count])
        assert [record.text for record in rest] == [record.text for record in whole[count:]]


# --- what is learned ---


class Gains:
    """Judges by a list."""

    def __init__(self, *gains: float) -> None:
        self.values = gains

    def gains(self, pairs: list[Pair]) -> list[float]:
        return list(self.values[: len(pairs)])


def test_nothing_is_judged_where_nobody_asks() -> None:
    with tiny.runtime("qwen3", *SIZES, max_position_embeddings=2048).session() as session:
        lessons = Lessons(session, made(session))
        lessons.meaning = None  # type: ignore[assignment]
        lesson = lessons.teach("self", (0, 2), [], PAIRS[:2])
        assert lesson.learned is not None and lesson.gains == ()


def test_all_are_judged_and_learned_where_that_is_asked_for() -> None:
    with tiny.runtime("qwen3", *SIZES, max_position_embeddings=2048).session() as session:
        lessons = Lessons(session, made(session), judges=True)
        lessons.meaning = Gains(-1.0, 1.0)  # type: ignore[assignment]
        lesson = lessons.teach("self", (0, 2), [], PAIRS[:2])
        assert lesson.gains == (-1.0, 1.0) and lesson.learned is not None
        assert lessons.teach("corrections", (0, 0), [], PAIRS[:2]).gains == ()


def test_own_translations_are_learned_at_a_smaller_rate_that_falls() -> None:
    with tiny.runtime("qwen3", *SIZES, max_position_embeddings=2048).session() as session:
        spy = session.learner = Spy(session.learner)  # type: ignore[assignment]
        lessons = Lessons(session, made(session))
        for of in ("corrections", "self", "self", "corrections"):
            lessons.teach(of, (0, 2), [], PAIRS[:2])
        assert spy.shares == [1.0, 0.25 / 2, 0.25 / 3, 1.0]


def test_a_share_of_the_rate_is_that_rate() -> None:
    results = []
    for rate, share in (("1e-2", 0.25), ("2.5e-3", 1.0)):
        with tiny.runtime("llama", f"learn.lr={rate}").session() as session:
            assert session.learner is not None and session.adapter is not None
            session.learner.learn(torch.arange(2, 50), 20, share=share)
            results.append([parameter.detach().clone() for parameter in session.adapter.parameters()])
    assert all(torch.allclose(a, b, rtol=1e-6, atol=1e-9) for a, b in zip(*results, strict=True))


class Known(OneByOne):
    """Translates from the pairs."""

    def translate(self, request: Request) -> Draft:
        return Draft(dict(PAIRS)[request.source], 9)


def test_self_learns_a_chunk_at_a_time_and_goes_on_where_it_was() -> None:

    def run(session: Session, done: list[Any]) -> Any:
        lessons = Lessons(session, made(session))
        text = evaluate.blocks(CHUNKS, lessons, lambda chunk: False)
        return evaluate.evaluate("self", text, JOB, session, Known(), lessons, done)

    built = tiny.runtime("qwen3", *SIZES, "window.chunk=192", max_position_embeddings=2048)
    with built.session() as session:
        whole = list(run(session, []))
    assert [record.learned is not None for record in whole] == [False, False, True, False]
    with built.session() as session:
        begun = run(session, [])
        done = [next(begun), next(begun)]
        state = {name: tensor.clone() for name, tensor in session.tensors()}
    with built.session() as session:
        session.restore(state)
        rest = list(run(session, done))
    assert [record.nll for record in rest] == [record.nll for record in whole[2:]]
    assert [record.learned is None for record in rest] == [record.learned is None for record in whole[2:]]
