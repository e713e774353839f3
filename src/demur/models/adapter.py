"""PEFT adapters, merged once into their base: what comes out is a plain folder as any other.

Only safetensors are read. An adapter that does not fit its base tensor by tensor is refused, since
PEFT itself would load the part that does.
"""

from __future__ import annotations

import hashlib
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demur.errors import ModelError
from demur.models.cache import build_once, cache_root, file_sha256, require_room, save_model
from demur.models.config import read_json

# Part of the cache's path: raise it when the same adapter is to give another folder.
MERGING = 1
CONFIG, WEIGHTS, PICKLED = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
READ = (".safetensors", ".json", ".jinja", ".model", ".txt")
EMBEDDINGS = ("embed_tokens", "lm_head", "wte", "embed_in", "embed_out")


@dataclass(frozen=True)
class Adapter:
    """A PEFT adapter on disk.

    Attributes:
        folder: where it lies.
        base: the base model that it names, a path or a hub id; None if it names none.
        revision: the base's revision that it names, if it names one.
    """

    folder: Path
    base: str | None
    revision: str | None


def is_adapter(folder: Path) -> bool:
    """Return whether `folder` holds a PEFT adapter and no whole model."""
    whole = ("model.safetensors", "model.safetensors.index.json")
    return (folder / CONFIG).is_file() and not any((folder / file).is_file() for file in whole)


def read_adapter(folder: Path) -> Adapter:
    """Return what the adapter in `folder` says about itself.

    Raises:
        ModelError: its configuration is broken, its weights are missing or only pickled, or it is
            of a kind that cannot be merged.
    """
    from peft import PEFT_TYPE_TO_CONFIG_MAPPING
    from peft.config import PromptLearningConfig

    config = read_json(folder / CONFIG)
    if not (folder / WEIGHTS).is_file():
        if (folder / PICKLED).is_file():
            raise ModelError(
                f"The adapter {folder} has only pickled weights ({PICKLED}).",
                'Only if you trust their author, convert them: python -c "import torch; from '
                "safetensors.torch import save_file; save_file(torch.load('adapter_model.bin', "
                "weights_only=True), 'adapter_model.safetensors')\"",
            )
        raise ModelError(
            f"The adapter {folder} has no {WEIGHTS}.", "Download or save the adapter again."
        )
    kind = str(config.get("peft_type"))
    mapped = PEFT_TYPE_TO_CONFIG_MAPPING.get(kind)
    if mapped is None or issubclass(mapped, PromptLearningConfig):
        raise ModelError(
            f"The adapter {folder} is of the kind {kind}, which cannot be merged into weights.",
            "Use a LoRA adapter, or one of its relatives.",
        )
    base, revision = config.get("base_model_name_or_path"), config.get("revision")
    return Adapter(folder, str(base) if base else None, str(revision) if revision else None)


def merge(
    adapter: Adapter,
    base: Path,
    base_identity: str,
    *,
    cache: Path | None = None,
    trust_remote_code: bool = False,
    say: Callable[[str], None] | None = None,
) -> tuple[Path, str]:
    """Return the plain folder of `adapter` merged into `base`, at most once, and its key.

    Args:
        base: the base's plain folder.
        base_identity: a hash or commit that stands for the base's weights.
        cache: demur's cache folder; the usual one if None.
        say: told, in a sentence, what takes long.

    Raises:
        ModelError: the adapter does not fit the base, or the disk is full.
    """
    files = [path for path in sorted(adapter.folder.iterdir()) if path.suffix in READ]
    lines = [base_identity, *(f"{path.name} {file_sha256(path)}" for path in files)]
    key = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    folder = cache_root(cache) / f"adapter-{MERGING}" / key

    def build(target: Path) -> None:
        if say is not None:
            say(f"Merging the adapter {adapter.folder.name} into {base.name}; this happens once.")
        require_room(target, sum(path.stat().st_size for path in base.glob("*.safetensors")))
        _merge(adapter.folder, base, target, trust_remote_code)

    return build_once(folder, build), key


def _merge(adapter: Path, base: Path, target: Path, trust_remote_code: bool) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    own = any((adapter / file).is_file() for file in ("tokenizer.json", "tokenizer.model"))
    with _merging(adapter, base):
        tokenizer = AutoTokenizer.from_pretrained(
            adapter if own else base, trust_remote_code=trust_remote_code
        )
        model = AutoModelForCausalLM.from_pretrained(
            base, dtype="auto", trust_remote_code=trust_remote_code
        )
        adapted = PeftModel.from_pretrained(model, str(adapter))
        _require_fit(adapted, adapter, base)
        merged: Any = adapted.merge_and_unload(safe_merge=True)
    # A base's own generation settings may be such that transformers refuses to save them.
    ids = {
        key: getattr(merged.generation_config, key, None)
        for key in ("bos_token_id", "eos_token_id", "pad_token_id")
    }
    merged.generation_config = GenerationConfig(**ids)
    save_model(merged, tokenizer, target)
    if (base / "generation_config.json").is_file():
        shutil.copyfile(base / "generation_config.json", target / "generation_config.json")


def _require_fit(adapted: Any, adapter: Path, base: Path) -> None:
    """Raise unless adapter file and adapted model have the same adapter tensors."""
    from peft import get_peft_model_state_dict

    from demur.checkpoint.header import read_header

    stored = {tensor.name for tensor in read_header(adapter / WEIGHTS).tensors}
    wanted = set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
    stray = {name for name in stored - wanted if not any(part in name for part in EMBEDDINGS)}
    stray |= wanted - stored
    if stray:
        raise ModelError(
            f"The adapter {adapter} does not fit its base {base}: {len(stray)} tensors have no "
            f"counterpart, such as {min(stray)}.",
            "Name the base that it was trained on with --base.",
        )


@contextmanager
def _merging(adapter: Path, base: Path) -> Iterator[None]:
    """Turn what PEFT raises for an adapter that does not fit into a `ModelError`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        detail = str(error).strip().splitlines()
        raise ModelError(
            f"The adapter {adapter} cannot be merged into {base} "
            f"({detail[0].rstrip('.:') if detail else type(error).__name__}).",
            "Name the base that it was trained on with --base.",
        ) from error
