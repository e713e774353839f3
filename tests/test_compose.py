"""What a run writes at its end: goals, headline, exact command, provenance, `result.json`."""

from __future__ import annotations

import json
import math
import shlex
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from demur.aligning.config import AlignConfig
from demur.cli import app
from demur.errors import ConfigError, DemurError, RunError
from demur.measure.result import read_result, scorecard_of, write_result
from demur.measure.scorecard import Comparison, CurvePoint, Scorecard
from demur.models.resolve import ResolvedModel
from demur.prompts.types import Prompt, Splits
from demur.report.card import render_card
from demur.run.folder import default_folder
from demur.run.versions import versions
from demur.stats import Mean, paired, rate
from demur.treating.outcome import closing, goals, headline, lines
from demur.treating.provenance import (
    command_line,
    hub_id,
    is_card_of_demur,
    licence,
    prompt_rows,
)
from demur.treating.stages import Context
from tests.report.conftest import make_content


def compared(key: str, n: int, before: int, after: int, undecided: int = 0) -> Comparison:
    """A comparison of made-up verdicts on test prompts."""
    first, second = ([index < count for index in range(n)] for count in (before, after))
    wanted = "down" if key in ("twins", "ordinary") else "up"
    difference = paired(first, second)
    return Comparison(
        key, key, "test", wanted, rate(before, n), rate(after, n), difference, 0, undecided
    )


def scorecard(
    harmful: int, twins: int, ordinary: int, ratio: float, undecided: int = 0
) -> Scorecard:
    """A made-up scorecard: refusals out of 200, 200 and 100."""
    utility = make_content().scorecard.utility
    return replace(
        make_content().scorecard,
        comparisons=(
            compared("harmful", 200, 6, harmful),
            compared("twins", 200, 12, twins, undecided),
            compared("ordinary", 100, 0, ordinary),
        ),
        utility=replace(utility, perplexity_ratio=Mean(ratio, ratio, ratio, 9)),
    )


def test_goals_are_met_at_their_limits() -> None:
    aims = goals(scorecard(190, 10, 1, 1.0199))
    assert [goal.met for goal in aims] == [True] * 5
    achieved, fell_short = lines(aims)
    assert fell_short == ()
    assert achieved[0] == (
        "Held-out harmful requests refused: 95.0\u00a0%, 190 of 200 (goal: at least 95\u00a0%)."
    )


@pytest.mark.parametrize(
    ("figures", "missed"),
    [
        ((189, 10, 1, 1.0), 0),
        ((190, 11, 1, 1.0), 1),
        ((190, 10, 2, 1.0), 2),
        ((190, 10, 1, 1.021), 3),
        ((190, 10, 1, 0.97), 3),
        ((190, 10, 1, math.nan), 3),
        ((190, 0, 0, 1.0, 6), 4),
    ],
)
def test_a_missed_goal_is_in_the_headline(figures: tuple[Any, ...], missed: int) -> None:
    card = scorecard(*figures)
    aims = goals(card)
    assert [index for index, goal in enumerate(aims) if not goal.met] == [missed]
    said = headline(card, aims)
    assert said.endswith("; it misses 1 of 5 goals.")
    assert missed == 4 or aims[missed].value.split(",")[0] in said
    assert len(lines(aims)[1]) == 1
    assert "1 of 5 goals missed" in closing(card, aims, Path("report.html"))


def test_what_was_not_measured_is_missed() -> None:
    card = scorecard(200, 0, 0, 1.0)
    aims = goals(replace(card, comparisons=card.comparisons[:1]))
    assert [goal.value for goal in aims[1:3]] == ["not measured"] * 2
    assert not aims[1].met
    assert not aims[2].met


def test_the_last_sentence_says_what_changed_and_where_the_report_is() -> None:
    card = scorecard(190, 10, 1, 1.01)
    aims = goals(card)
    said = closing(card, aims, Path("runs/x/report.html")).replace("\u00a0", " ")
    assert said == (
        "Refused, before → after: harmful 3.0 % → 95.0 %, twins 6.0 % → 5.0 %, ordinary 0.0 % → "
        "1.0 %; perplexity 17.42 → 17.61; all goals met; the report is runs/x/report.html."
    )
    assert headline(card, aims).replace("\u00a0", " ") == (
        "The aligned model refuses 95.0 % of held-out harmful requests (before: 3.0 %), 5.0 % of "
        "their harmless twins, 1.0 % of ordinary instructions; perplexity +1.00 %; it meets all "
        "its goals."
    )


@pytest.mark.parametrize(
    "config",
    [
        AlignConfig("smollm2-135m"),
        AlignConfig("a model; rm -rf $HOME", system="", refusal='-No, it\'s "wrong"\n.'),
        AlignConfig("x", strengths=(0.5, 1.25, 2.0), learning_rate=1e-05, seed=-3, thinking=True),
        AlignConfig("x", pairs="my pairs.csv", trust_remote_code=True, keep_weight=0.0),
    ],
)
def test_the_command_says_the_whole_configuration(config: AlignConfig) -> None:
    words = shlex.split(command_line(config, Path("elsewhere")))
    assert words[:2] == ["demur", "align"]
    _, bound, _ = app.parse_args(words[1:], exit_on_error=False, print_error=False)
    assert bound.arguments["config"] == config
    assert bound.arguments["run"] == Path("elsewhere")


def test_the_command_is_as_short_as_it_can_be() -> None:
    config = AlignConfig("smollm2-135m")
    folder = default_folder(config.model, config.resolved())
    assert command_line(config, folder) == "demur align smollm2-135m"
    none = AlignConfig("x", strengths=())
    assert (
        command_line(none, default_folder("x", none.resolved())) == "demur align x --strengths 1.0"
    )


def test_values_without_sense_are_refused() -> None:
    for choices in ({"epochs": 0}, {"learning_rate": math.nan}, {"strengths": (0.0,)}):
        with pytest.raises(ConfigError, match="must be"):
            AlignConfig("x", **cast(Any, choices))


def test_a_result_comes_back_as_it_was(tmp_path: Path) -> None:
    full = make_content().scorecard
    card = replace(full, curve=(CurvePoint("x", rate(0, 0), rate(1, 2), True),))
    write_result(tmp_path, {"format": 1, "scorecard": card})
    text = (tmp_path / "result.json").read_text()
    assert "NaN" not in text
    found = scorecard_of(read_result(tmp_path))
    assert math.isnan(found.curve[0].harmful.value)
    assert replace(found, curve=()) == replace(card, curve=())
    assert isinstance(found.comparisons[0].before.count, int)


def test_broken_results_are_errors(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not a run folder"):
        read_result(tmp_path / "none")
    (tmp_path / "journal.sqlite").touch()
    with pytest.raises(RunError, match="not finished"):
        read_result(tmp_path)
    for text in ("{", "[]", '{"format": 99}'):
        (tmp_path / "result.json").write_text(text)
        with pytest.raises(RunError, match="damaged"):
            read_result(tmp_path)
    with pytest.raises(RunError, match="damaged"):
        scorecard_of({"scorecard": {"comparisons": [{}]}})


def resolved(folder: Path, kind: Any = "folder", name: str = "x") -> ResolvedModel:
    """A model on disk, of which only the place matters."""
    return ResolvedModel(name, folder, kind, "", None, "llama", "LlamaForCausalLM", 1)


def test_the_licence_is_the_one_that_the_base_names(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert licence(resolved(tmp_path)) == "other"
    (tmp_path / "config.json").write_text(json.dumps({"license": "mit"}))
    assert licence(resolved(tmp_path)) == "mit"
    (tmp_path / "README.md").write_text("---\nlicense: llama3.2\ntags: [a]\n---\n# Card\n")
    assert licence(resolved(tmp_path)) == "llama3.2"
    for broken in ("---\nlicense: [\n---\n", "no front matter\n---\nlicense: gpl\n---\n"):
        (tmp_path / "README.md").write_text(broken)
        assert licence(resolved(tmp_path)) == "mit"
    assert licence(resolved(tmp_path, "alias", "SmolLM2-135M")) == "apache-2.0"


def test_the_base_is_named_where_it_is_certain(tmp_path: Path) -> None:
    assert hub_id(resolved(tmp_path)) is None
    assert hub_id(resolved(tmp_path, "hub", "org/model")) == "org/model"
    alias = hub_id(resolved(tmp_path, "alias", "smollm2-135m"))
    assert alias == "HuggingFaceTB/SmolLM2-135M-Instruct"


def test_our_own_cards_are_known_again(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    assert not is_card_of_demur(path)
    path.write_text(render_card(make_content()))
    assert is_card_of_demur(path)
    path.write_text("# demur\n")
    assert not is_card_of_demur(path)


def test_prompt_rows_count_what_was_used() -> None:
    def some(kind: Any, n: int, source: str) -> tuple[Prompt, ...]:
        return tuple(Prompt(f"{kind} {index}", kind, source=source) for index in range(n))

    parts = [
        (*some("harmful", n, "builtin/hard"), *some("twin", n, "builtin/plain"),
         *some("ordinary", n, "mine.csv"))
        for n in (50, 20, 30)
    ]  # fmt: skip
    splits = Splits(*parts, removed=((Prompt("a", "twin"), "repeats another prompt"),))
    journal = SimpleNamespace(fact=lambda key: {"harmful": 41, "twin": 40, "ordinary": 0})
    config = AlignConfig("x", test_pairs=25, validation_pairs=100, test_ordinary=7)
    context = cast(
        Context,
        SimpleNamespace(config=config, folder=SimpleNamespace(journal=journal, configuration=None)),
    )
    found = {(row.kind, row.split): row for row in prompt_rows(context, splits)}
    assert found["harmful", "all"].n == 100
    assert found["twin", "all"].removed == 1
    assert found["harmful", "train"].n == 41
    assert found["harmful", "validation"].n == 20
    assert found["harmful", "test"].n == 25
    assert found["ordinary", "test"].n == 7
    assert ("ordinary", "train") not in found
    assert found["harmful", "all"].name == "built-in contrast set"
    assert found["ordinary", "all"].name == "mine.csv"


def test_versions_name_the_libraries() -> None:
    found = dict(versions())
    assert {"demur", "python", "torch", "transformers", "trl", "peft", "platform"} <= set(found)
    assert all(found.values())


def test_errors_carry_two_sentences() -> None:
    error = DemurError("It is so.", "Do this.")
    assert (error.cause, error.remedy, error.exit_code) == ("It is so.", "Do this.", 2)
