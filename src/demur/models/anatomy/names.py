"""Which tensors of a checkpoint become which parameters in memory, as transformers loads them.

Names differ (a prefix, an older scheme), and some parameters are put together from many tensors,
as the experts of Mixtral are. Nothing of this is listed here: transformers' own renamings are
asked, and its own conversions are run on numbered places instead of weights, so that where each
place comes from is read off the result. A model on the meta device will do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demur.errors import ModelError
from demur.models.anatomy.parts import select, whole
from demur.models.anatomy.types import Part

Shape = tuple[int, ...]
MOST_PLACES = 1 << 26


def saved_shapes(model: Any) -> dict[str, Shape]:
    """Return the tensors that `model.save_pretrained` would write, by name; nothing is copied."""
    import torch
    from transformers.core_model_loading import revert_weight_conversion

    tied = getattr(model, "all_tied_weights_keys", None) or {}
    empty = {
        name: torch.empty(tensor.shape, device="meta")
        for name, tensor in model.state_dict().items()
        if name not in tied
    }
    return {
        name: tuple(tensor.shape) for name, tensor in revert_weight_conversion(model, empty).items()
    }


class DiskNames:
    """The map between a model's parameters and a checkpoint's tensors.

    Args:
        model: the transformers model, not wrapped.
        shapes: the checkpoint's tensors by name.
    """

    def __init__(self, model: Any, shapes: Mapping[str, Shape]) -> None:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightConverter, WeightRenaming, dot_natural_key

        self._model = model
        self._shapes = dict(shapes)
        self._loaded = model.state_dict()
        transforms = get_model_conversion_mapping(model)
        self._renamings = [one for one in transforms if isinstance(one, WeightRenaming)]
        self._converters = [one for one in transforms if isinstance(one, WeightConverter)]
        self._alone: dict[str, str] = {}
        self._made: dict[str, dict[str, str]] = {}
        self._first: dict[str, str] = {}
        self._latest: tuple[str, Mapping[str, Any]] | None = None
        for name in sorted(self._shapes, key=dot_natural_key):
            self._place(name)
        self._tensors = {parameter: name for name, parameter in self._alone.items()}

    def _place(self, name: str) -> None:
        """Note which parameter a tensor becomes, or becomes a part of."""
        target, pattern = self._target(name)
        if pattern is None:
            if target in self._loaded:
                self._alone[name] = target
            return
        converter = self._converter(pattern)
        for other in converter.target_patterns:
            self._first[target.replace(converter.target_patterns[0], other)] = target
        self._made.setdefault(target, {})[name] = pattern

    def _target(self, name: str) -> tuple[str, str | None]:
        from transformers.core_model_loading import rename_source_key

        prefix = self._model.base_model_prefix
        target, pattern = rename_source_key(
            name, self._renamings, self._converters, prefix, self._loaded
        )
        if target not in self._loaded and name in self._loaded:
            target, pattern = rename_source_key(name, [], [], prefix, self._loaded)
        return str(target), pattern

    def _converter(self, pattern: str) -> Any:
        """Return a fresh copy of the conversion that collects tensors of this pattern."""
        return deepcopy(next(one for one in self._converters if pattern in one.source_patterns))

    def parameter(self, tensor: str) -> str | None:
        """Return the parameter that a tensor is all of, or None if there is none."""
        return self._alone.get(tensor)

    def tensor(self, parameter: str) -> str | None:
        """Return the tensor that is all of a parameter, or None if there is none."""
        return self._tensors.get(parameter)

    def parts(self, part: Part) -> tuple[Part, ...]:
        """Return the parts of the checkpoint's tensors that fill a part of a parameter.

        Their values one after another, each in row-major order, are those of the part.

        Raises:
            ModelError: the checkpoint lacks them, they have another shape, or transformers puts
                them together in a way that cannot be followed.
        """
        parameter = part.tensor
        shape = tuple(self._loaded[parameter].shape)
        alone = self._tensors.get(parameter)
        if alone is not None:
            if self._shapes[alone] != shape:
                raise _unfit(parameter, shape, {alone: self._shapes[alone]})
            return (replace(part, tensor=alone),)
        first = self._first.get(parameter)
        if first is None:
            raise ModelError(
                f"The checkpoint has no tensor for {parameter}.",
                "Check that it is the checkpoint that this model was loaded from.",
            )
        if self._latest is None or self._latest[0] != first:
            self._latest = first, self._numbered(first)
        made = self._latest[1].get(parameter)
        names = list(self._made[first])
        if made is None or tuple(made.shape) not in (shape, (*shape[:-1], 1)):
            raise _unfit(parameter, shape, {name: self._shapes[name] for name in names})
        return self._origins(parameter, names, select(made, part).reshape(-1).numpy())

    def _numbered(self, first: str) -> Mapping[str, Any]:
        """Return what the conversion makes of tensors whose places are numbered from 0 on.

        The last dimension of a matrix is cut to one place, to keep this small; what comes out
        shows by its other dimensions whether that was right.
        """
        import torch

        sources = self._made[first]
        if sum(math.prod(self._cut(name)) for name in sources) > MOST_PLACES:
            raise _unclear(first, "it has too many places to follow")
        converter = self._converter(next(iter(sources.values())))
        start = 0
        for name, pattern in sources.items():
            cut = self._cut(name)
            places = torch.arange(start, start + math.prod(cut)).reshape(cut)
            converter.add_tensor(first, name, pattern, places)
            start += math.prod(cut)
        try:
            made = converter.convert(first, model=self._model, config=self._model.config)
        except (RuntimeError, ValueError, KeyError, AttributeError) as error:
            raise _unclear(first, f"transformers' conversion fails ({error})") from error
        return {name: one[0] if isinstance(one, list) else one for name, one in made.items()}

    def _cut(self, name: str) -> Shape:
        shape = self._shapes[name]
        return (*shape[:-1], 1) if len(shape) > 1 else shape

    def _origins(self, parameter: str, names: list[str], numbers: NDArray[Any]) -> tuple[Part, ...]:
        """Return the parts that numbered places come from, in their order."""
        starts = np.cumsum([0] + [math.prod(self._cut(name)) for name in names])
        owners = np.searchsorted(starts, numbers, side="right") - 1
        edges = [0, *(np.flatnonzero(np.diff(owners)) + 1).tolist(), len(owners)]
        if len(edges) - 1 != len(np.unique(owners)):
            raise _unclear(parameter, "its tensors are mixed place by place")
        parts = []
        for begin, end in pairwise(edges):
            owner = int(owners[begin])
            part = self._regular(names[owner], numbers[begin:end] - starts[owner])
            if part is None:
                raise _unclear(parameter, f"places of {names[owner]} follow no pattern")
            parts.append(part)
        return tuple(parts)

    def _regular(self, name: str, places: NDArray[Any]) -> Part | None:
        """Return the part of a tensor that is these places of it, in rising order."""
        cut = self._cut(name)
        if np.any(np.diff(places) <= 0):
            return None
        if len(places) == math.prod(cut):
            return whole(name, cut[0])
        for dim, size in enumerate(cut):
            found = np.unique(np.unravel_index(places, cut)[dim])
            if len(found) < size and len(found) * math.prod(cut) == len(places) * size:
                return _periodic(name, dim, size, found)
        return None


def _periodic(name: str, dim: int, size: int, found: NDArray[Any]) -> Part | None:
    gaps = np.flatnonzero(np.diff(found) > 1)
    run = int(gaps[0]) + 1 if len(gaps) else len(found)
    start = int(found[0])
    period = int(found[run]) - start if len(gaps) else size
    part = Part(name, dim, period, start, start + run, size)
    inside = np.arange(size) % period
    same = np.array_equal(np.flatnonzero((inside >= start) & (inside < start + run)), found)
    return part if same and size % period == 0 else None


def _unfit(parameter: str, shape: Shape, found: Mapping[str, Shape]) -> ModelError:
    name, other = next(iter(found.items()))
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    return ModelError(
        f"{parameter} is {list(shape)} in memory, and the checkpoint has {name} "
        f"{list(other)}{more} for it.",
        "Check that the checkpoint is the one that this model was loaded from.",
    )


def _unclear(parameter: str, reason: str) -> ModelError:
    return ModelError(
        f"How {parameter} is put together from the checkpoint was not understood: {reason}.",
        "Save the model with transformers' save_pretrained and use that copy, or open an issue "
        "with this line.",
    )
