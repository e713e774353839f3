"""A measurement in a process of its own, so that its peak memory is its own too."""

from __future__ import annotations

import json
import multiprocessing
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any


def apart(measure: Callable[..., None], *given: Any) -> Any:
    """Return what `measure(*given, path)` writes to the path as JSON, run by another process.

    Raises:
        SystemExit: that process failed, and has said why.
    """
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        context = multiprocessing.get_context("spawn")
        process = context.Process(target=measure, args=(*given, result))
        process.start()
        process.join()
        if process.exitcode:
            raise SystemExit(1)
        return json.loads(result.read_text(encoding="utf-8"))
