"""Binary splitting takes few tests for few modules, and hardly more than n for many."""

from __future__ import annotations

import math
import random

import pytest
from tests.graft.search.oracles import needs, run

from demur.graft.search import Search
from demur.graft.search.splitting import binary_splitting


@pytest.mark.parametrize("n", [30, 100, 1000])
@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_few_needed_modules_take_logarithmically_many_tests(n, k):
    for seed in range(8):
        generator = random.Random(f"{n} {k} {seed}")
        wanted = generator.sample(range(n), k)
        search = Search([1] * n, generator.sample(range(n), n), method="splitting")
        tested = run(search, needs(*wanted))
        assert search.best == set(wanted)
        assert len(tested) <= 8 + 3 * k * math.log2(n)


@pytest.mark.parametrize("share", [0.3, 0.6, 1.0])
def test_many_needed_modules_take_hardly_more_than_one_test_each(share):
    for seed in range(8):
        generator = random.Random(seed)
        wanted = generator.sample(range(100), int(100 * share))
        search = Search([1] * 100, generator.sample(range(100), 100), prove=False)
        tested = run(search, needs(*wanted))
        assert search.best == set(wanted)
        assert len(tested) <= 125


def test_a_right_trace_needs_next_to_nothing():
    search = Search([1] * 1000, method="splitting")
    tested = run(search, needs(0, 1, 2))
    assert search.best == {0, 1, 2}
    assert len(tested) <= 2 + 10 + 3 + 3


def test_what_is_found_to_be_needed_stays():
    step = binary_splitting(tuple(range(40)))
    while step.candidate is not None:
        assert step.candidate >= set(step.needed)
        step = step.after({11, 29} <= step.candidate)
    assert step.needed == step.kept == (11, 29)


def test_a_single_module_leaves_nothing_to_do():
    assert binary_splitting((5,)).candidate is None
