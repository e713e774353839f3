"""Whole runs of `demur align` that choose their path: a sibling that is found, a stranger."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest
from tests.aligning.test_donors import card
from tests.distill.students import Quiet
from tests.relatives import Relatives
from tests.small_graft import prepare
from tests.small_run import SMALL
from tests.tiny import tiny_llama

from demur.aligning.align import align
from demur.aligning.config import AlignConfig
from demur.errors import ConfigError, DemurError
from demur.grafting.config import GraftConfig
from demur.treating.config import TreatmentConfig
from demur.treating.treated import Outcome

CHOICES: dict[str, Any] = {
    **SMALL,
    "answer_tokens": 24,
    "strengths": (),
    "max_share": 1.0,
}


class Heard(Quiet):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text.strip())


@dataclass(frozen=True)
class Place:
    """Where the relatives and the prompts lie."""

    folder: Path
    relatives: Relatives

    def run(self, name: str, teaches: bool = True, **choices: Any) -> tuple[Outcome, list[str]]:
        """Align the recipient, and return what was said as well.

        Args:
            teaches: whether training is made small, which is a wish to train.
        """
        heard = Heard()
        shared = {each.name for each in fields(TreatmentConfig)} | {"max_share"}
        small = {name: value for name, value in CHOICES.items() if teaches or name in shared}
        told: dict[str, Any] = {
            "harmful": str(self.folder / "harmful.jsonl"),
            "ordinary": str(self.folder / "ordinary.jsonl"),
            **small,
            **choices,
        }
        recipient = told.pop("recipient", str(self.relatives.recipient))
        return align(recipient, run=self.folder / name, narrator=heard, **told), heard.said


@dataclass(frozen=True)
class SmallGraft(GraftConfig):
    """A graft that is quickly made: middle MLPs are swapped, and nothing is searched."""

    mode: Any = "released"
    search_pairs: int = 8


@pytest.fixture(scope="module", autouse=True)
def _small_grafts() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("demur.aligning.treatment.GraftConfig", SmallGraft)
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("align")
    return Place(folder, prepare(folder))


def result(outcome: Outcome) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((outcome.run / "result.json").read_text(encoding="utf-8"))
    return content


def test_a_sibling_that_is_found_is_grafted(place: Place) -> None:
    family = place.relatives
    sibling = family.base.with_name("base-aligned")
    shutil.copytree(family.donor, sibling)
    card(family.recipient, str(family.base))
    try:
        outcome, said = place.run("found", teaches=False)
    finally:
        shutil.rmtree(sibling)
        (family.recipient / "README.md").unlink()
    assert any(line.startswith("Its card names") and "base-aligned" in line for line in said)
    assert any(line.startswith("It grafts from") for line in said)
    assert (outcome.run / "graft.json").exists()
    assert not (outcome.run / "training").exists()
    found = {each.key: each for each in outcome.scorecard.comparisons}
    assert found["harmful"].before.value == 0
    assert found["harmful"].after.n > 0
    assert result(outcome)["command"].startswith("demur align ")
    report = outcome.report.read_text(encoding="utf-8")
    assert "It grafts from" in report
    assert "to search on" in report


@pytest.mark.parametrize(
    ("choices", "teaches"),
    [({}, False), ({"seed": 3, "max_share": 0.5, "max_over_refusal": 0.1}, False)]
    + [({name: value}, True) for name, value in (("rank", 4), ("deep", True), ("teacher", "self"))],
)
def test_a_choice_of_teaching_is_a_wish_to_train(choices: dict[str, Any], teaches: bool) -> None:
    assert AlignConfig("tiny", **choices).teaches is teaches


def test_a_stranger_is_said_and_it_distils_instead(place: Place) -> None:
    stranger = tiny_llama(place.folder / "stranger", hidden_size=32)
    outcome, said = place.run("instead", donor=str(stranger))
    assert any("not relatives" in line for line in said)
    assert any(
        line.startswith("It learns the sentence of --refusal, by imitating") for line in said
    )
    assert (outcome.run / "training").exists()
    assert not (outcome.run / "graft.json").exists()
    report = outcome.report.read_text(encoding="utf-8")
    assert "Nothing can be grafted from" in report
    assert "too few to be its own teacher" in report


def test_a_graft_that_was_asked_for_is_not_replaced(place: Place) -> None:
    with pytest.raises(ConfigError, match="A graft was asked for"):
        place.run("asked", path="graft")
    with pytest.raises(DemurError, match=r"same weights|nothing to give"):
        place.run("asked too", path="graft", donor=str(place.relatives.recipient))
    assert not (place.folder / "asked" / "training").exists()
