"""Every choice of `demur align`, with its default: those of distilling, and which path is taken."""

from dataclasses import KW_ONLY, dataclass, fields
from pathlib import Path
from typing import Annotated, ClassVar, Literal, get_args

from demur.distilling.config import DistillConfig
from demur.grafting.config import GraftConfig
from demur.options import BUDGET, PATH
from demur.treating.config import TreatmentConfig

WAY = Literal["auto", "distill", "graft"]


@dataclass(frozen=True)
class AlignConfig(DistillConfig):
    """The choices of the autopilot; each has a flag of the same name.

    Attributes:
        path: graft what makes an aligned relative refuse (minutes), distill (training), or auto: a
            graft where a donor is given, or found and nothing of distilling was chosen.
        donor: the aligned relative: hub id, folder, GGUF, adapter, or a patch that demur wrote. By
            default one is looked for on this machine: a patch from a run beside this one, or an
            aligned sibling, of the model that the card names as base. With it, --base is the model
            that both come from.
        max_share: the most that a graft may hold, as a share of the model's parameters.
    """

    verb: ClassVar[str] = "align"

    _: KW_ONLY
    path: Annotated[WAY, PATH] = "auto"
    donor: Annotated[str | None, PATH] = None
    max_share: Annotated[float, BUDGET] = GraftConfig.max_share

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("path", f"one of {', '.join(get_args(WAY))}", self.path in get_args(WAY))
        self._require("max_share", "above 0, at most 1", 0 < self.max_share <= 1)
        self._require("donor", "a model or a patch", self.donor is None or bool(self.donor.strip()))
        self._require(
            "path", "auto or graft where a --donor is given", not (self.donor and self.trains)
        )

    @property
    def trains(self) -> bool:
        """Whether nothing but distilling was asked for."""
        return self.path == "distill"

    @property
    def teaches(self) -> bool:
        """Whether something of distilling was chosen, which a graft would not heed."""
        shared = {each.name for each in fields(TreatmentConfig)}
        own = [each for each in fields(DistillConfig) if each.name not in shared]
        return any(getattr(self, each.name) != each.default for each in own)

    @property
    def adapter_base(self) -> str | None:
        """The base of a PEFT adapter; with a donor, --base is the whole family's."""
        adapter = (Path(self.model) / "adapter_config.json").is_file()
        return self.base if adapter or self.donor is None else None
