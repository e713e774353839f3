"""The models of a trace: the one that is named, and its donor, a model or a patch on its base.

What a patch makes is written into the run folder, once a run, as `demur graft` does.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from demur.checkpoint import apply_patch, checkpoint_hash, open_checkpoint, read_patch
from demur.console import Narrator
from demur.errors import ConfigError
from demur.models.config import check_weights
from demur.models.family import check_family
from demur.models.resolve import ResolvedModel, resolve
from demur.tracing.config import TraceConfig

DONOR = "donor"


@dataclass(frozen=True)
class Relative:
    """One model of a trace.

    Attributes:
        name: for readers.
        folder: of the model, or of the base of `patch`.
        weights: the hash of its checkpoint, patched.
        patch: what comes on top of it; None where the folder holds the model itself.
    """

    name: str
    folder: Path
    weights: str
    patch: Path | None = None

    def written(self, run: Path, narrator: Narrator) -> Path:
        """Return the folder of the model, patched into the run's folder first if need be.

        Raises:
            CheckpointError: the patch does not fit, or the disk is full.
        """
        if self.patch is None:
            return self.folder
        folder = run / DONOR
        if not folder.exists():
            narrator.say(f"  {apply_patch(self.folder, self.patch, folder).sentence}")
        return folder


def find_relatives(config: TraceConfig, narrator: Narrator) -> dict[str, Relative]:
    """Return the `model`, and the `donor` if one is named, checked to be relatives.

    Raises:
        DemurError: one of them cannot be found or read, they are no relatives, or they are the
            same.
    """
    found = {"model": _model(config.model, config, narrator, config.revision)}
    if config.donor is None:
        return found
    found["donor"] = donor = _donor(config.donor, config, narrator)
    family = check_family(found["model"].folder, donor.folder)
    for sentence in family.bridged:
        narrator.say(f"  {sentence}")
    if donor.weights == found["model"].weights:
        raise ConfigError(
            f"The donor {config.donor} has the same weights as {config.model}, so that its modules "
            "do nothing in it.",
            "Name an aligned relative with --donor, or leave it out to trace the model itself.",
        )
    return found


def _donor(name: str, config: TraceConfig, narrator: Narrator) -> Relative:
    if not (name.endswith(".safetensors") and Path(name).is_file()):
        return _model(name, config, narrator)
    manifest = read_patch(Path(name)).manifest
    narrator.heading(f"Looking at {name}, a patch of {manifest.base_name}")
    base = _resolved(manifest.base_name, config, narrator)
    return Relative(name, base.folder, manifest.result_hash, Path(name))


def _model(
    name: str, config: TraceConfig, narrator: Narrator, revision: str | None = None
) -> Relative:
    narrator.heading(f"Looking at {name}")
    found = _resolved(name, config, narrator, revision)
    return Relative(found.name, found.folder, checkpoint_hash(open_checkpoint(found.folder)))


def _resolved(
    name: str, config: TraceConfig, narrator: Narrator, revision: str | None = None
) -> ResolvedModel:
    found = resolve(
        name,
        revision=revision,
        trust_remote_code=config.trust_remote_code,
        say=lambda text: narrator.say(f"  {text}"),
    )
    narrator.say(f"  {found.origin}")
    check_weights(found.folder)
    return found
