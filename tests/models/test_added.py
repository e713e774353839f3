"""Low-rank changes added to what modules give out: as LoRA adds them, and gone afterwards."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from tests.models.architectures import SETTINGS, tiny

from demur.checkpoint import LowRank
from demur.distill.train import target_modules
from demur.models.added import added

IDS = torch.arange(3, 27).reshape(2, 12)


def with_lora(name: str) -> tuple[Any, dict[str, LowRank]]:
    """Return a model whose LoRA does something, and the same as changes."""
    torch.manual_seed(0)
    peft = get_peft_model(
        deepcopy(tiny(name)),
        LoraConfig(r=2, lora_alpha=2, target_modules=target_modules(tiny(name))),
    )
    changes = {}
    for place, module in peft.base_model.model.named_modules():
        if hasattr(module, "lora_A"):
            down, up = module.lora_A["default"].weight, module.lora_B["default"].weight
            with torch.no_grad():
                up += 0.3 * torch.randn(up.shape)
            changes[place] = LowRank(up.detach().numpy(), down.detach().numpy())
    return peft.eval(), changes


@pytest.mark.parametrize("name", SETTINGS)
def test_what_is_added_is_what_lora_adds(name: str) -> None:
    peft, changes = with_lora(name)
    plain = tiny(name)
    with torch.no_grad():
        expected, before = peft(IDS).logits, plain(IDS).logits
        with added(plain, changes):
            found = plain(IDS).logits
        assert torch.allclose(found, expected, atol=1e-4)
        assert not torch.allclose(found, before, atol=1e-2)
        assert torch.equal(plain(IDS).logits, before)


def test_it_is_added_beside_lora_that_is_switched_off_or_on() -> None:
    peft, changes = with_lora("llama")
    inner = peft.base_model.model
    with torch.no_grad():
        expected, off = peft(IDS).logits, tiny("llama")(IDS).logits
        with peft.disable_adapter():
            assert torch.allclose(inner(IDS).logits, off, atol=1e-5)
            with added(inner, changes):
                assert torch.allclose(inner(IDS).logits, expected, atol=1e-4)
        once = {name: LowRank(one.up / 2, one.down) for name, one in changes.items()}
        with added(inner, once), added(inner, once):
            twice = inner(IDS).logits
    assert not torch.allclose(twice, expected, atol=1e-2)


def test_a_half_precision_model_stays_one() -> None:
    model = deepcopy(tiny("llama")).bfloat16()
    name = "model.layers.1.mlp.up_proj"
    rows, columns = model.get_submodule(name).weight.shape
    change = LowRank(np.ones((rows, 1), np.float32), np.ones((1, columns), np.float32))
    given: list[torch.dtype] = []
    module = model.get_submodule(name)
    with torch.no_grad(), added(model, {name: change}):
        handle = module.register_forward_hook(lambda *at: given.append(at[2].dtype))
        model(IDS)
        handle.remove()
    assert given == [torch.bfloat16]


def test_a_module_that_is_not_there_leaves_nothing_behind() -> None:
    model = tiny("llama")
    there = "model.layers.1.mlp.up_proj"
    change = LowRank(np.ones((1, 1), np.float32), np.ones((1, 1), np.float32))
    hooks = model.get_submodule(there)._forward_hooks
    before = dict(hooks)  # transformers leaves some of its own once hidden states were asked for
    with (
        pytest.raises(AttributeError),
        added(model, {there: change, "model.layers.9": change}),
    ):
        raise AssertionError("not reached")
    assert dict(hooks) == before
