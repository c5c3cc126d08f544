"""The full-precision tensors of a model, read one at a time and by rows, as its own loader would give them.

Owns: safetensors folders in pieces; which tensor of a file becomes which of the model, which are tied.
Does not know: GGUF files (`gguffile.py`), what is made of the tensors, 4 bits.
Units: bytes.

Names, splits and joins are those of transformers itself (`core_model_loading`), called a tensor at a time. What cannot
be had that way raises `Whole`: such a model has to be loaded at once.
"""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ModelError, TemploraError, describe
from ..memory import mixture
from . import alone, checkpoint, gguffile, language, packed, pieces, tensorfile
from .pieces import Original, Whole


@dataclass(frozen=True)
class Originals:
    """A model without weights, and its tensors by the names of its state dict; of those that are tied, the first.

    Attributes:
        model: a transformers model on the meta device, with its config and generation config.
        tensors: in the order of its state dict.
    """

    model: Any
    tensors: dict[str, Original]


def of(path: Path, *, remote_code: bool = False) -> Originals:
    """A GGUF file or a folder.

    Raises:
        Whole: it cannot be read in pieces.
        ModelError: damaged, or of an architecture that transformers does not know.
    """
    try:
        model, found, mapping = gguffile.read(path) if path.is_file() else _of_folder(path, remote_code)
        kind = model.config.model_type
        mixed = mixture.from_config(model.config.to_dict(), int(model.config.num_hidden_layers)) is not None
        tensors = _tied(model, _named(model, found, mapping, path.is_file()), path)
        if mixed:
            _require_experts(model, tensors, kind)
        return Originals(model, tensors)
    except (TemploraError, Whole):
        raise
    except (ImportError, AttributeError, TypeError) as error:  # another release of the library
        raise Whole(describe(error)) from error
    except Exception as error:
        raise alone.damaged(path, error) from error


# --- folders ---


def _of_folder(folder: Path, remote_code: bool) -> tuple[Any, dict[str, Original], list[Any]]:
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.modeling_utils import get_state_dict_dtype, load_state_dict

    checkpoint.refuse_adapter(folder)
    config, larger = language.configs(folder, remote_code)
    if getattr(config, "quantization_config", None) or getattr(config, "transformers_weights", None):
        raise Whole("its config names another way to read it")
    files = weight_files(folder)
    dtype = config.dtype or get_state_dict_dtype(load_state_dict(str(files[0]), map_location="meta"))
    model = pieces.skeleton(config, getattr(torch, dtype) if isinstance(dtype, str) else dtype, remote_code)
    if getattr(type(config), "extra_files", ()) or (
        model._get_dtype_plan(model.config.dtype) and model.config.dtype != torch.float32
    ):
        raise Whole("parts of it are kept in other types or files")
    if model.can_generate():
        model.generation_config = _generation(folder)
    inside = larger or not language.is_listed(config, remote_code)
    found: dict[str, Original] = {}
    for file in files:
        for entry in tensorfile.entries(file):
            name = language.alone(entry.name) if inside else entry.name
            if name is None:  # of a tower beside the language model
                continue
            original = _from_file(file, entry)
            if name in found and not _same(found[name], original):
                got = f"{folder} holds two tensors {name} with different values"
                raise ModelError(got, "each weight once", "copy or download the folder again")
            found[name] = original
    return model, found, get_model_conversion_mapping(model)


def _generation(folder: Path) -> Any:
    from transformers import GenerationConfig

    with alone.sealed():
        try:
            return GenerationConfig.from_pretrained(folder, local_files_only=True)
        except OSError:
            return GenerationConfig.from_pretrained(
                folder, config_file_name="config.json", _from_model_config=True, local_files_only=True
            )


def weight_files(folder: Path) -> list[Path]:
    """A folder's safetensors files, in the order in which transformers reads them.

    Raises:
        Whole: it has none of the usual names.
        ModelError: one of them is missing, or their index is damaged.
    """
    single = folder / "model.safetensors"
    index = folder / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if not index.is_file():
        raise Whole("its weights are in no model.safetensors")
    try:
        names = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
        files = [folder / Path(name).name for name in names]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise alone.damaged(index, error) from error
    missing = [file for file in files if not file.is_file()]
    if missing or not files:
        raise ModelError(f"{folder} lacks {[*missing, index][0].name}", "all weights that its index names", "add them")
    return files


def _from_file(path: Path, entry: tensorfile.Entry) -> Original:
    def whole() -> Tensor:
        data = pieces.read(path, entry.begin, entry.end - entry.begin)
        return torch.from_numpy(data).view(entry.dtype).reshape(entry.shape)

    def rows(start: int, stop: int) -> Tensor:
        width = (entry.end - entry.begin) // max(1, entry.shape[0])
        data = pieces.read(path, entry.begin + start * width, (stop - start) * width)
        return torch.from_numpy(data).view(entry.dtype).reshape(stop - start, *entry.shape[1:])

    return Original(entry.shape, whole, rows if len(entry.shape) > 1 else None)


# --- the model's names ---


def _named(model: Any, found: dict[str, Original], mapping: list[Any], exact: bool) -> dict[str, Original]:
    """The tensors by the model's names, in its types: renamed, split and joined as transformers does at loading."""
    from transformers.core_model_loading import WeightConverter, WeightRenaming, dot_natural_key, rename_source_key

    state = model.state_dict()
    prefix = model.base_model_prefix
    renamings = [entry for entry in mapping if isinstance(entry, WeightRenaming)]
    converters = [entry for entry in mapping if isinstance(entry, WeightConverter)]
    by_pattern = {pattern: converter for converter in converters for pattern in converter.source_patterns}
    named: dict[str, Original] = {}
    joined: dict[str, tuple[Any, list[tuple[str, str]]]] = {}  # first target -> converter, its (source, pattern)s
    for source in sorted(found, key=dot_natural_key):
        target, pattern = rename_source_key(source, renamings, converters, prefix, state)
        if target not in state and source in state:
            target, pattern = rename_source_key(source, [], [], prefix, state)
        if target not in state:
            continue  # transformers leaves it out, too
        if pattern is not None:
            joined.setdefault(target, (by_pattern[pattern], []))[1].append((source, pattern))
        elif target in named:
            raise Whole(f"two tensors are its {target}")
        else:
            named[target] = _cast(found[source], state[target])
    for first, (converter, sources) in joined.items():
        for target in _targets(converter, first, state):
            named[target] = _converted(model, converter, first, target, sources, found, state[target], exact)
    return named


def _cast(original: Original, wanted: Tensor) -> Original:
    """In the model's type; the shape is compared when the tensor is there."""
    dtype = wanted.dtype
    rows = original.rows
    if original.shape and original.shape != tuple(wanted.shape):
        raise ValueError(f"a tensor of {original.shape} where its config needs {tuple(wanted.shape)}")

    def cast_rows(start: int, stop: int) -> Tensor:
        assert rows is not None
        return rows(start, stop).to(dtype)

    return Original(tuple(wanted.shape), lambda: pieces.fitting(original.whole(), wanted), rows and cast_rows)


def _targets(converter: Any, first: str, state: dict[str, Tensor]) -> list[str]:
    """What one converter makes: its targets differ in what its first pattern stands for."""
    start = converter.target_patterns[0]
    made = [first.replace(start, pattern) for pattern in converter.target_patterns]
    if start not in first or any(name not in state for name in made):
        raise Whole(f"{first} is joined or split in a way that is not known here")
    return made


def _converted(
    model: Any, converter: Any, first: str, target: str, sources: list[tuple[str, str]], found: dict[str, Original],
    wanted: Tensor, exact: bool,
) -> Original:  # fmt: skip
    """One of the tensors that a converter makes. The converter runs again for each, so that one is held at a time.

    `exact`: what is read keeps its type until it is made, as a GGUF file's float32 does; else it gets the model's.
    """

    def made(chosen: list[tuple[str, str]], like: Tensor, rows: tuple[int, int] | None = None) -> Tensor:
        def read(source: str) -> Tensor:
            by_rows = found[source].rows
            part = by_rows(*rows) if rows and by_rows else found[source].whole()
            return part if exact else part.to(wanted.dtype)

        own = deepcopy(converter)
        for source, pattern in chosen:
            own.add_tensor(first, source, pattern, lambda source=source: read(source))
        tensor = own.convert(first, model=model, config=model.config)[target]
        return pieces.fitting(tensor[0] if isinstance(tensor, list) else tensor, like)

    by_pattern: dict[str, list[tuple[str, str]]] = {}
    for pair in sources:
        by_pattern.setdefault(pair[1], []).append(pair)

    def experts(start: int, stop: int) -> Tensor:
        return made([pair for pairs in by_pattern.values() for pair in pairs[start:stop]], wanted[start:stop])

    def joined(start: int, stop: int) -> Tensor:
        return made(sources, wanted[start:stop], (start, stop))

    whole = Original(tuple(wanted.shape), lambda: made(sources, wanted))
    if _stacks(converter) and all(len(pairs) == wanted.shape[0] for pairs in by_pattern.values()):
        return replace(whole, rows=experts)
    parts = [found[source] for source, _ in sources]
    if _joins(converter) and all(len(part.shape) == 3 and part.shape[0] == wanted.shape[0] for part in parts):
        return replace(whole, rows=joined)
    return whole


def _joins(converter: Any) -> bool:
    """Whether a converter joins each expert's matrices, all experts of one kind being one tensor."""
    from transformers.core_model_loading import Concatenate

    return all(isinstance(operation, Concatenate) and operation.dim > 0 for operation in converter.operations)


def _stacks(converter: Any) -> bool:
    """Whether a converter stacks one matrix for each expert, and does everything else to each of them by itself."""
    from transformers.core_model_loading import Concatenate, MergeModulelist

    first, *rest = converter.operations
    alone = all(isinstance(operation, Concatenate) and operation.dim > 0 for operation in rest)
    return isinstance(first, MergeModulelist) and first.dim == 0 and alone


def _require_experts(model: Any, tensors: dict[str, Original], kind: str) -> None:
    """Every expert can be had by itself, and be held in 4 bits.

    Raises:
        Whole: one cannot.
    """
    held = packed.parameters(model)
    for name, original in tensors.items():
        if name in held and original.rows is None:
            raise Whole(f"the experts of a {kind} model are joined in a way that is not known here")
        if name not in held and "expert" in name and len(original.shape) == 3:
            raise Whole(f"the experts of a {kind} model cannot be held in 4 bits")


def _tied(model: Any, named: dict[str, Original], path: Path) -> dict[str, Original]:
    """The tensors in the order of the state dict, tied ones once; refuses what the model needs and the file lacks."""
    tied = dict(getattr(model, "all_tied_weights_keys", None) or {})
    for target, source in tied.items():
        if target in named and source in named and not _same(named[target], named[source]):
            parent, _, leaf = target.rpartition(".")  # both are there and differ: transformers does not tie them
            fresh = torch.empty(named[target].shape, dtype=model.get_parameter(target).dtype, device="meta")
            setattr(model.get_submodule(parent), leaf, nn.Parameter(fresh, requires_grad=False))
    kept: dict[str, Original] = {}
    first: dict[int, str] = {}  # of one tensor's names
    state = model.state_dict(keep_vars=True)
    there: dict[int, Original] = {}
    for name, original in named.items():
        there.setdefault(id(state[name]), original)
    for name, tensor in state.items():
        if first.setdefault(id(tensor), name) != name:
            continue
        if id(tensor) not in there:
            if name in dict(model.named_buffers()):
                raise Whole(f"{name} is not in the file")
            raise ModelError(f"{path} has no {name}", "all weights that its config names", "another file")
        kept[name] = there[id(tensor)]
    return kept


def _same(one: Original, other: Original) -> bool:
    return one.shape == other.shape and all(
        torch.equal(a, b) for a, b in zip(one.blocks(1 << 22), other.blocks(1 << 22), strict=True)
    )
