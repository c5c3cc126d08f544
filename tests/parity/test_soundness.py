"""The guard for kept keys: what it compares, what follows at load, where its answer is kept."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import edge
from edge import cli, windows
from edge.measure import doctor
from edge.model import soundness
from edge.model.soundness import Soundness
from edge.weights import quantize
from tests import tiny


def _plain(model: Any, ids: list[int], labels: int, cache: Any = None) -> float:
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids]), past_key_values=cache, use_cache=cache is not None).logits[0]
    predicting = logits[-labels - 1 : -1] if cache is None else logits[-labels:]
    nats = torch.nn.functional.cross_entropy(predicting, torch.tensor(ids[-labels:]), reduction="none")
    return math.exp(float(nats.double().mean()))


@pytest.mark.parametrize(("sinks", "kept"), [("on", 1), ("off", 0)])
def test_it_compares_a_window_with_kept_keys_after_a_dropped_beginning(sinks: str, kept: int) -> None:
    from transformers import DynamicCache

    changes = {"max_position_embeddings": 2048}
    runtime = tiny.runtime("llama", "learn.mode=none", f"window.sinks={sinks}", nf4=False, **changes)
    found = soundness.measure(runtime.base, runtime.plan.settings)
    model, labels = runtime.base.model, soundness.LABELS
    ids = runtime.base.encode(soundness.TEXT.read_text("utf-8"))[: soundness.READ]
    assert len(ids) == soundness.READ
    assert found.anew == pytest.approx(_plain(model, windows.last(ids, 2 * labels, kept), labels), rel=1e-4)
    cache, first = DynamicCache(config=model.config), len(ids) - labels - 1
    with torch.no_grad():
        model(input_ids=torch.tensor([ids[:first]]), past_key_values=cache, use_cache=True)
        rest = first - (labels - 1 - kept)
        for layer in cache.layers:
            for kind in ("keys", "values"):
                whole = getattr(layer, kind)
                setattr(layer, kind, torch.cat([whole[:, :, :kept], whole[:, :, rest:]], 2))
        position = torch.arange(first, len(ids) - 1)[None]
        logits = model(
            input_ids=torch.tensor([ids[first:-1]]), past_key_values=cache, position_ids=position, use_cache=True
        ).logits[0]
    nats = torch.nn.functional.cross_entropy(logits, torch.tensor(ids[first + 1 :]), reduction="none")
    assert found.kept == pytest.approx(math.exp(float(nats.double().mean())), rel=1e-4)


def test_what_is_sound() -> None:
    assert Soundness(20.0, 20.9).sound and Soundness(20.0, 10.0).sound
    assert not Soundness(20.0, 21.1).sound and not Soundness(20.0, math.nan).sound
    assert not Soundness(math.nan, math.nan).sound and math.isnan(soundness._perplexity(math.nan))
    assert "20.0" in Soundness(20.0, 60.0).said() and "+200%" in Soundness(20.0, 60.0).said()


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("TEMPLORA_CACHE", str(tmp_path / "cache"))
    quantize.quantize_to_folder(str(tiny.folder(tmp_path / "full", "llama")), tmp_path / "four")
    return str(tmp_path / "four")


def test_an_unsound_model_gets_no_kept_keys_unless_they_were_asked_for(
    model: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measured: list[str] = []

    def unsound(base: Any, settings: Any) -> Soundness:
        measured.append(settings.window.sinks)
        return Soundness(10.0, 30.0)

    monkeypatch.setattr(soundness, "measure", unsound)
    small = ["window.chunk=24", "window.size=64", "adapter.rank=4", "compute.threads=1"]
    runtime = edge.load(model, overrides=small)
    assert runtime.plan.settings.learn.prefix == "full" and "learn.prefix=full" in runtime.notes[0]
    asked = edge.load(model, overrides=[*small, "learn.prefix=cached"])
    assert asked.plan.settings.learn.prefix == "cached" and "is kept" in asked.notes[0]
    assert measured == ["on"]  # once a base: the answer is kept
    for other in ("learn.prefix=full", "learn.mode=none"):
        assert edge.load(model, overrides=[*small, other]).notes == []
    assert edge.load(model, overrides=[*small, "window.sinks=off"]).notes and measured == ["on", "off"]
    book = tmp_path / "book.txt"
    book.write_text(tiny.TEXT)
    command = ["score", str(book), "--model", model, "--no-run", *(word for s in small for word in ("--set", s))]
    assert cli.main(command) == 0
    assert "+200%" in capsys.readouterr().err


def test_a_kept_answer_that_is_not_whole_is_measured_again(model: str, tmp_path: Path) -> None:
    small = ["window.chunk=24", "window.size=64", "adapter.rank=4", "compute.threads=1"]
    edge.load(model, overrides=small)
    (path,) = (tmp_path / "cache" / "soundness").iterdir()
    right = json.loads(path.read_text())
    for damaged in ("", "{}", '{"anew": "x", "kept": 1.0}', "[1, 2]"):
        path.write_text(damaged)
        edge.load(model, overrides=small)
        assert json.loads(path.read_text()) == pytest.approx(right, rel=1e-4)


def test_the_doctor_says_it_of_a_named_model(
    model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "examine", lambda: iter(()))
    monkeypatch.setattr(soundness, "measure", lambda base, settings: Soundness(10.0, 30.0))
    assert cli.main(["doctor", "--model", model, "--json"]) == 0
    out = capsys.readouterr().out
    assert "FAIL" in out and "+200%" in out and "its BOS token" in out
    values = {check["name"].split()[-1]: check["value"] for check in json.loads(out.splitlines()[-1])["checks"]}
    assert values == {"windows": pytest.approx(2.0), "sinks": 1.0}


def test_layers_without_keys_cannot_keep_any(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = tiny.runtime("llama", "learn.mode=none", max_position_embeddings=2048)

    def broken(*args: object, **kwargs: object) -> None:
        raise ValueError("Cannot get conv state for non linear attention layer 0")

    monkeypatch.setattr(soundness.TorchForward, "read_prefix", broken)
    found = soundness.measure(runtime.base, runtime.plan.settings)
    assert not found.sound and "cannot keep keys" in found.said()
