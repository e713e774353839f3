"""A patch on a real architecture: what transformers loads is the base plus up @ down."""

import resource
import subprocess
import sys

import numpy as np
import pytest
from checkpoint_files import encode, files, write_shard

from demur.checkpoint import (
    Dense,
    LowRank,
    apply_patch,
    make_patch,
    open_checkpoint,
    read_tensor,
    revert_patch,
)

Q = "model.layers.1.self_attn.q_proj.weight"
NORM = "model.norm.weight"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_patched_llama_loads_and_is_base_plus_change(tmp_path, dtype):
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=2, tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    base = LlamaForCausalLM(config).to(getattr(torch, dtype))
    base.save_pretrained(tmp_path / "base", max_shard_size="4KB")
    checkpoint = open_checkpoint(tmp_path / "base")
    assert len(checkpoint.shards) > 1
    assert "lm_head.weight" not in checkpoint.tensors
    rng = np.random.default_rng(0)
    up, down = rng.normal(size=(16, 4)) * 0.01, rng.normal(size=(4, 16))
    norm = np.full(16, 1.25, np.float32)
    make_patch(
        tmp_path / "base",
        {Q: LowRank(up, down), NORM: Dense(norm)},
        tmp_path / "p.safetensors",
        base_name="tiny",
        recipe={},
        results={},
    )
    applied = apply_patch(tmp_path / "base", tmp_path / "p.safetensors", tmp_path / "out")
    assert applied.exact
    patched = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    assert patched.dtype == base.dtype
    assert patched.lm_head.weight.data_ptr() == patched.model.embed_tokens.weight.data_ptr()
    after = patched.state_dict()
    rounding = 2**-24 if dtype == "float32" else 2**-8
    for name, tensor in base.state_dict().items():
        wanted = tensor.double().numpy()
        if name == Q:
            wanted = wanted + up.astype(np.float32).astype(np.float64) @ down.astype(np.float32)
        if name == NORM:
            wanted = norm
        found = after[name].double().numpy()
        assert (np.abs(found - wanted) <= np.abs(wanted) * rounding + 1e-12).all(), name
    assert not np.array_equal(
        read_tensor(checkpoint, Q), read_tensor(open_checkpoint(tmp_path / "out"), Q)
    )
    reverted = revert_patch(tmp_path / "out", tmp_path / "p.safetensors", tmp_path / "back")
    assert files(reverted.folder) == files(tmp_path / "base")


CHILD = """
import resource, sys
from pathlib import Path
from demur.checkpoint import apply_patch, revert_patch
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
folder = Path(sys.argv[1])
assert apply_patch(folder / "m", folder / "p", folder / "out").exact
assert revert_patch(folder / "out", folder / "p", folder / "back").exact
assert "torch" not in sys.modules
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(not hasattr(resource, "RUSAGE_SELF"), reason="needs a Unix")
def test_memory_stays_bounded_and_torch_away(tmp_path):
    (tmp_path / "m").mkdir()
    values = np.random.default_rng(0).normal(size=(8_192, 1024)).astype(np.float32)
    tensors = {
        "w": ("F32", values.shape, encode(values, "F32")),
        "v": ("F32", values.shape, encode(values, "F32")),
    }
    write_shard(tmp_path / "m" / "model.safetensors", tensors)
    up, down = np.full((8_192, 1), 0.01), np.ones((1, 1024))
    make_patch(
        tmp_path / "m", {"w": LowRank(up, down), "v": Dense(values[::-1])}, tmp_path / "p",
        base_name="big", recipe={}, results={},
    )  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path)], capture_output=True, text=True, check=True
    )
    kibibytes = int(done.stdout)
    assert kibibytes < 28 * 1024, "two tensors of 32 MiB each must not be held"
