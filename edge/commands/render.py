"""`templora render`: the outputs of a translation once more, in any form, without a model."""

from __future__ import annotations

import argparse
import json

from .. import journal, records
from ..documents import open_document
from ..errors import SettingsError
from ..terminal import say
from ..translation import languages, report
from . import options, outputs


def add(verbs: options.Verbs) -> None:
    """Registers the verb."""
    render = options.verb(
        verbs, "render", run, "write the outputs of a translation again, in any form, without a model"
    )
    render.add_argument(
        "rendered", type=options.named, metavar="RUN", help="its run folder, or its name (`templora runs`)"
    )
    render.add_argument("--out", type=options.path, required=True, metavar="FILE", help="the document to write")
    form = render.add_mutually_exclusive_group()
    form.add_argument("--bilingual", action="store_true", help="keep each source text, followed by its translation")
    form.add_argument("--side-by-side", action="store_true", help="an HTML page: source and translation in two columns")
    outputs.forms(render)
    render.add_argument(
        "--book", type=options.path, metavar="BOOK", help="the document, where it is no longer where it was"
    )
    render.add_argument("--json", action="store_true", help="print one JSON line last")


def run(args: argparse.Namespace) -> int:
    """Runs it; returns the exit code."""
    if args.side_by_side and args.out.suffix.lower() not in outputs.SIDE_BY_SIDE:
        raise SettingsError(f"--side-by-side into {args.out}", "a file that ends in .html", "rename it")
    review = outputs.review_of(args)
    found = journal.Journal.peek(journal.find(args.rendered))
    book = outputs.book_of(found, args.book)
    assert found.manifest is not None
    source, target = (languages.find(tag) for tag in found.manifest.extra["languages"])
    document = open_document(book, language=source.code)
    done = [records.from_json(record) for record in found.records()]
    job = outputs.job_of(found, document)
    for folder in (args.out.parent, args.report, review and review.parent):
        if folder:
            options.make_folder(folder)
    if args.side_by_side:
        options.write_text(args.out, report.side_by_side(report.settled(done), book.name, source, target))
    else:
        outputs.Outputs(document, target.tag, args.out, args.bilingual).write(done)
    result = {
        "command": "render",
        "run": str(found.folder),
        "state": found.state,
        "file": str(book),
        "out": str(args.out),
        **report.summary(done, job),
        "carried": found.manifest.extra.get("carried"),
    }
    if args.report:
        outputs.write_report(args.report, result, done, job, book.name)
    if review:
        outputs.write_review(review, document, job, done)
    units = result["units"]
    print(f"{args.out}: {units['done']} of {units['total']} units, {units['marked']} marked")
    if found.state != "finished":
        reason = f" ({found.reason})" if found.reason else ""
        say(f"note: {found.folder} is {found.state}{reason}: what is not translated yet is left in the source language")
    if args.json:
        print(json.dumps(result))
    outputs.check_marked(result, reported=bool(args.report))
    return 0
