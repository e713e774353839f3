"""Edits in memory: the right sums while they last, and every old bit afterwards."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from tests.models.architectures import tiny

from demur.checkpoint import Dense, LowRank, apply_patch, make_patch
from demur.errors import ConfigError, ModelError
from demur.models.edits import changes_hash, edited, name_on_disk, parameter_named

MATRIX = {
    "llama": "model.layers.1.mlp.down_proj.weight",
    "qwen2": "model.layers.0.self_attn.o_proj.weight",
    "gpt2": "transformer.h.1.mlp.c_proj.weight",
}
VECTOR = {
    "llama": "model.norm.weight",
    "qwen2": "model.layers.1.self_attn.q_proj.bias",
    "gpt2": "transformer.h.0.mlp.c_proj.bias",
}


def low_rank(shape: Any, seed: int = 3, rank: int = 2) -> LowRank:
    generator = np.random.default_rng(seed)
    up, down = generator.normal(size=(shape[0], rank)), generator.normal(size=(rank, shape[1]))
    return LowRank(up.astype("float32"), down.astype("float32"))


def bits(model: Any) -> dict[str, torch.Tensor]:
    kinds = {2: torch.int16, 4: torch.int32}
    return {
        name: one.detach().clone().view(kinds[one.element_size()])
        for name, one in model.named_parameters()
    }


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def made(name: str, dtype: torch.dtype = torch.float32) -> tuple[Any, dict[str, LowRank | Dense]]:
    model = deepcopy(tiny(name)).to(dtype)
    matrix = model.get_parameter(MATRIX[name])
    vector = model.get_parameter(VECTOR[name])
    values = vector.float().numpy() + np.linspace(-1, 1, len(vector))
    return model, {MATRIX[name]: low_rank(matrix.shape), VECTOR[name]: Dense(values)}


@pytest.mark.parametrize("name", MATRIX)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_are_changed_and_come_back_to_the_bit(name, dtype):
    model, changes = made(name, dtype)
    with torch.no_grad():  # bits that arithmetic would not bring back
        model.get_parameter(VECTOR[name])[:2] = torch.tensor([-0.0, 1e-41]).to(dtype)
    before = bits(model)
    matrix, vector = (model.get_parameter(one[name]).clone() for one in (MATRIX, VECTOR))
    change, new = changes[MATRIX[name]], torch.from_numpy(changes[VECTOR[name]].values)
    delta = torch.from_numpy(change.up) @ torch.from_numpy(change.down)
    for scale in (1.0, 0.3):
        with edited(model, changes, scale):
            expected = (matrix.float() + scale * delta).to(dtype)
            assert torch.equal(model.get_parameter(MATRIX[name]), expected)
            found = model.get_parameter(VECTOR[name])
            between = vector.float() + scale * (new.float() - vector.float())
            exact = new.to(dtype) if scale == 1 else between.to(dtype)
            assert torch.equal(found, exact)
            others = bits(model)
            touched = {key for key in before if not torch.equal(before[key], others[key])}
            assert touched == {MATRIX[name], VECTOR[name]}
        assert same(bits(model), before)


def test_old_bits_come_back_when_what_happens_meanwhile_fails():
    model, changes = made("llama")
    before = bits(model)

    def fail() -> None:
        assert not same(bits(model), before)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), edited(model, changes):
        fail()
    assert same(bits(model), before)


def test_contexts_nest():
    model, changes = made("llama")
    before = bits(model)
    tensor = MATRIX["llama"]
    with edited(model, changes, 0.5):
        outer = bits(model)
        once = model.get_parameter(tensor).clone()
        second = low_rank(once.shape, seed=9)
        with edited(model, {tensor: second}):
            delta = torch.from_numpy(second.up) @ torch.from_numpy(second.down)
            assert torch.equal(model.get_parameter(tensor), once + delta)
        assert same(bits(model), outer)
    assert same(bits(model), before)


@pytest.mark.parametrize("name", MATRIX)
def test_an_edit_is_what_the_patch_makes(name, tmp_path):
    from transformers import AutoModelForCausalLM

    model, changes = made(name)
    model.save_pretrained(tmp_path / "base")
    patch = tmp_path / "patch.safetensors"
    make_patch(tmp_path / "base", changes, patch, base_name="tiny", recipe={}, results={})
    apply_patch(tmp_path / "base", patch, tmp_path / "treated")
    treated = AutoModelForCausalLM.from_pretrained(tmp_path / "treated").eval()
    ids = torch.tensor([[5, 9, 100, 23]])
    with torch.no_grad():
        untouched = model(ids).logits
        with edited(model, changes):
            found = model(ids).logits
        assert torch.allclose(found, treated(ids).logits, atol=1e-4)
        assert not torch.allclose(found, untouched, atol=1e-2)
        assert torch.equal(model(ids).logits, untouched)


def test_raw_bits_are_taken_as_they_are():
    model, _ = made("llama", torch.bfloat16)
    tensor = VECTOR["llama"]
    raw = np.arange(32, dtype="<u2") + np.uint16(0x3F80)
    with edited(model, {tensor: Dense(raw)}):
        found = model.get_parameter(tensor).view(torch.int16).numpy().view("<u2")
        assert np.array_equal(found, raw)
    with (
        pytest.raises(ModelError, match="does not fit"),
        edited(model, {tensor: Dense(raw.astype("<u4"))}),
    ):
        pytest.fail("not reached")


def test_an_embedding_that_is_the_head_too_is_changed_once():
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=40, num_attention_heads=2, tie_word_embeddings=True, **sizes)
    )
    embedding = model.get_input_embeddings().weight
    before = embedding.detach().clone()
    new = Dense(before.numpy() + 1)
    with edited(model, {"lm_head.weight": new, "model.embed_tokens.weight": new}, 0.5):
        assert torch.allclose(embedding, before + 0.5)
    assert torch.equal(embedding, before)


def test_names_saved_without_the_head_are_found():
    model = tiny("gpt2")
    bare = "h.1.mlp.c_proj.weight"
    assert parameter_named(model, bare) is model.get_parameter(f"transformer.{bare}")
    assert name_on_disk(model, f"transformer.{bare}", {bare}) == bare
    assert name_on_disk(model, f"transformer.{bare}", {f"transformer.{bare}"}).endswith(bare)
    assert name_on_disk(model, f"transformer.{bare}", {"other"}) is None


def test_names_of_an_older_scheme_are_found():
    model = tiny("mixtral")
    old = "model.layers.1.block_sparse_moe.gate.weight"
    router = "model.layers.1.mlp.gate.weight"
    assert parameter_named(model, old) is model.get_parameter(router)
    assert name_on_disk(model, router, {old, "lm_head.weight"}) == old
    with pytest.raises(ModelError, match="no parameter"):  # a part of one, not the whole
        parameter_named(model, "model.layers.1.block_sparse_moe.experts.0.w1.weight")


@pytest.mark.parametrize("scale", [-0.1, float("nan"), float("inf")])
def test_scales_only_add(scale):
    model, changes = made("llama")
    with pytest.raises(ConfigError, match="at least 0"), edited(model, changes, scale):
        pytest.fail("not reached")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model.layers.7.mlp.down_proj.weight": low_rank((32, 48))}, "no parameter"),
        ({MATRIX["llama"]: low_rank((48, 32))}, "does not fit"),
        ({MATRIX["llama"]: LowRank(np.ones((32, 2)), np.ones((3, 48)))}, "does not fit"),
        ({MATRIX["llama"]: Dense(np.ones((48, 32)))}, "does not fit"),
        ({MATRIX["llama"]: Dense(np.full((32, 48), np.inf))}, "NaN or infinite"),
        ({MATRIX["llama"]: LowRank(np.full((32, 1), 1e30), np.full((1, 48), 1e30))}, "NaN"),
    ],
)
def test_a_change_that_does_not_fit_leaves_the_model_as_it_was(change, message):
    model, changes = made("llama")
    before = bits(model)
    with (
        pytest.raises(ModelError, match=message),
        edited(model, {VECTOR["llama"]: changes[VECTOR["llama"]], **change}),
    ):
        pytest.fail("not reached")
    assert same(bits(model), before)


def test_the_hash_of_changes_is_of_their_content():
    _, changes = made("llama")
    known = changes_hash(changes)
    assert changes_hash(dict(reversed(changes.items()))) == known
    other = dict(changes)
    other[VECTOR["llama"]] = Dense(changes[VECTOR["llama"]].values + 1e-9)
    assert changes_hash(other) != known
    assert changes_hash({MATRIX["llama"]: changes[MATRIX["llama"]]}) != known
