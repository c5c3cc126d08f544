"""The `templora` command, as the shell starts it: from the first moment on Ctrl-C ends it in one line.

Owns: that what takes time is imported only when an interruption cannot become a traceback any more.
Does not know: verbs, errors, exit codes (`commands/everything.py`), how the process is ended (`commands/stopping.py`).
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing's own would have to be imported
if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code. Without `argv` this process is the command and nothing else."""
    if argv is not None:
        from .commands import everything

        return everything.run(argv)
    try:
        from .commands import stopping

        stopping.begun()
        from .commands import everything

        stopping.working()
        code = everything.run(None)
        stopping.ended(code)
        stopping.end(code)
    except KeyboardInterrupt:
        from .commands import stopping

        stopping.leave()
    return code


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    from .commands import everything

    return everything.parser()


if __name__ == "__main__":
    import sys

    sys.exit(main())
