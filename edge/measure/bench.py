"""Contenders side by side on this machine: the paper's loop, the same learner here, presets, the base.

Owns: the contenders, their processes, the alternation, medians and ratios.
Does not know: how a contender computes; it is another process that does one chunk when told to.
Units: seconds, tokens, bytes, nats, FLOPs.

Every contender lives in a process of its own, loaded before the first measurement, and they take turns chunk by
chunk, in an order that rotates: what disturbs the machine disturbs all of them. Where no memory budget is named each
gets an equal share of what is free, and takes the fastest settings that fit it. Peak memory is what the system reports
of the process when it ends (resident set; on CUDA what torch's allocator reserved).
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

from .. import errors
from .. import settings as settings_module
from ..errors import InputError, SettingsError
from ..machine import device, held
from ..memory import flops, planning, shape
from ..records import finite, perplexity
from ..settings import Settings

CONTENDERS = ("paper", "plain", "exact", "default", "swift", "base")
PLAIN = (
    "compute.plain=[loss, lora, first_epoch]",
    "compute.checkpointing=off",
    "compute.weights=packed",
)


def settings_for(contender: str, settings: Settings) -> Settings:
    """The settings that a contender runs with; window, budget and device are those of `settings`.

    `paper` and `plain`: the learner as published, in the paper's loop or on this runtime's plain path; `exact`: the
    same without dropout, with every saving that changes no result; `default`: `settings`; `base`: no adapter; else
    the learner and adapter of a preset.

    Raises:
        SettingsError: there is no such contender.
    """
    if contender == "base":
        return settings.override(["learn.mode=none"])
    if contender == "default":
        return settings
    preset = "paper" if contender in ("plain", "exact") else contender
    if preset not in settings_module.preset_names():
        known = ", ".join(dict.fromkeys((*CONTENDERS, *settings_module.preset_names())))
        raise SettingsError(f"contender '{contender}'", f"some of {known}", "correct the name")
    chosen = settings_module.load(preset)
    adapter = dataclasses.replace(chosen.adapter, rank=settings.adapter.rank, alpha=settings.adapter.alpha)
    chosen = dataclasses.replace(settings, adapter=adapter, learn=chosen.learn)
    if contender == "exact":
        return chosen.override(["adapter.dropout=0"])
    return chosen.override(PLAIN) if contender == "plain" else chosen


def run(
    model: str,
    text: str,
    settings: Settings,
    contenders: Sequence[str],
    *,
    chunks: int,
    decode: int = 0,
    limit: int | None = None,
    progress: Callable[[int], None] = lambda chunk: None,
) -> dict[str, Any]:
    """Runs the benchmark.

    Args:
        text: what every contender scores and learns, chunk by chunk; at least `chunks` chunks of it are needed.
        decode: tokens that each decodes at the end.
        limit: bytes that a contender's data may take; one that needs more is reported as not fitting.

    Returns:
        For every contender its chunks, medians and totals, and what the machine can do; ready for JSON.

    Raises:
        InputError: the text is too short.
        SettingsError: a contender is not known.
        TemploraError: what a contender raises, but for memory that does not suffice.
    """
    wanted = chunks * settings.window.chunk
    if settings.budget is None:
        kind = device.probable_kind(settings.compute.device)
        free = planning.free_for_all(kind, settings.compute.device)
        settings = dataclasses.replace(settings, budget=free // len(contenders))
    text = text[: 24 * wanted]  # no tokenizer makes fewer tokens of it, and the rest need not be read
    workers = [_Worker(name, model, settings_for(name, settings), text, wanted, limit) for name in contenders]
    try:
        for worker in workers:
            loaded = worker.ask("load")
            if loaded and loaded["tokens"] < wanted:
                raise InputError(f"the text holds {loaded['tokens']} tokens", f"{wanted}", "lower --chunks")
        for index in range(chunks):
            turn = index % len(workers)
            for worker in workers[turn:] + workers[:turn]:
                worker.ask("chunk")
            progress(index + 1)
        for worker in workers if decode else []:
            worker.ask(f"decode {decode}")
        rate = next((r for r in (w.ask("rate") for w in workers) if r), {}).get("flops")
        results = {worker.name: worker.finish() for worker in workers}
    finally:
        for worker in workers:
            worker.kill()
    dims = planning.model_shape(planning.find(model, settings))
    summary = {name: _summary(result, settings, dims, rate, name) for name, result in results.items()}
    first = summary[contenders[0]]["seconds_per_chunk"]
    for entry in summary.values():
        own = entry["seconds_per_chunk"]
        entry["times_faster"] = first / own if first and own else None
    return {
        "command": "bench",
        "model": model,
        "tokens": wanted,
        "window": dataclasses.asdict(settings.window),
        "budget": settings.budget,
        "matmul_flops_per_second": rate,
        "against": contenders[0],
        "contenders": summary,
    }


def _summary(
    result: dict[str, Any], settings: Settings, dims: shape.Shape, rate: float | None, name: str
) -> dict[str, Any]:
    """Medians over the chunks whose window is full, and totals."""
    chunks = result["chunks"]
    whole = [c for c in chunks if c["start"] >= settings.window.context and c["tokens"] == settings.window.chunk]
    ran_with = settings_module.from_dict(result["settings"]) if "settings" in result else settings_for(name, settings)
    period = ran_with.learn.deep_every
    seconds = typical([c["seconds"] for c in whole], period)
    phases = {
        phase: typical([c["phases"].get(phase, 0.0) for c in whole], period)
        for phase in (whole[-1]["phases"] if whole else {})
    }
    nll = sum(c["nll"] for c in chunks)
    tokens = sum(c["tokens"] for c in chunks)
    counted = flops.per_chunk(ran_with, dims, plain=name in ("paper", "plain"))
    total = sum(counted.values())
    return {
        "failed": result.get("failed"),
        "seconds_per_chunk": seconds,
        "phases": phases,
        "tokens_per_second": settings.window.chunk / seconds if seconds else None,
        "decode_tokens_per_second": result.get("decode"),
        "flops_per_chunk": counted,
        "share_of_matmul_peak": total / seconds / rate if seconds and rate else None,
        "peak_bytes": result["peak_bytes"],
        "perplexity": finite(perplexity(nll, tokens)),
        "nll": finite(nll),
        "chunks": [chunk | {"nll": finite(chunk["nll"])} for chunk in chunks],
    }


def typical(seconds: Sequence[float], period: int = 1) -> float | None:
    """The median; where a setting makes only every `period`-th chunk a long one, of the means of so many in a row."""
    runs = [seconds[i : i + period] for i in range(len(seconds) - period + 1)]
    return statistics.median(statistics.fmean(run) for run in runs) if runs else None


class _Worker:
    """A contender's process, seen from outside."""

    def __init__(self, name: str, model: str, settings: Settings, text: str, tokens: int, limit: int | None) -> None:
        self.name = name
        self.result: dict[str, Any] = {"chunks": []}
        spec = {
            "contender": name,
            "model": model,
            "settings": settings.to_dict(),
            "text": text,
            "tokens": tokens,
            "limit": limit,
        }
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from edge.measure import bench; bench.work()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        )
        self._send(json.dumps(spec))

    def ask(self, command: str) -> dict[str, Any] | None:
        """Lets the process do one thing; None where it has failed, now or before.

        Raises:
            TemploraError: what the process met is wrong for all contenders: the model, a setting, the device.
        """
        if "failed" in self.result:
            return None
        self._send(command)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"failed": "the system ended the process"}
        if "error" in answer:
            raise getattr(errors, answer["error"])(*answer["parts"])
        if "failed" in answer:
            self.result["failed"] = answer["failed"]
            return None
        if command == "load":
            self.result["settings"] = answer["settings"]
        elif command == "chunk":
            self.result["chunks"].append(answer)
        elif command.startswith("decode"):
            self.result["decode"] = answer["tokens_per_second"]
        elif command == "stop":
            self.result["device_peak_bytes"] = answer["device_peak_bytes"]
        return answer

    def finish(self) -> dict[str, Any]:
        """Ends the process; its peak comes from the system, or from torch's allocator on CUDA."""
        self.ask("stop")
        _, _, usage = os.wait4(self._process.pid, 0)
        self._process.returncode = 0
        self.result["peak_bytes"] = self.result.get("device_peak_bytes") or usage.ru_maxrss * 1024
        return self.result

    def kill(self) -> None:
        """Ends the process, whatever it does."""
        if self._process.returncode is None:
            self._process.kill()
            self._process.wait()

    def _send(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the answer that does not come says so


# --- inside a contender's process ---


def work() -> None:
    """A contender's process: one command a line on standard input, one JSON object a line on standard output."""
    from ..errors import BudgetError, TemploraError, describe
    from ..machine.allocator import own_process, tune_allocator
    from ..machine.held import is_out_of_memory

    spec = json.loads(sys.stdin.readline())
    if spec["limit"]:
        import resource

        import torch  # noqa: F401 - a library that fails while it is being loaded ends the process

        resource.setrlimit(resource.RLIMIT_DATA, (spec["limit"], spec["limit"]))
    if spec["contender"] != "paper":
        own_process()
        tune_allocator()
    contender = _commands(spec)
    next(contender)
    for line in sys.stdin:
        try:
            answer = contender.send(line.strip())
        except (RuntimeError, MemoryError, OSError, BudgetError) as error:
            if not isinstance(error, BudgetError) and not is_out_of_memory(error):
                raise
            answer = {"failed": "out of memory", "said": describe(error)[:200]}
        except TemploraError as error:
            answer = {"error": type(error).__name__, "parts": [error.got, error.expected, error.remedy]}
        print(json.dumps(answer), flush=True)
        if line.strip() == "stop" or "failed" in answer or "error" in answer:
            return


def _commands(spec: dict[str, Any]) -> Generator[dict[str, Any], str, None]:
    """A generator that is sent commands and yields answers."""
    settings = settings_module.from_dict(spec["settings"])
    ids: list[int] = []
    answer: dict[str, Any] = {}
    chunks: Iterator[dict[str, Any]] = iter(())
    loop: Any = None
    end = 0
    while True:
        command = yield answer
        if command == "load":
            kind = _PaperLoop if spec["contender"] == "paper" else _RuntimeLoop
            loop = kind(spec["model"], settings)
            ids = loop.encode(spec["text"])[: spec["tokens"]]
            chunks = loop.chunks(ids)
            answer = {"tokens": len(ids), "settings": loop.settings.to_dict()}
        elif command == "chunk":
            answer = next(chunks) | {"start": end}
            if not end and not math.isfinite(answer["nll"]):  # nothing has been learned that could be at fault
                raise errors.no_numbers()
            end = min(end + settings.window.chunk, len(ids))
        elif command.startswith("decode"):
            answer = {"tokens_per_second": loop.decode(ids[:end][-settings.window.context :], int(command.split()[1]))}
        elif command == "rate":
            size = 8192 if loop.device.kind == "cuda" else 2048
            answer = {"flops": max(device.matmul_rate(loop.device, size) for _ in range(3))}
        else:
            cuda = loop.device.kind == "cuda"
            answer = {"device_peak_bytes": held.PeakMeter(loop.device).read() if cuda else None}


class _PaperLoop:
    def __init__(self, model: str, settings: Settings) -> None:
        from .reference import PlainLoop

        self.settings = settings
        self.device = device.choose(settings.compute.device, settings.compute.dtype, settings.compute.matmul)
        device.set_threads(settings.compute.threads)
        self.loop = PlainLoop.load(planning.find(model, settings), settings, self.device)
        self.decode = self.loop.decode
        self.encode = self.loop.encode

    def chunks(self, ids: list[int]) -> Iterator[dict[str, Any]]:
        before = self.loop.clock.seconds
        for tokens, nll, seconds in self.loop.score(ids):
            yield {"tokens": tokens, "nll": nll, "seconds": seconds, "phases": _since(before, self.loop.clock.seconds)}
            before = self.loop.clock.seconds


class _RuntimeLoop:
    def __init__(self, model: str, settings: Settings) -> None:
        import edge

        self.runtime = edge.load(model, settings=settings)
        self.settings = self.runtime.plan.settings
        self.device = self.runtime.base.device
        self.session = self.runtime.session()
        self.encode = self.runtime.base.encode

    def chunks(self, ids: list[int]) -> Iterator[dict[str, Any]]:
        learner = self.session.learner
        before = learner.clock.seconds if learner else {}
        for chunk in self.session.score_ids(ids, with_base=False):
            phases = {"score": chunk.score_seconds, **_since(before, learner.clock.seconds if learner else {})}
            if learner is None:
                phases["score"] = chunk.seconds
            nll = chunk.base_nll if chunk.adapter_nll is None else chunk.adapter_nll
            yield {"tokens": chunk.tokens, "nll": nll, "seconds": chunk.seconds, "phases": phases}
            before = learner.clock.seconds if learner else {}

    def decode(self, ids: list[int], tokens: int) -> float:
        import time

        import torch

        forward = self.session.forward
        logits, cache = forward.prefill(torch.tensor(ids))
        for _ in range(2):  # both ways are compared; then, on a GPU, what is captured is captured
            logits = forward.decode(int(logits.argmax()), cache)
        start = time.perf_counter()
        for _ in range(tokens):
            logits = forward.decode(int(logits.argmax()), cache)
        float(logits[0])
        return tokens / (time.perf_counter() - start)


def _since(before: dict[str, float], now: dict[str, float]) -> dict[str, float]:
    return {phase: value - before.get(phase, 0.0) for phase, value in now.items()}
