"""Heat maps as SVG in the page's own colours: layers from left to right, places or kinds below.

Drawn as `report/plots.py` draws: twice, wide and narrow. An effect is the depth of a colour; one
that goes the other way is of the other colour, so that a sign is never told by depth alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from demur import figures
from demur.report.plots import NARROW, WIDE, Plot
from demur.report.svg import COLOURS, SETTINGS, canvas, clipped, draw_words, embed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Box = tuple[float, float, float, float]
_HEAD, _FOOT, _LEGEND = 12, 30, 32


@dataclass(frozen=True)
class HeatMap:
    """What is drawn.

    Attributes:
        name: of the drawing's ids.
        title: what is to be seen.
        rows: names, from top to bottom.
        values: of each row, one a layer; NaN where there is none.
        most: the value of the deepest colour.
        unit: how the legend writes a value, such as `{:.1f} nats`.
        up, down: what the two colours say.
    """

    name: str
    title: str
    rows: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]
    most: float
    unit: str
    up: str
    down: str


def heat_map(what: HeatMap) -> Plot:
    """Return the drawing in both widths."""
    best = [
        f"{row}: most at layer {_largest(values)}"
        for row, values in zip(what.rows, what.values, strict=True)
        if not all(map(math.isnan, values))
    ]
    label = figures.plain("; ".join(best))
    drawings = [
        embed(_draw(what, width), f"{what.name}-{shape}", what.title, label, shape)
        for shape, width in (("wide", WIDE), ("narrow", NARROW))
    ]
    return Plot(*drawings)


def _largest(values: Sequence[float]) -> int:
    return max(range(len(values)), key=lambda i: -math.inf if math.isnan(values[i]) else values[i])


def _draw(what: HeatMap, width: int) -> Figure:
    import matplotlib

    narrow = width < 500
    left, right = (8, width - 8) if narrow else (200, width - 16)
    height_of_row = 18 if len(what.rows) > 8 else 26
    step = height_of_row + (20 if narrow else 4)
    legend = (2 if narrow else 1) * _LEGEND
    height = _HEAD + step * len(what.rows) + _FOOT + legend
    layers = max(map(len, what.values))
    across = (right - left) / layers
    boxes: list[Box] = []
    depths: list[float] = []
    with matplotlib.rc_context(SETTINGS):
        figure = canvas(width, height)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set_xlim(0, width)
        axes.set_ylim(height, 0)
        for place, (name, values) in enumerate(zip(what.rows, what.values, strict=True)):
            top = _HEAD + place * step + (20 if narrow else 0)
            if narrow:
                draw_words(axes, left, top - 10, clipped(name, 44), 13)
            else:
                middle = top + height_of_row / 2
                draw_words(axes, left - 12, middle, clipped(name, 26), 12.5, align="right")
            for layer, value in enumerate(values):
                boxes.append((left + layer * across, top, across, height_of_row))
                depths.append(value / what.most if what.most else 0.0)
        _cells(axes, boxes, depths)
        size = 12.5 if narrow else 11
        below = _HEAD + step * len(what.rows) + 12
        if not narrow:
            draw_words(axes, left - 12, below, "layer", size, colour="muted", align="right")
        for layer in range(0, layers, _every(across)):
            x = left + (layer + 0.5) * across
            if narrow and not layer:
                draw_words(axes, left, below, f"layer {layer}", size, colour="muted")
            else:
                draw_words(axes, x, below, str(layer), size, colour="muted", align="center")
        _legend(axes, what, left, height - legend, narrow)
    return figure


def _every(across: float) -> int:
    return next(step for step in (1, 2, 5, 10, 20, 50) if step * across >= 22 or step == 50)


def _cells(axes: Axes, boxes: Sequence[Box], depths: Sequence[float]) -> None:
    """Draw cells (x, y, width, height): a ground that shows where one is, and its depth on it.

    Together, since there are thousands.
    """
    from matplotlib.collections import PolyCollection
    from matplotlib.colors import to_rgba

    corners = [
        ((x, y), (x + width - 1, y), (x + width - 1, y + height), (x, y + height))
        for x, y, width, height in boxes
    ]
    deep = [
        (place, to_rgba(COLOURS["after" if depth > 0 else "bad"], round(min(1, abs(depth)), 3)))
        for place, depth in zip(corners, depths, strict=True)
        if not math.isnan(depth) and depth
    ]
    ground = to_rgba(COLOURS["line"], 0.45)
    for drawn in ([(place, ground) for place in corners], deep):
        colours = [colour for _, colour in drawn]
        polygons = PolyCollection(
            [place for place, _ in drawn], facecolors=colours, linewidths=0, zorder=2
        )
        axes.add_collection(polygons, autolim=False)


def _legend(axes: Axes, what: HeatMap, left: float, top: float, narrow: bool) -> None:
    """Say what the colours mean; on narrow drawings, in two lines."""
    size, box = 12.5 if narrow else 11.0, 14
    most = f"{what.up}, up to {what.unit.format(what.most)}"
    x, y = float(left), top + _LEGEND / 2
    for depths, text in (((0.15, 0.5, 1.0), most), ((-0.15, -0.5, -1.0), what.down)):
        places = [x + (box + 2) * number for number in range(len(depths))]
        _cells(axes, [(place, y - box / 2, box, box) for place in places], depths)
        x = places[-1] + box + 6
        draw_words(axes, x, y, text, size, colour="muted")
        x, y = (float(left), y + _LEGEND - 10) if narrow else (x + 0.56 * size * len(text) + 24, y)
