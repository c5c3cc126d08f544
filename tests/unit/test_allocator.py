"""What the heap does with freed memory, counted in page faults; in a process of its own, for a heap is tuned once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import json, resource
import numpy as np
from edge import allocator

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
