"""A trace's tables and maps as they are shown: in the report, and on the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from demur import figures
from demur.graft.tracing.crossing import Crossing
from demur.graft.tracing.effects import Agreement, Cell
from demur.graft.tracing.names import TITLES
from demur.stats import Mean
from demur.tracing.decision import decision
from demur.tracing.findings import CrossFindings, Findings, MapFindings
from demur.tracing.plots import HeatMap

if TYPE_CHECKING:
    from rich.table import Table as ConsoleTable

Row = tuple[str, ...]
SHOWN = 8  # cells of a map that are listed
NATS = "{:.2f} nats"
DIRECTIONS = {
    "into": "The donor\u2019s modules in the model",
    "back": "The model\u2019s modules in the donor",
}


@dataclass(frozen=True)
class Section:
    """One part of the report: a heat map, how to read it, and a table.

    Attributes:
        key: of the section, for links.
        title, lead: what it is, and how to read it.
        heat: the map.
        head, rows: the table.
    """

    key: str
    title: str
    lead: str
    heat: HeatMap
    head: Row
    rows: tuple[Row, ...]


def mean_text(value: Mean, digits: int = 2) -> str:
    """Return a mean with its interval: `+1.20 (+0.90 to +1.50)`."""
    if math.isnan(value.value):
        return figures.DASH
    low, high = (figures.signed(each, digits) for each in (value.low, value.high))
    return f"{figures.signed(value.value, digits)} ({low} to {high})"


def share_text(value: Mean) -> str:
    """Return a normalised effect with its interval, in percent."""
    if math.isnan(value.value):
        return figures.DASH
    low, high = (figures.signed(100 * each, 0) for each in (value.low, value.high))
    return f"{figures.signed(100 * value.value, 0)}{figures.SPACE}% ({low} to {high})"


def sections(findings: Findings) -> tuple[Section, ...]:
    """Return all maps of a trace, then those across models."""
    maps = [_map(findings, each) for each in findings.maps]
    return (*maps, *(_crossing(each) for each in findings.crossings))


def _map(findings: Findings, found: MapFindings) -> Section:
    total = findings.clean.value - findings.corrupted.value
    layers = range(findings.layers)
    by_place = {(cell.place, cell.layer): cell for cell in found.shown}
    window = "" if found.window == 1 else f", {found.window} layers around one at a time"
    way = "restored runs" if found.cells else "attribution patching, to first order"
    rows = tuple(
        (
            f"layer {cell.layer}, {cell.place}",
            mean_text(cell.effect),
            share_text(cell.share),
            f"{cell.effect.n}",
        )
        for cell in _listed(found)
    )
    return Section(
        f"map-{found.kind}",
        TITLES[found.kind] + window,
        f"What putting it back from the clean run does to the margin of the corrupted run, which "
        f"lies {total:.1f} nats lower ({way}).{_agreement(found.agreement)}",
        HeatMap(
            f"map-{found.kind}",
            TITLES[found.kind],
            findings.places,
            tuple(
                tuple(by_place[place, layer].effect.value for layer in layers)
                for place in findings.places
            ),
            _most([cell.effect.value for cell in found.shown]),
            NATS,
            "towards refusing",
            "towards complying",
        ),
        ("Where", "Effect, nats", "Of the whole", "Prompts"),
        rows,
    )


def _listed(found: MapFindings) -> list[Cell]:
    """Return the cells of a map's table: the largest; of states, which go together, one a place."""
    if found.kind != "state":
        return best(found.shown)
    places = dict.fromkeys(cell.place for cell in found.shown)
    peaks = [best([c for c in found.shown if c.place == place], 1) for place in places]
    listed = [cell for peak in peaks for cell in peak]
    kept = best(listed)
    return [cell for cell in listed if cell in kept]


def best(cells: Sequence[Cell], count: int = SHOWN) -> list[Cell]:
    """Return the cells with the largest effects."""
    known = [cell for cell in cells if not math.isnan(cell.effect.value)]
    return sorted(known, key=lambda cell: -cell.effect.value)[:count]


def _crossing(found: CrossFindings) -> Section:
    shown = found.blocks or found.attributed
    kinds = tuple(dict.fromkeys(each.kind for each in shown))
    by_place = {(each.kind, each.layer): each for each in shown}
    layers = range(max(each.layer for each in shown) + 1)
    values = tuple(
        tuple(
            by_place[kind, layer].selectivity.value if (kind, layer) in by_place else math.nan
            for layer in layers
        )
        for kind in kinds
    )
    way = "exactly" if found.blocks else "to first order"
    direction = DIRECTIONS[found.direction]
    return Section(
        f"cross-{found.direction}",
        direction,
        f"What one module alone does, {way}. Before, margins are "
        f"{mean_text(found.harmful)} nats on harmful requests and {mean_text(found.benign)} on "
        f"their twins; in the model that the modules come from {mean_text(found.whole_harmful)} "
        f"and {mean_text(found.whole_benign)}. Selectivity is the change on harmful requests less "
        f"that on their twins.{_agreement(found.agreement)}",
        HeatMap(
            f"cross-{found.direction}",
            f"{direction}: selectivity",
            kinds,
            values,
            _most([value for row in values for value in row]),
            NATS,
            "for refusal",
            "against it",
        ),
        ("Module", "Selectivity, nats", "Harmful", "Twins", "Parameters"),
        tuple(
            (
                f"layer {each.layer}, {each.kind}",
                mean_text(each.selectivity),
                mean_text(each.harmful),
                mean_text(each.benign),
                figures.parameters(each.parameters),
            )
            for each in most_selective(shown, found.direction)
        ),
    )


def most_selective(
    blocks: Sequence[Crossing], direction: str, count: int = SHOWN
) -> list[Crossing]:
    """Return the blocks that do most: for refusal going in, against it going back."""
    sign = 1 if direction == "back" else -1
    return sorted(blocks, key=lambda each: sign * each.selectivity.value)[:count]


def _most(values: Sequence[float]) -> float:
    return max((abs(value) for value in values if not math.isnan(value)), default=0.0)


def _agreement(found: Agreement | None) -> str:
    if found is None or not found.cells:
        return ""
    alike, ranks = (
        figures.DASH if math.isnan(value) else f"{value:.2f}"
        for value in (found.correlation, found.rank_correlation)
    )
    return (
        f" Attribution patching, the fast way, agrees with it over {found.cells} cells with a "
        f"correlation of {alike} (ranks {ranks}), names {100 * found.top:.0f} % of the {found.k} "
        f"largest, and is off by {found.error:.2f} nats on average, where the largest effect is "
        f"{found.largest:.2f}."
    )


def console_table(findings: Findings) -> ConsoleTable:
    """Return the largest effects of each map, and where states say it is decided."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for title, justify in (
        ("", "left"),
        ("layer", "right"),
        ("where", "left"),
        ("effect, nats", "right"),
        ("n", "right"),
    ):
        table.add_column(title, justify="right" if justify == "right" else "left")
    for found in findings.maps:
        where = decision(found.shown, findings.places[-1])
        told = [cell for cell in (where.left, where.arrived) if cell is not None]
        for cell in told if found.kind == "state" and told else best(found.shown, 2):
            table.add_row(
                found.kind,
                f"{cell.layer}",
                Text(cell.place),
                mean_text(cell.effect),
                f"{cell.effect.n}",
            )
    for crossing in findings.crossings:
        shown = crossing.blocks or crossing.attributed
        for each in most_selective(shown, crossing.direction, 3):
            table.add_row(
                each.kind,
                f"{each.layer}",
                Text(DIRECTIONS[crossing.direction]),
                mean_text(each.selectivity),
                f"{each.selectivity.n}",
            )
    return table
