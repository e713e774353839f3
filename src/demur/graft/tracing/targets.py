"""What is restored: the residual state, an MLP's or an attention's output, or a projection's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from demur.errors import ConfigError
from demur.graft.tracing.names import Traced
from demur.models.anatomy.types import Anatomy, Part


@dataclass(frozen=True)
class Target:
    """Outputs of one kind, one a layer.

    Attributes:
        kind: which.
        paths: the submodule of each layer whose output it is.
        parts: which places of that output's last dimension; None for all.
        window: of how many layers around one it is restored; states of one alone.
    """

    kind: Traced
    paths: tuple[str, ...]
    parts: tuple[Part | None, ...]
    window: int = 1

    def layers(self, centre: int) -> tuple[int, int]:
        """Return (first, stop) of the window around a layer, as ROME's code has it."""
        first = max(0, centre - self.window // 2)
        return first, min(len(self.paths), centre + (self.window + 1) // 2)


def targets_of(anatomy: Anatomy, kinds: Sequence[Traced], window: int = 1) -> tuple[Target, ...]:
    """Return what is to be restored.

    Raises:
        ConfigError: the architecture has no such output, or not in every layer.
    """
    return tuple(_target(anatomy, kind, window) for kind in kinds)


def _target(anatomy: Anatomy, kind: Traced, window: int) -> Target:
    layers = anatomy.layers
    whole = (None,) * len(layers)
    if kind == "state":
        return Target(kind, tuple(layer.block for layer in layers), whole)
    if kind == "mlp":
        return Target(kind, tuple(layer.mlp for layer in layers), whole, window)
    if kind == "attention":
        return Target(kind, tuple(layer.attention for layer in layers), whole, window)
    modules = [module for module in anatomy.modules if module.kind == kind]
    outputs = [module.output for module in modules]
    if len(modules) != len(layers) or None in outputs:
        raise ConfigError(
            f"{anatomy.architecture} does not show the output of a {kind} projection in each layer "
            "(it has none there, or one an expert).",
            f"Leave {kind} out of --kinds; mlp and attention always work.",
        )
    parts = tuple(part if part and not part.whole else None for part in outputs)
    return Target(kind, tuple(module.path for module in modules), parts, window)
