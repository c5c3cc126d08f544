"""The repair start: against the best low-rank product in float64, through the command line, and in a session."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

import edge
from edge import cli
from edge.errors import ModelError, SettingsError
from edge.learning import blockwise, repair
from edge.memory import repairing
from edge.memory.repairing import Way
from edge.model import base as bases
from edge.model.adapter import Adapter
from edge.model.loss import Head
from edge.settings import AdapterSettings
from edge.store import sources
from edge.weights import pieces, quantize
from tests import tiny

OVERRIDES = [*tiny.WINDOW, "compute.matmul=float32", "compute.threads=1"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, object]]:
    """A full model, its 4-bit folder with a repair, and that folder's manifest."""
    root = tmp_path_factory.mktemp("repair")
    full = tiny.folder(root / "full", "llama")
    options = ["--repair", "--repair-rank", "8", "--repair-texts", "8", "--repair-epochs", "1"]
    assert cli.main(["quantize", str(full), str(root / "nf4"), *options]) == 0
    assert cli.main(["quantize", str(full), str(root / "plain")]) == 0
    return full, root / "nf4", json.loads((root / "nf4" / "templora.json").read_text())


def load(folder: Path, *overrides: str) -> edge.Runtime:
    return edge.load(str(folder), "economical", overrides=[*OVERRIDES, *overrides])


def test_no_product_of_that_rank_is_nearer() -> None:
    generator = torch.Generator().manual_seed(0)
    error = torch.randn(24, 40, generator=generator)
    inputs = torch.randn(500, 40, generator=generator) * torch.linspace(0.1, 3, 40)
    moment = inputs.T @ inputs / len(inputs)
    damped = (moment + torch.eye(40) * repair.DAMPING * moment.diagonal().mean()).double()
    values, vectors = torch.linalg.eigh(damped)
    root = vectors * values.sqrt() @ vectors.T  # another root than the one that is used there
    best = torch.linalg.svdvals(error.double() @ root)
    for rank in (1, 5, 12):
        a, b = repair.low_rank(error, moment.clone(), rank)
        left = torch.linalg.norm((error - b @ a).double() @ root)
        assert float(left) == pytest.approx(float(best[rank:].norm()), rel=1e-3)
        assert torch.allclose(a.norm(dim=1), torch.full((rank,), repair.ROW_NORM))


@pytest.mark.parametrize("softcap", [None, 5.0])
def test_divergence_and_its_gradient_are_torch_s(softcap: float | None) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, wanted = torch.randn(2, 30, 16, generator=generator, dtype=torch.float32).unbind()
    head = Head(torch.randn(50, 16, generator=generator), None, softcap, 0.7)

    def plain(x: torch.Tensor) -> torch.Tensor:
        logits = x @ head.weight.to(x.dtype).T * head.scale
        return logits if softcap is None else softcap * torch.tanh(logits / softcap)

    exact = hidden.double().requires_grad_()
    expected = F.kl_div(
        plain(exact).log_softmax(-1), plain(wanted.double()).log_softmax(-1), log_target=True, reduction="batchmean"
    )
    expected.backward()
    found, grad = repair._divergence(hidden, wanted, head, backward=True, rows=8)
    assert float(found) == pytest.approx(float(expected.detach()), rel=1e-5)
    assert exact.grad is not None
    assert torch.allclose(grad.double(), exact.grad, rtol=1e-4, atol=1e-7)


def test_the_model_writes_its_own_text_each_by_itself(folders: tuple[Path, Path, dict[str, object]]) -> None:
    """The same in any way; and as likely as the model's own logits say, where each token is drawn anew from them."""
    base = load(folders[1]).base
    together, again = (repair.sample(base, 3, 20, Way(cached, 3), seed=1) for cached in (True, False))
    assert torch.equal(together, again) and together.shape == (3, 20)
    assert (together[:, 0] == 0).all() and len({tuple(row) for row in together.tolist()}) == 3
    alone = repair.sample(base, 3, 20, Way(True, 1), seed=1)
    generator = torch.Generator().manual_seed(1)
    for text in alone:
        for at in range(1, 20):
            with torch.no_grad():
                chances = base.model(input_ids=text[None, :at]).logits[0, -1].double().softmax(-1).cumsum(-1)
            drawn = torch.rand(1, dtype=torch.float64, generator=generator)
            assert float(chances[text[at]]) > float(drawn) - 1e-4
            assert text[at] == 0 or float(chances[text[at] - 1]) < float(drawn) + 1e-4


def test_quantisation_is_repaired_and_the_base_is_the_same(folders: tuple[Path, Path, dict[str, object]]) -> None:
    _, folder, manifest = folders
    entry = manifest["repair"]
    assert isinstance(entry, dict)
    apart = entry["nats_from_full"]
    assert apart["fitted"] < 0.8 * apart["before"] and apart["distilled"] < apart["before"]
    assert entry["sha256"] == sources.sha256_file(folder / entry["file"])
    plain = load(folder.parent / "plain").base
    repaired = load(folder)
    assert plain.fingerprint() == repaired.base.fingerprint() and plain.repair() is None
    assert repaired.base.checksum() == plain.checksum()


def test_what_the_repair_costs_is_said(
    folders: tuple[Path, Path, dict[str, object]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--repair", "--repair-rank", "4", "--repair-texts", "2", "--repair-epochs", "0", "--json"]
    assert cli.main(["quantize", str(folders[0]), str(tmp_path / "nf4"), *options]) == 0
    out = capsys.readouterr().out
    cost = json.loads(out.splitlines()[-1])["repair_cost"]
    layers = [layer for _, layer in load(tmp_path / "nf4").base.linears()]
    assert cost["adapter_bytes"] == 4 * 4 * sum(layer.in_features + layer.out_features for layer in layers)
    assert cost["disk_bytes"] == (tmp_path / "nf4/repair.safetensors").stat().st_size
    assert "the repair takes" in out and cost["load_seconds"] > 0


def test_a_session_starts_from_the_repair(folders: tuple[Path, Path, dict[str, object]]) -> None:
    full, folder, _ = folders
    text = torch.tensor(bases.encode(tiny.tokenizer(), tiny.TEXT))
    wanted = load(full, "base.precision=full", "learn.mode=none").session().forward.nll(text, 100)
    runtime = load(folder, "adapter.rank=8", "adapter.alpha=16")
    before = runtime.base.checksum()
    with runtime.session() as session:
        base, repaired = (session.forward.nll(text, 100, adapter=which) for which in (False, True))
        assert not session.fresh and session.adapter is not None
        stored = runtime.base.repair()
        assert stored is not None
        for name, layer in session.adapter.layers.items():  # just what is in the folder, at any scaling
            a, b = (getattr(layer, kind)[session.adapter.name].weight for kind in ("lora_A", "lora_B"))
            product = stored[f"{name}.lora_B"].float() @ stored[f"{name}.lora_A"].float()
            assert torch.allclose(layer.scaling[session.adapter.name] * b @ a, product, atol=1e-5)
        chunks = list(session.score(tiny.TEXT))
        assert chunks[0].adapter_nll != chunks[0].base_nll
        assert session.learner is not None
        session.learner.start_anew()
        assert torch.equal(session.forward.nll(text, 100), repaired)
    # how much it mends is held on texts like those it was made from, above; this one is of another kind
    assert (repaired - wanted).norm() < (base - wanted).norm()
    assert runtime.base.checksum() == before
    with load(folder, "adapter.start=fresh").session() as session:
        assert session.fresh and torch.equal(session.forward.nll(text, 100), base)


def test_a_repaired_start_learns_at_half_the_rate(folders: tuple[Path, Path, dict[str, object]]) -> None:
    """One step of AdamW without decay moves every number by the rate, of which the first step has half."""
    moved = []
    for start in ("auto", "fresh"):
        overrides = [
            "learn.lr=2e-3",
            "learn.epochs=1",
            f"adapter.start={start}",
        ]
        with load(folders[1], *overrides).session() as session:
            assert session.adapter is not None and session.learner is not None
            before = session.adapter.snapshot()
            session.learner.learn(torch.arange(2, 60), 20)
            after = session.adapter.snapshot()
            moved.append(max(float((after[name] - before[name]).abs().max()) for name in before))
    assert moved == pytest.approx([5e-4, 1e-3], rel=0.02)


@pytest.mark.parametrize("rank", [3, 12])
def test_another_rank_takes_what_fits(folders: tuple[Path, Path, dict[str, object]], rank: int) -> None:
    runtime = load(folders[1])
    stored = runtime.base.repair()
    assert stored is not None
    adapter = Adapter(runtime.base, AdapterSettings(rank=rank, alpha=rank**1.5))
    for name, layer in adapter.layers.items():
        a, b = (getattr(layer, kind)[adapter.name].weight for kind in ("lora_A", "lora_B"))
        shared = min(rank, 8)
        product = stored[f"{name}.lora_B"].float()[:, :shared] @ stored[f"{name}.lora_A"].float()[:shared]
        assert torch.allclose(layer.scaling[adapter.name] * b @ a, product, atol=1e-5)
    adapter.discard()


def test_layers_that_do_not_learn_are_repaired_too(folders: tuple[Path, Path, dict[str, object]]) -> None:
    text = torch.tensor(bases.encode(tiny.tokenizer(), tiny.TEXT))
    with load(folders[1], "adapter.rank=12", "adapter.alpha=12").session() as session:
        whole = session.forward.nll(text, 100)
    for part in ("adapter.layers=top:1", "adapter.modules=[down_proj]"):
        runtime = load(folders[1], "adapter.rank=12", "adapter.alpha=12", part)
        torch.use_deterministic_algorithms(True)  # memory that nothing was written to holds NaN
        try:
            session = runtime.session()
        finally:
            torch.use_deterministic_algorithms(False)
        with session:
            assert session.adapter is not None and session.learner is not None
            assert torch.equal(session.forward.nll(text, 100), whole)
            kept = {n: m.lora_A[session.adapter.name].weight.clone() for n, m in session.adapter.layers.items()}
            session.learner.learn(text[:64], 24)
            changed = {
                n
                for n, m in session.adapter.layers.items()
                if not torch.equal(m.lora_A[session.adapter.name].weight, kept[n])
            }
            assert changed == set(session.adapter.targets) and len(changed) < len(kept)


def test_what_can_be_wrong_with_it(folders: tuple[Path, Path, dict[str, object]], tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(folders[1], folder)
    runtime = load(folder)
    (folder / repair.FILE).write_bytes(b"not tensors")
    with pytest.raises(ModelError, match="--repair"):
        runtime.session()
    with pytest.raises(ModelError, match=r"11 bytes.*adapter\.start=fresh"):
        load(folder)
    with load(folder, "adapter.start=fresh").session() as session:
        assert session.fresh
    with pytest.raises(SettingsError, match="holds none"):
        load(folders[1].parent / "plain", "adapter.start=repair").session()
    with pytest.raises(SettingsError, match="rank is 0"):
        repair.RepairSettings(rank=0)
    other = dataclasses.replace(runtime.base, folder=None)
    assert other.repair() is None and other.repair_fingerprint() == ""


def test_a_folder_is_named_where_there_is_no_cache_for_it(folders: tuple[Path, Path, dict[str, object]]) -> None:
    assert cli.main(["quantize", str(folders[0])]) == 2


def test_no_full_model_is_loaded(
    folders: tuple[Path, Path, dict[str, object]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same repair with all full weights loaded at once, where they cannot be read in pieces; that is said."""
    full, folder, manifest = folders
    options = repair.RepairSettings(rank=8, texts=8)
    loaded: list[str] = []
    real = bases.load
    monkeypatch.setattr(bases, "load", lambda source, *rest: loaded.append(source.reference) or real(source, *rest))
    made = [load_file(folder / repair.FILE)]
    for which in ("pieces", "whole"):
        shutil.copytree(folder, tmp_path / which)
        said: list[str] = []
        if which == "whole":
            monkeypatch.setattr(repair.originals, "of", _cannot)
        repair.make(tmp_path / which, sources.resolve(str(full)), options, said.append)
        made.append(load_file(tmp_path / which / repair.FILE))
        assert any("loaded whole (for a reason)" in line for line in said) == (which == "whole")
        assert loaded == [str(tmp_path / "pieces")] if which == "pieces" else str(full) in loaded
    assert manifest["repair"]["made_with"] == dataclasses.asdict(options)  # type: ignore[index]
    for other in made[1:]:
        assert made[0].keys() == other.keys()
        assert all(torch.equal(tensor, other[name]) for name, tensor in made[0].items())


def _cannot(*args: object) -> None:
    raise pieces.Whole("for a reason")


def test_held_out_texts_are_not_what_it_is_made_from(
    folders: tuple[Path, Path, dict[str, object]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other held-out texts leave the repair as it is."""
    made = []
    real = repair.sample
    for ends in (1, 2):
        folder = tmp_path / str(ends)
        shutil.copytree(folders[1], folder)

        def sampled(*args: Any, ends: int = ends, **named: Any) -> torch.Tensor:
            texts = real(*args, **named).clone()
            texts[8:] = texts[8:].flip(0)[:ends].repeat(4 // ends, 1)
            return texts

        monkeypatch.setattr(repair, "sample", sampled)
        options = repair.RepairSettings(rank=4, texts=8, epochs=0)
        repair.make(folder, sources.resolve(str(folders[0])), options)
        made.append(load_file(folder / repair.FILE))
    assert all(torch.equal(tensor, made[1][name]) for name, tensor in made[0].items())


def test_a_budget_is_planned_before_anything_is_made(
    folders: tuple[Path, Path, dict[str, object]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--repair", "--repair-texts", "8", "--repair-rank", "8"]
    assert cli.main(["quantize", str(folders[0]), str(tmp_path / "new"), *options, "--memory-budget", "400MB"]) == 5
    said = capsys.readouterr().err
    assert "repairing" in said and "phase" in said and "--repair-rank" in said and not (tmp_path / "new").exists()
    assert cli.main(["quantize", str(folders[0]), str(tmp_path / "new"), *options, "--memory-budget", "2GB"]) == 0
    assert "the repair needs about" in capsys.readouterr().err


def test_the_plan_grows_with_a_block_and_not_with_the_model() -> None:
    """Eight billion weights: a budget below their 16 GB is enough, where all at once took 30 GB and more beside it."""
    from edge.memory import shape
    from edge.memory.prediction import Machine

    config = {
        "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256, "dtype": "bfloat16",
    }  # fmt: skip
    needs = repairing.Needs(64, 44, 512)
    machine = Machine("cpu", 4, 500_000_000)
    found = {}
    for layers in (32, 64):
        dims = shape.from_config(config | {"num_hidden_layers": layers}, packed=True)
        found[layers] = repairing.predict(dims, machine, needs, Way(False, 1))
    one, two = (found[layers].phases["walk"] for layers in (32, 64))
    assert one["full weights"] == two["full weights"] == 2 * (4096 * (4096 * 2 + 1024 * 2) + 3 * 4096 * 14336)
    assert one["second moments"] == two["second moments"]
    at_once = repairing.predict(shape.from_config(config, packed=True), machine, needs, Way(False, 1), together=True)
    assert found[32].peak() < 13e9 and at_once.phases["walk"]["full weights"] == 2 * 32 * one["full weights"]


def test_a_gguf_file_gives_the_repair_of_the_folder_that_it_was_made_of(tmp_path: Path) -> None:
    """Bit for bit: of the same weights, read under other names and in another order of rotary features."""
    tiny.model("llama").to(torch.bfloat16).save_pretrained(tmp_path / "full")
    tiny.tokenizer().save_pretrained(tmp_path / "full")
    path = tiny.gguf(tmp_path / "m.gguf", "llama")
    options = repair.RepairSettings(rank=4, texts=2, tokens=48, held_out=1)
    made = []
    for source in (tmp_path / "full", path):
        out = tmp_path / f"{source.name}-nf4"
        quantize.quantize_to_folder(str(source), out)
        repair.make(out, sources.resolve(str(source)), options)
        made.append(load_file(out / repair.FILE))
    assert all(torch.equal(tensor, made[1][name]) for name, tensor in made[0].items())
    assert max(float(tensor.abs().max()) for name, tensor in made[0].items() if name.endswith("lora_B")) > 0


def test_experts_are_read_in_full_and_what_lies_beside_them_is_repaired(tmp_path: Path) -> None:
    """The fit of attention is made on what the full experts gave; no expert has an adapter."""
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 40}
    full = tiny.folder(tmp_path / "full", "qwen3_moe", **experts)
    quantize.quantize_to_folder(str(full), tmp_path / "nf4")
    options = repair.RepairSettings(rank=8, texts=6, tokens=64, epochs=0)
    apart = repair.make(tmp_path / "nf4", sources.resolve(str(full)), options)["repair"]["nats_from_full"]
    names = load_file(tmp_path / "nf4" / repair.FILE)
    assert names and all(".self_attn." in name for name in names)
    assert apart["fitted"] < apart["before"]


def test_the_full_model_writes_where_it_fits(folders: tuple[Path, Path, dict[str, object]], tmp_path: Path) -> None:
    """What it writes is what the same model loaded whole writes; a budget that cannot hold it leaves it to 4 bits."""
    full, folder, _ = folders
    alone = load(full, "base.precision=full").base
    base = load(folder).base
    ids = torch.arange(2, 40)
    with torch.no_grad():
        before, wanted = (blockwise.hidden_states(model, ids) for model in (base, alone))
        for wide in (True, False):
            with blockwise.whole(base, repair.originals.of(full).tensors, wide=wide):
                assert torch.equal(blockwise.hidden_states(base, ids), wanted)
                assert torch.equal(repair.sample(base, 3, 20, Way(wide, 3)), repair.sample(alone, 3, 20, Way(True, 3)))
        assert torch.equal(blockwise.hidden_states(base, ids), before)
    config = json.loads((full / "config.json").read_text())
    large = {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "dtype": "bfloat16"}
    heads = {"num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 128256}
    (tmp_path / "config.json").write_text(json.dumps(config | large | heads))
    source = sources.Source("folder", tmp_path, "large")
    needs = repairing.Needs(64, 44, 512)
    for budget, writes in ((60 << 30, True), (14 << 30, False)):
        way, predicted = repairing.fit(source, needs, budget)
        assert way.full == writes and predicted is not None and predicted.peak() <= budget
        weights = 4 * 32 * (4096 * (4096 * 2 + 1024 * 2) + 3 * 4096 * 14336)
        assert (predicted.phases["sample"].get("full weights", 0) >= weights) == writes
