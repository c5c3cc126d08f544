"""Weights on disk -> a model in memory: 4-bit folders tensor by tensor, transformers folders.

Owns: the loaders, the safetensors reader, the layout of a 4-bit folder. Does not know: GGUF files (`alone.py`), what a
reference means (`store/sources.py`), how a 4-bit folder is made (`quantize.py`). Units: bytes.

A 4-bit folder is also a valid transformers + bitsandbytes checkpoint, but for packed experts (`packed.py`):

    config.json            with bitsandbytes' quantization_config
    model*.safetensors     packed weights, quantisation states, and what stays unquantised
    tokenizer files
    templora.json          manifest: format version, sha256 of the weights, versions, source
"""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import journal
from ..errors import ModelError, describe
from ..machine.device import Device, matmul_units
from ..memory import families, shape
from ..store import contents
from ..store.sources import FORMAT, MANIFEST, WORDS, Source, sha256_file
from ..tokenstream import has_failed
from . import language, libraries, packed, tensorfile, words
from .alone import damaged, sealed

ADAPTER = "adapter_config.json"


def quiet_libraries() -> None:
    """Progress bars and advice of the libraries stay off the user's terminal; their errors do not."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TQDM_DISABLE", "1")
    from transformers.utils import logging as hf_logging

    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"(transformers|bitsandbytes|peft|torch)\.")


def warm_up(device: Device) -> None:
    """Imports and runs everything that a session will use once, on almost nothing.

    What the process holds afterwards is the framework's own: libraries, their lazy parts, matmul scratch, thread
    stacks. What comes later is the model's and the session's, and can be planned.
    """
    libraries.load()
    import bitsandbytes as bnb
    from torch.utils.checkpoint import checkpoint

    layer = bnb.nn.Linear4bit(128, 128, bias=False, compute_dtype=device.torch_dtype, quant_type="nf4").to(device.name)
    x = torch.randn(1024, 512, device=device.name, dtype=device.torch_dtype, requires_grad=True)
    weight = torch.randn(512, 4096, device=device.name, dtype=device.torch_dtype)
    with matmul_units(device):
        out = checkpoint(lambda t: layer(t[:, :128]) @ weight[:128], x @ (weight @ weight.T), use_reentrant=False)
        heads = x.view(1, 4, 1024, 128)
        attended = nn.functional.scaled_dot_product_attention(heads, heads, heads, is_causal=True)
        (out.softmax(-1).sum() + attended.sum()).backward()


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a 4-bit folder made here, or None for any other folder.

    Raises:
        ModelError: it is there, and is none.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(
            f"{path} is damaged ({describe(error)})",
            "the manifest of a 4-bit folder",
            "make it again with templora quantize",
        ) from error
    if not _is_manifest(manifest):
        raise ModelError(
            f"{path} is damaged or of another version", f"the manifest of a 4-bit folder, format {FORMAT}",
            "make it again with templora quantize",
        )  # fmt: skip
    return dict(manifest)


def _is_manifest(values: Any) -> bool:
    if not isinstance(values, dict) or values.get("format") != FORMAT or isinstance(values["format"], bool):
        return False
    files = values.get("files")
    repair = values.get("repair")
    source = values.get("source", {})
    names = [*files, values.get("weights_sha256")] if isinstance(files, list) and files else [None]
    if repair is not None:
        names += [repair.get("file"), repair.get("sha256")] if isinstance(repair, dict) else [None]
    return isinstance(source, dict) and all(isinstance(name, str) for name in names)


def identity(source: Source, *, repair: bool = True) -> str:
    """One sha256 over what the base will be made from; a 4-bit folder's files are those that were made.

    `repair`: whether a repair in the folder will be used.

    Raises:
        ModelError: they are not.
    """
    if source.kind == "gguf":
        return source.sha256 or sha256_file(source.path)
    manifest = read_manifest(source.path)
    if manifest is None:
        return journal.fingerprint(contents.found(source.path))
    return contents.fingerprint(contents.check(source.path, manifest, repair=repair), manifest)


def load_config(folder: Path, remote_code: bool) -> Any:
    """The language model's transformers config, whatever else the folder holds.

    Raises:
        ModelError: damaged, or of an architecture that transformers does not know.
    """
    return language.configs(folder, remote_code)[0]


def is_four_bit(config: Any) -> bool:
    """Whether the checkpoint holds bitsandbytes 4-bit weights."""
    quantization = getattr(config, "quantization_config", None) or {}
    values = quantization if isinstance(quantization, dict) else quantization.to_dict()
    return bool(values.get("load_in_4bit"))


def load_four_bit(folder: Path, config: Any, device: Device, remote_code: bool = False) -> Any:
    """Builds the model on the meta device and fills it tensor by tensor, straight from the files.

    Nothing is memory-mapped and no full-precision copy exists, so the peak is the model's own size.

    Raises:
        ModelError: a file is missing, damaged, or holds other tensors than the config needs.
    """
    import bitsandbytes as bnb

    larger = language.configs(folder, remote_code)[1]
    config.quantization_config = None
    del config.quantization_config
    with libraries.weightless(), libraries.undrawn(), sealed():
        model = language.empty(config, device.torch_dtype, remote_code)
    packed.say_unheld(model, folder.name)
    files = (read_manifest(folder) or {}).get("files")
    if not files:
        raise ModelError(
            f"{folder} names no weights in {MANIFEST}", "a 4-bit folder", "make it again with templora quantize"
        )
    pending: dict[str, dict[str, Tensor]] = {}
    linears = linear_names(model)
    for file in files:
        for stored, tensor in read_safetensors(folder / file):
            name = language.alone(stored) if larger else stored
            if name is None:
                continue  # of a tower that stands beside the language model
            base, dot, part = name.rpartition(".weight.")
            if packed.put(model, name, tensor.to(device.name), folder):
                continue
            if dot:
                pending.setdefault(base, {})[part] = tensor
            elif tensor.dtype == torch.uint8 and name.removesuffix(".weight") in linears:
                pending.setdefault(name.removesuffix(".weight"), {})["data"] = tensor
            else:
                keep = device.kind == "cpu" and name.endswith(("embed_tokens.weight", "lm_head.weight"))
                _assign(model, name, tensor.to(device.name, tensor.dtype if keep else device.torch_dtype), folder)
    for name, parts in pending.items():
        data = parts.pop("data", None)
        linear = _module(model, name)
        if data is None or not isinstance(linear, nn.Linear):
            raise ModelError(f"{folder} holds no packed weight for {name}", "a whole 4-bit folder", "make it again")
        fresh = empty_linear4bit(linear.in_features, linear.out_features, linear.bias is not None, device.torch_dtype)
        stats = {f"weight.{part}": tensor for part, tensor in parts.items()}
        fresh.weight = bnb.nn.Params4bit.from_prequantized(
            data, stats, requires_grad=False, device=device.name, module=fresh
        )
        fresh.bias = linear.bias
        replace(model, name, fresh)
    model.tie_weights()
    missing = [name for name, p in model.named_parameters() if p.is_meta] + packed.incomplete(model)
    if missing:
        raise ModelError(
            f"{folder} lacks {missing[0]} and {len(missing) - 1} more", "a whole 4-bit folder", "make it again"
        )
    packed.pack(model)  # experts of a folder from before they were held in 4 bits
    generation = folder / "generation_config.json"
    if generation.is_file():
        from transformers import GenerationConfig

        with sealed():
            model.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
    return model.to(device.name)


def refuse_adapter(folder: Path) -> None:
    """Refuses a folder that holds an adapter: transformers would load the base that it names, and put it on top.

    Raises:
        ModelError: it does.
    """
    if (folder / ADAPTER).is_file():
        raise ModelError(
            f"{folder} holds {ADAPTER}", "a model without an adapter", "merge the adapter, or move it away"
        )


def load_pretrained(folder: Path, device: Device, four_bit: bool, remote_code: bool, dtype: Any = None) -> Any:
    """Loads any transformers folder; quantises while loading when `four_bit`. Pickled weights are refused.

    Raises:
        ModelError: damaged or missing weights, or an adapter among them.
    """
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    refuse_adapter(folder)
    dims = shape.read(Source("folder", folder, str(folder)))
    tensorfile.require_numbers(folder, max(dims.vocab * dims.hidden, dims.linear_parameters))
    kind: Any = AutoModelForCausalLM
    options: dict[str, Any] = {"trust_remote_code": remote_code}
    config, larger = language.configs(folder, remote_code)
    if larger or not language.is_listed(config, remote_code):
        kind = language.causal_class(config)
        options = {"config": config, "key_mapping": language.NAMES}
    if four_bit and getattr(config, "quantization_config", None):
        raise ModelError(
            f"{folder} holds weights in another kind of 4 bits", "full precision, or a folder that was made of it",
            f"make one first: templora quantize {folder} FOLDER, then --model FOLDER",
        )  # fmt: skip
    if four_bit:
        packed.say_what_stays(folder, load_config(folder, remote_code), device.torch_dtype, remote_code)
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=device.torch_dtype,
            llm_int8_skip_modules=families.WHOLE.get(str(config.model_type)),
        )
    try:
        with sealed():
            model, found = kind.from_pretrained(
                folder,
                dtype=dtype or device.torch_dtype,
                device_map={"": device.name},
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                **options,
            )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise damaged(folder, error) from error
    except Exception as error:
        if type(error).__name__ == "SafetensorError":
            raise damaged(folder, error) from error
        raise
    if found["missing_keys"]:  # transformers would go on with random numbers in their place
        name = min(found["missing_keys"])
        count = len(found["missing_keys"])
        raise ModelError(
            f"{folder} has no {name}" + (f" and lacks {count - 1} more" if count > 1 else ""),
            f"all weights of a {config.model_type} model", "get the folder again, whole",
        )  # fmt: skip
    return model


def load_tokenizer(folder: Path, remote_code: bool = False) -> Any:
    """The fast tokenizer of a model folder.

    A 4-bit folder's tokenizer.json is whole, so it is used as it is: the per-architecture classes keep a second
    copy of vocabulary and merges in Python (145 MB for 262K words).

    Raises:
        ModelError: missing, damaged, or one that gives other ids here than when the 4-bit folder was made.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    manifest = read_manifest(folder)
    kind = AutoTokenizer if manifest is None else PreTrainedTokenizerFast
    try:
        added = {} if manifest is None else words.added_tokens(folder)
        with sealed():
            loaded = kind.from_pretrained(folder, trust_remote_code=remote_code, local_files_only=True, **added)
        template = folder / "chat_template.json"  # where processors of images and speech kept it once
        if not loaded.chat_template and template.is_file():
            loaded.chat_template = json.loads(template.read_text("utf-8"))["chat_template"]
    except BaseException as error:
        if not has_failed(error):
            raise
        raise ModelError(
            f"{folder} has no usable tokenizer ({describe(error)})", "tokenizer.json beside the weights", "add it"
        ) from error
    words.require_mark(loaded, (manifest or {}).get(WORDS), folder)
    return loaded


def widen(model: Any, dtype: torch.dtype) -> None:
    """Converts all parameters to `dtype`, except embeddings and head, which stay as they are stored."""
    kept = {id(m.weight) for m in (model.get_input_embeddings(), model.get_output_embeddings()) if m is not None}
    for parameter in model.parameters():
        if id(parameter) not in kept and parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)


def read_safetensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a safetensors file, each read straight into its own memory.

    Raises:
        ModelError: the file is missing, cut short, or its header does not describe it.
    """
    found = tensorfile.entries(path)
    try:
        with path.open("rb") as file:
            for entry in found:
                tensor = torch.empty(entry.shape, dtype=entry.dtype)
                file.seek(entry.begin)
                if tensor.nbytes and file.readinto(tensor.view(-1).view(torch.uint8).numpy().data) != tensor.nbytes:
                    raise tensorfile.broken(path)
                yield entry.name, tensor
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}", "a readable file", "check the folder") from error
    except RuntimeError as error:  # a shape that torch cannot make
        raise tensorfile.broken(path) from error


def empty_linear4bit(inputs: int, outputs: int, bias: bool, compute_dtype: torch.dtype) -> Any:
    """An NF4 linear layer without memory behind it; its weight (outputs, inputs) is to be set."""
    import bitsandbytes as bnb

    return bnb.nn.Linear4bit(
        inputs,
        outputs,
        bias=bias,
        compute_dtype=compute_dtype,
        compress_statistics=True,
        quant_type="nf4",
        device="meta",
    )


def linear_names(model: nn.Module) -> set[str]:
    """Modules that are held in 4 bits: every linear layer but the head."""
    head = model.get_output_embeddings()  # type: ignore[operator]
    return {name for name, module in model.named_modules() if packed.replaceable(module) and module is not head}


def _module(model: nn.Module, name: str) -> nn.Module | None:
    try:
        return model.get_submodule(name)
    except AttributeError:
        return None


def replace(model: nn.Module, name: str, module: nn.Module | nn.Parameter) -> None:
    """Puts a module or a parameter where `name` is in `model`."""
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)


def _assign(model: nn.Module, name: str, tensor: Tensor, folder: Path) -> None:
    parent, _, leaf = name.rpartition(".")
    module = _module(model, parent)
    current = getattr(module, leaf, None)
    if not isinstance(current, Tensor) or current.shape != tensor.shape:
        raise ModelError(
            f"{folder} holds {name} {tuple(tensor.shape)}", "the tensors that config.json names", "make it again"
        )
    if leaf in getattr(module, "_buffers", {}):
        module._buffers[leaf] = tensor  # type: ignore[union-attr]
    else:
        setattr(module, leaf, nn.Parameter(tensor, requires_grad=False))


def require_shapes(linears: Iterable[tuple[str, nn.Linear]]) -> None:
    """Refuses packed weights of other shapes than the config's.

    Raises:
        ModelError: naming the first such layer.
    """
    for name, linear in linears:
        state = getattr(linear.weight, "quant_state", None)
        held = None if state is None else tuple(state.shape)
        if held not in (None, (linear.out_features, linear.in_features)):
            raise ModelError(
                f"{name} is {held}, its config says otherwise", "weights of that config", "check the folder"
            )
