"""COMET and MetricX by path: what Unbabel's package and transformers' own class give for the same tiny checkpoints."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from edge.errors import BudgetError, ModelError, TemploraError
from edge.translation import comet, learned, metrics, metricx
from edge.translation.learned import Sample
from tests import comets

SAMPLES = [Sample(sample["src"], sample["mt"], sample["ref"]) for sample in comets.SAMPLES]


@pytest.mark.parametrize("name", comets.CHECKPOINTS)
def test_a_comet_checkpoint_scores_as_with_its_own_package(name: str, tmp_path: Path) -> None:
    golden = json.loads((Path(__file__).parent / "golden_comet.json").read_text("utf-8"))  # by scripts/checks/comet
    found = metrics.find(comets.write(tmp_path / "metric", name))
    assert (found.name, found.better) == ("COMET", "higher")
    assert found.load("cpu")(SAMPLES) == pytest.approx(golden[name], abs=2e-6)


def test_what_a_checkpoint_compares_with_is_known_before_it_is_loaded(tmp_path: Path) -> None:
    reads = {name: metrics.find(comets.write(tmp_path / name, name)).reads for name in comets.CHECKPOINTS}
    assert reads["regression"] == ("source", "reference") and reads["without reference"] == ("source",)
    assert reads["one text"] == ("source",) and reads["two texts"] == ("reference",)


def test_the_file_alone_is_as_good_as_its_folder(tmp_path: Path) -> None:
    folder = comets.write(tmp_path / "metric", "one text")
    found = metrics.find(folder / "checkpoints" / "model.ckpt").load("cpu")(SAMPLES[:2])
    assert found == metrics.find(folder).load("cpu")(SAMPLES[:2])


def test_a_file_from_before_torch_had_archives_is_read_too(tmp_path: Path) -> None:
    folder = comets.write(tmp_path / "metric", "sparse")
    wanted = metrics.find(folder).load("cpu")(SAMPLES[:2])
    path = folder / "checkpoints" / "model.ckpt"
    stored = torch.load(path, weights_only=True)
    torch.save(stored, path, _use_new_zipfile_serialization=False)
    assert metrics.find(folder).load("cpu")(SAMPLES[:2]) == wanted


def test_scores_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    folder = comets.write(tmp_path / "metric", "regression")
    path = folder / "checkpoints" / "model.ckpt"
    stored = torch.load(path, weights_only=True)
    stored["state_dict"]["estimator.ff.6.bias"].fill_(torch.nan)
    torch.save(stored, path)
    with pytest.raises(ModelError, match="no numbers"):
        metrics.find(folder).scores("cpu", {"off": SAMPLES})


def test_half_precision_is_widened_and_counted_so(tmp_path: Path) -> None:
    folder = comets.write(tmp_path / "metric", "regression")
    whole = metrics.find(folder)
    path = folder / "checkpoints" / "model.ckpt"
    stored = torch.load(path, weights_only=True)
    stored["state_dict"] = {name: tensor.half() for name, tensor in stored["state_dict"].items()}
    torch.save(stored, path)
    half = metrics.find(folder)
    assert half.size == whole.size
    assert half.load("cpu")(SAMPLES) == pytest.approx(whole.load("cpu")(SAMPLES), abs=2e-3)


def test_sparsemax_is_the_nearest_point_of_the_simplex() -> None:
    chance = torch.Generator().manual_seed(0)
    others = torch.rand(4000, 5, generator=chance)
    others = others / others.sum(1, keepdim=True)
    corners = torch.eye(5)
    for _ in range(20):
        weights = torch.randn(5, generator=chance)
        found = comet.sparsemax(weights)
        assert float(found.sum()) == pytest.approx(1) and bool((found >= 0).all())
        reached = float((found - weights).norm())
        assert reached <= float((torch.cat([others, corners]) - weights).norm(dim=1).min()) + 1e-6


def leave_a_file(path: str) -> None:
    """What a checkpoint must not get anybody to do."""
    Path(path).write_text("x", "utf-8")


class Spy:
    """An object that has something called when it is unpickled."""

    def __init__(self, function: Callable[[str], object], path: Path) -> None:
        self.call = function, (str(path),)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def test_nothing_that_a_checkpoint_names_is_run(tmp_path: Path) -> None:
    spied = tmp_path / "spied"
    pickle.loads(pickle.dumps(Spy(leave_a_file, spied)))
    spied.unlink()  # the spy works
    golden = json.loads((Path(__file__).parent / "golden_comet.json").read_text("utf-8"))
    folder = comets.write(tmp_path / "metric", "regression", foreign={"a callback": Spy(leave_a_file, spied)})
    assert metrics.find(folder).load("cpu")(SAMPLES) == pytest.approx(golden["regression"], abs=2e-6)
    blocked = comets.write(tmp_path / "blocked", "regression", foreign=Spy(os.mkdir, spied))
    with pytest.raises(ModelError, match="must not be run"):
        metrics.find(blocked)
    assert not spied.exists()


def _with(folder: Path, **said: Any) -> None:
    path = folder / "checkpoints" / "model.ckpt"
    stored = torch.load(path, weights_only=True)
    stored["hyper_parameters"] |= said
    torch.save(stored, path)


def _said(change: Callable[[Path], object], folder: Path) -> str:
    change(folder)
    with pytest.raises(TemploraError) as caught:
        metrics.find(folder).load("cpu")
    assert isinstance(caught.value, ModelError) and "\n" not in caught.value.line()
    return caught.value.line()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: (folder / "hparams.yaml").unlink(), "neither COMET's nor MetricX's"),
        (lambda folder: (folder / "hparams.yaml").write_text("a: [", "utf-8"), "cannot be read"),
        (lambda folder: (folder / "hparams.yaml").write_text("class_identifier: xcomet_metric", "utf-8"), "xcomet_metric"),
        (lambda folder: _with(folder, pool="median"), "the pooling 'median'"),
        (lambda folder: _with(folder, layer=7), "cannot be loaded"),
        (lambda folder: _with(folder, encoder_model="BERT"), "the encoder 'BERT'"),
        (lambda folder: (folder / "checkpoints" / "model.ckpt").unlink(), "there is no checkpoint"),
        (lambda folder: (folder / "checkpoints" / "model.ckpt").write_bytes(b"PK\3\4 no archive"), "cannot be loaded"),
        (lambda folder: torch.save([1], folder / "checkpoints" / "model.ckpt"), "no state_dict"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "has no tokenizer"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}", "utf-8"), "no usable tokenizer"),
        (lambda folder: (folder / "config.json").write_text("{}", "utf-8"), "cannot be loaded"),
    ],
)  # fmt: skip
def test_a_checkpoint_that_is_not_whole_is_refused_in_one_line(
    change: Callable[[Path], object], words: str, tmp_path: Path
) -> None:
    assert words in _said(change, comets.write(tmp_path / "metric", "regression"))


@pytest.mark.parametrize(
    "cut", ["encoder.model.encoder.layer.1.output.dense.weight", "estimator.ff.3.bias", "layerwise_attention.gamma"]
)
def test_a_checkpoint_without_a_weight_is_refused(cut: str, tmp_path: Path) -> None:
    assert "cut" in _said(lambda folder: None, comets.write(tmp_path / "cut", "regression", cut=cut))


def test_a_metric_larger_than_the_budget_is_refused(tmp_path: Path) -> None:
    found = metrics.find(comets.write(tmp_path / "metric", "regression"))
    found.require_room(1000, found.size + 1000)
    with pytest.raises(BudgetError, match="COMET"):
        found.require_room(1001, found.size + 1000)


def test_batches_hold_each_text_once_and_few_tokens() -> None:
    lengths = [5, 2000, 3, 700, 701, 1500, 2, 2]
    found = list(learned.batches(lengths))
    assert sorted(i for batch in found for i in batch) == list(range(len(lengths)))
    assert all(len(batch) == 1 or max(lengths[i] for i in batch) * len(batch) <= learned.BATCH for batch in found)
    assert len(found) < len(lengths)


@pytest.fixture(scope="module")
def mt5(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A tiny MT5 with a vocabulary that has the answer, as it is published: under its name."""
    from safetensors.torch import save_file
    from transformers import MT5Config, MT5ForConditionalGeneration

    config = MT5Config(
        vocab_size=metricx.ANSWER + 1, d_model=8, d_kv=4, d_ff=16, num_layers=2, num_decoder_layers=2, num_heads=2,
        decoder_start_token_id=0, pad_token_id=1, eos_token_id=2,
    )  # fmt: skip
    torch.manual_seed(0)
    model = MT5ForConditionalGeneration(config).eval()
    head = torch.randn(config.vocab_size, config.d_model)
    with torch.no_grad():  # livelier, so that answers differ
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and not name.startswith(("shared", "lm_head")):
                parameter *= 6
    state = {name: tensor for name, tensor in model.state_dict().items() if "embed_tokens" not in name}
    shared = state.pop("shared.weight")

    def make(name: str, embedding: str = "shared.weight", bins: bool = False) -> Path:
        folder = tmp_path_factory.mktemp("hub") / name
        config.save_pretrained(folder)
        comets.tokenizer().save_pretrained(folder)
        whole = {**state, embedding: shared, "lm_head.weight": head}
        if bins:
            torch.save(whole, folder / "pytorch_model.bin")
        else:
            save_file(whole, folder / "model.safetensors", {"format": "pt"})
        return folder

    return make


def _asked(folder: Path, questions: Sequence[str]) -> list[float]:
    """transformers' own stacks, one question at a time, without the end of the text."""
    from safetensors.torch import load_file
    from transformers import MT5Config, MT5Model

    state = load_file(folder / "model.safetensors")
    model = MT5Model(MT5Config.from_pretrained(folder)).eval()
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert unexpected == ["lm_head.weight"] and all("embed_tokens" in name for name in missing)  # tied to `shared`
    found = []
    for text in questions:
        ids = comets.tokenizer()(text, truncation=True, max_length=1536, return_tensors="pt")["input_ids"][:, :-1]
        with torch.no_grad():
            last = model(input_ids=ids, decoder_input_ids=torch.zeros(1, 1, dtype=torch.long)).last_hidden_state
        found.append(float((last[0, 0] @ state["lm_head.weight"].T)[250089].clamp(0, 25)))
    return found


@pytest.mark.parametrize(
    ("name", "reads", "form"),
    [
        ("metricx-24-hybrid-large-v2p6", ("source", "reference"), "source: {src} candidate: {mt} reference: {ref}"),
        ("metricx-23-qe-large-v2p0", ("source",), "candidate: {mt} source: {src}"),
        ("metricx-23-large-v2p0", ("reference",), "candidate: {mt} reference: {ref}"),
    ],
)
def test_a_metricx_checkpoint_scores_as_with_transformers_own_class(
    name: str, reads: tuple[str, ...], form: str, mt5: Callable[..., Path]
) -> None:
    folder = mt5(name)
    found = metrics.find(folder)
    assert (found.name, found.better, found.reads) == ("MetricX", "lower", reads)
    scores = found.load("cpu")(SAMPLES)
    assert scores == pytest.approx(_asked(folder, [form.format(**sample) for sample in comets.SAMPLES]), abs=1e-5)
    assert len({round(score, 3) for score in scores}) > 1  # the answers differ


def test_an_embedding_of_any_name_and_either_kind_of_file_give_the_same(mt5: Callable[..., Path]) -> None:
    name = "metricx-24-hybrid-large-v2p6"
    wanted = metrics.find(mt5(name)).load("cpu")(SAMPLES)
    assert metrics.find(mt5(name, "decoder.embed_tokens.weight")).load("cpu")(SAMPLES) == wanted
    assert metrics.find(mt5(name, bins=True)).load("cpu")(SAMPLES) == wanted


def test_a_metricx_in_half_precision_is_counted_as_it_is_widened(mt5: Callable[..., Path]) -> None:
    from safetensors.torch import load_file, save_file

    folder = mt5("metricx-24-hybrid-large-v2p6")
    whole = metrics.find(folder).size
    path = folder / "model.safetensors"
    save_file({name: tensor.bfloat16() for name, tensor in load_file(path).items()}, path)
    assert metrics.find(folder).size == whole == metrics.find(mt5("metricx-24-hybrid-large-v2p6", bins=True)).size


def test_an_mt5_whose_path_does_not_say_what_it_was_asked_is_refused(mt5: Callable[..., Path]) -> None:
    with pytest.raises(ModelError, match="which MetricX"):
        metrics.find(mt5("my-metric"))
