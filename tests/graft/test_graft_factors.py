"""The rank of a matrix from a sketch: exact where it is low, the best directions where not."""

from __future__ import annotations

import numpy as np
import pytest

from demur.graft.factors import factorise, rounding_norm


@pytest.mark.parametrize("rank", [1, 8, 20, 60])
def test_what_lora_added_is_found_through_rounding(rank: int) -> None:
    generator = np.random.default_rng(rank)
    weights = (generator.standard_normal((200, 96)) * 0.02).astype("f4")
    added = generator.standard_normal((200, rank)) @ generator.standard_normal((rank, 96)) * 1e-3
    given = (weights + added).astype("f4")
    change = given.astype("f8") - weights

    found = factorise(change, rounding_norm("F32", float(np.linalg.norm(given))))

    assert (found.rank, found.exact) == (rank, True)
    assert np.abs((found.up * found.values) @ found.down - added).max() < 1e-6
    expected = np.linalg.svd(change, compute_uv=False)[:rank]
    assert found.values == pytest.approx(expected, rel=1e-5)
    assert found.energy() == pytest.approx(1)


def test_what_was_rounded_to_bfloat16_has_the_rank_that_rounding_left() -> None:
    import torch

    generator = torch.Generator().manual_seed(0)
    weights = (torch.randn(128, 96, generator=generator) * 0.02).bfloat16()
    up, down = torch.randn(128, 4, generator=generator), torch.randn(4, 96, generator=generator)
    given = (weights.float() + up @ down * 2e-3).bfloat16()
    change = (given.double() - weights.double()).numpy()

    found = factorise(change, rounding_norm("BF16", float(given.double().norm())))

    assert (found.rank, found.exact) == (4, True)


def test_a_matrix_of_full_rank_keeps_its_first_directions() -> None:
    left, _, right = np.linalg.svd(np.random.default_rng(0).standard_normal((300, 120)), False)
    matrix = left / np.arange(1, 121) @ right  # singular values of 1, 1/2, 1/3, ...

    found = factorise(matrix, 1e-6, most=10)

    values = np.linalg.svd(matrix, compute_uv=False)
    assert (found.rank, found.exact) == (10, False)
    best = float((values[:10] ** 2).sum() / (values**2).sum())
    assert best * 0.999 <= found.energy() <= best + 1e-6
    assert found.residual == pytest.approx(found.norm * (1 - found.energy()) ** 0.5, rel=1e-4)
    assert found.energy(3) < found.energy(6) < found.energy()


@pytest.mark.parametrize("shape", [(3, 40), (40, 3), (12, 12)])
def test_small_matrices_are_decomposed_whole(shape: tuple[int, int]) -> None:
    matrix = np.random.default_rng(0).standard_normal(shape)

    found = factorise(matrix)

    assert (found.rank, found.exact) == (min(shape), True)
    assert np.abs((found.up * found.values) @ found.down - matrix).max() < 1e-5


def test_nothing_has_rank_zero() -> None:
    found = factorise(np.zeros((30, 40)))

    assert (found.rank, found.exact, found.energy()) == (0, True, 1.0)
    assert found.up.shape == (30, 0) and found.down.shape == (0, 40)
