"""The bench's table in Markdown, its figures as JSON, and the trade-off as a plot.

A method's rate is the mean over prompts of the share of seeds that refuse each; its interval is a
bootstrap over prompts, so that seeds asked the same prompts do not count as more prompts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from demur import figures
from demur.benching.config import BenchConfig
from demur.benching.markdown import markdown_table
from demur.report.files import write_text
from demur.stats import Mean, mean

TABLE, FIGURES = "bench.md", "bench.json"
IN_CONTEXT = ("prompt", "shown")  # rows that leave the weights as they are


@dataclass(frozen=True)
class Result:
    """One row for one seed.

    Attributes:
        row, title, kind: which method, and what it is: `method`, `baseline` or `control`.
        seed: of the draw of its lessons and of its training.
        note: what validation chose.
        seconds: of training alone, since rows share their lessons; of all that a row without
            training did before it was measured.
        peak_memory: of the process before measuring, in bytes.
        refused: for each probe, 1 or 0 a prompt.
        undecided: for each probe, answers that were neither refusals nor answers.
        titles, wanted: of the probes.
        perplexity_ratio, divergence: against the untouched model, with intervals.
        pairs: for each minimal pair, 1 where the grammatical sentence was the likelier; none where
            they were not asked.
    """

    row: str
    title: str
    kind: str
    seed: int
    note: str
    seconds: float
    peak_memory: int
    refused: dict[str, list[int]]
    undecided: dict[str, int]
    titles: dict[str, str]
    wanted: dict[str, str]
    perplexity_ratio: dict[str, float]
    divergence: dict[str, float]
    pairs: list[int] = field(default_factory=list)


def over_seeds(results: Sequence[Result], key: str) -> Mean:
    """Return the share refused of a probe's prompts, seeds averaged before prompts."""
    return _averaged([one.refused[key] for one in results])


def _averaged(seeds: Sequence[Sequence[int]]) -> Mean:
    return mean([sum(column) / len(column) for column in zip(*seeds, strict=True)])


def by_row(results: Sequence[Result]) -> dict[str, list[Result]]:
    """Return the results of each method, in the order in which the methods came."""
    rows: dict[str, list[Result]] = {}
    for one in results:
        rows.setdefault(one.row, []).append(one)
    return rows


def write_tables(
    results: Sequence[Result], probe: Mapping[str, Any] | None, folder: Path, config: BenchConfig
) -> tuple[Path, Path]:
    """Write what is known so far; return the table's and the figures' files.

    Args:
        probe: the linear probe's curve, as JSON can hold it.
    """
    write_text(folder / TABLE, _table(by_row(results)) + _known(probe))
    figures = {
        "configuration": config.resolved(),
        "results": [asdict(one) for one in results],
        "probe": probe,
    }
    write_text(folder / FIGURES, json.dumps(figures))
    return folder / TABLE, folder / FIGURES


def _known(probe: Mapping[str, Any] | None) -> str:
    if probe is None:
        return ""
    twins, ordinary = probe["against_twins"], probe["against_ordinary"]
    rates = ", ".join(
        f"{name} {100 * each['value']:.1f} %" for name, each in probe["chosen"].items()
    )
    return (
        f"\nA linear probe on the untouched model (layer {probe['layer']}) tells harmful requests "
        f"from twins with an area of {twins['value']:.3f} ({twins['low']:.3f} to "
        f"{twins['high']:.3f}), from ordinary ones with {ordinary['value']:.3f}; at the threshold "
        f"that validation likes best it would refuse: {rates}.\n"
    )


def _table(rows: dict[str, list[Result]]) -> str:
    every = [one for found in rows.values() for one in found]
    keys = list(dict.fromkeys(key for one in every for key in one.refused))
    titles = {key: one.titles[key] for one in every for key in one.refused}
    n = {key: len(one.refused[key]) for one in every for key in one.refused}
    asked = max(len(one.pairs) for one in every)
    heads = ["method", "seeds", *(f"{titles[key]} (n {n[key]})" for key in keys)]
    heads += [
        "perplexity",
        "divergence, nats",
        *([f"BLiMP (n {asked})"] if asked else []),
        "minutes of training",
        "memory, GB",
        "chosen on validation",
    ]
    lines = []
    for found in rows.values():
        first = found[0]
        cells = [first.title, str(len(found))]
        cells += [_share(over_seeds(found, key)) for key in keys]
        cells += [
            "x" + _mid([one.perplexity_ratio["value"] for one in found], 3),
            # measured on requests without the instruction, which is all that such a row changes
            "" if first.row in IN_CONTEXT else _mid([one.divergence["value"] for one in found], 3),
            *([_told(found)] if asked else []),
            _mid([one.seconds / 60 for one in found], 1),
            _mid([one.peak_memory / 1e9 for one in found], 1),
            "; ".join(dict.fromkeys(one.note for one in found if one.note)),
        ]
        lines.append(cells)
    return markdown_table(heads, lines)


def _told(results: Sequence[Result]) -> str:
    """Return how many minimal pairs were told rightly, by the seeds that were asked."""
    told = [one.pairs for one in results if one.pairs]
    return _share(_averaged(told)) if told else ""


def _share(value: Mean) -> str:
    return f"{100 * value.value:.1f} % ({figures.span(value.low, value.high)})"


def _mid(values: Sequence[float], digits: int) -> str:
    return f"{sum(values) / len(values):.{digits}f}"
