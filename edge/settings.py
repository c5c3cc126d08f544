"""Every setting, its type and its default; presets; strict YAML; `section.key=value` overrides.

Owns: the one place where a default is written; the meaning and the range of each setting.
Does not know: whether the settings fit a machine (`memory/budget.py`), or what they do (the rooms below).
Units: tokens, bytes, and the learning rate's own.

Presets live in `configs/*.yaml`. `window` has no defaults on purpose: each preset states its own.
The values of preset `paper` are those of arXiv 2401.11504, section 4.
"""

from __future__ import annotations

import dataclasses
import os
import re
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import yaml

from . import windows
from .errors import SettingsError
from .values import strict, yamltext
from .values.amounts import parse_bytes


def _require(condition: bool, got: str, expected: str, remedy: str = "change the setting") -> None:
    if not condition:
        raise SettingsError(got, expected, remedy)


@dataclass(frozen=True)
class WindowSettings:
    """`chunk` (the paper's delta) new tokens per step, `size` (W) tokens seen by one forward.

    `sinks`: whether a window that begins in the middle of a document has the document's first tokens before it
    (`windows.py`); `off` is the published form, in which models are worse than they are.
    """

    chunk: int
    size: int
    sinks: Literal["on", "off"] = "on"

    def __post_init__(self) -> None:
        windows.check(self.chunk, self.size)

    @property
    def context(self) -> int:
        """L = W - chunk: context tokens while scoring and generating."""
        return self.size - self.chunk


@dataclass(frozen=True)
class BaseSettings:
    """How the frozen base is held: NF4 with double quantisation, or its full precision (for comparison)."""

    precision: Literal["nf4", "full"] = "nf4"
    trust_remote_code: bool = False


def group_of(kind: str) -> str:
    """`attention` or `mlp`: where linear layers of that name lie."""
    return "attention" if kind in ("q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj") else "mlp"


@dataclass(frozen=True)
class AdapterSettings:
    """The temporary LoRA (arXiv 2106.09685): y = W x + (alpha / rank) B A x, A and B in float32.

    `modules`: kinds of linear layers by their own names, or `attention` and `mlp`; none: all. `experts`, which must be
    named: each expert of a mixture gets an A and a B of its own.
    `start`: `repair` begins with what the 4-bit folder holds against quantisation's error (`learning/repair.py`),
    `fresh` with an adapter that changes nothing; `auto`: the repair where there is one.
    """

    rank: int = 64
    alpha: float = 64.0
    start: Literal["auto", "repair", "fresh"] = "auto"
    dropout: float = 0.0
    modules: tuple[str, ...] = ()
    layers: str = "all"

    def __post_init__(self) -> None:
        _require(self.rank >= 1, f"adapter.rank is {self.rank}", "at least 1")
        _require(self.alpha > 0, f"adapter.alpha is {self.alpha}", "more than 0")
        _require(0 <= self.dropout < 1, f"adapter.dropout is {self.dropout}", "0 <= dropout < 1")
        _require(
            re.fullmatch(r"all|top:[1-9]\d*", self.layers) is not None,
            f"adapter.layers is '{self.layers}'",
            "'all' or 'top:N' with N >= 1",
        )

    def takes(self, kind: str) -> bool:
        """Whether linear layers of that name, the last part of the full one, are adapted."""
        return not self.modules or kind in self.modules or group_of(kind) in self.modules

    @property
    def top(self) -> int | None:
        """N of `top:N`, or None for all layers."""
        return None if self.layers == "all" else int(self.layers.removeprefix("top:"))


@dataclass(frozen=True)
class LearnSettings:
    """How the adapter learns from one chunk (the paper's algorithm 1).

    `mode`: `all` learns from what is read and from what the model writes, `read` only from what is read.
    `prefix`: `full` lets gradients flow through the context too; `frozen` computes the context's keys and values
    without gradient; `cached` keeps those of the chunks before, made by an older adapter, so that only the chunk is
    computed; `auto`: `cached`, and `full` where a memory budget has no room for those. `deep_every`: every so many
    chunks the gradient goes down to the first block, in between only through the upper half of the blocks.
    `guard`: an update whose loss is not a number, or rises too far between `epochs`, is undone, and an adapter whose
    perplexity stays above the base's is dropped (`learning/drift.py`).
    """

    mode: Literal["all", "read", "none"] = "all"
    epochs: int = 1
    lr: float = 2e-4
    optimizer: Literal["adamw", "adamw8bit"] = "adamw"
    guard: Literal["on", "off"] = "on"
    prefix: Literal["auto", "full", "frozen", "cached"] = "auto"
    deep_every: int = 1

    def __post_init__(self) -> None:
        _require(self.epochs >= 1, f"learn.epochs is {self.epochs}", "at least 1", "use learn.mode=none to not learn")
        _require(self.lr > 0, f"learn.lr is {self.lr}", "more than 0")
        _require(self.deep_every >= 1, f"learn.deep_every is {self.deep_every}", "at least 1 (always)")

    @property
    def can_roll_back(self) -> bool:
        """Whether an update may be undone after a step was taken, and a copy of the state before it is needed.

        With one epoch the guard has all it looks at before the only step.
        """
        return self.guard == "on" and self.epochs > 1


@dataclass(frozen=True)
class GenerateSettings:
    """How tokens are chosen, and what happens to the KV cache when the adapter changes.

    `cache`: `reuse` keeps the states computed under older adapters and rebuilds them when the cache has
    grown to W (the paper's policy); `rebuild` recomputes them after every update. `lines`: units of a translation that
    are decoded side by side.
    """

    cache: Literal["reuse", "rebuild"] = "reuse"
    lines: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.12
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        _require(1 <= self.lines <= 64, f"generate.lines is {self.lines}", "1 to 64")
        _require(self.temperature >= 0, f"generate.temperature is {self.temperature}", "0 (greedy) or more")
        _require(0 < self.top_p <= 1, f"generate.top_p is {self.top_p}", "0 < top_p <= 1")
        _require(self.top_k >= 0, f"generate.top_k is {self.top_k}", "0 (off) or more")
        _require(
            self.repetition_penalty > 0, f"generate.repetition_penalty is {self.repetition_penalty}", "more than 0"
        )


@dataclass(frozen=True)
class ComputeSettings:
    """Where and how the numbers are computed; nothing here changes results beyond rounding.

    `weights`: `packed` dequantises each weight at each use; `cached` keeps dequantised copies for the session;
    `some` those of as many of the last blocks as fit, `some:N` those of the last N; `auto` is settled by the planner
    (`memory/budget.py`), like every `auto` here.
    `matmul`: what float32 matmuls of many rows round their operands to on a CPU; sums are float32. `auto`: bfloat16
    where there are AMX units for it (`machine/device.py`), as a GPU's compute dtype is.
    `checkpointing`: keep one activation per block and recompute the rest in the backward pass.
    `paging`: what is kept outside the device's memory, in CPU memory for a GPU and in a file for a CPU: `guard` the
    copy that the guard rolls back to, `cache` also the KV cache while learning, `all` also the optimiser's state.
    `heap`: on a CPU, whether freed memory goes back to the system (`return`) or is kept for the next chunk (`keep`):
    faster, and more of it.
    `loss_slice`: label positions that meet the head at a time; 0 lets the planner choose.
    `plain`: what is computed in the plain way that the fast one is tested against: `loss` holds the full logits, `lora`
    is peft's own forward, `first_epoch` scores a chunk and learns it in two forwards, `step` decodes with the model's
    own forward, `graph` records no step on a GPU, `kernel` does without kernels of ours there, `drafts` decodes
    one token after the other, without looking up what may come next.
    """

    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    matmul: Literal["auto", "float32", "bfloat16"] = "auto"
    threads: int = 0
    weights: str = "auto"
    checkpointing: Literal["auto", "on", "off"] = "auto"
    paging: Literal["auto", "off", "guard", "cache", "all"] = "auto"
    heap: Literal["auto", "keep", "return"] = "auto"
    loss_slice: int = 0
    plain: tuple[str, ...] = ()

    PLAIN: ClassVar[tuple[str, ...]] = ("loss", "lora", "first_epoch", "step", "graph", "kernel", "drafts")

    def __post_init__(self) -> None:
        wanted = "0 (all cores, or OMP_NUM_THREADS) to 1024"  # OpenMP ends a process that the system gives fewer
        _require(0 <= self.threads <= 1024, f"compute.threads is {self.threads}", wanted)
        known = re.fullmatch(r"auto|packed|cached|some(:[1-9]\d{0,5})?", self.weights) is not None
        wanted = "auto, packed, cached, some, or some:N with N blocks"
        _require(known, f"compute.weights is '{self.weights}'", wanted)
        _require(self.loss_slice >= 0, f"compute.loss_slice is {self.loss_slice}", "0 (automatic) or more")
        for name in self.plain:
            _require(
                name in self.PLAIN,
                f"compute.plain names '{name}'",
                "some of " + ", ".join(self.PLAIN),
                "correct the name",
            )

    @property
    def copied(self) -> int | None:
        """Of how many of the last blocks dequantised copies are kept; None for all, or for as many as fit."""
        if self.weights in ("cached", "some"):
            return None
        return int(self.weights.removeprefix("some:")) if self.weights.startswith("some:") else 0


@dataclass(frozen=True)
class OnnxSettings:
    """The graph that writes with `forward: mixed`, and scores too with `forward: onnx`; the learner stays with torch.

    `graph`: a folder made by `templora export`; empty: one in the cache, made once for a base and a precision.
    `precision`: of the graph that is made: `nf4` and `fp32` give the torch path's numbers; `int8` is
    faster and rounds; `int4` is smaller and rounds more: what either costs is measured when it is made, in nats. `auto`
    is `int8` where the graph only writes, within 0.02 nats, and `nf4` where it scores.
    """

    PRECISIONS: ClassVar[tuple[str, ...]] = ("nf4", "fp32", "int8", "int4")
    ROUNDING: ClassVar[tuple[str, ...]] = ("int8", "int4")

    graph: str = ""
    precision: Literal["auto", "nf4", "fp32", "int8", "int4"] = "auto"


@dataclass(frozen=True)
class Settings:
    """All settings of a run. Frozen: a changed setting is a new object.

    `forward`: what computes: `torch` everything; `mixed` a graph writes, torch scores and learns; `onnx` a graph scores
    too. `auto`: where text is written `mixed`, if that pays on this machine (`memory/paths.py`); else `torch`.
    `seed`: of a fresh adapter, of dropout, and of what is sampled.
    """

    window: WindowSettings
    base: BaseSettings = field(default_factory=BaseSettings)
    adapter: AdapterSettings = field(default_factory=AdapterSettings)
    learn: LearnSettings = field(default_factory=LearnSettings)
    generate: GenerateSettings = field(default_factory=GenerateSettings)
    compute: ComputeSettings = field(default_factory=ComputeSettings)
    forward: Literal["auto", "torch", "mixed", "onnx"] = "auto"
    onnx: OnnxSettings = field(default_factory=OnnxSettings)
    seed: int = 0
    budget: int | None = None

    @property
    def lessons_score(self) -> bool:
        """Whether a lesson's first forward is a score as well: no dropout."""
        return self.adapter.dropout == 0 and "first_epoch" not in self.compute.plain

    @property
    def fuses(self) -> bool:
        """Whether the first epoch's forward may serve as the score: `lessons_score`, and the same forward path."""
        return self.forward != "onnx" and self.lessons_score

    @property
    def graph_precision(self) -> str:
        """Of the graph that writes; empty where none does."""
        if self.forward not in ("mixed", "onnx"):
            return ""
        usual = "int8" if self.forward == "mixed" else "nf4"
        return usual if self.onnx.precision == "auto" else self.onnx.precision

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values; `from_dict` reads them back."""
        return typing.cast(dict[str, Any], _plain(dataclasses.asdict(self)))

    def override(self, assignments: Sequence[str]) -> Settings:
        """New settings with `section.key=value` assignments applied, values in YAML syntax.

        Raises:
            SettingsError: no '=', an unknown key, or a value of the wrong type or range.
        """
        data = self.to_dict()
        for assignment in assignments:
            key, equals, text = assignment.partition("=")
            _require(bool(equals), f"--set '{assignment}'", "section.key=value", "for example --set learn.lr=1e-4")
            try:
                value = yamltext.load(text)
            except yaml.YAMLError:
                value = text
            section, dot, name = key.strip().partition(".")
            if dot and isinstance(data.get(section), dict):
                data[section][name] = value
            else:
                data[key.strip()] = value
        return from_dict(data, source="--set")


# --- presets ---


def presets_folder() -> Path:
    """Where the shipped presets are: beside the package when installed, at the top level of a checkout."""
    here = Path(__file__).resolve().parent
    installed = here / "configs"
    return installed if installed.is_dir() else here.parent / "configs"


def preset_names() -> list[str]:
    """Names of the shipped presets."""
    return sorted(path.stem for path in presets_folder().glob("*.yaml"))


def load(preset: str | Path = "economical", overrides: Sequence[str] = ()) -> Settings:
    """Settings from a preset's name or a YAML file, then `section.key=value` overrides.

    Raises:
        SettingsError: the preset is not known, or anything in it is not valid.
    """
    name = str(preset)
    path = Path(name) if name.endswith((".yaml", ".yml")) or "/" in name else presets_folder() / f"{name}.yaml"
    if not os.path.isfile(path):
        raise SettingsError(
            f"there is no preset '{name}'",
            "one of " + ", ".join(preset_names()) + ", or a .yaml file",
            strict.suggest(name, preset_names()) or "check the name or the path",
        )
    try:
        data = yamltext.read(path)
    except (yaml.YAMLError, UnicodeDecodeError, OSError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise SettingsError(f"{path} is not readable YAML{where}", "a preset file", "correct the file") from error
    if not isinstance(data, dict):
        raise SettingsError(
            f"{path} holds {strict.name_of(data)}", "a mapping of sections", "see configs/economical.yaml"
        )
    data.pop("description", None)
    return from_dict(data, source=str(path)).override(overrides)


def description(preset: str) -> str:
    """The one-line description that a shipped preset gives of itself."""
    data = yamltext.read(presets_folder() / f"{preset}.yaml")
    return str(data.get("description", ""))


NO_GAIN = "gained nothing in any measurement"
FIXED = "has one good value, and is fixed at it"
REMOVED = {  # earlier settings, and why each is none any more
    "adapter.scaling": "adapter.alpha says the same",
    "learn.context": "a lesson sees what a score sees",
    **dict.fromkeys(
        ("learn.lr_ratio", "learn.lr_decay", "learn.replay", "learn.skip_below", "learn.min_gain",
         "learn.weight_decay"),
        NO_GAIN,
    ),
    **dict.fromkeys(
        ("learn.betas", "learn.eps", "learn.max_grad_norm", "learn.guard_factor", "learn.min_tokens",
         "learn.min_novelty", "learn.drift_chunks", "learn.drift_every", "learn.warmup_steps", "learn.own_lr"),
        FIXED,
    ),
    "learn.drift_margin": "learn.guard=off drops no adapter, as 0 did",
    **dict.fromkeys(("learn.seed", "generate.seed"), "seed is one for all"),
    "base.offline": "--offline, or TEMPLORA_OFFLINE=1 in the environment, says it",
    "onnx.provider": "compute.device decides it",
    "compute.kept": "compute.weights=some:N says it",
    "generate.read": "a prompt that is longer than the context is read, a shorter one is seen whole",
    "compute.loss": "compute.plain=[loss] is what `plain` was",
    "compute.lora": "compute.plain=[lora] is what `plain` was",
    "compute.fuse_first_epoch": "compute.plain=[first_epoch] is what `false` was",
}  # fmt: skip


def from_dict(data: Mapping[str, Any], *, source: str = "settings") -> Settings:
    """Settings from plain values; unknown keys and wrong types are refused, and so is what was a setting once.

    Raises:
        SettingsError: naming the key, what it held and what it should hold.
    """
    for section, values in data.items():
        for name in values if isinstance(values, Mapping) else ():
            key = f"{section}.{name}"
            if key in REMOVED:
                raise SettingsError(f"{source}: {key}", f"no such setting any more: {REMOVED[key]}", "remove it")
    return typing.cast(Settings, strict.build(Settings, data, source, {"budget": parse_bytes}))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
