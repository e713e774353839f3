"""A low-rank patch as a PEFT adapter: a folder that `peft` loads onto the untouched base model.

    write_adapter(Path("patch.safetensors"), "org/model", Path("adapter"))
    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("org/model"), "adapter")

PEFT computes W x + B (A x), with A the patch's `down` and B its `up`, so that scale and alpha are
one; the patched model computes round(W + B A) x. The two agree to rounding.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from demur.checkpoint.header import layout
from demur.checkpoint.index import stream
from demur.checkpoint.manifest import Entry, Patch, read_patch, verify_payload
from demur.checkpoint.storage import require_empty, require_room, whole_folder, writing
from demur.errors import CheckpointError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
MATRIX = ".weight"
EMBEDDINGS = ("embed_tokens", "wte", "embed_in", "word_embeddings", "tok_embeddings")


def write_adapter(
    patch: Path,
    base_name: str,
    output: Path,
    *,
    modules: Mapping[str, str] | None = None,
    transposed: Collection[str] = (),
) -> Path:
    """Write a patch of low rank as a PEFT adapter to `output`, a folder that is new or empty.

    Args:
        patch: the patch file.
        base_name: the hub id or folder from which others load the base model.
        output: the adapter's folder.
        modules: by a tensor's name on disk, the module in memory whose weight it is, where that is
            not the same name without `.weight`.
        transposed: tensors on disk that are stored as (in, out), as GPT-2 does.

    Raises:
        CheckpointError: the patch is damaged, changes a tensor otherwise than by a product of low
            rank, or changes one that is no module's weight; the output is taken; the disk is full.
    """
    require_empty(output)
    found = read_patch(patch)
    targets = {one.tensor: _module(one, found, modules or {}) for one in found.manifest.entries}
    verify_payload(found)
    config = _config(found, base_name, targets, bool(transposed))
    require_room(output, sum(part.bytes for part in found.parts.values()))
    with writing(output), whole_folder(output) as folder:
        _write_weights(folder / WEIGHTS, found, targets, transposed)
        text = json.dumps(config, indent=2, ensure_ascii=False)
        (folder / CONFIG).write_text(text + "\n", "utf-8")
    return output


def _module(entry: Entry, patch: Patch, modules: Mapping[str, str]) -> str:
    if entry.kind != "low-rank":
        raise CheckpointError(
            f"{patch.path} changes {entry.tensor} as a whole, which an adapter of low rank cannot"
            " hold.",
            "Use the patched model instead (`demur apply`), or make a patch of low rank.",
        )
    module = modules.get(entry.tensor, entry.tensor.removesuffix(MATRIX))
    embedding = any(one in module.split(".") for one in EMBEDDINGS)
    if embedding or (entry.tensor not in modules and not entry.tensor.endswith(MATRIX)):
        raise CheckpointError(
            f"{entry.tensor}, which {patch.path} changes, is not the weight of a linear module,"
            " so that this adapter cannot hold it.",
            "Use the patched model instead (`demur apply`).",
        )
    return module


def _config(
    patch: Patch, base_name: str, targets: Mapping[str, str], transposed: bool
) -> dict[str, Any]:
    """Return `adapter_config.json`: every module by its full name, and ranks where they differ."""
    ranks = {targets[one.tensor]: int(one.rank or 0) for one in patch.manifest.entries}
    commonest = max(sorted(set(ranks.values())), key=list(ranks.values()).count)
    # PEFT reads the keys as patterns that end a module's name.
    differing = {f"^{re.escape(name)}": rank for name, rank in ranks.items() if rank != commonest}
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_name,
        "inference_mode": True,
        "r": commonest,
        "lora_alpha": commonest,
        "rank_pattern": differing,
        "alpha_pattern": differing,
        "target_modules": sorted(ranks),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": transposed,
        "use_rslora": False,
        "use_dora": False,
        "init_lora_weights": True,
    }


def _write_weights(
    path: Path, patch: Patch, targets: Mapping[str, str], transposed: Collection[str]
) -> None:
    """Write A and B of every module, one at a time."""
    tensors = []
    for entry in patch.manifest.entries:
        # W (out, in) changes by up @ down; a transposed one by (down^T @ up^T)^T.
        kinds = ("up", "down") if entry.tensor in transposed else ("down", "up")
        for kind, part in zip(("lora_A", "lora_B"), kinds, strict=True):
            factor = patch.parts[f"{entry.tensor}.{part}"]
            turned = entry.tensor in transposed
            tensors.append((f"{PREFIX}{targets[entry.tensor]}.{kind}.weight", factor, turned))
    header = [
        (name, factor.dtype, factor.shape[::-1] if turned else factor.shape, factor.bytes)
        for name, factor, turned in tensors
    ]
    with path.open("xb") as file:
        file.write(layout(header, {"format": "pt"}))
        for _, factor, turned in tensors:
            values = np.frombuffer(b"".join(stream(factor)), "<f4").reshape(factor.shape)
            file.write(np.ascontiguousarray(values.T if turned else values).tobytes())
