"""Every row over all recipients: what it gains on harmful requests, and what it costs on others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from demur.benching.drawing import write_figure
from demur.benching.grafts.result import Result
from demur.benching.grafts.summary import UNTOUCHED, summaries

SERIES = (
    ("harmful", "harmful requests", "C0", -0.18),
    ("twins", "harmless twins", "C3", 0.05),
    ("ordinary", "ordinary instructions", "C1", 0.25),
)


def write_plot(results: Sequence[Result], folder: Path) -> Path:
    """Draw a line a row: a dot a recipient, and the mean with its interval over recipients."""
    from matplotlib.figure import Figure

    untouched = {one.recipient: one for one in results if one.row == UNTOUCHED}
    rows = [one for one in summaries(results) if one.row != UNTOUCHED]

    def draw() -> Figure:
        figure = Figure(figsize=(8.4, 1.6 + 0.5 * max(1, len(rows))))
        axes = figure.add_subplot()
        for key, label, colour, offset in SERIES:
            for place, row in enumerate(rows):
                if key not in row.gains:
                    continue
                own = [
                    100 * (one.rate(key) - untouched[one.recipient].rate(key))
                    for one in results
                    if one.row == row.row and one.recipient in untouched
                ]
                axes.plot(
                    own, [place + offset] * len(own), "o", color=colour, alpha=0.25, markersize=4
                )
                gain = row.gains[key]
                axes.errorbar(
                    100 * gain.value,
                    place + offset,
                    xerr=[
                        [max(0.0, 100 * (gain.value - gain.low))],
                        [max(0.0, 100 * (gain.high - gain.value))],
                    ],
                    fmt="D",
                    color=colour,
                    markersize=5,
                    elinewidth=1.2,
                    label=label if place == 0 else None,
                )
        axes.axvline(0, color="0.8", zorder=0)
        axes.set_yticks(range(len(rows)), [row.title for row in rows])
        axes.invert_yaxis()
        axes.set_xlabel("gain in the share refused, points; a dot a recipient, the mean beside it")
        if rows:
            axes.legend(loc="upper center", bbox_to_anchor=(0.4, 1.12), ncol=3, frameon=False)
        return figure

    return write_figure(draw, folder)
