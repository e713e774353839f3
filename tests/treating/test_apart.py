"""A donor's lessons are no prompts of a graft's: told by what a patch says of how it was made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.tiny import tiny_llama

from demur.checkpoint import LowRank, apply_patch, make_patch, open_checkpoint
from demur.distilling.config import DistillConfig
from demur.grafting.config import GraftConfig
from demur.grafting.treatment import UNFIT
from demur.treating.apart import TaughtTheTest, require_apart


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("apart") / "tiny")


def patch_of(base: Path, path: Path, recipe: dict[str, Any]) -> Path:
    name = "model.layers.0.mlp.gate_proj.weight"
    rows, columns = open_checkpoint(base).tensors[name].shape
    change = LowRank(np.full((rows, 1), 0.01, "f4"), np.ones((1, columns), "f4"))
    make_patch(base, {name: change}, path, base_name=str(base), recipe=recipe, results={})
    return path


def test_a_donor_of_another_seed_was_taught_what_is_reported_from(
    base: Path, tmp_path: Path
) -> None:
    recipe = DistillConfig(str(base), seed=1).resolved()
    patch = patch_of(base, tmp_path / "patch.safetensors", recipe)
    model = apply_patch(base, patch, tmp_path / "model").folder
    for donor in (patch, model):
        with pytest.raises(TaughtTheTest, match="trained with the seed 1") as failed:
            require_apart(GraftConfig("other", donor=str(donor)), donor, "donor x")
        assert failed.value.remedy == "Give --seed 1."
        require_apart(GraftConfig("other", donor=str(donor), seed=1), donor, "donor x")
        require_apart(GraftConfig("other", donor=str(donor), pairs="mine.jsonl"), donor, "donor x")
    assert issubclass(TaughtTheTest, UNFIT)  # `demur align` then looks for another way


def passes(donor: Path) -> bool:
    try:
        require_apart(GraftConfig("other", donor=str(donor), seed=3), donor, "donor x")
    except TaughtTheTest:
        return False
    return True


def test_nothing_is_known_of_donors_that_say_nothing(base: Path, tmp_path: Path) -> None:
    recipe = DistillConfig(str(base), seed=1).resolved()
    assert not passes(patch_of(base, tmp_path / "distilled.safetensors", recipe))
    assert passes(patch_of(base, tmp_path / "silent.safetensors", {}))
    assert passes(patch_of(base, tmp_path / "grafted.safetensors", {**recipe, "train_pairs": None}))
    assert passes(base)
