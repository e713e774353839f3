"""Forward passes that begin at a later layer, from what entered it before.

Where only later layers change between two passes over the same tokens, what the layers below
compute is the same: the residual stream that leaves them is kept once and given to the layer from
which on there is anything to compute.

    with kept_streams(model, blocks, {8, 16}) as streams:
        model(**batch)  # untouched
    with starting_at(model, streams, 16):
        model(**batch)  # only layers 16 and above are computed

Keys and values of the layers below are not computed either. A cache that counts its tokens by them
then holds zeros in their place, one number wide: it can serve passes that begin at the same layer,
and no others. Where positions and mask are told (`models/branches.py`) nothing need be counted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

STREAM = "hidden_states"


@dataclass
class Streams:
    """What entered some layers in one pass.

    Attributes:
        blocks: names of the decoder layers, in order.
        entering: (rows, tokens, width) residual streams, by layer counted from 0.
        tuples: whether the layers return a tuple, the stream first.
    """

    blocks: tuple[str, ...]
    entering: dict[int, Any] = field(default_factory=dict)
    tuples: bool = False


@contextmanager
def kept_streams(model: Any, blocks: Sequence[str], levels: Collection[int]) -> Iterator[Streams]:
    """Keep what enters some layers in the last pass that is made.

    Args:
        blocks: names of the decoder layers, in order.
        levels: which of them, counted from 0.
    """
    streams = Streams(tuple(blocks))
    with ExitStack() as stack:
        first = model.get_submodule(blocks[0])
        stack.callback(first.register_forward_hook(partial(_see, streams)).remove)
        for level in levels:
            layer = model.get_submodule(blocks[level])
            keep = partial(_keep, streams, level)
            stack.callback(layer.register_forward_pre_hook(keep, with_kwargs=True).remove)
        yield streams


def _see(streams: Streams, _: Any, __: Any, output: Any) -> None:
    streams.tuples = isinstance(output, tuple)


def _keep(
    streams: Streams, level: int, _: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> None:
    streams.entering[level] = args[0] if args else kwargs[STREAM]


@contextmanager
def starting_at(
    model: Any, streams: Streams, level: int, *, counted: bool = True
) -> Iterator[None]:
    """Have passes begin at a layer: those below it do nothing, and the kept stream enters it.

    Args:
        streams: of a pass over the same tokens; at level 0 it may be without one, and all is as
            ever.
        level: the layer, counted from 0.
        counted: whether the layers below count their tokens in the cache, if there is one.
    """
    with ExitStack() as stack:
        for place, name in enumerate(streams.blocks[:level]):
            layer = model.get_submodule(name)
            stack.callback(_give_back, layer, vars(layer).get("forward"))
            layer.forward = partial(_pass_by, place if counted else None, streams.tuples)
        if level or level in streams.entering:
            enter = partial(_enter, streams.entering[level])
            layer = model.get_submodule(streams.blocks[level])
            stack.callback(layer.register_forward_pre_hook(enter, with_kwargs=True).remove)
        yield


def _give_back(layer: Any, forward: Any) -> None:
    del layer.forward
    if forward is not None:
        layer.forward = forward


def _enter(stream: Any, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if args:
        return (stream, *args[1:]), kwargs
    return args, {**kwargs, STREAM: stream}


def _pass_by(place: int | None, as_tuple: bool, *args: Any, **kwargs: Any) -> Any:
    """Do nothing in a layer's place but count its tokens in the cache, if they are counted."""
    from transformers import Cache

    hidden = args[0] if args else kwargs[STREAM]
    if place is not None:
        for cache in (one for one in (*args, *kwargs.values()) if isinstance(one, Cache)):
            zeros = hidden.new_zeros(hidden.shape[0], 1, hidden.shape[1], 1)
            cache.update(zeros, zeros, place)
    return (hidden, None) if as_tuple else hidden


def stream_of(output: Any) -> Any:
    """Return the residual stream in what a layer, an attention or an MLP gives back."""
    return output[0] if isinstance(output, tuple) else output


def with_stream(output: Any, stream: Any) -> Any:
    """Return such an output with another residual stream in it."""
    return (stream, *output[1:]) if isinstance(output, tuple) else stream
