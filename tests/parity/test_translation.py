"""Decoding, lessons and evaluation on tiny models, against plain transformers and against the learner itself."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from edge.errors import ModelError
from edge.model import control
from edge.records import ChunkEvaluated
from edge.session import Session
from edge.translation import evaluate, languages, loop, prompts
from edge.translation import lessons as lessons_module
from edge.translation.context import Context
from edge.translation.decoding import ModelTranslator, encode_more, require_languages
from edge.translation.glossary import Glossary
from edge.translation.lessons import Lessons
from edge.translation.loop import Attempt, Job, Request
from edge.translation.prompts import Pair
from tests import tiny

EN, DE = languages.find("en"), languages.find("de")
SIZES = ("window.chunk=96", "window.size=1400", "learn.lr=4e-2")
PAIRS = [
    Pair(f"The ship sails {n}.", f"Das Schiff fährt {n}.")
    for n in ("out", "in", "on", "by", "far", "near", "again", "home")
]


@pytest.fixture(scope="module")
def runtime() -> Any:
    return tiny.runtime("qwen3", *SIZES, max_position_embeddings=2048)


def made(session: Session, examples: bool = False) -> prompts.Prompts:
    result = prompts.Prompts(prompts.load_template("plain"), EN, DE, session.base.tokenizer)
    result.examples = result.examples[:1] if examples else []
    return result


def request(source: str, context: list[Pair], attempt: Attempt | None = None, seed: int = 1) -> Request:
    return Request(source, Context(context, (), len(context)), [], attempt or Attempt(), seed)


def prompt_of(translator: ModelTranslator, asked: Request, room: int = 10_000) -> list[int] | None:
    found = translator._parts([asked], room)
    return None if found is None else [token for part in found[0] for token in part]


# --- decoding ---


def test_greedy_decoding_is_plain_argmax(runtime: Any) -> None:
    with runtime.session() as session:
        form = made(session)
        text = form.prompt(PAIRS[:2], ["A new line."])
        ids = session.base.encode(text)
        limit = 3 * len("A new line.") + 24  # a token is a byte here
        draft = ModelTranslator(session, form).translate(request("A new line.", PAIRS[:2]))
        expected: list[int] = []
        with torch.inference_mode():
            while len(expected) < limit and expected[-1:] != [1]:
                logits = session.base.model(torch.tensor([[*ids, *expected]]), use_cache=False).logits[0, -1]
                logits[control.barred(session.base)] = -torch.inf
                expected.append(int(logits.argmax()))
        plain = session.base.decode(expected).partition("\n")[0]
        assert len(plain) > 3 and plain.startswith(draft.text) and draft.tokens > 3
        assert draft.text == plain or draft.cut  # cut at the limit or at a loop


def test_a_draft_follows_from_its_request(runtime: Any) -> None:
    sampled = Attempt(temperature=1.0)
    with runtime.session() as session:
        translator = ModelTranslator(session, made(session))
        first, second, other = (translator.translate(request("A new line.", PAIRS[:2], sampled, s)) for s in (7, 7, 8))
    assert first == second != other


def test_a_prompt_loses_its_oldest_pairs_first(runtime: Any) -> None:
    with runtime.session() as session:
        translator, form = ModelTranslator(session, made(session)), made(session)
        every, some = (prompt_of(translator, request("Line.", PAIRS), room) for room in (10_000, 200))
        assert every is not None and some is not None and len(some) <= 200 < len(every)
        kept = next(n for n in range(9) if session.base.encode(form.prompt(PAIRS[n:], ["Line."])) == some)
        assert len(session.base.encode(form.prompt(PAIRS[kept - 1 :], ["Line."]))) > 200
        assert translator.translate(request("x" * 2000, PAIRS)).cut


def drafts(session: Session, *, fresh: bool) -> tuple[list[loop.Draft], int]:
    """A draft after each number of pairs, once more with another attempt; and how many tokens of prompts were read."""
    read, forward = 0, session.forward
    plain = forward.prefill, forward.extend

    def counted(method: Any) -> Any:
        def run(ids: torch.Tensor, *args: Any) -> Any:
            nonlocal read
            read += len(ids)
            return method(ids, *args)

        return run

    forward.prefill, forward.extend = (counted(method) for method in plain)  # type: ignore[method-assign]
    translator = ModelTranslator(session, made(session), ratio=0.3, extra=8)
    context, made_so_far = Context((), (), 3), []
    try:
        for number, pair in enumerate(PAIRS):
            for attempt in (Attempt(), Attempt(temperature=0.9)):
                if fresh:
                    session.reading = None
                made_so_far.append(translator.translate(Request(pair.source, context, [], attempt, number)))
            context = context.also(pair)
    finally:
        forward.prefill, forward.extend = plain  # type: ignore[method-assign]
    return made_so_far, read


@pytest.mark.parametrize("architecture", ["qwen3", "gemma3_text", "mistral"])
def test_what_was_read_for_one_line_is_not_read_again_for_the_next(architecture: str) -> None:
    """Bit for bit as if every prompt were read again: sampled drafts and greedy ones; layers that slide included."""
    with tiny.runtime(architecture, *SIZES, max_position_embeddings=2048).session() as session:
        kept, read = drafts(session, fresh=False)
        anew, all_of_it = drafts(session, fresh=True)
    assert kept == anew and len({draft.text for draft in kept}) > 10
    assert read < all_of_it / 2


@pytest.mark.parametrize("architecture", ["qwen3", "gemma3_text", "phi3"])
def test_lines_side_by_side_are_the_lines_one_by_one(architecture: str) -> None:
    """Greedy drafts of several lengths, some ending before others, of families with a step and one without; what was
    read for the context is read once, and not again for a line alone after them.
    """
    context = Context(PAIRS[:2], PAIRS[2:5], 3)
    sources = [pair.source for pair in PAIRS[5:]] + [
        "A.",
        "The ship sails over the sea and does not come back for long.",
    ]
    asked = [Request(source, context, [], Attempt(), number) for number, source in enumerate(sources)]
    with tiny.runtime(architecture, *SIZES, max_position_embeddings=2048).session() as session:
        translator = ModelTranslator(session, made(session), ratio=0.5, extra=8)
        alone = [translator.translate(one) for one in asked]
        calls = []
        forward = session.forward
        plain = forward.decode_lines
        forward.decode_lines = lambda tokens, lines: calls.append(len(tokens)) or plain(tokens, lines)  # type: ignore
        session.reading = None
        together = translator.translate_lines(asked)
        assert translator.translate(asked[0]) == alone[0]
    assert list(together) == alone and len({draft.tokens for draft in alone}) > 1
    assert calls == sorted(calls, reverse=True) and bool(calls) == (architecture != "phi3")


def test_lines_that_the_window_has_no_room_for_are_asked_for_alone(runtime: Any) -> None:
    context = Context(PAIRS[:2], PAIRS[2:5], 3)
    asked = [Request(source, context, [], Attempt(), 3) for source in ("A line.", "x" * 2000)]
    with runtime.session() as session:
        translator = ModelTranslator(session, made(session))
        short, long = translator.translate_lines(asked)
        assert short == translator.translate(asked[0]) and long == loop.Draft("", cut=True)


@pytest.mark.parametrize("form", ["plain", "chat"])
def test_what_was_asked_is_not_read_again_for_the_next_line(form: str) -> None:
    """After a line without terms only its answer and the next line are read; the drafts are as if all of it were."""
    context = Context(PAIRS[:2], PAIRS[2:4], 3)
    first = Request(PAIRS[4].source, context, [], Attempt(), 1)
    second = Request(PAIRS[5].source, context.also(Pair(PAIRS[4].source, "Ein Schiff.")), [], Attempt(), 1)
    with tiny.runtime("qwen3", *SIZES, "window.size=1500", max_position_embeddings=2048).session() as session:
        if form == "chat":
            session.base.tokenizer.chat_template = CHAT
        prompt = prompts.Prompts(prompts.load_template(form), EN, DE, session.base.tokenizer)
        translator = ModelTranslator(session, prompt)
        translator.translate(first)
        plain = session.forward.extend
        read: list[str] = []
        session.forward.extend = lambda ids, *more: read.append(session.base.decode(ids)) or plain(ids, *more)  # type: ignore
        after = translator.translate(second)
        session.reading = None
        assert translator.translate(second) == after
    assert len(read) == 2 + 7 and "Schiff." in read[0] and PAIRS[4].source not in read[0]
    assert PAIRS[5].source in read[1] and read[2:][-2:] == read[:2]


def test_a_model_with_a_state_reads_a_short_prompt_at_once() -> None:
    """It cannot go back, so nothing that was read is of use again."""
    context = Context((), [Pair(f"Line {number}.", f"Zeile {number}.") for number in range(14)], 4)
    asked = [Request(source, context, [], Attempt(), 1) for source in ("A ship.", "A sea.")]
    with tiny.runtime("lfm2", *SIZES, nf4=False, layer_types=["conv", "full_attention"]).session() as session:
        translator = ModelTranslator(session, made(session), ratio=0.5, extra=8)
        forward = session.forward
        read: list[str] = []
        for name in ("prefill", "extend"):
            plain = getattr(forward, name)
            note = lambda ids, *more, plain=plain: read.append(session.base.decode(ids)) or plain(ids, *more)  # noqa: E731
            setattr(forward, name, note)
        for one in asked:
            translator.translate(one)
    assert len(read) == 2 and all(4 <= text.count("Zeile") < 8 for text in read)


def test_a_lesson_makes_what_was_read_before_it_stale(runtime: Any) -> None:
    asked = Request(PAIRS[3].source, Context(PAIRS[:2], PAIRS[2:3], 2), [], Attempt(), 1)
    with runtime.session() as session:
        translator = ModelTranslator(session, made(session))
        before = translator.translate(asked)
        for _ in range(3):
            Lessons(session, made(session)).teach("self", (0, 4), [], PAIRS[:4])
        assert session.reading is None
        after = translator.translate(asked)
        session.reading = None
        assert before != after == translator.translate(asked)


def test_the_parts_of_a_prompt_are_its_tokens(runtime: Any) -> None:
    with runtime.session() as session:
        form = made(session, examples=True)
        asked = Request("A line.", Context(PAIRS[:2], PAIRS[2:4], 3), [("line", "Zeile")], Attempt(), 1)
        ((first, *more),) = ModelTranslator(session, form)._parts([asked], 10_000) or []
        texts = form.parts(form.context(PAIRS[:2]), PAIRS[2:4], ["A line."], [("line", "Zeile")])
        assert first == session.base.encode(texts[0]) and [session.base.decode(part) for part in more] == texts[1:]
        assert texts[-1].startswith("In these lines: line = Zeile.") and len(texts) == 6


def test_a_model_that_cannot_write_a_language_is_refused(runtime: Any) -> None:
    with runtime.session() as session:
        require_languages(session, ["A line.", "“Zwölf”"], EN, languages.find("zh"))
        from tokenizers import Tokenizer, models, pre_tokenizers
        from transformers import PreTrainedTokenizerFast

        inner = Tokenizer(models.WordLevel({"<unk>": 0, "A": 1, "line": 2, ".": 3, "Deutsch": 4}, unk_token="<unk>"))
        inner.pre_tokenizer = pre_tokenizers.Whitespace()
        before = session.base.tokenizer
        session.base.tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>")
        try:
            require_languages(session, ["A line."], EN, DE)
            with pytest.raises(ModelError, match="cannot write Chinese"):
                require_languages(session, ["A line."], EN, languages.find("zh"))
        finally:
            session.base.tokenizer = before


# --- lessons ---


class Spy:
    """A learner that notes what it is given."""

    def __init__(self, learner: Any) -> None:
        self.learner, self.seen = learner, []  # type: ignore[var-annotated]
        self.shares: list[float] = []

    def learn(self, ids: torch.Tensor, labels: int, share: float, only: torch.Tensor | None) -> Any:
        self.seen.append((ids.tolist(), labels))
        self.shares.append(share)
        self.only = only
        return self.learner.learn(ids, labels, share=share, only=only)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.learner, name)


def test_labels_are_the_target_lines_and_nothing_else() -> None:
    with tiny.runtime("qwen3", *SIZES, "window.chunk=192", max_position_embeddings=2048).session() as session:
        spy = session.learner = Spy(session.learner)  # type: ignore[assignment]
        lesson = Lessons(session, made(session), Glossary({"ship": "Schiff"})).teach(
            "self", (2, 4), PAIRS[:2], PAIRS[2:4]
        )
        ((ids, labels),) = spy.seen
    said = [f"{pair.target}\n\n" for pair in PAIRS[2:4]]
    assert spy.only is not None
    learned = [token for token, label in zip(ids[-labels:], spy.only.tolist(), strict=True) if label]
    assert session.base.decode(learned) == "".join(said) and len(learned) == lesson.tokens == len(
        "".join(said).encode()
    )
    before = session.base.decode(ids[:-labels])
    assert before == made(session).prompt(PAIRS[:2], [PAIRS[2].source], [("ship", "Schiff")])
    between = session.base.decode(ids[len(ids) - labels + len(said[0].encode()) : -len(said[1].encode())])
    assert between == "In these lines: ship = Schiff.\n" + made(session).block([PAIRS[3].source])
    assert lesson.of == "self" and (lesson.start, lesson.end) == (2, 4) and lesson.learned is not None


def test_a_lesson_on_one_pair_begins_with_the_prompt_that_decoding_used(runtime: Any) -> None:
    with runtime.session() as session:
        form = made(session, examples=True)
        ids, marks = Lessons(session, form).window(PAIRS[:3], PAIRS[3:4])
        assert ids[: marks.index(True)] == prompt_of(
            ModelTranslator(session, form), request(PAIRS[3].source, PAIRS[:3])
        )


def test_a_lessons_nats_are_those_before_learning(runtime: Any) -> None:
    with runtime.session() as session:
        lessons = Lessons(session, made(session))
        ids, marks = lessons.window(PAIRS[:2], PAIRS[2:4])
        span = marks.index(True)
        assert not all(marks[span:])

        def nats() -> float:
            nll = session.forward.nll(torch.tensor(ids), len(ids) - span)
            return float(nll[torch.tensor(marks[span:])].double().sum())

        expected = nats()
        lesson = lessons.teach("self", (2, 4), PAIRS[:2], PAIRS[2:4])
        assert lesson.nll == pytest.approx(expected, rel=1e-5)
        assert nats() < expected
        assert session.at_rest and session.chunk_index == 1


def test_chunks_never_hold_more_labels_than_a_chunk(runtime: Any) -> None:
    with runtime.session() as session:
        lessons = Lessons(session, made(session))
        packed = list(loop.chunks(PAIRS, 2, lessons))
        assert [pair for _, chunk in packed for pair in chunk] == PAIRS and len(packed) > 1
        for context, chunk in packed:
            ids, marks = lessons.window(context, chunk)
            assert len(ids) - marks.index(True) <= 96 and len(ids) <= 1400
        for (_, chunk), (_, after) in zip(packed, packed[1:], strict=False):  # none could have been longer
            ids, marks = lessons.window([], [*chunk, after[0]])
            assert len(ids) - marks.index(True) > 96


def test_corrections_are_learned_in_small_steps(runtime: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lessons_module, "SMALL", 48)
    with runtime.session() as session:
        lessons = Lessons(session, made(session))
        packed = list(loop.chunks(PAIRS, 2, lessons, "corrections"))
        assert [pair for _, chunk in packed for pair in chunk] == PAIRS
        assert len(packed) > len(list(loop.chunks(PAIRS, 2, lessons)))
        sizes = []
        for _, chunk in packed:
            ids, marks = lessons.window([], chunk)
            sizes.append(len(ids) - marks.index(True))
            assert sizes[-1] <= 72 or len(chunk) == 1  # half of a lesson more, where it was left over
        assert all(size <= 48 for size in sizes[:-1]) and sizes[-1] >= 24
    taught: list[tuple[tuple[int, int], list[Pair], list[Pair]]] = []
    teach = Lessons.teach
    monkeypatch.setattr(
        Lessons, "teach", lambda self, of, span, c, p: taught.append((span, [*c], [*p])) or teach(self, of, span, c, p)
    )
    text = [PAIRS[:4], PAIRS[4:]]
    with runtime.session() as session:  # an evaluation teaches as a translation does
        lessons = Lessons(session, made(session))
        blocks = [evaluate.Block(4 * number, pairs, False, number == 0) for number, pairs in enumerate(text)]
        translator = ModelTranslator(session, made(session))
        list(evaluate.evaluate("corrections", blocks, JOB, session, translator, lessons))
        given = list(loop.chunks(PAIRS[:4], JOB.context_units, lessons, "corrections"))
        assert [(context, pairs) for _, context, pairs in taught] == given and len(given) > 1
        spans = [span for span, _, _ in taught]
        assert spans[0][0] == 0 and spans[-1][1] == 4


def test_a_line_longer_than_a_chunk_is_taught_whole(runtime: Any) -> None:
    with runtime.session() as session:
        spy = session.learner = Spy(session.learner)  # type: ignore[assignment]
        long = Pair("x " * 40, "Wort " * 50)
        lesson = Lessons(session, made(session)).teach("self", (0, 1), PAIRS, [long])
        labels = [ids[-count:] for ids, count in spy.seen]
        assert len(labels) == 3 and all(len(ids) <= 1400 and count <= 96 for ids, count in spy.seen)
        assert [token for part in labels for token in part] == encode_more(
            session, long.target + "\n\n"
        ) and lesson.tokens == 252


def test_source_text_is_taught_line_by_line(runtime: Any) -> None:
    with runtime.session() as session:
        spy = session.learner = Spy(session.learner)  # type: ignore[assignment]
        lessons = Lessons(session, made(session))
        lessons.teach_source((0, 2), [], ["First.", "Second."])
        lessons.teach_source((2, 3), ["First.", "Second."], ["Third."])
        (first, first_labels), (second, second_labels) = spy.seen
    assert session.base.decode(first[-first_labels:]) == "First.\nSecond.\n"
    assert session.base.decode(second) == "First.\nSecond.\nThird.\n" and second_labels == len("Third.\n")


def test_nothing_is_taught_without_an_adapter() -> None:
    with tiny.runtime("qwen3", *SIZES, "learn.mode=none").session() as session:
        lesson = Lessons(session, made(session)).teach("self", (0, 2), [], PAIRS[:2])
        assert lesson.of == "none" and lesson.nll is None and lesson.learned is None


# --- evaluation ---

JOB = Job((), EN, DE, context_units=2, learn=frozenset())
CHUNKS = [PAIRS[:2], PAIRS[2:4], PAIRS[4:6], PAIRS[6:]]


def measured(
    runtime: Any,
    protocol: str,
    translate: bool = False,
    done: list[ChunkEvaluated] | None = None,
    session: Session | None = None,
    given: int | None = None,
) -> list[ChunkEvaluated]:
    session = session or runtime.session()
    lessons = Lessons(session, made(session))
    text = evaluate.blocks(CHUNKS, lessons, lambda chunk: translate and chunk is CHUNKS[-1], given)
    assert [block.start for block in text] == [0, 2, 4, 6]
    result = list(
        evaluate.evaluate(protocol, text, JOB, session, ModelTranslator(session, made(session)), lessons, done or [])
    )
    session.close()
    return result


def test_off_is_the_base_on_every_chunk(runtime: Any) -> None:
    found = measured(runtime, "off")
    with runtime.session() as session:
        for number, record in enumerate(found):
            ids, marks = Lessons(session, made(session)).window(
                PAIRS[max(0, 2 * number - 2) : 2 * number], CHUNKS[number], whole=True
            )
            logits = session.base.model(torch.tensor([ids])).logits[0].double()
            at = torch.tensor(marks).nonzero()[:, 0]
            expected = torch.nn.functional.cross_entropy(logits[at - 1], torch.tensor(ids)[at], reduction="sum")
            assert record.nll == pytest.approx(float(expected), rel=1e-4) and record.tokens == sum(marks)
            assert record.learned is None


def test_oracle_scores_before_it_learns(runtime: Any) -> None:
    off, oracle = measured(runtime, "off"), measured(runtime, "oracle")
    assert oracle[0].nll == pytest.approx(off[0].nll, rel=1e-5)
    assert sum(r.nll for r in oracle) < 0.95 * sum(r.nll for r in off)
    assert all(record.learned for record in oracle)


def test_corrections_learn_the_first_tenth_alone(runtime: Any) -> None:
    found = measured(runtime, "corrections")
    assert [record.learned is not None for record in found] == [True, False, False, False]
    more = measured(runtime, "corrections", given=3)
    assert [record.learned is not None for record in more] == [True, True, True, False]
    assert more[1].nll == found[1].nll and more[3].nll != found[3].nll
    off = measured(runtime, "off")
    assert found[0].nll == pytest.approx(off[0].nll, rel=1e-5)  # scored before it learns
    assert all(learned.nll < base.nll for learned, base in zip(found[1:], off[1:], strict=True))
    with runtime.session() as session:  # the first chunk's lesson, and no other
        lessons = Lessons(session, made(session))
        lessons.teach("corrections", (0, 2), [], CHUNKS[0])
        for number, record in enumerate(found[1:], 1):
            before = PAIRS[2 * number - 2 : 2 * number]
            _, nll = evaluate.reference_nll(lessons, before, CHUNKS[number], adapter=True)
            assert record.nll == pytest.approx(nll, rel=1e-5)


def test_self_never_sees_a_reference(runtime: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it learns are its own translations: with a translator that is no model, these."""
    taught: list[Pair] = []
    teach = Lessons.teach
    monkeypatch.setattr(
        Lessons, "teach", lambda self, of, span, c, p: taught.extend([*c, *p]) or teach(self, of, span, c, p)
    )
    monkeypatch.setattr(
        ModelTranslator,
        "translate",
        lambda self, r: loop.Draft(f"{r.source[:-1]} ja doch und nicht.".replace("The ship sails", "Die See rollt"), 9),
    )
    found = measured(runtime, "self")
    assert taught and not {pair.target for pair in taught} & {pair.target for pair in PAIRS}
    assert all(len(record.texts) == 2 for record in found) and found[-1].learned
    taught.clear()
    assert all(not record.texts for record in measured(runtime, "off")) and not taught


def test_only_marked_chunks_are_translated(runtime: Any) -> None:
    found = measured(runtime, "oracle", translate=True)
    assert [len(record.texts) for record in found] == [0, 0, 0, 2]
    assert [record.nll for record in found] == [record.nll for record in measured(runtime, "oracle")]


def test_a_prompt_shows_the_lines_before_that_its_protocol_knows(runtime: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of chunks that are not translated, the references where they are given; also where a measurement goes on."""
    asked: list[Request] = []
    answer = loop.Draft("Die See rollt ja doch und nicht.", 9)
    monkeypatch.setattr(ModelTranslator, "translate", lambda self, request: asked.append(request) or answer)

    def shown(protocol: str, done: list[ChunkEvaluated], given: int) -> list[Pair]:
        asked.clear()
        records.append(measured(runtime, protocol, translate=True, done=done, given=given))
        return asked[0].context.last()

    records: list[list[ChunkEvaluated]] = []
    assert shown("corrections", [], 3) == PAIRS[4:6]
    assert shown("corrections", records[0][:2], 3) == PAIRS[4:6]
    assert shown("corrections", [], 2) == PAIRS[2:4]
    assert shown("oracle", [], 2) == PAIRS[4:6]
    assert shown("off", [], 3) == []


def test_an_evaluation_goes_on_where_it_was(runtime: Any) -> None:
    whole = measured(runtime, "oracle")
    session = runtime.session()
    lessons = Lessons(session, made(session))
    text = evaluate.blocks(CHUNKS, lessons, lambda chunk: False)
    begun = evaluate.evaluate("oracle", text, JOB, session, ModelTranslator(session, made(session)), lessons)
    done = [next(begun), next(begun)]
    state = {name: tensor.clone() for name, tensor in session.tensors()}
    session.close()
    again = runtime.session()
    again.restore(state)
    rest = measured(runtime, "oracle", done=done, session=again)
    assert [record.nll for record in rest] == [record.nll for record in whole[2:]]


NAMED = [
    Pair(scene.format(name), said.format(called))
    for scene, said in (
        ("Now {} came.", "Nun kam {} an."), ("They saw {} there.", "Sie sahen {} dort."), ("But {} slept.", "Doch schlief {} gut."),
        ("We know {} well.", "Wir kennen {} gut."),
    )
    for name, called in (("Old Ahab", "Alter Ahab"), ("Queequeg", "Quiqueg"))
]  # fmt: skip


@pytest.mark.parametrize("protocol, known", [("off", 4), ("oracle", 6), ("corrections", 6)])
def test_names_are_remembered_as_a_protocol_knows_them(
    runtime: Any, protocol: str, known: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of what was translated, or of the references that were given; the same where a measurement goes on."""
    asked: list[Request] = []
    answers = {pair.source: pair.target for pair in NAMED}

    def translate(self: ModelTranslator, request: Request) -> loop.Draft:
        asked.append(request)
        return loop.Draft(answers[request.source], 5)

    monkeypatch.setattr(ModelTranslator, "translate", translate)
    chunks = [NAMED[:2], NAMED[2:4], NAMED[4:6], NAMED[6:]]

    def run(done: list[ChunkEvaluated], job: Job = JOB) -> list[ChunkEvaluated]:
        with runtime.session() as session:
            lessons = Lessons(session, made(session))
            text = evaluate.blocks(chunks, lessons, lambda chunk: True)
            translator = ModelTranslator(session, made(session))
            return list(evaluate.evaluate(protocol, text, job, session, translator, lessons, done))

    records = run([])
    whole = list(asked)
    assert len(whole) == 8 and sum(bool(request.terms) for request in whole) == known
    assert {term for request in whole for term in request.terms} == {
        ("Old Ahab", "Alter Ahab"),
        ("Queequeg", "Quiqueg"),
    }
    asked.clear()
    run(records[:2])
    assert [request.terms for request in asked] == [request.terms for request in whole[4:]]
    asked.clear()
    run([], dataclasses.replace(JOB, names=False))
    assert not any(request.terms for request in asked)


CHAT = "{% for m in messages %}<s>{{ m.role }}: {{ m.content }}</s>{% endfor %}{% if add_generation_prompt %}<s>assistant: {% endif %}"


def test_chat_lessons_end_with_the_end_of_the_turn() -> None:
    """Through transformers' own rendering: one BOS a turn as the template says, the answer and its end are the
    labels."""
    with tiny.runtime("qwen3", *SIZES, max_position_embeddings=2048).session() as session:
        session.base.tokenizer.chat_template = CHAT
        form = prompts.Prompts(prompts.load_template("chat"), EN, DE, session.base.tokenizer)
        ids, marks = Lessons(session, form).window(PAIRS[:2], PAIRS[2:4])
        said = [token for token, label in zip(ids, marks, strict=True) if label]
        assert session.base.tokenizer.decode(said) == f"{PAIRS[2].target}</s>{PAIRS[3].target}</s>"
        assert ids[:2] == [0, *encode_more(session, "u")] and ids.count(0) == 6 and ids[-1] == 1
        asked = prompt_of(ModelTranslator(session, form), request(PAIRS[2].source, PAIRS[:2]))
        assert asked is not None and session.base.decode(asked).endswith(f"user: {PAIRS[2].source}assistant: ")


@pytest.mark.parametrize(
    ("learn", "carried", "repairs", "used"),
    [
        (["corrections"], None, False, lessons_module.STRENGTH),
        (["corrections"], None, True, 1.0),
        (["corrections", "self"], None, False, 1.0),
        (["oracle"], None, False, 1.0),
        ([], None, False, 1.0),
        ([], 0.7, False, 0.7),
        (["corrections"], 1.0, False, 1.0),
        (["corrections"], 0.7, False, 0.7),
        (["self"], 0.7, False, 1.0),
    ],
)
def test_how_much_of_an_adapter_a_translation_uses(
    learn: list[str], carried: float | None, repairs: bool, used: float
) -> None:
    assert lessons_module.strength(learn, carried, repairs=repairs) == used


def test_references_are_scored_with_as_much_of_it_as_translates(runtime: Any) -> None:
    with runtime.session() as session:
        lessons = Lessons(session, made(session))
        lessons.teach("corrections", (0, 4), [], PAIRS[:4])
        ids, marks = lessons.window(PAIRS[:2], PAIRS[4:6])
        version = session.adapter.version
        nats = []
        for strength in (1.0, lessons_module.STRENGTH, 0.0):
            session.adapter.strength = strength
            nats.append(lessons.nll(ids, marks, adapter=True))
        assert session.adapter.version > version  # what was computed before is stale
        assert len(set(nats)) == 3 and nats[2] == pytest.approx(lessons.nll(ids, marks, adapter=False), rel=1e-5)
