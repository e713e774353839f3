"""The versions that a run was made with."""

from __future__ import annotations

import platform
from importlib import metadata

from demur import __version__

LIBRARIES = ("torch", "transformers", "trl", "peft", "datasets", "safetensors", "numpy")


def versions() -> tuple[tuple[str, str], ...]:
    """Return the versions of what made the run: demur, python, the libraries, the platform."""
    found = [("demur", __version__), ("python", platform.python_version())]
    for name in LIBRARIES:
        try:
            found.append((name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            found.append((name, "unknown"))
    return (*found, ("platform", f"{platform.system()} {platform.machine()}"))
