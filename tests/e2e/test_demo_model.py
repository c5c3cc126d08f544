"""The demo model against the reference values, and the whole base unchanged afterwards.

The expected sums were computed by a plain implementation of the algorithm with the full logits, on the
unquantised-then-NF4 demo model, from the text that `scripts/data/egoist.txt` opens (see scripts/checks/golden).
"""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch

from edge import cli
from edge.model.forward import TorchForward
from edge.records import total
from edge.translation import languages, prompts
from edge.translation.meaning import Meaning
from edge.translation.prompts import Pair

GOLDEN = json.loads((Path(__file__).parent / "golden_demo.json").read_text())
TEXT = Path(__file__).resolve().parents[2] / "scripts" / "data" / "egoist.txt"


@pytest.mark.model
def test_demo_model_scores_learns_and_leaves_the_base_alone(demo_runtime) -> None:  # type: ignore[no-untyped-def]
    before = demo_runtime.base.checksum()
    ids = demo_runtime.base.encode(TEXT.read_text("utf-8").strip())[: GOLDEN["tokens"]]
    with demo_runtime.session() as session:
        chunks = list(session.score_ids(ids))
    for chunk, expected in zip(chunks, GOLDEN["base_nll"], strict=True):
        assert chunk.base_nll == pytest.approx(expected, rel=5e-4)
    base, adapter = total(chunks, "base"), total(chunks, "adapter")
    assert math.log(0.95) > adapter.nll / adapter.tokens - base.nll / base.tokens  # 5% of perplexity, after two lessons
    assert demo_runtime.base.checksum() == before


@pytest.mark.model
def test_bfloat16_matmuls_cost_a_fraction_of_a_percent(demo_runtime) -> None:  # type: ignore[no-untyped-def]
    """Where the CPU has units for them, they are the default; elsewhere torch computes the same in float32."""
    ids = torch.tensor(demo_runtime.base.encode(TEXT.read_text("utf-8").strip())[:1024])
    device = dataclasses.replace(demo_runtime.base.device, matmul="bfloat16")
    narrow = TorchForward(
        dataclasses.replace(demo_runtime.base, device=device), None, demo_runtime.plan.settings.compute
    )
    assert float(narrow.nll(ids, 512).sum()) == pytest.approx(GOLDEN["base_nll"][1], rel=5e-3)
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.model
def test_true_translations_are_told_from_fluent_nonsense(demo_runtime) -> None:  # type: ignore[no-untyped-def]
    lines = [
        ("La pluie tombait sur le port.", "The rain was falling on the harbour.", "She had never liked her uncle."),
        ("Il acheta trois pommes et du pain.", "He bought three apples and some bread.", "The king died that winter."),
        ("Ma sœur habite à Lyon.", "My sister lives in Lyon.", "Nobody answered the telephone."),
        ("Le train part à sept heures.", "The train leaves at seven o'clock.", "The garden was full of birds."),
    ]
    french, english = languages.find("fr"), languages.find("en")
    with demo_runtime.session() as session:
        form = prompts.Prompts(prompts.load_template("plain"), french, english)
        meaning = Meaning(session, form)
        true = meaning.gains([Pair(source, right) for source, right, _ in lines])
        false = meaning.gains([Pair(source, wrong) for source, _, wrong in lines])
    assert min(true) > 0.2 and sum(gain < 0.2 for gain in false) >= 3


def test_the_list_says_what_the_model_needs(capsys: pytest.CaptureFixture[str]) -> None:
    """As `plan` predicts it where everything that may be is given up."""
    assert cli.main(["models", "--json"]) == 0
    listed = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out.splitlines()[-1])["models"]}
    needs = listed["demo"]["peak_bytes"]
    assert 1e9 < needs < 2e9 and listed["demo"]["made_bytes"]["conversion"] > 3e8
    assert cli.main(["plan", "--model", "demo", "--memory-budget", str(needs + needs // 50)]) == 0
    assert cli.main(["plan", "--model", "demo", "--memory-budget", str(needs - needs // 50)]) == 5
