"""The relatives of a recipient: the donor that it is to take from, and the base of both.

A donor is a model, or a patch that demur wrote: what one sibling was taught can then be tried on
any other without keeping the whole donor. The donor of a patch is the patch's base with it, and
that base is taken for the base of both unless another is named.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from demur.checkpoint import apply_patch, read_patch
from demur.errors import DemurError
from demur.graft.wanted import NothingToGive
from demur.grafting.config import GraftConfig
from demur.models.family import Family, check_family
from demur.models.lineage import lineage_of
from demur.models.resolve import ResolvedModel, resolve
from demur.treating.apart import require_apart
from demur.treating.stages import Context

DONOR = "donor"


@dataclass(frozen=True)
class Relatives:
    """Where donor and base lie, and what recipient and donor have in common.

    Attributes:
        donor: its folder.
        donor_name, base_name: what the user, the patch or the model's card calls them.
        base: folder of the model that both were made from; None if there is none.
        family: how near they are, and what differs.
    """

    donor: Path
    donor_name: str
    base: Path | None
    base_name: str | None
    family: Family


def find_relatives(config: GraftConfig, context: Context, *, offline: bool = False) -> Relatives:
    """Find the donor and the base that a configuration names, and check that they are relatives.

    Args:
        offline: whether they are taken from this machine only; what is fetched is said otherwise.

    Raises:
        NothingToGive: the base is the donor itself.
        NotRelatives: they are not of the recipient's family.
        TaughtTheTest: the donor was trained on prompts that this run reports from.
        DemurError: one of them cannot be found.
    """
    base = config.base
    if config.donor.endswith(".safetensors") and Path(config.donor).is_file():
        require_apart(config, Path(config.donor), f"donor {config.donor}")
        donor, base = _patched(Path(config.donor), base, context, offline)
    else:
        donor = _resolved(config.donor, context, offline).folder
        require_apart(config, donor, f"donor {config.donor}")
    found = None if base is None else _resolved(base, context, offline).folder
    if found is None:
        found, base = _named_by_card(donor, context, offline)
    if found is not None and found.resolve() == donor.resolve():
        raise NothingToGive(
            f"The base {base} is the donor itself, so that nothing was aligned in between.",
            "Give the model that donor and recipient were made from, or leave --base out.",
        )
    family = check_family(context.resolved.folder, donor, found)
    context.narrator.say(f"  donor: {config.donor}" + (f", base: {base}" if base else ""))
    for sentence in family.bridged:
        context.narrator.say(f"  {sentence}")
    return Relatives(donor, config.donor, found, base, family)


def _patched(patch: Path, base: str | None, context: Context, offline: bool) -> tuple[Path, str]:
    """Put a patch onto its base, once a run; return the donor's folder and the base's name."""
    manifest = read_patch(patch).manifest
    base, name = base or manifest.base_name, f"{DONOR}-{manifest.hash[:12]}"
    donor = context.folder.path / name
    context.folder.sweep(name)
    if not donor.exists():
        applied = apply_patch(_resolved(base, context, offline).folder, patch, donor)
        context.narrator.say(f"  {applied.sentence}")
    return donor, base


def _resolved(name: str, context: Context, offline: bool) -> ResolvedModel:
    return resolve(
        name,
        offline=offline,
        trust_remote_code=context.config.trust_remote_code,
        say=lambda text: context.narrator.say(f"  {text}"),
    )


def _named_by_card(donor: Path, context: Context, offline: bool) -> tuple[Path | None, str | None]:
    """Return the base that the donor's card names, if it can be had; a graft does without."""
    for name in lineage_of(donor).bases:
        try:
            return _resolved(name, context, offline).folder, name
        except DemurError as error:
            context.narrator.say(f"  The donor's card names {name} as its base: {error.cause}")
    return None, None
