"""Adapters on the disk: as a run keeps one, and as a folder that peft reads and writes.

Owns: both forms, what of peft's can be taken in.
Does not know: models, sessions, whether an adapter fits one; pickled files, which are never read.
Units: tensors by `LAYER.lora_A` (rank, in) and `LAYER.lora_B` (out, rank); what a layer adds is scale * B A x. Those of
experts are (experts, rank, in) and (experts, out, rank), by the name of the parameter that holds them.

    FOLDER/adapter_config.json         peft's LoraConfig: rank, alpha, layers and experts by their full names
    FOLDER/adapter_model.safetensors   base_model.model.LAYER.lora_A.weight, ...; of experts: `peftexperts.py`
    FOLDER/templora.json               fingerprint of the base, sum of the weights, scale and strength; not there in
                                       folders of others
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
from . import peftexperts, tensorfile

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
OURS = "templora.json"
PREFIX = "base_model.model."
_PAIR = ("lora_A", "lora_B")
LARGEST = 1 << 20  # rank: more than any matrix has rows
# what of a peft adapter is no plain LoRA: the value that it must have, or must not have at all
_PLAIN: dict[str, Any] = {
    "peft_type": "LORA", "use_dora": False, "bias": "none", "lora_bias": False, "fan_in_fan_out": False,
    "modules_to_save": None, "layers_to_transform": None, "rank_pattern": {}, "alpha_pattern": {},
    "layer_replication": None, "trainable_token_indices": None,
}  # fmt: skip


@dataclass(frozen=True)
class Kept:
    """An adapter that is on the disk.

    Attributes:
        where: the folder or run that it is from.
        tensors: read when they are asked for.
        rank: rows of A.
        scale: alpha / rank.
        strength: how much of it was used; the product of both is what peft makes of its folder.
        base: fingerprint of the base that it was made on; empty where it is not known.
        mixture: whether the base has experts, adapted or not.
        swapped: whether peft takes their matrices for transposed ones (`peftexperts.py`).
    """

    where: Path
    tensors: Mapping[str, Tensor]
    rank: int
    scale: float
    base: str = ""
    strength: float = 1.0
    mixture: bool = False
    swapped: bool = False


def write(folder: Path, kept: Kept, model: str) -> None:
    """Writes a peft folder; `model` is what its config calls the base.

    Raises:
        StorageError: it cannot be written, or holds something else, which the adapter would change: a model, a run.
    """
    layers, experts = _lies_on(kept)
    modules, parameters = peftexperts.targets(layers, experts) if experts or kept.mixture else (layers, [])
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": model,
        "r": kept.rank,
        "lora_alpha": kept.scale * kept.strength * kept.rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": modules,
        **({"target_parameters": parameters} if parameters else {}),
        "inference_mode": True,
    }

    def named() -> Iterator[tuple[str, Tensor]]:
        for name, tensor in kept.tensors.items():
            if name.rpartition(".")[0] not in experts:
                yield f"{PREFIX}{name}.weight", tensor
        for place in peftexperts.places(experts):
            pair = [kept.tensors[f"{place.module}.{place.leaf}.{part}"] for part in _PAIR]
            for part, tensor in zip(_PAIR, peftexperts.to_peft(*pair, swapped=kept.swapped), strict=True):
                yield f"{PREFIX}{place.holder}.{part}.weight", tensor

    with journal.guarded(f"write {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        there = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    others = sorted(there - {WEIGHTS, OURS, CONFIG})  # those are an earlier adapter's, which is replaced
    if others:
        raise StorageError(f"{folder} holds {others[0]}", "a new or empty folder", "choose another name")
    with journal.atomic_writer(folder / WEIGHTS) as temporary:
        tensorfile.write(temporary, named)
    ours: dict[str, Any] = {"base": kept.base, "sha256": journal.file_fingerprint(folder / WEIGHTS)}
    if kept.strength != 1.0:
        ours |= {"scale": kept.scale, "strength": kept.strength}
    for name, value in ((OURS, ours), (CONFIG, config)):  # peft's config last: with it the folder is an adapter
        journal.atomic_write(folder / name, (json.dumps(value, indent=2) + "\n").encode())


def _lies_on(kept: Kept) -> tuple[list[str], list[str]]:
    """Names of its linear layers, and of its parameters with experts."""
    dims: dict[str, int] = {}
    for name, tensor in kept.tensors.items():
        dims[name.rpartition(".")[0]] = tensor.ndim
    return [name for name, count in dims.items() if count == 2], [name for name, count in dims.items() if count == 3]


def read(folder: Path, *, swapped: bool = False) -> Kept:
    """The adapter in a peft folder; `swapped`: as in `Kept`, of the model that it is for.

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
    ours = _ours(folder)
    _compare(folder / WEIGHTS, ours.get("sha256", ""))
    strength: Any = ours.get("strength")
    own: Any = ours.get("scale")
    if not (_is_scale(strength) and _is_scale(own) and math.isclose(own * strength, scale)):
        strength, own = 1.0, scale  # none is said, or the config was edited, and holds
    targets = config.get("target_parameters") or []
    if not (isinstance(targets, list) and all(isinstance(target, str) for target in targets)):
        raise ModelError(
            f"{folder / CONFIG} has target_parameters {targets!r:.80}", "a list of names", "export it again"
        )
    named = _Named(folder / WEIGHTS, targets, rank, swapped)
    return Kept(folder, named, rank, float(own), ours.get("base", ""), strength=float(strength), swapped=swapped)


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
    """peft's file under our names, and what it has of experts in our layout."""

    def __init__(self, path: Path, targets: list[str], rank: int, swapped: bool) -> None:
        names = [entry.name for entry in tensorfile.entries(path)]
        self._names: dict[str, str] = {}
        for name in names:
            bare = name.removeprefix(PREFIX).removesuffix(".weight")
            if not bare.endswith((".lora_A", ".lora_B")) or bare == name:
                raise ModelError(f"{path} holds {name:.120}", f"{PREFIX}LAYER.lora_A.weight", "save it again with peft")
            self._names[bare] = name
        self._path = path
        self._rank = rank
        self._swapped = swapped
        self._pairs: dict[str, list[str]] = {}  # of experts: our name without its end -> peft's names of A and of B
        self._find_experts(targets)
        self._file = tensorfile.TensorFile(path)

    def _find_experts(self, targets: list[str]) -> None:
        """Takes the experts' tensors out of the others, and lists them under our names."""
        holders = dict.fromkeys(name.rpartition(".")[0] for name in self._names)
        try:
            places = peftexperts.resolved(holders, targets)
            pairs = [[self._names.pop(f"{place.holder}.{part}") for part in _PAIR] for place in places]
        except (ValueError, KeyError) as error:
            raise ModelError(
                f"{self._path.parent / CONFIG} has target_parameters {error}, and not its A and B", "those of experts",
                "export it again",
            ) from error  # fmt: skip
        for place, pair in zip(places, pairs, strict=True):
            self._pairs[f"{place.module}.{place.leaf}"] = pair
            self._names |= {f"{place.module}.{place.leaf}.{part}": "" for part in _PAIR}

    def __getitem__(self, name: str) -> Tensor:
        layer, _, part = name.rpartition(".")
        if layer not in self._pairs:
            return self._file[self._names[name]]
        a, b = (self._file[held] for held in self._pairs[layer])
        try:
            return peftexperts.from_peft(a, b, self._rank, swapped=self._swapped)[_PAIR.index(part)]
        except ValueError as error:
            raise ModelError(
                f"{name} of {self._path} is of {error}", f"rank {self._rank} for each expert", "export it again"
            ) from error

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


def _ours(folder: Path) -> dict[str, Any]:
    """What a folder of this program's says of itself; nothing in somebody else's."""
    try:
        found = json.loads((folder / OURS).read_text("utf-8"))
        return {**found, "base": str(found["base"]), "sha256": str(found["sha256"])}
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return {}
