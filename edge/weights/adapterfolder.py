"""Adapters on the disk: as a run keeps one, and as a folder that peft reads and writes.

Owns: both forms, what of peft's can be taken in.
Does not know: models, sessions, whether an adapter fits one; pickled files, which are never read.
Units: tensors by `LAYER.lora_A` (rank, in) and `LAYER.lora_B` (out, rank); what a layer adds is scale * B A x.

    FOLDER/adapter_config.json         peft's LoraConfig: rank, alpha, the layers by their full names
    FOLDER/adapter_model.safetensors   base_model.model.LAYER.lora_A.weight, ...
    FOLDER/templora.json               fingerprint of the base, sum of the weights; not there in folders of others
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from .. import journal
from ..errors import ModelError, StorageError, describe
from . import tensorfile

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
OURS = "templora.json"
PREFIX = "base_model.model."
LARGEST = 1 << 20  # rank: more than any matrix has rows
# what of a peft adapter is no plain LoRA: the value that it must have, or must not have at all
_PLAIN: dict[str, Any] = {
    "peft_type": "LORA", "use_dora": False, "bias": "none", "lora_bias": False, "fan_in_fan_out": False,
    "modules_to_save": None, "layers_to_transform": None, "rank_pattern": {}, "alpha_pattern": {},
    "target_parameters": None, "layer_replication": None, "trainable_token_indices": None,
}  # fmt: skip


@dataclass(frozen=True)
class Kept:
    """An adapter that is on the disk.

    Attributes:
        where: the folder or run that it is from.
        tensors: read when they are asked for.
        rank: rows of A.
        scale: alpha / rank.
        base: fingerprint of the base that it was made on; empty where it is not known.
    """

    where: Path
    tensors: Mapping[str, Tensor]
    rank: int
    scale: float
    base: str = ""


def write(folder: Path, kept: Kept, model: str) -> None:
    """Writes a peft folder; `model` is what its config calls the base.

    Raises:
        StorageError: it cannot be written, or holds something else, which the adapter would change: a model, a run.
    """
    layers = list(dict.fromkeys(name.rpartition(".")[0] for name in kept.tensors))
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": model,
        "r": kept.rank,
        "lora_alpha": kept.scale * kept.rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": layers,
        "inference_mode": True,
    }

    def named() -> Iterator[tuple[str, Tensor]]:
        for name, tensor in kept.tensors.items():
            yield f"{PREFIX}{name}.weight", tensor

    with journal.guarded(f"write {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        there = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    others = sorted(there - {WEIGHTS, OURS, CONFIG})  # those are an earlier adapter's, which is replaced
    if others:
        raise StorageError(f"{folder} holds {others[0]}", "a new or empty folder", "choose another name")
    with journal.atomic_writer(folder / WEIGHTS) as temporary:
        tensorfile.write(temporary, named)
    ours = {"base": kept.base, "sha256": journal.file_fingerprint(folder / WEIGHTS)}
    for name, value in ((OURS, ours), (CONFIG, config)):  # peft's config last: with it the folder is an adapter
        journal.atomic_write(folder / name, (json.dumps(value, indent=2) + "\n").encode())


def read(folder: Path) -> Kept:
    """The adapter in a peft folder.

    Raises:
        ModelError: it is damaged, no plain LoRA, or not in safetensors.
    """
    config = _config(folder)
    for name, plain in _PLAIN.items():
        value = config.get(name, plain)
        if value != plain and not (value is None or value in ([], {}, False)):
            raise ModelError(f"{folder / CONFIG} has {name} {value!r:.80}", "a plain LoRA", "export it as one")
    rank = config.get("r")
    alpha = config.get("lora_alpha")
    if type(rank) is not int or not 1 <= rank <= LARGEST or not _is_scale(alpha):
        raise ModelError(
            f"{folder / CONFIG} has r {rank!r:.40} and lora_alpha {alpha!r:.40}", "numbers", "export it again"
        )
    if not (folder / WEIGHTS).is_file():
        raise ModelError(f"{folder} holds no {WEIGHTS}", "an adapter in safetensors", "save it again with peft")
    scale = float(alpha or 0) / (math.sqrt(rank) if config.get("use_rslora") else rank)
    base, sha256 = _ours(folder)
    _compare(folder / WEIGHTS, sha256)
    return Kept(folder, _Named(folder / WEIGHTS), rank, scale, base)


def of_run(path: Path, rank: int, scale: float, base: str, sha256: str) -> Kept:
    """The adapter in a run's file.

    Raises:
        ModelError: the file is not what was kept.
    """
    _compare(path, sha256)
    return Kept(path.parent.parent, tensorfile.TensorFile(path), rank, scale, base)


def _is_scale(alpha: Any) -> bool:
    try:
        return type(alpha) in (int, float) and math.isfinite(float(alpha))
    except OverflowError:  # a whole number that no float holds
        return False


def _compare(path: Path, sha256: str) -> None:
    tensorfile.entries(path)
    if sha256 and journal.file_fingerprint(path) != sha256:
        raise tensorfile.broken(path)


class _Named(Mapping[str, Tensor]):
    """peft's file under our names."""

    def __init__(self, path: Path) -> None:
        names = [entry.name for entry in tensorfile.entries(path)]
        self._names: dict[str, str] = {}
        for name in names:
            bare = name.removeprefix(PREFIX).removesuffix(".weight")
            if not bare.endswith((".lora_A", ".lora_B")) or bare == name:
                raise ModelError(f"{path} holds {name:.120}", f"{PREFIX}LAYER.lora_A.weight", "save it again with peft")
            self._names[bare] = name
        self._file = tensorfile.TensorFile(path)

    def __getitem__(self, name: str) -> Tensor:
        return self._file[self._names[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / CONFIG).read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(
            f"{folder / CONFIG} cannot be read ({describe(error)})", "peft's config", "save it again"
        ) from error
    if not isinstance(config, dict):
        raise ModelError(f"{folder / CONFIG} holds no object", "peft's config", "save it again")
    return config


def _ours(folder: Path) -> tuple[str, str]:
    """Fingerprint of the base and sum of the weights; empty in somebody else's folder."""
    try:
        found = json.loads((folder / OURS).read_text("utf-8"))
        return str(found["base"]), str(found["sha256"])
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return "", ""
