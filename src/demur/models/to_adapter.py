"""A patch as a PEFT adapter of the model that it was made for, whatever its modules are called.

    patch_to_adapter(folder, Path("patch.safetensors"), "org/model", Path("adapter"))

A patch speaks of tensors on disk, an adapter of modules in memory; transformers may rename, split
or fuse between the two. The model is built without weights to see what became of each tensor.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from demur.checkpoint import open_checkpoint, read_patch, write_adapter
from demur.errors import CheckpointError
from demur.models.anatomy import DiskNames
from demur.models.skeleton import without_weights

MATRIX = ".weight"


def patch_to_adapter(
    folder: Path, patch: Path, base_name: str, output: Path, *, trust_remote_code: bool = False
) -> Path:
    """Write a patch of low rank as a PEFT adapter to `output`, a folder that is new or empty.

    Args:
        folder: the model that the patch was made for; only its configuration and its tensors' names
            are read.
        patch: the patch file.
        base_name: the hub id or folder from which others load the base model.
        output: the adapter's folder.

    Raises:
        CheckpointError: the patch is none of low rank, or changes what is no linear module's
            weight; the model has not its tensors; the output is taken; the disk is full.
        ModelError: transformers cannot build the model.
    """
    from transformers.pytorch_utils import Conv1D

    model = without_weights(folder, trust_remote_code=trust_remote_code)
    tensors = open_checkpoint(folder).tensors
    names = DiskNames(model, {name: one.shape for name, one in tensors.items()})
    modules: dict[str, str] = {}
    transposed: set[str] = set()
    for entry in read_patch(patch).manifest.entries:
        if entry.tensor not in tensors or tensors[entry.tensor].shape != entry.shape:
            raise CheckpointError(
                f"{folder} has no tensor {entry.tensor} of the shape {list(entry.shape)}, which "
                f"{patch} changes.",
                "Name the model for which the patch was made.",
            )
        parameter = names.parameter(entry.tensor) or ""
        module = parameter.removesuffix(MATRIX)
        held = model.get_submodule(module) if parameter.endswith(MATRIX) else None
        if entry.kind == "low-rank" and not _is_linear(held):
            raise CheckpointError(
                f"{entry.tensor}, which {patch} changes, is not the weight of a linear module, so "
                "that an adapter cannot hold it.",
                "Use the patched model instead (`demur apply`).",
            )
        modules[entry.tensor] = module
        if isinstance(held, Conv1D):
            transposed.add(entry.tensor)
    return write_adapter(patch, base_name, output, modules=modules, transposed=transposed)


def _is_linear(module: Any) -> bool:
    import torch
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, torch.nn.Linear | Conv1D)
