"""The command that makes a trace again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from demur.run.command import options
from demur.run.folder import default_folder
from demur.tracing.config import TraceConfig


def command_line(config: TraceConfig, run: Path, identity: Mapping[str, Any]) -> str:
    """Return the command, shell-quoted, with every choice that is no default.

    Args:
        identity: what the trace's default folder is named after.
    """
    words = ["demur", "trace", config.model, *options(config)]
    if run != default_folder(trace_name(config), identity):
        words += ["--run", str(run)]
    return shlex.join(words)


def trace_name(config: TraceConfig) -> str:
    """Return what the default folder of a trace is called, before its hash."""
    return f"trace-{Path(config.model).name}"
