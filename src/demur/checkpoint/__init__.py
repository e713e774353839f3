"""Models on disk: safetensors as byte ranges, their hashes, and patches that can be taken back.

Nothing here loads a model or knows torch; memory stays bounded whatever the model's size.
"""

from demur.checkpoint.adapter import write_adapter
from demur.checkpoint.apply import Applied, apply_patch, revert_patch
from demur.checkpoint.changes import Dense, LowRank
from demur.checkpoint.graft import Grafted, donor_changes, graft_checkpoint
from demur.checkpoint.header import TensorRange
from demur.checkpoint.index import (
    Checkpoint,
    checkpoint_hash,
    find_nonfinite,
    open_checkpoint,
    read_bits,
    read_tensor,
    tensor_hash,
    tensor_hashes,
)
from demur.checkpoint.manifest import Entry, Manifest, Patch, read_patch, update_results
from demur.checkpoint.patch import PatchSummary, make_patch
from demur.checkpoint.places import Places
from demur.checkpoint.rewrite import Rewrite

__all__ = [
    "Applied",
    "Checkpoint",
    "Dense",
    "Entry",
    "Grafted",
    "LowRank",
    "Manifest",
    "Patch",
    "PatchSummary",
    "Places",
    "Rewrite",
    "TensorRange",
    "apply_patch",
    "checkpoint_hash",
    "donor_changes",
    "find_nonfinite",
    "graft_checkpoint",
    "make_patch",
    "open_checkpoint",
    "read_bits",
    "read_patch",
    "read_tensor",
    "revert_patch",
    "tensor_hash",
    "tensor_hashes",
    "update_results",
    "write_adapter",
]
