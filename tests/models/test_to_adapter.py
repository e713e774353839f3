"""Of any architecture, what PEFT makes of an adapter answers as the patched model does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.models.anatomies import build, randomise

from demur.checkpoint import LowRank, apply_patch, make_patch, open_checkpoint
from demur.errors import CheckpointError, ModelError
from demur.models.to_adapter import patch_to_adapter

NO_LINEAR = ("embed", "wte", "wpe", "norm", "router")


def saved(name: str, folder: Path) -> Path:
    randomise(build(name)).save_pretrained(folder)
    return folder


def patch_of(folder: Path, path: Path, wanted: Any) -> Path:
    rng = np.random.default_rng(0)
    changes = {}
    for name, one in open_checkpoint(folder).tensors.items():
        if wanted(name, one.shape):
            rows, columns = one.shape
            left, right = rng.normal(size=(rows, 2)) * 0.1, rng.normal(size=(2, columns))
            changes[name] = LowRank(left.astype("f4"), right.astype("f4"))
    assert changes
    make_patch(folder, changes, path, base_name=str(folder), recipe={}, results={})
    return path


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(torch.arange(3, 30)[None]).logits
    return found


def a_layers_matrix(name: str, shape: tuple[int, ...]) -> bool:
    plain = len(shape) == 2 and min(shape) >= 8 and "experts" not in name
    return plain and not any(word in name for word in NO_LINEAR)


@pytest.mark.parametrize(
    "name", ["llama", "phi3", "gemma3", "gpt2", "falcon-one-key", "mpt", "qwen3-moe"]
)
def test_peft_answers_as_the_patched_model(name: str, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = saved(name, tmp_path / "base")
    patch = patch_of(base, tmp_path / "patch.safetensors", a_layers_matrix)
    adapter = patch_to_adapter(base, patch, str(base), tmp_path / "adapter")
    apply_patch(base, patch, tmp_path / "patched")
    before = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    wanted = logits(AutoModelForCausalLM.from_pretrained(tmp_path / "patched", dtype=torch.float32))
    assert (logits(before) - wanted).abs().max() > 0.01
    adapted = PeftModel.from_pretrained(before, str(adapter))
    torch.testing.assert_close(logits(adapted), wanted, rtol=1e-3, atol=1e-4)


def test_experts_are_no_linear_modules(tmp_path: Path) -> None:
    base = saved("mixtral", tmp_path / "base")
    patch = patch_of(
        base,
        tmp_path / "patch.safetensors",
        lambda name, shape: "experts.0" in name and len(shape) == 2,
    )
    with pytest.raises(CheckpointError, match="is not the weight of a linear module") as failed:
        patch_to_adapter(base, patch, str(base), tmp_path / "adapter")
    assert "demur apply" in failed.value.remedy
    assert not (tmp_path / "adapter").exists()


def test_another_model_is_told_apart(tmp_path: Path) -> None:
    base, other = saved("llama", tmp_path / "base"), saved("gpt2", tmp_path / "other")
    patch = patch_of(base, tmp_path / "patch.safetensors", a_layers_matrix)
    with pytest.raises(CheckpointError, match="has no tensor lm_head"):
        patch_to_adapter(other, patch, "other", tmp_path / "adapter")
    (base / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ModelError, match="cannot build base"):
        patch_to_adapter(base, patch, "base", tmp_path / "adapter")
