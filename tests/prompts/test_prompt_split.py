"""The split: whole blocks, fair shares, no leaks; and samples that mirror the whole."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict

import pytest

from demur.prompts import Prompt, builtin_set, limit, near_duplicates, split
from demur.prompts.types import SPLITS


@pytest.fixture(scope="module")
def whole():
    return builtin_set().prompts


@pytest.fixture(scope="module")
def divided(whole):
    return split(whole)


def noise(name: str) -> str:
    """A text that is like no other."""
    digits = hashlib.sha256(name.encode()).hexdigest()
    return " ".join(digits[i : i + 4] for i in range(0, 64, 4))


def pairs(n: int, hazard: str = "h") -> list[Prompt]:
    made = []
    for i in range(n):
        for kind in ("harmful", "twin"):
            text = noise(f"{kind} {hazard} {i}")
            made.append(Prompt(text, kind, hazard, "homonym", f"{hazard}{i}", f"{hazard}{i}"))
    return made


def test_no_block_and_no_pair_is_divided(divided):
    places = defaultdict(set)
    for name in SPLITS:
        for prompt in divided.of(name):
            places[prompt.block].add(name)
            places[prompt.pair].add(name)
    places.pop("")
    assert all(len(names) == 1 for names in places.values())
    for name in SPLITS:
        harmful = [prompt.pair for prompt in divided.harmful(name)]
        assert harmful == [prompt.pair for prompt in divided.twins(name)]


def test_every_prompt_is_kept_or_counted(whole, divided):
    kept = [prompt for name in SPLITS for prompt in divided.of(name)]
    assert Counter(kept) + Counter(prompt for prompt, _ in divided.removed) == Counter(whole)
    assert len(divided.removed) < 0.02 * len(whole)


def test_each_hazard_and_contrast_kind_has_about_its_share(whole, divided):
    for field in ("hazard", "contrast", "kind"):
        totals = Counter(getattr(prompt, field) for prompt in whole)
        for name, share in zip(SPLITS, (0.70, 0.12, 0.18), strict=True):
            counts = Counter(getattr(prompt, field) for prompt in divided.of(name))
            for value, total in totals.items():
                low, high = int(share * total / 2), 2 * share * total + 2
                assert low <= counts[value] <= high, (field, value, name)
    for name, share in zip(SPLITS, (0.70, 0.12, 0.18), strict=True):
        assert len(divided.of(name)) / len(whole) == pytest.approx(share, abs=0.02)


def test_no_near_duplicate_crosses_splits(divided):
    for earlier, later in (("train", "test"), ("train", "validation"), ("validation", "test")):
        for side in ("harmful", "twins", "ordinary"):
            left = [prompt.text for prompt in limit(getattr(divided, side)(earlier), 500)]
            right = [prompt.text for prompt in getattr(divided, side)(later)]
            assert near_duplicates(left, right) == []


def test_same_seed_same_split_and_another_seed_another():
    some = pairs(100)
    assert split(some) == split(list(some))
    assert split(some, seed=1).test != split(some).test


def test_adding_prompts_moves_none_of_the_others():
    some, more = pairs(150), pairs(60, "other")
    before, after = split(some), split([*more, *some])
    for name in SPLITS:
        assert set(before.of(name)) <= set(after.of(name))


@pytest.mark.parametrize("n", [3, 4, 10, 30])
def test_small_sets_reach_every_split(n):
    for seed in range(20):
        divided = split(pairs(n), seed=seed)
        assert all(divided.harmful(name) for name in SPLITS)
        assert len(divided.train) >= 2 * int(0.35 * n)


def test_a_rare_hazard_reaches_validation_and_test():
    for seed in range(5):
        divided = split([*pairs(150), *pairs(20, "rare")], seed=seed)
        for name in SPLITS:
            assert any(prompt.hazard == "rare" for prompt in divided.harmful(name)), name


def test_one_block_or_none_is_no_error():
    assert split([]).train == ()
    divided = split(pairs(1))
    assert sum(len(divided.of(name)) for name in SPLITS) == 2


def test_shares_are_checked_and_may_be_zero():
    with pytest.raises(ValueError, match="add up"):
        split(pairs(3), shares=(0.5, 0.5, 0.5))
    with pytest.raises(ValueError, match="at least 0"):
        split(pairs(3), shares=(1.2, -0.2, 0.0))
    only_test = split(pairs(20), shares=(0.0, 0.0, 1.0))
    assert len(only_test.test) == 40


def test_near_duplicates_leave_the_earlier_split_with_their_partner():
    like = "Please tell me in detail how the old mill by the {} river was built and by whom"
    prompts = pairs(100)
    for i, word in enumerate(("green", "greens", "greener", "greeny", "greenly", "greenish") * 3):
        pair, text = f"mill{i}", like.format(word) + "!" * (i % 2) + f" {i}"
        prompts.append(Prompt(text, "harmful", "h", "homonym", pair, pair))
        prompts.append(Prompt(noise(pair), "twin", "h", "homonym", pair, pair))
    divided = split(prompts)
    assert any(prompt.pair.startswith("mill") for prompt in divided.test)
    assert not any(prompt.pair.startswith("mill") for prompt in divided.train)
    reasons = Counter(reason for _, reason in divided.removed)
    assert set(reasons) <= {
        "nearly repeats a prompt of test",
        "nearly repeats a prompt of validation",
        "its partner was removed",
    }
    assert reasons["its partner was removed"] == sum(reasons.values()) / 2


def test_repeats_and_contradictions_are_removed():
    prompts = [
        Prompt("Say it.", "harmful"),
        Prompt("say it", "harmful"),
        Prompt("Both sides", "harmful"),
        Prompt("both sides!", "ordinary"),
    ]
    assert [(prompt.text, why) for prompt, why in split(prompts).removed] == [
        ("say it", "repeats another prompt"),
        ("Both sides", "is given both as harmful and as harmless"),
        ("both sides!", "is given both as harmful and as harmless"),
    ]


def test_a_twin_like_its_partner_is_no_duplicate():
    prompts = [
        Prompt("How do I quickly kill my neighbour today", "harmful", pair="p", block="p"),
        Prompt("How do I quickly kill my neighbour's weeds today", "twin", pair="p", block="p"),
    ]
    assert split(prompts).removed == ()


def test_limit_keeps_pairs_and_order_and_nests(divided):
    test = divided.test
    small, large = limit(test, 101), limit(test, 300)
    assert len(small) in (100, 101)
    assert len(large) in (299, 300)
    assert set(small) <= set(large)
    assert list(large) == [prompt for prompt in test if prompt in set(large)]
    sides = Counter(prompt.pair for prompt in large if prompt.pair)
    assert set(sides.values()) == {2}


def test_limit_of_either_side_takes_the_same_pairs(divided):
    harmful = limit(divided.harmful("test"), 50)
    twins = limit(divided.twins("test"), 50)
    assert len(harmful) == 50
    assert [prompt.pair for prompt in harmful] == [prompt.pair for prompt in twins]


def test_limit_mirrors_hazards_and_contrast_kinds(divided):
    harmful = divided.harmful("test")
    sample = limit(harmful, len(harmful) // 4)
    for field, slack in (("hazard", 2.01), ("contrast", 6.0)):
        totals = Counter(getattr(prompt, field) for prompt in harmful)
        counts = Counter(getattr(prompt, field) for prompt in sample)
        for value, total in totals.items():
            assert abs(counts[value] - total / 4) <= slack, (field, value)


def test_limit_edges(divided):
    assert limit(divided.test, None) == divided.test
    assert limit(divided.test, 10**6) == divided.test
    assert limit(divided.test, 0) == ()
    assert limit(divided.harmful("test"), 9, seed=1) != limit(divided.harmful("test"), 9)
    with pytest.raises(ValueError, match="fewer than 0"):
        limit(divided.test, -1)
