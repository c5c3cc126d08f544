"""An export folder's graphs on ONNX Runtime, in numpy alone.

Owns: sessions, providers, runs over a window, one decoding step with everything bound.
Does not know: torch, adapters as objects, how the graphs are made, what a cache holds (`cache.py`), chunks, sampling.
Units: nats; logits in float32; positions in tokens.

Nothing here needs torch: a device that only scores or decodes holds the graph and this. All inputs of a decoding step
are bound once and changed in place. Texts side by side take a step together: the weights are read once for all.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from edge.errors import DeviceError, ExportError, describe
from edge.machine.allocator import trim
from edge.machine.held import is_out_of_memory
from edge.memory.graph import PART, RUN, SLICE
from edge.settings import OnnxSettings

from . import fit
from . import manifest as manifests
from .cache import Buffers, value
from .manifest import DECODER, HEAD, WEIGHTS, Manifest, head_parts, lora_inputs, part_outputs
from .rows import Array, Mapped, Rows

AdapterInputs = Mapping[str, Any]  # the graph's A and B, by input name
ARENA = {  # OrtArenaCfg: it grows by regions from 1 MiB up, and no block keeps more than 16 KiB that it does not need
    "max_mem": 0, "arena_extend_strategy": 0, "initial_growth_chunk_size_bytes": 1 << 20,
    "max_dead_bytes_per_chunk": 1 << 14,
}  # fmt: skip
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class Engine:
    """The sessions of one export folder, on one provider.

    Attributes:
        device: cpu or cuda: where the sessions really run.
        rows: the embedding matrix.
        parts: names of the head's results for each part of the vocabulary.
        nothing: A and B of rank 0: the base alone.
        shrinking: options of a run after which scratch is given back, but for the arena's first region.
    """

    def __init__(
        self,
        folder: Path,
        *,
        provider: str = "auto",
        threads: int = 0,
        fingerprint: str = "",
        share: Callable[[Manifest, Array | None], Mapping[str, Array]] | None = None,
    ) -> None:
        """Loads and checks everything.

        Args:
            provider: auto, cpu or cuda.
            fingerprint: of the base that the graph must belong to; any where empty.
            share: weights by name that lie in memory already, for a graph on the CPU of this manifest and float32 head.

        Raises:
            ExportError: damaged, incomplete, of another base, or too new for this ONNX Runtime.
            DeviceError: the provider is not there, or did not take the graph.
        """
        self.folder = folder
        self.manifest = manifests.read(folder)
        if fingerprint:
            manifests.require_base(folder, self.manifest, fingerprint)
        manifests.verify(folder, self.manifest)
        self.device = choose(provider, self.manifest.device)
        self._held: dict[str, Any] = {}  # shared weights, which sessions point to and do not keep alive
        shared: dict[str, Array] = {}
        wide = self.device == "cpu" and not self.manifest.head.block
        self._matrix = Mapped(folder / WEIGHTS, self.manifest.head) if wide else None
        head = None if self._matrix is None else self._matrix.matrix
        if head is not None:
            parts = head_parts(self.manifest.vocab)
            shared = {f"{part}.weight": head[start:end] for part, start, end in parts}
        if self.device == "cpu" and share is not None:
            shared |= share(self.manifest, head)
        self.decoder, self.head = (self._open(name, threads, shared) for name in (DECODER, HEAD))
        fit.require(folder, self.manifest, self.decoder, self.head)
        self.shrinking = ort.RunOptions()
        self.shrinking.log_severity_level = 4
        if self.device == "cpu":
            self.shrinking.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        self.rows = Rows(folder / WEIGHTS, self.manifest.embedding)
        self.parts = [part_outputs(index) for index in range(len(self.head.get_outputs()) // 2)]
        self.nothing: AdapterInputs = {
            name: value(np.zeros(shape, np.float32), self.device)
            for layer, (k, n) in self.manifest.lora.items()
            for name, shape in zip(lora_inputs(layer), ((k, 0), (0, n)), strict=True)
        }

    def buffers(self, capacity: int) -> Buffers:
        """An empty cache with room for so many tokens."""
        return Buffers(self.manifest, self.device, capacity)

    def rest_head(self) -> None:
        """Gives the head's memory back where it is mapped; it comes again when it is used."""
        if self._matrix is not None:
            self._matrix.release()

    def _open(self, name: str, threads: int, shared: Mapping[str, Array]) -> Any:
        options = ort.SessionOptions()
        held = {key: value(array, "cpu") for key, array in shared.items() if key.startswith("head.") == (name == HEAD)}
        for key, weight in held.items():
            options.add_initializer(key, weight)
        self._held |= held
        options.log_severity_level = 4  # what goes wrong is raised, and said once
        options.intra_op_num_threads = threads
        options.enable_cpu_mem_arena = self.device == "cpu"
        if self.device == "cpu":
            _share_scratch(self.manifest.widened)
            options.add_session_config_entry("session.use_env_allocators", "1")
        options.enable_mem_pattern = False
        options.add_session_config_entry("session.force_spinning_stop", "1")  # two sessions share the cores
        if (
            self.manifest.precision not in OnnxSettings.ROUNDING
        ):  # no second copy of every weight, laid out for products of many rows
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
                "check the CUDA libraries, or use --forward torch",
            )  # fmt: skip
        return session

    @contextlib.contextmanager
    def computing(self) -> Iterator[None]:
        """Inside, what a graph cannot compute is an error of its export.

        Raises:
            ExportError: a graph was made otherwise than `templora export` makes it.
            MemoryError: there was no memory for a result.
        """
        try:
            yield
        except Exception as error:  # ONNX Runtime's own errors share no base class
            if not type(error).__module__.startswith("onnxruntime"):
                raise
            if is_out_of_memory(error):
                raise MemoryError(describe(error)) from error
            raise ExportError(
                f"a graph in {self.folder} cannot be computed ({describe(error)})", "graphs that templora has exported",
                "export it again with templora export",
            ) from error  # fmt: skip


@cache
def _share_scratch(widest: int) -> None:
    """One arena on the CPU for all sessions of this process, whose first region holds a block of `widest` bytes.

    A session's own arena gives nothing back. Without one, blocks of many sizes spread over the heap's holes, and where
    a decoder widens a weight at each use, the system clears its pages for every token.
    """
    info = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    with contextlib.suppress(
        RuntimeError
    ):  # the process has one already, for another graph or its own: that one serves
        ort.create_and_register_allocator(
            info, ort.OrtArenaCfg(ARENA | {"initial_chunk_size_bytes": widest + (1 << 20)})
        )


def choose(provider: str, exported_for: str) -> str:
    """The device to run on: what is asked for, or what the graph was exported for where that is there.

    Raises:
        DeviceError: a GPU is asked for, and this ONNX Runtime has none.
    """
    there = PROVIDERS["cuda"] in ort.get_available_providers()
    if provider == "cuda" and not there:
        raise DeviceError(
            f"this ONNX Runtime knows only {', '.join(ort.get_available_providers())}", PROVIDERS["cuda"],
            "pip install templora[onnx-gpu], or use an export for the CPU",
        )  # fmt: skip
    if provider == "auto":
        return "cuda" if there and exported_for == "cuda" else "cpu"
    return provider


class Reader:
    """Scores and decodes with an engine; arrays in, arrays out."""

    def __init__(self, engine: Engine, slice_size: int = SLICE) -> None:
        """`slice_size`: label positions that meet the head at a time."""
        self.engine = engine
        self.slice_size = slice_size

    def nll(self, ids: Array, labels: int, adapter: AdapterInputs) -> Array:
        """(labels,) float32 nats of the last of (S,) int64 token ids.

        The decoder reads the window first, and the head what it made of the labels: their scratch
        is never there together.
        """
        count = len(ids) - 1  # the last token predicts nothing that is asked for
        hidden = self._states(ids[:count], labels, self.engine.buffers(count), 0, adapter)
        trim()  # keys and values
        slices = range(0, labels, self.slice_size)
        wanted = ids[len(ids) - labels :]
        return np.concatenate([
            self._nats(hidden[at : at + self.slice_size], wanted[at : at + self.slice_size]) for at in slices
        ])  # fmt: skip

    def extend(self, ids: Array, buffers: Buffers, position: int, adapter: AdapterInputs) -> Array:
        """(V,) logits after (S,) tokens that follow the `position` ones held in
        `buffers`, which then holds them too.
        """
        buffers.reserve(position + len(ids), position)
        hidden = self._states(ids, 1, buffers, position, adapter)
        parts = self._head(hidden, np.zeros(1, np.int64), scoring=False)
        return np.concatenate([logits[0] for logits, _ in parts])

    def decode(self, token: int, buffers: Buffers, position: int, adapter: AdapterInputs) -> Array:
        """(V,) logits after one token more.

        `adapter` must be the same object as long as its values stay in the same memory.
        """
        if self.engine.device != "cpu":
            return self.extend(np.array([token], np.int64), buffers, position, adapter)
        buffers.reserve(position + 1, position)
        logits: Array = self._step(buffers, 1, adapter).run([token], [position], [buffers])[0]
        return logits

    def verify(self, ids: Array, buffers: Buffers, position: int, adapter: AdapterInputs) -> Array:
        """(S, V) logits after each of a few tokens that follow the `position` ones held in `buffers`; CPU only."""
        buffers.reserve(position + len(ids), position)
        return self._step(buffers, 1, adapter, len(ids)).run(ids, [position], [buffers])

    def decode_lines(
        self, tokens: Sequence[int], rows: Sequence[Buffers], positions: Sequence[int], adapter: AdapterInputs
    ) -> Array:
        """(n, V) logits after one token more in each of the first n caches of `Buffers.side_by_side`; CPU only."""
        together = rows[0].together
        assert together is not None
        return self._step(together, len(tokens), adapter).run(tokens, positions, rows)

    def _step(self, buffers: Buffers, count: int, adapter: AdapterInputs, each: int = 1) -> Step:
        """The step of `each` tokens of the first `count` texts in `buffers`, bound once."""
        bound = ((step.adapter is adapter, step.count, step.each) for step in buffers.steps)
        step = next((step for step, of in zip(buffers.steps, bound, strict=True) if of == (True, count, each)), None)
        if step is None:
            if each > 1:  # logits of several rows are held once
                buffers.steps = [step for step in buffers.steps if step.each == 1]
            step = Step(self.engine, buffers, count, adapter, each)
            buffers.steps.append(step)
        return step

    def _states(self, ids: Array, last: int, buffers: Buffers, position: int, adapter: AdapterInputs) -> Array:
        """(last, H) hidden states of the last tokens of (S,), read `RUN` at a time after `position` others.

        The head has no memory meanwhile, and no scratch is left after it, where there are enough tokens to be worth it.
        """
        many = len(ids) >= RUN
        states = []
        first = len(ids) - last
        if many:
            self.engine.rest_head()
        for start in range(0, len(ids), RUN):
            hidden = self._run(ids[start : start + RUN], position + start, buffers, adapter)
            if start + RUN > first:
                states.append(hidden[max(0, first - start) :].copy())
            if many:
                trim()
        return np.concatenate(states)

    def _run(self, ids: Array, position: int, buffers: Buffers, adapter: AdapterInputs) -> Array:
        """(S, H) hidden states of tokens that follow `position` others; their keys and values are kept in `buffers`."""
        binding = self.engine.decoder.io_binding()
        buffers.slide(position, len(ids))
        for name, array in _inputs(self.engine, self.engine.rows(ids), [position], [buffers.sliding]).items():
            binding.bind_cpu_input(name, array)
        _bind_adapter(binding, adapter)
        binding.bind_output("hidden")
        _bind_cache(binding, buffers.names, buffers.values)
        with self.engine.computing():
            self.engine.decoder.run_with_iobinding(binding, self.engine.shrinking)
        hidden: Array = binding.get_outputs()[0].numpy()
        return hidden

    def _nats(self, hidden: Array, labels: Array) -> Array:
        """(S,) float32 nats of the labels.

        A sum over a whole vocabulary loses digits in float32: blocks' normalisers are summed in float64.
        """
        parts = self._head(hidden, labels, scoring=True)
        normalisers = np.concatenate([part for part, _ in parts], axis=1).astype(np.float64)
        largest = normalisers.max(axis=1)
        total = largest + np.log(np.exp(normalisers - largest[:, None]).sum(axis=1))
        nats: Array = (total - np.sum([own for _, own in parts], axis=0)).astype(np.float32)
        return nats

    def _head(self, hidden: Array, labels: Array, *, scoring: bool) -> list[tuple[Array, Array]]:
        names = [name for part in self.engine.parts for name in part]
        given = {"hidden": hidden, "labels": labels, "scoring": np.array(scoring)}
        with self.engine.computing():
            results = iter(self.engine.head.run(names, given, self.engine.shrinking))
        return list(zip(results, results, strict=True))


class Step:
    """One decoding step on the CPU with everything bound: a token of each text goes in, or as many of each, and (n, V)
    logits come out.

    Attributes:
        adapter: whose values are bound.
        count: the texts.
        each: tokens of each of them; n = count * each.
    """

    def __init__(self, engine: Engine, buffers: Buffers, count: int, adapter: AdapterInputs, each: int = 1) -> None:
        self._engine = engine
        self._decoder = engine.decoder
        self._head = engine.head
        self.adapter = adapter
        self.count = count
        self.each = each
        m = engine.manifest
        n = count * each
        self._rows = engine.rows
        self._inputs = _inputs(engine, np.zeros((n, m.hidden), np.float32), [0] * count, [0] * count)
        hidden = value(np.zeros((n, m.hidden), np.float32), "cpu")
        self._logits: list[Array] = []
        self._tokens = self._decoder.io_binding()
        for name, array in self._inputs.items():
            self._tokens.bind_ortvalue_input(name, value(array, "cpu"))
        _bind_adapter(self._tokens, adapter)
        self._tokens.bind_ortvalue_output("hidden", hidden)
        whole = count == buffers.texts
        values = buffers.values if whole else [value(held.numpy()[:count], "cpu") for held in buffers.values]
        _bind_cache(self._tokens, buffers.names, values)
        self._states = self._head.io_binding()
        self._states.bind_ortvalue_input("hidden", hidden)
        self._states.bind_ortvalue_input("labels", value(np.zeros(n, np.int64), "cpu"))
        self._states.bind_ortvalue_input("scoring", value(np.array(False), "cpu"))
        for (part, own), start in zip(engine.parts, range(0, m.vocab, PART), strict=True):
            self._logits.append(np.zeros((n, min(PART, m.vocab - start)), np.float32))
            self._states.bind_ortvalue_output(part, value(self._logits[-1], "cpu"))
            self._states.bind_ortvalue_output(own, value(np.zeros(n, np.float32), "cpu"))

    def run(self, tokens: Sequence[int] | Array, positions: Sequence[int], rows: Sequence[Buffers]) -> Array:
        """(n, V) logits after the tokens, those of a text from its position on; `rows`: the cache of each."""
        for position, row in zip(positions, rows, strict=True):
            row.slide(position, self.each)
        embedded = self._rows(np.array(tokens, np.int64))
        for name, array in _inputs(self._engine, embedded, positions, [row.sliding for row in rows]).items():
            self._inputs[name][...] = array
        with self._engine.computing():
            self._decoder.run_with_iobinding(self._tokens)
            self._head.run_with_iobinding(self._states)
        return np.concatenate(self._logits, axis=1)


def _inputs(engine: Engine, rows: Array, positions: Sequence[int], sliding: Sequence[int]) -> dict[str, Array]:
    """What changes with each run, over (S, H) rows of as many tokens of each text.

    `positions`: of the first of each text; `sliding`: rows of each that layers with a window hold, these included.
    """
    each = len(rows) // len(positions)
    seen = np.array(positions, np.int32) + (each - 1)
    inputs = {
        "embedded": rows,
        "positions": (np.array(positions, np.int64)[:, None] + np.arange(each)).reshape(-1),
        "seen": seen,
        "total": np.array(seen.max() + 1, np.int32),
    }
    if engine.manifest.sliding:
        held = np.array(sliding, np.int32)
        inputs |= {"sliding.seen": held - 1, "sliding.total": np.array(held.max(), np.int32)}
    return inputs


def _bind_adapter(binding: Any, adapter: AdapterInputs) -> None:
    for name, held in adapter.items():
        binding.bind_ortvalue_input(name, held)


def _bind_cache(binding: Any, names: Sequence[str], values: Sequence[Any]) -> None:
    for name, held in zip(names, values, strict=True):
        binding.bind_ortvalue_input(name, held)
        binding.bind_ortvalue_output(name.replace("past", "present", 1), held)
