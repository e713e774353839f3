"""The choices of `demur bench distill`: those of distilling, and which rows for how many seeds."""

from dataclasses import KW_ONLY, dataclass
from typing import Annotated, Any, ClassVar

from cyclopts import Group, Parameter

from demur.distilling.config import DistillConfig

BENCH = Parameter(group=Group.create_ordered("Bench"))
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class BenchConfig(DistillConfig):
    """The choices of a bench; each has a flag of the same name.

    Attributes:
        rows: names of the methods to compare; by default all that need nothing else.
        seeds: each method that draws at random is run once for each.
        donor: an aligned relative of the model, for the row of task arithmetic.
        cross_teacher: another model, an endpoint or a file of recorded answers, as for --teacher,
            for the rows of cross-model distilling.
        sets: named prompt sets to measure on besides; see `demur prompts --sets`.
        data: folder of prompt sets on disk.
        blimp: BLiMP's zip, a folder of its files, or one of them; measured on rows that are there
            already, too.
        blimp_n: minimal pairs, at most.
    """

    verb: ClassVar[str] = "bench distill"
    parallel: ClassVar[bool] = False

    _: KW_ONLY
    rows: Annotated[tuple[str, ...], BENCH, Parameter(consume_multiple=True)] = ()
    seeds: Annotated[tuple[int, ...], BENCH, Parameter(consume_multiple=True)] = SEEDS
    donor: Annotated[str | None, BENCH] = None
    cross_teacher: Annotated[str | None, BENCH] = None
    sets: Annotated[tuple[str, ...], BENCH, Parameter(consume_multiple=True)] = ()
    data: Annotated[str | None, BENCH] = None
    blimp: Annotated[str | None, BENCH] = None
    blimp_n: Annotated[int, BENCH] = 1005

    def __post_init__(self) -> None:
        for name in ("rows", "seeds", "sets"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        super().__post_init__()
        self._require("seeds", "at least one", bool(self.seeds))
        self._require("blimp_n", "at least 1", self.blimp_n >= 1)
        self._require("from_patch", "left out: rows begin anew", self.from_patch is None)

    def identity(self) -> dict[str, Any]:
        """Return all choices but those that say what is added to a bench."""
        added = ("rows", "seeds", "donor", "cross_teacher", "blimp", "blimp_n")
        return {name: value for name, value in super().identity().items() if name not in added}
