"""`templora` commands and scripts in processes of their own, without the seconds of imports that each would begin with.

One process per worker of the suite imports everything and waits. A command is a fork of it, that takes over the arguments,
the environment, the standard streams and the exit code of one; a signal, SIGKILL too, hits it alone. What depends on how
a process begins (imports, early interruptions, closed streams, memory) starts one of its own instead. Forks hash strings
alike: of runs that must agree, one begins `anew`.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parent.parent
_SUBREAPER = 36  # prctl: whoever loses its parent below this process becomes its child
_LARGEST = 1 << 20  # bytes of a request
_SERVER = "import sys; sys.path.insert(0, sys.argv[2]); from tests import commands; commands.serve(int(sys.argv[1]))"


class Command:
    """A command that runs, as `subprocess.Popen` would show it.

    Attributes:
        stdout, stderr: files, to be read from the beginning at any time.
    """

    def __init__(self, args: Sequence[str], script: Path | None = None, *, anew: bool = False) -> None:
        """`script`: what is run; `templora` where none is named. `anew`: as a process of its own, and no fork."""
        self.stdout: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the object
        self.stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self.returncode: int | None = None
        self._own: subprocess.Popen[bytes] | None = None
        if anew:
            command = [sys.executable, *([str(script)] if script else ["-m", "edge.cli"]), *args]
            self._own = subprocess.Popen(command, stdout=self.stdout, stderr=self.stderr)
            self.pid = self._own.pid
            return
        asked = {"words": [str(script or "templora"), *args], "env": dict(os.environ), "cwd": os.getcwd()}
        request = json.dumps(asked | {"script": script is not None}).encode()
        server = _server()
        socket.send_fds(server, [request], [self.stdout.fileno(), self.stderr.fileno()])
        self.pid = int(server.recv(100))

    def poll(self) -> int | None:
        """The exit code, or minus the signal; None while it runs."""
        if self._own is not None:
            self.returncode = self._own.poll()
        elif self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, timeout: float = 600) -> int:
        """The same, at its end."""
        end = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                self.kill()
                raise subprocess.TimeoutExpired("templora", timeout)
            time.sleep(0.01)
        return code

    def communicate(self, timeout: float = 600) -> tuple[bytes, bytes]:
        """All of its output and its errors, at its end."""
        self.wait(timeout)
        return _all(self.stdout), _all(self.stderr)

    def line(self, file: IO[bytes], timeout: float = 60) -> bytes:
        """The first line of its output or its errors, once it is whole."""
        end = time.monotonic() + timeout
        ended = False
        while b"\n" not in (said := _all(file)):
            assert not ended and time.monotonic() < end, said
            ended = self.poll() is not None
            time.sleep(0.005)
        return said.partition(b"\n")[0]

    def send_signal(self, number: int) -> None:
        """Nothing where it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


def script(name: str, *args: str, code: int = 0) -> tuple[str, str]:
    """Output and errors of one of the project's scripts, which ends with that exit code."""
    command = Command(args, ROOT / name)
    out, err = (said.decode() for said in command.communicate())
    assert command.returncode == code, err
    return out, err


def _all(file: IO[bytes]) -> bytes:
    return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0)


@cache
def _server() -> socket.socket:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    assert ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0) == 0
    command = [sys.executable, "-c", _SERVER, str(theirs.fileno()), str(ROOT)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    subprocess.Popen(command, env=env, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
    theirs.close()
    ours.settimeout(120)
    return ours


# --- in the process that waits ---


def serve(number: int) -> None:
    """Forks a command for each request, until nobody can ask any more."""
    import edge.commands.everything
    from edge.machine import allocator
    from edge.translation import languages
    from edge.weights import libraries

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    allocator.own_process()
    libraries.load()
    edge.commands.everything.parser()
    for later in ("edge.session", "edge.measure.report", "edge.translation.decoding", "edge.translation.lessons"):
        importlib.import_module(later)
    for family in ("gemma3", "llama", "qwen3"):
        importlib.import_module(f"transformers.models.{family}.modeling_{family}")
    languages._identifier()
    gc.freeze()
    with socket.socket(fileno=number) as asked:
        while True:
            request, files, _, _ = socket.recv_fds(asked, _LARGEST, 2)
            if not request:
                return
            said, says = os.pipe()
            between = os.fork()
            if not between:
                # its child is nobody's when it ends, and so the one's that asked
                if child := os.fork():
                    os.write(says, str(child).encode())
                    os._exit(0)
                asked.close()
                os.close(said)
                os.close(says)
                _become(json.loads(request), files)
            os.close(says)
            os.waitpid(between, 0)
            asked.send(os.read(said, 100))
            for file in (said, *files):
                os.close(file)


def _become(request: dict[str, Any], files: Sequence[int]) -> None:
    """This process is the command from now on."""
    from edge import cli

    code = 70
    try:
        for file, number in zip(files, (1, 2), strict=True):
            os.dup2(file, number)
            os.close(file)
        os.environ.clear()
        os.environ.update(request["env"])
        os.chdir(request["cwd"])
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.argv = request["words"]
        if request["script"]:
            runpy.run_path(sys.argv[0], run_name="__main__")
            code = 0
        else:
            code = cli.main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
