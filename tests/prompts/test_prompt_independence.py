"""The built-in prompts are demur's own: none repeats a public set, where such sets are at hand."""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from demur.prompts import builtin_set
from demur.prompts.duplicates import normalise, word_shingles

REPOSITORY = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("DEMUR_DATA", REPOSITORY / "../shared/data"))
FIELDS = ("prompt", "harmful", "benign", "template", "en")
LIMIT = 0.5


def public_prompts(path: Path) -> list[str]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    found = {row[field] for row in rows for field in FIELDS if isinstance(row.get(field), str)}
    return sorted(found)


def files() -> list[Path]:
    return [*sorted(DATA.glob("prompts/*.jsonl")), *DATA.glob("labelled/xstest_*.jsonl")]


@pytest.mark.skipif(not files(), reason="no public prompt sets in DEMUR_DATA")
def test_no_builtin_prompt_repeats_a_public_one():
    own = [normalise(prompt.text) for prompt in builtin_set().prompts]
    shingles = [word_shingles(text) for text in own]
    holders = defaultdict(list)
    for number, item in enumerate(shingles):
        for shingle in item:
            holders[shingle].append(number)
    checked = 0
    for path in files():
        for public in map(normalise, public_prompts(path)):
            checked += 1
            theirs = word_shingles(public)
            common = Counter(number for shingle in theirs for number in holders.get(shingle, ()))
            for number, count in common.items():
                likeness = count / (len(theirs) + len(shingles[number]) - count)
                assert likeness <= LIMIT, f"{own[number]!r} repeats {path.name}"
    assert checked > 500
