"""Restored runs equal those of the definition, whatever is shared, passed over and batched."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.graft.test_margin import BRANCHING
from tests.graft.tracing.plain import SCALE, corruption, margin, pairs, restored
from tests.models.architectures import SETTINGS, tiny

from demur.errors import ConfigError, ModelError
from demur.graft.tracing.maps import attributed, exact
from demur.graft.tracing.names import TRACED
from demur.graft.tracing.pairs import places_of
from demur.graft.tracing.runs import Runs
from demur.graft.tracing.targets import targets_of
from demur.models.anatomy import anatomy_of

TRACEABLE = sorted(BRANCHING - {"opt"})  # opt has no anatomy


def kinds_of(anatomy: Any) -> list[Any]:
    shown = {module.kind for module in anatomy.modules if module.output is not None}
    return [kind for kind in TRACED if kind in {"state", "mlp", "attention"} | shown]


@pytest.mark.parametrize("name", TRACEABLE)
@pytest.mark.parametrize("draws", [0, 2])
def test_maps_equal_the_definition(name, draws):
    model = tiny(name)
    anatomy = anatomy_of(model)
    traced = pairs(3, draws)
    targets = targets_of(anatomy, kinds_of(anatomy))
    places = places_of(traced, "groups")
    runs = Runs(model, anatomy, traced, targets, SCALE)
    found = exact(runs, places, range(3), rows=20)
    assert found.shape == (len(targets), 2, len(places), 3 * max(draws, 1))
    with torch.no_grad():
        clean = [float(margin(model, pair.clean, pair, [])) for pair in traced]
        corrupted = [
            float(margin(model, pair.corrupted, pair, corruption(anatomy, pair, draw)))
            for pair in traced
            for draw in range(pair.draws)
        ]
    np.testing.assert_allclose(runs.clean, clean, atol=2e-4, rtol=2e-4)
    np.testing.assert_allclose(runs.corrupted, corrupted, atol=2e-4, rtol=2e-4)
    units = [(pair, draw) for pair in traced for draw in range(pair.draws)]
    generator = np.random.default_rng(0)
    cells = list(np.ndindex(found.shape))
    for cell in generator.permutation(cells)[:40]:
        number, layer, place, unit = cell
        pair, draw = units[unit]
        span = places[place].spans[runs.units[unit]]
        value = found[tuple(cell)]
        if span[0] >= span[1]:
            assert np.isnan(value)
            continue
        expected = restored(
            model, anatomy, pair, draw, targets[number], range(layer, layer + 1), span
        )
        assert value == pytest.approx(expected, abs=5e-4, rel=5e-4)


def test_windows_and_single_tokens():
    model = tiny("llama")
    anatomy = anatomy_of(model)
    traced = pairs(3)
    targets = targets_of(anatomy, ["state", "mlp", "q"], window=3)
    places = places_of(traced, "tokens")
    assert [place.name for place in places][-1] == "token -1"
    runs = Runs(model, anatomy, traced, targets)
    found = exact(runs, places, range(3))
    assert targets[1].layers(0) == targets[1].layers(1) == (0, 2)
    assert targets[0].layers(1) == (1, 2)
    for number, layer, place, unit in [(1, 0, -1, 0), (1, 1, -4, 2), (2, 1, -5, 1), (0, 0, -2, 1)]:
        span = places[place].spans[unit]
        expected = restored(
            model,
            anatomy,
            traced[unit],
            0,
            targets[number],
            range(*targets[number].layers(layer)),
            span,
        )
        assert found[number, layer, place, unit] == pytest.approx(expected, abs=2e-4)
    short = min(range(3), key=lambda unit: traced[unit].shared)
    assert np.isnan(found[:, :, 0, short]).all() and not np.isnan(found[:, :, -1]).any()


def test_a_restored_last_layer_at_the_last_token_is_the_clean_run_of_the_first_token():
    """With single-token openings the answer hangs on the last position's last state alone."""
    model = tiny("llama")
    anatomy = anatomy_of(model)
    from demur.graft.openings import Openings

    traced = [
        type(pair)(pair.clean, pair.corrupted, Openings(((7,),), ((8,),)), *rest)
        for pair in pairs(3)
        for rest in [(pair.start, pair.end, pair.shared)]
    ]
    runs = Runs(model, anatomy, traced, targets_of(anatomy, ["state"]))
    found = exact(runs, places_of(traced, "groups"), range(3))
    np.testing.assert_allclose(found[0, 1, -1], runs.clean, atol=1e-4)
    assert np.abs(runs.clean.numpy() - runs.corrupted.numpy()).max() > 0.05


def test_units_do_not_depend_on_their_company():
    model = tiny("llama")
    anatomy = anatomy_of(model)
    traced = pairs(3, 2)
    targets = targets_of(anatomy, ["state", "v"])
    places = places_of(traced, "groups")
    together = exact(Runs(model, anatomy, traced, targets, SCALE), places, range(3))
    alone = exact(Runs(model, anatomy, traced[1:2], targets, SCALE), places, [1])
    np.testing.assert_allclose(together[..., 2:4], alone, atol=1e-4)


@pytest.mark.parametrize("name", ["llama", "falcon", "phi3"])
def test_attribution_is_the_slope_of_the_exact_effect(name):
    """Where the corrupted run is close to the clean one, the first order is all there is."""
    model = tiny(name)
    anatomy = anatomy_of(model)
    traced = pairs(3, 2)
    targets = targets_of(anatomy, ["state", "mlp", "attention", "q", "up"])
    places = places_of(traced, "groups")
    runs = Runs(model, anatomy, traced, targets, 3e-3)
    base = runs.corrupted.numpy()
    effects = exact(runs, places, range(3)) - base
    slopes = attributed(runs, places, range(3)) - base
    there = ~np.isnan(effects)
    assert (np.isnan(effects) == np.isnan(slopes)).all()
    assert np.corrcoef(effects[there], slopes[there])[0, 1] > 0.98
    assert np.abs(effects[there] - slopes[there]).max() < 0.2 * np.abs(effects[there]).max()


def test_attribution_of_windows_is_the_sum_of_their_layers():
    model = tiny("llama")
    anatomy = anatomy_of(model)
    traced = pairs(2)
    places = places_of(traced, "groups")
    single = Runs(model, anatomy, traced, targets_of(anatomy, ["mlp"]))
    wide = Runs(model, anatomy, traced, targets_of(anatomy, ["mlp"], window=5))
    one = attributed(single, places, range(2))[0] - single.corrupted.numpy()
    both = attributed(wide, places, range(2))[0] - wide.corrupted.numpy()
    np.testing.assert_allclose(both[0], one.sum(0), atol=1e-4)


@pytest.mark.parametrize("name", ["mpt", "mistral-window"])
def test_models_that_cannot_be_told_who_sees_whom_are_refused(name):
    model = tiny(name)
    anatomy = anatomy_of(model)
    with pytest.raises(ModelError, match="cannot be traced"):
        Runs(model, anatomy, pairs(2), targets_of(anatomy, ["state"]))


def test_outputs_that_an_architecture_does_not_show_are_refused():
    with pytest.raises(ConfigError, match="gate"):
        targets_of(anatomy_of(tiny("gpt2")), ["gate"])
    assert "mixtral" in SETTINGS
    with pytest.raises(ConfigError, match="expert"):
        targets_of(anatomy_of(tiny("mixtral")), ["down"])
