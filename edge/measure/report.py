"""Records -> JSON, tables, plots.

Owns: the shape of the final JSON line, what the tables and plots show, the file of rows that a study keeps.
Does not know: where anything is printed; which paths are written to.
Units: tokens, nats, bytes, seconds; perplexity = exp(sum of nats / sum of tokens), nothing else is called so.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import StorageError
from ..journal import RunInfo
from ..memory.budget import Plan
from ..memory.prediction import CUDA_CONTEXT
from ..records import ChunkScore, Side, finite, perplexity, total
from ..settings import Settings
from ..values.amounts import format_bytes

SIDES = {"base": "4-bit base", "adapter": "with temporary LoRA", "full": "base, all read by attention"}
ROWS = 12  # of the table of perplexities by position
COLORS = {"base": "tab:gray", "adapter": "tab:blue", "full": "tab:orange"}


def score_json(chunks: Sequence[ChunkScore], seconds: float, extra: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON line of `templora score`; `seconds` are those of this process, `chunk_seconds` those of all chunks."""
    sides = {name: total(chunks, name) for name in SIDES}
    return {
        "command": "score",
        "tokens": sum(c.tokens for c in chunks),
        "seconds": seconds,
        "chunk_seconds": sum(c.seconds for c in chunks),
        "peak_bytes": max((c.peak_bytes for c in chunks), default=0),
        **{name: side.to_json() if side.tokens else None for name, side in sides.items()},
        "chunks": [chunk.to_json() for chunk in chunks],
        **extra,
    }


def gain(base: Side, adapter: Side) -> float | None:
    """How much lower the adapter's perplexity is, as a fraction of the base's."""
    if not (base.tokens and adapter.tokens):
        return None
    return finite(1 - perplexity(adapter.nll, adapter.tokens) / perplexity(base.nll, base.tokens))


def by_position(chunks: Sequence[ChunkScore]) -> list[tuple[int, int, Side, Side]]:
    """(start, end, base, adapter) for at most `ROWS` stretches of about equal length."""
    size = max(1, -(-len(chunks) // ROWS))
    groups = [chunks[i : i + size] for i in range(0, len(chunks), size)]
    return [(g[0].start, g[-1].end, total(g, "base"), total(g, "adapter")) for g in groups]


def score_table(chunks: Sequence[ChunkScore]) -> Any:
    """A rich table of both perplexities by position, with a line for the whole text."""
    from rich.table import Table

    table = Table(title="Perplexity by position", title_justify="left")
    full = any(chunk.full_nll is not None for chunk in chunks)
    for name in ("tokens", "base", *(["full attention"] if full else []), "adapter", "change", "s/chunk"):
        table.add_column(name, justify="right")

    def add(name: str, group: Sequence[ChunkScore]) -> None:
        base, *others = _cells(total(group, "base"), total(group, "adapter"))
        between = [_perplexity(total(group, "full"))] if full else []
        table.add_row(name, base, *between, *others, f"{sum(c.seconds for c in group) / max(1, len(group)):.1f}")

    for start, end, _, _ in by_position(chunks):
        add(f"{start}–{end}", [chunk for chunk in chunks if start <= chunk.start < end])
    table.add_section()
    add("whole text", chunks)
    return table


def summary(chunks: Sequence[ChunkScore], peak: int) -> str:
    """Bits per byte, speed, memory and the guard's interventions, in one line; the seconds are those of all chunks,
    whichever process scored them.
    """
    tokens = sum(c.tokens for c in chunks)
    seconds = sum(c.seconds for c in chunks)
    parts = []
    for name in SIDES:
        bits = total(chunks, name).to_json()["bits_per_byte"]
        if bits is not None:
            parts.append(f"{'full attention' if name == 'full' else name} {bits:.3f} bits/byte")
    parts.append(f"{tokens} tokens in {seconds:.0f} s ({tokens / max(seconds, 1e-9):.0f} tokens/s)")
    parts.append(f"peak memory {format_bytes(peak)}")
    undone = sum(1 for c in chunks if c.learned and not c.learned.kept)
    if undone:
        parts.append(f"{undone} updates rolled back")
    return ", ".join(parts)


def plan_table(plan: Plan) -> Any:
    """A rich table: every term of every phase in MB, the highest phase marked."""
    from rich.table import Table

    prediction = plan.prediction
    table = Table(title=f"Predicted memory, MB ({plan.shape.architecture}, {plan.machine.kind})", title_justify="left")
    table.add_column("term")
    for phase in prediction.phases:
        table.add_column(phase + (" ←" if phase == prediction.highest else ""), justify="right")
    names = list(dict.fromkeys(name for terms in prediction.phases.values() for name in terms))
    rows = [("framework baseline", [prediction.baseline] * len(prediction.phases))]
    rows += [(name, [terms.get(name, 0) for terms in prediction.phases.values()]) for name in names]
    for name, sizes in rows:
        table.add_row(name, *(f"{size / 1e6:.1f}" if size else "–" for size in sizes))
    table.add_section()
    table.add_row("peak", *(f"{prediction.peak(phase) / 1e6:.1f}" for phase in prediction.phases))
    return table


def plan_summary(plan: Plan) -> str:
    """The peak beside the budget, and what was given up, in one line."""
    has = f"{format_bytes(plan.budget)} {'budget' if plan.named else 'free, less a margin'}"
    said = f"peak {format_bytes(plan.prediction.peak())} in phase {plan.prediction.highest}, of {has}"
    if plan.machine.kind == "cuda":
        said += f"; the process's CUDA context comes beside it ({format_bytes(CUDA_CONTEXT)} on an H200)"
    if plan.settings.graph_precision:
        said += f"; a graph writes ({plan.settings.graph_precision})"
    if plan.given_up:
        said += "; given up: " + "; ".join(plan.given_up)
    if not plan.shape.exact:
        said += f"; architecture '{plan.shape.architecture}' is estimated, from above: "
        said += "its blocks are not counted one by one"
    return said


def rungs_table(plan: Plan, asked: Settings) -> Any:
    """A rich table of what memory buys: each step from the fastest plan down, its peak, and estimated seconds."""
    from rich.table import Table

    table = Table(title="What memory buys (seconds are estimated)", title_justify="left")
    table.add_column("given up, from the top")
    for name in ("peak, MB", "s/chunk", "s/token written"):
        table.add_column(name, justify="right")

    def add(said: str, rung: Plan) -> None:
        pace = rung.pace()
        written = f"{pace.token:.2g}" if pace.token else "–"
        table.add_row(said, f"{rung.prediction.peak() / 1e6:.0f}", f"{pace.chunk:.2g}", written)

    for said, rung in plan.rungs(asked):
        add(said, rung)
    table.add_section()
    add("this plan", plan)
    return table


def rungs_json(plan: Plan, asked: Settings) -> list[dict[str, Any]]:
    """The same for the JSON line: peaks in bytes, estimated seconds."""
    found = [*plan.rungs(asked), ("this plan", plan)]
    paces = [rung.pace() for _, rung in found]
    return [
        {"given_up": said, "peak": rung.prediction.peak(), "chunk_seconds": pace.chunk, "token_seconds": pace.token}
        for (said, rung), pace in zip(found, paces, strict=True)
    ]


def runs_table(runs: Sequence[RunInfo]) -> Any:
    """A rich table: one row a run."""
    from rich.table import Table

    table = Table(title="Runs", title_justify="left")
    for name in ("run", "command", "state", "done", "tokens/s", "disk"):
        table.add_column(name, justify="left" if name in ("run", "command", "state") else "right", overflow="fold")
    for run in runs:
        done = "–" if run.position is None else f"{run.position}{f' of {run.total}' if run.total else ''}"
        state = f"{run.state}: {run.reason}" if run.reason else run.state
        rate = _number(run.tokens_per_second, 1)
        table.add_row(run.folder.name, run.command, state, done, rate, format_bytes(run.bytes))
    return table


def run_json(run: RunInfo) -> dict[str, Any]:
    """A run as a JSON object; times in seconds, sizes in bytes."""
    return {
        "folder": str(run.folder),
        "command": run.command,
        "state": run.state,
        "reason": run.reason,
        "created": run.manifest.created if run.manifest else None,
        "records": run.count,
        "position": run.position,
        "total": run.total,
        "tokens": run.tokens,
        "seconds": run.seconds,
        "bytes": run.bytes,
    }


def bench_table(result: Mapping[str, Any]) -> Any:
    """A rich table of all contenders: seconds by phase, rates, memory, perplexity."""
    from rich.table import Table

    window = result["window"]
    title = f"Per chunk, Δ={window['chunk']}, W={window['size']} (medians; compared with {result['against']})"
    table = Table(title=title, title_justify="left")
    names = [
        "s/chunk",
        "faster",
        "score",
        "forward",
        "backward",
        "optimiser",
        "decode tok/s",
        "TFLOP",
        "of peak",
        "memory",
    ]
    table.add_column("contender")
    for name in (*names, "perplexity"):
        table.add_column(name, justify="right")
    for name, entry in result["contenders"].items():
        if entry["failed"]:
            table.add_row(name, entry["failed"])
            continue
        phases = [entry["phases"].get(phase) for phase in ("score", "forward", "backward", "optimiser")]
        values = [
            _number(entry["seconds_per_chunk"], 2),
            _number(entry["times_faster"], 2, "x"),
            *(_number(seconds, 2) for seconds in phases),
            _number(entry["decode_tokens_per_second"], 1),
            _number(sum(entry["flops_per_chunk"].values()) / 1e12, 2),
            _number((entry["share_of_matmul_peak"] or 0) * 100, 0, "%"),
            format_bytes(entry["peak_bytes"]),
            _number(entry["perplexity"], 2),
        ]
        table.add_row(name, *values)
    return table


def bench_plot(result: Mapping[str, Any]) -> bytes:
    """A PNG: seconds per chunk by phase, one bar a contender."""
    plots = pyplot()
    figure, axes = plots.subplots(figsize=(8, 4), layout="constrained")
    done = {name: entry for name, entry in result["contenders"].items() if not entry["failed"]}
    left = [0.0] * len(done)
    for phase in ("score", "forward", "backward", "optimiser"):
        seconds = [entry["phases"].get(phase, 0.0) for entry in done.values()]
        axes.barh(list(done), seconds, left=left, label=phase)
        left = [a + b for a, b in zip(left, seconds, strict=True)]
    window = result["window"]
    axes.set(xlabel="seconds per chunk")
    _title(axes, f"{result['model']}, Δ={window['chunk']}, W={window['size']}")
    axes.invert_yaxis()
    axes.legend()
    return _png(plots, figure)


def score_plot(chunks: Sequence[ChunkScore], title: str) -> bytes:
    """A PNG: perplexity per chunk and so far, all that was scored side by side, over the position in tokens."""
    plots = pyplot()
    figure, axes = plots.subplots(figsize=(8, 4.5), layout="constrained")
    for name, color in COLORS.items():
        running = Side()
        xs = []
        each = []
        far = []
        for chunk in chunks:
            nll = getattr(chunk, f"{name}_nll")
            if nll is None or not chunk.tokens:
                continue
            running = running.add(nll, chunk.tokens)
            xs.append(chunk.end)
            each.append(perplexity(nll, chunk.tokens))
            far.append(perplexity(running.nll, running.tokens))
        if xs:
            axes.plot(xs, each, ".", color=color, alpha=0.5)
            axes.plot(xs, far, color=color, label=f"{SIDES[name]}: {far[-1]:.1f}")
    axes.set(xlabel="position (tokens)", ylabel="perplexity (dots: chunk, line: so far)", yscale="log")
    _title(axes, title)
    axes.grid(alpha=0.3, which="both")
    if axes.lines:
        axes.legend()
    return _png(plots, figure)


def _title(axes: Any, text: str) -> None:
    """A title as it stands: no formulas between dollar signs, no characters that a font cannot have."""
    shown = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
    axes.set_title(shown, parse_math=False)


def _png(plots: Any, figure: Any) -> bytes:
    made = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a title in another script
        figure.savefig(made, dpi=120, format="png")
    plots.close(figure)
    return made.getvalue()


def _cells(base: Side, adapter: Side) -> tuple[str, str, str]:
    values = [_perplexity(side) for side in (base, adapter)]
    change = gain(base, adapter)
    return values[0], values[1], "–" if change is None else f"{-change:+.1%}"


def _perplexity(side: Side) -> str:
    return f"{perplexity(side.nll, side.tokens):.1f}" if side.tokens else "–"


def _number(value: float | None, digits: int, unit: str = "") -> str:
    return "–" if value is None else f"{value:.{digits}f}{unit}"


def pyplot() -> Any:
    """matplotlib's, without a display; loaded when something is drawn. It says nothing of its own files: a list of
    fonts that cannot be kept is made again.

    Raises:
        StorageError: it finds no folder for them at all.
    """
    logging.getLogger("matplotlib").setLevel(logging.CRITICAL)  # before it is imported: then it makes its folders
    try:
        import matplotlib
    except OSError as error:
        raise StorageError(
            "there is no folder for the list of fonts that a plot needs",
            "a HOME or TMPDIR that can be written",
            "set one",
        ) from error

    matplotlib.use("Agg")
    from matplotlib import pyplot as loaded

    return loaded
