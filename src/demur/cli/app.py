"""What the commands share: the app, names of options, and how results are printed."""

from __future__ import annotations

import json as json_format
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Group, Parameter

from demur import __version__
from demur.options import MODEL

if TYPE_CHECKING:
    from rich.console import Console

OUTPUT = Parameter(group=Group.create_ordered("Output"))
Json = Annotated[bool, OUTPUT]
Out = Annotated[Path, Parameter(name=("--out", "-o"), group=OUTPUT.group)]
Trust = Annotated[bool, MODEL]

app = App(
    name="demur",
    help="Gives open-weight language models their refusals back, and proves it.",
    version=__version__,
    default_parameter=Parameter(negative=()),
    help_format="plaintext",
    suppress_keyboard_interrupt=False,
)


def say(text: str) -> None:
    """Print a line for the user, on standard error."""
    print(text, file=sys.stderr)


def print_json(value: Mapping[str, Any]) -> None:
    """Print a result as one JSON object."""
    print(json_format.dumps(value, indent=2, ensure_ascii=True))


def stdout() -> Console:
    """Return a console for tables on standard output."""
    from rich.console import Console

    # a file or a pipe has no width of its own, and 80 columns would break the table's cells
    return Console(soft_wrap=False, highlight=False, width=None if sys.stdout.isatty() else 110)
