"""How a tensor's bits become others: block by block, in order, in bounded memory.

Grafts and patches are both told as rewrites: `copying.py` makes a model of them in one pass over
the old one, and `changes.py` a patch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from demur.checkpoint.index import Blocks


@dataclass(frozen=True)
class Rewrite:
    """What becomes of one tensor.

    Attributes:
        step: bytes of a block; the last one may be shorter.
        run: given the tensor's blocks in order, returns as many blocks of the same sizes, each
            an array or bytes.
        result: the hash that must come out, if it is known beforehand.
        careful: the same more slowly, tried where `run` does not come to `result`.
    """

    step: int
    run: Callable[[Blocks], Iterator[Any]]
    result: str | None = None
    careful: Callable[[Blocks], Iterator[Any]] | None = None
