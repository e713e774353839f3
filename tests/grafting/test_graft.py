"""Whole runs of `demur graft` on tiny relatives: each mode, a patch as donor, bad choices."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.distill.students import Quiet
from tests.relatives import Relatives, make_refusing
from tests.small_run import prepare

from demur.checkpoint import LowRank, checkpoint_hash, make_patch, open_checkpoint, revert_patch
from demur.errors import ConfigError, DemurError, ModelError
from demur.grafting.config import GraftConfig
from demur.grafting.graft import graft
from demur.treating.treated import Outcome

SMALL: dict[str, Any] = {
    "search_pairs": 8,
    "test_pairs": 6,
    "test_ordinary": 4,
    "validation_pairs": 4,
    "prefill": 2,
    "text_tokens": 200,
    "answer_tokens": 24,
    "shares": (0.5, 1.0),
    "ranks": (1,),
    "max_share": 1.0,
    "device": "cpu",
    "dtype": "float32",
}


@dataclass(frozen=True)
class Place:
    """Where the relatives and the prompts lie."""

    folder: Path
    relatives: Relatives

    def run(self, name: str, **choices: Any) -> Outcome:
        """Graft into the recipient."""
        told: dict[str, Any] = {
            "donor": str(self.relatives.donor),
            "base": str(self.relatives.base),
            "harmful": str(self.folder / "harmful.jsonl"),
            "ordinary": str(self.folder / "ordinary.jsonl"),
            **SMALL,
            **choices,
        }
        recipient = told.pop("recipient", str(self.relatives.recipient))
        return graft(recipient, run=self.folder / name, narrator=Quiet(), **told)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("graft")
    prepare(folder, pairs=40, ordinary=24)
    lines = (folder / "pairs.jsonl").read_text(encoding="utf-8").splitlines()
    asked = [json.loads(line)["harmful"] for line in lines]
    text = "".join(json.dumps({"prompt": one}) + "\n" for one in asked)
    (folder / "harmful.jsonl").write_text(text, encoding="utf-8")
    lines = (folder / "ordinary.jsonl").read_text(encoding="utf-8").splitlines()
    ordinary = [json.loads(line)["prompt"] for line in lines]
    # All of them: so small a model tells apart only what it has seen, and how well a donor was
    # taught is not what is tested.
    family = make_refusing(folder / "family", steps=200, harmful=asked, benign=ordinary, rank=4)
    return Place(folder, family)


def record(outcome: Outcome) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((outcome.run / "graft.json").read_text(encoding="utf-8"))
    return content


def harmful(outcome: Outcome) -> tuple[float, float]:
    """Return the share of harmful test requests refused, before and after."""
    found = {each.key: each for each in outcome.scorecard.comparisons}
    return found["harmful"].before.value, found["harmful"].after.value


def test_open_mode_finds_a_graft_that_refuses(place: Place) -> None:
    outcome = place.run("open")
    before, after = harmful(outcome)
    assert before == 0
    assert after > 0.5
    found = record(outcome)
    assert found["mode"] == "open"
    assert found["points"]
    assert any(point["front"] for point in found["points"])
    assert found["chosen"]["scale"] > 0
    assert found["search"]["tests"] == len(found["search"]["history"]) > 0
    agreed = found["agreement"]
    assert 0 < agreed["decisions"]["n"] <= min(6, found["search"]["tests"])
    assert agreed["decisions"]["count"] >= agreed["clear"]["count"]
    assert "The oracle decides as the full evaluation does" in outcome.report.read_text("utf-8")
    effects = [effect for _, effect in found["order"]]
    assert effects == sorted(effects, reverse=True)
    result = json.loads((outcome.run / "result.json").read_text(encoding="utf-8"))
    assert result["command"].startswith("demur graft ")
    assert "--donor" in result["command"]


def test_a_graft_begins_with_a_relative_s(place: Place) -> None:
    first = record(place.run("open"))  # finished above, or made here
    second = record(place.run("begun", start=str(place.folder / "open"), validation_pairs=6))
    assert second["order"] == []  # not traced: what was good elsewhere is good enough
    assert second["search"] is None
    begun = {tuple(point["candidate"]["modules"]) for point in second["points"]}
    assert begun <= {tuple(one["modules"]) for one in (first["chosen"], *first["finalists"])}
    with pytest.raises(ConfigError, match="no finished graft"):
        place.run("nowhere", start=str(place.folder))


def test_a_graft_can_be_taken_back(place: Place) -> None:
    outcome = place.run("open")  # finished above, or made here
    reverted = revert_patch(outcome.model, outcome.patch, place.folder / "reverted")
    assert reverted.exact
    recipient = checkpoint_hash(open_checkpoint(place.relatives.recipient))
    assert reverted.checkpoint_hash == recipient


def test_paper_mode_swaps_gates_only(place: Place) -> None:
    found = record(place.run("paper", mode="paper"))
    assert found["chosen"]["kind"] == "swap"
    assert found["chosen"]["modules"]
    assert all(name.endswith(".gate") for name in found["chosen"]["modules"])


def test_released_mode_swaps_middle_mlps(place: Place) -> None:
    found = record(place.run("released", mode="released"))
    kinds = {name.split(".")[-1] for name in found["chosen"]["modules"]}
    assert kinds == {"gate", "up", "down"}
    assert found["search"] is None
    assert found["agreement"] is None


def test_a_patch_is_a_donor(place: Place) -> None:
    import numpy as np

    changes = {}
    for name, added in place.relatives.added.items():
        left, values, right = np.linalg.svd(added.astype("f8"), full_matrices=False)
        changes[name] = LowRank((left[:, :2] * values[:2]).astype("f4"), right[:2].astype("f4"))
    patch = place.folder / "patch.safetensors"
    make_patch(
        place.relatives.base,
        changes,
        patch,
        base_name=str(place.relatives.base),
        recipe={},
        results={},
    )
    outcome = place.run("patched", donor=str(patch), base=None)
    before, after = harmful(outcome)
    assert after >= before + 2 / 6  # of six; how many exactly is the processor's rounding
    assert record(outcome)["base"] == str(place.relatives.base)


def test_a_donor_that_does_not_refuse_has_nothing_to_give(place: Place) -> None:
    with pytest.raises(DemurError, match=r"same weights|nothing to give"):
        place.run("nothing", donor=str(place.relatives.recipient), base=None)
    assert not (place.folder / "nothing" / "model").exists()


def test_strangers_are_no_relatives(place: Place) -> None:
    from tests.tiny import tiny_llama

    stranger = tiny_llama(place.folder / "stranger", hidden_size=32)
    with pytest.raises(ModelError, match="not relatives"):
        place.run("strangers", donor=str(stranger), base=None)


def test_a_recipient_that_refuses_needs_nothing(place: Place) -> None:
    with pytest.raises(ConfigError, match="already"):
        place.run(
            "already", recipient=str(place.relatives.donor), donor=str(place.relatives.recipient)
        )


@pytest.mark.parametrize(
    ("choices", "cause"),
    [
        ({"donor": ""}, "--donor is , but must be given"),
        ({"mode": "magic"}, "--mode is magic, but must be one of open, paper, released"),
        ({"kinds": ("gates",)}, "--kinds"),
        ({"shares": (0.0,)}, "--shares"),
        ({"max_share": 0.0}, "--max-share is 0.0"),
    ],
)
def test_choices_that_make_no_sense(choices: dict[str, Any], cause: str) -> None:
    with pytest.raises(ConfigError, match=cause):
        GraftConfig("tiny", **{"donor": "other", **choices})
