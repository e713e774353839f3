"""The command that makes a study again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from demur.run.folder import default_folder
from demur.study.config import StudyConfig


def command_line(config: StudyConfig, run: Path, identity: Mapping[str, Any]) -> str:
    """Return the command, shell-quoted, with every choice that is no default.

    Args:
        identity: what the study's default folder is named after.
    """
    words = ["demur", "study", *config.sources]
    for each in fields(config):
        value = getattr(config, each.name)
        if each.default is MISSING or value == each.default:
            continue
        flag = f"--{each.name.replace('_', '-')}"
        if isinstance(value, bool):
            words.append(flag)
        elif isinstance(value, tuple):
            words += [word for item in value for word in (flag, item)]
        else:
            words.append(f"{flag}={value}" if str(value)[:1] in ("", "-") else flag)
            words += [] if str(value)[:1] in ("", "-") else [str(value)]
    if run != default_folder("study", identity):
        words += ["--run", str(run)]
    return shlex.join(words)
