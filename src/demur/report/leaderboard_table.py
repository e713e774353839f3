"""A measurement as tables for the terminal: the leaderboard, and every row in full."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from demur import figures
from demur.measure.standing import Cell, ModelFigures, Row, Standing

if TYPE_CHECKING:
    from rich.table import Table

# Rows of the leaderboard: key, heading, what is wanted.
COLUMNS = (
    ("direct/pooled:harmful", "harmful refused", "up"),
    ("prefill/pooled:harmful", "after a prefill", "up"),
    ("templates/pooled:harmful", "in templates", "up"),
    ("direct/pooled:twin", "benign twins refused", "down"),
    ("direct/pooled:ordinary", "ordinary refused", "down"),
)


def console_tables(standing: Standing) -> list[Table]:
    """Return the rates, model under model, and the utility figures."""
    return [_rates(standing), *([_utility(standing)] if utility_titles(standing) else [])]


def _new(title: str) -> Table:
    from rich import box
    from rich.table import Table

    return Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold"
    )


def _rates(standing: Standing) -> Table:
    """Return a block a rate: its title with n, and a line a model, indented below it."""
    from rich.text import Text

    known = standing.error is not None
    several = len(standing.models) > 1
    compared = "; differences to the reference in points, paired" * several
    table = _new(f"Refused, with 95 % intervals{compared}")
    table.add_column("", overflow="fold", min_width=15)
    table.add_column("refused" + "\ncorrected" * known, justify="right", no_wrap=True)
    if several:
        table.add_column("difference", justify="right", no_wrap=True)
    table.add_column("un-\ndecided", justify="right", no_wrap=True)
    for row in rows_to_show(standing):
        table.add_row(Text(f"{figures.plain(row_title(row))}, n {figures.grouped(row.n)}"))
        for place, model in enumerate(standing.models):
            cell = row.cells[place]
            if cell is None:
                table.add_row(Text(f"  {figures.plain(model.label)}"), "not asked")
                continue
            refused = Text(figures.rate_text(cell.refused))
            if known:
                refused.append(f"\n{corrected_text(cell)}", style="dim")
            other = "reference" if model.reference else figures.DASH
            difference = figures.points(cell.difference) if cell.difference else other
            table.add_row(
                Text(f"  {figures.plain(model.label)}"),
                refused,
                *([difference] if several else []),
                str(cell.undecided),
                end_section=place == len(standing.models) - 1,
            )
    return table


def rows_to_show(standing: Standing) -> list[Row]:
    """Return the rows without those that say the same again: a pool of one set is that set."""
    sets = [row for row in standing.rows if row.attack == "direct" and row.set != "pooled"]
    alone = {
        (row.kind, row.system)
        for row in sets
        if sum((r.kind, r.system) == (row.kind, row.system) for r in sets) == 1
    }
    return [
        row
        for row in standing.rows
        if row.attack != "direct" or row.set != "pooled" or (row.kind, row.system) not in alone
    ]


def _utility(standing: Standing) -> Table:
    from rich.text import Text

    table = _new("Utility")
    table.add_column("", overflow="fold")
    for title in utility_titles(standing):
        table.add_column(title, justify="right")
    for model in standing.models:
        table.add_row(Text(figures.plain(model.label)), *utility_texts(standing, model))
    return table


def utility_titles(standing: Standing) -> list[str]:
    """Return the headings of the utility columns that have something in them."""
    models = standing.models
    titles = []
    if any(not math.isnan(m.perplexity) for m in models):
        titles.append("perplexity")
    if any(m.divergence for m in models):
        titles.append("divergence")
    if any(m.pairs for m in models):
        titles.append("minimal pairs")
    return titles + [task.task for task in models[0].tasks]


def utility_texts(standing: Standing, model: ModelFigures) -> list[str]:
    """Return one model's figures under `utility_titles`."""
    titles = utility_titles(standing)
    texts = []
    if "perplexity" in titles:
        ratio = model.perplexity_ratio
        more = f", ratio {figures.mean_text(ratio, 3)}" if ratio else ""
        texts.append(f"{figures.number(model.perplexity)}{more}")
    if "divergence" in titles:
        found = model.divergence
        texts.append(figures.mean_text(found, 4) if found else figures.DASH)
    if "minimal pairs" in titles:
        texts.append(figures.rate_text(model.pairs) if model.pairs else figures.DASH)
    for task in model.tasks:
        error = "" if math.isnan(task.error) else f" (SE {task.error:.3f})"
        texts.append(f"{task.value:.3f}{error}")
    return texts


def undecided(standing: Standing, place: int) -> int:
    """Return how many of a model's answers, over pooled rows and attacks, are no answers."""
    found = [row.cells[place] for row in standing.rows if row.set == "pooled"]
    return sum(cell.undecided for cell in found if cell is not None)


def row_title(row: Row) -> str:
    """Return a row's title, with its system prompt where it is not the template's own."""
    if row.system == "template":
        return row.title
    return f"{row.title}, {'no system prompt' if row.system == 'none' else 'with a system prompt'}"


def corrected_text(cell: Cell) -> str:
    """Return the corrected rate with its interval; a star where there is a note to it."""
    if cell.corrected is None or math.isnan(cell.corrected.value):
        return figures.DASH
    each = cell.corrected
    star = "*" if each.note else ""
    return f"{figures.percent(each.value)}{star} ({figures.span(each.low, each.high)})"


def shows_from(row: Row, cell: Cell) -> float:
    """Return the smallest difference that can be seen here, in [0, 1]."""
    return row.detectable if cell.detectable is None else cell.detectable
