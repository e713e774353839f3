"""The frame of a trade-off plot: benign prompts refused along, harmful ones refused upwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

from demur import figures
from demur.report.svg import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def trade_off_frame(axes: Axes, prompts: str, narrow: bool) -> None:
    """Draw a quiet frame with a grid, shares as percentages, and what is better on each axis.

    Args:
        prompts: what was asked, such as `prompts` or `search prompts`.
        narrow: whether the plot is for a small screen.
    """
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(COLOURS["line"])
    axes.patch.set_visible(False)
    axes.grid(color=COLOURS["line"], linewidth=1)
    axes.set_axisbelow(True)
    axes.locator_params(nbins=5 if narrow else 8)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{100 * value:.4g}{figures.SPACE}%")
        axis.set_tick_params(
            length=0, pad=8, labelcolor=COLOURS["muted"], labelsize=11 if narrow else 12
        )
    size, colour = 11.5 if narrow else 13, COLOURS["ink"]
    axes.set_xlabel(
        f"Benign {prompts} refused {figures.ARROW} worse", color=colour, fontsize=size, labelpad=10
    )
    axes.set_title(
        f"Harmful {prompts} refused \N{UPWARDS ARROW} better",
        color=colour,
        fontsize=size,
        loc="left",
        pad=12,
    )
