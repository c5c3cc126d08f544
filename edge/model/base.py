"""A model reference -> the frozen base and its tokenizer.

Owns: loading (hub id, folder, GGUF file, 4-bit folder, `demo`), freezing, the head, the base's fingerprint.
Does not know: adapters, windows, learning. How a model becomes a 4-bit folder is `weights/quantize.py`.
Units: bytes, seconds, token ids.

NF4 with double quantisation: QLoRA (arXiv 2305.14314, section 3), through bitsandbytes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import journal, tokenstream, windows
from ..errors import ModelError, describe
from ..machine.allocator import release_memory
from ..machine.device import Device, choose, make_current, set_threads
from ..memory import families
from ..settings import Settings, WindowSettings
from ..store.sources import Source
from ..tokenstream import TokenStream
from ..weights import alone, checkpoint, packed, quantize, tensorfile, words
from ..weights.stream import Report, silent
from . import attention, checks, experts, norms, patches
from .loss import Head

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass
class Base:
    """A frozen model: nothing in the runtime ever writes to its parameters.

    Attributes:
        model: the causal LM from transformers, in eval mode, `requires_grad` off everywhere.
        tokenizer: its fast tokenizer.
        device: where it lives and the compute dtype.
        reference: what the user called it.
        load_seconds: wall time of loading.
        identity: one sha256 over the files that it was made from; those of unquantised weights aside. Empty in memory.
        weights_version: grows whenever weights are held in another way.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    device: Device
    reference: str
    load_seconds: float = 0.0
    folder: Path | None = None
    identity: str = ""
    weights_version: int = 0
    _head: Head | None = field(default=None, repr=False)

    @property
    def config(self) -> Any:
        """The text model's transformers config."""
        return self.model.config.get_text_config()

    @property
    def decoder(self) -> nn.Module:
        """The model without its head: token ids in, last hidden states out."""
        found = self.model.get_decoder()
        decoder: nn.Module = self.model.model if found is self.model else found  # Llama 4's search ends where it began
        return decoder

    @property
    def blocks(self) -> nn.ModuleList:
        """The transformer blocks, first to last."""
        for module in self.decoder.modules():
            if isinstance(module, nn.ModuleList) and len(module) == self.config.num_hidden_layers:
                return module
        raise ModelError(f"no block list in a {type(self.model).__name__}", "a decoder-only transformer", "use another")

    @property
    def head(self) -> Head:
        """The language-model head; shares the model's own tensors."""
        if self._head is None:
            self._head = checks.head_of(self.model, self.config)
        return self._head

    def forget_head(self) -> None:
        """Looks for the head anew: the model's tensors were replaced by equal ones."""
        self._head = None

    @property
    def max_positions(self) -> int | None:
        """Positions that the model was trained for, if its config says."""
        value = getattr(self.config, "max_position_embeddings", None)
        return int(value) if value else None

    def linears(self) -> Iterator[tuple[str, nn.Linear]]:
        """Every linear layer below the head, with its full name in `model`; adapters' own layers left out."""
        head = self.model.get_output_embeddings()
        for name, module in self.model.named_modules():
            if isinstance(module, nn.Linear) and module is not head and ".lora_" not in name:
                yield name, module

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, after the BOS token where the tokenizer has one by default."""
        return encode(self.tokenizer, text)

    def stream(self, text: Iterable[str], *, limit: int | None = None) -> TokenStream:
        """The token ids of a text that comes in parts: what `encode` gives for the whole, at most `limit` of them."""
        return TokenStream(self.tokenizer, text, limit=limit, first=default_bos(self.tokenizer))

    def sinks(self, settings: WindowSettings) -> int:
        """See `sinks`."""
        return sinks(self.tokenizer, settings)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids, special tokens left out."""
        options = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
        return tokenstream.asked(lambda: str(self.tokenizer.decode(list(ids), **options)))

    @property
    def bos_id(self) -> int | None:
        """The tokenizer's BOS token, if it has one."""
        found: int | None = tokenstream.asked(lambda: self.tokenizer.bos_token_id)
        return found

    @property
    def eos_ids(self) -> frozenset[int]:
        """Token ids that end a text."""
        generation = getattr(self.model, "generation_config", None)
        value = getattr(generation, "eos_token_id", None)
        value = tokenstream.asked(lambda: self.tokenizer.eos_token_id) if value is None else value
        return frozenset() if value is None else frozenset([value] if isinstance(value, int) else value)

    def checksum(self) -> str:
        """sha256 over every parameter and buffer of the base, quantisation state included; adapters left out."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self._tensors().items()):
            digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def fingerprint(self) -> str:
        """Which base this is: one sha256 over weights, config, tokenizer and templates, cheap where files say it."""
        if not self.identity:
            return self.checksum()
        if self.folder is None or self.manifest():
            return self.identity
        return journal.fingerprint({"weights": self.checksum(), "files": self.identity})

    def origin(self) -> str:
        """sha256 of the GGUF file that it came from, converted or not; empty where it came from none."""
        if self.folder is None:
            return self.identity
        return str((self.manifest().get("source") or {}).get("sha256") or "")

    def repair(self) -> Mapping[str, Tensor] | None:
        """A and B of every layer against quantisation's error, read one at a time; None where the folder has none.

        Raises:
            ModelError: the file is damaged.
        """
        entry = self.manifest().get("repair")
        if self.folder is None or entry is None:
            return None
        path = self.folder / str(entry["file"])
        try:
            return tensorfile.TensorFile(path)
        except Exception as error:  # safetensors' own errors share no base class with the system's
            raise ModelError(
                f"{path} cannot be read ({describe(error)})", "the repair that the folder's manifest names",
                "make the folder again with templora quantize --repair, or use adapter.start=fresh",
            ) from error  # fmt: skip

    def repair_fingerprint(self) -> str:
        """sha256 of the repair; empty where there is none."""
        return str(self.manifest().get("repair", {}).get("sha256", ""))

    def manifest(self) -> dict[str, Any]:
        """The 4-bit folder's manifest; empty where the base came from elsewhere."""
        return (checkpoint.read_manifest(self.folder) if self.folder is not None else None) or {}

    def cache_weights(self, blocks: int | None = None) -> None:
        """Keeps dequantised copies of the last `blocks` blocks' weights (lessons may end halfway down), or of all.

        Copies of other blocks' weights are dropped: those are dequantised at each use.
        """
        self.weights_version += 1
        first = len(self.blocks) if blocks is None else max(0, len(self.blocks) - blocks)
        chosen = {id(module) for block in self.blocks[first:] for module in block.modules()}
        for _, linear in self.linears():
            if getattr(linear.weight, "quant_state", None) is None:
                continue
            if blocks is not None and id(linear) not in chosen:
                _drop_copy(linear)
            elif getattr(linear, "dequantized", None) is None:
                linear.dequantized = weight_of(linear, self.device.torch_dtype)
                patches.replace(linear, "kept weight", partial(linear_product, linear))  # its own dequantises again

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {
            name.replace(".base_layer", ""): tensor
            for name, tensor in [*self.model.named_parameters(), *self.model.named_buffers()]
            if "lora_" not in name
        }
        for name, module in self.linears():
            state = getattr(module.weight, "quant_state", None)
            if state is not None:
                tensors[name.replace(".base_layer", "") + ".absmax"] = state.absmax
        return tensors


def _drop_copy(linear: nn.Linear) -> None:
    linear.__dict__.pop("dequantized", None)
    patches.take(linear, "kept weight")


def load(
    source: Source, settings: Settings, before_weights: Callable[[], Settings] | None = None, report: Report = silent
) -> Base:
    """Loads a frozen base.

    Args:
        source: a resolved model reference.
        before_weights: called when libraries and tokenizer are there; gives the settings to go on with.
        report: gets the bytes that are written, and those of all, while a GGUF file is converted.

    Raises:
        ModelError: the source is damaged, or of an unsupported kind.
        DeviceError: the device is not there.
        StorageError: no room for the cache.
    """
    start = time.perf_counter()
    device = choose(settings.compute.device, settings.compute.dtype, settings.compute.matmul)
    make_current(device)
    set_threads(settings.compute.threads)
    checkpoint.quiet_libraries()
    checkpoint.warm_up(device)
    reference = source.reference
    if source.kind == "gguf" and settings.base.precision != "full":
        source = quantize.convert_once(source, device=device.name, budget=settings.budget, report=report)
    identity = checkpoint.identity(source, repair=settings.adapter.start != "fresh")
    with alone.making(source.path):
        base = _made(source, device, settings, before_weights, identity)
    base.reference = reference
    base.load_seconds = time.perf_counter() - start
    return base


def _made(
    source: Source, device: Device, settings: Settings, before_weights: Callable[[], Settings] | None, identity: str
) -> Base:
    """The base, tried once: its tokenizer first, then its weights."""
    remote_code = settings.base.trust_remote_code
    config = None
    if source.kind == "gguf":
        tokenizer = words.load(source.path)
    else:
        config = checkpoint.load_config(source.path, remote_code)  # first: a tokenizer's loader would stumble over it
        tokenizer = checkpoint.load_tokenizer(source.path, remote_code)
        if settings.compute.dtype == "auto":
            device = wide_enough(device, config.get_text_config().model_type)
    release_memory()  # building a tokenizer takes several times what it keeps: before the weights come
    if before_weights is not None:
        settings = before_weights()
    if source.kind == "gguf":
        model = alone.load_gguf(source.path, torch.bfloat16)
        model.to(device.name)
        checkpoint.widen(model, device.torch_dtype)
        keep_stored_dtype(model, device.torch_dtype)
    else:
        model = _load_folder(source.path, config, device, settings)
    folder = source.path if source.path.is_dir() else None
    base = Base(freeze(model), tokenizer, device, source.reference, folder=folder, identity=identity)
    checks.verify(base)
    checks.require_words(base)
    return base


def wide_enough(device: Device, family: str) -> Device:
    """The device with a compute dtype that holds the family's activations."""
    if device.dtype == "float16" and family in families.BEYOND_HALF:
        return dataclasses.replace(device, dtype="float32")
    return device


def encode(tokenizer: Any, text: str) -> list[int]:
    """Token ids of `text`, after the BOS token where the tokenizer has one by default."""
    ids = tokenstream.encode(tokenizer, text).tolist()
    bos = default_bos(tokenizer)
    return ids if bos is None else [bos, *ids]


def default_bos(tokenizer: Any) -> int | None:
    """The BOS token that the tokenizer puts before a text by itself; None where it puts none."""
    bos: int | None = tokenstream.asked(lambda: tokenizer.bos_token_id)
    if bos is None:
        return None
    return bos if tokenstream.ids_of(tokenizer, "a", special=True)[:1] == [bos] else None


def sinks(tokenizer: Any, settings: WindowSettings) -> int:
    """How many of a document's first tokens every window begins with (`windows.py`)."""
    if settings.sinks == "off":
        return 0
    return windows.SINKS if default_bos(tokenizer) is None else 1


def from_model(model: PreTrainedModel, tokenizer: Any, device: Device, reference: str = "model") -> Base:
    """A base from a model that is already in memory (tests, notebooks). The model is frozen in place."""
    base = Base(freeze(model), tokenizer, device, reference)
    checks.verify(base)
    return base


def freeze(model: PreTrainedModel) -> PreTrainedModel:
    """Eval mode, no gradients, attention without masks, fused norms, no repacking of 4-bit weights behind our back."""
    model.requires_grad_(False)
    model.eval()
    attention.use(model)
    norms.use(model)
    experts.use(model)
    keep_packed_layout(model)
    packed.widen_at_once(model)
    return model


def keep_packed_layout(model: PreTrainedModel) -> None:
    """Stops bitsandbytes from rewriting packed weights at the first forward, as it does on some CPUs."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def linear_product(layer: nn.Linear, x: Tensor) -> Tensor:
    """W x + b with `weight_of` the layer."""
    return F.linear(x, weight_of(layer, x.dtype), layer.bias)


def weight_of(layer: nn.Linear, dtype: torch.dtype) -> Tensor:
    """The layer's weight (out, in) in `dtype`: dequantised now, or the session's cached copy."""
    cached: Tensor | None = getattr(layer, "dequantized", None)
    if cached is not None:
        return cached
    state = getattr(layer.weight, "quant_state", None)
    if state is None:
        return layer.weight if layer.weight.dtype == dtype else layer.weight.to(dtype)
    import bitsandbytes.functional as bnb

    weight: Tensor = bnb.dequantize_4bit(layer.weight.data, state)
    return weight if weight.dtype == dtype else weight.to(dtype)


def keep_stored_dtype(model: PreTrainedModel, compute: torch.dtype) -> None:
    """Lets embeddings and head stay in the dtype they are stored in, and widens what is looked up.

    Equal to converting both to `compute` (bfloat16 -> float32 is exact), at half the memory.
    """
    embeddings = model.get_input_embeddings()
    head = model.get_output_embeddings()
    if embeddings.weight.dtype != compute:
        scale = getattr(embeddings, "scalar_embed_scale", None)
        factor = None if scale is None else float(torch.tensor(scale, dtype=compute))  # no capture makes a tensor

        def look_up(input_ids: Tensor) -> Tensor:
            rows = nn.functional.embedding(input_ids, embeddings.weight).to(compute)
            return rows if factor is None else rows * factor

        patches.replace(embeddings, "stored dtype", look_up)
    if isinstance(head, nn.Linear) and head.weight.dtype != compute:
        wide = Head(head.weight, head.bias)

        def widened(x: Tensor) -> Tensor:
            return wide.logits(x.reshape(-1, x.shape[-1])).view(*x.shape[:-1], -1).to(compute)

        patches.replace(head, "stored dtype", widened)


def _load_folder(folder: Path, config: Any, device: Device, settings: Settings) -> Any:
    four_bit = checkpoint.is_four_bit(config)
    if four_bit and settings.base.precision == "full":
        raise ModelError(f"{folder} holds 4-bit weights", "full-precision weights", "name the unquantised model")
    if checkpoint.read_manifest(folder) is not None:
        model = checkpoint.load_four_bit(folder, config, device, settings.base.trust_remote_code)
        keep_stored_dtype(model, device.torch_dtype)
    else:
        quantized = settings.base.precision == "nf4" and not four_bit
        model = checkpoint.load_pretrained(folder, device, quantized, settings.base.trust_remote_code)
        if settings.base.precision == "nf4":
            packed.pack(model)
    return model
