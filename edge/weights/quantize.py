"""Full-precision weights -> a 4-bit folder.

Owns: NF4 in place, writing the folder whole or not at all, the one-time conversion of GGUF files.
Does not know: how a folder is read (`checkpoint.py`), what a reference means (`sources.py`), adapters.
Units: bytes. NF4 with double quantisation: QLoRA (arXiv 2305.14314, section 3), through bitsandbytes.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import journal
from ..errors import ModelError, StorageError
from ..machine.allocator import release_memory
from ..machine.device import Device
from ..store import contents, sources
from . import alone, checkpoint

_MAX_SHARD = 2 << 30


def quantize_in_place(model: Any, device: str, compute_dtype: torch.dtype) -> None:
    """Replaces every linear layer but the head by its NF4 double-quantised form, one at a time."""
    import bitsandbytes as bnb

    head = model.get_output_embeddings()
    for name, linear in list(model.named_modules()):
        if not checkpoint.replaceable(linear) or linear is head:
            continue
        quantized = checkpoint.empty_linear4bit(
            linear.in_features, linear.out_features, linear.bias is not None, compute_dtype
        )
        quantized.weight = bnb.nn.Params4bit(
            linear.weight.data.float(),
            requires_grad=False,
            quant_type="nf4",
            compress_statistics=True,
            module=quantized,
        )
        if linear.bias is not None:
            quantized.bias = nn.Parameter(linear.bias.data, requires_grad=False)
        checkpoint.replace(model, name, quantized.to(device))
        linear.weight = None


Finish = Callable[[Path, sources.Source], dict[str, Any]]


def quantize_to_folder(
    reference: str,
    out: Path,
    *,
    offline: bool = False,
    remote_code: bool = False,
    finish: Finish | None = None,
    replace: bool = False,
    source: sources.Source | None = None,
) -> dict[str, Any]:
    """Writes a 4-bit folder that loads without the full-precision weights; nothing is left half-written.

    Args:
        reference: an embedded model, a GGUF file, a folder, or a hub id.
        out: the folder to make; it must not exist, or be empty.
        finish: adds files to the finished folder, before it is called `out`, and returns more for the manifest.
        replace: put it in the place of a folder that is there.
        source: what the reference was found to be, where that is known; `out` may be named after its sha256.

    Returns:
        The manifest.

    Raises:
        ModelError: the source is damaged, unsupported, or already 4-bit.
        StorageError: `out` is taken, not writable, or its disk is full.
    """
    source = source or sources.resolve(reference, offline=offline)
    if not replace and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise StorageError(f"{out} already exists", "a new or empty folder", "choose another name or remove it")
    size = (
        sum(f.stat().st_size for f in source.path.rglob("*")) if source.kind == "folder" else source.path.stat().st_size
    )
    sources.require_room(out.parent, size * (1 if source.kind == "folder" else 3), "the 4-bit folder")
    if source.kind == "folder" and checkpoint.is_four_bit(checkpoint.load_config(source.path, remote_code)):
        raise ModelError(f"{reference} is already 4-bit", "full-precision weights", "use it as it is")
    if source.kind == "gguf":
        model, tokenizer = (
            alone.load_gguf(source.path, torch.bfloat16),
            alone.load_gguf_tokenizer(source.path),
        )
    else:
        model = checkpoint.load_pretrained(
            source.path, Device("cpu", "cpu", "float32"), False, remote_code, dtype="auto"
        )
        tokenizer = checkpoint.load_tokenizer(source.path, remote_code)
    sources.require_unchanged(source)

    quantize_in_place(model, "cpu", torch.float32)
    try:
        with _new_folder(out, replace) as folder:
            manifest = _write_folder(model, tokenizer, folder, source)
            del model
            if finish is not None:
                release_memory()
                manifest |= finish(folder, source)
                manifest["contents"] = contents.record(folder)
                _write_manifest(folder, manifest)
    except OSError as error:
        raise StorageError(
            f"cannot write {out}: {error.strerror or error}", "a writable folder with room", "name another folder"
        ) from error
    except Exception as error:
        code = journal.system_error(error)  # safetensors is written in Rust
        if code is None:
            raise
        raise journal.storage_error(error, f"write {out}", code) from error
    return manifest


def convert_once(source: sources.Source) -> sources.Source:
    """The 4-bit folder of a GGUF file, made in the cache at first use; by one process, where several come at once."""
    folder = sources.conversion_folder(source)
    if checkpoint.read_manifest(folder) is None:
        with journal.making(folder):
            if checkpoint.read_manifest(folder) is None:  # no other process made it meanwhile
                shutil.rmtree(folder, ignore_errors=True)
                quantize_to_folder(source.reference, folder, source=source)
        release_memory()
    return sources.converted(source)


@contextmanager
def _new_folder(out: Path, replace: bool) -> Iterator[Path]:
    """A folder that takes the name `out` when the block has ended well, and is gone otherwise."""
    with journal.unfinished(out) as temporary:
        folder = temporary / "folder"
        folder.mkdir()
        yield folder
        journal.sync_tree(folder)
        if replace and out.exists():
            out.rename(temporary / "old")
        elif out.exists():
            out.rmdir()
        folder.rename(out)
        journal.sync_folder(out.parent)


def _write_folder(model: Any, tokenizer: Any, folder: Path, source: sources.Source) -> dict[str, Any]:
    import bitsandbytes
    import transformers
    from safetensors.torch import save_file

    _write_config(model, folder)
    tokenizer.save_pretrained(folder)
    shards = list(_shards(_state(model)))
    digest = hashlib.sha256()
    names, index = [], {}
    for number, shard in enumerate(shards, 1):
        last = f"-{number:05d}-of-{len(shards):05d}" if len(shards) > 1 else ""
        names.append(f"model{last}.safetensors")
        save_file(shard, folder / names[-1], metadata={"format": "pt"})
        index.update(dict.fromkeys(shard, names[-1]))
        digest.update(sources.sha256_file(folder / names[-1]).encode())
    if len(shards) > 1:
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}, indent=1))
    control = control_tokens(source.path) if source.kind == "gguf" else []
    manifest = {
        "format": sources.FORMAT,
        "weights_sha256": digest.hexdigest(),
        "files": names,
        "source": {"reference": Path(source.reference).name, "sha256": source.sha256},
        "versions": {"transformers": transformers.__version__, "bitsandbytes": bitsandbytes.__version__},
        "contents": contents.record(folder),
        **({"control_tokens": control} if control else {}),
    }
    _write_manifest(folder, manifest)
    return manifest


def control_tokens(path: Path) -> list[int]:
    """Ids of the tokens that a GGUF file marks as unknown, control or unused; its tokenizer keeps no such mark."""
    from gguf import GGUFReader, TokenType

    field = GGUFReader(path).fields.get("tokenizer.ggml.token_type")
    kinds = (TokenType.UNKNOWN, TokenType.CONTROL, TokenType.UNUSED)
    return [] if field is None else [index for index, kind in enumerate(field.contents()) if kind in kinds]


def _write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    (folder / sources.MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")


def _write_config(model: Any, folder: Path) -> None:
    config = model.config.to_dict()
    config["quantization_config"] = {
        "quant_method": "bitsandbytes",
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": "float32",
        "bnb_4bit_quant_storage": "uint8",
        "llm_int8_skip_modules": ["lm_head"],
    }
    config["architectures"] = [type(model).__name__]
    config["dtype"] = str(next(p for p in model.parameters() if p.is_floating_point()).dtype).removeprefix("torch.")
    config.pop("_name_or_path", None)
    (folder / "config.json").write_text(json.dumps(config, indent=1, default=str) + "\n")
    if getattr(model, "generation_config", None) is not None:
        model.generation_config.save_pretrained(folder)


def _state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict with tied tensors stored once."""
    seen: dict[int, str] = {}
    state: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        key = tensor.data_ptr()
        if tensor.numel() > 1 and key in seen and state[seen[key]].shape == tensor.shape:
            continue
        seen[key] = name
        state[name] = tensor.contiguous()
    return state


def _shards(state: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    shard: dict[str, Tensor] = {}
    size = 0
    for name, tensor in state.items():
        if shard and size + tensor.nbytes > _MAX_SHARD:
            yield shard
            shard, size = {}, 0
        shard[name] = tensor
        size += tensor.nbytes
    yield shard
