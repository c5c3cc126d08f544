"""What the heap does with freed memory, counted in page faults; in a process of its own, for a heap is tuned once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge.machine import allocator, device
from edge.memory.prediction import UNITS_SLACK

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import json, resource
import numpy as np
from edge.machine import allocator

def faults(count=40):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(count):
        np.ones(5 << 17)  # 5 MiB, freed at once
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

allocator.tune_allocator()
faults(1)
given_back = faults()
with allocator.keep_scratch():
    kept = faults()
held = resident()
allocator.trim()
trimmed = held - resident()
after = faults()
print(json.dumps([given_back, kept, trimmed, after]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's heap")
def test_scratch_is_handed_out_again_inside_keep_scratch_alone() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=True)
    given_back, kept, trimmed, after = json.loads(done.stdout)
    assert kept < given_back / 10
    assert after > given_back / 2
    assert trimmed > 4 << 20  # what was kept goes back


KERNELS = """
from edge.machine import allocator
allocator.tune_allocator()

import torch
from edge.machine import device, held

torch.set_num_threads(1)
weight = torch.randn(64, 64)

def grown(lengths):
    before = held.resident_memory()
    for length in lengths:
        torch.randn(length, 64) @ weight
    allocator.trim()
    return held.resident_memory() - before

with torch.inference_mode(), device.matmul_units(device.Device("cpu", "cpu", "float32", "bfloat16")):
    grown(range(2, 4))
    filled = grown(range(100, 100 + allocator.KERNELS))
    print(filled, grown(range(300, 300 + 2 * allocator.KERNELS)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory of /proc")
def test_ever_new_lengths_hold_no_ever_new_memory() -> None:
    """oneDNN makes a kernel for each; what it keeps at most is what the planner counts."""
    clean = {k: v for k, v in os.environ.items() if not k.endswith("CACHE_CAPACITY")}
    done = subprocess.run(
        [sys.executable, "-c", KERNELS], cwd=ROOT, env=clean, capture_output=True, text=True, check=True
    )
    filled, more = map(int, done.stdout.split())
    assert filled + more < UNITS_SLACK
    assert more < 8 << 20


@pytest.mark.parametrize(
    ("name", "found"),
    [("", "expandable_segments:True"), ("PYTORCH_CUDA_ALLOC_CONF", "mine"), ("PYTORCH_ALLOC_CONF", "")],
)
def test_what_the_environment_says_to_torchs_allocator_is_heard(
    name: str, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By either of its names: the older one alone is read where both are set."""
    for key in ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"):
        monkeypatch.delenv(key, raising=False)
    if name:
        monkeypatch.setenv(name, "mine")
    for key in ("THP_MEM_ALLOC_ENABLE", "TORCH_CUDNN_SDPA_DEPRIORITIZED"):
        monkeypatch.setenv(key, os.environ.get(key, ""))
    monkeypatch.setattr(allocator, "_bound_kernels", lambda: None)
    monkeypatch.setattr(allocator, "_mallopt", lambda option, value: None)
    monkeypatch.setattr(allocator._Heap, "tuned", False)
    allocator.tune_allocator()
    assert os.environ.get("PYTORCH_CUDA_ALLOC_CONF", "") == found
    os.environ.pop("PYTORCH_CUDA_ALLOC_CONF", None)


@pytest.mark.parametrize(("said", "used"), [("", 4), ("1", 1), ("3", 3), ("64", 4), ("0", 4), ("4,2", 4), ("many", 4)])
def test_threads_are_the_cores_and_no_more_than_openmp_is_told(
    monkeypatch: pytest.MonkeyPatch, said: str, used: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: range(4))
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert device.usual_threads() == used
