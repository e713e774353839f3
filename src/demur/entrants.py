"""The models that are measured together: what each is called, where it is, and loading one.

`NAME=MODEL` gives a model a name in every table; `MODEL+patch.safetensors` puts a patch on it
first. A run folder of `demur align` stands for the aligned model in it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from demur.checkpoint import apply_patch, checkpoint_hash, open_checkpoint
from demur.checkpoint.patch import read_summary
from demur.errors import CheckpointError, ConfigError
from demur.measure.settings import MeasureConfig
from demur.models.chat_model import ChatModel, load_chat_model
from demur.models.config import check_weights
from demur.models.device import Placement
from demur.models.resolve import ResolvedModel, resolve

_NAMED = re.compile(r"([\w][\w .-]*)=(.+)", re.DOTALL)
PATCH_ENDING = ".safetensors"


@dataclass(frozen=True)
class Entrant:
    """One model on this machine: its name in tables, its content hash, a patch to be put on."""

    label: str
    resolved: ResolvedModel
    weights: str
    patch: Path | None = None

    @property
    def origin(self) -> str:
        """Where it is from, without a folder of this machine."""
        kind = self.resolved.kind
        said = self.resolved.name if kind in ("alias", "hub") else Path(self.resolved.name).name
        revision = f", {self.resolved.revision[:12]}" if self.resolved.revision else ""
        patched = f", with {self.patch.name}" if self.patch else ""
        return f"{said} ({kind}{revision}){patched}"


def split_name(written: str) -> tuple[str | None, str, Path | None]:
    """Return the label, the model and the patch that a user wrote."""
    label = None
    match = _NAMED.fullmatch(written)
    if match and not Path(written).exists():
        label, written = match[1].strip(), match[2]
    name, plus, patch = written.rpartition("+")
    if plus and name and patch.endswith(PATCH_ENDING) and not Path(written).exists():
        return label, name, Path(patch).expanduser()
    return label, written, None


def labels_of(names: Sequence[tuple[str | None, str, Path | None]]) -> list[str]:
    """Return a label for each model: the one given, or the last part of its name.

    Raises:
        ConfigError: two models would have the same label.
    """
    labels = []
    for label, name, patch in names:
        place = Path(name).expanduser()
        own = place.parent.name if _is_run(place.parent) and place.name == "model" else place.name
        derived = own.removesuffix(".gguf") or name
        labels.append(label or (f"{derived}+{patch.stem}" if patch else derived))
    twice = [label for label, count in Counter(labels).items() if count > 1]
    if twice:
        raise ConfigError(
            f"Two of the models are called {twice[0]}.",
            f"Give each a name of its own, as in: before={names[0][1]} after=MODEL.",
        )
    return labels


def _is_run(folder: Path) -> bool:
    return (folder / "journal.sqlite").is_file()


def enter(config: MeasureConfig, say: Callable[[str], None]) -> list[Entrant]:
    """Find all models before any work is done.

    Raises:
        ConfigError: two have one name, or the reference is none of them.
        ModelError, CheckpointError: a model or a patch is missing, broken or not meant for it.
    """
    names = [split_name(written) for written in config.models]
    labels = labels_of(names)
    if config.reference is not None and config.reference not in labels:
        raise ConfigError(
            f"The reference {config.reference} is none of the models.",
            f"Name one of: {', '.join(labels)}.",
        )
    entrants = []
    for label, (_, name, patch) in zip(labels, names, strict=True):
        folder = Path(name).expanduser()
        aligned = folder / "model"
        source = str(aligned) if _is_run(folder) and aligned.is_dir() else name
        found = resolve(source, trust_remote_code=config.trust_remote_code, say=say)
        check_weights(found.folder)
        base = checkpoint_hash(open_checkpoint(found.folder))
        weights = base if patch is None else _patched(patch, base, name)
        entrants.append(Entrant(label, found, weights, patch))
    return entrants


def _patched(patch: Path, base: str, name: str) -> str:
    """Return the content hash that a model has with a patch on it."""
    summary = read_summary(patch)
    if summary.base_hash != base:
        raise CheckpointError(
            f"The patch {patch.name} was not made for {name}.",
            "Name the model that it was made for, before the plus sign.",
        )
    return summary.result_hash


def load_entrant(
    entrant: Entrant, config: MeasureConfig, placement: Placement, patched: Path
) -> ChatModel:
    """Load one model; a patch is put on in the folder `patched`, unless it was before."""
    folder = entrant.resolved.folder
    if entrant.patch is not None:
        if not patched.exists():
            apply_patch(folder, entrant.patch, patched)
        folder = patched
    return load_chat_model(
        folder,
        placement,
        weights=entrant.weights,
        name=entrant.label,
        thinking=config.thinking,
        chat_template=config.chat_template,
        trust_remote_code=config.trust_remote_code,
    )
