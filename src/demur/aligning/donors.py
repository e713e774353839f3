"""Who could give a model its refusals without training: an aligned relative on this machine.

    looked = look_for_donors(config, context)
    for donor in looked.donors: ...

A donor that the user names stands alone. Else the model's card (or config) says what the model was
made from, and looked for are, the likeliest first: patches that demur made for that base, in runs
beside this one ("distil once, graft everywhere"); and the base's aligned siblings by the names that
publishers give them, or the base itself where it is aligned. Nothing is fetched for this: what is
not on this machine or in the hub's cache is only named.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from demur.aligning.config import AlignConfig
from demur.checkpoint import read_patch
from demur.errors import CheckpointError, DemurError
from demur.models.lineage import aligned_names, lineage_of
from demur.models.resolve import ALIASES, ResolvedModel, resolve
from demur.run.folder import PATCH
from demur.treating.stages import Context

MOST = 3  # that are tried


@dataclass(frozen=True)
class Donor:
    """One that could give.

    Attributes:
        name: as `GraftConfig.donor` has it.
        base: the model that it and the recipient were made from; None where that is not at hand.
        found: how it was come by, for a sentence; empty of one that the user named.
    """

    name: str
    base: str | None
    found: str


@dataclass(frozen=True)
class Looked:
    """What looking came to: donors, the likeliest first, and a sentence for the user."""

    donors: tuple[Donor, ...]
    sentence: str


def look_for_donors(config: AlignConfig, context: Context) -> Looked:
    """Return who could give; what was found first is kept for when the run goes on."""
    if config.donor is not None:
        return Looked((Donor(config.donor, config.base, ""),), f"The donor is {config.donor}.")
    journal = context.folder.journal
    known = journal.fact("donors")
    if known is not None:
        return Looked(tuple(Donor(**one) for one in known["donors"]), known["sentence"])
    looked = _look(config, context)
    journal.keep_fact("donors", asdict(looked))
    return looked


def _look(config: AlignConfig, context: Context) -> Looked:
    lineage = lineage_of(context.resolved.folder)
    bases = [name for name in lineage.bases if not _same(name, config.model)]
    if not bases:
        return Looked((), "No donor is known: the model does not say what it was made from.")
    found: list[Donor] = []
    missing: list[str] = []
    for base in bases:
        here = _here(base, config)
        if here is not None:
            found += [Donor(str(path), base, "made for it") for path in _patches(base, context)]
        for name in aligned_names(base):
            if _same(name, config.model):
                continue
            sibling = here if name == base else _here(name, config)
            if sibling is None:
                missing.append(name)
            elif sibling.folder.resolve() != context.resolved.folder.resolve():
                own = name == base
                how = "which is aligned itself" if own else "its aligned sibling by name"
                found.append(Donor(name, None if own or here is None else base, how))
    said = f"Its {'card' if lineage.source != 'config.json' else 'config'} names {bases[0]} as base"
    if found:
        first = found[0]
        return Looked(tuple(found[:MOST]), f"{said}; found: {first.name}, {first.found}.")
    return Looked(
        (),
        f"{said}; no aligned relative of it is on this machine (such as {missing[0]}), and none is "
        "fetched unless it is named with --donor."
        if missing
        else f"{said}; no other relative of it is known.",
    )


def _here(name: str, config: AlignConfig) -> ResolvedModel | None:
    """Return a model that is on this machine, or None."""
    try:
        return resolve(name, offline=True, trust_remote_code=config.trust_remote_code)
    except DemurError:
        return None


def _patches(base: str, context: Context) -> Iterator[Path]:
    """Yield the patches for `base` of finished runs beside this one, the newest first."""
    own = context.folder.path
    paths = [
        path
        for path in own.resolve().parent.glob(f"*/{PATCH}")
        if path.parent != own.resolve() and (path.parent / "result.json").is_file()
    ]
    for path in sorted(paths, key=lambda one: -one.stat().st_mtime):
        try:
            made_for = read_patch(path).manifest.base_name
        except CheckpointError:
            continue
        if _same(made_for, base):
            yield path


def _same(one: str, other: str) -> bool:
    """Return whether two names mean one model: alike, an alias and its hub id, or one folder."""
    hub = {alias: entry.hub for alias, entry in ALIASES.items()}
    if hub.get(one.lower(), one) == hub.get(other.lower(), other):
        return True
    first, second = Path(one).expanduser(), Path(other).expanduser()
    return first.is_dir() and second.is_dir() and first.resolve() == second.resolve()
