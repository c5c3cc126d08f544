"""COMET: a translation's quality as an encoder sees it that was trained on people's judgements.

Owns: what a checkpoint of Unbabel's holds, and its architecture. Does not know: what is done with scores.
Units: tokens; scores as the checkpoint was trained to give them, mostly from 0 to 1, higher is better.
Source: arXiv 2009.09025 (an estimator over sentence embeddings, with and without a reference) and arXiv 2209.06243
(one text of the translation and what it is compared with). Unbabel's own package needs older libraries than those here;
`scripts/checks/comet` runs it in an environment of its own, and the tests hold the code below to what it gave.

A checkpoint is torch's pickle. It is read without running what it names: of what is neither a tensor nor plain, an
empty thing is made.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from ..errors import ModelError, describe
from ..values import yamltext
from ..weights.alone import damaged, making
from ..weights.checkpoint import load_tokenizer
from .learned import ROOM, Metric, Sample, Words, in_batches, tokenizer_folder

HPARAMS = "hparams.yaml"
KINDS = ("regression_metric", "referenceless_regression_metric", "unified_metric")
POOLS = ("avg", "max", "cls", "default")  # of a text: its words' mean, their largest, its first, the last layer's first
ENCODERS = ("XLM-RoBERTa", "XLM-RoBERTa-XL")
WHOLE = "a COMET checkpoint as it was published"
MARGIN = 2  # positions that XLM-RoBERTa counts before a text's first


def find(path: Path) -> Metric:
    """The metric of a checkpoint.

    Args:
        path: the `.ckpt` file, or the folder that holds `hparams.yaml` and `checkpoints/model.ckpt`.

    Raises:
        ModelError: something is missing, damaged, or of a kind that is not known.
    """
    checkpoint = path / "checkpoints" / "model.ckpt" if path.is_dir() else path
    folder = checkpoint.parent.parent
    if not (folder / HPARAMS).is_file():
        raise ModelError(f"{checkpoint} has no {HPARAMS} in the folder above", WHOLE, "get it whole")
    said = _read_settings(folder / HPARAMS)
    kind = said.get("class_identifier")
    if kind not in KINDS:
        raise ModelError(f"{folder / HPARAMS} is of the kind '{kind}'", " or ".join(KINDS), "name another checkpoint")
    stored = _read(checkpoint, "meta")
    known = {**said, **stored["hyper_parameters"]}
    if said.get("layer_transformation") == "sparsemax_patch":  # trained with softmax, whatever was written then
        known["layer_transformation"] = "softmax"
    if known.get("encoder_model") not in ENCODERS:
        raise ModelError(
            f"{folder} has the encoder '{known.get('encoder_model')}'", " or ".join(ENCODERS), "name another checkpoint"
        )
    words = tokenizer_folder(folder, [str(known.get("pretrained_model"))])
    if known.get("pool", "avg") not in POOLS:
        raise ModelError(f"{folder} has the pooling '{known['pool']}'", " or ".join(POOLS), "name another checkpoint")
    size = sum(tensor.numel() * 4 for tensor in stored["state_dict"].values() if isinstance(tensor, Tensor))
    if kind == "unified_metric":
        reads = tuple(name for name, short in (("source", "src"), ("reference", "ref")) if short in _segments(known))
    else:
        reads = ("source", "reference") if kind == "regression_metric" else ("source",)
    return Metric("COMET", "higher", reads, size + ROOM, partial(_load, checkpoint, words, str(kind), known))


def _segments(known: Mapping[str, Any]) -> list[str]:
    return list(known.get("input_segments") or ["mt", "src", "ref"])


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        found = yamltext.read(path)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ModelError(f"{path} cannot be read ({describe(error)})", WHOLE, "get it again") from error
    return found if isinstance(found, dict) else {}


def _read(checkpoint: Path, device: str) -> dict[str, Any]:
    """Tensors and plain values of a checkpoint; the tensors are read from the file when they are used.

    Raises:
        ModelError: it is not there, or damaged.
    """
    if not checkpoint.is_file():
        raise ModelError(f"there is no checkpoint {checkpoint}", WHOLE, "check the path")
    try:
        archive = zipfile.is_zipfile(checkpoint)  # else from before torch 1.6: read at once, and nothing foreign in it
        names = torch.serialization.get_unsafe_globals_in_checkpoint(checkpoint) if archive else []
        with torch.serialization.safe_globals([(type("Empty", (_Empty,), {}), name) for name in names]):
            read = torch.load(checkpoint, map_location=device, weights_only=True, mmap=archive)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{checkpoint} is damaged, or names what must not be run", WHOLE, "get it again from its publisher"
        ) from error
    except Exception as error:
        raise damaged(checkpoint, error, WHOLE) from error
    if not isinstance(read, dict) or not all(isinstance(read.get(k), dict) for k in ("state_dict", "hyper_parameters")):
        raise ModelError(f"{checkpoint} has no state_dict or hyper_parameters", WHOLE, "get it again")
    return read


class _Empty:
    """What stands for an object of somebody else's class."""

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


def _load(
    checkpoint: Path, words: Path, kind: str, known: Mapping[str, Any], device: str
) -> Callable[[Sequence[Sample]], list[float]]:
    state = {name: tensor.float() for name, tensor in _read(checkpoint, "cpu")["state_dict"].items()}
    with making(checkpoint, WHOLE):
        model = Comet(_encoder(words, _below(state, "encoder.model."), checkpoint), known, state).to(device).eval()
        scorer = Scorer(model, Words(load_tokenizer(words)), kind, _segments(known), device)
        scorer.scores([Sample("a", "a", "a")])  # what does not fit together shows here
    return scorer.scores


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _encoder(words: Path, state: dict[str, Tensor], checkpoint: Path) -> Any:
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.from_pretrained(words, local_files_only=True)
    kind = AutoModel._model_mapping[type(config)]
    model, found = kind.from_pretrained(
        None, config=config, state_dict=state, add_pooling_layer=False, output_loading_info=True, dtype=torch.float32
    )
    if found["missing_keys"]:
        raise ModelError(
            f"{checkpoint} lacks {min(found['missing_keys'])} and {len(found['missing_keys']) - 1} more",
            "all weights of its encoder", "get it again, whole",
        )  # fmt: skip
    return model


class Comet(nn.Module):
    """The encoder, the mixture of its layers and the estimator."""

    shares: Tensor

    def __init__(self, encoder: Any, known: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
        """`known`: the checkpoint's hyperparameters. `state`: its tensors, by name."""
        super().__init__()
        self.encoder = encoder
        self.pool = str(known.get("pool", "avg"))
        self.layer = known.get("sent_layer", known.get("layer", "mix"))
        self.is_normed = bool(known.get("layer_norm", True))
        if self.layer == "mix":
            count = encoder.config.num_hidden_layers + 1
            weights = torch.cat([state[f"layerwise_attention.scalar_parameters.{i}"] for i in range(count)])
            share = sparsemax if known.get("layer_transformation") == "sparsemax" else partial(torch.softmax, dim=0)
            self.register_buffer("shares", share(weights) * state["layerwise_attention.gamma"])
        self.estimator = _estimator(_below(state, "estimator.ff."), known)

    def sentences(self, input_ids: Tensor, mask: Tensor, pool: str) -> Tensor:
        """(N, H) embeddings of (N, S) texts; `mask` is 1 where there is no padding."""
        layers = self.encoder(input_ids=input_ids, attention_mask=mask, output_hidden_states=True).hidden_states
        real = mask[..., None].float()
        if self.layer == "mix":
            words = torch.zeros_like(layers[0])
            for share, layer in zip(self.shares, layers, strict=True):
                words += share * (_normed(layer, real) if self.is_normed else layer)
        else:
            words = layers[int(self.layer)]
        if pool == "avg":
            return (words * real).sum(1) / real.sum(1)
        if pool == "max":
            return words.masked_fill(real == 0, -torch.inf).amax(1)
        return words[:, 0] if pool == "cls" else layers[-1][:, 0]


def _normed(layer: Tensor, real: Tensor) -> Tensor:
    """A text's words less their mean and by their spread, over all of its numbers, as `layer_norm` means it there."""
    count = real.sum((1, 2), keepdim=True) * layer.shape[-1]
    centred = layer - (layer * real).sum((1, 2), keepdim=True) / count
    spread = (centred * real).square().sum((1, 2), keepdim=True) / count
    return centred / (spread + 1e-12).sqrt()


def _estimator(state: Mapping[str, Tensor], known: Mapping[str, Any]) -> nn.Sequential:
    """Linear layers with an activation after each but the last, and a final one where the checkpoint has it."""
    parts: list[nn.Module] = []
    last = max(int(name.partition(".")[0]) for name in state)
    for place in sorted({int(name.partition(".")[0]) for name in state}):
        weight = nn.Parameter(state[f"{place}.weight"], requires_grad=False)
        linear = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
        linear.weight = weight
        linear.bias = nn.Parameter(state[f"{place}.bias"], requires_grad=False)
        activation = known.get("final_activation") if place == last else known.get("activations", "Tanh")
        parts += [linear, *([getattr(nn, str(activation).title())()] if activation else [])]
    return nn.Sequential(*parts)


def sparsemax(weights: Tensor) -> Tensor:
    """The point of the probability simplex that lies nearest to (N,) weights (arXiv 1602.02068)."""
    ordered = weights.sort(descending=True).values
    above = ordered.cumsum(0) - 1  # by how much the k largest exceed 1
    ranks = torch.arange(1, len(weights) + 1, device=weights.device)
    size = int((ordered * ranks > above).sum())
    return (weights - above[size - 1] / size).clamp_min(0)


@dataclass(frozen=True)
class Scorer:
    """A loaded checkpoint with its tokenizer."""

    model: Comet
    words: Words
    kind: str
    segments: list[str]
    device: str

    @torch.inference_mode()
    def scores(self, samples: Sequence[Sample]) -> list[float]:
        """One for each sample. Texts beyond the encoder's positions lose their end."""
        texts = {
            "mt": self._encode([sample.translation for sample in samples]),
            "src": self._encode([sample.source for sample in samples]),
            "ref": self._encode([sample.reference for sample in samples]),
        }
        if self.kind != "unified_metric":
            return self._from_embeddings(texts)
        wholes = [["mt", "src"], ["mt", "ref"], ["mt", "src", "ref"]] if len(self.segments) == 3 else [self.segments]
        each = [self._from_one_text([texts[name] for name in names]) for names in wholes]
        return [sum(values) / len(values) for values in zip(*each, strict=True)]

    def _positions(self) -> int:
        return int(self.model.encoder.config.max_position_embeddings) - MARGIN

    def _encode(self, texts: list[str]) -> list[list[int]]:
        return self.words.ids(texts, self._positions() - 2)

    def _sentences(self, rows: list[list[int]], pool: str) -> Tensor:
        """(N, H) of N texts."""
        return in_batches(rows, self.words, self.device, partial(self.model.sentences, pool=pool))

    def _from_embeddings(self, texts: Mapping[str, list[list[int]]]) -> list[float]:
        mt, src = (self._sentences(texts[name], self.model.pool) for name in ("mt", "src"))
        features = [mt, src, mt * src, (mt - src).abs()]
        if self.kind == "regression_metric":
            ref = self._sentences(texts["ref"], self.model.pool)
            features = [mt, ref, mt * ref, (mt - ref).abs(), *features[2:]]
        result: list[float] = self.model.estimator(torch.cat(features, 1)).view(-1).tolist()
        return result

    def _from_one_text(self, segments: Sequence[list[list[int]]]) -> list[float]:
        """<s> translation </s></s> source </s></s> ...: what is longer than the encoder's positions loses its end."""
        joined = []
        for parts in zip(*segments, strict=True):
            row = list(parts[0])
            for part in parts[1:]:
                row += [self.words.end, *part[1:]]
            joined.append(row[: self._positions()])
        result: list[float] = self.model.estimator(self._sentences(joined, "cls")).view(-1).tolist()
        return result
