"""scripts/lab/table on a tiny model: every row once, groups of books apart, a stopped run continues."""

from __future__ import annotations

import csv
import json
import math
import re
from pathlib import Path

import pytest
import torch
import yaml
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

import edge
from edge import records
from edge.translation import sounds
from tests import chinese, tiny
from tests.commands import script

ROOT = Path(__file__).resolve().parents[2]
SET = [*tiny.WINDOW, "compute.threads=1", "compute.matmul=float32"]


def test_lab(tmp_path: Path) -> None:
    model = tiny.folder(tmp_path / "model", "llama")
    for name, text in {"one": tiny.TEXT, "two": tiny.TEXT[::-1], "three": tiny.TEXT.upper()}.items():
        (tmp_path / f"{name}.txt").write_text(text)
    plan = {"preset": "economical", "set": SET, "seeds": [0, 1], "confirm": ["fast"],
            "variations": {"slow": ["learn.lr=1e-3"], "fast": [], "unused": ["learn.epochs=1"]}}  # fmt: skip
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))
    args = ["scripts/lab/table", str(tmp_path / "plan.yaml"), "--model", str(model), "--attention",
            "--full", str(model), "--choose", str(tmp_path / "one.txt"), str(tmp_path / "two.txt"),
            "--confirm", str(tmp_path / "three.txt"), "--tokens", "120", "--out", str(tmp_path / "out")]  # fmt: skip
    first, _ = script(*args)
    path = tmp_path / "out/lab.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    seen = [(row["variation"], row["book"], row["seed"]) for row in rows]
    assert (
        len(seen) == len(set(seen)) == 6 + 6 + 2 * (3 * 2 + 2)
    )  # bases, each also reading all; two seeds: all on two books, two on one
    assert ("unused", "three", 0) not in seen and ("slow", "three", 1) in seen

    runtime = edge.load(str(model), "economical", overrides=[*SET, "seed=1"])
    with runtime.session() as session:
        chunks = list(session.score((tmp_path / "three.txt").read_text(), max_tokens=120))
    expected = records.total(chunks, "adapter")
    table = {(r["variation"], r["book"], r["seed"]): r for r in csv.DictReader((tmp_path / "out/lab.csv").open())}
    found = float(table[("fast", "three", "1")]["perplexity"])
    assert found == pytest.approx(math.exp(expected.nll / expected.tokens), rel=1e-3)
    assert "Chosen on one, two" in first and "Confirmed on three" in first
    assert (tmp_path / "out/choose.png").stat().st_size > 1000 and (tmp_path / "out/confirm.png").exists()

    kept = path.read_text().splitlines(keepends=True)
    path.write_text("".join(kept[:-1]) + kept[-1][:20])  # stopped while the last row was written
    again, _ = script(*args)
    assert [json.loads(x)["nll"] for x in path.read_text().splitlines()] == [row["nll"] for row in rows]
    assert again.count(" s/chunk") == 1 + first.count("| seeds' spread | s/chunk")


def test_lab_writing(tmp_path: Path) -> None:
    """A study of a tiny model; its rows are made once."""
    model = tiny.folder(tmp_path / "model", "llama")
    (tmp_path / "book.txt").write_text(tiny.TEXT)
    args = ["scripts/lab/writing", str(tmp_path / "book.txt"), "--model", str(model),
            "--chunks", "2", "--chunk", "8", "--prompt", "60", "--true", "30", "--set", "compute.threads=1",
            "--set", "learn.lr=1e-2", "--sampled", "--seeds", "1", "2", "--out", str(tmp_path / "out")]  # fmt: skip
    script(*args)
    lines = (tmp_path / "out/writing.jsonl").read_text().splitlines()
    rows = {(row["variation"], row["seed"]): row for row in map(json.loads, lines)}
    assert len(rows) == len(lines) == 3 * 3
    names = ("no learning", "learns what it reads", "learns all")
    off, reads, both = (rows[name, 0] for name in names)
    assert off["lessons"] == 0 and reads["lessons"] == 7 and both["lessons"] == 9  # 60 tokens of prompt, 16 written
    assert off["true_perplexity"] == off["base_true_perplexity"] == pytest.approx(both["base_true_perplexity"])
    assert reads["true_perplexity"] != pytest.approx(off["true_perplexity"], rel=1e-3)
    assert all(row["written"] == 16 for row in rows.values())
    again, _ = script(*args)
    assert (tmp_path / "out/writing.jsonl").read_text().splitlines() == lines
    assert again.count("learns all, sampled") == 2


def test_lab_sensitivity(tmp_path: Path) -> None:
    """A tiny model's groups, each against its own 4-bit base; all layers at full weights are the full model."""
    model = tiny.folder(tmp_path / "model", "llama")
    (tmp_path / "book.txt").write_text(tiny.TEXT)
    args = ["scripts/lab/sensitivity", str(tmp_path / "book.txt"), "--full", str(model),
            "--model", str(model), "--tokens", "200", "--window", "64", "--budget", "0.05", "--set", "compute.threads=1",
            "--set", "compute.matmul=float32", "--out", str(tmp_path / "out")]  # fmt: skip
    script(*args)
    head, *rows = csv.reader((tmp_path / "out/sensitivity.csv").open())
    found = {row[0]: [float(cell) for cell in row[1:]] for row in rows}
    assert head[0] == "layers at 8 bits" and {"block 00", "block 01", "all q_proj", "all down_proj", "all"} <= set(
        found
    )
    blocks = [row for name, row in found.items() if name.startswith("block")]
    assert sum(row[0] for row in blocks) == pytest.approx(found["all"][0])
    best = next(row for name, row in found.items() if name.startswith("best"))
    assert 0 < best[0] <= 0.05
    text = (tmp_path / "out/sensitivity.md").read_text()
    base = float(re.search(r"NF4 base: ([\d.]+)", text)[1])

    ids = edge.load(str(model), overrides=SET).base.encode(tiny.TEXT)[:200]
    full = edge.load(str(model), overrides=[*SET, "base.precision=full", "learn.mode=none"])
    with full.session() as session:
        ends = range(64, len(ids) + 1, 32)
        wholes = [torch.tensor([ids[0], *ids[end - 63 : end]]) for end in ends]  # BOS before each
        nats = [session.forward.nll(whole, 32).double().mean() for whole in wholes]
    assert base + found["all, not quantised"][1] == pytest.approx(float(sum(nats) / len(nats)), abs=2e-4)
    assert abs(found["all"][1] - found["all, not quantised"][1]) < abs(found["all, not quantised"][1]) / 4


def test_lab_curve(tmp_path: Path) -> None:
    chunks = [
        records.ChunkScore(
            0, start, start + 20_000, 20_000, 20_000 * 3.0, 20_000 * nats, seconds=1.0, peak_bytes=1
        ).to_json()
        for start, nats in ((0, 3.0), (20_000, 2.9), (40_000, 2.8), (60_000, 2.7), (80_000, 2.6), (100_000, 2.5))
    ]
    (tmp_path / "book.json").write_text("a line that says something else\n" + json.dumps({"chunks": chunks}))
    args = ["scripts/lab/curve", str(tmp_path / "book.json"), "--out", str(tmp_path / "lab")]
    script(*args)
    rows = list(csv.DictReader((tmp_path / "lab/curve.csv").open()))
    assert [(int(r["start"]), int(r["end"])) for r in rows] == [
        (0, 40_000), (25_000, 60_000), (50_000, 100_000), (100_000, 120_000),
    ]  # fmt: skip
    assert [float(r["gain"]) for r in rows] == pytest.approx(
        [1 - math.exp(-below) for below in (0.05, 0.2, 0.35, 0.5)], rel=1e-9
    )
    assert (tmp_path / "lab/curve.png").stat().st_size > 1000
    (tmp_path / "book.json").write_text(json.dumps({"chunks": [{**chunks[0], "base_nll": None}]}))
    _, refused = script(*args, code=2)
    assert "--no-base" in refused and "Traceback" not in refused


def test_walk_counts_what_each_loop_enters() -> None:
    """Its own module, the document's state and the learner are entered by each; a loop of another kind by none."""
    lines = script("scripts/lab/walk", "--names")[0].splitlines()[2:]
    counts = {row.split()[1]: int(row.split()[3]) for row in lines[::2]}
    names = [set(line.split()) for line in lines[1::2]]
    assert list(counts) == ["score", "generate", "translate"] and list(counts.values()) == [len(n) for n in names]
    for own, seen in zip(("score", "generate", "translation/loop"), names, strict=True):
        assert {own, "core/state", "learning/learner", "model/adapter"} <= seen
        assert not {"cli", "resume", "journal/journal", "memory/planning"} & seen
    assert "translation/lessons" in names[2] and "score" not in names[2]


def test_lab_genre(tmp_path: Path) -> None:
    """A text that the adapter knows already: it need not learn again; a fresh one scores as a session does."""
    model = tiny.folder(tmp_path / "model", "llama")
    (tmp_path / "a.txt").write_text(tiny.TEXT)
    args = [str(model), str(tmp_path / "a.txt"), str(tmp_path / "a.txt"), "--read", "200", "--tokens", "120"]
    sets = [word for override in SET for word in ("--set", override)]
    found = json.loads(script("scripts/lab/genre", *args, "--preset", "economical", *sets)[0])
    with edge.load(str(model), "economical", overrides=[*SET, "learn.guard=off"]).session() as session:
        chunks = list(session.score(tiny.TEXT, max_tokens=120))
    for name, kind in (("base", "base"), ("fresh, learning", "adapter")):
        expected = records.total(chunks, kind)
        assert found[name][0] == pytest.approx(math.exp(expected.nll / expected.tokens), rel=1e-4)
    assert found["other's, as it is"][0] < found["fresh, learning"][0] < found["base"][0]
    assert found["other's, learning on"][0] < found["other's, as it is"][0]
    assert all(len(values) == 4 for values in found.values())


def test_lab_sounds(tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.WordLevel({"?": 0, **{word: n for n, word in enumerate(sounds.PLAIN, 1)}}, "?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("|".join((*sounds.PLAIN, "."))), "isolated")
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "book.txt").write_text("\n\n".join(chinese.book("张艳杰", "魏敏")))
    args = [str(tmp_path / "book.txt"), "--tokenizer", str(tmp_path / "tokenizer.json")]
    assert (
        script("scripts/lab/sounds", *args)[0]
        == "book.txt: 14 units, 2 names\n  张艳杰\tZhang Yanjie\t7\n  魏敏\tWei Min\t7\n"
    )
