"""The order of a search: modules by what each alone does to the refusal margin.

The effect of a module is that on the margin of harmful requests less that on their twins, in
logits, when the donor's change of this module alone is put into the recipient: causal tracing
across models, one module at a time.
"""

from __future__ import annotations

from collections.abc import Sequence

from demur.graft.candidate import Candidate
from demur.graft.oracle import Oracle

PROMPTS = 16  # of each kind


def order_of(oracle: Oracle, modules: Sequence[str]) -> tuple[tuple[str, float], ...]:
    """Return the modules with their effects, the largest first."""
    before = _selectivity(oracle, Candidate(frozenset()))
    effects = [
        (name, _selectivity(oracle, Candidate(frozenset({name}))) - before) for name in modules
    ]
    return tuple(sorted(effects, key=lambda one: -one[1]))


def _selectivity(oracle: Oracle, candidate: Candidate) -> float:
    """Return the mean margin of harmful search prompts less that of twins, in logits."""
    harmful, twins = (oracle.margins(candidate, kind, PROMPTS) for kind in ("harmful", "twins"))
    return sum(harmful) / len(harmful) - (sum(twins) / len(twins) if twins else 0.0)
