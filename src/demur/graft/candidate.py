"""A candidate: which modules of the donor, at which scale, at which rank.

    candidate = Candidate(frozenset({"layers.7.gate"}), scale=2.0, rank=4)
    with edited(chat.model, candidate.changes(deltas)):
        ...  # the recipient behaves as grafted

Its changes are named as on disk, each made when it is asked for, and fit `models.edits.edited` and
`checkpoint.make_patch` alike. A scale is a factor on what the donor adds, and always positive: a
graft gives refusals, and cannot take them away.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Self

from demur.errors import ConfigError
from demur.run.journal import content_key

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from demur.checkpoint.changes import Dense, LowRank
    from demur.graft.deltas import Deltas, Piece
    from demur.models.anatomy.types import Part

Graft = Literal["delta", "swap"]


@dataclass(frozen=True)
class Candidate:
    """One graft that could be made.

    Attributes:
        modules: names of the modules that are changed; none for the untouched recipient.
        scale: factor on the donor's change, above 0.
        rank: of the change of each matrix; None for the whole change.
        kind: `delta` adds the change; `swap` puts the donor's own values in place of the
            recipient's, as the paper does, whole and at a scale of 1.

    Raises:
        ConfigError: a scale or a rank that makes no sense.
    """

    modules: frozenset[str]
    scale: float = 1.0
    rank: int | None = None
    kind: Graft = "delta"

    def __post_init__(self) -> None:
        if not 0 < self.scale < float("inf"):
            raise ConfigError(
                f"The scale {self.scale:g} is not a number above 0.",
                "Give a positive scale: a graft adds refusals, and never takes them away.",
            )
        if self.rank is not None and self.rank < 1:
            raise ConfigError(f"The rank {self.rank} is below 1.", "Give a rank of at least 1.")
        if self.kind == "swap" and (self.scale != 1 or self.rank is not None):
            raise ConfigError(
                "A swap has neither scale nor rank.", "Graft the change (`delta`) for these."
            )

    @cached_property
    def key(self) -> str:
        """Content hash: equal for equal candidates, whatever the order of the modules."""
        return content_key("graft", sorted(self.modules), self.scale, self.rank, self.kind)

    @property
    def label(self) -> str:
        """The candidate in a few words."""
        count = f"{len(self.modules)} module{'s' * (len(self.modules) != 1)}"
        if self.kind == "swap":
            return f"{count} swapped"
        rank = "" if self.rank is None else f", rank {self.rank}"
        return f"{count}, scale {self.scale:g}{rank}"

    def to_json(self) -> dict[str, Any]:
        """Return the candidate as JSON can hold it."""
        return {**asdict(self), "modules": sorted(self.modules)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Return the candidate that `to_json` described."""
        return cls(**{**value, "modules": frozenset(value["modules"])})

    def changed(self, deltas: Deltas) -> tuple[str, ...]:
        """Return its modules in which the donor has anything to give, in the model's order.

        Raises:
            ConfigError: there is no module of one of the names.
        """
        unknown = sorted(self.modules - set(deltas))
        if unknown:
            raise ConfigError(
                f"The recipient has no module {unknown[0]}.",
                "Name modules as `demur trace` does, such as layers.7.gate.",
            )
        return tuple(name for name in deltas.changed if name in self.modules)

    def lowest(self, deltas: Deltas) -> int:
        """Return the first layer that is changed; the number of layers where none is."""
        layers = [deltas[name].module.layer for name in self.changed(deltas)]
        return min(layers, default=len(deltas.anatomy.layers))

    def parameters(self, deltas: Deltas) -> int:
        """Return how many numbers the graft brings.

        For a low-rank change these are its factors', rank * (rows + columns) for each matrix; for
        a whole one, or a swap, all that are touched.
        """
        pieces = [piece for name in self.changed(deltas) for piece in deltas[name].pieces]
        return sum(self._count(piece) for piece in pieces if piece.changed)

    def share(self, deltas: Deltas) -> float:
        """Return `parameters` as a share of the recipient's, in [0, 1]."""
        return self.parameters(deltas) / deltas.recipient.parameters

    def changes(self, deltas: Deltas) -> Mapping[str, LowRank | Dense]:
        """Return the change of each tensor, by its name on disk, made when it is asked for.

        A whole change of low rank comes as its factors. Of a tensor that holds several modules,
        the parts that are not grafted stay as they are.

        Raises:
            ConfigError: as `changed`.
        """
        pieces: dict[str, list[Piece]] = {}
        for name in self.changed(deltas):
            for piece in deltas[name].pieces:
                if piece.changed:
                    pieces.setdefault(piece.disk.tensor, []).append(piece)
        return _Changes(self, deltas, pieces)

    def _count(self, piece: Piece) -> int:
        factors = self.factors(piece)
        if factors is None:
            return piece.elements
        return min(piece.elements, int(factors[0].shape[1]) * sum(piece.shape))

    def factors(self, piece: Piece) -> tuple[NDArray[Any], NDArray[Any]] | None:
        """Return the change of one part as (up [rows, rank], down [rank, columns]), float32.

        The scale is in `up`. None where it can only be had whole: a swap, a vector, a change that
        is wanted whole and not of low rank.
        """
        found = piece.factors
        if found is None or self.kind == "swap":
            return None
        if self.rank is None and not found.exact:
            return None
        import numpy as np

        rank = found.rank if self.rank is None else min(self.rank, found.rank)
        with np.errstate(over="ignore"):  # infinite factors are refused where they are used
            return found.up[:, :rank] * (found.values[:rank] * self.scale), found.down[:rank]

    def values(self, piece: Piece, before: NDArray[Any], deltas: Deltas) -> NDArray[Any]:
        """Return the new values of one part, in float64.

        Args:
            before: the recipient's own, in the part's shape.
        """
        if self.kind == "swap":
            return deltas.given(piece.disk)
        factors = self.factors(piece)
        if factors is not None:
            up, down = (factor.astype("f8") for factor in factors)
            grafted: NDArray[Any] = before + up @ down
            return grafted
        result: NDArray[Any] = before + self.scale * deltas.whole(piece.disk)
        return result


class _Changes(Mapping[str, Any]):
    """Changes by tensor, each made when it is asked for."""

    def __init__(
        self, candidate: Candidate, deltas: Deltas, pieces: Mapping[str, Sequence[Piece]]
    ) -> None:
        self.candidate, self.deltas, self.pieces = candidate, deltas, pieces

    def __len__(self) -> int:
        return len(self.pieces)

    def __iter__(self) -> Iterator[str]:
        return iter(self.pieces)

    def __contains__(self, name: object) -> bool:
        return name in self.pieces

    def __getitem__(self, name: str) -> LowRank | Dense:
        from demur.checkpoint.changes import Dense, LowRank
        from demur.checkpoint.index import read_tensor
        from demur.models.anatomy import assign, select

        pieces = self.pieces[name]
        shape = self.deltas.recipient.tensor(name).shape
        factors = [self.candidate.factors(piece) for piece in pieces]
        low = [one for one in factors if one is not None]
        if len(shape) == 2 and len(low) == len(pieces):
            return LowRank(*_stacked(shape, [piece.disk for piece in pieces], low))
        values = read_tensor(self.deltas.recipient, name).astype("f8")
        for piece in pieces:
            before = select(values, piece.disk)
            assign(values, piece.disk, self.candidate.values(piece, before, self.deltas))
        return Dense(values)


def _stacked(
    shape: Sequence[int],
    parts: Sequence[Part],
    factors: Sequence[tuple[NDArray[Any], NDArray[Any]]],
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the changes of some parts of a matrix as factors of the whole of it."""
    import numpy as np

    from demur.models.anatomy import assign

    rank = sum(up.shape[1] for up, _ in factors)
    up, down = np.zeros((shape[0], rank), "f4"), np.zeros((rank, shape[1]), "f4")
    start = 0
    for part, (own_up, own_down) in zip(parts, factors, strict=True):
        stop = start + own_up.shape[1]
        if part.dim == 0:
            assign(up[:, start:stop], part, own_up)
            down[start:stop] = own_down
        else:
            up[:, start:stop] = own_up
            assign(down[start:stop], part, own_down)
        start = stop
    return up, down
