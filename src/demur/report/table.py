"""The scorecard as a table for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from demur import figures
from demur.measure.scorecard import Comparison, Scorecard

if TYPE_CHECKING:
    from rich.table import Table


def console_table(scorecard: Scorecard) -> Table:
    """Return before, after, difference, n and split of every figure, as a rich table.

    Rates carry 95 % intervals; differences are paired, in percentage points. Titles are shown as
    they are: markup in them is not read.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    table.add_column("", overflow="fold")
    for title in ("before", "after", "difference"):
        table.add_column(title, justify="right", overflow="fold")
    table.add_column("n", justify="right", no_wrap=True)
    table.add_column("split")
    for each in scorecard.comparisons:
        table.add_row(
            Text(figures.plain(each.title)),
            Text(figures.rate_text(each.before), style="dim"),
            Text(figures.rate_text(each.after), style="bold"),
            Text(figures.points(each.difference), style=_style(each)),
            figures.grouped(each.after.n),
            Text(figures.plain(each.split)),
        )
    utility = scorecard.utility
    table.add_row(
        Text(f"Perplexity, {figures.plain(utility.text)}"),
        Text(figures.number(utility.perplexity_before), style="dim"),
        Text(figures.number(utility.perplexity_after), style="bold"),
        Text(f"ratio {figures.mean_text(utility.perplexity_ratio, 3)}"),
        f"{figures.grouped(utility.perplexity_ratio.n)}",
        Text("windows"),
    )
    table.add_row(
        Text("Divergence from the original, nats a token"),
        Text("0", style="dim"),
        Text(figures.mean_text(utility.divergence, 4), style="bold"),
        Text(""),
        f"{figures.grouped(utility.divergence.n)}",
        Text("prompts"),
    )
    return table


def _style(comparison: Comparison) -> str:
    """Green where the interval lies on the wanted side of zero, red where on the other."""
    low, high = comparison.difference.low, comparison.difference.high
    if low <= 0 <= high:
        return ""
    return "green" if (low > 0) == (comparison.wanted == "up") else "red"
