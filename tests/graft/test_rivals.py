"""What a user would pick instead of a graft, on tiny models whose algebra is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tests.tiny import tiny_llama

from demur.checkpoint import Dense, apply_patch, make_patch
from demur.errors import CheckpointError, ConfigError
from demur.graft.rivals import relatives as room
from demur.graft.rivals.controls import random_modules, whole_donor
from demur.graft.rivals.relatives import open_relatives
from demur.graft.rivals.subspace import (
    alignment_cosines,
    column_space,
    cosine,
    project,
    safe_lora,
    safe_merge,
    strays,
)
from demur.graft.rivals.table import RIVALS
from demur.graft.rivals.vectors import chat_vector, dare, leading, lox, resta
from demur.models.anatomy.types import Anatomy, Module

MATRIX = "model.layers.0.mlp.down_proj.weight"  # both changed it
ONLY_DONOR = "model.layers.1.mlp.down_proj.weight"
ONLY_RECIPIENT = "model.layers.1.self_attn.q_proj.weight"
VECTOR = "model.norm.weight"  # both changed it
SAME = "model.embed_tokens.weight"
GENERATOR = np.random.default_rng(0)


def add_to(folder: Path, base: Path, names: list[str], seed: int, rank: int = 99) -> Path:
    generator = np.random.default_rng(seed)
    weights = load_file(base / "model.safetensors")
    folder.mkdir()
    for name in names:
        change = 0.05 * generator.standard_normal(weights[name].shape)
        if change.ndim == 2:
            change = leading(change, rank)
        weights[name] = weights[name] + change.astype("f4")
    save_file(weights, folder / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path, Path]:
    root = tmp_path_factory.mktemp("family")
    base = tiny_llama(root / "base")
    recipient = add_to(root / "recipient", base, [MATRIX, ONLY_RECIPIENT, VECTOR], 1)
    donor = add_to(root / "donor", base, [MATRIX, ONLY_DONOR, VECTOR], 2, rank=2)
    return recipient, donor, base


@pytest.fixture(scope="module")
def weights(folders) -> list[dict[str, np.ndarray]]:
    return [
        {name: one.astype("f8") for name, one in load_file(folder / "model.safetensors").items()}
        for folder in folders
    ]


def test_a_chat_vector_is_added(folders, weights):
    own, other, common = weights
    made = chat_vector(*folders, 0.5)
    assert sorted(made) == sorted([MATRIX, ONLY_DONOR, VECTOR])
    for name in made:
        expected = own[name] + 0.5 * (other[name] - common[name])
        assert np.allclose(made[name].values, expected, atol=1e-12)
    assert list(chat_vector(*folders, tensors=[VECTOR, SAME])) == [VECTOR]
    assert np.array_equal(chat_vector(*folders, 0)[MATRIX].values, own[MATRIX])


def test_blocks_make_no_difference(folders, monkeypatch):
    whole = resta(*folders, drop=0.4)[MATRIX].values
    monkeypatch.setattr(room, "BLOCK_ELEMENTS", 7)
    assert np.array_equal(resta(*folders, drop=0.4)[MATRIX].values, whole)


def test_resta_that_drops_nothing_is_a_chat_vector(folders):
    plain = chat_vector(*folders, 0.7)
    for thinned in ("recipient", "donor"):
        made = resta(*folders, 0.7, drop=0.0, thinned=thinned)
        assert list(made) == list(plain)
        assert all(np.array_equal(made[name].values, plain[name].values) for name in plain)


def test_dare_keeps_the_mean():
    change = GENERATOR.standard_normal((40, 50))
    draws = [dare(change, 0.6, np.random.default_rng(seed)) for seed in range(400)]
    shares = [np.count_nonzero(one) / one.size for one in draws]
    assert np.mean(shares) == pytest.approx(0.4, abs=0.003)
    for one in draws[:5]:
        kept = one != 0
        assert np.allclose(one[kept], change[kept] / 0.4)
    # The mean of n draws has the standard error |change| sqrt(p / (1 - p) / n) in each place.
    error = (np.mean(draws, axis=0) - change) / (np.abs(change) * np.sqrt(0.6 / 0.4 / 400))
    assert np.mean(error**2) == pytest.approx(1.0, abs=0.15)
    assert np.array_equal(dare(change, 0.0, np.random.default_rng(1)), change)


def test_resta_thins_what_the_recipient_learnt_or_what_the_donor_gives(folders, weights):
    own, other, common = weights
    made = resta(*folders, drop=0.5, seed=3)
    assert sorted(made) == sorted([MATRIX, ONLY_DONOR, ONLY_RECIPIENT, VECTOR])
    left = made[ONLY_RECIPIENT].values - common[ONLY_RECIPIENT]
    learnt = own[ONLY_RECIPIENT] - common[ONLY_RECIPIENT]
    dropped = np.isclose(left, 0, atol=1e-12)
    assert 0.4 < dropped.mean() < 0.6
    assert np.allclose(left[~dropped], 2 * learnt[~dropped])
    assert np.allclose(made[ONLY_DONOR].values, other[ONLY_DONOR])
    again, another = (resta(*folders, drop=0.5, seed=seed)[MATRIX].values for seed in (3, 4))
    assert np.array_equal(made[MATRIX].values, again)
    assert not np.array_equal(made[MATRIX].values, another)
    given = resta(*folders, drop=0.5, thinned="donor")
    assert ONLY_RECIPIENT not in given
    added, vector = given[MATRIX].values - own[MATRIX], other[MATRIX] - common[MATRIX]
    dropped = np.isclose(added, 0, atol=1e-12)
    assert 0.4 < dropped.mean() < 0.6
    assert np.allclose(added[~dropped], 2 * vector[~dropped])


def test_leading_directions_are_the_best_of_their_rank():
    matrix = GENERATOR.standard_normal((30, 12))
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    best = (left[:, :3] * values[:3]) @ right[:3]
    assert np.allclose(leading(matrix, 3), best)
    assert np.allclose(leading(matrix.T, 3), best.T)
    assert np.allclose(leading(matrix, 99), matrix)


def test_extrapolation_goes_beyond_the_donor(folders, weights):
    own, other, common = weights
    vector = other[MATRIX] - common[MATRIX]
    made = lox(*folders, rank=2, extrapolation=1.5)
    expected = own[MATRIX] + vector + 1.5 * leading(vector, 2)
    assert np.allclose(made[MATRIX].values, expected)
    assert np.allclose(made[VECTOR].values, own[VECTOR] + other[VECTOR] - common[VECTOR])
    assert np.allclose(
        lox(*folders, extrapolation=0)[MATRIX].values, chat_vector(*folders)[MATRIX].values
    )


@pytest.mark.parametrize("shape", [(30, 12), (12, 30), (20, 20)])
def test_projections(shape):
    rows, columns = shape
    rank = 4
    alignment = GENERATOR.standard_normal((rows, rank)) @ GENERATOR.standard_normal((rank, columns))
    change = GENERATOR.standard_normal(shape)
    once = project(alignment, change, "orthogonal")
    assert np.allclose(project(alignment, once, "orthogonal"), once)  # idempotent
    assert np.allclose(alignment.T @ (change - once), 0, atol=1e-9)  # what is left is orthogonal
    inside = alignment @ GENERATOR.standard_normal((columns, columns))
    assert np.allclose(project(alignment, inside, "orthogonal"), inside)
    assert column_space(alignment).shape == (rows, rank)
    published = project(alignment, change)
    expected = alignment @ alignment.T @ change / np.linalg.norm(alignment)
    assert np.allclose(published, expected)
    # The published one is no projection: its size goes with the alignment's.
    assert np.allclose(project(3 * alignment, change), 3 * published)
    # Both have a cosine that does not depend on sizes, and lies from 0 to 1.
    for projector in ("published", "orthogonal"):
        first = cosine(change, project(alignment, change, projector))
        second = cosine(2 * change, project(3 * alignment, 2 * change, projector))
        assert first == pytest.approx(second)
        assert 0 < first < 1
    assert not project(np.zeros(shape), change).any()
    assert not project(np.zeros(shape), change, "orthogonal").any()
    assert cosine(change, np.zeros(shape)) == 0


def test_cosines_are_of_matrices_that_both_changed(folders, weights):
    own, other, common = weights
    found = alignment_cosines(*folders)
    assert list(found) == [MATRIX]
    change, given = own[MATRIX] - common[MATRIX], other[MATRIX] - common[MATRIX]
    assert found[MATRIX] == pytest.approx(cosine(change, given @ given.T @ change))
    recipient, _, base = folders
    itself = alignment_cosines(recipient, recipient, base, projector="orthogonal")
    assert itself == pytest.approx({MATRIX: 1.0, ONLY_RECIPIENT: 1.0})


def test_safe_lora_projects_what_strays(folders, weights):
    own, other, common = weights
    change, given = own[MATRIX] - common[MATRIX], other[MATRIX] - common[MATRIX]
    made = safe_lora(*folders, threshold=1.1)
    assert made.chosen == (MATRIX,)
    assert sorted(made) == sorted([MATRIX, ONLY_DONOR, VECTOR])
    assert np.allclose(made[MATRIX].values, other[MATRIX] + project(given, change))
    assert np.allclose(made[ONLY_DONOR].values, other[ONLY_DONOR])
    orthogonal = safe_lora(*folders, threshold=1.1, projector="orthogonal")
    kept = orthogonal[MATRIX].values - other[MATRIX]
    assert np.allclose(kept, project(given, change, "orthogonal"))
    assert np.linalg.norm(kept) < 0.5 * np.linalg.norm(change)  # two of 32 directions
    assert np.linalg.matrix_rank(kept, tol=1e-4) == 2
    # Where nothing strays it is a chat vector.
    none, plain = safe_lora(*folders, threshold=-1.1), chat_vector(*folders)
    assert none.chosen == ()
    assert list(none) == list(plain)
    assert all(np.allclose(none[name].values, plain[name].values) for name in plain)


def test_safe_merge_mixes_what_strays(folders, weights):
    own, other, _ = weights
    made = safe_merge(*folders, threshold=1.1, share=0.25)
    assert list(made) == [MATRIX]
    assert np.allclose(made[MATRIX].values, 0.75 * own[MATRIX] + 0.25 * other[MATRIX])
    assert made.cosines == alignment_cosines(*folders)
    assert not safe_merge(*folders, threshold=-1.1)
    assert safe_merge(*folders, threshold=-1.1, number=5).chosen == (MATRIX,)
    with pytest.raises(ConfigError, match="not from 0 to 1"):
        safe_merge(*folders, share=1.5)


def test_the_lowest_cosines_stray():
    cosines = {"first": 0.5, "second": 0.1, "third": 0.3, "fourth": 0.2}
    assert strays(cosines, 0.3, None) == ("second", "fourth")
    assert strays(cosines, 0.0, 3) == ("second", "third", "fourth")
    assert strays(cosines, 1.0, 0) == ()
    with pytest.raises(ConfigError, match="negative"):
        strays(cosines, 1.0, -1)


def test_the_whole_donor_leaves_nothing_of_the_recipient(folders, weights):
    _, other, _ = weights
    made = whole_donor(*folders[:2])
    assert sorted(made) == sorted([MATRIX, ONLY_DONOR, ONLY_RECIPIENT, VECTOR])
    assert all(np.array_equal(made[name].values, other[name]) for name in made)


def module(name: str, size: int) -> Module:
    return Module(name, 0, "gate", (), (), "", None, size)


def test_random_modules_hold_as_many_numbers():
    modules = tuple(
        module(f"layers.{i}.{kind}", size)
        for i in range(10)
        for kind, size in (("gate", 30), ("up", 30), ("q", 12))
    )
    anatomy = Anatomy("Tiny", (), modules, "", (), (), 1000)
    sizes = {one.name: one.parameters for one in modules}
    chosen = {"layers.1.gate", "layers.2.gate", "layers.3.up", "layers.4.q"}
    drawn = [random_modules(anatomy, chosen, seed) for seed in range(50)]
    assert all(sum(map(sizes.__getitem__, one)) == 102 and len(one) == 4 for one in drawn)
    assert len(set(drawn)) > 40
    assert random_modules(anatomy, sorted(chosen), 7) == drawn[7]
    assert {name for one in drawn for name in one} >= {name for name in sizes if "gate" in name}
    among = [name for name in sizes if "up" in name or "q" in name]
    assert random_modules(anatomy, chosen, 0, among) <= set(among)
    assert random_modules(anatomy, [], 0) == frozenset()
    with pytest.raises(ConfigError, match=r"no module layers\.99\.gate"):
        random_modules(anatomy, ["layers.99.gate"], 0)
    with pytest.raises(ConfigError, match="1 modules of 30 numbers"):
        random_modules(anatomy, chosen, 0, ["layers.1.gate", "layers.4.q"])


def test_every_rival_makes_a_patch(folders, tmp_path):
    recipient, donor, base = folders
    for name, rival in RIVALS.items():
        changes = rival.make(recipient, donor, base, seed=1)
        assert all(isinstance(changes[tensor], Dense) for tensor in changes)
        patch = tmp_path / f"{name}.safetensors"
        make_patch(recipient, changes, patch, base_name="tiny", recipe={}, results={})
        assert apply_patch(recipient, patch, tmp_path / name).exact
        other = rival.make(recipient, donor, base, seed=2)
        same = all(np.array_equal(changes[one].values, other[one].values) for one in changes)
        assert same is not rival.seeded


def test_refusals_are_never_taken_away(folders):
    with pytest.raises(ConfigError, match="never to take them away"):
        chat_vector(*folders, -1.0)
    with pytest.raises(ConfigError, match="never to take them away"):
        lox(*folders, extrapolation=-0.1)


def test_what_cannot_be_is_told(folders, tmp_path):
    recipient, donor, base = folders
    with pytest.raises(ConfigError, match="share to drop"):
        resta(*folders, drop=1.0)
    with pytest.raises(ConfigError, match="rank 0"):
        lox(*folders, rank=0)
    with pytest.raises(CheckpointError, match="the same weights as"):
        open_relatives(recipient, base, base)
    with pytest.raises(CheckpointError, match=r"no tensor model\.nothing"):
        chat_vector(*folders, tensors=["model.nothing"])
    with pytest.raises(CheckpointError, match="Nothing of"):
        chat_vector(*folders, tensors=[SAME])
    deeper = tiny_llama(tmp_path / "deeper", num_hidden_layers=3)
    with pytest.raises(CheckpointError, match="other tensors"):
        open_relatives(recipient, deeper, base)
    with pytest.raises(CheckpointError, match="other tensors"):
        open_relatives(recipient, donor, deeper)
