"""The prompts of a run as counts, as tables, and as a file of JSON lines."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from demur.prompts.builtin import CONTRASTS, builtin_set, hazard_titles
from demur.prompts.types import SPLITS, Splits

if TYPE_CHECKING:
    from rich.table import Table


def count(splits: Splits) -> dict[str, Any]:
    """Return how many prompts there are, as JSON can hold it.

    Returns:
        `version` of the built-in set; `hazards` and `contrasts`: pairs by split, for each;
        `kinds`: prompts by split, for each; `removed`: near-duplicates that were left out.
    """
    hazards: dict[str, Counter[str]] = {name: Counter() for name in hazard_titles()}
    contrasts: dict[str, Counter[str]] = {name: Counter() for name in CONTRASTS}
    kinds: dict[str, Counter[str]] = {}
    for split in SPLITS:
        for prompt in splits.of(split):
            kinds.setdefault(prompt.kind, Counter())[split] += 1
            if prompt.kind == "harmful":
                hazards.setdefault(prompt.hazard, Counter())[split] += 1
                contrasts.setdefault(prompt.contrast, Counter())[split] += 1
    return {
        "version": builtin_set().version,
        "kinds": _by_split(kinds),
        "hazards": _by_split(hazards),
        "contrasts": _by_split(contrasts),
        "removed": len(splits.removed),
    }


def _by_split(counts: Mapping[str, Counter[str]]) -> dict[str, dict[str, int]]:
    return {name: {split: found[split] for split in SPLITS} for name, found in counts.items()}


def tables(counts: Mapping[str, Any]) -> list[Table]:
    """Return the counts of `count` as tables for the terminal."""
    titles = {
        "kinds": f"Prompts of the built-in set {counts['version']}",
        "hazards": "Pairs by hazard category",
        "contrasts": "Pairs by contrast: how the twin differs",
    }
    words = hazard_titles() | CONTRASTS
    return [_table(title, counts[key], words) for key, title in titles.items()]


def _table(title: str, rows: Mapping[str, Mapping[str, int]], words: Mapping[str, str]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    for name in (*SPLITS, "all"):
        table.add_column(name, justify="right")
    for name, found in rows.items():
        numbers = [found[split] for split in SPLITS]
        label = f"{name}: {words[name]}" if name in words else name
        table.add_row(label, *(f"{number:,}" for number in (*numbers, sum(numbers))))
    return table


def json_lines(splits: Splits) -> str:
    """Return every prompt with its split, one JSON object a line."""
    return "".join(
        json.dumps({**asdict(prompt), "split": split}, ensure_ascii=False) + "\n"
        for split in SPLITS
        for prompt in splits.of(split)
    )
