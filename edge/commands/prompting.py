"""What a translation is asked for: the options of its prompts, its job, what identifies it.

Owns: the options that more than one verb of translating has, and what follows from them.
Does not know: how the work is done, runs, what is printed of it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from typing import TYPE_CHECKING, Any

from .. import tokenstream
from ..documents import Document, in_chapters
from ..errors import SettingsError
from ..settings import Settings
from ..terminal import say
from ..translation import families, glossary, languages, loop, pairs, prompts
from . import carry, options

if TYPE_CHECKING:
    from ..session import Runtime

TRANSLATOR = "demo-instruct"  # the embedded model that can translate


def prompting(verb: argparse.ArgumentParser) -> None:
    """The options that decide what a prompt holds."""
    verb.add_argument("--from", dest="source", required=True, metavar="CODE", help="its language, e.g. zh")
    verb.add_argument(
        "--to", dest="target", required=True, metavar="CODE", help="the language wanted, e.g. en or pt-BR"
    )
    verb.add_argument(
        "--glossary", type=options.path, metavar="TSV", help="terms and their translations: source, tab, target"
    )
    verb.add_argument(
        "--context-units",
        type=int,
        default=8,
        metavar="K",
        help="finished units that a prompt shows at least (default: 8)",
    )
    verb.add_argument(
        "--names",
        choices=("on", "off"),
        default="on",
        help="remember names as the book goes, show them where they occur, and ask again where one is missing "
        "(default: on)",
    )
    verb.add_argument(
        "--candidates",
        type=int,
        choices=(1, 2),
        default=1,
        help="2: a second draft of what leaves doubts, judged by reading both backwards; the better one is taken "
        "(default: 1)",
    )
    verb.add_argument(
        "--lines", type=options.positive, metavar="K",
        help="decode K units side by side, none of which sees the others (default: generate.lines, 1)",
    )  # fmt: skip
    template(verb)


def template(verb: argparse.ArgumentParser) -> None:
    """The option that names a template."""
    shipped = ", ".join(prompts.template_names())
    verb.add_argument(
        "--template", type=options.named, metavar="NAME",
        help=f"{shipped}, or a YAML file (default: what fits the model by its metadata)",
    )  # fmt: skip


def job_of(args: argparse.Namespace, document: Document) -> loop.Job:
    """What is to be done, from the options; everything that can be wrong with them is found here.

    Raises:
        SettingsError, InputError: see `languages.find`, `glossary.read`, `pairs.read`.
    """
    source = languages.find(args.source)
    target = languages.find(args.target)
    corrections = (
        [p for chunk in pairs.read(args.corrections, source, target) for p in chunk] if args.corrections else []
    )
    named = args.learn or "corrections"
    learn = {word.strip() for word in named.split(",")}
    if not learn <= {"off", *loop.LEARN} or ("off" in learn and len(learn) > 1):
        raise SettingsError(f"--learn is '{named}'", "off, or some of " + ",".join(loop.LEARN), "correct it")
    if args.learn and "corrections" in learn and not corrections:
        raise SettingsError("--learn corrections without --corrections", "a file of corrections", "name one")
    return loop.Job(
        document.units if args.chapters is None else in_chapters(document, args.chapters),
        source,
        target,
        args.context_units,
        frozenset(learn - {"off"}),
        glossary.read(args.glossary, source, target) if args.glossary else glossary.Glossary({}),
        corrections,
        pairs.by_unit(args.corrections) if args.corrections else {},
        names=args.names == "on",
        candidates=args.candidates,
    )


def prompts_of(args: argparse.Namespace, runtime: Runtime, job: loop.Job) -> prompts.Prompts:
    """Prompts in the template that was named, or in the one that fits the model; warns of one that cannot translate.

    Raises:
        SettingsError: see `prompts.load_template`, `prompts.Prompts`.
    """
    base = runtime.base
    fitting = families.fitting(
        base.tokenizer,
        job.source,
        job.target,
        architecture=str(getattr(base.config, "model_type", "")),
        reference=base.reference,
    )
    if args.model == "demo":
        say(f"warning: demo is a base model of 270M parameters that cannot translate; {TRANSLATOR} can")
    return prompts.Prompts(prompts.load_template(args.template or fitting), job.source, job.target, base.tokenizer)


def knowing_words(job: loop.Job, runtime: Runtime) -> loop.Job:
    """The job, with what the model's tokenizer knows of words."""
    tokenizer = runtime.base.tokenizer
    before = len(tokenstream.ids_of(tokenizer, "\n"))  # some write a space of their own before a text
    return dataclasses.replace(job, is_word=lambda text: len(tokenstream.ids_of(tokenizer, "\n" + text)) == before + 1)


def settings_for(args: argparse.Namespace, job: loop.Job) -> Settings:
    """The settings; without an adapter where nothing is learned, and none comes from elsewhere."""
    settings = side_by_side(args, options.settings_of(args))
    if job.learn or args.carry:
        return settings
    return dataclasses.replace(settings, learn=dataclasses.replace(settings.learn, mode="none"))


def side_by_side(args: argparse.Namespace, settings: Settings) -> Settings:
    """The settings with `--lines`, where it is given."""
    if args.lines is None:
        return settings
    return dataclasses.replace(settings, generate=dataclasses.replace(settings.generate, lines=args.lines))


def texts_of(job: loop.Job, carried: carry.Carried | None = None, *, judge: bool = False) -> dict[str, str]:
    """What decides the outcome besides settings and model, by name."""
    lines = [f"{unit.id}\t{unit.text}" for unit in job.units]
    return {
        "text": "\n".join(lines),
        "glossary": json.dumps(sorted(job.glossary.terms.items())),
        "corrections": json.dumps([job.corrections, job.corrected] if job.corrected else job.corrections),
        "options": f"{job.source.tag} {job.target.tag} learn={sorted(job.learn)} context={job.context_units}"
        + (" judge" if judge else "")
        + (" names" if job.names else "")
        + (f" candidates={job.candidates}" if job.candidates > 1 else ""),
        **({"carried": carried.text()} if carried else {}),
    }


def words_of(job: loop.Job, template: prompts.Template | None, *, judge: bool) -> dict[str, dict[str, Any]]:
    """The parts of `texts_of` and of the template that are kept, so that a refusal can name the one that differs."""
    options = {
        "from": job.source.tag,
        "to": job.target.tag,
        "learn": ",".join(sorted(job.learn)) or "off",
        "context-units": job.context_units,
        "judge": judge,
        "names": job.names,
        "candidates": job.candidates,
    }
    return {"options": options, **({"template": dataclasses.asdict(template)} if template else {})}
