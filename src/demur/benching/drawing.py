"""A bench's plot as an SVG file of its own: text stays text, and the same figure the same bytes."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from demur.report.files import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PLOT = "bench.svg"
SETTINGS = {"svg.fonttype": "none", "svg.hashsalt": "demur"}


def write_figure(draw: Callable[[], Figure], folder: Path) -> Path:
    """Draw a figure, and write it as the folder's plot."""
    import matplotlib

    stream = io.StringIO()
    with matplotlib.rc_context(SETTINGS):
        figure = draw()
        figure.tight_layout()
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return write_text(folder / PLOT, stream.getvalue())
