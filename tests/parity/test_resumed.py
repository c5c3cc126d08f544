"""A run that was stopped anywhere continues with the same bits as one that was not."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from edge import places, resume, settings
from edge.errors import JournalError
from edge.records import ChunkRead, ChunkWritten, Record, TextPiece
from edge.session import Runtime, Session
from edge.weights import tensorfile
from tests import tiny

TEXT = tiny.TEXT * 2
OPTIONS = ("generate.ignore_eos=true", "generate.temperature=1.0", "seed=3")


def _open(runtime: Runtime, folder: Path, *, again: bool, command: str = "score", every: int = 2) -> resume.Run:
    where = places.place(command, "text", {}, folder=folder, resume=again)
    return resume.open_run(where, command, runtime, {"text": TEXT}, every=every)


def _state(session: Session) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in session.tensors()}


def _equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def _score(runtime: Runtime, folder: Path, stop_after: int | None, again: bool) -> tuple[list[Record], dict]:  # type: ignore[type-arg]
    ids = runtime.base.encode(TEXT)
    with _open(runtime, folder, again=again) as run, runtime.session() as session:
        done = run.restore(session)
        for chunk in session.score_ids(ids[session.position :]):
            done.append(run.add(chunk, session))
            if len(done) == stop_after:
                break
        return done, _state(session)


@pytest.mark.parametrize(
    "options", [(), ("learn.prefix=cached",), ("adapter.dropout=0.1",), ("learn.optimizer=adamw8bit",)]
)
def test_score_goes_on_with_the_same_bits(options: tuple[str, ...], tmp_path: Path) -> None:
    runtime = tiny.runtime("qwen3", *options)
    whole, state = _score(runtime, tmp_path / "whole", None, False)
    assert len(whole) >= 6
    for first in (1, 3, 4):
        folder = tmp_path / str(first)
        _score(runtime, folder, first, False)
        _score(runtime, folder, first + 1, True)  # stopped again
        done, again = _score(runtime, folder, None, True)
        assert [resume.same(a, b) for a, b in zip(done, whole, strict=True)] == [True] * len(whole)
        assert _equal(state, again)


@pytest.mark.parametrize(
    "planned", [("learn.prefix=cached",), ("learn.prefix=full",), ("learn.prefix=full", "adapter.rank=2")]
)
def test_going_on_keeps_what_the_planner_chose(planned: tuple[str, ...], tmp_path: Path) -> None:
    """`auto`, and what a budget lowered, are what they were when the run began, whatever the planner would say now;
    another choice by name is refused."""
    began = tiny.runtime("qwen3", "learn.prefix=auto")
    plan = dataclasses.replace(began.plan, settings=began.plan.settings.override(planned))
    began = Runtime(began.base, began.settings, plan)
    whole, state = _score(began, tmp_path / "whole", None, False)
    folder = tmp_path / "run"
    _score(began, folder, 2, False)
    asked = settings.load("economical", [*tiny.WINDOW, "learn.prefix=auto"])
    where = places.place("score", "text", {}, folder=folder, resume=True)
    chosen = where.settings(asked)
    assert (
        (chosen.learn, chosen.adapter) == (plan.settings.learn, plan.settings.adapter) != (asked.learn, asked.adapter)
    )
    done, again = _score(Runtime(began.base, chosen), folder, None, True)
    assert [resume.same(a, b) for a, b in zip(done, whole, strict=True)] == [True] * len(whole)
    assert _equal(state, again)
    other = asked.override(["learn.prefix=frozen"])
    assert where.settings(other).learn.prefix == "frozen"
    with pytest.raises(JournalError, match="prefix"):
        _open(Runtime(began.base, other), folder, again=True)


def _write(runtime: Runtime, folder: Path, prompt: str, stop_after: int | None, again: bool) -> tuple[str, dict]:  # type: ignore[type-arg]
    with _open(runtime, folder, again=again, command="write", every=1) as run, runtime.session() as session:
        done = run.restore(session)
        written = sum(r.tokens for r in done if isinstance(r, ChunkWritten))
        text, count = "", 0
        for record in session.generate(
            "" if done else prompt, max_tokens=300, written=written, reading=bool(done) and not written
        ):
            if isinstance(record, TextPiece):
                text += record.text
                continue
            run.add(record, session)
            count += 1
            if count == stop_after:
                break
        return text, _state(session)


@pytest.mark.parametrize("length", [20, 400])
def test_writing_goes_on_with_the_same_text(length: int, tmp_path: Path) -> None:
    """Sampled text; with the long prompt some stops come while it is still being read."""
    runtime = tiny.runtime("gemma3_text", *OPTIONS)
    prompt = TEXT[:length]
    text, state = _write(runtime, tmp_path / "whole", prompt, None, False)
    assert len(text) > 100
    for first in (1, 3, 6):
        folder = tmp_path / str(first)
        _write(runtime, folder, prompt, first, False)
        again, same = _write(runtime, folder, prompt, None, True)
        assert again == text
        assert _equal(state, same)


def test_writing_rests_only_where_the_cache_is_rebuilt() -> None:
    runtime = tiny.runtime("llama", *OPTIONS)
    rests = []
    with runtime.session() as session:
        for record in session.generate(TEXT[:20], max_tokens=200):
            if isinstance(record, (ChunkWritten, ChunkRead)):
                rests.append(session.at_rest)
    assert True in rests and False in rests


def test_other_numbers_are_refused(tmp_path: Path) -> None:
    """Records that come out differently when they are done again (another machine, a changed file)."""
    runtime = tiny.runtime("llama")
    _score(runtime, tmp_path / "run", 2, False)  # the snapshot is after record 2
    with _open(runtime, tmp_path / "run", again=True) as run, runtime.session() as session:
        chunk = next(session.score_ids(runtime.base.encode(TEXT[::-1])))
        with pytest.raises(JournalError, match="record 1 came out differently"):
            run.add(chunk, session)


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    _score(tiny.runtime("llama"), tmp_path / "run", 2, False)
    with pytest.raises(JournalError, match=r"learn\.lr 0\.\d+ -> 0\.5"):
        _score(tiny.runtime("llama", "learn.lr=0.5"), tmp_path / "run", 2, True)


def test_tensor_file_is_what_the_library_reads(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    tensors = {
        "a": torch.randn(3, 5),
        "b": torch.arange(4, dtype=torch.int32),
        "none": torch.empty(0),
        "c": torch.tensor(2.5),
    }
    tensors["d"] = torch.randn(4, 4, dtype=torch.bfloat16).T
    tensorfile.write(tmp_path / "x.safetensors", lambda: iter(tensors.items()))
    theirs, ours = load_file(tmp_path / "x.safetensors"), tensorfile.TensorFile(tmp_path / "x.safetensors")
    assert theirs.keys() == tensors.keys() == set(ours)
    for name, tensor in tensors.items():
        assert torch.equal(theirs[name], tensor) and torch.equal(ours[name], tensor)
