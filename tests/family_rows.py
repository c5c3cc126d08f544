"""What of the runtime works with a tiny random model of a family: one row of the table in `edge/model/README.md`.

Each cell is found by comparison with transformers' own model: its own attention, its own norms, its own cache. A number may differ
by what float32 itself costs that model: its distance from the same model in float64, a few times over.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from edge import settings, windows
from edge.errors import ExportError, ModelError
from edge.memory import shape
from edge.model import base as bases
from edge.model.adapter import Adapter
from edge.model.base import Base
from edge.model.forward import TorchForward
from edge.session import Runtime
from tests import families, tiny

COLUMNS = ("score", "learn", "generate", "resume", "sinks", "plan", "ONNX")
TOKENIZER = tiny.tokenizer()
IDS = torch.tensor(TOKENIZER(tiny.TEXT)["input_ids"][:130])
CHUNK, SIZE = 24, 64
LIMIT = SIZE - CHUNK - 1
NEAR = 16  # tokens that a sliding layer sees
ROUNDING = 8  # times what float32 costs the plain model
HALF = 60


def row(family: str) -> list[str]:
    """The family's cells, in the order of `COLUMNS`. An assertion fails where something is wrong in silence."""
    try:
        ours = bases.from_model(families.language_model(family), TOKENIZER, tiny.CPU, family)
        runtime = Runtime(ours, settings.load("economical", [*tiny.WINDOW, "learn.prefix=auto"]))
    except ModelError as error:
        assert error.exit_code == 4 and family in error.line() and "\n" not in error.line()
        return ["refused"] * len(COLUMNS)
    plain = families.language_model(family)
    keeps = not runtime.plan.shape.anew
    assert runtime.plan.settings.learn.prefix == ("cached" if keeps else "full")
    assert keeps or runtime.notes
    allowed = ROUNDING * _rounding(plain)
    return [
        _score(ours, plain, allowed),
        _learn(family, ours, plain),
        _generate(runtime, plain, allowed),
        _resume(runtime),
        _kept(family, ours, plain) if keeps else _anew(ours, plain, allowed),
        _plan(runtime),
        _onnx(ours),
    ]


def _rounding(plain: Any) -> float:
    """How far float32 lies from float64, over all logits of a text."""
    exact = _exact(plain)
    with torch.no_grad():
        return float((_logits(plain, IDS).double() - _logits(exact, IDS).double()).abs().max())


def _exact(plain: Any) -> Any:
    """The same model in float64; its experts one by one, for their grouped product knows no float64."""
    exact = copy.deepcopy(plain).double()
    exact.config._experts_implementation = "eager"
    return exact


def _logits(plain: Any, ids: Tensor) -> Tensor:
    with torch.no_grad():
        logits: Tensor = plain(input_ids=ids[None], use_cache=False).logits[0]
    return logits


def _forward(base: Base, adapter: Adapter | None = None, *overrides: str) -> TorchForward:
    chosen = settings.load("economical", [*tiny.WINDOW, *overrides])
    return TorchForward(base, adapter, Runtime(base, chosen).plan.settings.compute)


def _score(ours: Base, plain: Any, allowed: float) -> str:
    """Logits of the base, and nats of a window, as transformers' own."""
    theirs = _logits(plain, IDS)
    with torch.no_grad():
        hidden = ours.decoder(input_ids=IDS[None], use_cache=False).last_hidden_state[0]
    assert float((ours.head.logits(hidden) - theirs).abs().max()) <= allowed
    nats = F.cross_entropy(theirs[-CHUNK - 1 : -1], IDS[-CHUNK:], reduction="none")
    assert float((_forward(ours).nll(IDS, CHUNK) - nats).abs().max()) <= 4 * allowed
    return "yes"


def _learn(family: str, ours: Base, plain: Any) -> str:
    """Gradients of every layer's A and B as autograd finds them in transformers' own model; the base stays what it is."""
    before = ours.checksum()
    chosen = settings.load("economical", tiny.WINDOW)
    gradients = []
    exact = Base(_exact(plain).requires_grad_(False), TOKENIZER, tiny.CPU, family)
    for base, fused in (
        (ours, True),
        (Base(plain.requires_grad_(False), TOKENIZER, tiny.CPU, family), False),
        (exact, False),
    ):
        adapter = Adapter(base, chosen.adapter, seed=1, fused=fused)
        generator = torch.Generator().manual_seed(2)
        for name, parameter in adapter.named_parameters():
            if name.endswith("lora_B"):
                parameter.data.normal_(0, 0.02, generator=generator)
            if base is exact:
                parameter.data = parameter.data.double()
        if base is ours:  # through its own loss, with activations recomputed
            forward = _forward(base, adapter, "compute.checkpointing=on")
            with forward.learning():
                torch.autograd.backward(forward.loss(IDS[:SIZE], SIZE - 1)[0])
        else:
            with adapter.active():
                logits = base.model(input_ids=IDS[None, :SIZE], use_cache=False).logits[0]
                torch.autograd.backward(F.cross_entropy(logits[:-1], IDS[1:SIZE]))
        found = [parameter.grad for parameter in adapter.parameters() if parameter.grad is not None]
        assert adapter.targets and len(found) == len(adapter.parameters()) and all(bool(grad.any()) for grad in found)
        gradients.append(torch.cat([grad.flatten().double() for grad in found]))
        adapter.discard()
    mine, plainly, truly = gradients
    assert float((mine - truly).norm()) <= ROUNDING * float((plainly - truly).norm()) + 1e-7 * float(truly.norm())
    assert ours.checksum() == before
    return "yes"


def _generate(runtime: Runtime, plain: Any, allowed: float) -> str:
    """A text read in pieces and decoded: logits as in one forward; and a text longer than a window, learned as it is written."""
    forward = _forward(runtime.base)
    _, cache = forward.prefill(IDS[:30])
    forward.mark(cache)
    made = [forward.extend(IDS[30:40], cache), *(forward.decode(int(token), cache) for token in IDS[40:44])]
    theirs = _logits(plain, IDS[:44])
    assert float((torch.stack(made) - theirs[39:44]).abs().max()) <= 4 * allowed
    if forward.rewind(cache, 30):
        assert float((forward.extend(IDS[30:40], cache) - theirs[39]).abs().max()) <= 4 * allowed
    with runtime.session() as session:
        records = list(session.generate(tiny.TEXT[:HALF], max_tokens=30))
        assert len(session.tokens) > SIZE and any(getattr(record, "learned", None) for record in records)
    return "yes"


def _resume(runtime: Runtime) -> str:
    """A document that goes on from what was kept of it gives the same bits."""
    with runtime.session() as session:
        list(session.score_ids(IDS[:72].tolist()))
        kept = {name: tensor.clone() for name, tensor in session.tensors()}
        whole = [chunk.adapter_nll for chunk in session.score_ids(IDS[72:120].tolist())]
    with runtime.session() as session:
        session.restore(kept)
        assert [chunk.adapter_nll for chunk in session.score_ids(IDS[72:120].tolist())] == whole
    assert len(whole) == 2
    return "yes"


def _kept(family: str, ours: Base, plain: Any) -> str:
    """Kept keys are those of one long forward of transformers' eager attention, without what was dropped."""
    chosen = settings.load("economical", [*tiny.WINDOW, "learn.prefix=cached", "learn.epochs=1"])
    with Runtime(ours, chosen).session() as session:
        assert session.learner is not None
        session.learner._step = lambda: None  # type: ignore[method-assign]
        sinks = session.sinks
        scored = [float(chunk.adapter_nll or 0) for chunk in session.score_ids(IDS.tolist())]
    length = len(IDS)
    at = torch.arange(length)
    seen = at[None] <= at[:, None]
    for start in range(CHUNK, length, CHUNK):
        dropped = start - 1 - (LIMIT - sinks)
        if dropped > sinks:
            seen[start - 1 : start + CHUNK - 1, sinks:dropped] = False
    near = (at[None] <= at[:, None]) & (at[None] > at[:, None] - NEAR)

    def mask(allowed: Tensor) -> Tensor:
        return torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min)[None, None]

    given = {**families.LANGUAGE[family]}
    if "sliding_attention" in given.get("layer_types", ()):
        masks: Any = {"full_attention": mask(seen), "sliding_attention": mask(near)}
    else:
        masks = mask(near if given.get("sliding_window") else seen)
    plain.set_attn_implementation("eager")
    with torch.no_grad():
        logits = plain(input_ids=IDS[None], attention_mask=masks, position_ids=at[None], use_cache=False).logits[0]
    nats = F.cross_entropy(logits[:-1], IDS[1:], reduction="none")
    expected = [float(nats[max(0, start - 1) : start + CHUNK - 1].double().sum()) for start in range(0, length, CHUNK)]
    assert len(scored) == len(expected) == 6
    assert all(abs(one - other) <= 1e-4 * other for one, other in zip(scored, expected, strict=True)), (
        scored,
        expected,
    )
    return "kept"


def _anew(ours: Base, plain: Any, allowed: float) -> str:
    """Every window is a text of its own: the document's first tokens, then the last ones."""
    with Runtime(ours, settings.load("economical", [*tiny.WINDOW, "learn.mode=none"])).session() as session:
        sinks = session.sinks
        scored = [float(chunk.base_nll or 0) for chunk in session.score_ids(IDS[:120].tolist())]
    for index, start in enumerate(range(0, 120, CHUNK)):
        window = torch.tensor(windows.last(IDS[: start + CHUNK].tolist(), SIZE, sinks))
        labels = CHUNK if start else CHUNK - 1
        nats = F.cross_entropy(_logits(plain, window)[-labels - 1 : -1], window[-labels:], reduction="sum")
        assert abs(scored[index] - float(nats)) <= 4 * CHUNK * allowed
    return "anew"


def _plan(runtime: Runtime) -> str:
    """What is said to be exact is; an estimate lies above the weights that there are."""
    found = runtime.plan.shape
    base = runtime.base
    linear = sum(layer.in_features * layer.out_features for _, layer in base.linears())
    tables = found.vocab * found.hidden * (1 if found.tied else 2)
    everything = sum(parameter.numel() for parameter in base.model.parameters() if parameter.ndim > 1)
    if found.exact:
        assert found.linear_parameters == linear and everything == linear + tables
    counted = found.linear_parameters + found.expert_parameters + found.whole + tables
    assert found.linear_parameters >= linear and counted >= everything
    return "exact" if found.exact else "estimated"


def _onnx(ours: Base) -> str:
    from export import graph

    try:
        graph.require_known(ours)
    except ExportError as error:
        assert error.exit_code == 10 and ours.config.model_type not in shape.KNOWN
        return "refused"
    return "yes"


def table() -> str:
    """The table, as `edge/model/README.md` holds it."""
    lines = ["| family | " + " | ".join(COLUMNS) + " |", "|---|" + "---|" * len(COLUMNS)]
    return "\n".join([*lines, *(line(family) for family in families.LANGUAGE)])


def line(family: str) -> str:
    """One row of it."""
    return f"| `{family}` | " + " | ".join(row(family)) + " |"
