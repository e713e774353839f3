"""Sequential tests: look at answers as they come, and stop when the decision is clear.

`SequentialTest` decides whether a rate is above a threshold (Wald's sequential probability ratio
test, Annals of Mathematical Statistics 16, 1945), and always within `n_max` trials:

    test = SequentialTest.around(0.9, 0.05, n_max=128)
    while test.decision == "undecided":
        decision = test.add(successes, trials)  # one or several answers

`PairedTest` decides whether one of two is better on the same prompts, from the prompts on which
they differ. What a test is worth is computed exactly, not estimated: `behaviour` for answers that
are independent, `agreement` for those that are drawn from a fixed set of n_max.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Decision = Literal["above", "below", "undecided"]


@dataclass(frozen=True)
class Behaviour:
    """What a sequential test does on average.

    Attributes:
        above: probability that it decides `above`.
        trials: how many trials it takes.
    """

    above: float
    trials: float


class SequentialTest:
    """Whether a rate of success is above or below a threshold, in as few trials as may be.

    It stops with `above` once the likelihood ratio of p1 to p0 reaches 1 / alpha, with `below`
    once it falls to beta. By Wald's inequality (Ville's, for the ratio as a martingale) a rate of
    p0 or less then goes out as `above` with a probability of at most alpha, one of p1 or more as
    `below` with at most beta, however the trials are batched. Where neither has happened after
    n_max trials, the count decides: `above` if it has reached `cut`. It also stops as soon as the
    trials that are left can no longer change that. What the end at n_max adds to the errors is
    known exactly from `behaviour`.
    """

    def __init__(
        self,
        p0: float,
        p1: float,
        alpha: float = 0.05,
        beta: float = 0.05,
        *,
        n_max: int,
        cut: int | None = None,
    ) -> None:
        """Prepare a test.

        Args:
            p0: a rate that should be found to be below the threshold.
            p1: a rate that should be found to be above it.
            alpha, beta: errors allowed at p0 and at p1 before n_max.
            n_max: the last trial.
            cut: successes of n_max that count as above; by default, as many as are likelier at
                p1 than at p0.

        Raises:
            ValueError: not 0 < p0 < p1 < 1, an error outside (0, 0.5], no trials, or a cut that is
                not between 0 and n_max + 1.
        """
        if not 0 < p0 < p1 < 1:
            raise ValueError("a sequential test needs 0 < p0 < p1 < 1")
        if not (0 < alpha <= 0.5 and 0 < beta <= 0.5):
            raise ValueError("a sequential test needs errors in (0, 0.5]")
        if n_max < 1:
            raise ValueError("a sequential test needs at least one trial")
        self.p0, self.p1, self.alpha, self.beta, self.n_max = p0, p1, alpha, beta, n_max
        self.gain, self.loss = math.log(p1 / p0), math.log((1 - p1) / (1 - p0))
        self.upper, self.lower = -math.log(alpha), math.log(beta)
        neutral = -self.loss / (self.gain - self.loss)  # the rate whose log ratio stays at 0
        self.cut = math.ceil(neutral * n_max - 1e-9) if cut is None else cut
        if not 0 <= self.cut <= n_max + 1:
            raise ValueError("the cut must be a number of successes, at most n_max + 1")
        self.successes = self.trials = 0
        self.decision: Decision = self._decide(0, 0)

    @classmethod
    def around(
        cls,
        threshold: float,
        margin: float,
        alpha: float = 0.05,
        beta: float = 0.05,
        *,
        n_max: int,
    ) -> SequentialTest:
        """Return a test of whether a rate is at least `threshold`.

        Within `margin` of the threshold either answer is good enough to stop on. At n_max the
        decision is that of the whole: successes / n_max >= threshold.

        Raises:
            ValueError: threshold outside [0, 1], or margin not above 0.
        """
        if not 0 <= threshold <= 1 or margin <= 0:
            raise ValueError("a test needs a threshold in [0, 1] and a margin above 0")
        edge = min(0.001, margin)
        p0 = min(max(threshold - margin, edge / 2), 1 - 2 * edge)
        p1 = max(min(threshold + margin, 1 - edge / 2), p0 + edge)
        return cls(p0, p1, alpha, beta, n_max=n_max, cut=math.ceil(threshold * n_max - 1e-9))

    def add(self, successes: int, trials: int) -> Decision:
        """Count some trials; return the decision, which is final once it is one.

        Trials that were on their way when it fell are counted but change nothing.

        Raises:
            ValueError: not 0 <= successes <= trials, or more than n_max trials in all.
        """
        if not 0 <= successes <= trials or self.trials + trials > self.n_max:
            raise ValueError("a test needs 0 <= successes <= trials, and at most n_max of them")
        self.successes += successes
        self.trials += trials
        if self.decision == "undecided":
            self.decision = self._decide(self.successes, self.trials)
        return self.decision

    def _decide(self, successes: int, trials: int) -> Decision:
        if successes >= self.cut:
            return "above"
        if successes + self.n_max - trials < self.cut:
            return "below"
        ratio = successes * self.gain + (trials - successes) * self.loss
        if ratio >= self.upper:
            return "above"
        return "below" if ratio <= self.lower else "undecided"

    def behaviour(self, rate: float, batch: int = 1) -> Behaviour:
        """Return exactly what the test does where each trial succeeds with probability `rate`.

        Args:
            rate: in [0, 1].
            batch: trials between two looks.
        """
        return self._expected(lambda successes, trials: rate, batch)

    def agreement(self, count: int, batch: int = 1) -> float:
        """Return the probability that the decision is the one that all n_max trials would give.

        Args:
            count: how many of the n_max fixed trials succeed; they come in random order.
            batch: trials between two looks.
        """
        above = self._expected(
            lambda successes, trials: (count - successes) / (self.n_max - trials), batch
        ).above
        return above if count >= self.cut else 1 - above

    def _expected(self, chance: Callable[[int, int], float], batch: int) -> Behaviour:
        """Follow every count of successes, with its probability, until all have stopped."""
        open_counts = {0: 1.0} if self._decide(0, 0) == "undecided" else {}
        above = 1.0 if self._decide(0, 0) == "above" else 0.0
        expected = 0.0
        for trials in range(self.n_max):
            following: dict[int, float] = {}
            for successes, probability in open_counts.items():
                success = chance(successes, trials)
                for new, share in ((successes + 1, success), (successes, 1 - success)):
                    if share > 0:
                        following[new] = following.get(new, 0.0) + probability * share
            expected += sum(following.values())
            open_counts = following
            if (trials + 1) % batch and trials + 1 < self.n_max:
                continue
            open_counts = {}
            for successes, probability in following.items():
                decision = self._decide(successes, trials + 1)
                if decision == "undecided":
                    open_counts[successes] = probability
                elif decision == "above":
                    above += probability
        return Behaviour(above, expected)


class PairedTest:
    """Whether the second of two is better than the first on the same prompts.

    Only prompts on which they differ say anything (McNemar 1947). The test is Wald's on those: that
    the second wins 1 of 1 + odds of them, against odds of 1 + odds. It ends at the latest when
    `n_max` prompts have been seen, with `above` if the second has won more than it has lost.
    """

    def __init__(
        self, n_max: int, odds: float = 2.0, alpha: float = 0.05, beta: float = 0.05
    ) -> None:
        """Prepare a test.

        Args:
            n_max: prompts there are.
            odds: how many wins to a loss should be told from as many losses to a win; above 1.
            alpha: probability of `above` where the second loses `odds` to one.
            beta: probability of `below` where it wins `odds` to one.

        Raises:
            ValueError: as for `SequentialTest`, or odds of 1 or less.
        """
        if odds <= 1:
            raise ValueError("a paired test needs odds above 1")
        self.test = SequentialTest(1 / (1 + odds), odds / (1 + odds), alpha, beta, n_max=n_max)
        self.n_max, self.pairs, self.wins, self.losses = n_max, 0, 0, 0
        self.decision: Decision = "undecided"

    def add(self, wins: int, losses: int, ties: int = 0) -> Decision:
        """Count some prompts; return the decision, which is final once it is one.

        Args:
            wins: prompts on which only the second is right.
            losses: prompts on which only the first is.
            ties: prompts on which they are alike.

        Raises:
            ValueError: a negative number, or more than n_max prompts in all.
        """
        if min(wins, losses, ties) < 0 or self.pairs + wins + losses + ties > self.n_max:
            raise ValueError("a paired test needs numbers of prompts, at most n_max in all")
        self.wins, self.losses = self.wins + wins, self.losses + losses
        self.pairs += wins + losses + ties
        if self.decision == "undecided":
            self.decision = self._decide()
        return self.decision

    def _decide(self) -> Decision:
        left, lead = self.n_max - self.pairs, self.wins - self.losses
        if lead > left:
            return "above"
        if lead + left <= 0:
            return "below"
        ratio = self.wins * self.test.gain + self.losses * self.test.loss
        if ratio >= self.test.upper:
            return "above"
        return "below" if ratio <= self.test.lower else "undecided"
