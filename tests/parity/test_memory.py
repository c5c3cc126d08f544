"""Every result-preserving way to save memory preserves results; running out of memory loses nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from edge import session as session_module
from edge.errors import BudgetError
from edge.learning import learner
from edge.machine import device, held
from edge.machine.allocator import release_memory
from edge.model import forward as forward_module
from tests import tiny

IDS = torch.tensor(tiny.tokenizer()(tiny.TEXT)["input_ids"]).tolist()


def _run(*overrides: str) -> tuple[list[float], dict[str, torch.Tensor]]:
    with tiny.runtime("llama", "learn.epochs=2", *overrides).session() as session:
        losses = [c.adapter_nll for c in session.score_ids(IDS, with_base=False)]
        return losses, session.adapter.snapshot()


CHOICES = [
    "compute.loss_slice=7",
    "compute.checkpointing=off",
    "compute.weights=cached",
    "compute.weights=some:1",
    "compute.heap=keep",
    "compute.paging=guard",
    "compute.paging=all",
]


@pytest.mark.parametrize("choice", CHOICES)
def test_choice_preserves_losses_and_adapter(choice: str) -> None:
    plain = ("compute.loss_slice=512", "compute.checkpointing=on", "compute.weights=packed", "compute.heap=return")
    losses, adapter = _run(*plain)
    others, same = _run(*plain, *choice.split())
    assert others == pytest.approx(losses, rel=1e-5)
    for name, value in adapter.items():
        assert float((same[name] - value).norm()) <= 1e-3 * float(value.norm()) + 1e-7, name
    if any(word in choice for word in ("paging", "heap", "weights")):  # nothing is computed differently: bit for bit
        assert others == losses and all(torch.equal(same[n], adapter[n]) for n in adapter)


def test_copies_of_some_blocks_give_the_same_numbers_and_the_same_text() -> None:
    """In float32, where a copy holds what each use would make anew: bit for bit, however many blocks have one."""

    def run(*overrides: str) -> tuple[list[int], torch.Tensor, int]:
        options = ("compute.matmul=float32", "generate.ignore_eos=true", *overrides)
        runtime = tiny.runtime("qwen2", *options, layers=3)
        with runtime.session() as session:
            copies = [linear for _, linear in runtime.base.linears() if hasattr(linear, "dequantized")]
            list(session.generate("Call me Ishmael.", max_tokens=40))
            return list(session.tokens), session.forward.nll(torch.tensor(IDS[:64]), 24), len(copies)

    plain, nats, none = run("compute.weights=packed")
    every = run("compute.weights=cached")[2]
    assert none == 0 and every > 0
    for kept in (1, 2, 3, 9):
        tokens, found, copies = run(f"compute.weights=some:{kept}")
        assert tokens == plain and torch.equal(found, nats)
        assert copies == every * min(kept, 3) // 3


def test_a_tighter_plan_drops_copies_of_the_first_blocks_first() -> None:
    runtime = tiny.runtime("qwen2", "compute.weights=some:3", "compute.paging=all", layers=4)
    with runtime.session() as session:
        seen = []
        while True:
            names = [name for name, linear in runtime.base.linears() if hasattr(linear, "dequantized")]
            seen.append(sorted({int(name.split("layers.")[1].split(".")[0]) for name in names}))
            if session.plan.tighter() is None:
                break
            session.memory.tighten("for a test")
        assert seen[0] == [1, 2, 3] and seen[-1] == [] and [2, 3] in seen and [3] in seen
        assert [len(blocks) for blocks in seen] == sorted((len(blocks) for blocks in seen), reverse=True)
        assert len(list(session.score_ids(IDS[:40]))) == 2


def test_rolling_back_from_pages_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learner, "MAX_RISE", 1.05)

    def run(paging: str) -> dict[str, torch.Tensor]:
        overrides = ["learn.lr=60", "learn.epochs=3"]
        with tiny.runtime("llama", *overrides, f"compute.paging={paging}").session() as session:
            before = session.adapter.snapshot()
            learned, _ = session.learner.learn(torch.tensor(IDS[:64]), 24)
            assert not learned.kept
            assert all(torch.equal(before[n], p) for n, p in session.adapter.named_parameters())
            return session.learner.snapshot()

    kept, paged = run("off"), run("all")
    assert all(torch.equal(kept[n], paged[n]) for n in kept)


def test_paging_the_cache_preserves_the_text() -> None:
    def run(paging: str) -> list[int]:
        with tiny.runtime("gemma3_text", f"compute.paging={paging}", "generate.ignore_eos=true").session() as session:
            list(session.generate("Call me Ishmael.", max_tokens=70))
            return list(session.tokens)

    assert run("cache") == run("off")


def _failing(times: int, real: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    left = [times]

    def run(*args: object, **kwargs: object) -> torch.Tensor:
        if left[0]:
            left[0] -= 1
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        return real(*args, **kwargs)

    return run


def test_running_out_of_memory_retries_the_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    losses, adapter = _run("compute.loss_slice=512", "compute.checkpointing=off")
    with tiny.runtime("llama", "compute.loss_slice=512", "compute.checkpointing=off").session() as session:
        monkeypatch.setattr(session.forward, "loss", _failing(2, session.forward.loss))
        again = [c.adapter_nll for c in session.score_ids(IDS, with_base=False)]
        assert len(session.plan.given_up) == 2 and session.forward.checkpointing
        after = session.adapter.snapshot()
    assert again == pytest.approx(losses, rel=1e-5)
    for name, value in adapter.items():
        assert float((after[name] - value).norm()) <= 1e-3 * float(value.norm()) + 1e-7


def test_running_out_of_memory_while_decoding_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    with tiny.runtime("llama", "generate.ignore_eos=true").session() as session:
        list(session.generate("Call me", max_tokens=12))
        expected = list(session.tokens)
    with tiny.runtime("llama", "generate.ignore_eos=true").session() as session:
        monkeypatch.setattr(session.forward, "decode", _failing(1, session.forward.decode))
        list(session.generate("Call me", max_tokens=12))
        assert list(session.tokens) == expected and session.plan.given_up


def test_nothing_left_to_give_up_stops_cleanly(monkeypatch: pytest.MonkeyPatch) -> None:
    with tiny.runtime("llama").session() as session:
        chunks = session.score_ids(IDS, with_base=False)
        first = next(chunks)
        monkeypatch.setattr(session.forward, "loss", _failing(100, session.forward.loss))
        with pytest.raises(BudgetError, match="kept"):
            next(chunks)
        assert math.isfinite(first.adapter_nll)
        assert session.position == first.end


def test_other_errors_are_not_taken_for_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("size mismatch")

    with tiny.runtime("llama").session() as session:
        monkeypatch.setattr(session.forward, "loss", broken)
        with pytest.raises(RuntimeError, match="size mismatch"):
            list(session.score_ids(IDS))
        assert not session.plan.given_up


def test_the_cap_stops_an_allocation() -> None:
    cpu = device.Device("cpu", "cpu", "float32")
    release_memory()  # else a large free piece of the heap serves the block
    with held.capped(cpu, held.resident_memory() + (64 << 20)):
        with pytest.raises(RuntimeError) as refused:
            torch.empty(256 << 20, dtype=torch.uint8).fill_(1)
        assert held.is_out_of_memory(refused.value)
    assert torch.empty(256 << 20, dtype=torch.uint8).fill_(1).sum() > 0


def test_sessions_leave_no_open_files() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    runtime = tiny.runtime("llama", "compute.paging=all")
    for _ in range(3):
        with runtime.session() as session:
            list(session.score_ids(IDS[:40]))
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_the_heap_is_told_by_sessions_and_by_no_constructor(monkeypatch: pytest.MonkeyPatch) -> None:
    """A forward path that is made, or a runtime, leaves the process's heap as it is; `load` and a session tell it."""
    runtime = tiny.runtime("llama", "compute.heap=keep")
    told: list[bool] = []
    for room in (forward_module, session_module):
        monkeypatch.setattr(room, "keep_heap", told.append)
    path = forward_module.TorchForward(runtime.base, None, runtime.plan.settings.compute)
    tiny.runtime("llama", "compute.heap=keep")
    assert told == []
    path.settle(runtime.plan.settings.compute)
    with runtime.session():
        assert told == [True, True]
