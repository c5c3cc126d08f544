"""`forward: auto`: a graph writes where that pays, torch scores and learns, and a run goes on as it began."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import edge
from edge import cli
from edge import settings as settings_module
from edge.errors import ExportError
from edge.memory import budget, paths, planning
from edge.memory.prediction import Machine
from edge.store import sources
from edge.store.sources import Source
from export import check
from tests import tiny
from tests.unit.test_budget import DEMO

SMALL = [
    "compute.matmul=float32", "compute.threads=1", "window.chunk=32", "window.size=64", "adapter.rank=4",
    "learn.prefix=full", "learn.lr=1e-2",
]  # fmt: skip
IDS = torch.randint(2, 300, (60,), generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.folder(tmp_path_factory.mktemp("model") / "m", "qwen3")


@pytest.fixture
def pays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Every model is large enough; the cache is this test's own."""
    monkeypatch.setattr(paths, "PAYS", 0)
    monkeypatch.setenv("TEMPLORA_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_a_small_model_is_not_worth_a_graph_and_a_large_one_is(monkeypatch: pytest.MonkeyPatch) -> None:
    auto = settings_module.load("economical")
    machine = Machine("cpu")
    assert paths.pays(auto, DEMO, machine)
    assert not paths.pays(auto, tiny_shape(), machine)
    assert not paths.pays(auto, DEMO, Machine("cuda", 2))
    assert not paths.pays(settings_module.load("economical", ["base.precision=full"]), DEMO, machine)
    monkeypatch.setattr(paths, "LIBRARIES", ("onnx", "no_such_library"))
    assert not paths.pays(auto, DEMO, machine)


def tiny_shape() -> Any:
    import dataclasses

    return dataclasses.replace(DEMO, layers=2, hidden=64, intermediate=128)


@pytest.mark.parametrize(
    ("overrides", "writes", "wanted"),
    [
        ([], True, "mixed"),
        ([], False, "torch"),
        (["forward=torch"], True, "torch"),
        (["forward=onnx"], True, "onnx"),
        (["budget=1.5GB"], True, "torch"),  # what the graph would need is not there
    ],
)
def test_what_writes(overrides: list[str], writes: bool, wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "model_shape", lambda source: DEMO)
    monkeypatch.setattr(planning, "free_for_all", lambda *device: 24 << 30)
    monkeypatch.setattr(planning, "measured_baseline", lambda kind: 500_000_000)
    asked = settings_module.load("economical", ["compute.device=cpu", *overrides])
    source = Source("folder", Path("nowhere"), "demo")
    plan = planning.plan(source, asked, decodes=True, degrade=False, writes=writes)
    assert plan.settings.forward == wanted
    assert plan.settings.graph_precision == {"mixed": "int8", "onnx": "nf4", "torch": ""}[wanted]
    assert planning.again(plan, asked, degrade=False).settings.forward == wanted
    assert planning.with_torch(plan, asked, degrade=False).settings.forward == "torch"


def test_the_graph_writes_and_torch_scores(model: Path, pays: Path) -> None:
    told: list[str] = []
    alone = edge.load(str(model), overrides=SMALL)
    assert alone.plan.settings.forward == "torch"  # nobody is there to be told
    runtime = edge.load(str(model), overrides=SMALL, making=told.append)
    assert runtime.plan.settings.forward == "mixed"
    assert len(told) == 1 and "once" in told[0] and str(pays / "cache" / "onnx") in told[0]
    edge.load(str(model), overrides=SMALL, making=told.append)
    assert len(told) == 1
    with alone.session() as one, runtime.session() as other:
        for _ in range(2):
            assert torch.equal(one.forward.nll(IDS, 41), other.forward.nll(IDS, 41))
            a, b = (session.forward.prefill(IDS)[0] for session in (one, other))
            assert 1e-5 < float((a - b).square().mean().sqrt() / a.std()) < 0.3  # the graph rounds, and is not torch
            for session in (one, other):
                list(session.read(tiny.TEXT))
        assert one.adapter and other.adapter
        assert one.adapter.fingerprint() == other.adapter.fingerprint()  # torch learned in both


def test_torch_writes_where_no_graph_can_be_made(model: Path, pays: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from export import exporter

    def fails(*args: Any) -> None:
        raise ExportError("no graph", "one", "none")

    monkeypatch.setattr(exporter, "export", fails)
    runtime = edge.load(str(model), overrides=SMALL, making=lambda line: None)
    assert runtime.plan.settings.forward == "torch"
    assert any("no graph" in note for note in runtime.notes)
    with runtime.session() as session:
        assert session.forward is session.torch_forward
    with pytest.raises(ExportError):
        edge.load(str(model), overrides=[*SMALL, "forward=mixed"])


def test_a_graph_that_rounds_too_much_is_used_only_by_name(
    model: Path, pays: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "NATS", -1.0)
    runtime = edge.load(str(model), overrides=SMALL, making=lambda line: None)
    assert runtime.plan.settings.forward == "torch"
    assert any("nats a token more than its base" in note for note in runtime.notes)
    named = edge.load(str(model), overrides=[*SMALL, "onnx.precision=int8"], making=lambda line: None)
    assert named.plan.settings.forward == "mixed"


def test_a_run_goes_on_with_the_path_that_it_began_with(
    model: Path, pays: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [part for override in SMALL for part in ("--set", override)]
    write = ["write", "--prompt", tiny.TEXT[:200], "--tokens", "80", "--model", str(model), "--json", *asked]

    def run(folder: Path, *more: str) -> Any:
        assert cli.main([*write, "--run", str(folder), *more]) == 0
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    whole = run(pays / "whole")
    kept = json.loads((pays / "whole" / "manifest.json").read_text())["settings"]
    assert kept["forward"] == "mixed"
    begun = run(pays / "begun")
    assert begun["text"] == whole["text"]
    monkeypatch.setattr(paths, "PAYS", 1 << 60)  # a machine on which a graph would not be chosen any more
    assert run(pays / "begun", "--resume")["text"] == whole["text"]
    assert run(pays / "anew")["chunks"] != whole["chunks"]  # torch's nats
    assert json.loads((pays / "anew" / "manifest.json").read_text())["settings"]["forward"] == "torch"


def test_the_price_of_a_graph_is_what_it_takes() -> None:
    asked = paths.mixed(settings_module.load("economical"))
    plan = budget.fit(asked, DEMO, Machine("cpu"), free=1 << 40, decodes=True)
    size, seconds = paths.cost(plan.settings, DEMO)
    terms = plan.prediction.phases["decode"]
    assert size == terms["graph weights"] + terms["graph head"]
    assert 10 < seconds < 100
    assert sources.export_folder("a" * 64, "int8", "cpu").name.startswith("a" * 16 + "-int8-cpu-v")
