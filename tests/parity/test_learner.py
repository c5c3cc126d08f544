"""One chunk's learning against a plain loop with peft, torch's AdamW and the full logits."""

from __future__ import annotations

import peft
import pytest
import torch

from edge.learning import replay
from edge.model.adapter import block_of
from edge.records import Learned
from tests import tiny

IDS = torch.tensor(tiny.tokenizer()(tiny.TEXT)["input_ids"][:64])
LABELS = 24


def _plain(
    architecture: str,
    start: dict[str, torch.Tensor],
    epochs: int,
    *,
    ratio: float = 1.0,
    rslora: bool = False,
    only: torch.Tensor | None = None,
) -> tuple[list[float], dict[str, torch.Tensor]]:
    """The paper's step written out: window as input, -100 on the context, mean cross entropy, AdamW."""
    model = tiny.runtime(architecture).base.model
    config = peft.LoraConfig(r=4, lora_alpha=4, lora_dropout=0.0, target_modules="all-linear", bias="none",
                             use_rslora=rslora)  # fmt: skip
    model = peft.get_peft_model(model, config)
    parameters = {}
    for name, p in model.named_parameters():
        if "lora_" in name:
            key = name.replace("base_model.model.", "").replace(".default.weight", "")
            parameters[key] = p
            p.data = start[key].clone().float()
    assert parameters.keys() == start.keys()
    groups = [{"params": [p for n, p in parameters.items() if n.endswith(kind)]} for kind in ("lora_A", "lora_B")]
    optimizer = torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.999), eps=1e-7, weight_decay=0)
    labels = IDS.clone()
    labels[:-LABELS] = -100
    if only is not None:
        labels[-LABELS:][~only] = -100
    losses = []
    for step in range(epochs):
        for group, factor in zip(optimizer.param_groups, (1.0, ratio), strict=True):
            group["lr"] = 1e-2 * min(1.0, (step + 1) / 2) * factor
        logits = model(input_ids=IDS[None]).logits[0]
        loss = torch.nn.functional.cross_entropy(logits[:-1], labels[1:], ignore_index=-100)
        losses.append(float(loss.detach()) * int((labels != -100).sum()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return losses, {name: p.detach() for name, p in parameters.items()}


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
@pytest.mark.parametrize("checkpointing", ["on", "off"])
def test_learning_equals_the_plain_loop(architecture: str, checkpointing: str) -> None:
    runtime = tiny.runtime(architecture, f"compute.checkpointing={checkpointing}", "learn.epochs=3")
    with runtime.session() as session:
        start = session.adapter.snapshot()
        learned, scores = session.learner.learn(IDS, LABELS)
        ours = session.adapter.snapshot()
    losses, theirs = _plain(architecture, start, 3)
    assert learned.losses == pytest.approx(losses, rel=1e-4)
    assert float(scores.sum()) == pytest.approx(losses[0], rel=1e-5)
    assert losses[-1] < losses[0]
    for name, value in theirs.items():
        moved = float((value - start[name]).norm())
        # Adam divides by the gradient's size, so entries whose gradient is rounding noise differ; they are few.
        assert float((ours[name] - value).norm()) < 0.05 * moved, name


@pytest.mark.parametrize("options", [(), ("compute.loss=plain",), ("learn.prefix=frozen",)])
def test_some_of_the_labels_alone_equal_the_plain_loop(options: tuple[str, ...]) -> None:
    only = torch.arange(LABELS) % 5 < 2
    frozen = "learn.prefix=frozen" in options
    with tiny.runtime("llama", "learn.epochs=2", *options).session() as session:
        start = session.adapter.snapshot()
        learned, scores = session.learner.learn(IDS, LABELS, only=only)
        ours = session.adapter.snapshot()
    losses, theirs = _plain("llama", start, 2, only=only)
    assert len(scores) == int(only.sum()) and learned.losses[0] == pytest.approx(losses[0], rel=1e-4)
    if frozen:  # no gradient through the context: another step
        return
    assert learned.losses == pytest.approx(losses, rel=1e-4)
    for name, value in theirs.items():
        moved = float((value - start[name]).norm())
        assert float((ours[name] - value).norm()) < 0.05 * moved, name


def test_lora_plus_and_rslora_equal_the_plain_loop() -> None:
    runtime = tiny.runtime("llama", "learn.epochs=3", "learn.lr_ratio=4", "adapter.scaling=rslora")
    with runtime.session() as session:
        start = session.adapter.snapshot()
        learned, _ = session.learner.learn(IDS, LABELS)
        ours = session.adapter.snapshot()
    losses, theirs = _plain("llama", start, 3, ratio=4.0, rslora=True)
    assert learned.losses == pytest.approx(losses, rel=1e-4)
    for name, value in theirs.items():
        assert float((ours[name] - value).norm()) < 0.05 * float((value - start[name]).norm()), name
    usual, _ = _plain("llama", start, 3)
    assert usual[-1] != pytest.approx(losses[-1], rel=1e-3)


@pytest.mark.parametrize("optimizer", ["adamw", "adamw8bit"])
def test_the_rate_falls_with_the_chunks_and_b_has_its_own(optimizer: str) -> None:
    moved = []
    for decay, ratio in ((0.0, 1.0), (0.5, 1.0), (0.0, 3.0)):
        options = [f"learn.lr_decay={decay}", f"learn.lr_ratio={ratio}", "learn.warmup_steps=0", "learn.lr=1e-3"]
        runtime = tiny.runtime("llama", *options, f"learn.optimizer={optimizer}", "learn.epochs=1")
        with runtime.session() as session:
            session.learner.chunks = 3  # as if it were the fourth chunk
            before = session.adapter.snapshot()
            session.learner.learn(IDS, LABELS)
            after = session.adapter.snapshot()
            moved.append(max(float((after[n] - before[n]).abs().max()) for n in before if n.endswith("lora_B")))
    assert moved[1] == pytest.approx(moved[0] / 2, rel=2e-2)  # (1 + 3) ** -0.5
    assert moved[2] == pytest.approx(3 * moved[0], rel=2e-2)


def test_first_step_already_learns() -> None:
    """The warm-up starts above zero: the very first step moves the adapter."""
    with tiny.runtime("llama", "learn.epochs=1").session() as session:
        before = session.adapter.snapshot()
        session.learner.learn(IDS, LABELS)
        moved = max(float((p - before[n]).abs().max()) for n, p in session.adapter.named_parameters())
    assert moved == pytest.approx(0.5e-2, rel=0.05)  # Adam's first step is the learning rate: half of 1e-2


def test_context_tokens_are_no_labels() -> None:
    """Changing which tokens stand in the context changes the input, never the number of labels or their targets."""
    with tiny.runtime("llama").session() as session:
        _, scores = session.learner.learn(IDS, LABELS)
        assert scores.shape == (LABELS,)


@pytest.mark.parametrize("optimizer", ["adamw", "adamw8bit"])
def test_state_restores_bit_for_bit(optimizer: str) -> None:
    def run(rewind: bool) -> dict[str, torch.Tensor]:
        with tiny.runtime("llama", f"learn.optimizer={optimizer}").session() as session:
            session.learner.learn(IDS, LABELS)
            if rewind:
                saved, steps = session.learner.snapshot(), session.learner.steps
                session.learner.learn(IDS.flip(0), LABELS)
                session.learner.restore(saved)
                session.learner.steps = steps
                session.learner.chunks -= 1
            session.learner.learn(IDS[:50], LABELS)
            return session.adapter.snapshot()

    straight, rewound = run(False), run(True)
    assert all(torch.equal(straight[name], rewound[name]) for name in straight)


def test_guard_rolls_back_a_non_finite_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    with tiny.runtime("llama").session() as session:
        session.learner.learn(IDS, LABELS)
        before = session.adapter.snapshot()
        monkeypatch.setattr(session.learner, "_gradient_norm", lambda: float("nan"))
        learned, _ = session.learner.learn(IDS, LABELS)
        assert not learned.kept and "gradient" in learned.reason
        assert all(torch.equal(before[n], p) for n, p in session.adapter.named_parameters())


def test_guard_rolls_back_a_rising_loss() -> None:
    overrides = ["learn.lr=30", "learn.guard=full", "learn.guard_factor=1.05", "learn.warmup_steps=0"]
    with tiny.runtime("llama", *overrides).session() as session:
        before = session.adapter.snapshot()
        learned, _ = session.learner.learn(IDS, LABELS)
        assert not learned.kept and "rose" in learned.reason
        assert all(torch.equal(before[n], p) for n, p in session.adapter.named_parameters())
        assert session.learner.steps == 0


def test_dropout_trains_differently_and_repeats_exactly() -> None:
    def run(dropout: float) -> tuple[Learned, dict[str, torch.Tensor]]:
        with tiny.runtime("llama", f"adapter.dropout={dropout}").session() as session:
            for _ in range(2):
                learned, _ = session.learner.learn(IDS, LABELS)
            return learned, session.adapter.snapshot()

    (_, a), (_, again), (_, without) = run(0.3), run(0.3), run(0.0)
    assert all(torch.equal(a[n], again[n]) for n in a)
    assert any(not torch.equal(a[n], without[n]) for n in a)


def test_shallow_lessons_leave_the_lower_half_alone() -> None:
    """Every second lesson moves the upper half only, and there as far as a full gradient would."""
    common = ["learn.warmup_steps=0", "learn.epochs=1"]
    runtime = tiny.runtime("llama", "learn.deep_every=2", *common)
    with runtime.session() as session, tiny.runtime("llama", *common).session() as other:
        session.learner.learn(IDS, LABELS)
        other.learner.learn(IDS, LABELS)
        first = session.adapter.snapshot()
        assert all(torch.equal(first[name], value) for name, value in other.adapter.snapshot().items())
        session.learner.learn(IDS, LABELS)
        other.learner.learn(IDS, LABELS)
        second, deep = session.adapter.snapshot(), other.adapter.snapshot()
        half = len(runtime.base.blocks) // 2
        lower = [name for name in first if block_of(name, default=half) < half]
        assert 0 < len(lower) < len(first)
        for name, value in second.items():
            if name in lower:
                assert torch.equal(value, first[name]) and not torch.equal(value, deep[name]), name
            else:
                moved = float((deep[name] - first[name]).norm())
                assert float((value - deep[name]).norm()) < 0.05 * moved, name  # rounding alone: see above
        session.learner.learn(IDS, LABELS)
        assert not torch.equal(session.adapter.snapshot()[lower[0]], second[lower[0]])


@pytest.mark.parametrize("prefix", ["full", "cached"])
def test_replay_is_a_step_on_an_older_lesson(prefix: str) -> None:
    """With one lesson to draw from, replay after the second is what learning the first again would be."""
    other, only = IDS.flip(0), torch.arange(LABELS) % 3 > 0
    common = ["learn.warmup_steps=0", "learn.epochs=1", f"learn.prefix={prefix}"]
    with (
        tiny.runtime("llama", "learn.replay=1", *common).session() as session,
        tiny.runtime("llama", *common).session() as plain,
    ):
        session.learner.learn(IDS, LABELS, only=only)
        assert session.learner.steps == 1  # nothing older yet
        session.learner.learn(other, LABELS)
        for ids in (IDS, other, IDS):
            plain.learner.learn(ids, LABELS, only=only if ids is IDS else None)
        assert session.learner.steps == plain.learner.steps == 3
        expected = plain.adapter.snapshot()
        assert all(torch.equal(value, expected[name]) for name, value in session.adapter.snapshot().items())
        kept = session.learner.snapshot()
        session.learner.learn(IDS, LABELS)
        ended = session.adapter.fingerprint()
        session.learner.restore(kept)
        session.learner.learn(IDS, LABELS)
        assert session.adapter.fingerprint() == ended


def test_replay_keeps_a_fair_and_bounded_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "KEPT", 20)
    counts = [0] * 100
    for seed in range(400):
        kept = replay.Replay(seed)
        for lesson in range(100):
            kept.add((torch.tensor([lesson, lesson, lesson]), 2, torch.tensor([lesson % 2 > 0, True])))
        assert len(kept) == 20
        for ids, labels, only in kept.draw(100):
            counts[int(ids[0])] += 1
            assert labels == 2 and ids.dtype == torch.long and only is not None
    assert sum(counts) == 400 * 20 and max(counts) < 130 and min(counts) > 40  # 80 expected, deviation 8
    again = replay.Replay(399)
    again.load(kept.tensors())
    for (ids, _, only), (theirs, _, mask) in zip(again.draw(5), kept.draw(5), strict=True):
        assert torch.equal(ids, theirs) and mask is not None
        assert torch.equal(torch.ones(2, dtype=torch.bool) if only is None else only, mask)
    assert len({int(ids[0]) for ids, _, _ in kept.draw(20)}) == 20
