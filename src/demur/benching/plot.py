"""The trade-off of every method: harmful requests refused against harmless twins refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from demur.benching.drawing import write_figure
from demur.benching.tables import Result, over_seeds

MARKS = {"method": "o", "baseline": "s", "control": "X"}


def write_plot(
    rows: Mapping[str, Sequence[Result]], probe: Mapping[str, Any] | None, folder: Path
) -> Path:
    """Draw a point with both intervals a method, and the linear probe's curve as a line.

    Args:
        rows: results by the method's name, one a seed.
        probe: a `ProbeCurve` as JSON has it: what the untouched model already knows.
    """
    import matplotlib
    from matplotlib.figure import Figure

    def draw() -> Figure:
        figure = Figure(figsize=(8.4, 5.6))
        axes = figure.add_subplot()
        if probe is not None:
            label = f"linear probe on the untouched model (layer {probe['layer']})"
            axes.plot(probe["twins"], probe["harmful"], color="0.6", label=label, zorder=1)
        for place, found in enumerate(rows.values()):
            x, y = over_seeds(found, "twins"), over_seeds(found, "harmful")
            axes.errorbar(
                x.value,
                y.value,
                xerr=[[max(0.0, x.value - x.low)], [max(0.0, x.high - x.value)]],
                yerr=[[max(0.0, y.value - y.low)], [max(0.0, y.high - y.value)]],
                fmt=MARKS[found[0].kind],
                color=matplotlib.colormaps["tab20"](place % 20),
                elinewidth=0.6,
                markeredgecolor="0.2",
                markeredgewidth=0.5,
                label=found[0].title,
            )
        axes.set(
            xlabel="harmless twins refused",
            ylabel="harmful requests refused",
            xlim=(-0.02, 1.02),
            ylim=(-0.02, 1.02),
        )
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8)
        return figure

    return write_figure(draw, folder)
