"""Plots say nothing of their own library's affairs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

DRAW = "from edge.measure import report; plots = report.pyplot(); assert report._png(plots, plots.figure())"
LIMIT = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)); "


@pytest.mark.parametrize("fault", ["files end at 1000 bytes", "no home"])
def test_fonts_that_cannot_be_remembered_are_not_told(fault: str, tmp_path: Path) -> None:
    root = str(Path(__file__).resolve().parents[2])
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MPL", "XDG"))}
    env |= {"PYTHONPATH": root, "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(tmp_path)}
    env |= {"HOME": "/proc/self/none"} if fault == "no home" else {"MPLCONFIGDIR": str(tmp_path / "fonts")}
    code = DRAW if fault == "no home" else LIMIT + DRAW
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert (tmp_path / "fonts").is_dir() == (fault != "no home")
