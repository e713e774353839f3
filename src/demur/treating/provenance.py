"""Where a run comes from: its exact command, configuration, prompts, licence and versions."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demur.models.config import read_config
from demur.models.lineage import front_matter
from demur.models.resolve import ALIASES, ResolvedModel
from demur.prompts.split import evenly
from demur.prompts.types import KINDS, SPLITS, Kind, Split, Splits, of_kind
from demur.report.content import PromptRow
from demur.run.command import options
from demur.run.folder import default_folder
from demur.treating.config import TreatmentConfig

if TYPE_CHECKING:
    from demur.treating.stages import Context


def command_line(
    config: TreatmentConfig, run: Path, identity: Mapping[str, Any] | None = None
) -> str:
    """Return the command that makes a run, shell-quoted, with every choice that is no default.

    Args:
        identity: what the run's default folder is named after; by default the configuration alone.
    """
    words = ["demur", config.verb, config.model, *options(config)]
    if run != default_folder(config.model, identity or config.resolved()):
        words += ["--run", str(run)]
    return shlex.join(words)


def licence(resolved: ResolvedModel) -> str:
    """Return the base model's licence as the hub spells it, or `other` where it is not said."""
    alias = ALIASES.get(resolved.name.lower())
    if resolved.kind == "alias" and alias is not None:
        return alias.license
    said = front_matter(resolved.folder / "README.md").get("license")
    said = said or read_config(resolved.folder).get("license")
    return said if isinstance(said, str) and said else "other"


def prompt_rows(context: Context, splits: Splits) -> tuple[PromptRow, ...]:
    """Return the prompt sets: each kind as a whole, and what was used of it in each split."""
    config = context.config
    journal = context.folder.journal
    lessons = journal.fact("lessons") or journal.fact("searched") or {}
    counts: dict[tuple[Split, Kind], int] = {
        ("validation", "harmful"): config.validation_pairs,
        ("validation", "twin"): config.validation_pairs,
        ("validation", "ordinary"): config.validation_pairs,
        ("test", "harmful"): config.test_pairs,
        ("test", "twin"): config.test_pairs,
        ("test", "ordinary"): config.test_ordinary,
    }
    rows = []
    for kind in KINDS:
        whole = [prompt for name in SPLITS for prompt in of_kind(splits.of(name), kind)]
        removed = sum(prompt.kind == kind for prompt, _ in splits.removed)
        name = _set_name({prompt.source for prompt in whole}, kind)
        if whole:
            rows.append(PromptRow(name, "all", kind, len(whole), removed))
        for split in SPLITS:
            found = of_kind(splits.of(split), kind)
            used = (
                int(lessons.get(kind, len(found)))
                if split == "train"
                else len(evenly(found, counts[split, kind], config.seed))
            )
            if used:
                rows.append(PromptRow(name, split, kind, used, 0))
    return tuple(rows)


def hub_id(resolved: ResolvedModel) -> str | None:
    """Return the base model's hub id, where it is known for certain."""
    if resolved.kind == "alias":
        return ALIASES[resolved.name.lower()].hub
    return resolved.name if resolved.kind == "hub" else None


def method(context: Context) -> tuple[tuple[str, str], ...]:
    """Return the resolved configuration, and what `auto` came to."""

    def shown(value: object) -> str:
        if value is None:
            return "not set"
        if isinstance(value, bool):
            return "yes" if value else "no"
        if isinstance(value, tuple):
            return ", ".join(str(item) for item in value) or "none"
        return str(value)

    pairs = [(each.name, getattr(context.config, each.name)) for each in fields(context.config)]
    placement = context.placement
    found = [(name.replace("_", " "), shown(value)) for name, value in pairs]
    return (*found, ("ran on", f"{placement.device}, {placement.dtype}"))


def _set_name(sources: Iterable[str], kind: str) -> str:
    named = {source.split("/")[0] if source.startswith("builtin") else source for source in sources}
    if named == {"builtin"}:
        return "built-in ordinary instructions" if kind == "ordinary" else "built-in contrast set"
    return ", ".join(sorted(named))


def is_card_of_demur(path: Path) -> bool:
    """Return whether a README is a card that demur wrote."""
    tags = front_matter(path).get("tags")
    return isinstance(tags, list) and "demur" in tags
