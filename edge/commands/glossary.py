"""`templora glossary`: the recurring names and terms of a book, with first translations to be edited."""

from __future__ import annotations

import argparse
import dataclasses
import json

from ..documents import Unit, open_document
from ..errors import InputError
from ..settings import Settings
from ..terminal import Progress, say
from ..translation import glossary, languages, loop, recall
from ..translation.context import Context
from . import options
from .prompting import TRANSLATOR, knowing_words, prompts_of, template


def add(verbs: options.Verbs) -> None:
    """Registers the verb."""
    verb = options.verb(verbs, "glossary", run, "propose a glossary: recurring names and terms of a document")
    verb.add_argument("book", type=options.path, metavar="BOOK", help="the document")
    verb.add_argument("--from", dest="source", required=True, metavar="CODE", help="its language, e.g. zh")
    verb.add_argument("--to", dest="target", required=True, metavar="CODE", help="the language wanted")
    verb.add_argument("--out", type=options.path, metavar="TSV", help="the file to write (default: standard output)")
    verb.add_argument("--least", type=options.positive, default=3, metavar="N", help="units a term is in (default: 3)")
    verb.add_argument("--most", type=options.positive, default=100, metavar="N", help="terms at most (default: 100)")
    verb.add_argument("--no-translations", action="store_true", help="leave the second column empty: needs no model")
    template(verb)
    options.common(verb, TRANSLATOR)


def run(args: argparse.Namespace) -> int:
    """Runs it; returns the exit code."""
    source = languages.find(args.source)
    target = languages.find(args.target)
    settings = options.settings_of(args)
    document = open_document(args.book, language=source.code)
    texts = [unit.text for unit in document.units]
    terms = glossary.recurring(texts, source, least=args.least, most=args.most)
    if not terms:
        got = f"{args.book} has no name or term in {args.least} units"
        raise InputError(got, "a longer text", "lower --least")
    if args.out:
        options.make_folder(args.out.parent)
    job = loop.Job((), source, target, context_units=0, learn=frozenset())
    translations = {} if args.no_translations else _translate(args, settings, job, [term for term, _ in terms], texts)
    rows = [(term, translations.get(term, ""), f"in {count} units") for term, count in terms]
    text = f"# {args.book.name}, {source.tag} to {target.tag}: edit the second column; lines without one are not used\n"
    text += glossary.write(rows)
    if args.out:
        options.write_text(args.out, text)
        print(f"{args.out}: {len(rows)} terms, {len(translations)} with a translation")
    else:
        print(text, end="")
    if args.json:
        listed = [{"source": term, "target": translations.get(term, ""), "units": count} for term, count in terms]
        print(json.dumps({"command": "glossary", "terms": listed}))
    return 0


def _translate(
    args: argparse.Namespace, settings: Settings, job: loop.Job, terms: list[str], texts: list[str]
) -> dict[str, str]:
    """What the base makes of each term alone, a Chinese name's pinyin; terms that fail the guards are left out."""
    from ..translation.decoding import ModelTranslator, require_languages

    without = dataclasses.replace(settings, learn=dataclasses.replace(settings.learn, mode="none"))
    runtime = options.load(args, without, decodes=True)
    found: dict[str, str] = {}
    with runtime.session() as session, Progress("translating", len(terms), "terms") as progress:
        require_languages(session, terms, job.source, job.target)
        translator = ModelTranslator(session, prompts_of(args, runtime, job))
        known = recall.read(knowing_words(job, runtime), texts)
        for number, term in enumerate(terms):
            record = loop.translate_unit(job, translator, number, Unit(f"t{number:06d}", term), Context(), known)
            if record.status in ("model", "corrected"):
                found[term] = record.text.rstrip(".。")
            progress(number + 1)
    if len(found) < len(terms):
        say(f"{len(terms) - len(found)} terms could not be translated; their second column is empty")
    return found
