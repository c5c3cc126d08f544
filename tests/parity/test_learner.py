"""One chunk's learning against a plain loop with peft, torch's AdamW and the full logits."""

from __future__ import annotations

import peft
import pytest
import torch

from edge.learning import learner
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
    only: torch.Tensor | None = None,
) -> tuple[list[float], dict[str, torch.Tensor]]:
    """The paper's step written out: window as input, -100 on the context, mean cross entropy, AdamW."""
    model = tiny.runtime(architecture).base.model
    config = peft.LoraConfig(r=4, lora_alpha=4, lora_dropout=0.0, target_modules="all-linear", bias="none")
    model = peft.get_peft_model(model, config)
    parameters = {}
    for name, p in model.named_parameters():
        if "lora_" in name:
            key = name.replace("base_model.model.", "").replace(".default.weight", "")
            parameters[key] = p
            p.data = start[key].clone().float()
    assert parameters.keys() == start.keys()
    optimizer = torch.optim.AdamW(parameters.values(), lr=1e-2, betas=(0.9, 0.999), eps=1e-7, weight_decay=0)
    labels = IDS.clone()
    labels[:-LABELS] = -100
    if only is not None:
        labels[-LABELS:][~only] = -100
    losses = []
    for step in range(epochs):
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * min(1.0, (step + 1) / 2)
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


@pytest.mark.parametrize("options", [(), ("compute.plain=[loss]",), ("learn.prefix=frozen",)])
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
        monkeypatch.setattr(session.learner, "_gradient_norm", lambda like: like.new_tensor(float("nan")).double())
        learned, _ = session.learner.learn(IDS, LABELS)
        assert not learned.kept and "gradient" in learned.reason
        assert all(torch.equal(before[n], p) for n, p in session.adapter.named_parameters())


def test_guard_rolls_back_a_rising_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learner, "MAX_RISE", 1.05)
    overrides = ["learn.lr=60", "learn.epochs=3"]
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
    common = ["learn.epochs=1"]
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
