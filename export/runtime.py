"""The Forward protocol on ONNX Runtime.

Owns: sessions, providers, the KV cache's buffers, the adapter's copies that the graph reads.
Does not know: how the graphs are made, chunks, learning, sampling.
Units: nats; logits in float32; positions in tokens.

A cache is one buffer for each layer's keys and one for its values, with room to grow. Past and present are the same
buffer, so a token costs no copy of what is there; all inputs of a decoding step are bound once and changed in place.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from torch import Tensor

from edge.adapter import Adapter
from edge.errors import DeviceError, ExportError, describe
from edge.forward import Cache
from edge.memory import GRAPH_ROOM as ROOM
from edge.memory import GRAPH_SLICE as SLICE
from edge.paging import Store
from edge.settings import ComputeSettings

from . import manifest as manifests
from .graph import cache_names, lora_inputs
from .manifest import DECODER, HEAD

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class Engine:
    """The sessions of one export folder, on one provider.

    Attributes:
        device: cpu or cuda: where the sessions really run.
    """

    def __init__(self, folder: Path, *, provider: str = "auto", threads: int = 0, fingerprint: str = "") -> None:
        """Loads and checks everything.

        Args:
            provider: auto, cpu or cuda.
            fingerprint: of the base that the graph must belong to; any where empty.

        Raises:
            ExportError: damaged, incomplete, of another base, or too new for this ONNX Runtime.
            DeviceError: the provider is not there, or did not take the graph.
        """
        self.folder, self.manifest = folder, manifests.read(folder)
        if fingerprint:
            manifests.require_base(folder, self.manifest, fingerprint)
        manifests.verify(folder, self.manifest)
        self.device = choose(provider, self.manifest.device)
        self.decoder, self.head = self._open(DECODER, threads), self._open(HEAD, threads)

    def _open(self, name: str, threads: int) -> Any:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads
        options.enable_cpu_mem_arena = False  # it grows by doubling, and gives nothing back
        options.add_session_config_entry("session.force_spinning_stop", "1")  # two sessions share the cores
        if self.manifest.precision != "int8":  # no second copy of every weight, laid out for products of many rows
            options.add_session_config_entry("session.disable_prepacking", "1")
        providers = [PROVIDERS[self.device], *([] if self.device == "cpu" else [PROVIDERS["cpu"]])]
        try:
            session = ort.InferenceSession(str(self.folder / name), options, providers=providers)
        except Exception as error:  # ONNX Runtime's own errors share no base class
            raise ExportError(
                f"ONNX Runtime {ort.__version__} cannot load {self.folder / name} ({describe(error)})",
                f"one that knows opset {self.manifest.opset}",
                "update onnxruntime, or export again",
            ) from error
        if session.get_providers()[0] != providers[0]:  # it falls back to the CPU in silence
            raise DeviceError(
                f"ONNX Runtime runs {name} with {session.get_providers()[0]}", providers[0],
                "check the CUDA libraries, or use onnx.provider=cpu",
            )  # fmt: skip
        return session


def choose(provider: str, exported_for: str) -> str:
    """The device to run on: what is asked for, or what the graph was exported for where that is there.

    Raises:
        DeviceError: a GPU is asked for, and this ONNX Runtime has none.
    """
    there = PROVIDERS["cuda"] in ort.get_available_providers()
    if provider == "cuda" and not there:
        raise DeviceError(
            f"this ONNX Runtime knows only {', '.join(ort.get_available_providers())}", PROVIDERS["cuda"],
            "pip install templora[onnx-gpu], or use onnx.provider=cpu",
        )  # fmt: skip
    if provider == "auto":
        return "cuda" if there and exported_for == "cuda" else "cpu"
    return provider


class Buffers:
    """The keys and values of a growing text: (1, G, capacity, D) each, in the order of the graph's inputs."""

    def __init__(self, engine: Engine, capacity: int) -> None:
        m = engine.manifest
        self._engine, self.names = engine, cache_names(m.layers, "past")
        self._shape, self._kind = (1, m.groups, 0, m.head_size), np.dtype(m.cache)
        self.capacity = capacity
        self.values = [self._empty(capacity) for _ in self.names]
        self.steps: dict[bool, Any] = {}  # bindings of a decoding step, with and without the adapter

    def reserve(self, tokens: int, held: int) -> None:
        """Makes room for `tokens` in all, `held` of which are there."""
        if tokens <= self.capacity:
            return
        self.capacity = -(-tokens // ROOM) * ROOM
        for index, value in enumerate(self.values):
            self.values[index] = self._filled(value.numpy()[:, :, :held])
        self.steps = {}

    def tensors(self, held: int) -> Iterator[tuple[str, Tensor]]:
        """What is held, by name."""
        for name, value in zip(self.names, self.values, strict=True):
            yield name, torch.from_numpy(value.numpy()[:, :, :held])

    def drop(self) -> None:
        """Forgets all, and gives its memory back."""
        self.values, self.steps = [], {}

    def fill(self, tensors: Sequence[Tensor]) -> None:
        """Takes what `tensors` gave, in the same order."""
        self.values = [self._filled(tensor.numpy()) for tensor in tensors]

    def _empty(self, capacity: int) -> Any:
        return _value(np.zeros((*self._shape[:2], capacity, self._shape[3]), self._kind), self._engine.device)

    def _filled(self, kept: np.ndarray[Any, Any]) -> Any:
        array = np.zeros((*self._shape[:2], self.capacity, self._shape[3]), self._kind)
        array[:, :, : kept.shape[2]] = kept
        return _value(array, self._engine.device)


class OnnxForward:
    """The Forward protocol on an export folder's graphs. The adapter stays torch's; the graph reads copies of it."""

    def __init__(self, engine: Engine, adapter: Adapter | None, slice_size: int = SLICE) -> None:
        """`slice_size`: label positions that meet the head at a time."""
        self.engine, self.adapter, self.slice_size = engine, adapter, slice_size
        self._version = -1
        self._copies: dict[str, Any] = {}
        self._nothing = {
            name: _value(np.zeros(shape, np.float32), engine.device)
            for layer, (k, n) in engine.manifest.lora.items()
            for name, shape in zip(lora_inputs(layer), ((k, 0), (0, n)), strict=True)
        }

    def settle(self, compute: ComputeSettings) -> None:
        """See `Forward.settle`."""
        self.slice_size = min(compute.loss_slice or SLICE, SLICE)

    def nll(self, input_ids: Tensor, labels: int, *, adapter: bool = True) -> Tensor:
        """See `Forward.nll`."""
        ids = input_ids.cpu().numpy().astype(np.int64)
        hidden = self._run(ids, 0, Buffers(self.engine, 0), adapter, keep=False)
        first = len(ids) - labels
        nll = np.empty(labels, np.float32)
        for start in range(0, labels, self.slice_size):
            rows = slice(start, min(start + self.slice_size, labels))
            at = slice(first - 1 + rows.start, first - 1 + rows.stop)
            nll[rows] = self._head("nll", hidden[at], ids[first:][rows])
        return torch.from_numpy(nll)

    def prefill(self, input_ids: Tensor, *, adapter: bool = True) -> tuple[Tensor, Cache]:
        """See `Forward.prefill`."""
        cache = Cache(Buffers(self.engine, -(-(len(input_ids) + 1) // ROOM) * ROOM))
        return self.extend(input_ids, cache, adapter=adapter), cache

    def extend(self, input_ids: Tensor, cache: Cache, *, adapter: bool = True) -> Tensor:
        """Adds (S,) tokens to the cache; returns the (V,) logits after the last one."""
        ids = input_ids.cpu().numpy().astype(np.int64)
        cache.state.reserve(cache.length + len(ids), cache.length)
        hidden = self._run(ids, cache.length, cache.state, adapter)
        cache.length += len(ids)
        return torch.from_numpy(self._head("logits", hidden[-1:], np.zeros(1, np.int64))[0])

    def decode(self, token: int, cache: Cache, *, adapter: bool = True) -> Tensor:
        """See `Forward.decode`."""
        if self.engine.device != "cpu":
            return self.extend(torch.tensor([token]), cache, adapter=adapter)
        buffers = cache.state
        buffers.reserve(cache.length + 1, cache.length)
        adapter = adapter and self.adapter is not None
        if adapter:
            self._refresh()
        step = buffers.steps.get(adapter)
        if step is None:
            step = buffers.steps[adapter] = Step(self.engine, buffers, self._copies if adapter else self._nothing)
        logits = step.run(token, cache.length)
        cache.length += 1
        return torch.from_numpy(logits.copy())

    def page_out(self, cache: Cache, pages: Store) -> None:
        """See `Forward.page_out`."""
        for name, tensor in cache.state.tensors(cache.length):
            pages.put(f"cache.{name}", tensor)
        cache.state.drop()

    def page_in(self, cache: Cache, pages: Store) -> None:
        """See `Forward.page_in`."""
        cache.state.fill([pages.read(f"cache.{name}") for name in cache.state.names])

    def _run(
        self, ids: np.ndarray[Any, Any], position: int, buffers: Buffers, adapter: bool, keep: bool = True
    ) -> np.ndarray[Any, Any]:
        """(S, H) hidden states of tokens that follow `position` others; their keys and values are kept in `buffers`."""
        binding = self.engine.decoder.io_binding()
        for name, array in _positions(ids, position).items():
            binding.bind_cpu_input(name, array)
        use = adapter and self.adapter is not None
        if use:
            self._refresh()
        _bind_adapter(binding, self._copies if use else self._nothing)
        binding.bind_output("hidden")
        _bind_cache(binding, buffers, keep)
        self.engine.decoder.run_with_iobinding(binding)
        hidden: np.ndarray[Any, Any] = binding.get_outputs()[0].numpy()
        return hidden

    def _head(self, what: str, hidden: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        result: np.ndarray[Any, Any] = self.engine.head.run([what], {"hidden": hidden, "labels": labels}, _only())[0]
        return result

    def _refresh(self) -> None:
        """Copies the adapter's A and B where they have changed, transposed and scaled as the graph wants them."""
        assert self.adapter is not None
        if self._version == self.adapter.version:
            return
        for layer, module in self.adapter.layers.items():
            name = self.adapter.name
            a, b, scaling = module.lora_A[name].weight, module.lora_B[name].weight, module.scaling[name]
            for key, tensor in zip(lora_inputs(layer), (a.detach().T, b.detach().T * scaling), strict=True):
                array = tensor.float().cpu().contiguous().numpy()
                if key in self._copies:
                    self._copies[key].update_inplace(array)
                else:
                    self._copies[key] = _value(array.copy(), self.engine.device)
        for key, nothing in self._nothing.items():
            self._copies.setdefault(key, nothing)
        self._version = self.adapter.version


class Step:
    """One decoding step on the CPU with everything bound: a token goes in, (V,) logits come out."""

    def __init__(self, engine: Engine, buffers: Buffers, adapter: dict[str, Any]) -> None:
        self._decoder, self._head = engine.decoder, engine.head
        m = engine.manifest
        self._inputs = _positions(np.zeros(1, np.int64), 0)
        hidden = _value(np.zeros((1, m.hidden), np.float32), "cpu")
        self._logits = np.zeros((1, m.vocab), np.float32)
        self._tokens = self._decoder.io_binding()
        for name, array in self._inputs.items():
            self._tokens.bind_ortvalue_input(name, _value(array, "cpu"))
        _bind_adapter(self._tokens, adapter)
        self._tokens.bind_ortvalue_output("hidden", hidden)
        _bind_cache(self._tokens, buffers)
        self._states = self._head.io_binding()
        self._states.bind_ortvalue_input("hidden", hidden)
        self._states.bind_ortvalue_input("labels", _value(np.zeros(1, np.int64), "cpu"))
        self._states.bind_ortvalue_output("logits", _value(self._logits, "cpu"))
        self._options = _only()

    def run(self, token: int, position: int) -> np.ndarray[Any, Any]:
        """(V,) logits after `token` at `position`; the array is overwritten by the next step."""
        inputs = self._inputs
        inputs["input_ids"][0] = token
        inputs["positions"][0] = inputs["seen"][0] = position
        inputs["total"][...] = position + 1
        self._decoder.run_with_iobinding(self._tokens)
        self._head.run_with_iobinding(self._states, self._options)
        logits: np.ndarray[Any, Any] = self._logits[0]
        return logits


def _positions(ids: np.ndarray[Any, Any], position: int) -> dict[str, np.ndarray[Any, Any]]:
    end = position + len(ids)
    return {
        "input_ids": ids,
        "positions": np.arange(position, end, dtype=np.int64),
        "seen": np.array([end - 1], np.int32),
        "total": np.array(end, np.int32),
    }


def _bind_adapter(binding: Any, adapter: dict[str, Any]) -> None:
    for name, value in adapter.items():
        binding.bind_ortvalue_input(name, value)


def _bind_cache(binding: Any, buffers: Buffers, keep: bool = True) -> None:
    for name, value in zip(buffers.names, buffers.values, strict=True):
        binding.bind_ortvalue_input(name, value)
        if keep:
            binding.bind_ortvalue_output(name.replace("past", "present", 1), value)


def _only() -> Any:
    """Options of a run that computes nothing but what is asked for."""
    options = ort.RunOptions()
    options.only_execute_path_to_fetches = True
    return options


def _value(array: np.ndarray[Any, Any], device: str) -> Any:
    """The array as the runtime's own value; on the CPU it is the same memory."""
    return ort.OrtValue.ortvalue_from_numpy(array, device, 0)
