"""templora: read, score and write texts far longer than a model's window, on a 4-bit base.

    import edge

    runtime = edge.load("demo", preset="quick")
    with runtime.session() as session:
        for chunk in session.score(text):
            print(chunk.start, chunk.base_nll, chunk.adapter_nll)

Public names are those in `__all__`; importing the package does not import torch.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing's own would have to be imported, before the command is ready for an interruption
if TYPE_CHECKING:
    from typing import Any

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
    from .session import Runtime, Session, load
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


_ROOMS = {"settings": ("Settings",), "session": ("Runtime", "Session", "load")}
_RECORDS = ("ChunkRead", "ChunkScore", "ChunkWritten", "Learned", "TextPiece", "perplexity")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'edge' has no attribute '{name}'")
    import importlib

    room = "records" if name in _RECORDS else "errors"
    room = next((named for named, names in _ROOMS.items() if name in names), room)
    if room == "session":
        from .machine import versions
        from .machine.allocator import importing
        from .store import modelnames

        versions.require()
        modelnames.keep()
        with importing():
            importlib.import_module(".session", __name__)
    return getattr(importlib.import_module(f".{room}", __name__), name)
