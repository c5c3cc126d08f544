"""templora: read, score and write texts far longer than a model's window, on a 4-bit base.

    import edge

    runtime = edge.load("demo", preset="quick")
    with runtime.session() as session:
        for chunk in session.score(text):
            print(chunk.start, chunk.base_nll, chunk.adapter_nll)

Public names are those in `__all__`; importing the package does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import (
    BudgetError,
    DeviceError,
    ExportError,
    InputError,
    Interrupted,
    JournalError,
    ModelError,
    OutcomeError,
    SettingsError,
    StorageError,
    TemploraError,
)
from .records import ChunkRead, ChunkScore, ChunkWritten, Learned, TextPiece, perplexity

if TYPE_CHECKING:
    from .runtime import Runtime, load
    from .session import Session
    from .settings import Settings

__version__ = "0.1.0"

__all__ = [
    "BudgetError",
    "ChunkRead",
    "ChunkScore",
    "ChunkWritten",
    "DeviceError",
    "ExportError",
    "InputError",
    "Interrupted",
    "JournalError",
    "Learned",
    "ModelError",
    "OutcomeError",
    "Runtime",
    "Session",
    "Settings",
    "SettingsError",
    "StorageError",
    "TemploraError",
    "TextPiece",
    "__version__",
    "load",
    "perplexity",
]


def __getattr__(name: str) -> Any:
    if name == "Settings":
        from .settings import Settings

        return Settings
    if name in ("Runtime", "Session", "load"):
        from .allocator import tune_allocator

        tune_allocator()
        from . import runtime, session

        return getattr(session if name == "Session" else runtime, name)
    raise AttributeError(f"module 'edge' has no attribute '{name}'")
