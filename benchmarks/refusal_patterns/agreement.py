"""How far the rules on a refusal's parts agree with a reader's labels.

    DEMUR_DATA=../shared/data python benchmarks/refusal_patterns/agreement.py

`parts_labels.csv` holds no text: the hash of a refusal's first 500 characters and the parts that a
reader of the project saw in them, before the rules were run on that refusal. The sample `first` was
then used to mend the rules; `fresh` was labelled after that, and no rule was changed for it, so
that it is the one to believe. Refusals are found in the recorded answers by their hashes; those
whose file is absent are left out and counted.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
from pathlib import Path

from demur.stats import Rate, rate
from demur.wording.parts import PARTS, parts_of

LABELS = Path(__file__).parent / "parts_labels.csv"
FILES = (
    "labelled/xstest_completions_dev.jsonl",
    "labelled/chatgpt_refusals.jsonl",
    "recorded/safety_only.jsonl",
)
CHARACTERS = 500


def beginning(answer: str) -> str:
    """Return what the reader saw of an answer."""
    return " ".join(answer.split())[:CHARACTERS]


def key(text: str) -> str:
    """Return the hash under which a beginning was labelled."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def labels(sample: str) -> dict[str, frozenset[str]]:
    """Return the parts that the reader saw, by hash, in the sample `first` or `fresh`."""
    with LABELS.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["sample"] == sample]
    return {row["sha256"]: frozenset(row["parts"].split()) for row in rows}


def texts(data: Path, sample: str) -> dict[str, str]:
    """Return the labelled beginnings that the data at hand hold, by hash."""
    wanted = labels(sample)
    found: dict[str, str] = {}
    for name in FILES:
        if (data / name).exists():
            for line in (data / name).open(encoding="utf-8"):
                text = beginning(json.loads(line)["response"])
                if key(text) in wanted:
                    found[key(text)] = text
    return found


def kappa(both: int, rules: int, reader: int, n: int) -> float:
    """Return Cohen's kappa from the counts of a part; 1 where both always say the same."""
    agreed = (n - rules - reader + 2 * both) / n
    chance = (rules * reader + (n - rules) * (n - reader)) / n**2
    return 1.0 if chance == 1 else (agreed - chance) / (1 - chance)


def table(data: Path, sample: str = "fresh") -> tuple[str, int]:
    """Return the table in Markdown, and how many refusals it is of."""
    found, said = texts(data, sample), labels(sample)
    n = len(found)
    lines = [
        "| part | reader saw it | rule saw it | both | rule right where it says so | found of the "
        "reader's | agreement | kappa |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for part in PARTS:
        rules = {name for name, text in found.items() if part in parts_of(text)}
        reader = {name for name in found if part in said[name]}
        both = len(rules & reader)
        right, seen = rate(both, len(rules)), rate(both, len(reader))
        agreed = rate(n - len(rules ^ reader), n)
        score = kappa(both, len(rules), len(reader), n)
        lines.append(
            f"| {part} | {len(reader)} | {len(rules)} | {both} | {_cell(right)} | {_cell(seen)} "
            f"| {_cell(agreed)} | {score:.2f} |"
        )
    return "\n".join(lines), n


def _cell(value: Rate) -> str:
    if not value.n:
        return "none"
    return f"{value.value:.0%} ({value.low:.0%} to {value.high:.0%})"


if __name__ == "__main__":
    for chosen in ("first", "fresh"):
        shown, count = table(Path(os.environ.get("DEMUR_DATA", "../shared/data")), chosen)
        print(f"{chosen}: {count} of {len(labels(chosen))} labelled refusals found\n\n{shown}\n")
