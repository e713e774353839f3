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
from demur.models.endpoint import Endpoint, is_endpoint, parse_endpoint
from demur.models.resolve import ResolvedModel, resolve

_NAMED = re.compile(r"([\w][\w .-]*)=(.+)", re.DOTALL)
PATCH_ENDING = ".safetensors"


@dataclass(frozen=True)
class Entrant:
    """One model: its name in tables, and a folder with its content hash, or an endpoint.

    `patch` is to be put on before it is asked; `weights` is then the hash that it has with it.
    """

    label: str
    resolved: ResolvedModel | None
    weights: str
    patch: Path | None = None
    endpoint: Endpoint | None = None

    @property
    def parameters(self) -> int:
        """How many it has; 0 where that is not known."""
        return self.resolved.parameters if self.resolved else 0

    @property
    def sentence(self) -> str:
        """What it is, for the user."""
        if self.resolved is None:
            return self.origin
        size = f"{self.parameters / 1e6:.1f} M parameters"
        return f"{self.origin}, {self.resolved.architecture}, {size}"

    @property
    def origin(self) -> str:
        """Where it is from, without a folder of this machine."""
        if self.resolved is None:
            return f"{self.endpoint.name} (endpoint)" if self.endpoint else ""
        kind = self.resolved.kind
        place = Path(self.resolved.name)
        run = f"{place.parent.name}/" if _is_run(place.parent) else ""
        said = self.resolved.name if kind in ("alias", "hub") else run + place.name
        revision = f", {self.resolved.revision[:12]}" if self.resolved.revision else ""
        patched = f", with {self.patch.name}" if self.patch else ""
        return f"{said} ({kind}{revision}){patched}"


def split_name(written: str) -> tuple[str | None, str, Path | None]:
    """Return the label, the model and the patch that a user wrote."""
    label = None
    if is_endpoint(written):
        return None, written, None
    match = _NAMED.fullmatch(written)
    if match and not Path(written).exists():
        label, written = match[1].strip(), match[2]
    if is_endpoint(written):
        return label, written, None
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
        place = Path(parse_endpoint(name).model if is_endpoint(name) else name).expanduser()
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


def enter(
    config: MeasureConfig, say: Callable[[str], None], key_variable: str | None = None
) -> list[Entrant]:
    """Find all models before any work is done.

    Args:
        key_variable: the environment variable that holds the endpoints' key, if not the usual.

    Raises:
        ConfigError: two have one name, or the reference is none of them.
        EndpointError: an endpoint is not written as one, or its key is missing.
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
        if is_endpoint(name):
            endpoint = parse_endpoint(name, key_variable)
            endpoint.key()  # a missing key is told before any work
            entrants.append(Entrant(label, None, "", None, endpoint))
            continue
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
    if entrant.resolved is None:
        raise ValueError("an endpoint is asked, not loaded")
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
