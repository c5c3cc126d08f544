"""Learned metrics by the path of their checkpoint: COMET and MetricX.

Owns: which of them a path is. Does not know: their architectures.
"""

from __future__ import annotations

import json
from pathlib import Path

from ..errors import ModelError
from . import comet, metricx
from .learned import Metric


def find(path: Path) -> Metric:
    """The metric of a checkpoint that lies on this disk, looked at and not loaded.

    Raises:
        ModelError: it is none, or not whole.
    """
    if not path.exists():
        raise ModelError(f"there is no {path}", "a checkpoint of COMET or MetricX", "check the path")
    if path.is_file() or (path / comet.HPARAMS).is_file():
        return comet.find(path)
    try:
        kind = json.loads((path / "config.json").read_text("utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError, RecursionError):
        kind = None
    if kind == "mt5":
        return metricx.find(path)
    raise ModelError(
        f"{path} is neither COMET's nor MetricX's", "a folder with hparams.yaml, a .ckpt file, or an mt5 folder",
        "check the path",
    )  # fmt: skip
