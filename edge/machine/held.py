"""How much memory is free, held now, and was held at most; and a limit to it.

Owns: every memory reading, and the caps that make an allocation fail before the system does.
Does not know: what the memory is used for, plans.
Units: bytes, seconds. torch is imported inside functions, so that reading memory costs no start-up time.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .device import Device, text_of


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
    fields = text_of(Path("/proc/self/statm")).split()
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

            found = torch.cuda.memory_stats_as_nested_dict(self.device.name)  # the flat form is sorted, for every token
            return int(found["reserved_bytes"]["all"]["peak"]) if found else 0
        mark = peak_resident_memory()
        return mark if mark > self._before else max(SAMPLER.largest, resident_memory())

    def _start(self) -> None:
        if self.device.kind == "cuda":
            import torch

            torch.cuda.reset_peak_memory_stats(self.device.name)
        else:
            self._before = peak_resident_memory()
            SAMPLER.begin()


_fractions: dict[str, float] = {}  # of a GPU's memory, that torch may take now


@contextmanager
def capped(device: Device, budget: int) -> Iterator[None]:
    """Inside the block an allocation that would take the device's memory beyond `budget` bytes fails.

    On CUDA torch's allocator is capped, on a CPU the process's data segment.
    """
    if device.kind == "cuda":
        import torch

        total = torch.cuda.get_device_properties(device.name).total_memory
        before = _fractions.get(device.name, 1.0)
        _fractions[device.name] = min(1.0, budget / total)
        torch.cuda.set_per_process_memory_fraction(_fractions[device.name], device.name)
        try:
            yield
        finally:  # or what another plan needs between its phases would fail
            _fractions[device.name] = before
            torch.cuda.set_per_process_memory_fraction(before, device.name)
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


@contextmanager
def capped_growth(room: int) -> Iterator[None]:
    """Inside the block an allocation that makes the process larger by more than `room` bytes fails.

    A cap that holds already is never loosened. The cap is of the data segment, as in `capped_process`.
    """
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    data = _status("VmData")
    if not data:
        yield
        return
    resource.setrlimit(
        resource.RLIMIT_DATA, (min([data + room, *(n for n in (soft, hard) if n != resource.RLIM_INFINITY)]), hard)
    )
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on any device."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:  # from the import of a module, too
        return True
    if not (isinstance(error, RuntimeError) or type(error).__module__.startswith("onnxruntime")):
        return False
    said = str(error).lower()
    words = ("can't allocate memory", "cannot allocate memory", "failed to allocate memory", "not enough memory",
             "out of memory", "bad_alloc")  # fmt: skip
    return any(word in said for word in words)


def out_of_memory_among(error: BaseException | None) -> BaseException | None:
    """The error that says so, of one and those that it came of: to end a capture that failed fails, too."""
    while error is not None and not is_out_of_memory(error):
        error = error.__context__
    return error


# --- measuring the machine ---


def _status(key: str) -> int:
    return _kernel_bytes(Path("/proc/self/status"), key) or 0


def _meminfo(key: str) -> int:
    known = _kernel_bytes(Path("/proc/meminfo"), key)
    return known if known is not None else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")


def _kernel_bytes(path: Path, key: str) -> int | None:
    """Bytes of a `key:  N kB` line, or None where there is none."""
    for line in text_of(path).splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    return None


def _cgroup(name: str) -> int | None:
    text = text_of(Path("/sys/fs/cgroup") / name).strip()
    return int(text) if text.isdigit() else None


def _cgroup_stat(key: str) -> int:
    for line in text_of(Path("/sys/fs/cgroup/memory.stat")).splitlines():
        if line.startswith(key + " "):
            return int(line.split()[1])
    return 0
