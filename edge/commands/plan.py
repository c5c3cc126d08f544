"""`templora plan`: predict the peak memory of every phase."""

from __future__ import annotations

import argparse
import json

from ..measure import report
from ..terminal import print_table
from . import options


def add(verbs: options.Verbs) -> None:
    """Registers the verb."""
    plan = options.verb(verbs, "plan", run, "predict the peak memory of every phase, before anything is loaded")
    plan.add_argument("--score-only", action="store_true", help="without the phase that writes text")
    options.common(plan)


def run(args: argparse.Namespace) -> int:
    """Runs it; returns the exit code."""
    from ..memory import conversion, planning

    settings = options.settings_of(args)
    source = planning.find(args.model, settings)
    chosen = planning.plan(
        source, settings, decodes=not args.score_only, degrade=args.allow_degrade, writes=not args.score_only
    )
    chosen = conversion.shown(chosen, source)
    print_table(report.plan_table(chosen))
    print_table(report.rungs_table(chosen, settings))
    print(report.plan_summary(chosen))
    if args.json:
        steps = report.rungs_json(chosen, settings)
        line = {"command": "plan", "model": args.model, **chosen.to_json(), "steps": steps}
        print(json.dumps({**line, "settings": settings.to_dict()}))
    return 0
