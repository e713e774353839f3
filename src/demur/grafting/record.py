"""`graft.json`: everything that the search of a graft found, for machines."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from demur.graft.candidate import Candidate
from demur.graft.deltas import Deltas
from demur.graft.front import pareto
from demur.graft.oracle import Oracle
from demur.grafting.config import GraftConfig
from demur.grafting.modes import Found
from demur.grafting.relatives import Relatives
from demur.report.files import write_text

FILE = "graft.json"


@dataclass(frozen=True)
class Record:
    """What goes into the file."""

    config: GraftConfig
    relatives: Relatives
    deltas: Deltas
    oracle: Oracle
    found: Found
    chosen: Candidate

    def write(self, folder: Path) -> None:
        """Write it, whole or not at all."""
        write_text(folder / FILE, json.dumps(self._content(), indent=1))

    def _content(self) -> dict[str, Any]:
        family, found, search = self.relatives.family, self.found, self.found.search
        front = {point.candidate.key for point in pareto(found.points)}
        return {
            "mode": self.config.mode,
            "donor": self.relatives.donor_name,
            "base": self.relatives.base_name,
            "similarity": family.similarity and asdict(family.similarity),
            "differences": [asdict(one) for one in family.differences],
            "modules": {
                name: {
                    "norm": delta.norm,
                    "rank": delta.rank,
                    "parameters": delta.module.parameters,
                }
                for name, delta in self.deltas.items()
            },
            "before": asdict(self.oracle.before),
            "whole": asdict(self.oracle.donor),
            "order": [list(one) for one in found.order],
            "points": [
                {**point.to_json(), "front": point.candidate.key in front} for point in found.points
            ],
            "search": search
            and {
                "wanted": asdict(search.wanted),
                "tests": search.tests,
                "history": [[list(modules), passed] for modules, passed in search.history],
                "minimality": search.minimality and asdict(search.minimality),
                "monotonicity": search.monotonicity
                and {"pairs": search.monotonicity.pairs, "contrary": search.monotonicity.contrary},
                "cost": asdict(search.cost),
            },
            "chosen": {
                **self.chosen.to_json(),
                "parameters": self.chosen.parameters(self.deltas),
                "share": self.chosen.share(self.deltas),
            },
        }
