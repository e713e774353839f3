"""Ask and tell: a search names sets of modules to test, is told of each, and names more.

    search = Search(weights, order, batch=8)
    search.replay(kept_history)  # what was already known, of a run that was killed
    while not search.done:
        for candidate in search.ask():
            search.tell(candidate, oracle(candidate))
    search.best, search.minimality, search.monotonicity

The same answers give the same questions, whatever process gave them. A batch holds what the method
needs now and what it will probably need next; the method itself goes the way that it would go one
test at a time. What counts in the end is only what was tested: the lightest set that passed.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from demur.graft.search.counters import P0, counter_based
from demur.graft.search.ddmin import ddmin
from demur.graft.search.outcome import (
    AlreadyPasses,
    Minimality,
    Monotonicity,
    NothingToFind,
    Outcome,
    Told,
)
from demur.graft.search.prefix import shortest_prefix
from demur.graft.search.probabilities import probabilistic
from demur.graft.search.removals import Removals
from demur.graft.search.sequential import SequentialTest
from demur.graft.search.splitting import binary_splitting
from demur.graft.search.steps import Kept, Method, Step, chained
from demur.graft.search.weighted import weighted_ddmin

LEAST = 0.1  # a set is not tested ahead of its time where it is less likely to be needed


def methods(weights: Sequence[float], p0: float) -> dict[str, Method]:
    """Return the methods by name."""
    return {
        "ddmin": ddmin,
        "wddmin": lambda kept: weighted_ddmin(kept, weights),
        "cdd": lambda kept: counter_based(kept, p0),
        "probdd": lambda kept: probabilistic(kept, p0),
        "prefix": shortest_prefix,
        "splitting": binary_splitting,
        "greedy": Removals,
    }


@dataclass(frozen=True)
class Opening:
    """The two tests before any method: all modules must pass, and none must not."""

    kept: Kept
    method: Method
    empty: bool = False

    @property
    def chance(self) -> float:
        """See `Step`."""
        return 0.05 if self.empty else 0.95

    @property
    def candidate(self) -> frozenset[int] | None:
        """See `Step`."""
        return frozenset() if self.empty else frozenset(self.kept)

    def after(self, passed: bool) -> Step:
        """See `Step`; where a check is not met, nothing follows."""
        if passed == self.empty:
            return Removals(())
        return self.method(self.kept) if self.empty else Opening(self.kept, self.method, True)


class Search:
    """A search for a small set of modules that passes; see the module."""

    def __init__(
        self,
        weights: Sequence[float],
        order: Sequence[int] | None = None,
        *,
        method: str = "splitting",
        p0: float = P0,
        batch: int = 1,
        prove: bool = True,
        limit: int | None = None,
        repeat: Callable[[], SequentialTest] | None = None,
    ) -> None:
        """Prepare a search over modules 0 to n - 1.

        Args:
            weights: what each module costs, such as its number of parameters; above 0.
            order: all modules, likely needed first; by default 0 to n - 1. Where the result should
                be light, that is by effect a parameter.
            method: `splitting`, `ddmin`, `wddmin`, `cdd`, `probdd`, `prefix`, `greedy`, or several,
                one after the other, such as `prefix+cdd`.
            p0: share of the modules that CDD and ProbDD expect to be needed, in (0, 1).
            batch: at most so many sets are asked for at once.
            prove: whether to go on, one module at a time, until the result is 1-minimal.
            limit: at most so many tests; the search is then done with the best so far.
            repeat: makes the sequential test that decides from repeated answers whether a set
                passes (`above`), for an oracle that does not always say the same.

        Raises:
            ValueError: no modules, a weight that is not above 0, an order that is not one of all
                modules, an unknown method, a p0 outside (0, 1), or a batch or a limit below 1.
        """
        self.weights = tuple(weights)
        self.order: Kept = tuple(range(len(self.weights)) if order is None else order)
        if not self.weights or not all(weight > 0 for weight in self.weights):
            raise ValueError("a search needs modules whose weights are above 0")
        if sorted(self.order) != list(range(len(self.weights))):
            raise ValueError("the order must name every module once")
        if not 0 < p0 < 1:
            raise ValueError("the share of modules that are needed lies between 0 and 1")
        if batch < 1 or (limit is not None and limit < 1):
            raise ValueError("a search needs a batch and a limit of at least 1")
        self.method, self.p0, self.batch = method, p0, batch
        self.prove, self.limit = prove, limit
        self._repeat = repeat
        self._running: dict[frozenset[int], SequentialTest] = {}
        self._known: dict[frozenset[int], Outcome] = {}
        self._history: list[Told] = []
        self._best: frozenset[int] | None = None
        self._step: Step = Opening(self.order, self._method(method))
        self._all = frozenset(self.order)
        self._rank = {module: place for place, module in enumerate(self.order)}

    def _method(self, names: str) -> Method:
        """Return the methods of `names`, one after the other, and the proof if it is wanted."""
        known, wanted = methods(self.weights, self.p0), names.split("+")
        unknown = [name for name in wanted if name not in known]
        if unknown:
            raise ValueError(f"no such method: {unknown[0]}; there are {', '.join(known)}")
        parts = [known[name] for name in wanted] + [Removals] * self.prove

        def begin(kept: Kept, rest: Sequence[Method] = tuple(parts)) -> Step:
            first = rest[0](kept)
            return chained(first, lambda kept: begin(kept, rest[1:])) if rest[1:] else first

        return begin

    @property
    def history(self) -> tuple[Told, ...]:
        """Everything that was told, in order."""
        return tuple(self._history)

    @property
    def known(self) -> Mapping[frozenset[int], Outcome]:
        """What was found of each set that was tested."""
        return dict(self._known)

    @property
    def best(self) -> frozenset[int] | None:
        """The lightest set that was tested and passed; None before there is one."""
        return self._best

    @property
    def done(self) -> bool:
        """Whether there is nothing left to ask.

        Raises:
            NothingToFind: as for `ask`.
        """
        self._check()
        return self._over

    @property
    def _over(self) -> bool:
        full = self.limit is not None and len(self._history) >= self.limit
        return full or self._step.candidate is None

    def weight(self, candidate: Iterable[int]) -> float:
        """Return what some modules weigh together."""
        return sum(self.weights[module] for module in candidate)

    def ask(self) -> tuple[frozenset[int], ...]:
        """Return sets to test now, in any order, the most urgent first; none when done.

        What was asked and not yet told is asked again.

        Raises:
            NothingToFind: all modules together do not pass.
            AlreadyPasses: the empty set passes.
        """
        self._check()
        if self._over:
            return ()
        size = self.batch
        if self.limit is not None:
            size = min(size, self.limit - len(self._history))
        return self._ahead(size)

    def tell(self, candidate: Iterable[int], outcome: Outcome) -> None:
        """Take an answer, asked for or not.

        Raises:
            ValueError: a module that does not exist, or a set that was already decided.
        """
        modules = frozenset(candidate)
        if not modules <= self._rank.keys():
            raise ValueError("the set holds modules that this search does not know")
        if modules in self._known:
            raise ValueError("this set was already decided")
        self._history.append(Told(modules, outcome))
        decided = (
            outcome if self._repeat is None else self._repeated(self._repeat, modules, outcome)
        )
        if decided is None:
            return
        self._known[modules] = decided
        if decided.passed and (self._best is None or self._key(modules) < self._key(self._best)):
            self._best = modules
        self._advance()  # here, not when asked, so that where it stands follows from the history

    def replay(self, history: Iterable[Told]) -> None:
        """Take all answers of an earlier search of the same kind, which then goes on here.

        Where that one was killed within a batch, what is asked next is what it would have asked
        had it been asked then: the rest of the batch, and more in place of what is known.

        Raises:
            ValueError: as for `tell`.
        """
        for told in history:
            self.tell(told.candidate, told.outcome)

    def _repeated(
        self, fresh: Callable[[], SequentialTest], modules: frozenset[int], outcome: Outcome
    ) -> Outcome | None:
        """Count one of several answers; return the verdict once there is one."""
        test = self._running.setdefault(modules, fresh())
        decision = test.add(int(outcome.passed), 1)
        if decision == "undecided":
            return None
        share = test.successes / test.trials
        return Outcome("passed" if decision == "above" else "failed", share)

    def _key(self, modules: frozenset[int]) -> tuple[float, int, list[int]]:
        return self.weight(modules), len(modules), sorted(self._rank[one] for one in modules)

    def _check(self) -> None:
        whole, empty = self._known.get(self._all), self._known.get(frozenset())
        if whole is not None and not whole.passed:
            raise NothingToFind(
                "Even all modules together do not pass, so that no part of them can be expected to "
                f"({_said(whole)}).",
                "Ask for less (a lower threshold), allow more (other kinds of modules, a larger "
                "scale), or take another donor.",
            )
        if empty is not None and empty.passed:
            raise AlreadyPasses(
                f"The recipient passes as it is ({_said(empty)}), so that there is nothing to add.",
                "Ask for more (a higher threshold, harder prompts), or leave the model alone.",
            )

    def _advance(self) -> None:
        """Follow what is known to the first set that is not."""
        while True:
            candidate = self._step.candidate
            if candidate is None:
                if not (self._best and self.prove) or frozenset(self._step.kept) == self._best:
                    return
                # A set that was tested ahead, or against all expectation, is lighter still.
                ordered = sorted(self._best, key=self._rank.__getitem__)
                self._step = Removals(tuple(ordered))
            elif candidate in self._known:
                self._step = self._step.after(self._known[candidate].passed)
            else:
                return

    def _ahead(self, size: int) -> tuple[frozenset[int], ...]:
        """Return the sets of the likeliest futures, the nearest first."""
        found: dict[frozenset[int], None] = {}
        count = 0
        futures: list[tuple[float, int, Step, dict[frozenset[int], bool]]] = [
            (-1.0, count, self._step, {})
        ]
        while futures and len(found) < size and -futures[0][0] >= LEAST:
            likely, _, step, assumed = heapq.heappop(futures)
            candidate = step.candidate
            while candidate is not None:
                known = self._known.get(candidate)
                if known is None and candidate not in assumed:
                    break
                step = step.after(assumed[candidate] if known is None else known.passed)
                candidate = step.candidate
            if candidate is None:
                continue
            found[candidate] = None
            for passed, chance in ((False, 1 - step.chance), (True, step.chance)):
                count += 1
                future = step.after(passed)
                heapq.heappush(
                    futures, (likely * chance, count, future, {**assumed, candidate: passed})
                )
        return tuple(found)

    @property
    def minimality(self) -> Minimality:
        """How far it is proven that nothing can be left out of `best`.

        Raises:
            ValueError: nothing has passed yet.
        """
        if self._best is None:
            raise ValueError("nothing has passed yet")
        groups: dict[str, list[int]] = {"failed": [], "passed": [], "undecided": [], "untried": []}
        for module in sorted(self._best, key=self._rank.__getitem__):
            outcome = self._known.get(self._best - {module})
            groups["untried" if outcome is None else outcome.verdict].append(module)
        return Minimality(**{name: tuple(modules) for name, modules in groups.items()})

    @property
    def monotonicity(self) -> Monotonicity:
        """How often more modules did worse, among all sets that were tested."""
        masks = [(sum(1 << one for one in modules), modules) for modules in self._known]
        pairs, contrary, example = 0, 0, None
        for small, passing in masks:
            if not self._known[passing].passed:
                continue
            for large, modules in masks:
                if small & large != small or small == large:
                    continue
                pairs += 1
                if self._known[modules].verdict == "failed":
                    contrary += 1
                    example = example or (passing, modules)
        return Monotonicity(pairs, contrary, example)


def _said(outcome: Outcome) -> str:
    score = "" if outcome.score is None else f", score {outcome.score:.3g}"
    return outcome.verdict + score
