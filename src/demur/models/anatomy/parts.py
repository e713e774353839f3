"""Parts of tensors: their places read and written in torch tensors and numpy arrays alike.

`select(tensor, part)` gives a part's values as a tensor of its own, `assign(tensor, part, values)`
puts values into its places and leaves all others alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from demur.errors import ModelError
from demur.models.anatomy.types import Part


def whole(tensor: str, size: int, dim: int = 0) -> Part:
    """Return the part that is all of a tensor, which has `size` places along `dim`."""
    return Part(tensor, dim, size, 0, size, size)


def part_shape(shape: Sequence[int], part: Part) -> tuple[int, ...]:
    """Return the shape of a part's values, given that of the whole tensor.

    Raises:
        ModelError: the part is not one of a tensor of this shape.
    """
    dim = part.dim % len(shape) if shape else 0
    if part.dim >= len(shape) or shape[dim] != part.size or part.size % part.period:
        raise ModelError(
            f"The part of {part.tensor} is meant for {part.size} places along dimension "
            f"{part.dim}, but the tensor is {list(shape)}.",
            "Take the anatomy of the very model or checkpoint that holds this tensor.",
        )
    count = part.size // part.period * (part.stop - part.start)
    return (*shape[:dim], count, *shape[dim + 1 :])


def part_elements(shape: Sequence[int], part: Part) -> int:
    """Return how many numbers a part holds, given the shape of the whole tensor."""
    return math.prod(part_shape(shape, part))


def select(tensor: Any, part: Part) -> Any:
    """Return a part's values, with its places gathered along its dimension.

    A torch tensor or numpy array comes back as the same; as a view where its places are evenly
    spaced (a half, a stripe), otherwise as a copy. To write, use `assign`.

    Raises:
        ModelError: the tensor has another shape than the part is meant for.
    """
    shape = part_shape(tensor.shape, part)
    return tensor if part.whole else _places(tensor, part).reshape(shape)


def assign(tensor: Any, part: Part, values: Any) -> None:
    """Put values into a part's places of a tensor, in place; they are cast to its dtype.

    Args:
        values: as `select` returns them, on any device.

    Raises:
        ModelError: the tensor or the values have another shape than the part.
    """
    shape = part_shape(tensor.shape, part)
    if tuple(values.shape) != shape:
        raise ModelError(
            f"Values of {list(values.shape)} do not fit the part of {part.tensor}, which is "
            f"{list(shape)}.",
            "Take them from the same module of a model of the same family.",
        )
    target = tensor.detach() if hasattr(tensor, "detach") else tensor  # a parameter's own memory
    places = _places(target, part)
    places[...] = values.reshape(tuple(places.shape))


def _places(tensor: Any, part: Part) -> Any:
    """Return a view of the part's places, with its dimension split into groups and places."""
    shape = tuple(tensor.shape)
    dim = part.dim % len(shape)
    groups = part.size // part.period
    split = tensor.reshape((*shape[:dim], groups, part.period, *shape[dim + 1 :]))
    return split[(slice(None),) * (dim + 1) + (slice(part.start, part.stop),)]
