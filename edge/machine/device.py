"""Which device, which compute dtype, how much memory is free, and how much was used at most.

Owns: the choice of device and dtype by capability, and every memory reading.
Does not know: models, settings files, what the memory is used for.
Units: bytes, seconds, FLOP/s. torch is imported inside functions, so that reading memory costs no start-up time.

Why float32 on CPUs: without AMX or AVX-512 BF16 units a bfloat16 matmul falls back to code that is hundreds of times
slower than float32 (measured: 0.3 against 170 GFLOP/s on two AVX2 cores). With AMX, matmuls of float32 numbers use its
bfloat16 units (1.4 TFLOP/s against 380 GFLOP/s on two cores), and everything between them stays float32.
"""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DeviceError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Device:
    """A device and the dtype to compute in.

    Attributes:
        kind: `cpu` or `cuda`.
        name: what torch calls it: `cpu`, `cuda:0`.
        dtype: name of the compute dtype.
        matmul: what a matmul of float32 numbers rounds its operands to: `float32`, or `bfloat16` where the CPU has units
            for it; sums and results are float32 either way.
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


def probable_kind(device: str = "auto") -> str:
    """`cpu` or `cuda`, as `choose` will find it, without importing torch: by the driver's device files."""
    if device != "auto":
        return device.partition(":")[0]
    return "cuda" if any(Path(p).exists() for p in ("/dev/nvidia0", "/dev/nvhost-gpu", "/dev/dxg")) else "cpu"


def cuda_dtype(name: str) -> str:
    """bfloat16 where the GPU has units for it (compute capability 8.0 and up), else float32."""
    import torch

    return "bfloat16" if torch.cuda.get_device_capability(name) >= (8, 0) else "float32"


def units_for(kind: str, dtype: str, matmul: str) -> str:
    """What float32 matmuls round to; there is a choice on a CPU only."""
    if kind == "cuda" or dtype != "float32":
        return "float32"
    return cpu_matmul() if matmul == "auto" else matmul


def cpu_matmul(cpuinfo: str | None = None) -> str:
    """bfloat16 only with AMX tiles for it; float32 on every other CPU."""
    flags = cpuinfo if cpuinfo is not None else _read(Path("/proc/cpuinfo"))
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
    return platform.machine() == "aarch64" and "tegra" in (platform.release() + _read(Path("/etc/nv_tegra_release")))


def set_threads(count: int) -> int:
    """Sets torch's intra-op threads (0: one per core this process may use) and returns the number."""
    import torch

    count = count or len(os.sched_getaffinity(0))
    torch.set_num_threads(count)
    return count


# --- memory readings ---


def free_memory(device: Device) -> int:
    """Bytes that can be taken now: the GPU's own, or MemAvailable (and the cgroup's rest) on CPU and unified boards."""
    if device.kind == "cuda" and not device.unified:
        import torch

        return int(torch.cuda.mem_get_info(device.name)[0])
    return available_memory()


def available_memory() -> int:
    """MemAvailable, or what the process's cgroup still allows where that is less."""
    available = _meminfo("MemAvailable")
    limit = _cgroup("memory.max")
    used = _cgroup("memory.current")
    if limit is not None and used is not None:
        reclaimable = _cgroup_stat("inactive_file")
        available = min(available, max(0, limit - used + reclaimable))
    return available


def resident_memory() -> int:
    """This process's resident set now, in bytes."""
    fields = _read(Path("/proc/self/statm")).split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") if len(fields) > 1 else 0


def peak_resident_memory() -> int:
    """This process's largest resident set since it started, in bytes."""
    peak = _status("VmHWM")
    if peak:
        return peak
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


SAMPLE_SECONDS = 0.01


class Sampler:
    """The resident set, looked at every few milliseconds while somebody wants to know; one thread for the process."""

    def __init__(self) -> None:
        self.largest = 0
        self._wanted = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Measures anew."""
        if self._thread is None or not self._thread.is_alive():  # a thread does not outlive a fork
            self._thread = threading.Thread(target=self._look, name="memory", daemon=True)
            self._thread.start()
        self.largest = resident_memory()
        self._wanted.set()

    def end(self) -> None:
        """Stops looking."""
        self._wanted.clear()

    def _look(self) -> None:
        while self._wanted.wait():
            now = resident_memory()
            if now > self.largest:
                self.largest = now
            time.sleep(SAMPLE_SECONDS)


SAMPLER = Sampler()


class PeakMeter:
    """Largest memory use of each named phase: resident set on a CPU, reserved device memory on CUDA.

    `peaks` maps phase names to bytes. On a CPU a phase that goes above all before it is measured by the kernel's own
    high-water mark, which misses nothing; one that stays below is sampled. The mark is never reset: others read it too.
    """

    def __init__(self, device: Device) -> None:
        self.device = device
        self.peaks: dict[str, int] = {}
        self.last = 0  # the peak of the last phase
        self._before = 0  # the high-water mark when it began

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Attributes the peak inside the block to `name`."""
        self._start()
        try:
            yield
        finally:
            self.last = self.read()
            SAMPLER.end()
            self.peaks[name] = max(self.peaks.get(name, 0), self.last)

    @property
    def peak(self) -> int:
        """The largest peak over all phases so far, and now."""
        return max([self.read(), *self.peaks.values()])

    def read(self) -> int:
        """The peak since the last phase began."""
        if self.device.kind == "cuda":
            import torch

            return int(torch.cuda.max_memory_reserved(self.device.name))
        mark = peak_resident_memory()
        return mark if mark > self._before else max(SAMPLER.largest, resident_memory())

    def _start(self) -> None:
        if self.device.kind == "cuda":
            import torch

            torch.cuda.reset_peak_memory_stats(self.device.name)
        else:
            self._before = peak_resident_memory()
            SAMPLER.begin()


@contextmanager
def capped(device: Device, budget: int) -> Iterator[None]:
    """Inside the block an allocation that would take the device's memory beyond `budget` bytes fails.

    On CUDA torch's allocator is capped, on a CPU the process's data segment.
    """
    if device.kind == "cuda":
        import torch

        total = torch.cuda.get_device_properties(device.name).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, budget / total), device.name)
        yield
        return
    with capped_process(budget):
        yield


@contextmanager
def capped_process(budget: int) -> Iterator[None]:
    """Inside the block an allocation that would take the process beyond `budget` bytes fails.

    It is the data segment that is capped (RLIMIT_DATA), which the kernel counts by what was asked for: pages that were
    reserved before and not touched yet can still add a little.
    """
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    data = _status("VmData")
    if not data:
        yield
        return
    limit = data + max(0, budget - resident_memory())
    resource.setrlimit(resource.RLIMIT_DATA, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on any device."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    said = str(error).lower()
    words = ("can't allocate memory", "cannot allocate memory", "not enough memory", "out of memory", "bad_alloc")
    return isinstance(error, RuntimeError) and any(word in said for word in words)


# --- measuring the machine ---


@contextmanager
def timed(seconds: dict[str, float], phase: str, device: Device) -> Iterator[None]:
    """Adds the block's wall time to `seconds[phase]`; on CUDA, of work that is done and not only queued."""
    start = time.perf_counter()
    try:
        yield
    finally:
        if device.kind == "cuda":
            import torch

            torch.cuda.synchronize(device.name)
        seconds[phase] = seconds.get(phase, 0.0) + time.perf_counter() - start


def matmul_rate(device: Device, size: int = 512, budget: float = 0.3) -> float:
    """Measured FLOP/s of a square matmul of `size`, over at most about `budget` seconds."""
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
        while runs == 0 or time.perf_counter() - start < budget:
            a @ a
            runs += 1
            if runs % 32 == 0:
                synchronize()
        synchronize()
    return 2.0 * size**3 * runs / (time.perf_counter() - start)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _status(key: str) -> int:
    return _kernel_bytes(Path("/proc/self/status"), key) or 0


def _meminfo(key: str) -> int:
    known = _kernel_bytes(Path("/proc/meminfo"), key)
    return known if known is not None else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")


def _kernel_bytes(path: Path, key: str) -> int | None:
    """Bytes of a `key:  N kB` line, or None where there is none."""
    for line in _read(path).splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    return None


def _cgroup(name: str) -> int | None:
    text = _read(Path("/sys/fs/cgroup") / name).strip()
    return int(text) if text.isdigit() else None


def _cgroup_stat(key: str) -> int:
    for line in _read(Path("/sys/fs/cgroup/memory.stat")).splitlines():
        if line.startswith(key + " "):
            return int(line.split()[1])
    return 0
