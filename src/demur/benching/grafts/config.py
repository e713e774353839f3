"""The choices of `demur bench graft`: those of grafting, which recipients, and which rows."""

from dataclasses import KW_ONLY, dataclass, fields
from typing import Annotated, Any, ClassVar

from cyclopts import Parameter

from demur.benching.config import BENCH
from demur.grafting.config import GraftConfig


@dataclass(frozen=True)
class GraftBenchConfig(GraftConfig):
    """The choices of a bench of grafts; each has a flag of the same name.

    The first recipient's graft is searched for in full, and is what the others' searches begin
    with.

    Attributes:
        model: the base that the donor and all recipients were made from.
        recipients: models to be grafted: what `demur graft` takes.
        rows: names of grafts, rivals and controls to compare; by default all that need no training.
    """

    verb: ClassVar[str] = "bench graft"

    _: KW_ONLY
    recipients: Annotated[tuple[str, ...], BENCH, Parameter(consume_multiple=True)] = ()
    rows: Annotated[tuple[str, ...], BENCH, Parameter(consume_multiple=True)] = ()

    def __post_init__(self) -> None:
        for name in ("recipients", "rows"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        super().__post_init__()
        self._require("recipients", "at least one", bool(self.recipients))
        self._require(
            "recipients", "each given once", len(set(self.recipients)) == len(self.recipients)
        )
        self._require("start", "left out: the first recipient is it", self.start is None)
        self._require("base", "left out: the model is the base", self.base is None)
        self._require("mode", "left out: all modes are rows", self.mode == "open")

    def identity(self) -> dict[str, Any]:
        """Return all choices but those that say what is added to a bench."""
        added = ("recipients", "rows")
        return {name: value for name, value in self.resolved().items() if name not in added}

    def of_recipient(self, recipient: str) -> GraftConfig:
        """Return the choices of one recipient's graft."""
        shared = {one.name: getattr(self, one.name) for one in fields(GraftConfig)}
        return GraftConfig(**{**shared, "model": recipient, "base": self.model, "revision": None})
