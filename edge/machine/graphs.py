"""Work on a GPU that is recorded once and started again with one call.

Owns: CUDA graphs. Does not know: what is recorded.
Units: seconds. torch is imported inside functions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

REPLAYS = 3  # of which the fastest counts
WARM_UPS = 2  # runs before the capture: libraries choose their kernels and make their workspaces in them
_streams: dict[int, Any] = {}  # one of each GPU: cuBLAS makes a workspace for every stream, 32 MiB of it on an H100


class Captured:
    """A function of no arguments whose kernels are recorded: its inputs and outputs stay at their addresses.

    What it allocates lies in a pool of its own, as long as this object lives.
    """

    def __init__(self, run: Callable[[], Any]) -> None:
        """Runs it three times, the last time to be recorded; the caller sees to it that this changes nothing."""
        import torch

        device = torch.cuda.current_device()
        if device not in _streams:
            _streams[device] = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream = _streams[device]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # left again also where a capture fails, which `torch.cuda.graph` does not
            for _ in range(WARM_UPS):
                run()
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph, stream=stream):
                self._out = run()
        torch.cuda.current_stream().wait_stream(stream)

    def replay(self) -> Tensor:
        """Starts the kernels again; what the function returned, valid until the next replay."""
        self._graph.replay()
        out: Tensor = self._out
        return out


def seconds_of(run: Callable[[], object]) -> float:
    """What the GPU takes for the kernels that `run` starts, without the time that starting them takes."""
    import torch

    recorded = Captured(run)
    best = float("inf")
    for _ in range(REPLAYS):
        before: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        after: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        before.record()
        recorded.replay()
        after.record()
        after.synchronize()
        best = min(best, before.elapsed_time(after) / 1000)
    return best
