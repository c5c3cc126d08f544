"""Tiny checkpoints of COMET, whose weights follow from formulas: the same wherever they are made.

`scripts/checks/comet` has Unbabel's own package score them, in an environment of its own; it imports nothing of ours.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

WIDTH = 32
LAYERS = 2
POSITIONS = 66  # of which the first two are none
SAMPLES = [
    {"src": "Das Haus ist alt.", "mt": "The house is old.", "ref": "The house is old."},
    {"src": "Er ging.", "mt": "She stayed at home, as ever.", "ref": "He left."},
    {"src": "猫", "mt": "A cat", "ref": "The cat"},
    {"src": "Ein langer Satz, " * 9, "mt": "A long sentence, " * 9, "ref": "A sentence that is long, " * 9},
]
CHECKPOINTS: dict[str, dict[str, Any]] = {
    "regression": {"class_identifier": "regression_metric"},
    "sparse": {"class_identifier": "regression_metric", "layer_transformation": "sparsemax"},
    "patched": {"class_identifier": "regression_metric", "layer_transformation": "sparsemax_patch"},
    "normed": {"class_identifier": "regression_metric", "layer_norm": True},
    "one layer, largest": {"class_identifier": "regression_metric", "layer": 1, "pool": "max"},
    "first word": {"class_identifier": "regression_metric", "pool": "cls", "final_activation": "Sigmoid"},
    "without reference": {"class_identifier": "referenceless_regression_metric"},
    "one text": {
        "class_identifier": "unified_metric",
        "input_segments": ["mt", "src"],
        "word_level_training": True,
        "word_layer": 1,
    },
    "three texts": {"class_identifier": "unified_metric", "input_segments": ["mt", "src", "ref"]},
    "pre-norm encoder": {
        "class_identifier": "unified_metric",
        "encoder_model": "XLM-RoBERTa-XL",
        "input_segments": ["mt", "src"],
    },
    "two texts": {"class_identifier": "unified_metric", "input_segments": ["mt", "ref"], "sent_layer": 1},
}
FEATURES = {"regression_metric": 6, "referenceless_regression_metric": 4, "unified_metric": 1}


def write(folder: Path, name: str, *, cut: str = "", foreign: Any = None) -> Path:
    """The checkpoint as it is published: hparams.yaml and checkpoints/model.ckpt, with tokenizer and config beside.

    Args:
        cut: a weight that is left out.
        foreign: something more that is pickled in it.
    """
    import yaml
    from transformers import XLMRobertaConfig, XLMRobertaModel, XLMRobertaXLConfig, XLMRobertaXLModel

    said = {
        "encoder_model": "XLM-RoBERTa", "pretrained_model": str(folder), "pool": "avg", "layer": "mix",
        "layer_transformation": "softmax", "layer_norm": False, "hidden_sizes": [24, 12], "activations": "Tanh",
        "final_activation": None, "dropout": 0.1, "train_data": [], "validation_data": [], **CHECKPOINTS[name],
    }  # fmt: skip
    (folder / "checkpoints").mkdir(parents=True)
    large = said["encoder_model"].endswith("-XL")
    config = (XLMRobertaXLConfig if large else XLMRobertaConfig)(
        vocab_size=260, hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=POSITIONS, type_vocab_size=1, pad_token_id=1, bos_token_id=0, eos_token_id=2,
    )  # fmt: skip
    config.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    encoder = (XLMRobertaXLModel if large else XLMRobertaModel)(config, add_pooling_layer=False)
    shapes = {f"encoder.model.{key}": value for key, value in _shapes(encoder)}
    mixed = said.get("sent_layer", said["layer"]) == "mix"
    if mixed:
        shapes |= {f"layerwise_attention.scalar_parameters.{i}": (1,) for i in range(LAYERS + 1)}
        shapes["layerwise_attention.gamma"] = (1,)
    widths = [FEATURES[said["class_identifier"]] * WIDTH, 24, 12, 1]
    for i, (inner, outer) in enumerate(zip(widths, widths[1:], strict=False)):
        shapes |= {f"estimator.ff.{3 * i}.weight": (outer, inner), f"estimator.ff.{3 * i}.bias": (outer,)}
    if said.get("word_level_training"):
        shapes |= {"hidden2tag.weight": (3, WIDTH), "hidden2tag.bias": (3,)}
    state = {key: _numbers(key, shape) for key, shape in shapes.items() if key != cut}
    known = {key: value for key, value in said.items() if key != "class_identifier"}
    if said["layer_transformation"] == "sparsemax_patch":
        known["layer_transformation"] = "sparsemax"
    stored = {"state_dict": state, "hyper_parameters": known, "pytorch-lightning_version": "2.0.0"}
    if foreign is not None:
        stored["callbacks"] = foreign
    torch.save(stored, folder / "checkpoints" / "model.ckpt")
    (folder / "hparams.yaml").write_text(yaml.safe_dump(said), encoding="utf-8")
    return folder


def _shapes(model: Any) -> list[tuple[str, tuple[int, ...]]]:
    return [(name, tuple(tensor.shape)) for name, tensor in model.named_parameters()]


def _numbers(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Waves whose phase follows from the name; norms near 1, a sparse enough mixture of layers."""
    count = math.prod(shape)
    waves = torch.sin(torch.arange(count, dtype=torch.float64) * 0.7391 + sum(name.encode()) % 97)
    size = 1.0 if "scalar_parameters" in name else 0.3
    shift = 1.0 if name.endswith(("LayerNorm.weight", "layer_norm.weight", "gamma")) else 0.0
    return (size * waves + shift).float().view(shape)


def tokenizer() -> Any:
    """One token per byte between <s> and </s>."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    inner = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate([*special, *alphabet])}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", cls_token="<s>", sep_token="</s>", pad_token="<pad>",
        unk_token="<unk>",
    )  # fmt: skip
