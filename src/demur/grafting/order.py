"""The order of a search: modules by what they do to refusal, from a trace across the two models.

Few modules are traced exactly: each alone is put into the recipient, and its effect is that on the
margin of harmful requests less that on their twins. Of many, effects to first order are taken,
which cost one backward pass for all (`graft/first_order.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

from demur.graft.candidate import Candidate, Graft
from demur.graft.first_order import first_order
from demur.graft.oracle import Oracle
from demur.graft.utility import UNTOUCHED

PROMPTS = 16  # of each kind
FEW = 40  # modules that are traced one by one


def order_of(
    oracle: Oracle, modules: Sequence[str], kind: Graft = "delta"
) -> tuple[tuple[str, float], ...]:
    """Return the modules with their effects, in logits, the largest first.

    Args:
        kind: whether the donor's change is added, or its own values put in. To first order the
            change is taken in either case: a swap also takes back what the recipient was taught.
    """
    if len(modules) > FEW:
        return first_order(oracle, modules)
    before = _selectivity(oracle, UNTOUCHED)
    effects = [
        (name, _selectivity(oracle, Candidate(frozenset({name}), kind=kind)) - before)
        for name in modules
    ]
    return tuple(sorted(effects, key=lambda one: -one[1]))


def _selectivity(oracle: Oracle, candidate: Candidate) -> float:
    """Return the mean margin of harmful search prompts less that of twins, in logits."""
    harmful, twins = (oracle.margins(candidate, kind, PROMPTS) for kind in ("harmful", "twins"))
    return sum(harmful) / len(harmful) - (sum(twins) / len(twins) if twins else 0.0)
