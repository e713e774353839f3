"""ddmin asks what picire asks, in its order; the weighted one splits by weight."""

from __future__ import annotations

import random

import pytest
from tests.graft.search.oracles import Oracle, arbitrary, bounded, either, needs, run

from demur.graft.search import Search
from demur.graft.search.ddmin import split_evenly
from demur.graft.search.weighted import split_by_weight

# What picire 21.8 tests (its repeated check of each result aside), as sets of single digits.
RECORDED = (
    (8, ((2, 6),), "0123 4567 01 23 45 67 234567 2367 2 3 6 7 237 236 36 26"),
    (10, ((1,), (8, 9)), "01234 01 0 1"),
    (
        10,
        ((0, 4, 9),),
        "01234 56789 01 23 456 789 23456789 01456789 01789 01456 456789 0 1 4 5 67 89 0156789 "
        "0146789 01489 014 1489 0489 089 04 489 8 9 049 49 09",
    ),
    (
        9,
        ((1, 2, 7), (3, 8)),
        "0123 45678 01 23 45 678 2345678 23678 2 3 6 78 2378 378 7 8 38",
    ),
)


def by_picire(n: int, oracle: Oracle) -> list[frozenset[int]]:
    """Return the sets that picire tests, each once."""
    picire = pytest.importorskip("picire")
    tested: list[frozenset[int]] = []

    def test(config, config_id):
        if "assert" not in config_id:
            tested.append(frozenset(config))
        return picire.Outcome.FAIL if oracle(frozenset(config)) else picire.Outcome.PASS

    picire.DD(test)(list(range(n)))
    return list(dict.fromkeys(tested))


def digits(candidate: frozenset[int]) -> str:
    return "".join(map(str, sorted(candidate)))


@pytest.mark.parametrize(("n", "groups", "recorded"), RECORDED)
def test_asks_what_was_recorded_of_picire(n, groups, recorded):
    tested = run(Search([1] * n, method="ddmin"), either(*groups))
    assert tested[:2] == [frozenset(range(n)), frozenset()]
    assert [digits(candidate) for candidate in tested[2:]] == recorded.split()


def test_asks_what_picire_asks():
    pytest.importorskip("picire")
    for seed in range(60):
        generator = random.Random(seed)
        n = generator.randint(2, 60)
        groups = [
            tuple(generator.sample(range(n), min(n, generator.randint(1, 8))))
            for _ in range(generator.randint(1, 3))
        ]
        oracle = bounded(arbitrary(seed, 0.2) if seed % 3 == 0 else either(*groups), n)
        tested = run(Search([1] * n, method="ddmin"), oracle)
        theirs = [candidate for candidate in by_picire(n, oracle) if len(candidate) < n]
        assert tested[2:] == theirs


def test_even_parts_differ_by_at_most_one():
    parts = (tuple(range(23)),)
    for _ in range(6):
        parts = split_evenly(parts)
        assert sum(parts, ()) == tuple(range(23))
        sizes = {len(part) for part in parts}
        assert max(sizes) - min(sizes) <= 1
    assert len(parts) == 23


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ([1, 1, 1, 1], ((0, 1), (2, 3))),
        ([9, 1, 1, 1], ((0,), (1, 2, 3))),
        ([1, 1, 1, 9], ((0, 1, 2), (3,))),
        ([1, 5, 2, 1], ((0, 1), (2, 3))),
        ([2, 5], ((0,), (1,))),
    ],
)
def test_halves_weigh_most_nearly_the_same(weights, expected):
    assert split_by_weight(tuple(range(len(weights))), weights) == expected


def test_a_heavy_module_is_alone_at_once():
    search = Search([100, *[1] * 31], method="wddmin")
    tested = run(search, needs(0))
    assert search.best == {0}
    assert len(tested) == 3  # all, none, and the heavy half


@pytest.mark.parametrize("seed", range(20))
def test_weighted_ends_with_a_minimal_set(seed):
    generator = random.Random(seed)
    weights = [generator.choice([1, 10, 1000]) for _ in range(40)]
    wanted = generator.sample(range(40), generator.randint(1, 8))
    search = Search(weights, generator.sample(range(40), 40), method="wddmin")
    tested = run(search, needs(*wanted))
    assert search.best == set(wanted)
    assert len(tested) < 40**2
