"""scripts/lab/guards: what it counts is what is there, the same each time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.commands import script

_WHO = [
    "the old captain",
    "a boy of twelve",
    "the woman in grey",
    "my brother",
    "the miller",
    "every soldier",
    "the cook",
]
_WER = [
    "der alte Kapitän",
    "ein Junge von zwölf",
    "die Frau in Grau",
    "mein Bruder",
    "der Müller",
    "jeder Soldat",
    "der Koch",
]
_DID = [
    "counted {} ships in the bay",
    "bought {} apples at the market",
    "walked {} miles before night",
    "read {} letters",
]
_TAT = [
    "zählte {} Schiffe in der Bucht",
    "kaufte {} Äpfel auf dem Markt",
    "ging {} Meilen vor der Nacht",
    "las {} Briefe",
]


def pairs() -> list[tuple[str, str]]:
    made = []
    for w, (who, wer) in enumerate(zip(_WHO, _WER, strict=True)):
        for d, (did, tat) in enumerate(zip(_DID, _TAT, strict=True)):
            number = 21 + 7 * w + 3 * d
            source = f"“On that day {who} {did.format(number)},” said Ishmael to Queequeg, “and nobody knew why.”"
            target = (
                f"„An jenem Tag {wer} {tat.format(number)}“, sagte Ishmael zu Queequeg, „und niemand wusste, warum.“"
            )
            made.append((source, target))
    made[3] = (made[3][0], made[3][1].replace("30", "90"))  # one that the translators changed
    return made


def lines(*options: str, path: Path) -> list[dict[str, Any]]:
    said, _ = script("scripts/lab/guards", str(path), "--from", "en", "--to", "de", *options)
    return [json.loads(line) for line in said.splitlines() if line.startswith("{")]


def test_guards_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "pairs.tsv"
    path.write_text("".join(f"{source}\t{target}\n" for source, target in pairs()), "utf-8")
    found = lines("--spoiled", "60", "--out", str(tmp_path / "table.md"), path=path)
    total = found[-1]
    assert (total["pairs"], total["alarms"], total["false_alarms"], total["with_names"]) == (28, 1, 1, 28)
    guards = {row["guard"]: row for row in found if "guard" in row}
    assert (guards["numbers"]["raised_at_published"], guards["numbers"]["false"]) == (1, 1)
    spoilers = {row["spoiler"]: row for row in found if "spoiler" in row}
    for name in ("empty", "the source copied", "looped", "a number changed", "a term missing", "marks of markup lost"):
        assert spoilers[name]["caught"] == spoilers[name]["cases"] == 3, name
    assert spoilers["the next line's"]["by_its_guard"] == 0  # found only where it has another number
    assert sum(row["caught"] for row in spoilers.values()) == total["caught"] <= total["spoiled"]
    assert "| numbers |" in (tmp_path / "table.md").read_text("utf-8")
    judged = tmp_path / "judged.json"
    judged.write_text('{"3": "30 became 90"}', "utf-8")
    again = lines("--spoiled", "60", "--judged", str(judged), path=path)
    assert again[-1] == {**total, "false_alarms": 0, "false_alarm_rate": 0.0}
