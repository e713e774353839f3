"""Which models a model says that it was made from: its card's `base_model`, or its config.

`aligned_names` guesses from a base's name under which names an aligned sibling would be found.

What is found are names to give to `resolve`; whether they are relatives is for `check_family`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demur.models.config import read_config

CARD = "README.md"
# How publishers call models that were taught to follow instructions, and mostly to refuse.
ALIGNED = ("Instruct", "Chat", "instruct", "chat", "it", "aligned")
ALIGNED_NAME = re.compile(r"(?:^|[-_.])(?:instruct|chat|it|aligned|rlhf|dpo)(?:$|[-_.])", re.I)
VERSION = re.compile(r"[-_](?:v\d[\w.]*|hf)$", re.I)
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


@dataclass(frozen=True)
class Lineage:
    """Where a model says that it comes from.

    Attributes:
        folder: the model.
        bases: what it was made from, the nearest first: hub names or folders on this machine.
        relation: what the card calls it, such as `finetune`, `merge` or `quantized`, or None.
        source: the file that says so, or None where none does.
    """

    folder: Path
    bases: tuple[str, ...]
    relation: str | None
    source: str | None


def lineage_of(folder: Path) -> Lineage:
    """Return what the model card's front matter names as base, or else the config.

    Names that cannot be found from here (a path on someone else's machine) are left out, and so
    is the folder itself. A card without front matter, or whose front matter is broken, says
    nothing.

    Raises:
        ModelError: there is no readable config.json.
    """
    config = read_config(folder)
    card = front_matter(folder / CARD)
    named = card.get("base_model")
    names = named if isinstance(named, list) else [named]
    if bases := _usable(folder, names):
        relation = card.get("base_model_relation")
        return Lineage(folder, bases, relation if isinstance(relation, str) else None, CARD)
    bases = _usable(folder, [config.get("_name_or_path")])
    return Lineage(folder, bases, None, "config.json" if bases else None)


def aligned_names(base: str) -> tuple[str, ...]:
    """Return what an aligned sibling of a base may be called, by the habits of publishers.

    A base whose own name says that it is aligned stands alone: what was made from it may have lost
    what it still has.

    Args:
        base: a hub name or a folder.
    """
    base = base.rstrip("/")
    parent, slash, name = base.rpartition("/")
    if ALIGNED_NAME.search(name):
        return (base,)
    version = VERSION.search(name)
    stem, tail = (name[: version.start()], version.group()) if version else (name, "")
    return tuple(f"{parent}{slash}{stem}-{word}{tail}" for word in ALIGNED)


def front_matter(path: Path) -> dict[str, Any]:
    """Return what stands between the first two lines of dashes of a card; {} if nothing does."""
    import yaml  # type: ignore[import-untyped]

    try:
        text = path.read_text(encoding="utf-8")
        parts = text.split("---\n", 2)
        found = yaml.safe_load(parts[1]) if len(parts) == 3 and not parts[0].strip() else None
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def _usable(folder: Path, names: list[Any]) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for name in names:
        if not isinstance(name, str) or not name:
            continue
        local = Path(name).expanduser()
        if local.is_dir():
            if local.resolve() != folder.resolve() and (local / "config.json").is_file():
                found[name] = None
        elif HUB_NAME.fullmatch(name):
            found[name] = None
    return tuple(found)
