"""`templora doctor`: try out what this machine can do."""

from __future__ import annotations

import argparse
import json
from itertools import chain

from ..errors import SettingsError
from . import options


def add(verbs: options.Verbs) -> None:
    """Registers the verb."""
    doctor = options.verb(verbs, "doctor", run, "try out what this machine can do")
    doctor.add_argument(
        "--model",
        type=options.named,
        metavar="MODEL",
        help="also try whether this model's kept keys and values may be used",
    )
    doctor.add_argument("--verify", action="store_true", help="also read every byte of the model's files and compare")
    doctor.add_argument("--json", action="store_true", help="print one JSON line last")


def run(args: argparse.Namespace) -> int:
    """Runs it; returns the exit code."""
    from ..measure import doctor

    if args.verify and not args.model:
        raise SettingsError("--verify without a model", "--model MODEL", "name it")
    checks = []
    whole = doctor.verify(args.model) if args.verify else ()
    named = doctor.examine_model(args.model) if args.model else ()
    for check in chain(doctor.examine(), whole, named):
        checks.append(check)
        print(f"{'ok  ' if check.ok else 'FAIL'} {check.name}: {check.result}")
        if not check.ok and check.remedy:
            print(f"     -> {check.remedy}")
    if args.json:
        print(json.dumps({"command": "doctor", "checks": [vars(c) for c in checks]}))
    spared = ("ONNX", f"{args.model} ")
    needed = [c for c in checks if not c.ok and not c.name.startswith(spared) and not c.name.endswith(doctor.DECODING)]
    return 6 if needed else 0
