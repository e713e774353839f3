"""LoRA that begins as a change taught before: the student then answers as that change makes it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.distill.students import student
from tests.distill.test_choose import wrapped

from demur.checkpoint import open_checkpoint
from demur.distill.choose import low_rank_changes, set_strength
from demur.distill.recipe import Recipe
from demur.distill.train import wrapped as with_lora
from demur.distill.untouched import untouched
from demur.distill.warm_start import begin_from
from demur.errors import TrainingError

IDS = torch.tensor([[5, 9, 14, 3]])


@pytest.mark.parametrize("name", ["llama", "gpt2", "phi3"])
@pytest.mark.parametrize("rank", [3, 5])
def test_training_begins_where_another_ended(name: str, rank: int, tmp_path: Path) -> None:
    chat, base = student(name), tmp_path / "base"
    chat.model.save_pretrained(base)
    taught, _ = wrapped(name, tmp_path)
    set_strength(taught.model, 0.5)
    changes = low_rank_changes(taught.model, base, 0.5)
    before = chat.model(IDS).logits
    model = with_lora(chat.model, Recipe(rank=rank, first_layer=0.0))
    assert begin_from(model, changes, open_checkpoint(base).tensors) == len(changes)
    begun = model(IDS).logits
    torch.testing.assert_close(begun, taught.model(IDS).logits, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(begun, before, atol=1e-3)
    with untouched(model) as original:
        torch.testing.assert_close(original(IDS).logits, before)


def test_a_change_of_what_is_not_trained(tmp_path: Path) -> None:
    chat, base = student("llama"), tmp_path / "base"
    chat.model.save_pretrained(base)
    taught, _ = wrapped("llama", tmp_path)
    changes = low_rank_changes(taught.model, base, 1.0)
    model = with_lora(chat.model, Recipe(rank=3, first_layer=0.5))
    with pytest.raises(TrainingError, match=r"layers\.0\..* and 6 other tensors") as failed:
        begin_from(model, changes, open_checkpoint(base).tensors)
    assert "--first-layer" in failed.value.remedy
