"""The two plots of a graft: what was to be had on search prompts, and which modules were taken.

Each is drawn twice, wide and narrow, as those of `plots.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from demur import figures
from demur.report.content import GraftFacts, GraftModule, GraftPoint
from demur.report.plots import NARROW, WIDE, Plot
from demur.report.svg import COLOURS, SETTINGS, canvas, draw_words, embed
from demur.report.trade_off_frame import trade_off_frame

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

AREAS = (16.0, 420.0)  # of a dot, in square pixels, from no share of the parameters to the largest
Box = tuple[float, float, float, float]  # left, low, right and high, in pixels
FAINTEST = 0.12  # of a module that has next to no effect


def front_plot(points: Sequence[GraftPoint]) -> Plot:
    """Return harmful against benign refused on search prompts; dots are as large as their share."""
    parts = [
        f"{each.label}: {figures.percent(each.harmful.value)} of harmful and "
        f"{figures.percent(each.over_refusal)} of benign refused with "
        f"{figures.percent(each.share)} of the parameters{', chosen' * (each.role == 'chosen')}"
        for each in points
        if each.front or each.role != "tried"
    ]
    label = figures.plain("; ".join(parts))
    drawings = [
        embed(_draw_front(points, width, height), f"front-{shape}", "The front", label, shape)
        for shape, width, height in (("wide", WIDE, 440), ("narrow", NARROW, 360))
    ]
    return Plot(*drawings)


def modules_plot(facts: GraftFacts) -> Plot:
    """Return a cell for every module, a column a layer and a row a kind; those taken are filled."""
    kept = ", ".join(f"{each.kind} of layer {each.layer}" for each in facts.kept)
    label = f"{len(facts.kept)} of {len(facts.modules)} modules were taken: {kept}"
    drawings = [
        embed(_draw_modules(facts.modules, width), f"modules-{shape}", "Modules", label, shape)
        for shape, width in (("wide", WIDE), ("narrow", NARROW))
    ]
    return Plot(*drawings)


def _draw_front(points: Sequence[GraftPoint], width: int, height: int) -> Figure:
    import matplotlib

    narrow = width < 500
    with matplotlib.rc_context(SETTINGS):
        figure = canvas(width, height)
        left, bottom, top = (46 if narrow else 62) / width, 54 / height, 28 / height
        axes = figure.add_axes((left, bottom, 1 - left - 14 / width, 1 - bottom - top))
        _frame(axes, points, narrow)
        largest = max((each.share for each in points), default=0.0) or 1.0
        for each in sorted(points, key=lambda one: (one.role == "chosen", one.front)):
            _dot(axes, each, largest)
        _names(axes, points, narrow)
    return figure


def _frame(axes: Axes, points: Sequence[GraftPoint], narrow: bool) -> None:
    right = max(0.1, math.ceil(20 * max(each.over_refusal for each in points) + 0.2) / 20)
    axes.set_xlim(-0.04 * right, 1.04 * min(1.0, right))
    axes.set_ylim(-0.05, 1.05)
    trade_off_frame(axes, "search prompts", narrow)


def _dot(axes: Axes, each: GraftPoint, largest: float) -> None:
    """Draw one point with the interval of its harmful rate."""
    colour = COLOURS["after" if each.front or each.role == "chosen" else "before"]
    x, y = each.over_refusal, each.harmful.value
    area = AREAS[0] + (AREAS[1] - AREAS[0]) * each.share / largest
    if each.role != "tried":
        ends = [each.harmful.low, each.harmful.high]
        axes.plot([x, x], ends, color=colour, linewidth=2, alpha=0.5, zorder=3)
    marker = {"untouched": "s", "donor": "D"}.get(each.role, "o")
    axes.plot(
        [x],
        [y],
        color=colour,
        marker=marker,
        markersize=math.sqrt(area if marker == "o" else 64),
        markeredgecolor=colour,
        markeredgewidth=1.5,
        markerfacecolor=colour if each.role == "chosen" else "none",
        alpha=1.0 if each.front or each.role != "tried" else 0.6,
        zorder=5 if each.role == "chosen" else 4,
        clip_on=False,
    )


def _names(axes: Axes, points: Sequence[GraftPoint], narrow: bool) -> None:
    """Name the chosen graft and what it is held against; of the rest of the front say the share.

    A name that would meet a dot or another name goes elsewhere, and a share then stays out.
    """
    size = 11.0 if narrow else 12.0
    places = [axes.transData.transform((each.over_refusal, each.harmful.value)) for each in points]
    taken = [(x - 9, y - 9, x + 9, y + 9) for x, y in places]
    ranks = ("chosen", "untouched", "donor", "tried")
    named = sorted(zip(points, places, strict=True), key=lambda one: ranks.index(one[0].role))
    for each, (x, y) in named:
        share = f"{100 * each.share:.2g}{figures.SPACE}%"
        words = {"chosen": f"chosen, {share}", "untouched": "untouched", "donor": "whole donor"}
        text = words.get(each.role, share if each.front else "")
        width, away = 0.62 * size * len(text), 13
        spots = [(side, down) for down in (0, -18, 18) for side in (1, -1)]
        for side, down in spots if text else ():
            left = x + away if side > 0 else x - away - width
            box = (left, y + down - 8, left + width, y + down + 8)
            inside = box[0] > axes.bbox.x0 and box[2] < axes.bbox.x1
            if inside and not any(_meet(box, other) for other in taken):
                break
        else:
            continue
        taken.append(box)
        axes.annotate(
            text,
            (each.over_refusal, each.harmful.value),
            xytext=(side * away, down),
            textcoords="offset points",
            ha="left" if side > 0 else "right",
            va="center_baseline",
            color=COLOURS["ink" if each.role == "chosen" else "muted"],
            fontsize=size,
            fontweight="bold" if each.role == "chosen" else "normal",
            parse_math=False,
            annotation_clip=False,
            zorder=6,
        )


def _meet(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _draw_modules(modules: Sequence[GraftModule], width: int) -> Figure:
    import matplotlib
    from matplotlib.patches import Rectangle

    kinds = list(dict.fromkeys(each.kind for each in modules))
    depth = 1 + max(each.layer for each in modules)
    left, right, row = 56, 8, 22
    step = (width - left - right) / depth
    gap = 2 if step > 8 else 0.5
    strongest = max((each.effect or 0.0 for each in modules), default=0.0) or 1.0
    height = row * len(kinds) + 52
    with matplotlib.rc_context(SETTINGS):
        figure = canvas(width, height)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set_xlim(0, width)
        axes.set_ylim(height, 0)
        for place, kind in enumerate(kinds):
            draw_words(axes, 8, 8 + row * (place + 0.5), kind, 12)
        for each in modules:
            strength = max(0.0, each.effect or 0.0) / strongest
            corner = (left + each.layer * step, 8 + row * kinds.index(each.kind))
            axes.add_patch(
                Rectangle(
                    corner,
                    step - gap,
                    row - 3,
                    linewidth=0,
                    facecolor=COLOURS["after" if each.kept else "before"],
                    alpha=1.0
                    if each.kept
                    else FAINTEST + (0.5 - FAINTEST) * strength
                    if each.changed
                    else 0.05,
                )
            )
        every = next(size for size in (1, 2, 4, 5, 10, 20, 50) if step * size >= 24 or size == 50)
        bottom = 8 + row * len(kinds) + 10
        for layer in range(0, depth, every):
            x = left + (layer + 0.5) * step
            draw_words(axes, x, bottom, str(layer), 11, colour="muted", align="center")
        draw_words(axes, left, bottom + 20, "layer", 11, colour="muted")
    return figure
