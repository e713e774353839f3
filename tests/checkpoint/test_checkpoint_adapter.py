"""A patch as a PEFT adapter: what peft loads answers as the patched model does."""

import json

import numpy as np
import pytest
from tests.tiny import tiny_llama

from demur.checkpoint import Dense, LowRank, apply_patch, make_patch, open_checkpoint, write_adapter
from demur.errors import CheckpointError

GATE, QUERY, DOWN = (
    "model.layers.0.mlp.gate_proj.weight",
    "model.layers.1.self_attn.q_proj.weight",
    "model.layers.1.mlp.down_proj.weight",
)
GPT2 = {"h.0.attn.c_attn.weight": 2, "h.1.mlp.c_proj.weight": 3}


def change(tensor, rank, seed):
    rows, columns = tensor.shape
    rng = np.random.default_rng(seed)
    return LowRank(rng.normal(size=(rows, rank)) * 0.1, rng.normal(size=(rank, columns)))


def patch_of(folder, changes, path):
    make_patch(folder, changes, path, base_name="tiny", recipe={}, results={})
    return path


def logits(model):
    import torch

    with torch.no_grad():
        return model(torch.arange(3, 40)[None]).logits


@pytest.fixture
def llama(tmp_path):
    folder = tiny_llama(tmp_path / "base", dtype="float32")
    tensors = open_checkpoint(folder).tensors
    ranks = {GATE: 4, QUERY: 4, DOWN: 2}
    changes = {name: change(tensors[name], rank, rank) for name, rank in ranks.items()}
    return folder, patch_of(folder, changes, tmp_path / "p.safetensors")


def test_peft_loads_it_and_answers_as_the_patched_model(llama, tmp_path):
    import torch
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import safe_open
    from transformers import AutoModelForCausalLM

    folder, patch = llama
    adapter = write_adapter(patch, str(folder), tmp_path / "adapter")
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(folder)
    assert config["target_modules"] == sorted(
        one.removesuffix(".weight") for one in (GATE, QUERY, DOWN)
    )
    assert (config["r"], list(config["rank_pattern"].values())) == (4, [2])
    apply_patch(folder, patch, tmp_path / "patched")
    base = AutoModelForCausalLM.from_pretrained(folder)
    before = logits(base)
    wanted = logits(AutoModelForCausalLM.from_pretrained(tmp_path / "patched"))
    adapted = PeftModel.from_pretrained(base, str(adapter))
    with safe_open(adapter / "adapter_model.safetensors", "pt") as stored:
        assert set(stored.keys()) == set(get_peft_model_state_dict(adapted))
    found = logits(adapted)
    assert (before - wanted).abs().max() > 0.05
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(logits(adapted.merge_and_unload()), wanted, rtol=1e-4, atol=1e-5)


def test_transposed_matrices(tmp_path):
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    small = GPT2Config(vocab_size=64, n_positions=64, n_embd=16, n_layer=2, n_head=2)
    GPT2LMHeadModel(small).save_pretrained(tmp_path / "base")
    tensors = open_checkpoint(tmp_path / "base").tensors
    prefix = "" if set(GPT2) <= set(tensors) else "transformer."
    ranks = {prefix + name: rank for name, rank in GPT2.items()}
    changes = {name: change(tensors[name], rank, rank) for name, rank in ranks.items()}
    patch = patch_of(tmp_path / "base", changes, tmp_path / "p.safetensors")
    modules = {
        name: "transformer." + name.removeprefix(prefix).removesuffix(".weight") for name in ranks
    }
    adapter = write_adapter(patch, "x", tmp_path / "a", modules=modules, transposed=list(ranks))
    apply_patch(tmp_path / "base", patch, tmp_path / "patched")
    wanted = logits(AutoModelForCausalLM.from_pretrained(tmp_path / "patched"))
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    assert (logits(base) - wanted).abs().max() > 0.01
    adapted = PeftModel.from_pretrained(base, str(adapter))
    torch.testing.assert_close(logits(adapted), wanted, rtol=1e-4, atol=1e-5)


def test_what_an_adapter_cannot_hold(llama, tmp_path):
    folder, patch = llama
    tensors = open_checkpoint(folder).tensors
    norm, embedding = "model.norm.weight", "model.embed_tokens.weight"
    for name, what, text in (
        (norm, Dense(np.zeros(tensors[norm].shape, np.float32)), "changes model.norm.weight as a"),
        (embedding, change(tensors[embedding], 2, 0), "is not the weight of a linear module"),
    ):
        refused = patch_of(folder, {name: what}, tmp_path / "refused")
        with pytest.raises(CheckpointError) as caught:
            write_adapter(refused, "tiny", tmp_path / "adapter")
        assert text in caught.value.cause
        assert "demur apply" in caught.value.remedy
        assert not (tmp_path / "adapter").exists()
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "kept").write_text("x")
    with pytest.raises(CheckpointError, match="not empty"):
        write_adapter(patch, "tiny", tmp_path / "adapter")
