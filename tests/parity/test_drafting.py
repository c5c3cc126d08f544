"""Drafting by lookup: the tokens, texts and caches are those of decoding one token after the other, in fewer forwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from edge.documents import Unit
from edge.memory.sizes import PROPOSED
from edge.model import control
from edge.model.forward import Cache
from edge.model.lookup import Lookup
from edge.records import Record, UnitTranslated
from edge.session import Session
from edge.translation import decoding, languages, loop, prompts
from edge.translation.asking import Draft
from edge.translation.context import Context
from edge.translation.decoding import Line, ModelTranslator
from edge.translation.guards import Limits
from edge.translation.job import Job
from edge.translation.lessons import Lessons
from edge.translation.log import Log
from edge.translation.loop import Attempt, Request
from edge.translation.prompts import Pair
from export import exporter
from export.engine import Engine
from export.runtime import OnnxForward
from tests import tiny

EN, DE = languages.find("en"), languages.find("de")
SIZES = ("window.chunk=96", "window.size=1400", "learn.lr=1e-2")
PLAIN = "compute.plain=[drafts]"
LONG = {"max_position_embeddings": 2048}
WIDE = LONG | {"sliding_window": 1200}  # sliding layers that have room for a prompt
ATTEMPTS = (Attempt(), Attempt(repetition_penalty=1.15), Attempt(temperature=0.5, repetition_penalty=1.1))
SOURCES = [f"{said} {n}." for n in (3, 12) for said in ("The ship sails in", "Chapter", "We saw")]


class Noted(Line):
    """A line whose tokens are noted."""

    said: ClassVar[list[list[int]]] = []

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.said.append([])

    def take(self, logits: Tensor) -> bool:
        going = super().take(logits)
        self.said[-1].append(self.token)
        return going


class Hinted(ModelTranslator):
    """One whose lines are said to be like these tokens."""

    hints: Sequence[list[int]] = ()

    def _lookup(self, parts: Sequence[Sequence[int]], request: Request) -> Lookup | None:
        if not self.hints or super()._lookup(parts, request) is None:
            return super()._lookup(parts, request)
        return Lookup(list(chain(*parts)), [self.hints[len(Noted.said) - 1]], self.session.base.eos_ids)


class Counting:
    """A forward path whose decoding is counted.

    Attributes:
        singles: forwards of one token.
        several: tokens of each of the others.
    """

    def __init__(self, forward: Any) -> None:
        self.singles = 0
        self.several: list[int] = []
        self._decode = forward.decode
        self._verify = forward.verify
        forward.decode = self.decode
        forward.verify = self.verify

    def decode(self, token: int, cache: Cache) -> Tensor:
        self.singles += 1
        return self._decode(token, cache)  # type: ignore[no-any-return]

    def verify(self, ids: Tensor, cache: Cache) -> Tensor:
        self.several.append(len(ids))
        return self._verify(ids, cache)  # type: ignore[no-any-return]

    @property
    def count(self) -> int:
        return self.singles + len(self.several)


def opened(architecture: str, *overrides: str, graph: Path | None = None, **changes: Any) -> Session:
    """A session of a tiny float32 model that is adapted, on torch or on a graph."""
    runtime = tiny.runtime(architecture, *SIZES, *overrides, nf4=False, **changes)
    session = runtime.session()
    assert session.adapter is not None
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for _, parameter in session.adapter.named_parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)
    session.adapter.version += 1
    if graph is not None:
        if not graph.exists():
            exporter.export(session.base, graph, "fp32")
        session.forward = OnnxForward(Engine(graph), session.adapter)
    return session


def translator(session: Session) -> Hinted:
    made = prompts.Prompts(prompts.load_template("plain"), EN, DE, session.base.tokenizer)
    made.examples = []
    return Hinted(session, made, ratio=2.0)


Book = list[tuple[Draft, list[int]]]


def book(session: Session, hints: Sequence[list[int]] = ()) -> tuple[Book, Counting]:
    """A draft and its tokens for each source and attempt, as a text goes; `hints`: what its lines are said to be like."""
    counted = Counting(session.forward)
    writer = translator(session)
    writer.hints = hints
    Noted.said.clear()
    done: list[Pair] = []
    found = []
    for number, source in enumerate(SOURCES):
        for attempt in ATTEMPTS:
            context = Context(done[:2], done[2:], 2)
            found.append(writer.translate(Request(source, context, [], attempt, 100 * number)))
        done.append(Pair(source, f"Das Schiff {source.split()[-1]} fährt."))
    session.close()
    return list(zip(found, map(list, Noted.said), strict=True)), counted


@pytest.fixture(autouse=True)
def noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "Line", Noted)


CASES = [(name, False) for name in tiny.ARCHITECTURES] + [("qwen3", True), ("gemma3_text", True), ("phi3", True)]


@pytest.mark.parametrize(("architecture", "on_graph"), CASES, ids=lambda case: str(case))
def test_a_book_is_the_same_in_fewer_forwards(architecture: str, on_graph: bool, tmp_path: Path) -> None:
    """Greedy, with a penalty and sampled; hints that are right, and hints that go wrong after some tokens."""
    graph = tmp_path / "graph" if on_graph else None
    plain, one_by_one = book(opened(architecture, PLAIN, graph=graph, **WIDE))
    assert not one_by_one.several
    right = [tokens for _, tokens in plain]
    assert one_by_one.singles == sum(map(len, right)) - len(right) > 10 * len(right)
    assert len(set(map(str, right))) > len(right) // 4

    spoiled = [[*said[: len(said) // 2], 9, *said[len(said) // 2 + 2 :]] for said in right]
    mixed = [(of if number % 3 else spoiled)[number] for number, of in enumerate([right] * len(right))]
    same, counted = book(opened(architecture, graph=graph, **WIDE), mixed)
    assert same == plain
    assert counted.count < one_by_one.count / 3
    assert max(counted.several) == 1 + PROPOSED


@pytest.mark.parametrize("on_graph", [False, True])
def test_a_book_is_the_same_where_its_own_text_is_all_there_is(on_graph: bool, tmp_path: Path) -> None:
    """Tiny models say the same things again and again: enough is found."""
    graph = tmp_path / "graph" if on_graph else None
    plain, one_by_one = book(opened("gemma3_text", PLAIN, graph=graph, **WIDE))
    same, counted = book(opened("gemma3_text", graph=graph, **WIDE))
    assert same == plain
    assert counted.several and counted.count < one_by_one.count


@pytest.mark.parametrize("architecture", ["gemma3_text", "mixtral"])
def test_a_book_is_the_same_on_the_models_own_cache(architecture: str) -> None:
    """Where no step of ours decodes."""
    plain, one_by_one = book(opened(architecture, "compute.plain=[step,drafts]", **WIDE))
    same, counted = book(opened(architecture, "compute.plain=[step]", **WIDE), [said for _, said in plain])
    assert same == plain
    assert counted.count < one_by_one.count / 4


@pytest.mark.parametrize("on_graph", [False, True])
@pytest.mark.parametrize("architecture", ["llama", "gemma3_text"])
def test_the_cache_is_that_of_one_token_after_the_other(architecture: str, on_graph: bool, tmp_path: Path) -> None:
    """Whatever of a proposal is forgotten: what is held, and what it says next."""
    session = opened(architecture, graph=tmp_path / "graph" if on_graph else None, **WIDE)
    forward = session.forward
    ids = torch.randint(2, 320, (60,), generator=torch.Generator().manual_seed(3))
    _, plain = forward.prefill(ids[:40])
    expected = [forward.decode(int(token), plain).clone() for token in ids[40:50]]
    for kept in range(1, 7):
        _, cache = forward.prefill(ids[:40])
        forward.mark(cache)
        for token in ids[40:42]:
            forward.decode(int(token), cache)
        wrong = ids[42:48].clone()
        wrong[kept:] = 7
        rows = forward.verify(wrong, cache)
        assert cache.length == 48 and rows.shape == (6, 320)
        for row, logits in zip(rows[:kept], expected[2:], strict=False):
            torch.testing.assert_close(row, logits, rtol=1e-4, atol=1e-4)
        assert forward.rewind(cache, 42 + kept) and cache.length == 42 + kept
        for at, token in enumerate(ids[42 + kept : 50], 2 + kept):
            torch.testing.assert_close(forward.decode(int(token), cache), expected[at], rtol=1e-4, atol=1e-4)
        for held, other in zip(held_in(cache), held_in(plain), strict=True):
            torch.testing.assert_close(held, other, rtol=1e-4, atol=1e-4)
        assert forward.rewind(cache, 40)  # the mark is where it was
    session.close()


def held_in(cache: Cache) -> list[Tensor]:
    """Keys and values of all layers."""
    if hasattr(cache.state, "arrays"):
        return [torch.from_numpy(array.copy()) for _, array in cache.state.arrays(cache.length)]
    return [layer.held[..., : cache.length, :].clone() for layer in cache.state.layers]


@pytest.mark.parametrize("cut", [2, 5])
def test_a_run_that_continues_verifies_the_same_proposals(cut: int) -> None:
    """A session of its own after the first records: the same lines by the same forwards, and those of a plain run."""
    units = [Unit(f"u{number:06d}", source) for number, source in enumerate([*SOURCES, *SOURCES[1:3]])]
    every = (
        "empty",
        "cut",
        "noise",
        "loop",
        "copy",
        "again",
        "talk",
        "language",
        "script",
        "length",
        "quotes",
        "numbers",
    )
    limits = Limits(off=frozenset({*every, "words", "end", "placeholders", "terms", "names"}))
    job = Job(units, EN, DE, 2, frozenset(), limits=limits, names=False)

    def run(records: list[Record], *overrides: str) -> tuple[list[str], Counting]:
        session = opened("llama", *overrides, **LONG)
        counted = Counting(session.forward)
        Noted.said.clear()
        log = Log(records, len(records))
        found = list(loop.translate(job, translator(session), Lessons(session, translator(session).prompts), log))
        session.close()
        whole.extend(found)
        return [record.text for record in found if isinstance(record, UnitTranslated)], counted

    whole: list[Record] = []
    texts, counted = run([])
    records = list(whole)
    assert len(texts) == len(units) and counted.several
    said = list(Noted.said)
    rest, again = run(records[:cut])
    done = [record.text for record in records[:cut] if isinstance(record, UnitTranslated)]
    assert done + rest == texts
    assert again.several == counted.several[len(counted.several) - len(again.several) :]
    assert Noted.said == said[len(said) - len(Noted.said) :]
    assert again.several or cut == 5
    assert run([], PLAIN)[0] == texts


def test_nothing_is_proposed_where_a_token_cannot_be_forgotten(tmp_path: Path) -> None:
    """A sliding layer that is full on torch; on a graph until its room is used up. The text is the same all the same."""
    narrow = LONG | {"sliding_window": 16}
    plain, _ = book(opened("gemma3_text", PLAIN, **narrow))
    same, counted = book(opened("gemma3_text", **narrow), [said for _, said in plain])
    assert same == plain and not counted.several
    graph = tmp_path / "graph"
    plain, one_by_one = book(opened("gemma3_text", PLAIN, graph=graph, **narrow))
    same, counted = book(opened("gemma3_text", graph=graph, **narrow), [said for _, said in plain])
    assert same == plain and counted.several and counted.count < one_by_one.count


def test_a_state_forgets_nothing() -> None:
    runtime = tiny.runtime("lfm2", *SIZES, nf4=False, layer_types=["conv", "full_attention"])
    with runtime.session() as session:
        _, cache = session.forward.prefill(torch.arange(2, 20))
        assert session.forward.spare(cache) == 0 and not session.forward.forgets


class Said:
    """A forward path that says the same line whatever it is asked, by logits that leave no doubt."""

    def __init__(self, ids: list[int], over: Callable[[int, Tensor], None] = lambda at, logits: None) -> None:
        self.ids = ids
        self.over = over
        self.asked = 0

    def row(self, at: int) -> Tensor:
        logits = torch.zeros(320)
        logits[self.ids[at]] = 9.0
        self.over(at, logits)
        return logits

    def decode(self, token: int, cache: Cache) -> Tensor:
        self.asked += 1
        cache.length += 1
        return self.row(cache.length)

    def verify(self, ids: Tensor, cache: Cache) -> Tensor:
        self.asked += 1
        cache.length += len(ids)
        first = cache.length - len(ids) + 1
        return torch.stack([self.row(min(at, len(self.ids) - 1)) for at in range(first, cache.length + 1)])

    def spare(self, cache: Cache) -> int:
        return 1000

    def rewind(self, cache: Cache, length: int) -> bool:
        cache.length = length
        return True


def said(session: Session, forward: Said, like: list[list[int]] | None, limit: int = 60, **attempt: Any) -> Draft:
    """What comes of it with lines that it may be like, or without lookup."""
    session.forward = forward  # type: ignore[assignment]
    asked = Request("A line.", Context(), [], Attempt(**attempt), 1)
    line = Line(session, [[2, 3]], limit, asked)
    cache = Cache(None)
    lookup = None if like is None else Lookup([2, 3], like, session.base.eos_ids)
    going = line.take(forward.row(0))
    while going:
        going = translator(session)._go_on(line, cache, lookup)
    return line.draft()


@pytest.fixture(scope="module")
def session() -> Any:
    with tiny.runtime("llama", *SIZES).session() as session:
        yield session


def test_an_end_inside_a_proposal_ends_the_line(session: Session) -> None:
    """Of the text (a line break) and of the model (its end token), and the limit: what stood behind it is not said."""
    words = decoding.encode_more(session, "The end is nigh")
    (line_break,) = decoding.encode_more(session, "\n")
    more = decoding.encode_more(session, " and so on and on")
    for end in (line_break, 1):
        forward = Said([*words, end, *more])
        draft = said(session, forward, [[*words, line_break, *more]])
        assert draft == Draft("The end is nigh", len(words) + 1, False)
        assert forward.asked <= 2 < len(words)
        assert said(session, Said([*words, end, *more]), None) == draft
    cut = said(session, Said([*words, *more]), [[*words, *more]], limit=9)
    assert cut == said(session, Said([*words, *more]), None, limit=9) and cut.cut and cut.tokens == 9


def test_the_penalty_counts_what_stands_before_in_the_proposal(session: Session) -> None:
    """The likeliest token is one that was written within the same proposal: the penalty takes it down, as always."""
    words = decoding.encode_more(session, "abcdefgh")
    other = decoding.encode_more(session, "x")[0]

    def doubt(at: int, logits: Tensor) -> None:
        if at == 6:
            logits[words[3]] = 9.5  # likelier than what comes, but said before
        if at == 7:
            logits[words[4]] = 12.0  # likelier even with the penalty
        if at == 8:
            logits[other] = 8.5

    ids = [*words, words[0], 1]
    plain = said(session, Said(ids, doubt), None, repetition_penalty=1.15)
    without = said(session, Said(ids, doubt), None)
    assert plain.text[:8] == "abcdefge" and without.text[6] == "d" and plain != without
    for like in ([words], [[*words[:6], words[3], *words[4:]]], [[*words[:7], words[4], other]]):
        forward = Said(ids, doubt)
        assert said(session, forward, like, repetition_penalty=1.15) == plain
        assert forward.asked < plain.tokens - 1


def test_control_tokens_are_never_written_whatever_is_proposed(session: Session) -> None:
    words = decoding.encode_more(session, "abcdef")
    barred = int(control.barred(session.base)[0])

    def tempting(at: int, logits: Tensor) -> None:
        logits[barred] = 50.0

    draft = said(session, Said([*words, 1], tempting), [[*words[:3], barred, *words[3:]]])
    assert draft == Draft("abcdef", 7, False)


def test_a_loop_is_cut_where_it_is_cut_without(session: Session) -> None:
    words = decoding.encode_more(session, "da" * 40)
    draft = said(session, Said(words), [words], limit=70)
    assert draft == said(session, Said(words), None, limit=70)
    assert draft.cut and draft.tokens < 70
