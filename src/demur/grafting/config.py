"""The choices of `demur graft`: those of every treatment, the donor, and how the graft is found.

Three modes, each labelled as what it is:

* `paper`: DAPA as published (Luo et al. 2024, arXiv 2406.01514). The donor's own MLP gates in place
  of the recipient's, the smallest set that delta debugging finds, in the order of the trace.
* `released`: what the paper's code does. The whole MLP of a fixed middle range of layers is
  swapped; nothing is traced or searched.
* `open`: whatever is best under the budget: any module, at any scale and rank, of what the donor
  changed.
"""

from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal, get_args

from cyclopts import Group, Parameter

from demur.options import BUDGET
from demur.treating.config import TreatmentConfig

GRAFT = Parameter(group=Group.create_ordered("Graft"))
MODE = Literal["open", "paper", "released"]
SEARCH = Literal["splitting", "cdd", "ddmin", "wddmin", "probdd", "prefix", "greedy"]
SHARES = (0.4, 1.0)
RANKS = (2,)


@dataclass(frozen=True)
class GraftConfig(TreatmentConfig):
    """The choices of a graft; each has a flag of the same name.

    While searching, `max_over_refusal` and `max_divergence` are by default what the donor's whole
    change costs; given, they are held against validation prompts too.

    Raises:
        ConfigError: a value makes no sense, such as a negative number of prompts.

    Attributes:
        donor: the aligned relative: hub id, folder, GGUF, adapter, or a patch that demur wrote.
        base: the model that both come from; with it, only what aligning changed is grafted.
        mode: open (the best under the budget), paper (gates, swapped) or released (middle MLPs).
        kinds: modules that are looked at; by default all, and the gates in paper mode.
        search: how a small set is found: splitting, cdd, ddmin, wddmin, probdd, prefix or greedy.
        max_share: the most that the patch may hold, as a share of the recipient's parameters.
        shares: sizes of the sets that are tried, as shares of the modules in the trace's order.
        ranks: ranks of the donor's change that are tried, beside the whole, or the highest that
            max_share allows; scales are found.
        search_pairs: pairs that candidates are compared on while searching.
        checked: sets judged while searching that are evaluated in full as well, to measure how
            often the search decides as that does; 0 for none.
        enough: the share of the donor's gain on harmful requests that the search must keep.
        tests: sets that are judged, at most, when open mode looks for a smaller one; 0 for none.
        start: run folder of a finished graft of a relative, whose result open mode tries first.
    """

    verb: ClassVar[str] = "graft"
    purpose: ClassVar[str] = "search"
    positive: ClassVar[tuple[str, ...]] = (*TreatmentConfig.positive, "search_pairs")
    not_negative: ClassVar[tuple[str, ...]] = (*TreatmentConfig.not_negative, "checked", "tests")

    _: KW_ONLY
    donor: Annotated[str, GRAFT] = ""
    mode: Annotated[MODE, GRAFT] = "open"
    kinds: Annotated[tuple[str, ...], GRAFT, Parameter(consume_multiple=True)] = ()
    search: Annotated[SEARCH, GRAFT] = "splitting"
    max_share: Annotated[float, BUDGET] = 0.01
    shares: Annotated[tuple[float, ...], GRAFT, Parameter(consume_multiple=True)] = SHARES
    ranks: Annotated[tuple[int, ...], GRAFT, Parameter(consume_multiple=True)] = RANKS
    search_pairs: Annotated[int, GRAFT] = 48
    checked: Annotated[int, GRAFT] = 6
    enough: Annotated[float, GRAFT] = 0.95
    tests: Annotated[int, GRAFT] = 24
    start: Annotated[str | None, GRAFT] = None

    def __post_init__(self) -> None:
        for name in ("kinds", "shares", "ranks"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        super().__post_init__()
        from demur.models.anatomy.types import KINDS

        self._require("donor", "given", bool(self.donor))
        self._require("mode", f"one of {', '.join(get_args(MODE))}", self.mode in get_args(MODE))
        self._require(
            "search", f"one of {', '.join(get_args(SEARCH))}", self.search in get_args(SEARCH)
        )
        self._require("kinds", f"among {', '.join(KINDS)}", set(self.kinds) <= set(KINDS))
        self._require("max_share", "above 0, at most 1", 0 < self.max_share <= 1)
        self._require(
            "shares", "above 0, at most 1, each", all(0 < one <= 1 for one in self.shares)
        )
        self._require("ranks", "at least 1, each", all(one >= 1 for one in self.ranks))
        self._require("enough", "above 0, at most 1", 0 < self.enough <= 1)

    @property
    def adapter_base(self) -> str | None:
        """The base of the recipient, where it is an adapter: that of the whole family."""
        return self.base if (Path(self.model) / "adapter_config.json").is_file() else None
