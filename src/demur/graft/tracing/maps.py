"""Maps of a batch of pairs: exact ones, a restored run a cell, and their first-order approximation.

The approximation is attribution patching (Nanda 2023; Syed et al. 2023, arXiv 2310.10348): with
a the activation and m the margin in the corrupted run, restoring changes m by about

    (a_clean - a_corrupted) . dm / da

summed over the numbers, tokens and layers that are restored: two forward passes and one backward
pass give all cells at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from demur.graft.tracing.places import Place
from demur.graft.tracing.runs import Job, Runs

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Restored = NDArray[np.float32]


def jobs_of(runs: Runs) -> dict[int, list[tuple[int, Job]]]:
    """Return all restorations (layer of the map, job), by the layer that they begin at."""
    found: dict[int, list[tuple[int, Job]]] = {}
    for number, target in enumerate(runs.targets):
        for layer in range(len(target.paths)):
            job = Job(number, *target.layers(layer))
            found.setdefault(job.first, []).append((layer, job))
    return found


def exact(
    runs: Runs,
    places: Sequence[Place],
    which: Sequence[int],
    *,
    rows: int = 64,
    advance: Callable[[int], None] = lambda count: None,
) -> Restored:
    """Return (targets, layers, places, units) margins of the restored runs, NaN where none is.

    Args:
        which: the numbers that the places know the batch's pairs by.
        rows: of a forward pass, about.
        advance: told of cells that are done.
    """
    import numpy as np

    layers = len(runs.blocks)
    shape = (len(runs.targets), layers, len(places), len(runs.units))
    found = np.full(shape, np.nan, np.float32)
    together = max(1, rows // len(runs.units))
    for jobs in jobs_of(runs).values():
        for number, place in enumerate(places):
            columns = runs.columns(place, which)
            there = np.array([start < stop for start, stop in columns])
            for begin in range(0, len(jobs) if there.any() else 0, together):
                part = jobs[begin : begin + together]
                margins = runs.restored([job for _, job in part], columns).numpy()
                for (layer, job), values in zip(part, margins, strict=True):
                    found[job.target, layer, number, there] = values[there]
            advance(len(jobs))
    return found


def attributed(runs: Runs, places: Sequence[Place], which: Sequence[int]) -> Restored:
    """Return what `exact` does, to first order: the corrupted margin and the attributed change."""
    import numpy as np

    layers, width = len(runs.blocks), runs.batch.end + 1
    outputs, gradients = runs.gradients()
    changes = np.zeros((len(runs.targets), layers, len(runs.units), width), np.float32)
    for (number, layer), gradient in gradients.items():
        clean = runs.values[number, layer][runs.units].float()
        away = clean - outputs[number, layer][:, :width].float()
        changes[number, layer] = (away * gradient[:, :width].float()).sum(-1).cpu().numpy()
    found = np.full((len(runs.targets), layers, len(places), len(runs.units)), np.nan, np.float32)
    corrupted = runs.corrupted.numpy()
    for number, target in enumerate(runs.targets):
        for layer in range(layers):
            summed = changes[number, slice(*target.layers(layer))].sum(0)
            for place_number, place in enumerate(places):
                _fill(found[number, layer, place_number], summed, corrupted, runs, place, which)
    return found


def _fill(
    cell: Any, summed: Any, corrupted: Any, runs: Runs, place: Place, which: Sequence[int]
) -> None:
    for unit, (start, stop) in enumerate(runs.columns(place, which)):
        if start < stop:
            cell[unit] = corrupted[unit] + summed[unit, start:stop].sum()
