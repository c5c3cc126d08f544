"""A translation's report: records -> one JSON object, one HTML page that needs nothing else.

Owns: what is counted, the look of the page. Does not know: files, printing.
Units: units, tokens, nats, seconds, bytes; perplexity = exp(sum of nats / sum of tokens).
"""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ..documents import placeholders
from ..records import Lesson, Record, UnitTranslated, finite, perplexity
from ..values.amounts import format_bytes
from . import consistency, folding, recall
from . import settled as settling
from .glossary import Glossary
from .languages import Language
from .loop import PASSED, Job
from .names import Memory, Name
from .prompts import Pair

STATUSES = ("model", "pieces", "corrected", "copied", "marked")
MARK = "⚠ "  # stands before a marked unit in the translated document


def settled(records: Sequence[Record]) -> list[UnitTranslated]:
    """The last word on each unit that is done, in the order of the document."""
    return list(settling.of(records).units.values())


def texts(records: Sequence[Record]) -> dict[str, str]:
    """What goes into the document, by unit id; marked units carry `MARK`."""
    return {r.id: shown(r) for r in settled(records)}


def shown(unit: UnitTranslated) -> str:
    """A unit's text as the document has it."""
    return MARK + (unit.text or unit.source) if unit.status == "marked" else unit.text


def summary(records: Sequence[Record], job: Job) -> dict[str, Any]:
    """Counts, retries, marked units, term consistency, perplexity over time, memory and time of a run so far."""
    found = settling.of(records, job.source, job.target)
    units = list(found.units.values())
    lessons = [record for record in records if isinstance(record, Lesson)]
    pairs = [Pair(unit.source, unit.text) for unit in units if unit.status in PASSED]
    tokens = sum(u.tokens for u in units)
    seconds = sum(u.seconds for u in units)
    names = [n for n in consistency.names(pairs, job.source, job.target) if consistency.is_name(n)]
    statuses = Counter(unit.status for unit in units)
    return {
        "from": job.source.tag,
        "to": job.target.tag,
        "learn": sorted(job.learn) or ["off"],
        "units": {"total": len(job.units), "done": len(units), **{name: statuses[name] for name in STATUSES}},
        "retried": sum(unit.attempts > 1 for unit in units),
        "problems": dict(Counter(p.partition(":")[0] for unit in units for p in unit.problems).most_common()),
        "marked": [
            {"id": u.id, "source": u.source, "text": u.text, "problems": list(u.problems)}
            for u in units
            if u.status == "marked"
        ],
        "doubtful": [{"id": u.id, "source": u.source, "text": u.text, "gain": gain} for u, gain in doubtful(records)],
        "terms": _terms(pairs, job.glossary),
        "remembered": [_remembered(name) for name in memory(records, job).names()],
        "names": {**consistency.steadiness(names), "list": [_name(name) for name in names]},
        "corrected_meanwhile": len(found.corrections),
        "affected": [
            {"id": id, "source": found.units[id].source, "text": found.units[id].text, "names": names_in}
            for id, names_in in found.affected.items()
        ],
        "lessons": [_lesson(lesson) for lesson in lessons],
        "tokens": tokens,
        "translate_seconds": seconds,
        "tokens_per_second": tokens / seconds if seconds else 0.0,
        "learn_seconds": sum(lesson.learned.seconds for lesson in lessons if lesson.learned),
        "peak_bytes": max((lesson.peak_bytes for lesson in lessons), default=0),
    }


def memory(records: Sequence[Record], job: Job) -> Memory:
    """The names that a run remembers after these records."""
    found = recall.Recall(job)
    for record in records:
        found.see(record)
    return found.memory


def doubtful(records: Sequence[Record]) -> list[tuple[UnitTranslated, float]]:
    """Units that say less of their source than another line's translation does, worst first, with their gains.

    Known of the model's own translations that were to be learned (`translation.meaning`).
    """
    now = settling.of(records).units
    first = {r.id: r for r in reversed(records) if isinstance(r, UnitTranslated)}  # as it was when it was judged
    passed = [first[id] for id in now if first[id].status in PASSED]
    judged = []
    for lesson in (r for r in records if isinstance(r, Lesson) and r.gains):
        units = [unit for unit in passed if lesson.start < unit.end <= lesson.end]
        judged += list(zip(units, lesson.gains, strict=True))
    low = [(now[u.id], gain) for u, gain in judged if gain < 0 and now[u.id].status != "corrected"]
    return sorted(low, key=lambda pair: pair[1])


def _terms(pairs: Sequence[Pair], glossary: Glossary) -> dict[str, Any]:
    """How often glossary terms were due, and how often they were kept."""
    due = [(pair, term) for pair in pairs for term in glossary.applying(pair.source)]
    kept = sum(folding.stands(term[1], pair.target) for pair, term in due)
    return {"glossary": len(glossary.terms), "due": len(due), "kept": kept}


def _name(name: consistency.Name) -> dict[str, Any]:
    return {"source": name.source, "target": name.target, "units": name.units, "steady": name.steady}


def _remembered(name: Name) -> dict[str, Any]:
    return {"source": name.source, "target": name.target, "units": name.pairs, "both": name.both}


def _lesson(lesson: Lesson) -> dict[str, Any]:
    value = None if lesson.nll is None else finite(perplexity(lesson.nll, lesson.tokens))
    kept = lesson.learned.kept if lesson.learned else None
    return {
        "of": lesson.of,
        "end": lesson.end,
        "tokens": lesson.tokens,
        "perplexity": value,
        "kept": kept,
    }


# --- the page ---

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;margin:1rem 0}td,th{border:1px solid #ccc;padding:.2rem .6rem;text-align:left;"
    "vertical-align:top}th{background:#f4f4f4}.n{text-align:right}svg{max-width:100%}"
)


def page(result: Mapping[str, Any], title: str) -> str:
    """The report as one HTML file: no scripts, nothing from elsewhere."""
    units = result["units"]
    facts = [
        ("units", f"{units['done']} of {units['total']}"),
        ("translated", f"{units['model']}, by sentences {units['pieces']}, by the user {units['corrected']}"),
        ("kept as they are", units["copied"]),
        ("marked", units["marked"]),
        ("needed more than one attempt", result["retried"]),
        ("glossary terms kept", f"{result['terms']['kept']} of {result['terms']['due']}"),
        ("names always the same", _share(result["names"])),
        ("learned from", ", ".join(result["learn"])),
        *([("begun with", _carried(result["carried"]))] if result.get("carried") else []),
        ("speed", f"{result['tokens_per_second']:.1f} tokens/s, {result['tokens']} tokens"),
        ("time", f"{result.get('seconds', result['translate_seconds']):.0f} s"),
        ("peak memory", format_bytes(result["peak_bytes"])),
    ]
    parts = [
        f"<h1>{html.escape(title)}</h1><p>{html.escape(result['from'])} → {html.escape(result['to'])}</p>",
        _table(("", ""), facts),
        _curve(result["lessons"]),
    ]
    if result["problems"]:
        parts += ["<h2>What the guards found</h2>", _table(("problem", "units"), list(result["problems"].items()))]
    if result["marked"]:
        rows = [(m["id"], m["source"], m["text"], "; ".join(m["problems"])) for m in result["marked"]]
        parts += ["<h2>Marked units</h2>", _table(("unit", "source", "best attempt", "problems"), rows)]
    if result["doubtful"]:
        worst = [(d["id"], d["source"], d["text"]) for d in result["doubtful"]]
        parts += [
            "<h2>To be looked at first: little of the source in them</h2>",
            _table(("unit", "source", "text"), worst),
        ]
    if result["affected"]:
        affected = [(a["id"], a["source"], a["text"], ", ".join(a["names"])) for a in result["affected"]]
        parts += [
            "<h2>A name that was corrected elsewhere is in them: --redo translates them again</h2>",
            _table(("unit", "source", "text", "name"), affected),
        ]
    if result["names"]["list"]:
        steady = [(n["source"], n["target"], f"{n['steady']} of {n['units']}") for n in result["names"]["list"]]
        parts += ["<h2>Names</h2>", _table(("name", "usual translation", "units that have it"), steady)]
    if result["remembered"]:
        kept = [(n["source"], n["target"], f"{n['both']} of {n['units']}") for n in result["remembered"]]
        parts += [
            "<h2>Names that were remembered (names.tsv, to be edited and given back as --glossary)</h2>",
            _table(("name", "remembered as", "units that have it"), kept),
        ]
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{_STYLE}</style>'
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'


def _carried(carried: Mapping[str, Any]) -> str:
    return f"adapter, {carried['corrections']} corrections and {carried['terms']} terms of {carried['from']}"


def side_by_side(units: Sequence[UnitTranslated], title: str, source: Language, target: Language) -> str:
    """Source and translation in two columns, as one HTML file that needs nothing else; without inline markup."""

    def cell(text: str, language: Language) -> str:
        return f'<td lang="{html.escape(language.tag)}" dir="auto">{html.escape(placeholders.plain(text))}</td>'

    rows = [f"<tr>{cell(unit.source, source)}{cell(shown(unit), target)}</tr>" for unit in units]
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{_STYLE}td{{width:50%}}</style>'
    body = f"<h1>{html.escape(title)}</h1><table>{''.join(rows)}</table>"
    return f"<!DOCTYPE html>\n<html><head>{head}</head><body>{body}</body></html>\n"


def _share(names: Mapping[str, Any]) -> str:
    return "–" if names["always"] is None else f"{names['always']:.0%} of {names['names']}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    def line(cells: Sequence[Any], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag} dir=auto>{html.escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"

    return f"<table>{line(heads, 'th') if any(heads) else ''}{''.join(line(row, 'td') for row in rows)}</table>"


def _curve(lessons: Sequence[Mapping[str, Any]]) -> str:
    """Perplexity of what was learned, lesson by lesson, before it was learned."""
    values = [lesson["perplexity"] for lesson in lessons if lesson["perplexity"]]
    if len(values) < 2:
        return ""
    width = 700
    height = 160
    top = max(values)
    points = " ".join(
        f"{10 + i * (width - 20) / (len(values) - 1):.1f},{height - 10 - v / top * (height - 30):.1f}"
        for i, v in enumerate(values)
    )
    line = f'<polyline points="{points}" fill="none" stroke="#2563a8" stroke-width="2"/>'
    label = f'<text x="10" y="14" font-size="12">{values[0]:.1f} → {values[-1]:.1f} (highest {top:.1f})</text>'
    return (
        "<h2>Perplexity of each lesson before it was learned</h2>"
        f'<svg viewBox="0 0 {width} {height}" width="{width}" role="img">{line}{label}</svg>'
    )
