"""Full-precision weights -> a 4-bit folder.

Owns: NF4 in place, the folder's files beside its weights, whole or not at all, the one-time conversion of GGUF files.
Does not know: how a folder is read (`checkpoint.py`), how its weights are written (`stream.py`), adapters.
Units: bytes. NF4 with double quantisation: QLoRA (arXiv 2305.14314, section 3), through bitsandbytes.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import deque
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
from ..memory import conversion, gguf
from ..store import contents, sources
from ..values.amounts import format_bytes
from . import alone, checkpoint, ggufvalues, originals, packed, pieces, stream, vocabulary, words


def quantize_in_place(model: Any, device: str, compute_dtype: torch.dtype) -> None:
    """Replaces every linear layer but the head, and all experts, by their NF4 double-quantised form, one at a time."""
    import bitsandbytes as bnb

    head = model.get_output_embeddings()
    for name, linear in list(model.named_modules()):
        if not packed.replaceable(linear) or linear is head:
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
    packed.pack(model)


RECORD = ".done.jsonl"  # in a folder that is not finished: what of it is
VALUES = 1  # a manifest that has it is of a conversion that was made by all that a GGUF header says
_KINDS = "tokenizer.ggml.token_type"
Finish = Callable[[Path, sources.Source], dict[str, Any]]


def quantize_to_folder(
    reference: str,
    out: Path,
    *,
    remote_code: bool = False,
    finish: Finish | None = None,
    replace: bool = False,
    source: sources.Source | None = None,
    device: str = "cpu",
    budget: int | None = None,
    report: stream.Report = stream.silent,
    notice: Callable[[str], None] = sources.print_to_stderr,
) -> dict[str, Any]:
    """Writes a 4-bit folder that loads without the full-precision weights; nothing half-written has its name.

    One tensor at a time is read, quantised and written; where this process is killed, the same call goes on with what
    is there. A model that cannot be read so is loaded whole.

    Args:
        reference: an embedded model, a GGUF file, a folder, or a hub id.
        out: the folder to make; it must not exist, or be empty.
        finish: adds files to the finished folder, before it is called `out`, and returns more for the manifest.
        replace: put it in the place of a folder that is there.
        source: what the reference was found to be, where that is known; `out` may be named after its sha256.
        device: where weights are quantised: `cpu`, or a CUDA device.
        budget: bytes that this process may hold; what free memory allows, where it is None.
        report: gets the bytes of weights that are written so far, and those of all.
        notice: gets a line where a model has to be loaded whole.

    Returns:
        The manifest.

    Raises:
        ModelError: the source is damaged, unsupported, already 4-bit, or a tensor holds what is no number.
        BudgetError: the budget is too small.
        StorageError: `out` is taken, not writable, or its disk is full.
    """
    source = source or sources.resolve(reference)
    if not replace and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise StorageError(f"{out} already exists", "a new or empty folder", "choose another name or remove it")
    if source.kind == "folder" and checkpoint.is_four_bit(checkpoint.load_config(source.path, remote_code)):
        raise ModelError(f"{reference} is already 4-bit", "full-precision weights", "use it as it is")
    conversion.require(source, budget)
    sources.require_room(out.parent, conversion.disk_bytes(source, out), "the 4-bit folder")
    try:
        try:
            return _in_pieces(source, out, replace, remote_code, device, budget, report, finish)
        except pieces.Whole as why:
            conversion.require(source, budget, whole=True)
            needed = format_bytes(conversion.predict(source, whole=True).peak())
            notice(f"{reference} is loaded whole ({why}), which takes about {needed}")
        return _at_once(source, out, replace, remote_code, budget, finish)
    except OSError as error:
        raise StorageError(
            f"cannot write {out}: {error.strerror or error}", "a writable folder with room", "name another folder"
        ) from error
    except Exception as error:
        code = journal.system_error(error)  # safetensors is written in Rust
        if code is None:
            raise
        raise journal.storage_error(error, f"write {out}", code) from error


def _in_pieces(
    source: sources.Source,
    out: Path,
    replace: bool,
    remote_code: bool,
    device: str,
    budget: int | None,
    report: stream.Report,
    finish: Finish | None,
) -> dict[str, Any]:
    """Tensor by tensor: the process holds one at a time.

    Raises:
        Whole: the model cannot be read so.
    """
    key = _key(source)
    with conversion.capped(budget):
        found = originals.of(source.path, remote_code=remote_code)
        if packed.parameters(found.model):
            packed.say_unheld(found.model, source.path.name)
        tokenizer = _tokenizer(source, remote_code)
        sources.require_unchanged(source)
        release_memory()  # reading a GGUF header takes many times what it keeps
        shards = stream.plan(found)
    with _new_folder(out, replace, goes_on=True) as folder:
        with conversion.capped(budget):
            stream.write(folder, shards, folder / RECORD, key, device, report)
        if _key(source) != key:
            raise ModelError(f"{source.path} changed while it was read", "files that stay as they are", "try again")
        index = [(shard.name, list(shard.kinds)) for shard in shards]
        manifest = _complete(folder, found.model, stream.kept_dtype(found), tokenizer, index, source)
        del found, shards, tokenizer
        return _finished(folder, manifest, source, finish)


def _at_once(
    source: sources.Source, out: Path, replace: bool, remote_code: bool, budget: int | None, finish: Finish | None
) -> dict[str, Any]:
    """All full-precision weights in memory, then their quantised form beside them."""
    from safetensors.torch import save_file

    with conversion.capped(budget):
        if source.kind == "gguf":
            model = alone.load_gguf(source.path, torch.bfloat16)
        else:
            cpu = Device("cpu", "cpu", "float32")
            packed.say_what_stays(
                source.path, checkpoint.load_config(source.path, remote_code), torch.bfloat16, remote_code
            )
            model = checkpoint.load_pretrained(source.path, cpu, False, remote_code, dtype="auto")
        tokenizer = _tokenizer(source, remote_code)
        sources.require_unchanged(source)
        for name, tensor in model.state_dict().items():
            deque(stream.numbers(name, [tensor]), maxlen=0)
        quantize_in_place(model, "cpu", torch.float32)
    with _new_folder(out, replace) as folder:
        shards = list(_shards(_state(model)))
        index = []
        for number, shard in enumerate(shards, 1):
            last = f"-{number:05d}-of-{len(shards):05d}" if len(shards) > 1 else ""
            save_file(shard, folder / f"model{last}.safetensors", metadata={"format": "pt"})
            index.append((f"model{last}.safetensors", list(shard)))
        dtype = next(p for p in model.parameters() if p.is_floating_point()).dtype
        manifest = _complete(folder, model, dtype, tokenizer, index, source)
        del model, tokenizer, shards, shard
        return _finished(folder, manifest, source, finish)


def _tokenizer(source: sources.Source, remote_code: bool) -> Any:
    if source.kind == "gguf":
        return words.load(source.path)
    return checkpoint.load_tokenizer(source.path, remote_code)


def _key(source: sources.Source) -> str:
    """Changes with the source and with what decides the bytes that are made of it."""
    import bitsandbytes
    import transformers

    files = [source.path] if source.kind == "gguf" else sorted(source.path.glob("*"))
    states = {file.name: sources.file_state(file) for file in files if file.is_file()}
    versions = [transformers.__version__, bitsandbytes.__version__, torch.__version__]
    return journal.fingerprint({"sha256": source.sha256, "files": states, "versions": versions})


def convert_once(source: sources.Source, **options: Any) -> sources.Source:
    """The 4-bit folder of a GGUF file, made in the cache at first use; by one process, where several come at once.

    `options`: device, budget (of that device) and report, as for `quantize_to_folder`.
    """
    if options.get("device", "cpu") != "cpu":
        options.pop("budget", None)  # a GPU's memory is not the process's
    folder = sources.conversion_folder(source)
    _try_older(folder, source.path)
    if checkpoint.read_manifest(folder) is None:
        with journal.making(folder):
            if checkpoint.read_manifest(folder) is None:  # no other process made it meanwhile
                shutil.rmtree(folder, ignore_errors=True)
                quantize_to_folder(source.reference, folder, source=source, **options)
        release_memory()
    return sources.converted(source)


def _try_older(folder: Path, path: Path) -> None:
    """Removes a conversion from before tokenizers were tried, or all of a header was read, where its tokenizer gives
    other ids than the file's or its config says something else."""
    asked = {sources.WORDS, sources.VALUES}
    if asked <= (checkpoint.read_manifest(folder) or dict.fromkeys(asked)).keys():
        return
    with journal.making(folder):
        manifest = checkpoint.read_manifest(folder)
        if manifest is None or asked <= manifest.keys():  # another process was here meanwhile
            return
        wanted = words.mark(words.load(path))
        if words.mark(checkpoint.load_tokenizer(folder)) != wanted or not _computes_so(folder, path):
            shutil.rmtree(folder, ignore_errors=True)
        else:
            _write_manifest(folder, {**manifest, sources.WORDS: wanted, sources.VALUES: VALUES})


def _computes_so(folder: Path, path: Path) -> bool:
    """Whether a conversion's config says of positions, heads, caps and scales what the file's header does."""
    with alone.making(path), path.open("rb") as file:
        wanted = alone.gguf_config(path, gguf.read(file))[0].to_dict()
    made = checkpoint.load_config(folder, False).to_dict()
    return all(made.get(name) == wanted.get(name) for name in ggufvalues.NAMES)


@contextmanager
def _new_folder(out: Path, replace: bool, *, goes_on: bool = False) -> Iterator[Path]:
    """A folder that takes the name `out` when the block has ended well, and is gone otherwise.

    `goes_on`: it is there again, as it was, where a process was killed in the block.
    """
    with journal.begun(out) if goes_on else journal.unfinished(out) as folder:
        if not replace and out.exists() and any(out.iterdir()):
            raise StorageError(f"{out} already exists", "a new or empty folder", "choose another name or remove it")
        yield folder
        journal.sync_tree(folder)
        for record in folder.glob(f"{RECORD}*"):  # last: what is killed before goes on, and nothing is left after
            record.unlink()
            journal.sync_folder(folder)
        old = out.parent / f".{out.name}.old"  # `journal.making` sweeps it
        if replace and out.exists():
            shutil.rmtree(old, ignore_errors=True)
            out.rename(old)
        elif out.exists():
            out.rmdir()
        folder.rename(out)
        journal.sync_folder(out.parent)
        shutil.rmtree(old, ignore_errors=True)


def _complete(
    folder: Path, model: Any, dtype: torch.dtype, tokenizer: Any, index: list[tuple[str, list[str]]],
    source: sources.Source,
) -> dict[str, Any]:  # fmt: skip
    """All other files of a folder that holds its weights; `index`: each file of weights, and its tensors."""
    import bitsandbytes
    import transformers

    _write_config(model, dtype, folder)
    words.save(tokenizer, folder)
    digest = hashlib.sha256()
    for name, _ in index:
        digest.update(sources.sha256_file(folder / name).encode())
    if len(index) > 1:
        weight_map = {tensor: name for name, tensors in index for tensor in tensors}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}, indent=1))
    control = control_tokens(source.path) if source.kind == "gguf" else []
    manifest = {
        "format": sources.FORMAT,
        "weights_sha256": digest.hexdigest(),
        "files": [name for name, _ in index],
        "source": {"reference": Path(source.reference).name, "sha256": source.sha256},
        "versions": {"transformers": transformers.__version__, "bitsandbytes": bitsandbytes.__version__},
        "contents": contents.record(folder),
        sources.WORDS: words.mark(tokenizer),
        sources.VALUES: VALUES,
        **({"control_tokens": control} if control else {}),
    }
    _write_manifest(folder, manifest)
    checkpoint.load_tokenizer(folder)  # refused where it is not the one that was saved
    return manifest


def _finished(folder: Path, manifest: dict[str, Any], source: sources.Source, finish: Finish | None) -> dict[str, Any]:
    """The manifest, with what `finish` adds to the folder."""
    if finish is not None:
        release_memory()
        manifest |= finish(folder, source)
        manifest["contents"] = contents.record(folder)
        _write_manifest(folder, manifest)
    return manifest


def control_tokens(path: Path) -> list[int]:
    """Ids of the tokens that a GGUF file marks as unknown, control or unused; its tokenizer keeps no such mark."""
    with path.open("rb") as file:
        kinds = gguf.read(file, [_KINDS]).values.get(_KINDS, [])
    barred = (vocabulary.UNKNOWN, vocabulary.CONTROL, vocabulary.UNUSED)
    return [index for index, kind in enumerate(kinds) if kind in barred]


def _write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    (folder / sources.MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")


def _write_config(model: Any, dtype: torch.dtype, folder: Path) -> None:
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
    config["dtype"] = str(dtype).removeprefix("torch.")
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
        if shard and size + tensor.nbytes > stream.MAX_SHARD:
            yield shard
            shard = {}
            size = 0
        shard[name] = tensor
        size += tensor.nbytes
    yield shard
