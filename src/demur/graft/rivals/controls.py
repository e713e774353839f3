"""Controls: what a graft owes to its place and its direction, and how far the donor could carry it.

* `whole_donor`: every weight of the donor, which is the ceiling: nothing is left of the recipient.
* `random_modules`: modules drawn at random, as many numbers as a graft's, to be grafted alike.
* `models.changes.noise.noise(recipient, changes, seed)`: noise of the same norm in each tensor.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from demur.errors import ConfigError

if TYPE_CHECKING:
    from demur.checkpoint.changes import Dense
    from demur.models.anatomy.types import Anatomy


def whole_donor(
    recipient: Path, donor: Path, tensors: Collection[str] | None = None
) -> Mapping[str, Dense]:
    """Return the donor's values of every tensor in which the recipient differs from it.

    Raises:
        CheckpointError: the two are not of one shape, or have the same weights.
    """
    from demur.models.changes.arithmetic import task_arithmetic

    return task_arithmetic(recipient, donor, 1.0, tensors)


def random_modules(
    anatomy: Anatomy, chosen: Collection[str], seed: int, among: Collection[str] | None = None
) -> frozenset[str]:
    """Return the names of random modules that hold exactly as many numbers as the chosen ones.

    For every size of module, as many are drawn as were chosen of that size, whatever their kind
    and layer; the chosen ones may be drawn, too.

    Args:
        anatomy: the recipient's.
        chosen: names of the modules that a search chose.
        seed: another seed, other modules.
        among: names of the modules to draw from, such as those that the donor changed; by default
            all.

    Raises:
        ConfigError: a name is unknown, or there are too few modules of a size to draw from.
    """
    sizes = {module.name: module.parameters for module in anatomy.modules}
    for name in (*chosen, *(among or ())):
        if name not in sizes:
            raise ConfigError(
                f"The model has no module {name}.",
                f"Name its modules as it does, such as {next(iter(sizes), 'layers.0.gate')}.",
            )
    allowed = set(sizes) if among is None else set(among)
    pools: dict[int, list[str]] = defaultdict(list)
    for name, size in sizes.items():  # in the anatomy's order, so that a seed always means the same
        if name in allowed:
            pools[size].append(name)
    counts: dict[int, int] = defaultdict(int)
    for name in set(chosen):
        counts[sizes[name]] += 1
    generator = random.Random(seed)
    drawn: set[str] = set()
    for size, count in sorted(counts.items()):
        if len(pools[size]) < count:
            raise ConfigError(
                f"There are {len(pools[size])} modules of {size} numbers to draw from, fewer than "
                f"the {count} that were chosen.",
                "Let more modules be drawn from.",
            )
        drawn.update(generator.sample(pools[size], count))
    return frozenset(drawn)
