"""Where a map of states says that refusal is decided."""

from __future__ import annotations

from demur.graft.tracing.effects import Cell
from demur.stats import Mean
from demur.tracing.decision import decision


def states(shares: dict[str, list[float]]) -> list[Cell]:
    """Return the cells of a map with these normalised effects, layer by layer."""
    return [
        Cell("state", layer, place, Mean(10 * share, 0, 0, 4), Mean(share, share, share, 4))
        for place, values in shares.items()
        for layer, share in enumerate(values)
    ]


def test_it_arrives_where_the_last_token_restores_half_for_good() -> None:
    found = decision(
        states({"middle": [0.9, 0.7, 0.4, 0.6, 0.0], "last": [0.6, 0.1, 0.5, 0.8, 1.0]}), "last"
    )
    assert found.arrived is not None and found.arrived.layer == 2
    assert found.left is not None
    assert (found.left.place, found.left.layer) == ("middle", 3)


def test_it_may_be_nowhere() -> None:
    nan = float("nan")
    found = decision(states({"middle": [0.2, nan], "last": [0.9, nan]}), "last")
    assert found.arrived is None and found.left is None
