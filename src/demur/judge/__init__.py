"""An answer in, a verdict out: refused, complied, or undecided."""

from demur.judge.opening import OpeningJudge
from demur.judge.verdict import Judge, Outcome, Verdict

__all__ = ["Judge", "OpeningJudge", "Outcome", "Verdict"]
