"""`templora doctor`: try out what this machine can do."""

from __future__ import annotations

import argparse
import json
from typing import Any

from . import options


def add(verbs: Any) -> None:
    """Registers the verb."""
    doctor = options.verb(verbs, "doctor", run, "try out what this machine can do")
    doctor.add_argument("--json", action="store_true", help="print one JSON line last")


def run(args: argparse.Namespace) -> int:
    """Runs it; returns the exit code."""
    from .. import doctor

    checks = []
    for check in doctor.examine():
        checks.append(check)
        print(f"{'ok  ' if check.ok else 'FAIL'} {check.name}: {check.result}")
        if not check.ok and check.remedy:
            print(f"     -> {check.remedy}")
    if args.json:
        print(json.dumps({"command": "doctor", "checks": [vars(c) for c in checks]}))
    needed = [c for c in checks if not c.ok and not c.name.startswith("ONNX")]
    return 6 if needed else 0
