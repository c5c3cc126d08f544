"""What people see while a command runs: progress and messages on standard error, tables on standard output.

Owns: the look of both. Does not know: what is computed. Used by the command line alone.
"""

from __future__ import annotations

import signal
import sys
import time
from typing import Any

from .errors import Interrupted


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
        self.began: tuple[float, int] | None = None

    def __enter__(self) -> Progress:
        return self

    def __call__(self, position: int | None, note: str = "") -> None:
        if self.bar is None:
            if position is not None and time.monotonic() - self.said > 10:
                self.said = time.monotonic()
                say(
                    ", ".join(
                        [f"{self.what}: {position} of {self.total} {self.unit}", *self._remaining(position), note]
                    ).rstrip(", ")
                )
            return
        if position is None:
            self.bar.stop()
            return
        if self.task is None:
            self.bar.start()
            self.task = self.bar.add_task(self.what, total=self.total)
        self.bar.update(self.task, completed=position, description=f"{self.what} {note}".strip())

    def _remaining(self, position: int) -> list[str]:
        """The time that is left, from the second call on."""
        now = time.monotonic()
        self.began = self.began or (now, position)
        began, first = self.began
        if position <= first:
            return []
        left = (now - began) * (self.total - position) / (position - first)
        return [f"{int(left // 3600)}:{int(left // 60 % 60):02d}:{int(left % 60):02d} left"]

    def __exit__(self, *args: object) -> None:
        if self.bar is not None:
            self.bar.stop()


class Stop:
    """Inside the block Ctrl-C and SIGTERM ask for an end at the next consistent point; the second one does not wait.

    Attributes:
        asked: whether one came.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: list[Any] = []

    def __enter__(self) -> Stop:
        self._before = [signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)]
        return self

    def __exit__(self, *args: object) -> None:
        for number, handler in zip((signal.SIGINT, signal.SIGTERM), self._before, strict=True):
            signal.signal(number, handler)

    def _handle(self, number: int, frame: Any) -> None:
        if self.asked:
            raise Interrupted
        self.asked = True
        say("stopping after this step; once more stops at once")


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
