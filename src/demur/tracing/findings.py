"""What a trace found: the values that its documents are made of."""

from __future__ import annotations

from dataclasses import dataclass

from demur.graft.tracing.crossing import Crossing
from demur.graft.tracing.effects import Agreement, Cell
from demur.stats import Mean


@dataclass(frozen=True)
class MapFindings:
    """The map of one kind of output.

    Attributes:
        kind: what was restored.
        window: how many layers at once.
        cells: exact effects, by layers and places; empty where only attributions were asked for.
        attributed: the same to first order.
        agreement: of the two; None where there are no exact ones.
    """

    kind: str
    window: int
    cells: tuple[Cell, ...]
    attributed: tuple[Cell, ...]
    agreement: Agreement | None

    @property
    def shown(self) -> tuple[Cell, ...]:
        """The cells that are shown: exact ones if there are any."""
        return self.cells or self.attributed


@dataclass(frozen=True)
class CrossFindings:
    """Modules of one model in the other.

    Attributes:
        direction: `into` (the donor's in the model) or `back` (the model's in the donor).
        harmful, benign: margins before, in nats.
        whole_harmful, whole_benign: margins of the model that the modules come from.
        blocks: exact effects, layer by layer; empty where only attributions were asked for.
        attributed: effects of single modules to first order.
        agreement: of the exact selectivity of blocks, with the sum of their modules' to first
            order; None where there are no exact ones.
    """

    direction: str
    harmful: Mean
    benign: Mean
    whole_harmful: Mean
    whole_benign: Mean
    blocks: tuple[Crossing, ...]
    attributed: tuple[Crossing, ...]
    agreement: Agreement | None


@dataclass(frozen=True)
class Findings:
    """All of a trace.

    Attributes:
        created: the day.
        command: that makes the trace again.
        model, donor: what the user called them.
        traced: which of them the maps are of.
        architecture, layers: its class, and how many layers it has.
        corruption, positions: as chosen.
        deviation: standard deviation of the noise; 0 where twins corrupt.
        draws: of noise a request; 0 where twins corrupt.
        prompts: pairs that are traced.
        same_length: pairs whose twins have the same number of tokens.
        asked: pairs that were asked to find them.
        refusing, complying: the openings that the margin weighs for all prompts, as text.
        clean, corrupted: mean margins, in nats.
        places: names, in the order of the prompt.
        maps: one a kind.
        crossings: both directions, where there is a donor.
        versions: of what made the trace.
    """

    created: str
    command: str
    model: str
    donor: str | None
    traced: str
    architecture: str
    layers: int
    corruption: str
    positions: str
    deviation: float
    draws: int
    prompts: int
    same_length: int
    asked: int
    refusing: tuple[str, ...]
    complying: tuple[str, ...]
    clean: Mean
    corrupted: Mean
    places: tuple[str, ...]
    maps: tuple[MapFindings, ...]
    crossings: tuple[CrossFindings, ...]
    versions: tuple[tuple[str, str], ...]
