"""Plots say nothing of their own library's affairs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CODE = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)); " \
    "from edge.measure import report; report.pyplot()"  # fmt: skip


def test_fonts_that_cannot_be_remembered_are_not_told(tmp_path: Path) -> None:
    root = str(Path(__file__).resolve().parents[2])
    env = {**os.environ, "MPLCONFIGDIR": str(tmp_path / "fonts"), "PYTHONPATH": root, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", CODE], env=env, capture_output=True, text=True, check=True)
    assert done.stderr == "" and (tmp_path / "fonts").is_dir()
