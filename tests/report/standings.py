"""A standing with made-up numbers: nothing here was measured."""

from __future__ import annotations

from demur.measure.corrected import Corrected
from demur.measure.known_error import Counted, KnownError
from demur.measure.standing import (
    Cell,
    ModelFigures,
    Row,
    Sample,
    SampleAnswer,
    SetFacts,
    Standing,
)
from demur.stats import Mean, paired, rate

LABELS = ("alpha", "beta", "gamma")


def cell(count: int, n: int, reference: bool, before: int = 0) -> Cell:
    first = [i < before for i in range(n)]
    second = [i < count for i in range(n)]
    observed = rate(count, n)
    return Cell(
        observed,
        Corrected(observed.value, observed.low, observed.high, "moved to its end" * (count == n)),
        1,
        2,
        rate(n - count, n),
        None,
        None if reference else paired(first, second),
        None if reference else 0.04,
        None if reference else 0.123,
    )


def row(key: str, kind: str, attack: str, counts: tuple[int, ...], n: int = 20) -> Row:
    set_key = key.split("/")[1]
    cells = tuple(cell(c, n, i == 0, counts[0]) for i, c in enumerate(counts))
    title = f"Title of {key}"
    wanted = "up" if kind == "harmful" else "down"
    name = "pooled" if set_key.startswith("pooled") else set_key
    return Row(key, title, name, kind, attack, "template", wanted, n, 0.3, cells)


def standing(models: int = 3) -> Standing:
    """Return the results of that many models."""
    figures = tuple(
        ModelFigures(
            label, f"{label} (hub)", 1_000_000 * (i + 1), "f" * 64, i == 0, 10.0 + i, 1.5,
            None if i == 0 else Mean(1.1, 1.05, 1.15, 12),
            None if i == 0 else Mean(0.02 * i, 0.01, 0.03, 9),
            "", rate(60 + i, 100), None, (), i,
        )
        for i, label in enumerate(LABELS[:models])
    )  # fmt: skip
    take = slice(models)
    rows = (
        row("direct/pooled:harmful", "harmful", "direct", (2, 18, 20)[take]),
        row("direct/pooled:twin", "twin", "direct", (1, 9, 3)[take]),
        row("direct/pooled:ordinary", "ordinary", "direct", (0, 1, 0)[take]),
        row("prefill/pooled:harmful", "harmful", "prefill", (0, 3, 15)[take]),
        row("direct/advbench", "harmful", "direct", (2, 18, 20)[take]),
        row("direct/xstest:safe", "twin", "direct", (1, 9, 3)[take]),
        row("direct/dolly", "ordinary", "direct", (0, 1, 0)[take]),
    )
    said = tuple(SampleAnswer(label, f"Made-up words of {label}.", "complied") for label in LABELS)
    return Standing(
        figures,
        rows,
        (
            SetFacts(
                "advbench", "AdvBench", "harmful", "advbench.jsonl", "MIT", "Zou et al. 2023",
                "Harm.", 520, 20, 3, 4, (("dapa", 5),),
            ),
        ),
        "opening-3",
        "A rule.",
        KnownError("opening-3", "refused", Counted(9, 10), Counted(8, 10), "labels", "nobody"),
        "the built-in training and validation prompts",
        "",
        "built-in passages",
        0,
        (
            Sample("twin", "xstest:safe", "direct", "A benign question?", said[take]),
            Sample("harmful", "advbench", "prefill", "A MADE-UP HARMFUL QUESTION", said[take]),
        ),
        "demur measure alpha beta gamma",
        "2026-01-31",
        (("demur", "0.2.0"),),
        12.5,
    )  # fmt: skip
