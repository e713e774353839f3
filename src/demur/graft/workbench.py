"""The recipient on the workbench: moved from one candidate to the next, and put back to the bit.

    with Workbench(chat.model, deltas) as bench:
        for candidate in candidates:
            bench.move(candidate)
            ...  # the model behaves as grafted
    # all old bits are back

`models.edits.edited` changes every tensor of a candidate and changes it back. A search tries
candidates that differ in a few modules, or in scale, hundreds of times: here only tensors in which
a candidate differs from the last are touched, in one pass over each. The tensors that are changed
are kept as they were, on their device.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from demur.errors import ModelError

if TYPE_CHECKING:
    from demur.graft.candidate import Candidate
    from demur.graft.deltas import Deltas, Piece
    from demur.models.anatomy.types import Part

NARROW = ("float16",)  # a change can take these beyond their range


class Workbench:
    """A model that is moved between candidates.

    Attributes:
        touched: tensors that were changed or put back so far.
    """

    def __init__(self, model: Any, deltas: Deltas) -> None:
        self.model, self.deltas = model, deltas
        self.touched = 0
        self._now: dict[str, str] = {}
        self._kept: dict[str, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.move(None)

    def move(self, candidate: Candidate | None) -> None:
        """Make the model what the candidate makes of it; None for the untouched recipient.

        Raises:
            ConfigError: the candidate names a module that is not there.
            ModelError: a module is held in memory in another form than on disk, or the change
                makes weights that are NaN or infinite; the model is then the untouched one.
        """
        import torch

        wanted = _by_tensor(candidate, self.deltas)
        told = {
            name: "" if candidate is None else _told(candidate, pieces)
            for name, pieces in wanted.items()
        }
        with torch.no_grad():
            for name in [name for name in self._now if self._now[name] != told.get(name)]:
                if name not in wanted:
                    self._restore(name)
            try:
                for name, pieces in wanted.items():
                    if candidate is not None and self._now.get(name) != told[name]:
                        self._change(name, candidate, pieces)
                        self._now[name] = told[name]
            except ModelError:
                for name in list(self._kept):
                    self._restore(name)
                raise

    def _restore(self, name: str) -> None:
        self.model.get_parameter(name).copy_(self._kept.pop(name))
        self._now.pop(name, None)
        self.touched += 1

    def _change(self, name: str, candidate: Candidate, pieces: Sequence[Piece]) -> None:
        """Write a tensor's new values, from those that it had before any candidate."""
        import torch

        from demur.models.anatomy import assign, select

        parameter = self.model.get_parameter(name)
        self.touched += 1
        if name not in self._kept:
            self._kept[name] = parameter.detach().clone()
        elif len(pieces) > 1 or not _part(pieces[0]).whole:
            parameter.copy_(self._kept[name])
        whole = parameter.detach()
        narrow = str(parameter.dtype).removeprefix("torch.") in NARROW
        for piece in pieces:
            kept = self._kept[name]
            target = whole if piece.expert is None else whole[piece.expert]
            before = select(kept if piece.expert is None else kept[piece.expert], _part(piece))
            factors = candidate.factors(piece)
            if factors is None:
                given = candidate.values(piece, before.detach().double().cpu().numpy(), self.deltas)
                after = torch.from_numpy(given).to(parameter.device, parameter.dtype)
            else:
                up, down = (
                    torch.from_numpy(factor).to(parameter.device, torch.float32)
                    for factor in factors
                )
                _require_finite(up, name, candidate)  # what it makes of wide dtypes is then finite
                if _part(piece).whole and parameter.dtype == torch.float32:
                    torch.addmm(before, up, down, out=target)
                    continue
                after = torch.addmm(before.float(), up, down).to(parameter.dtype)
            if narrow or factors is None:
                _require_finite(after, name, candidate)
            assign(target, _part(piece), after)


def _require_finite(values: Any, name: str, candidate: Candidate) -> None:
    import torch

    if not bool(torch.isfinite(values).all()):
        raise ModelError(
            f"The change at scale {candidate.scale:g} makes {name} NaN or infinite.",
            "Use a smaller scale.",
        )


def _by_tensor(candidate: Candidate | None, deltas: Deltas) -> dict[str, list[Piece]]:
    """Return the parts that a candidate changes, by the name in memory of the tensor."""
    pieces: dict[str, list[Piece]] = {}
    for name in candidate.changed(deltas) if candidate else ():
        for piece in deltas[name].pieces:
            if piece.changed:
                pieces.setdefault(_part(piece).tensor, []).append(piece)
    return pieces


def _part(piece: Piece) -> Part:
    if piece.memory is None:
        raise ModelError(
            f"{piece.disk.tensor} is held in memory in a form that is not known.",
            "Graft other modules, or write the graft as a patch untried.",
        )
    return piece.memory


def _told(candidate: Candidate, pieces: Sequence[Piece]) -> str:
    """Return what tells one content of a tensor from another."""
    parts = [
        f"{piece.expert} {part.start}:{part.stop}/{part.period}"
        for piece, part in zip(pieces, map(_part, pieces), strict=True)
    ]
    return f"{candidate.kind} {candidate.scale!r} {candidate.rank} {' '.join(parts)}"
