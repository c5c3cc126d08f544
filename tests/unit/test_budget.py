"""The planner's counts against the live tensors of real runs; fitting, refusing, and what is given up first."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from edge import settings
from edge.errors import BudgetError, ModelError
from edge.measure import report
from edge.memory import budget, flops, pace, planning, shape
from edge.memory.prediction import Machine, predict
from edge.store.sources import Source
from tests import tiny
from tests.tracker import Tracker

DIMS = {
    "hidden_size": 256, "intermediate_size": 768, "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 32,
    "vocab_size": 4096, "max_position_embeddings": 8192, "layers": 4,
}  # fmt: skip
CPU = Machine("cpu", 4, 500_000_000)
DEMO = shape.from_config(
    {
        "model_type": "gemma3_text", "num_hidden_layers": 18, "hidden_size": 640, "intermediate_size": 2048,
        "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 256, "vocab_size": 262144,
        "sliding_window": 512, "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 3, "dtype": "bfloat16",
    },
    packed=True,
)  # fmt: skip
LLAMA_7B = shape.from_config(
    {
        "model_type": "llama", "num_hidden_layers": 32, "hidden_size": 4096, "intermediate_size": 11008,
        "num_attention_heads": 32, "vocab_size": 32000, "dtype": "float16",
    },
    packed=True,
)  # fmt: skip


@pytest.mark.parametrize("checkpointing", ["on", "off"])
@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_counts_equal_the_live_tensors(architecture: str, checkpointing: str) -> None:
    """The transient part of each phase lies at most 15% above what tensors really held, and never below."""
    window = {"sliding_window": 128} if architecture.startswith("gemma") else {}
    runtime = tiny.runtime(
        architecture, "window.chunk=256", "window.size=512", "learn.epochs=1", "adapter.rank=8", "compute.paging=off",
        "compute.loss_slice=16", "compute.weights=packed", f"compute.checkpointing={checkpointing}", **DIMS, **window,
    )  # fmt: skip
    plan = runtime.plan
    machine = Machine("cpu", 4, 0)
    prediction = predict(plan.settings, plan.shape, machine, decodes=True)
    lasting = ("weights", "embeddings and head", "adapter", "optimiser state", "guard copy", "allocator slack")
    ids = torch.randint(2, 300, (512,), generator=torch.Generator().manual_seed(0))
    with runtime.session() as session:
        runs = {
            "score": lambda: session.forward.nll(ids, 256),
            "learn": lambda: session.learner.learn(ids, 256),
            "decode": lambda: session.forward.prefill(ids),
        }
        for phase, run in runs.items():
            with Tracker() as tracker:
                run()
            left_out = (*lasting, "KV cache") if phase == "learn" else lasting
            predicted = sum(size for name, size in prediction.phases[phase].items() if name not in left_out)
            assert tracker.peak <= predicted <= 1.15 * tracker.peak, (phase, predicted / tracker.peak)


@pytest.mark.parametrize("prefix", ["frozen", "cached"])
@pytest.mark.parametrize("checkpointing", ["on", "off"])
@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gemma3_text", "gemma2", "phi3"])
def test_counts_behind_a_prefix(architecture: str, checkpointing: str, prefix: str) -> None:
    """The same for a chunk that is learned behind kept keys and values; never below, at most a quarter above."""
    window = {"sliding_window": 128} if architecture.startswith("gemma") else {}
    runtime = tiny.runtime(
        architecture, "window.chunk=256", "window.size=512", "learn.epochs=1", "adapter.rank=8", "compute.paging=off",
        "compute.loss_slice=16", "compute.weights=packed", f"compute.checkpointing={checkpointing}",
        f"learn.prefix={prefix}", **DIMS, **window,
    )  # fmt: skip
    terms = predict(runtime.plan.settings, runtime.plan.shape, Machine("cpu", 4, 0)).phases["learn"]
    lasting = ("weights", "embeddings and head", "adapter", "optimiser state", "guard copy", "allocator slack")
    predicted = sum(size for name, size in terms.items() if name not in lasting)
    ids = torch.randint(2, 300, (768,), generator=torch.Generator().manual_seed(0))
    peaks = []
    with runtime.session() as session:
        for start in (0, 256):
            with Tracker() as tracker:
                session.learner.learn(ids[start : start + 512], 256)
            peaks.append(tracker.peak)
    assert max(peaks) <= predicted <= 1.25 * max(peaks), predicted / max(peaks)


@pytest.mark.parametrize(
    ("family", "experts"),
    [
        ("llama4_text", {"num_local_experts": 32, "num_experts_per_tok": 1, "interleave_moe_layer_step": 1}),
        ("qwen3_moe", {"num_experts": 8, "num_experts_per_tok": 4, "moe_intermediate_size": 256}),
        ("gpt_oss", {
            "num_local_experts": 4, "num_experts_per_tok": 4, "layer_types": ["full_attention"] * 2,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
        }),
    ],
)  # fmt: skip
def test_counts_of_experts(family: str, experts: dict[str, object]) -> None:
    """What a learning step holds of tensors is never above the count, also where each expert has a copy of each token
    (Llama 4), or keeps more of it (gpt_oss)."""
    dims = {**DIMS, "intermediate_size": 512, "num_attention_heads": 2, "head_dim": 64, "layers": 2}
    runtime = tiny.runtime(
        family, "window.chunk=64", "window.size=128", "learn.epochs=1", "compute.paging=off", "compute.weights=packed",
        "compute.checkpointing=on", "learn.prefix=full", **dims, **experts,
    )  # fmt: skip
    terms = predict(runtime.plan.settings, runtime.plan.shape, Machine("cpu", 4, 0)).phases["learn"]
    predicted = sum(terms.get(name, 0) for name in ("activations", "gradients", "scratch", "logits slice"))
    ids = torch.randint(2, 300, (128,), generator=torch.Generator().manual_seed(0))
    with runtime.session() as session, Tracker() as tracker:
        session.learner.learn(ids, 64)
    assert tracker.peak <= predicted <= 2 * tracker.peak, predicted / tracker.peak


@pytest.mark.parametrize("family", ["llama", "qwen2", "phi3", "gemma3_text"])
@pytest.mark.parametrize("kept", [1, 2, 4])
def test_copies_are_counted_as_they_are(family: str, kept: int) -> None:
    runtime = tiny.runtime(family, f"compute.weights=some:{kept}", **DIMS)
    terms = predict(runtime.plan.settings, runtime.plan.shape, Machine("cpu", 4, 0)).phases["learn"]
    copies = [linear.dequantized for _, linear in runtime.base.linears() if hasattr(linear, "dequantized")]
    assert terms["dequantised copies"] == sum(copy.nbytes for copy in copies) > 0


def test_lasting_terms_are_exact() -> None:
    runtime = tiny.runtime("llama", **DIMS)
    terms = predict(runtime.plan.settings, runtime.plan.shape, Machine("cpu", 4, 0)).phases["learn"]
    with runtime.session() as session:
        assert terms["adapter"] == 4 * session.adapter.num_parameters
        held = sum(t.nbytes for n, t in session.learner.optimizer.tensors() if not n.endswith("step"))
        assert terms["optimiser state"] == held
        assert terms["guard copy"] == terms["adapter"] + held


def test_a_llama_7b_fits_small_gpus() -> None:
    """Predicted only; scripts/gpu_check measures it where there is a GPU."""
    for rank, limit in ((64, 8 << 30), (16, 6 << 30)):
        chosen = settings.load("economical", [f"adapter.rank={rank}", f"budget={limit}"])
        plan = budget.fit(chosen, LLAMA_7B, Machine("cuda", 2), 0)
        assert plan.prediction.peak() <= limit
        assert plan.settings.adapter.rank == rank
        # rank 16: no room for keys and values as wide as the hidden states, until none are kept
        assert plan.settings.learn.prefix == ("cached" if rank == 64 else "full")
        wide = budget.fit(dataclasses.replace(chosen, budget=24 << 30), LLAMA_7B, Machine("cuda", 2), 0)
        assert wide.settings.learn.prefix == "cached"
        assert "; the process's CUDA context comes beside it (778 MB on an H200)" in report.plan_summary(plan)
        assert plan.settings.compute.loss_slice == 1024  # wide again where giving up something else has made room
        assert not any("logits slice" in said for said in plan.given_up)
    for free in (16, 24, 32, 40):  # and where no budget was named
        plan = budget.fit(settings.load("economical"), LLAMA_7B, Machine("cuda", 2), free << 30, share=0.5)
        assert plan.settings.compute.loss_slice == 1024 and plan.prediction.peak() <= free << 30
    on_cpu = budget.fit(settings.load("economical", ["budget=20GB"]), DEMO, CPU, 0)
    assert "CUDA" not in report.plan_summary(on_cpu)


@pytest.mark.parametrize(
    ("overrides", "phase", "reserved"),
    [
        ("compute.weights=packed compute.checkpointing=on", "learn", 9.64e9),
        ("compute.weights=packed compute.checkpointing=on compute.loss_slice=16 compute.paging=all", "learn", 8.42e9),
        ("compute.weights=packed compute.checkpointing=on compute.loss_slice=16 compute.paging=all adapter.rank=16 "
         "learn.prefix=full", "learn", 6.43e9),
        ("compute.weights=cached compute.checkpointing=off learn.mode=none", "score", 17.37e9),
    ],
)  # fmt: skip
def test_what_a_gpu_was_seen_to_reserve_is_predicted_from_above(overrides: str, phase: str, reserved: float) -> None:
    """One H100, torch 2.11, a Llama-2-7B shape at the economical window, rank 64: what torch's allocator reserved."""
    given = ["compute.loss_slice=1024", "compute.paging=guard", "learn.prefix=cached", *overrides.split()]
    chosen = settings.load("economical", list({text.partition("=")[0]: text for text in given}.values()))
    predicted = predict(chosen, LLAMA_7B, Machine("cuda", 2, 0)).peak(phase)
    assert reserved <= predicted <= 1.10 * reserved


H200 = json.loads((Path(__file__).parent.parent / "measurements/gpu/h200-llama-2-7b-shape.json").read_text())


@pytest.mark.parametrize("row", [row for row in H200["learn"] if "reserved" in row], ids=lambda row: str(row["plan"]))
def test_what_another_gpu_was_seen_to_reserve_is_predicted_from_above(row: dict[str, Any]) -> None:
    """One H200: plans that `scripts/gpu_check learn` ran, as they were settled there."""
    preset = row["plan"].partition(",")[0]
    settled = [f"compute.{name}={value}" for name, value in row["compute"].items()]
    named = {"exact": ["learn.epochs=2", "learn.prefix=full"], "base alone": ["learn.mode=none"]}.get(preset, [])
    chosen = settings.load(preset if preset in ("swift", "fine") else "economical", [*named, *settled])
    chosen = dataclasses.replace(chosen, learn=dataclasses.replace(chosen.learn, prefix=row["prefix"]))
    predicted = predict(chosen, LLAMA_7B, Machine("cuda", 2, 0)).peak(row["phase"])
    assert row["reserved"] <= predicted <= 1.10 * row["reserved"]


def test_gives_up_in_order_and_results_last() -> None:
    kept = ["learn.epochs=2", "learn.prefix=cached"]
    chosen = settings.load("economical", ["budget=20GB", *kept])
    roomy = budget.fit(chosen, DEMO, CPU, 0, decodes=True)
    unnamed = dataclasses.replace(chosen, budget=None)
    fastest = budget.fit(unnamed, DEMO, CPU, 1 << 50, decodes=True, share=1.0).prediction.peak()
    plenty, less, little = (
        budget.fit(unnamed, DEMO, CPU, int(n * fastest), decodes=True, share=0.5) for n in (2.1, 1.9, 0.9)
    )
    found = [
        (plan.settings.compute.weights.partition(":")[0], plan.settings.compute.checkpointing)
        for plan in (plenty, less, little)
    ]
    assert found == [("cached", "off"), ("cached", "on"), ("some", "on")]
    compute = little.settings.compute
    one_more = dataclasses.replace(
        little.settings, compute=dataclasses.replace(compute, weights=f"some:{compute.copied + 1}")
    )
    limit = 0.5 * int(0.9 * fastest)
    assert little.prediction.peak() <= limit < predict(one_more, DEMO, CPU, decodes=True).peak()
    assert plenty.given_up == less.given_up == little.given_up == ()
    assert roomy.given_up == () and roomy.settings.compute.weights == "cached"
    said: list[str] = []
    for amount in range(4000, 900, -50):
        try:
            plan = budget.fit(
                settings.load("economical", [f"budget={amount}MB", *kept]),
                DEMO,
                CPU,
                0,
                decodes=True,
                degrade=True,
            )
        except BudgetError:
            break
        assert plan.prediction.peak() <= plan.budget
        now = [re.sub(r"^weights .*", "weights", step) for step in plan.given_up]
        assert now[: len(said)] == said
        said = now
        if not any("rank" in step or "8-bit" in step for step in said):
            assert (plan.settings.window, plan.settings.adapter, plan.settings.learn) == (
                chosen.window,
                chosen.adapter,
                chosen.learn,
            )
    # torch writes a chunk here: a copy of a weight saves more time than anything else that its bytes could hold
    firsts = ["freed", "guard", "activations", "cache", "optimiser", "weights", "8-bit", "rank"]
    assert all(word in step for word, step in zip(firsts, said, strict=False)) and len(said) >= len(firsts)


def test_gives_up_logits_where_whole_rows_of_them_exist() -> None:
    """A GPU, or a CPU that computes in bfloat16."""
    for machine, first in ((Machine("cuda", 2), "logits slice of 64"), (Machine("cpu", 2), "freed memory")):
        roomy = budget.fit(settings.load("economical", ["budget=40GB"]), DEMO, machine, 0).prediction.peak()
        plan = budget.fit(settings.load("economical", [f"budget={roomy - 1}"]), DEMO, machine, 0)
        assert plan.given_up[0].startswith(first) and plan.prediction.peak() < roomy
        while (tighter := plan.tighter()) is not None:
            plan = tighter
        assert plan.settings.compute.loss_slice == budget.SMALLEST_SLICE


def test_refuses_with_needs_has_and_largest_term() -> None:
    with pytest.raises(BudgetError) as refused:
        budget.fit(settings.load("economical", ["budget=800MB"]), DEMO, CPU, 0)
    line = refused.value.line()
    assert "needs at least" in line and "800 MB budget" in line and "largest term" in line and "--allow-degrade" in line


def test_a_tighter_plan_never_changes_results() -> None:
    plan = budget.fit(settings.load("economical", ["budget=20GB"]), DEMO, CPU, 0, decodes=True)
    count = 0
    while (less := plan.tighter()) is not None:
        assert less.prediction.peak() <= plan.prediction.peak()
        assert (less.settings.window, less.settings.adapter, less.settings.learn) == (
            plan.settings.window, plan.settings.adapter, plan.settings.learn,
        )  # fmt: skip
        plan, count = less, count + 1
    assert count >= 5 and plan.settings.compute.paging == "all"


@pytest.mark.model
def test_gguf_header_and_config_agree() -> None:
    from edge.store import sources

    source = sources.resolve("demo")
    assert source.kind == "gguf"
    assert planning.model_shape(source) == DEMO


def test_damaged_headers_are_one_line(tmp_path: Path) -> None:
    for content in (b"", b"GGUF", b"GGUF\3\0\0\0" + b"\xff" * 64, b"GGUF\3\0\0\0" + b"\0" * 16):
        path = tmp_path / "x.gguf"
        path.write_bytes(content)
        with pytest.raises(ModelError):
            shape.read(Source("gguf", path, "x"))
    for text in (
        "",
        "[]",
        "{}",
        json.dumps({"num_attention_heads": 0, "hidden_size": 4, "num_hidden_layers": 1, "vocab_size": 9}),
    ):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ModelError):
            shape.read(Source("folder", tmp_path, "x"))


def test_the_onnx_path_has_terms_of_its_own() -> None:
    def terms(*overrides: str) -> dict[str, int]:
        chosen = settings.load("economical", ["forward=onnx", *overrides])
        return budget.fit(chosen, DEMO, CPU, free=1 << 40).prediction.phases["score"]

    vocab, linear = DEMO.vocab * DEMO.hidden, DEMO.linear_parameters
    assert terms("onnx.precision=fp32")["graph weights"] == 4 * linear
    assert terms()["graph head"] == terms("onnx.precision=fp32")["graph head"] == 4 * vocab
    assert terms("onnx.precision=int8")["graph head"] == vocab * 17 // 16
    assert terms()["graph weights"] == linear // 16  # the scales; codes are torch's own
    assert "embeddings and head" not in terms() | terms("onnx.precision=fp32")  # torch reads the graph's
    assert terms("onnx.precision=int8")["embeddings and head"] == terms("forward=torch")["embeddings and head"]
    loaded = [
        budget.fit(settings.load("economical", [f"forward={path}"]), DEMO, CPU, free=1 << 40).prediction.phases["load"]
        for path in ("onnx", "torch")
    ]
    assert loaded[0]["embeddings and head"] == loaded[1]["embeddings and head"] > 0  # dropped when the graph is there
    assert terms()["graph adapter"] == terms()["adapter"]
    assert "graph adapter" not in terms("learn.mode=none")
    assert not any(name.startswith("graph") for name in terms("forward=torch"))


def test_the_onnx_cache_is_as_large_as_predicted() -> None:
    from edge.memory.graph import ROOM, GraphTerms
    from export.cache import Buffers
    from export.manifest import Manifest
    from export.rows import Place

    sliding = list(range(DEMO.sliding))
    held = Manifest(
        "", "nf4", "cpu", 21, DEMO.layers, DEMO.groups, DEMO.head_dim, DEMO.hidden, DEMO.vocab, "float32",
        DEMO.window or 0, sliding, Place(0, 0, 0), Place(0, 0, 0), {}, {}, {}, {},
    )  # fmt: skip
    chosen = budget.fit(settings.load("economical", ["forward=onnx"]), DEMO, CPU, free=1 << 40).settings
    for tokens in (300, 2000):  # less and more than layers with a window have room for
        buffers = Buffers(held, "cpu", 0)
        buffers.reserve(tokens, 0)
        assert buffers.capacity == -(-tokens // ROOM) * ROOM
        assert sum(value.numpy().nbytes for value in buffers.values) == GraphTerms(chosen, DEMO).cache(tokens)


def test_between_all_that_makes_a_run_fast_and_nothing_of_it_there_are_steps() -> None:
    """Of what is written by torch the copies go last, block by block; of what is only read, before activations, and
    come back where those made room. Less memory never makes a plan that is estimated faster.
    """
    asked = settings.load("economical")
    for decodes in (True, False):
        most = budget.fit(asked, DEMO, CPU, free=1 << 40, share=0.5, decodes=decodes).prediction.peak()
        seen = []
        for step in range(60, 15, -1):
            limit = most * step / 60
            plan = budget.fit(asked, DEMO, CPU, free=int(2 * limit), share=0.5, decodes=decodes)
            compute = plan.settings.compute
            assert compute.paging == "off"
            kept = DEMO.layers if compute.copied is None else compute.copied
            seen.append((kept, compute.checkpointing, plan.pace().seconds))
            if kept or compute.checkpointing == "off":
                assert plan.prediction.peak() <= limit + 1
        assert seen[0][:2] == (DEMO.layers, "off") and seen[-1][:2] == (0, "on")
        paces = [seconds for _, _, seconds in seen]
        assert paces == sorted(paces) and len({kept for kept, _, _ in seen}) > 3
        assert (DEMO.layers, "on") in [entry[:2] for entry in seen]
        between = {checkpointing for kept, checkpointing, _ in seen if 0 < kept < DEMO.layers}
        assert between == ({"on"} if decodes else {"on", "off"})


@pytest.mark.parametrize("dims", [DEMO, LLAMA_7B], ids=["demo", "7B"])
@pytest.mark.parametrize("decodes", [True, False])
def test_each_step_frees_memory_for_seconds_and_the_cheapest_goes_first(dims: shape.Shape, decodes: bool) -> None:
    asked = settings.load("economical", ["budget=1TB", "learn.prefix=cached"])
    rungs = budget.fit(asked, dims, CPU, 0, decodes=decodes).rungs(asked)
    plans = [plan for _, plan in rungs]
    assert [said for said, _ in rungs][:2] == ["nothing", "freed memory given back to the system"]
    assert plans[-1].settings.compute.weights == "packed" and plans[-1].settings.compute.checkpointing == "on"
    seconds = [plan.pace().seconds for plan in plans]
    peaks = [plan.prediction.peak() for plan in plans]
    assert seconds == sorted(seconds) and peaks == sorted(peaks, reverse=True)
    for before, after in itertools.pairwise(plans[1:]):
        taken, *others = budget._by_seconds(before.settings, dims, CPU, decodes)
        assert taken[1] == after.settings
        assert all(_price(before, taken[1]) <= _price(before, other) for _, other in others)


def _price(plan: budget.Plan, lower: settings.Settings) -> float:
    """Estimated seconds for each byte that a step frees."""
    options = {"decodes": plan.decodes}
    paces = [pace.estimate(s, plan.shape, CPU, cores=budget.TYPICAL_CORES, **options) for s in (lower, plan.settings)]
    freed = plan.prediction.peak() - predict(lower, plan.shape, CPU, **options).peak()
    return (paces[0].seconds - paces[1].seconds) / freed if freed > 0 else math.inf


def test_an_estimate_counts_what_is_done() -> None:
    """Its parts by hand: a lesson's FLOPs, how often weights are unpacked, what a written token reads."""
    given = [
        "learn.epochs=2",
        "learn.prefix=cached",
        "compute.paging=off",
        "compute.heap=keep",
        "compute.loss_slice=64",
    ]
    base = settings.load("economical", [*given, "compute.weights=cached", "compute.checkpointing=off", "forward=torch"])
    packed = base.override(["compute.weights=packed"])
    half = base.override(["compute.weights=some:9"])
    kept, none, some = (pace.estimate(s, DEMO, CPU, decodes=True, cores=1) for s in (base, packed, half))
    assert kept.chunk == pytest.approx(sum(flops.per_chunk(base, DEMO).values()) / pace.CORE_FLOPS["float32"])
    unpacked = DEMO.linear_parameters / pace.CORE_UNPACKS
    assert none.chunk - kept.chunk == pytest.approx(2 * 2 * unpacked)  # two epochs, forward and backward
    assert some.chunk - kept.chunk == pytest.approx(2 * unpacked)
    assert none.token - kept.token == pytest.approx(unpacked - 4 * DEMO.linear_parameters / pace.CORE_READS)
    assert kept.token < some.token < none.token and kept.tokens == base.window.chunk
    again = pace.estimate(packed.override(["compute.checkpointing=on"]), DEMO, CPU, decodes=True, cores=1)
    assert pace.readings(packed.override(["compute.checkpointing=on"]), DEMO) == 6 and again.chunk > none.chunk
    assert pace.estimate(packed, DEMO, CPU, decodes=False).token == 0
