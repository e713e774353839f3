"""What a donor has that a recipient could take: the change of every module, as few directions.

    deltas = find_deltas(anatomy, recipient, donor, base, store=run / "deltas")
    deltas["layers.7.gate"].energy(4)  # share of the change that four directions hold

The change of a module is donor less base, or donor less recipient where no common base is given.
Checkpoints are read tensor by tensor, and what is found is kept on disk layer by layer, so that a
run that was killed goes on where it was. The change of a donor that was made by LoRA is found to be
of low rank, and is then held exactly (to rounding); of any other, the first directions are held,
and the whole is read from the checkpoints when it is asked for.
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demur.errors import CheckpointError
from demur.graft.factors import MOST, UNIT_ROUNDOFF, Factors, factorise, rounding_norm
from demur.run.journal import content_key

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from demur.checkpoint.index import Checkpoint
    from demur.models.anatomy.types import Anatomy, Module, Part

FORMAT = 1  # of the files; raised whenever the same checkpoints would give others


@dataclass(frozen=True)
class Piece:
    """The change of one part of one tensor.

    Attributes:
        disk, memory: where it is, by the tensor's names; `memory` is None where it is not known
            which place in memory it has.
        expert: number of the expert that it belongs to, where a tensor in memory holds several,
            one after the other; `memory` is then a part of that expert's matrix.
        shape: of the part.
        norm: Frobenius norm of the change.
        factors: of a matrix; None of a vector, or of several matrices in one.
    """

    disk: Part
    memory: Part | None
    shape: tuple[int, ...]
    norm: float
    factors: Factors | None
    expert: int | None = None

    @property
    def changed(self) -> bool:
        """Whether the change is more than rounding."""
        return self.norm > 0 if self.factors is None else self.factors.rank > 0

    @property
    def elements(self) -> int:
        """How many numbers the part holds."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class ModuleDelta:
    """The change of one module: of its matrix or matrices, and of its biases."""

    module: Module
    pieces: tuple[Piece, ...]

    @property
    def changed(self) -> bool:
        """Whether the donor has anything to give here."""
        return any(piece.changed for piece in self.pieces)

    @property
    def norm(self) -> float:
        """Frobenius norm of the whole change."""
        return math.sqrt(sum(piece.norm**2 for piece in self.pieces))

    @property
    def rank(self) -> int | None:
        """Rank of the change, of the highest where there are several matrices; None if not low."""
        found = [piece.factors for piece in self.pieces if piece.factors is not None]
        if not found or not all(factors.exact for factors in found):
            return None
        return max(factors.rank for factors in found)

    def energy(self, rank: int | None = None) -> float:
        """Return the share of the squared norm that the first `rank` directions hold, in [0, 1]."""
        if not self.norm:
            return 1.0
        held = [
            piece.norm**2 * (1.0 if piece.factors is None else piece.factors.energy(rank))
            for piece in self.pieces
        ]
        return min(1.0, sum(held) / self.norm**2)


class Deltas(Mapping[str, ModuleDelta]):
    """The changes of all modules by their names, in the order of the anatomy."""

    def __init__(
        self,
        anatomy: Anatomy,
        recipient: Checkpoint,
        donor: Checkpoint,
        base: Checkpoint | None,
        key: str,
        found: Mapping[str, ModuleDelta],
    ) -> None:
        self.anatomy, self.recipient, self.donor, self.base = anatomy, recipient, donor, base
        self.key, self._found = key, found

    def __getitem__(self, name: str) -> ModuleDelta:
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    @property
    def changed(self) -> tuple[str, ...]:
        """Names of the modules in which the donor has anything to give."""
        return tuple(name for name, delta in self._found.items() if delta.changed)

    @property
    def low_rank(self) -> int | None:
        """The rank that no module's change exceeds, such as a LoRA's; None if they are not low."""
        ranks = [delta.rank for delta in self._found.values() if _has_matrix(delta)]
        known = [rank for rank in ranks if rank is not None]
        return max(known) if known and len(known) == len(ranks) else None

    def whole(self, part: Part) -> NDArray[Any]:
        """Return the whole change of a part of a tensor on disk, in float64."""
        return _difference(self.donor, self.base or self.recipient, part)

    def given(self, part: Part) -> NDArray[Any]:
        """Return the donor's own values of a part of a tensor on disk, in float64."""
        return _values(self.donor, part)


def _has_matrix(delta: ModuleDelta) -> bool:
    return any(piece.factors is not None for piece in delta.pieces)


class SameWeights(CheckpointError):
    """Donor and base differ in nothing."""


def find_deltas(
    anatomy: Anatomy,
    recipient: Path,
    donor: Path,
    base: Path | None = None,
    *,
    store: Path,
    most: int = MOST,
    hashes: Sequence[str] | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> Deltas:
    """Compare a donor with the base, or with the recipient, module by module.

    Args:
        anatomy: the recipient's, with its names on disk.
        recipient, donor, base: checkpoint folders of one family.
        store: folder for what is found; files that are there from before are used.
        most: directions kept of a change that is not of low rank.
        hashes: the `checkpoint_hash` of each that is given, if they are known.
        advance: called with the number of modules that have just become known.

    Raises:
        SameWeights: the donor has the same weights in every module.
        CheckpointError: a tensor is missing, of another shape or stored as integers; no room on
            disk.
    """
    from demur.checkpoint.index import checkpoint_hash, open_checkpoint

    folders = [recipient, donor, *([] if base is None else [base])]
    opened = [open_checkpoint(folder) for folder in folders]
    hashes = hashes or [checkpoint_hash(one) for one in opened]
    mine, theirs, common = opened[0], opened[1], opened[2] if base else None
    names = [[module.name, *(asdict(part) for part in module.disk)] for module in anatomy.modules]
    key = content_key("deltas", FORMAT, list(hashes), base is not None, most, names)
    layers: dict[int, list[Module]] = defaultdict(list)
    for module in anatomy.modules:
        layers[module.layer].append(module)
    found: dict[str, ModuleDelta] = {}
    for layer, modules in layers.items():
        path = store / key / f"layers.{layer}.safetensors"
        known = _read(path, modules)
        if known is None:
            known = [_delta(module, mine, theirs, common or mine, most) for module in modules]
            _write(path, known)
        found.update({delta.module.name: delta for delta in known})
        advance(len(modules))
    if not any(delta.changed for delta in found.values()):
        raise SameWeights(
            f"{donor} has the same weights as {base or recipient} in all {len(found)} modules.",
            "Give a donor that was aligned.",
        )
    return Deltas(anatomy, mine, theirs, common, key, found)


def _delta(
    module: Module, recipient: Checkpoint, donor: Checkpoint, base: Checkpoint, most: int
) -> ModuleDelta:
    """Read one module's change and decompose it."""
    import numpy as np

    pieces = []
    for part, (memory, expert) in zip(module.disk, _in_memory(module), strict=True):
        for other in (donor, base):
            _require_alike(recipient, other, part.tensor)
        change = _difference(donor, base, part)
        norm = float(np.linalg.norm(change))
        factors = None
        if change.ndim == 2:
            stored = {one.tensor(part.tensor).dtype for one in (donor, base)}
            coarsest = max(stored, key=UNIT_ROUNDOFF.__getitem__)
            size = float(np.linalg.norm(_values(donor, part)))
            tolerance = rounding_norm(coarsest, size) if norm else 0.0
            factors = factorise(change, tolerance, most)
        pieces.append(Piece(part, memory, change.shape, norm, factors, expert))
    return ModuleDelta(module, tuple(pieces))


def _in_memory(module: Module) -> list[tuple[Part | None, int | None]]:
    """Return the place in memory of each part on disk, and the number of its expert there.

    Parts correspond one by one, but for experts: those that have a tensor each on disk, named
    alike but for a number, lie one after the other in one of memory.
    """
    alike = [
        [part for _, part in group]
        for _, group in groupby(
            [(re.sub(r"\d+", "#", part.tensor), part) for part in module.disk], lambda one: one[0]
        )
    ]
    if len(module.memory) == len(module.disk):
        return [(part, None) for part in module.memory]
    if len(module.memory) != len(alike):
        return [(None, None)] * len(module.disk)
    found: list[tuple[Part | None, int | None]] = []
    for memory, group in zip(module.memory, alike, strict=True):
        if len(group) == 1:
            found.append((memory, None))
        else:
            own = replace(memory, dim=memory.dim - 1)
            found += [(own, expert) for expert in range(len(group))]
    return found


def _require_alike(recipient: Checkpoint, other: Checkpoint, name: str) -> None:
    mine, theirs = recipient.tensor(name), other.tensor(name)
    if mine.shape != theirs.shape:
        raise CheckpointError(
            f"{name} is {list(mine.shape)} in {recipient.folder} and {list(theirs.shape)} in "
            f"{other.folder}.",
            "Give models of the same family and size.",
        )
    if not {mine.dtype, theirs.dtype} <= set(UNIT_ROUNDOFF):
        raise CheckpointError(
            f"{name} is stored as {mine.dtype} in {recipient.folder} and as {theirs.dtype} in "
            f"{other.folder}, and only floating numbers can be computed with.",
            "Use models in F32, F16 or BF16.",
        )


def _values(checkpoint: Checkpoint, part: Part) -> NDArray[Any]:
    from demur.checkpoint.index import read_tensor
    from demur.models.anatomy import select

    values: NDArray[Any] = select(read_tensor(checkpoint, part.tensor), part).astype("f8")
    return values


def _difference(donor: Checkpoint, base: Checkpoint, part: Part) -> NDArray[Any]:
    difference: NDArray[Any] = _values(donor, part) - _values(base, part)
    return difference


def _write(path: Path, deltas: Sequence[ModuleDelta]) -> None:
    """Keep the changes of one layer's modules, wholly or not at all."""
    import numpy as np
    from safetensors.numpy import save

    from demur.checkpoint.storage import whole_file, writing

    tensors: dict[str, NDArray[Any]] = {"none": np.zeros(0, "f4")}  # a file holds one at least
    told: dict[str, list[Any]] = {}
    for delta in deltas:
        rows = told.setdefault(delta.module.name, [])
        for place, piece in enumerate(delta.pieces):
            factors = piece.factors
            row: dict[str, Any] = {"shape": list(piece.shape), "norm": piece.norm}
            if factors is not None:
                name = f"{delta.module.name}/{place}"
                parts = {"up": factors.up, "values": factors.values, "down": factors.down}
                tensors.update({f"{name}/{part}": value for part, value in parts.items()})
                row |= {"residual": factors.residual, "exact": factors.exact}
            rows.append(row)
    with writing(path), whole_file(path) as file:
        file.write(save(tensors, {"pieces": json.dumps(told)}))


def _read(path: Path, modules: Sequence[Module]) -> list[ModuleDelta] | None:
    """Return what an earlier try of this run kept, or None."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return None
    try:
        with safe_open(path, "numpy") as file:
            told = json.loads(file.metadata()["pieces"])
            return [_module(module, told[module.name], file.get_tensor) for module in modules]
    except (SafetensorError, OSError, ValueError, KeyError, TypeError):
        return None  # not a file of ours, or a damaged one: it is made anew


def _module(
    module: Module, rows: Sequence[Mapping[str, Any]], tensor: Callable[[str], NDArray[Any]]
) -> ModuleDelta:
    pieces = []
    places = zip(module.disk, _in_memory(module), rows, strict=True)
    for place, (part, (memory, expert), row) in enumerate(places):
        factors = None
        if "exact" in row:
            name = f"{module.name}/{place}"
            up, values, down = (tensor(f"{name}/{each}") for each in ("up", "values", "down"))
            factors = Factors(up, values, down, row["norm"], row["residual"], row["exact"])
        shape = tuple(row["shape"])
        pieces.append(Piece(part, memory, shape, row["norm"], factors, expert))
    return ModuleDelta(module, tuple(pieces))
