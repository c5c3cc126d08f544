"""Where a session's forward path on a graph comes from: a folder that the user names, or one in the cache, made once.

Owns: the cache of exports, one engine for all sessions of a runtime.
Does not know: graphs, arguments.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from edge import journal
from edge.errors import ExportError
from edge.model.adapter import Adapter
from edge.model.base import Base
from edge.model.forward import Opener, TorchForward
from edge.settings import OnnxSettings, Settings
from edge.store import sources

from . import check, exporter, manifest, sharing
from .engine import Engine, choose
from .runtime import MixedForward, OnnxForward


def opener(base: Base, settings: Settings) -> Opener:
    """What `edge` calls for `forward: onnx` and `forward: mixed`.

    Raises:
        ExportError: the named graph is damaged or of another base, or none can be made.
        DeviceError: the provider is not there.
    """
    onnx = settings.onnx
    provider = "cpu" if base.device.kind == "cpu" else "auto"
    folder = Path(onnx.graph) if onnx.graph else cached(base, settings, choose(provider, base.device.kind))
    engine = Engine(
        folder,
        provider=provider,
        threads=settings.compute.threads,
        fingerprint=base.fingerprint(),
        share=partial(sharing.share, base),
    )

    def open_path(adapter: Adapter | None) -> OnnxForward:
        if settings.forward == "mixed":
            path: OnnxForward = MixedForward(engine, adapter, TorchForward(base, adapter, settings.compute))
        else:
            path = OnnxForward(engine, adapter)
        path.settle(settings.compute)
        return path

    return open_path


def cached(base: Base, settings: Settings, device: str) -> Path:
    """The export of a base in the cache; made where it is not there yet.

    Raises:
        ExportError: it rounds more than a graph may that nobody named.
    """
    precision = settings.graph_precision
    folder = sources.export_folder(base.fingerprint(), precision, device)
    if not sources.is_exported(folder):
        with journal.making(folder):
            if not sources.is_exported(folder):  # no other process made it meanwhile
                exporter.export(base, folder, precision, device)
                sources.sweep_exports(folder)
    unnamed = settings.onnx.precision == "auto" and precision in OnnxSettings.ROUNDING
    if unnamed and (nats := manifest.read(folder).parity["nats"]) > check.NATS:
        raise ExportError(
            f"a graph in {precision} needs {nats:.3f} nats a token more than its base", f"at most {check.NATS}",
            f"onnx.precision={precision} uses it all the same",
        )  # fmt: skip
    return folder
