"""Looking block by block: decisions of the whole, what is open written only where it matters."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial

import pytest

from demur.graft.first_tokens import Reading
from demur.graft.looking import look
from demur.graft.search.sequential import SequentialTest
from demur.graft.wanted import Looked


def looked(truth: Sequence[bool], opened: set[int], cut: int, block: int = 8) -> Looked:
    """Look at prompts of known truth, of which some are open until they are written."""
    places = list(range(len(truth)))

    def read(part: Sequence[int]) -> Reading:
        margins = tuple(1.0 if truth[place] else -1.0 for place in part)
        return Reading(margins, tuple(place not in opened for place in part))

    def write(part: Sequence[int]) -> list[bool]:
        assert set(part) <= opened
        return [truth[place] for place in part]

    blocks = [places[start : start + block] for start in range(0, len(places), block)]
    begin = partial(SequentialTest.around, cut / len(truth), 0.05, 0.05, 0.05, n_max=len(truth))
    return look(blocks, read, write, begin)


@pytest.mark.parametrize("refused", [0, 2, 60, 64])
def test_what_is_clear_is_not_written(refused: int) -> None:
    truth = [True] * refused + [False] * (64 - refused)
    random.Random(0).shuffle(truth)

    found = looked(truth, {1, 9, 20}, 32)

    assert found.above == (refused > 32)
    assert not found.written and found.tally.n < 64
    assert len(found.margins) == found.tally.n
    assert found.tally.open == len({1, 9, 20} & set(range(found.tally.n)))


def test_what_is_open_is_written_where_it_decides() -> None:
    truth = [True] * 64

    found = looked(truth, set(range(64)), 32)

    assert found.above and found.written
    assert found.tally.refused == found.tally.n < 64


@pytest.mark.parametrize("count", range(20, 30))
def test_at_the_end_the_count_decides(count: int) -> None:
    truth = [place % 2 == 0 and place < 2 * count for place in range(64)]  # 32 at most, in turn

    found = looked(truth, {0, 1, 40, 41}, 24)

    if found.tally.n == 64:
        assert found.above == (sum(truth) >= 24)
        assert found.tally.refused + found.tally.open >= sum(truth)


def test_most_random_sets_are_decided_as_the_whole() -> None:
    generator = random.Random(1)
    right = 0
    for _ in range(300):
        chance = generator.random()
        truth = [generator.random() < chance for _ in range(48)]
        opened = {place for place in range(48) if generator.random() < 0.3}
        right += looked(truth, opened, 30).above == (sum(truth) >= 30)

    assert right >= 285
