"""The student as it was before training, while it is trained: with LoRA, or whole.

    with untouched(model) as before:
        ...  # `before` answers as the student did

LoRA's weights are switched off for as long as the context is open. Where the weights themselves
are trained (`whole`), a copy of those stands beside the model and shares all others with it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

COPY = "untouched_copy"


def remember(model: Any, trained: Collection[str]) -> None:
    """Keep a copy of the parameters that are to be trained, as a model beside `model`.

    Args:
        trained: their names; all other parameters are shared.
    """
    shared = {
        id(one): one for name, one in model.named_parameters() if name not in set(trained)
    } | {id(one): one for one in model.buffers()}
    copy = deepcopy(model, shared)
    copy.requires_grad_(False)
    copy.eval()
    # Not as a part of the model, whose parameters it would then add to.
    object.__setattr__(model, COPY, copy)


def forget(model: Any) -> None:
    """Drop the copy that `remember` keeps."""
    vars(model).pop(COPY, None)


def remembered(model: Any) -> Any:
    """Return the copy that `remember` keeps, or None."""
    return vars(model).get(COPY)


def is_there(model: Any) -> bool:
    """Return whether the student can still be asked as it was."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return remembered(model) is not None or any(
        isinstance(one, BaseTunerLayer) for one in model.modules()
    )


@contextmanager
def untouched(model: Any) -> Iterator[Any]:
    """Yield the student as it was before training.

    Args:
        model: the student, wrapped by PEFT or the model within, trained whole, or not yet trained.
    """
    copy = remembered(model)
    if copy is not None:
        yield copy
        return
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [one for one in model.modules() if isinstance(one, BaseTunerLayer)]
    working = [layer for layer in layers if not layer.disable_adapters]
    # PEFT takes the gradient off what it switches off.
    trained = [(one, one.requires_grad) for layer in working for one in layer.parameters()]
    for layer in working:
        layer.enable_adapters(False)
    try:
        yield model
    finally:
        for layer in working:
            layer.enable_adapters(True)
        for parameter, wanted in trained:
            parameter.requires_grad_(wanted)
