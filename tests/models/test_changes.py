"""Noise of a treatment's size, the way to a donor, and changes at another scale."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from tests.tiny import tiny_llama

from demur.checkpoint import Dense, LowRank, apply_patch, make_patch, open_checkpoint, read_tensor
from demur.errors import CheckpointError, ConfigError
from demur.models.changes.arithmetic import task_arithmetic
from demur.models.changes.noise import noise, norm
from demur.models.changes.scaling import scaled

MATRIX = "model.layers.0.mlp.down_proj.weight"
OTHER = "model.layers.1.mlp.down_proj.weight"
VECTOR = "model.norm.weight"


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def donor(tmp_path_factory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("donor"), seed=1)


@pytest.fixture
def changes(base) -> dict[str, LowRank | Dense]:
    generator = np.random.default_rng(0)
    up, down = (generator.normal(size=size).astype("float32") for size in ((32, 3), (3, 64)))
    vector = read_tensor(open_checkpoint(base), VECTOR)
    return {
        MATRIX: LowRank(up, down),
        OTHER: LowRank(2 * up, down),
        VECTOR: Dense(vector + generator.normal(size=32)),
    }


def size(base: Path, name: str, change: LowRank | Dense) -> float:
    if isinstance(change, LowRank):
        return float(np.linalg.norm(change.up.astype(float) @ change.down.astype(float)))
    return float(np.linalg.norm(change.values - read_tensor(open_checkpoint(base), name)))


@pytest.mark.parametrize("full_rank", [False, True])
def test_noise_has_the_size_and_rank_of_what_it_stands_for(base, changes, full_rank):
    made = noise(base, changes, 5, full_rank=full_rank)
    assert list(made) == list(changes)
    assert len(made) == 3
    for name, change in changes.items():
        found = made[name]
        assert size(base, name, found) == pytest.approx(size(base, name, change), rel=1e-5)
        kind = Dense if full_rank or name == VECTOR else LowRank
        assert isinstance(found, kind)
        if isinstance(found, LowRank):
            assert (found.up.shape, found.down.shape) == (change.up.shape, change.down.shape)
            assert norm(change) == pytest.approx(size(base, name, change), rel=1e-6)
            flat = [(one.up @ one.down).ravel() for one in (found, change)]
            assert abs(np.corrcoef(*flat)[0, 1]) < 0.2
    with pytest.raises(KeyError):
        made["model.embed_tokens.weight"]


def test_noise_is_the_seeds(base, changes):
    first, again, other = (noise(base, changes, seed) for seed in (5, 5, 6))
    assert np.array_equal(first[MATRIX].up, again[MATRIX].up)
    assert not np.array_equal(first[MATRIX].up, other[MATRIX].up)
    assert not np.array_equal(first[MATRIX].down, first[OTHER].down)
    alone = noise(base, {OTHER: changes[OTHER]}, 5)
    assert np.array_equal(first[OTHER].down, alone[OTHER].down)


def test_noise_makes_a_patch(base, changes, tmp_path):
    patch = tmp_path / "patch.safetensors"
    made = noise(base, changes, 1)
    make_patch(base, made, patch, base_name="tiny", recipe={}, results={})
    assert apply_patch(base, patch, tmp_path / "treated").exact
    before, after = (
        read_tensor(open_checkpoint(one), MATRIX) for one in (base, tmp_path / "treated")
    )
    moved = np.linalg.norm(after.astype(float) - before)
    assert moved == pytest.approx(norm(changes[MATRIX]), rel=1e-4)


def test_raw_bits_have_noise_of_their_size(base):
    vector = read_tensor(open_checkpoint(base), VECTOR)
    raw = Dense((vector + 2).astype("<f4").view("<u4"))
    made = noise(base, {VECTOR: raw}, 1)[VECTOR]
    assert np.linalg.norm(made.values - vector) == pytest.approx(2 * 32**0.5)
    with pytest.raises(CheckpointError, match="do not fit"):
        noise(base, {VECTOR: Dense(np.ones(31))}, 1)[VECTOR]


def test_changes_at_another_scale(base, changes):
    vector = read_tensor(open_checkpoint(base), VECTOR)
    half = scaled(base, changes, 0.5)
    assert list(half) == list(changes)
    delta = changes[MATRIX].up @ changes[MATRIX].down
    assert np.allclose(half[MATRIX].up @ half[MATRIX].down, 0.5 * delta)
    assert np.allclose(half[VECTOR].values, (vector + changes[VECTOR].values) / 2)
    raw = Dense((vector + 2).astype("<f4").view("<u4"))
    assert np.allclose(scaled(base, {VECTOR: raw}, 0.5)[VECTOR].values, vector + 1)
    assert scaled(base, {VECTOR: raw}, 1.0)[VECTOR] is raw
    with pytest.raises(ConfigError, match="never to take them away"):
        scaled(base, changes, -1.0)


def test_the_whole_way_is_the_donor_to_the_bit(base, donor, tmp_path):
    patch = tmp_path / "patch.safetensors"
    made = task_arithmetic(base, donor)
    make_patch(base, made, patch, base_name="tiny", recipe={}, results={})
    apply_patch(base, patch, tmp_path / "treated")
    found, expected = (
        load_file(one / "model.safetensors") for one in (tmp_path / "treated", donor)
    )
    assert all(np.array_equal(found[name], expected[name]) for name in expected)
    assert MATRIX in made
    assert VECTOR not in made  # the same in both


def test_part_of_the_way_and_some_tensors(base, donor):
    made = task_arithmetic(base, donor, 0.25, [MATRIX])
    assert list(made) == [MATRIX]
    ours, theirs = (read_tensor(open_checkpoint(one), MATRIX) for one in (base, donor))
    assert np.allclose(made[MATRIX].values, 0.75 * ours + 0.25 * theirs, atol=1e-7)
    with pytest.raises(KeyError):
        made[OTHER]


def test_a_donor_of_another_dtype_serves(base, donor, tmp_path):
    weights = load_file(donor / "model.safetensors")
    save_file(
        {name: one.astype("float16") for name, one in weights.items()},
        tmp_path / "model.safetensors",
    )
    made = task_arithmetic(base, tmp_path)
    assert np.array_equal(made[MATRIX].values, weights[MATRIX].astype("float16").astype(float))


def test_what_is_no_donor_is_told(base, donor, tmp_path):
    with pytest.raises(ConfigError, match="at least 0"):
        task_arithmetic(base, donor, -0.5)
    with pytest.raises(CheckpointError, match=r"no tensor model.nothing"):
        task_arithmetic(base, donor, 1.0, ["model.nothing"])
    with pytest.raises(CheckpointError, match="the same weights"):
        task_arithmetic(base, base)
    with pytest.raises(CheckpointError, match=r"the same weights .* in all 1 tensors"):
        task_arithmetic(base, donor, 1.0, [VECTOR])
    deeper = tiny_llama(tmp_path / "deeper", num_hidden_layers=3)
    with pytest.raises(CheckpointError, match=r"other tensors .*: only it has model.layers.2"):
        task_arithmetic(base, deeper)
    with pytest.raises(CheckpointError, match=r"other tensors .*: it lacks model.layers.2"):
        task_arithmetic(deeper, base)
    wider = tiny_llama(tmp_path / "wider", intermediate_size=96)
    with pytest.raises(CheckpointError, match=r"\[32, 64\] in .* and \[32, 96\] in the donor"):
        task_arithmetic(base, wider)
    weights = load_file(donor / "model.safetensors")
    weights[MATRIX] = weights[MATRIX].astype("int8")
    whole = tmp_path / "whole"
    whole.mkdir()
    save_file(weights, whole / "model.safetensors")
    with pytest.raises(CheckpointError, match="F32 and I8, which cannot be computed with"):
        task_arithmetic(base, whole)


def test_the_way_to_a_donor_can_be_tried_in_memory(base, donor):
    from transformers import AutoModelForCausalLM

    from demur.models.edits import edited

    model, other = (AutoModelForCausalLM.from_pretrained(one).eval() for one in (base, donor))
    ids = torch.tensor([[5, 9, 100, 23]])
    with torch.no_grad(), edited(model, task_arithmetic(base, donor)):
        assert torch.equal(model(ids).logits, other(ids).logits)
