"""Which device, which compute dtype, which matmul units.

Owns: the choice of device and dtype by capability; clocks of its phases.
Does not know: models, settings files, memory (`held.py`).
Units: seconds, FLOP/s. torch is imported inside functions, so that a choice costs no start-up time.

Why float32 on CPUs: without AMX or AVX-512 BF16 units a bfloat16 matmul falls back to code that is hundreds of times
slower than float32 (measured: 0.3 against 170 GFLOP/s on two AVX2 cores). With AMX, matmuls of float32 numbers use its
bfloat16 units (1.4 TFLOP/s against 380 GFLOP/s on two cores), and everything between them stays float32.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DeviceError

if TYPE_CHECKING:
    import torch

MATMUL_SECONDS = 0.3  # that its measured rate takes


@dataclass(frozen=True)
class Device:
    """A device and the dtype to compute in.

    Attributes:
        kind: `cpu` or `cuda`.
        name: what torch calls it: `cpu`, `cuda:0`.
        dtype: name of the compute dtype.
        matmul: what a matmul of float32 numbers rounds its operands to: `float32`, or `bfloat16` where the CPU has
            units for it; sums and results are float32 either way.
        unified: CPU and GPU share one memory (Jetson-class boards).
    """

    kind: str
    name: str
    dtype: str
    matmul: str = "float32"
    unified: bool = False

    @property
    def units(self) -> str:
        """dtype and matmul units in words."""
        return self.dtype if self.matmul == "float32" else f"{self.dtype} with {self.matmul} matmuls"

    @property
    def torch_dtype(self) -> torch.dtype:
        """The compute dtype as torch knows it."""
        import torch

        dtype: torch.dtype = getattr(torch, self.dtype)
        return dtype


def choose(device: str = "auto", dtype: str = "auto", matmul: str = "auto") -> Device:
    """The device to run on, the compute dtype and the matmul units that it is good at.

    Raises:
        DeviceError: the device asked for is not there, or torch does not know it.
    """
    import torch

    have_cuda = torch.cuda.is_available()
    name = ("cuda" if have_cuda else "cpu") if device == "auto" else device
    kind = name.partition(":")[0]
    if kind not in ("cpu", "cuda"):
        raise DeviceError(f"device '{device}'", "auto, cpu or cuda", "use --device cpu")
    if kind == "cuda" and not have_cuda:
        raise DeviceError(
            "CUDA was asked for, but torch finds no usable GPU",
            "a CUDA build of torch and a working driver",
            "use --device cpu, or see `templora doctor`",
        )
    if kind == "cuda":
        index = name.partition(":")[2] or "0"
        if not index.isdigit() or int(index) >= torch.cuda.device_count():
            raise DeviceError(f"device '{name}'", f"cuda:0 to cuda:{torch.cuda.device_count() - 1}", "change --device")
        name = f"cuda:{int(index)}"
    if dtype == "auto":
        dtype = cuda_dtype(name) if kind == "cuda" else "float32"
    units = units_for(kind, dtype, matmul)
    return Device(kind, name, dtype, units, unified=kind == "cuda" and is_unified(name))


def make_current(device: Device) -> None:
    """Streams, graphs and kernels of this process belong to the device from now on, where it is a GPU."""
    if device.kind == "cuda":
        import torch

        torch.cuda.set_device(device.name)


def probable_kind(device: str = "auto") -> str:
    """`cpu` or `cuda`, as `choose` will find it, without importing torch: by the driver's device files."""
    if device != "auto":
        return device.partition(":")[0]
    return "cuda" if any(Path(p).exists() for p in ("/dev/nvidia0", "/dev/nvhost-gpu", "/dev/dxg")) else "cpu"


def cuda_dtype(name: str) -> str:
    """bfloat16 where the GPU has units for it (compute capability 8.0 and up), else float16."""
    import torch

    return "bfloat16" if torch.cuda.get_device_capability(name) >= (8, 0) else "float16"


def units_for(kind: str, dtype: str, matmul: str) -> str:
    """What float32 matmuls round to; there is a choice on a CPU only."""
    if kind == "cuda" or dtype != "float32":
        return "float32"
    return cpu_matmul() if matmul == "auto" else matmul


def cpu_matmul(cpuinfo: str | None = None) -> str:
    """bfloat16 only with AMX tiles for it; float32 on every other CPU."""
    flags = cpuinfo if cpuinfo is not None else text_of(Path("/proc/cpuinfo"))
    return "bfloat16" if "amx_bf16" in flags else "float32"


@contextmanager
def matmul_units(device: Device) -> Iterator[None]:
    """Inside the block float32 matmuls run on the units that the device names (torch's float32_matmul_precision).

    For products of many rows; for a single row the units gain nothing, and rounding the matrix costs time.
    """
    if device.matmul == "float32":
        yield
        return
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def is_unified(name: str) -> bool:
    """Whether the GPU shares the CPU's memory."""
    import torch

    return bool(getattr(torch.cuda.get_device_properties(name), "is_integrated", False)) or _is_tegra()


def _is_tegra() -> bool:
    return platform.machine() == "aarch64" and "tegra" in (platform.release() + text_of(Path("/etc/nv_tegra_release")))


def set_threads(count: int) -> int:
    """Sets torch's intra-op threads (0: one per core this process may use, and no more than OMP_NUM_THREADS says) and
    returns the number.
    """
    import torch

    count = count or usual_threads()
    torch.set_num_threads(count)
    return count


def usual_threads() -> int:
    """One for each core that this process may use; fewer where OMP_NUM_THREADS, which OpenMP reads, says so."""
    cores = len(os.sched_getaffinity(0))
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return min(cores, int(wanted)) if wanted.isdigit() and int(wanted) > 0 else cores


class Clock:
    """Wall time of phases that follow one another; on CUDA by events in its stream, so that nothing waits for them.

    Attributes:
        device: where the work is done.
    """

    def __init__(self, phases: Iterable[str], device: Device) -> None:
        self.device = device
        self._seconds = dict.fromkeys(phases, 0.0)
        self._open: list[tuple[str, Any, Any]] = []  # phases whose events were not looked at yet

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Adds the block's time to the phase."""
        if self.device.kind == "cuda":
            self._add(wait=False)  # or a long text would pile them up
            before = self._event()
            try:
                yield
            finally:
                self._open.append((name, before, self._event()))
            return
        start = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[name] += time.perf_counter() - start

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds spent so far in each phase; waits for what is still being done."""
        self._add(wait=True)
        return dict(self._seconds)

    def _add(self, *, wait: bool) -> None:
        """Adds the phases that have ended; with `wait` all of them."""
        while self._open and (wait or self._open[0][2].query()):
            name, before, after = self._open.pop(0)
            after.synchronize()
            self._seconds[name] += before.elapsed_time(after) / 1000

    def _event(self) -> Any:
        import torch

        event: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event


def matmul_rate(device: Device, size: int = 512) -> float:
    """Measured FLOP/s of a square matmul of `size`, over about `MATMUL_SECONDS`."""
    import torch

    a = torch.randn(size, size, device=device.name, dtype=device.torch_dtype)

    def synchronize() -> None:
        if device.kind == "cuda":
            torch.cuda.synchronize()

    with matmul_units(device):
        a @ a
        synchronize()
        runs = 0
        start = time.perf_counter()
        while runs == 0 or time.perf_counter() - start < MATMUL_SECONDS:
            a @ a
            runs += 1
            if runs % 32 == 0:
                synchronize()
        synchronize()
    return 2.0 * size**3 * runs / (time.perf_counter() - start)


def text_of(path: Path) -> str:
    """What a file of the kernel says; nothing where there is none."""
    try:
        return path.read_text()
    except OSError:
        return ""
