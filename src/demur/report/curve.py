"""The trade-off curve: harmful refused against benign refused, the chosen point marked."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from demur.measure.scorecard import CurvePoint
from demur.report.svg import COLOURS, SETTINGS, canvas, clipped
from demur.report.trade_off_frame import trade_off_frame

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class _Box:
    """A rectangle in pixels, upwards."""

    left: float
    low: float
    right: float
    high: float

    def meets(self, other: _Box) -> bool:
        beside = self.right < other.left or other.right < self.left
        return not (beside or self.high < other.low or other.high < self.low)


def draw_curve(
    points: Sequence[CurvePoint],
    width: int,
    height: int,
    *,
    word: str = "chosen",
    joined: bool = True,
) -> Figure:
    """Draw harmful against benign refused, `width` by `height` pixels, with every interval.

    Args:
        word: what the chosen point is called.
        joined: whether a line goes through the points, which then are steps of one thing.
    """
    import matplotlib

    narrow = width < 500
    with matplotlib.rc_context(SETTINGS):
        figure = canvas(width, height)
        left, bottom = (46 if narrow else 62) / width, 54 / height
        top = 28 / height
        axes = figure.add_axes((left, bottom, 1 - left - 14 / width, 1 - bottom - top))
        _frame(axes, points, narrow)
        benign = [each.benign.value for each in points]
        harmful = [each.harmful.value for each in points]
        if joined:
            axes.plot(benign, harmful, color=COLOURS["before"], linewidth=1.5, alpha=0.6, zorder=2)
        for each in points:
            _point(axes, each)
        _labels(axes, points, narrow, word)
    return figure


def _frame(axes: Axes, points: Sequence[CurvePoint], narrow: bool) -> None:
    """Set the limits, which show every interval, and a quiet frame."""
    right = _ceiling(each.benign.high for each in points)
    floor = math.floor(20 * min(each.harmful.low for each in points)) / 20
    margin = 0.04 * (1.0 - floor)
    axes.set_xlim(-0.02 * right, right)
    axes.set_ylim(floor - 2 * margin, 1 + margin)
    trade_off_frame(axes, "prompts", narrow)


def _ceiling(values: Iterable[float]) -> float:
    """Return the next twentieth above all values, at least a tenth and at most one."""
    return min(1.0, max(0.1, math.ceil(20 * max(values) + 0.2) / 20))


def _point(axes: Axes, each: CurvePoint) -> None:
    """Draw one point with both its intervals; the chosen one larger, with a ring."""
    colour = COLOURS["after" if each.chosen else "before"]
    x, y = each.benign.value, each.harmful.value
    strength, width = (0.7, 2.0) if each.chosen else (0.35, 1.5)
    across, along = [each.benign.low, each.benign.high], [each.harmful.low, each.harmful.high]
    for xs, ys in ((across, [y, y]), ([x, x], along)):
        axes.plot(xs, ys, color=colour, linewidth=width, alpha=strength, zorder=3)
    if each.chosen:
        axes.plot(
            [x],
            [y],
            color=colour,
            marker="o",
            markersize=20,
            markerfacecolor="none",
            markeredgecolor=colour,
            markeredgewidth=1.5,
            zorder=4,
            clip_on=False,
        )
    axes.plot(
        [x],
        [y],
        color=colour,
        marker="o",
        markersize=10 if each.chosen else 8,
        markeredgewidth=2,
        markeredgecolor=colour,
        zorder=4,
        clip_on=False,
        markerfacecolor=colour if each.chosen else COLOURS["surface"],
    )


def _labels(axes: Axes, points: Sequence[CurvePoint], narrow: bool, word: str) -> None:
    """Name the chosen point, and each other one where its name meets no other thing."""
    size = 11.0 if narrow else 12.0
    dots = [axes.transData.transform((p.benign.value, p.harmful.value)) for p in points]
    taken = [_Box(x - 7, y - 7, x + 7, y + 7) for x, y in dots]
    edge = axes.bbox
    for each, (x, y) in sorted(zip(points, dots, strict=True), key=lambda pair: not pair[0].chosen):
        full = f"{word}: {each.label}" if each.chosen else each.label
        words = clipped(full, 20 if narrow else 34)
        width = (0.68 if each.chosen else 0.62) * size * len(words)
        for across, down in ((14, -18), (14, 16), (-14, 16), (-14, -18)):
            left = x + across if across > 0 else x + across - width
            box = _Box(left, y + down - size / 2 - 2, left + width, y + down + size / 2 + 2)
            inside = box.left > edge.x0 and box.right < edge.x1
            inside = inside and box.low > edge.y0 and box.high < edge.y1
            if not inside or any(box.meets(other) for other in taken):
                continue
            taken.append(box)
            _name(axes, each, words, (across, down), size)
            break


def _name(axes: Axes, each: CurvePoint, words: str, offset: tuple[int, int], size: float) -> None:
    axes.annotate(
        words,
        (each.benign.value, each.harmful.value),
        xytext=offset,
        textcoords="offset points",
        ha="left" if offset[0] > 0 else "right",
        va="center_baseline",
        color=COLOURS["ink" if each.chosen else "muted"],
        fontsize=size,
        fontweight="bold" if each.chosen else "normal",
        parse_math=False,
        annotation_clip=False,
        zorder=5,
    )
