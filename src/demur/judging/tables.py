"""Judges against people, and rates of verdicts, as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from demur import figures
from demur.stats import Mean, Rate

if TYPE_CHECKING:
    from rich.table import Table

    from demur.judge.agreement import Agreement
    from demur.judging.write import JudgeScores, Rejudged

QUESTIONS = {
    "refusal": ("Did it refuse?", "called\nrefusals", "refusals\nmissed"),
    "harm": ("Is it harmful?", "called\nharmful", "harm\nmissed"),
}


def score_tables(scores: JudgeScores) -> Iterator[Table]:
    """Yield the tables of a scoring: over all answers, by source, by model; each question apart."""
    parts = (
        ("", scores.overall),
        (" By source", scores.by_source),
        (" By model", scores.by_model),
    )
    for subject in QUESTIONS:
        for title, found in parts:
            rows = [each for each in found if each.subject == subject]
            if rows:
                yield _agreements(subject, title, rows)


def _agreements(subject: str, title: str, rows: list[Agreement]) -> Table:
    """Return one table; by group only the rates, since all else is in the JSON."""
    from rich.text import Text

    question, called, missed = QUESTIONS[subject]
    grouped = bool(title)
    undecided = any(each.decided.count < each.n for each in rows)
    columns = ["n", "accuracy", *(() if grouped else ("balanced",)), called, missed]
    columns += ([] if grouped else ["kappa"]) + (["decided"] if undecided else [])
    table = _table(f"{question}{title}", ["judge", "group"] if grouped else ["judge"], columns)
    order = sorted(rows, key=lambda each: each.group) if grouped else rows
    for each in order:
        names = [Text(each.judge)] + ([Text(each.group)] if grouped else [])
        cells = [figures.grouped(each.n), _share(each.accuracy)]
        cells += [] if grouped else [_measure(each.balanced, 100)]
        cells += [_share(each.false_positives), _share(each.false_negatives)]
        cells += [] if grouped else [_measure(each.kappa, 1)]
        cells += [_share(each.decided, False)] if undecided else []
        table.add_row(*names, *cells)
    return table


def rate_tables(result: Rejudged) -> Iterator[Table]:
    """Yield the tables of a re-judging: before and after by probe, and the rates of each group."""
    from rich.text import Text

    if result.changes:
        table = _table("Refusals, before and after", ["prompts", "judge"], ["n", "before", "after"])
        table.add_column("difference", justify="right", no_wrap=True)
        table.add_column("undecided", justify="right", no_wrap=True)
        for each in result.changes:
            table.add_row(
                Text(each.title),
                Text(each.judge),
                figures.grouped(each.after.n),
                _share(each.before),
                _share(each.after),
                figures.points(each.difference),
                f"{each.undecided_before}, {each.undecided_after}",
            )
        yield table
        if not any(rates.harmful for rates in result.rates):
            return
    columns = ["n", "refused", "partial", "undecided", "harmful", "harm\nundecided"]
    table = _table("Verdicts", ["answers", "judge"], columns)
    for rates in result.rates:
        title = f"{rates.title} ({rates.side})" if rates.side else rates.title
        shares = (
            rates.refused,
            rates.partial,
            rates.undecided,
            rates.harmful,
            rates.harm_undecided,
        )
        table.add_row(
            Text(title), Text(rates.judge), figures.grouped(rates.n), *(_share(s) for s in shares)
        )
    yield table


def _table(title: str, names: list[str], numbers: list[str]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        header_style="bold",
    )
    for name in names:
        table.add_column(name, overflow="fold")
    for number in numbers:
        table.add_column(number, justify="right", no_wrap=True)
    return table


def _share(rate: Rate | None, interval: bool = True) -> str:
    """Return `91.3 [89, 93]`, in per cent; a dash where there is nothing to share."""
    if rate is None or rate.n == 0:
        return "-"
    text = f"{100 * rate.value:.1f}"
    return f"{text} [{100 * rate.low:.0f}, {100 * rate.high:.0f}]" if interval else text


def _measure(mean: Mean | None, scale: int) -> str:
    if mean is None:
        return "-"
    if scale == 1:
        low, high = (f"{each:.2f}".replace("0.", ".") for each in (mean.low, mean.high))
        return f"{mean.value:.2f} [{low}, {high}]"
    return f"{scale * mean.value:.1f} [{scale * mean.low:.0f}, {scale * mean.high:.0f}]"
