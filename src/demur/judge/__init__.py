"""An answer in, a verdict out: refused or complied, harmful or harmless, or undecided."""

from demur.judge.embedded import EmbeddedJudge
from demur.judge.opening import OpeningJudge
from demur.judge.verdict import Harm, Judge, Outcome, Verdict

__all__ = ["EmbeddedJudge", "Harm", "Judge", "OpeningJudge", "Outcome", "Verdict"]
