"""The command that makes a trace again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from demur.run.folder import default_folder
from demur.tracing.config import TraceConfig


def command_line(config: TraceConfig, run: Path, identity: Mapping[str, Any]) -> str:
    """Return the command, shell-quoted, with every choice that is no default.

    Args:
        identity: what the trace's default folder is named after.
    """
    words = ["demur", "trace", config.model]
    for each in fields(config):
        value = getattr(config, each.name)
        if each.default is MISSING or value == each.default:
            continue
        flag = f"--{each.name.replace('_', '-')}"
        if isinstance(value, bool):
            words.append(flag)
        elif isinstance(value, tuple):
            words += [flag, *map(str, value)]
        elif not str(value) or str(value).startswith("-"):
            words.append(f"{flag}={value}")
        else:
            words += [flag, str(value)]
    if run != default_folder(trace_name(config), identity):
        words += ["--run", str(run)]
    return shlex.join(words)


def trace_name(config: TraceConfig) -> str:
    """Return what the default folder of a trace is called, before its hash."""
    return f"trace-{Path(config.model).name}"
