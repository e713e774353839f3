"""Every choice of `demur align`, with its default: those of the treatments that it takes."""

from dataclasses import dataclass
from typing import ClassVar

from demur.distilling.config import DistillConfig


@dataclass(frozen=True)
class AlignConfig(DistillConfig):
    """The choices of the autopilot; each has a flag of the same name."""

    verb: ClassVar[str] = "align"
