"""What people see while a command runs: progress and messages on standard error, tables on standard output.

Owns: the look of both. Does not know: what is computed. Used by the command line alone.
"""

from __future__ import annotations

import sys
import time
from typing import Any


def console() -> Any:
    from rich.console import Console

    return Console(stderr=True)


def print_table(table: Any) -> None:
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 160).print(table)


class Progress:
    """Progress over tokens on standard error: a bar on a terminal, else a line every ten seconds.

    Call it with the position, or with None to take the bar away.
    """

    def __init__(self, what: str, total: int, unit: str = "tokens") -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        out = console()
        self.bar = Progress(*columns, console=out, transient=True) if out.is_terminal else None
        self.what, self.total, self.unit = what, total, unit
        self.task: Any = None
        self.said = 0.0

    def __enter__(self) -> Progress:
        return self

    def __call__(self, position: int | None) -> None:
        if self.bar is None:
            if position is not None and time.monotonic() - self.said > 10:
                self.said = time.monotonic()
                say(f"{self.what}: {position} of {self.total} {self.unit}")
            return
        if position is None:
            self.bar.stop()
            return
        if self.task is None:
            self.bar.start()
            self.task = self.bar.add_task(self.what, total=self.total)
        self.bar.update(self.task, completed=position)

    def __exit__(self, *args: object) -> None:
        if self.bar is not None:
            self.bar.stop()


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
