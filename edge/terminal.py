"""What people see while a command runs: progress and messages on standard error, tables on standard output.

Owns: the look of both; that nothing in a text, a name or a model's words is obeyed by the terminal or read as markup;
that a stream which is closed, broken or full ends printing and nothing else.
Does not know: what is computed. Used by the command line alone.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any

from .errors import Interrupted, describe

# C0 but tab and newline, DEL, C1: what a terminal obeys; halves of characters: what a stream cannot write.
_OBEYED = re.compile("\r(?!\n)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_LINE = re.compile("[\t\n\r\u2028\u2029\u202a-\u202e\u2066-\u2069]")  # what would end or turn round a line


def harmless(text: str) -> str:
    """`text` with what a terminal would obey, or a stream could not write, as JSON writes it: \\u001b, ..."""
    return _OBEYED.sub(_written_out, text)


def one_line(text: str) -> str:
    """`harmless`, and nothing in it ends the line or turns the direction of writing."""
    return _LINE.sub(_written_out, harmless(text))


def _written_out(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


class Printed:
    """Standard output or error, as commands may use it: text is made harmless, and no write ever fails.

    The first write that does fail says so on standard error, unless a reader merely went away, and ends printing.

    Attributes:
        trusted: the same stream for what may style itself.
    """

    def __init__(self, stream: Any, *, trust: bool = False) -> None:
        self._stream = stream
        self._trust = trust
        self._ended = False
        self.trusted = self if trust else Printed(stream, trust=True)

    def write(self, text: str) -> int:
        """Writes what can be written."""
        self._try(self._stream.write, self._encodable(text if self._trust else harmless(text)))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Writes each."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Hands over what is buffered, where there is somebody to take it."""
        self._try(self._stream.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _encodable(self, text: str) -> str:
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        try:
            return text.encode(encoding, "backslashreplace").decode(encoding)
        except (LookupError, UnicodeError):
            return text.encode("ascii", "backslashreplace").decode("ascii")

    def _try(self, call: Any, *args: Any) -> None:
        if self._ended:
            return
        try:
            call(*args)
        except (OSError, ValueError) as error:  # ValueError: the stream was closed
            self._ended = True
            with contextlib.suppress(OSError, ValueError):  # what is buffered goes nowhere, also when Python ends
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)
            if getattr(error, "errno", None) != errno.EPIPE and self._stream is not getattr(sys.stderr, "_stream", 0):
                say(f"note: nothing more can be printed ({describe(error)}); the work continues")


@contextlib.contextmanager
def streams() -> Iterator[None]:
    """Inside the block standard output and error are `Printed`, and all three streams are there."""
    for number in range(3):  # a file that is opened must not get the number of a stream
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (Printed(stream or open(os.devnull, "w")) for stream in before)  # noqa: SIM115
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before


def _trusted(stream: Any) -> Any:
    return getattr(stream, "trusted", stream)


def console() -> Any:
    """Where progress is shown; nothing is read as markup."""
    from rich.console import Console

    return Console(file=_trusted(sys.stderr), markup=False, emoji=False, highlight=False)


def working(line: str) -> Any:
    """A context manager that shows `line` while something runs; nothing where there is no terminal."""
    from rich.text import Text

    out = console()
    return out.status(Text(one_line(line))) if out.is_terminal else contextlib.nullcontext()


def print_table(table: Any) -> None:
    """Prints a rich table; nothing in its cells is read as markup or obeyed."""
    from rich.console import Console
    from rich.segment import Segment, Segments

    width = None if sys.stdout.isatty() else 160
    out = Console(file=_trusted(sys.stdout), width=width, markup=False, emoji=False, highlight=False)
    parts = [part if part.control else Segment(harmless(part.text), part.style) for part in out.render(table)]
    out.print(Segments(parts), end="", crop=False)


class Progress:
    """Progress over tokens on standard error: a bar on a terminal, else a line every ten seconds.

    Call it with the position, or with None to take the bar away.
    """

    def __init__(self, what: str, total: int | None, unit: str = "tokens") -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        out = console()
        self.bar = Progress(*columns, console=out, transient=True) if out.is_terminal else None
        self.what = what
        self.total = total
        self.unit = unit
        self.task: Any = None
        self.said = 0.0
        self.began: tuple[float, int] | None = None

    def __enter__(self) -> Progress:
        return self

    def __call__(self, position: int | None, note: str = "") -> None:
        if self.bar is None:
            if position is not None and time.monotonic() - self.said > 10:
                self.said = time.monotonic()
                of = "" if self.total is None else f" of {self.total}"
                line = [f"{self.what}: {position}{of} {self.unit}", *self._remaining(position), note]
                say(", ".join(line).rstrip(", "))
            return
        if position is None:
            self.bar.stop()
            return
        if self.task is None:
            self.bar.start()
            # what was there before this process takes none of its time
            self.task = self.bar.add_task(self.what, total=self.total, completed=position)
        self.bar.update(self.task, completed=position, description=f"{self.what} {note}".strip())

    def above(self, line: str) -> None:
        """Shows the beginning of `line` above the bar, to stay there; nothing where there is no terminal."""
        if self.bar is not None:
            from rich.text import Text

            self.bar.console.print(Text(one_line(line)), no_wrap=True, overflow="ellipsis", crop=True)

    def _remaining(self, position: int) -> list[str]:
        """The time that is left, from the second call on."""
        now = time.monotonic()
        self.began = self.began or (now, position)
        began, first = self.began
        if self.total is None or position <= first:
            return []
        left = (now - began) * (self.total - position) / (position - first)
        return [f"{int(left // 3600)}:{int(left // 60 % 60):02d}:{int(left % 60):02d} left"]

    def __exit__(self, *args: object) -> None:
        if self.bar is not None:
            self.bar.stop()


class Converting:
    """Progress in bytes while a model is converted to 4 bits; nothing where none is.

    Args:
        status: what `working` shows meanwhile; only one of the two is shown at a time.
    """

    def __init__(self, model: str, status: Any = None) -> None:
        self._progress = Progress(f"converting {model} to 4 bits, once", None, "bytes")
        self._status = status

    def __enter__(self) -> Converting:
        return self

    def __call__(self, done: int, total: int) -> None:
        if self._status is not None and self._progress.total is None:
            self._status.stop()
        self._progress.total = total
        self._progress(done)
        if done == total:
            self._progress(None)

    def __exit__(self, *args: object) -> None:
        self._progress.__exit__(*args)


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
    """One line on standard error."""
    print(one_line(line), file=sys.stderr, flush=True)
