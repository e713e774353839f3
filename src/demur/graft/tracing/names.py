"""The words of a trace's choices, apart from all that is heavy to import."""

from __future__ import annotations

from typing import Literal, get_args

Corruption = Literal["noise", "resampled"]
Positions = Literal["groups", "tokens"]
Traced = Literal["state", "mlp", "attention", "gate", "up", "down", "q", "k", "v", "o"]
TRACED: tuple[Traced, ...] = get_args(Traced)
DEFAULT: tuple[Traced, ...] = ("state", "mlp", "attention")
TITLES: dict[str, str] = {
    "state": "The residual state after a layer",
    "mlp": "The output of an MLP",
    "attention": "The output of an attention",
    "gate": "The output of an MLP's gate",
    "up": "The output of an MLP's up projection",
    "down": "The output of an MLP's down projection",
    "q": "Queries",
    "k": "Keys",
    "v": "Values",
    "o": "The output projection of an attention",
}
