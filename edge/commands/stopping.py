"""Ctrl-C and SIGTERM while no run is continuing: one line, and the exit code of a stop.

Owns: when an interruption is an exception, and when it ends the process at once.
Does not know: what an interruption does to a run (`terminal.Stop`).

During the work an interruption is an exception. Before and after it nobody would catch that, and the user would see a
traceback. While modules are imported, the import system may lose it, and a library may turn it into an error. There the
process ends at once. This module imports little, and `cli.py` imports nothing before it.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import Any, NoReturn

STOPPED = 130
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def leave(number: int = 0, frame: FrameType | None = None) -> NoReturn:
    """Ends the process at once: what was written is as after SIGKILL."""
    import os

    try:
        os.write(2, b"stopped\n")
    finally:
        os._exit(STOPPED)


def interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """Interrupted where it can be caught; while a module is imported, the end."""
    from ..errors import Interrupted

    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            leave()
        frame = frame.f_back
    raise Interrupted


def begun() -> None:
    """For a process that is the command and nothing else: until the work begins, an interruption is the end."""
    for number in SIGNALS:
        signal.signal(number, leave)


def working() -> None:
    """From now on an interruption can be caught, and none is lost in `__del__` or a callback."""
    before = sys.unraisablehook

    def raised_where_nobody_catches(found: Any) -> None:
        if issubclass(found.exc_type, KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, 0.01)  # once more, a moment later, where it may be caught
        else:
            before(found)

    sys.unraisablehook = raised_where_nobody_catches
    for number in (*SIGNALS, signal.SIGALRM):
        signal.signal(number, interrupt)


def ended(code: int) -> None:
    """All is done: what is left is Python's own end, and can be left out."""

    def at_once(number: int, frame: FrameType | None) -> NoReturn:
        import os

        os._exit(code)

    for number in SIGNALS:
        signal.signal(number, at_once)


def end(code: int) -> None:
    """Ends the process after its exit functions; the system takes down the rest at once, Python in a third of a second.

    Returns where that is Python's own business: a thread still works, somebody measures what is called, or what was
    printed cannot be handed on.
    """
    import atexit
    import os
    import threading

    others = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
    if all(thread.daemon for thread in others) and not _is_measured():
        atexit._run_exitfuncs()
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except (OSError, ValueError, AttributeError):  # closed, or none
            return
        _flush_c()
        os._exit(code)


def _is_measured() -> bool:
    """Whether a profiler, a debugger or a measurer of coverage is at work: it writes what it found at Python's end."""
    monitoring: Any = getattr(sys, "monitoring", None)  # from Python 3.12 on; there cProfile and coverage use it
    tools = () if monitoring is None else (monitoring.get_tool(number) for number in range(6))
    return sys.getprofile() is not None or sys.gettrace() is not None or any(tools)


def _flush_c() -> None:
    """Hands on what libraries written in C have printed, as their own end would."""
    import ctypes

    try:
        ctypes.CDLL(None).fflush(None)
    except (OSError, TypeError, AttributeError):  # no C library that can be asked
        pass
