"""A model run from one of its layers on: what lies below is not computed again.

Restoring an activation of layer l, or changing a weight of it, leaves all layers below as they
were. Their result, the residual stream that enters layer l, is kept once and given back:

    with recorded(model, blocks) as found:
        model(ids)
    with resumed(model, blocks, l, found.entering[l], as_tuple=found.as_tuple):
        model(ids)                              # layers 0 to l-1 are passed over

`blocks` are the names of the decoder layers, in order, as `Anatomy.layers` has them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

STREAM = "hidden_states"


@dataclass
class Recording:
    """What a forward pass left.

    Attributes:
        entering: of each layer, the residual stream that entered it.
        as_tuple: whether the layers give tuples back, with the stream first.
    """

    entering: list[Any] = field(default_factory=list)
    as_tuple: bool = False


def stream_of(output: Any) -> Any:
    """Return the residual stream in what a layer, an attention or an MLP gives back."""
    return output[0] if isinstance(output, tuple) else output


def with_stream(output: Any, stream: Any) -> Any:
    """Return such an output with another residual stream in it."""
    return (stream, *output[1:]) if isinstance(output, tuple) else stream


@contextmanager
def recorded(
    model: Any, blocks: Sequence[str], keep: Callable[[Any], Any] = lambda stream: stream
) -> Iterator[Recording]:
    """Yield what fills, layer by layer, during the forward pass of the context.

    Args:
        keep: told the (rows, width, hidden) stream that enters a layer, returns what is to be
            kept of it.
    """
    found = Recording()

    def enter(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        found.entering.append(keep(args[0] if args else kwargs[STREAM]))

    def leave(_: Any, __: Any, output: Any) -> None:
        found.as_tuple = isinstance(output, tuple)

    with ExitStack() as stack:
        for name in blocks:
            block = model.get_submodule(name)
            stack.callback(block.register_forward_pre_hook(enter, with_kwargs=True).remove)
        stack.callback(block.register_forward_hook(leave).remove)
        yield found


@contextmanager
def resumed(
    model: Any, blocks: Sequence[str], first: int, stream: Any, *, as_tuple: bool
) -> Iterator[None]:
    """Have the model begin at layer `first` with the given residual stream.

    Args:
        stream: (rows, width, hidden) what enters the layer, whatever the model's input is.
        as_tuple: as `Recording` has it.
    """

    def replace(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (stream, *args[1:]), kwargs
        return args, {**kwargs, STREAM: stream}

    def pass_over(*args: Any, **kwargs: Any) -> Any:
        below = args[0] if args else kwargs[STREAM]
        return (below, None) if as_tuple else below

    with ExitStack() as stack:
        for name in blocks[:first]:
            block = model.get_submodule(name)
            block.forward = pass_over
            stack.callback(delattr, block, "forward")
        entered = model.get_submodule(blocks[first])
        stack.callback(entered.register_forward_pre_hook(replace, with_kwargs=True).remove)
        yield
