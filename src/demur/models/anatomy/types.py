"""What a model is made of: the words that tracing, search and grafting use for its parts.

A *module* is one functional matrix of one layer, such as the gate of the MLP of layer 7, whatever
tensor holds it: on its own, fused with others, or as part of every expert. A *part* says which
places of a tensor that is. Names in memory and names on disk differ, so that a module has both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["gate", "up", "down", "q", "k", "v", "o", "norm", "router"]
KINDS: tuple[Kind, ...] = ("gate", "up", "down", "q", "k", "v", "o", "norm", "router")
MLP: tuple[Kind, ...] = ("gate", "up", "down")
ATTENTION: tuple[Kind, ...] = ("q", "k", "v", "o")


@dataclass(frozen=True)
class Part:
    """Some places of a tensor along one dimension: those i with start <= i % period < stop.

    A whole tensor has stop == period == its size; a fused half has the period of the whole; an
    interleaved one a period of 2; grouped queries, keys and values the period of a group.

    Attributes:
        tensor: its name.
        dim: the dimension along which it is divided.
        period, start, stop: as above, in places of that dimension.
        size: places of that dimension in the whole tensor, a multiple of the period.
    """

    tensor: str
    dim: int
    period: int
    start: int
    stop: int
    size: int

    @property
    def whole(self) -> bool:
        """Whether the part is all of its tensor."""
        return self.start == 0 and self.stop == self.period


@dataclass(frozen=True)
class Module:
    """One functional matrix, with its bias, of one layer.

    Attributes:
        name: how users and reports call it, such as `layers.7.gate`.
        layer: counted from 0.
        kind: what it is.
        memory: its parts of the parameters of the transformers model.
        disk: its parts of the tensors of the checkpoint.
        path: name of the submodule that computes it, for hooks; of the experts' where there are
            several. Its output holds other modules too where it is fused.
        output: which places of the last dimension of that submodule's output are this module's;
            None where it cannot be told apart there (experts).
        parameters: how many numbers it holds.
        transposed: whether its matrix is stored as (in, out), as GPT-2 does.
    """

    name: str
    layer: int
    kind: Kind
    memory: tuple[Part, ...]
    disk: tuple[Part, ...]
    path: str
    output: Part | None
    parameters: int
    transposed: bool = False


@dataclass(frozen=True)
class Layer:
    """Submodules of one layer, by their names in memory, for hooks.

    Attributes:
        block: the decoder layer, whose first output is the residual stream.
        attention, mlp: what adds to the residual stream in it: where a norm follows, before that;
            where the submodule adds to the stream by itself, its last projection.
    """

    block: str
    attention: str
    mlp: str


@dataclass(frozen=True)
class Anatomy:
    """A language model's layers and modules.

    Attributes:
        architecture: the class, such as `LlamaForCausalLM`.
        layers: in order.
        modules: in the order of the layers, and of `KINDS` in each.
        embedding: name of the input embedding's submodule.
        untouched: tensors on disk that belong to no module: embeddings, head, vision towers, and
            what is not known.
        missing: kinds that this architecture does not have, such as a gate in GPT-2.
        parameters: numbers in the whole checkpoint.
    """

    architecture: str
    layers: tuple[Layer, ...]
    modules: tuple[Module, ...]
    embedding: str
    untouched: tuple[str, ...]
    missing: tuple[Kind, ...]
    parameters: int
