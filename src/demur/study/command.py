"""The command that makes a study again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from demur.run.command import options
from demur.run.folder import default_folder
from demur.study.config import StudyConfig


def command_line(config: StudyConfig, run: Path, identity: Mapping[str, Any]) -> str:
    """Return the command, shell-quoted, with every choice that is no default.

    Args:
        identity: what the study's default folder is named after.
    """
    words = ["demur", "study", *config.sources, *options(config, repeated=True)]
    if run != default_folder("study", identity):
        words += ["--run", str(run)]
    return shlex.join(words)
