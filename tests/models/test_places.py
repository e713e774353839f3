"""Keys and values in places are what a cache that is copied and cut would hold."""

from __future__ import annotations

import random

import torch
from transformers.cache_utils import DynamicLayer

from demur.models.places import ROOM, Places, closed_up


def filled(rows: int, columns: int) -> DynamicLayer:
    layer = DynamicLayer()
    layer.update(torch.randn(rows, 2, columns, 3), torch.randn(rows, 2, columns, 5))
    return layer


def test_rows_that_stay_stay_where_they_are():
    assert closed_up([0, 1, 2]) == [0, 1, 2]
    assert closed_up([1, 2, 4, 7]) == [7, 1, 2, 4]
    assert closed_up([5]) == [5]
    assert closed_up([]) == []
    generator = random.Random(0)
    for _ in range(50):
        places = sorted(generator.sample(range(20), generator.randrange(1, 20)))
        order = closed_up(places)
        assert sorted(order) == places
        assert all(row == place or row >= len(places) for place, row in enumerate(order))


def test_every_row_holds_its_own_through_steps_leaves_and_joins():
    """Rows are followed one by one, as lists of columns, through a long random life."""
    torch.manual_seed(0)
    generator = random.Random(1)
    layer = filled(3, 6)
    own = [(layer.keys[row], layer.values[row]) for row in range(3)]
    places = Places(layer)
    widest = 0
    for _ in range(300):
        move = generator.choice(["step", "step", "step", "leave", "join"])
        if move == "step":
            keys, values = torch.randn(len(own), 2, 1, 3), torch.randn(len(own), 2, 1, 5)
            shown = layer.update(keys, values)
            assert shown[0] is layer.keys
            own = [
                (torch.cat([mine[0], keys[row]], 1), torch.cat([mine[1], values[row]], 1))
                for row, mine in enumerate(own)
            ]
        elif move == "leave" and len(own) > 1:
            stay = sorted(generator.sample(range(len(own)), generator.randrange(1, len(own))))
            order = closed_up(stay)
            own = [own[row] for row in order]
            places.keep(order)
            places.drop(layer.keys.shape[2] - max(keys.shape[1] for keys, _ in own))
        elif move == "join" and len(own) < 9:
            new = filled(generator.randrange(1, 4), generator.randrange(1, 90))
            own += [(new.keys[row], new.values[row]) for row in range(new.keys.shape[0])]
            places.join(new.keys, new.values)
        width = max(keys.shape[1] for keys, _ in own)
        widest = max(widest, width)
        assert layer.keys.shape == (len(own), 2, width, 3)
        assert layer.values.shape == (len(own), 2, width, 5)
        assert layer.get_seq_length() == width
        assert torch.isfinite(layer.keys).all()
        for row, (keys, values) in enumerate(own):
            assert torch.equal(layer.keys[row, :, width - keys.shape[1] :], keys)
            assert torch.equal(layer.values[row, :, width - values.shape[1] :], values)
    assert widest > 2 * ROOM


def test_a_step_copies_nothing_while_there_is_room():
    layer = filled(2, 4)
    places = Places(layer)
    where = layer.keys.data_ptr()
    for _ in range(ROOM):
        layer.update(torch.randn(2, 2, 1, 3), torch.randn(2, 2, 1, 5))
    assert layer.keys.data_ptr() == where
    places.drop(30)
    layer.update(torch.randn(2, 2, 1, 3), torch.randn(2, 2, 1, 5))
    assert layer.keys.shape == (2, 2, 4 + ROOM + 1 - 30, 3)
    # What was dropped is not kept for ever.
    assert layer.keys.untyped_storage().nbytes() < 2 * 2 * 3 * 4 * (2 * ROOM + 8)
