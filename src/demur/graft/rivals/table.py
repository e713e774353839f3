"""All rivals by name, as their papers have them.

    changes = RIVALS["resta"].make(recipient, donor, base, seed=0)

How strong each is can be tuned on validation prompts, by the scale that `models.edits.edited`
takes for any changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from demur.graft.rivals.controls import whole_donor
from demur.graft.rivals.subspace import safe_lora, safe_merge
from demur.graft.rivals.vectors import chat_vector, lox, resta

if TYPE_CHECKING:
    from demur.checkpoint.changes import Dense


class Make(Protocol):
    """Gives a rival's changes to a recipient; all are checkpoint folders."""

    def __call__(
        self, recipient: Path, donor: Path, base: Path, *, seed: int
    ) -> Mapping[str, Dense]:
        """Return changes by the tensor's name on disk."""


@dataclass(frozen=True)
class Rival:
    """One rival.

    Attributes:
        title: for tables.
        paper: where it is from; empty for a control.
        make: its changes.
        seeded: whether the seed makes a difference.
    """

    title: str
    paper: str
    make: Make
    seeded: bool = False


def _donor(recipient: Path, donor: Path, base: Path, *, seed: int) -> Mapping[str, Dense]:
    return whole_donor(recipient, donor)


def _vector(recipient: Path, donor: Path, base: Path, *, seed: int) -> Mapping[str, Dense]:
    return chat_vector(recipient, donor, base)


def _resta(recipient: Path, donor: Path, base: Path, *, seed: int) -> Mapping[str, Dense]:
    return resta(recipient, donor, base, seed=seed)


def _safe_lora(recipient: Path, donor: Path, base: Path, *, seed: int) -> Mapping[str, Dense]:
    return safe_lora(recipient, donor, base)


def _safe_merge(recipient: Path, donor: Path, base: Path, *, seed: int) -> Mapping[str, Dense]:
    return safe_merge(recipient, donor, base)


def _lox(recipient: Path, donor: Path, base: Path, *, seed: int) -> Mapping[str, Dense]:
    return lox(recipient, donor, base)


RIVALS: dict[str, Rival] = {
    "donor": Rival("the whole donor", "", _donor),
    "vector": Rival("chat vector", "arXiv 2310.04799", _vector),
    "resta": Rival("RESTA with DARE", "arXiv 2402.11746", _resta, seeded=True),
    "safe-lora": Rival("projection as in Safe LoRA", "arXiv 2405.16833", _safe_lora),
    "safe-merge": Rival("layer-wise merge as in SafeMERGE", "arXiv 2503.17239", _safe_merge),
    "lox": Rival("low-rank extrapolation as in LoX", "arXiv 2506.15606", _lox),
}
