"""Models from the Hugging Face hub: one snapshot, without code and without pickles.

All of `HF_ENDPOINT`, `HF_HOME`, `HF_TOKEN` and `HF_HUB_OFFLINE` is left to huggingface_hub, which
also resumes what was cut. What is added here: nothing is fetched of a repository that could not
be used, its size is held against the disk first, a busy hub is asked again, a hub that cannot be
reached is replaced by the copy in the cache, and every failure ends in a cause and a remedy.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from demur.checkpoint.foreign import WITH_TRANSFORMERS, is_pickled_weights
from demur.errors import ModelError
from demur.models.cache import no_room, require_room

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.hf_api import ModelInfo

T = TypeVar("T")

# The card says what a model was made from, and under which licence it is.
WANTED = ["*.safetensors", "*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken", "README.md"]
# Everything in subfolders is a copy in another format; "consolidated" is one beside the weights.
UNWANTED = ["*/*", "consolidated*", "*.bin", "*.py", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.h5"]
WAITS = (1.0, 3.0, 9.0)
BUSY = (408, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Snapshot:
    """A repository at one commit, on disk."""

    folder: Path
    commit: str


def fetch(
    name: str,
    *,
    revision: str | None = None,
    offline: bool = False,
    trust_remote_code: bool = False,
    examine: Callable[[Path], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> Snapshot:
    """Return the snapshot of the hub's model `name`, downloaded if it is not in the cache.

    Args:
        name: `organisation/model`.
        revision: a branch, tag or commit; the main branch if None.
        offline: look into the cache only.
        trust_remote_code: also fetch the model's own Python files.
        examine: given the path of config.json before any weight is fetched; raises to refuse.
        say: told, in a sentence, what takes long.

    Raises:
        ModelError: the hub cannot be reached, or knows no such model (`NotThere`) or revision, or
            does not give it to this user; there are only pickled weights; the disk is full.
    """
    from huggingface_hub import constants

    if offline or constants.is_offline_mode():
        return _from_cache(name, revision, "offline mode is on, so that the hub is not asked")
    try:
        return _busy_hub(lambda: _download(name, revision, trust_remote_code, examine, say))
    except _Unreachable as error:
        snapshot = _from_cache(name, revision, error.reason)
        if say is not None:
            say(f"Using the copy of {name} in the cache, since {error.reason}.")
        return snapshot


class NotThere(ModelError):
    """The hub has no such model, or keeps it private."""


class _Unreachable(Exception):
    """The hub gives no answer, whose reason is told."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def _busy_hub(action: Callable[[], T]) -> T:
    """Return `action()`, asking again a few times while the hub is busy or breaks off."""
    import httpx2
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    hub = f"the hub at {constants.ENDPOINT}"
    waits = iter(WAITS)
    while True:
        try:
            return action()
        except (HfHubHTTPError, httpx2.ReadError) as error:
            if isinstance(error, HfHubHTTPError):
                reason = f"{hub} answers {error.response.status_code}, again and again"
            else:
                reason = f"{hub} breaks off its answers, again and again"
            wait = next(waits, None)
            if wait is None:
                raise _Unreachable(reason) from error
            time.sleep(wait)
        except httpx2.RemoteProtocolError as error:
            raise _Unreachable(f"{hub} breaks off its answers ({error})") from error
        except (httpx2.TransportError, LocalEntryNotFoundError) as error:
            detail = str(error.__cause__ or error).strip().splitlines()[0]
            raise _Unreachable(f"{hub} cannot be reached ({detail})") from error


def _patterns(trust_remote_code: bool) -> tuple[list[str], list[str]]:
    if not trust_remote_code:
        return WANTED, UNWANTED
    return [*WANTED, "*.py"], [pattern for pattern in UNWANTED if pattern != "*.py"]


def _download(
    name: str,
    revision: str | None,
    trust_remote_code: bool,
    examine: Callable[[Path], None] | None,
    say: Callable[[str], None] | None,
) -> Snapshot:
    from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    allow, ignore = _patterns(trust_remote_code)
    try:
        info = HfApi().model_info(name, revision=revision, files_metadata=True)
        files = _wanted(info, name, allow, ignore)
        missing = _missing(files, name, info.sha or "")
        if missing and examine is not None and "config.json" in files:
            examine(Path(hf_hub_download(name, "config.json", revision=info.sha)))
        if missing:
            require_room(Path(constants.HF_HUB_CACHE), missing)
            if say is not None:
                say(f"Fetching {name} from {constants.ENDPOINT}, {missing / 1e6:.0f} MB.")
        folder = Path(
            snapshot_download(name, revision=revision, allow_patterns=allow, ignore_patterns=ignore)
        )
    except HFValidationError as error:
        raise ModelError(
            f"{name!r} is not a model's name on the hub ({error}).",
            "Such a name has the form organisation/model.",
        ) from error
    except HfHubHTTPError as error:
        if error.response.status_code in BUSY:
            raise
        raise _refusal(error, name, revision) from error
    except OSError as error:
        raise _failure(error, name, revision) from error
    return Snapshot(folder, folder.name)


def _wanted(info: ModelInfo, name: str, allow: list[str], ignore: list[str]) -> dict[str, int]:
    """Return the wanted files and their bytes; refuse a repository that could not be used."""
    from huggingface_hub.utils import filter_repo_objects

    files = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    wanted = list(filter_repo_objects(files, allow_patterns=allow, ignore_patterns=ignore))
    if any(file.endswith(".safetensors") for file in wanted):
        if not {"config.json", "adapter_config.json"} & files.keys():
            raise ModelError(
                f"{name} has no config.json; it holds {', '.join(sorted(files)[:6])}.",
                "Name the repository of a causal language model in Hugging Face format.",
            )
        return {file: files[file] for file in wanted}
    if any(is_pickled_weights(file) for file in files):
        raise ModelError(
            f"{name} has only pickled weights, which can run any code when they are read.",
            "Only if you trust their author, for this opens them, convert them: "
            f'python -c "{WITH_TRANSFORMERS}" {name} {name.split("/")[-1]}-safetensors',
        )
    if gguf := sorted(file for file in files if file.endswith(".gguf")):
        raise ModelError(
            f"{name} has no safetensors weights, but GGUF files.",
            f"Fetch one and name the file: hf download {name} {gguf[0]}",
        )
    raise ModelError(
        f"{name} has no safetensors weights; it holds "
        f"{', '.join(sorted(files)[:6]) or 'no file at all'}.",
        "Name the repository of a causal language model.",
    )


def _missing(files: dict[str, int], name: str, commit: str) -> int:
    """Return how many bytes of the snapshot are not in the cache yet."""
    from huggingface_hub import constants

    root = Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}"
    folder = root / "snapshots" / commit
    return sum(size for file, size in files.items() if not (folder / file).exists())


def _from_cache(name: str, revision: str | None, reason: str) -> Snapshot:
    """Return the snapshot as the cache has it, without asking the hub."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    allow, ignore = _patterns(False)
    try:
        folder = Path(
            snapshot_download(
                name,
                revision=revision,
                allow_patterns=allow,
                ignore_patterns=ignore,
                local_files_only=True,
            )
        )
    except (LocalEntryNotFoundError, HFValidationError) as error:
        raise ModelError(
            f"{name} is not, or not whole, in the cache {constants.HF_HUB_CACHE}, and {reason}.",
            "Check the network, HF_ENDPOINT and HF_HUB_OFFLINE, or name a folder on this machine.",
        ) from error
    return Snapshot(folder, folder.name)


def _refusal(error: HfHubHTTPError, name: str, revision: str | None) -> ModelError:
    """Return what the hub's refusal means for the user."""
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        DisabledRepoError,
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    place = f"{constants.ENDPOINT}/{name}"
    if isinstance(error, GatedRepoError):
        return ModelError(
            f"{name} is gated: the hub gives it only to those who accepted its conditions.",
            f"Accept them at {place}, then set HF_TOKEN to a token of yours, or run hf auth login.",
        )
    if isinstance(error, RevisionNotFoundError):
        return ModelError(
            f"{name} has no revision {revision!r} on the hub.",
            f"Choose a branch, a tag or a commit that {place} lists, or none.",
        )
    if isinstance(error, DisabledRepoError):
        return ModelError(f"{name} has been disabled on the hub.", "Name another model.")
    status = error.response.status_code
    if isinstance(error, RepositoryNotFoundError) or status == 404:
        return NotThere(
            f"The hub at {constants.ENDPOINT} has no model {name}, or keeps it private.",
            "Check the spelling; for a private model set HF_TOKEN, or run hf auth login.",
        )
    if status in (401, 403):
        return ModelError(
            f"The hub refuses {name} to this token ({status}).",
            f"Set HF_TOKEN to a valid token that may read {place}, or run hf auth login.",
        )
    return ModelError(
        f"The hub answered {status} for {name}.",
        "Try again later; if it stays so, download the model by other means and name its folder.",
    )


def _failure(error: OSError, name: str, revision: str | None) -> OSError | ModelError:
    """Return what a failure that is no plain answer of the hub means for the user."""
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    if isinstance(error, LocalEntryNotFoundError):
        cause = error.__cause__
        if isinstance(cause, HfHubHTTPError) and cause.response.status_code not in BUSY:
            return _refusal(cause, name, revision)
        unreachable: OSError = error
        return unreachable
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return no_room(constants.HF_HUB_CACHE, error)
    if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
        return ModelError(
            f"The cache {constants.HF_HUB_CACHE} cannot be written ({error.strerror}).",
            "Make it writable, or choose another with HF_HOME.",
        )
    detail = str(error).splitlines()[0] if str(error) else type(error).__name__
    return ModelError(
        f"The download of {name} broke off ({detail}).",
        "Run the command again; the files that have arrived whole are kept.",
    )
