"""Low-rank changes added to what modules give out, for as long as a context is open.

    with added(model, changes):
        ...  # a module gives y + up (down x) where it gave y

Where `edits.edited` changes the weights, and keeps copies to put back, nothing of a weight's size
is made here: it can be done at every step of a training, beside LoRA that is being trained and on
layers whose weights are spread over devices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from demur.checkpoint import LowRank


@contextmanager
def added(model: Any, changes: Mapping[str, LowRank]) -> Iterator[None]:
    """Add low-rank changes to a model's linear modules; computed in float32.

    Args:
        model: the transformers model; PEFT may have put LoRA into its modules, not around it.
        changes: by the module's name in memory, such as `model.layers.3.mlp.up_proj`.

    Raises:
        AttributeError: the model has no module of that name.
    """
    with ExitStack() as stack:
        for name, change in changes.items():
            module = model.get_submodule(name)
            stack.callback(module.register_forward_hook(_adding(change)).remove)
        yield


def _adding(change: LowRank) -> Callable[[Any, tuple[Any, ...], Any], Any]:
    import torch

    down, up = torch.from_numpy(change.down).T, torch.from_numpy(change.up).T

    def add(module: Any, given: tuple[Any, ...], found: Any) -> Any:
        nonlocal down, up
        (states, *_) = given
        if down.device != states.device:  # moved once; where a module computes shows only here
            down, up = down.to(states.device), up.to(states.device)
        return found + (states.float() @ down @ up).to(found.dtype)

    return add
