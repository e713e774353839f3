"""A whole `demur measure` on tiny models: what is written, what is paired, and what goes wrong.

The answers are those of random models, so that a judge of the tests' own tells refusals from a
hash of the answer; the command line's judge finds none in them.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

import demur
from demur.cli import main
from demur.console import Narrator
from demur.errors import (
    CheckpointError,
    ConfigError,
    DemurError,
    Interrupted,
    ModelError,
    PromptError,
    RunError,
)
from demur.judge import Verdict
from demur.measure.settings import MeasureConfig
from demur.measuring.entrants import labels_of, split_name
from demur.measuring.measure import measure_models
from demur.measuring.outcome import Measured
from demur.prompts.builtin import builtin_set
from demur.prompts.split import split
from demur.stats import paired, rate
from tests.small_run import ENVIRONMENT
from tests.tiny import tiny_llama, tiny_tokenizer

CHOICES = {
    "harmful": "harmful.jsonl", "benign": "benign.jsonl", "ordinary": "ordinary.jsonl",
    "apart": "none", "n": 12, "answer_tokens": 5, "prefill": 6, "text_tokens": 300,
    "templates": "templates.jsonl", "template_prompts": 4, "blimp": "pairs.jsonl",
    "divergence_prompts": 4, "device": "cpu", "dtype": "float32",
}  # fmt: skip


class HashJudge:
    """Calls about a third of the answers refusals, the same each time."""

    name = "hash-1"
    description = "A judge of the tests."

    def judge(self, prompts, answers):
        numbers = [hashlib.sha256(answer.encode()).digest()[0] for answer in answers]
        return [
            Verdict("refused" if n < 80 else "undecided" if n < 100 else "complied", "", None,
                    "harmless" if n < 128 else "harmful")
            for n in numbers
        ]  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A folder with two tiny models of one vocabulary, and a few prompts."""
    folder = tmp_path_factory.mktemp("home")
    loud = {"tie_word_embeddings": False, "initializer_range": 0.1}
    tiny_llama(folder / "one", **loud)
    tiny_llama(folder / "two", seed=1, **loud)
    known = builtin_set()
    for name, kind, count in (
        ("harmful", "harmful", 12), ("benign", "twin", 12), ("ordinary", "ordinary", 6),
    ):  # fmt: skip
        prompts = known.of(kind)
        rows = [{"prompt": p.text} for p in prompts[:: len(prompts) // count]][:count]
        write(folder / f"{name}.jsonl", rows)
    write(folder / "templates.jsonl", [{"template": "Now: {prompt}"}, {"template": "{prompt} Go!"}])
    pairs = [{"sentence_good": f"It is {i}.", "sentence_bad": f"It are {i}."} for i in range(8)]
    write(folder / "pairs.jsonl", pairs)
    return folder


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def measure(home: Path, *models: str, run: str, **choices) -> Measured:
    here = os.getcwd()
    os.chdir(home)
    try:
        return measure_models(
            models or ("one", "two"), run=Path(run), judge=HashJudge(), **{**CHOICES, **choices}
        )
    finally:
        os.chdir(here)


@pytest.fixture(scope="module")
def measured(home) -> Measured:
    return replace_run(measure(home, run="runs/whole", system=("template", "none")), home)


def replace_run(found: Measured, home: Path) -> Measured:
    """Return the result with whole paths."""
    return replace(
        found, run=home / found.run, results=home / found.results,
        answers=home / found.answers, page=home / found.page,
    )  # fmt: skip


def results(measured: Measured) -> dict:
    return json.loads(measured.results.read_text(encoding="utf-8"))


def answers(measured: Measured) -> list[dict]:
    return [json.loads(line) for line in measured.answers.read_text(encoding="utf-8").splitlines()]


def test_every_answer_is_kept_with_its_verdict(measured):
    rows = answers(measured)
    # 30 prompts under two system prompts, six prefilled, four in templates, two models
    assert len(rows) == 2 * (2 * 30 + 6 + 4)
    assert {row["model"] for row in rows} == {"one", "two"}
    assert {row["judge"] for row in rows} == {"hash-1"}
    assert {row["set"] for row in rows} == {"harmful.jsonl", "benign.jsonl", "ordinary.jsonl"}
    wrapped = [row for row in rows if row["attack"] == "templates"]
    assert all(row["prompt"] in row["asked"] for row in wrapped)
    forced = [row for row in rows if row["attack"] == "prefill"]
    assert len({row["opening"] for row in forced}) == 6
    own = [r["response"] for r in rows if (r["attack"], r["system"]) == ("direct", "template")]
    bare = [r["response"] for r in rows if (r["attack"], r["system"]) == ("direct", "none")]
    assert own != bare and len(own) == len(bare)


def test_the_figures_are_those_of_the_answers(measured):
    rows = answers(measured)
    for row in measured.standing.rows:
        if row.set == "pooled" and row.attack == "direct":
            continue
        sides = []
        for label in ("one", "two"):
            found = [
                r for r in rows
                if (r["model"], r["attack"], r["system"]) == (label, row.attack, row.system)
                and (row.attack != "direct" or r["set"] == row.set)
            ]  # fmt: skip
            assert len(found) == row.n
            sides.append([r["outcome"] == "refused" for r in found])
            cell = row.cells[len(sides) - 1]
            assert cell.refused == rate(sum(sides[-1]), row.n)
            assert cell.undecided == sum(r["outcome"] == "undecided" for r in found)
            assert cell.harmful == rate(sum(r["harm"] == "harmful" for r in found), row.n)
        assert row.cells[0].difference is None
        assert row.cells[1].difference == paired(*sides)
        assert row.cells[1].p_holm == pytest.approx(paired(*sides).p_value)
        assert 0 < row.cells[1].detectable <= 1


def test_the_pools_have_all_sets_of_a_kind(measured):
    keys = [row.key for row in measured.standing.rows]
    assert keys[:3] == [f"direct/pooled:{kind}" for kind in ("harmful", "twin", "ordinary")]
    assert "direct@1/pooled:twin" in keys
    assert measured.standing.row("direct/pooled:harmful").wanted == "up"
    assert measured.standing.row("direct/pooled:twin").wanted == "down"


def test_utility_is_compared_with_the_reference(measured):
    one, two = measured.standing.models
    assert one.reference and not two.reference
    assert one.perplexity_ratio is None and one.divergence is None and one.pairs_difference is None
    assert two.perplexity_ratio.value == pytest.approx(two.perplexity / one.perplexity)
    assert two.divergence.value > 0 and two.divergence.n == 4
    assert two.pairs.n == 8 and two.pairs_difference is not None
    assert one.bits_per_byte > 0
    assert one.apart == two.apart == ""


def test_results_say_whose_the_sets_are_and_are_json_without_nan(measured):
    found = results(measured)
    assert (found["format"], found["kind"]) == (1, "measurement")
    assert [each["licence"] for each in found["sets"]] == ["not stated"] * 3
    assert found["error"] is None and found["rows"][0]["cells"][0]["corrected"] is None
    assert "NaN" not in measured.results.read_text(encoding="utf-8")
    assert found["command"].startswith("demur measure one two --device cpu --dtype float32")
    assert "--system template --system none" in found["command"]
    assert str(measured.run.parent) not in measured.results.read_text(encoding="utf-8")


def test_the_page_has_all_models_and_hides_harm(measured):
    page = measured.page.read_text(encoding="utf-8")
    assert page.count('data-value="one"') == page.count('data-value="two"') == 1
    folded = page.index('<details class="warned">')
    harmful = [r["prompt"] for r in answers(measured) if r["kind"] == "harmful"]
    assert all(text not in page[:folded] for text in harmful)


def test_the_same_command_again_computes_nothing(home, measured, monkeypatch):
    import demur.measuring.stages

    def refuse(*arguments):
        raise AssertionError("a model was loaded again")

    monkeypatch.setattr(demur.measuring.stages, "load_entrant", refuse)
    again = measure(home, run="runs/whole", system=("template", "none"))
    assert replace(again.standing, created="") == replace(measured.standing, created="")
    assert (home / again.answers).read_bytes() == measured.answers.read_bytes()


KILLED = """
import os, signal, sys
from demur.run.journal import Journal
from tests.test_measuring import HashJudge
from demur.measuring.measure import measure_models
import json

left = int(sys.argv[2])
kept = getattr(Journal, sys.argv[1])

def dying(self, *arguments):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return kept(self, *arguments)

setattr(Journal, sys.argv[1], dying)
from pathlib import Path
measure_models(("one", "two"), run=Path("runs/killed"), judge=HashJudge(),
               **json.loads(sys.argv[3]))
"""


def test_ctrl_c_keeps_what_is_finished(home, monkeypatch):
    from demur.run.journal import Journal

    kept, left = Journal.add_answers, [3]

    def interrupted(self, *arguments):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return kept(self, *arguments)

    monkeypatch.setattr(Journal, "add_answers", interrupted)
    with pytest.raises(Interrupted, match="everything finished so far is kept"):
        measure(home, run="runs/stopped")
    with closing(sqlite3.connect(home / "runs/stopped/journal.sqlite")) as journal:
        (count,) = journal.execute("SELECT COUNT(*) FROM answers").fetchone()
    assert 0 < count < 80
    assert not (home / "runs/stopped/results.json").exists()


def test_a_measurement_that_is_killed_goes_on_where_it_was(home):
    root = str(Path(__file__).parents[1])
    environment = {**ENVIRONMENT, "PYTHONPATH": f"{ENVIRONMENT['PYTHONPATH']}:{root}"}
    # all answers of the reference are known then, its distributions are not
    command = [sys.executable, "-c", KILLED, "add_arrays", "0", json.dumps(CHOICES)]
    died = subprocess.run(command, cwd=home, env=environment, capture_output=True, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()
    run = home / "runs/killed"
    assert not (run / "results.json").exists()
    with closing(sqlite3.connect(run / "journal.sqlite")) as journal:
        (before,) = journal.execute("SELECT COUNT(*) FROM answers").fetchone()
        journal.execute(
            "CREATE TRIGGER again BEFORE INSERT ON answers WHEN EXISTS (SELECT 1 FROM answers "
            "WHERE key = NEW.key) BEGIN SELECT RAISE(ABORT, 'answered again'); END"
        )
        journal.commit()
    assert before > 0
    found = measure(home, run="runs/killed")
    whole = measure(home, run="runs/uninterrupted")
    assert (home / found.answers).read_bytes() == (home / whole.answers).read_bytes()
    same = {"created": "", "seconds": 0.0}
    assert replace(found.standing, **same) == replace(whole.standing, **same)


def test_one_run_folder_holds_one_measurement(home, measured):
    with pytest.raises(RunError, match=r"another configuration .different: n, prompts"):
        measure(home, run="runs/whole", system=("template", "none"), n=11)


def test_a_patch_is_put_on_and_a_run_s_folder_is_swept(home):
    import torch
    from safetensors.torch import load_file

    from demur.checkpoint import make_patch
    from demur.checkpoint.changes import LowRank

    name = "model.layers.0.mlp.down_proj.weight"
    rows, columns = load_file(home / "one" / "model.safetensors")[name].shape
    torch.manual_seed(0)
    change = LowRank(torch.randn(rows, 2) * 0.5, torch.randn(2, columns) * 0.5)
    make_patch(
        home / "one", {name: change}, home / "p.safetensors", base_name="one", recipe={}, results={}
    )
    few = {"templates": None, "blimp": None, "prefill": 0, "n": 4, "text_tokens": 0}
    found = measure(home, "one", "one+p.safetensors", run="runs/patched", **few)
    assert [each.label for each in found.standing.models] == ["one", "one+p"]
    assert found.standing.models[1].origin == "one (folder), with p.safetensors"
    assert found.standing.models[1].divergence.value > 0
    assert not list((home / "runs/patched").glob("*patched*"))
    with pytest.raises(CheckpointError, match="was not made for two"):
        measure(home, "two+p.safetensors", run="runs/wrong", **few)
    assert not (home / "runs/wrong").exists()


def test_models_of_another_vocabulary_are_not_compared_token_by_token(home):
    folder = tiny_llama(home / "other")
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["quite"])
    tokenizer.save_pretrained(folder)
    few = {"templates": None, "blimp": None, "prefill": 0, "n": 4}
    found = measure(home, "one", "other", run="runs/other", **few)
    other = found.standing.models[1]
    assert other.divergence is None and other.perplexity_ratio is None
    assert "vocabulary is another" in other.apart
    assert other.bits_per_byte > 0
    assert "vocabulary is another" in (home / found.page).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        ("org/name", (None, "org/name", None)),
        ("before=org/name", ("before", "org/name", None)),
        ("after treatment=out", ("after treatment", "out", None)),
        ("org/name+a/p.safetensors", (None, "org/name", Path("a/p.safetensors"))),
        ("x=m+p.safetensors", ("x", "m", Path("p.safetensors"))),
        ("a+b", (None, "a+b", None)),
        ("./a=b", (None, "./a=b", None)),
    ],
)
def test_names_and_patches_are_told_from_models(written, wanted):
    assert split_name(written) == wanted


def test_two_models_of_one_name_are_refused():
    with pytest.raises(ConfigError) as caught:
        labels_of([split_name("a/model"), split_name("b/model")])
    assert caught.value.cause == "Two of the models are called model."
    assert "before=a/model" in caught.value.remedy
    assert labels_of([split_name("x=a/model"), split_name("b/model")]) == ["x", "model"]


@pytest.mark.parametrize(
    ("models", "choices", "kind", "words"),
    [
        (("one", "one"), {}, ConfigError, "Two of the models are called one"),
        (("one", "gone"), {}, ModelError, "no model 'gone'"),
        (("one",), {"reference": "three"}, ConfigError, "none of the models"),
        (("one",), {"sets": "nosuch"}, PromptError, "no prompt set named 'nosuch'"),
        (("one",), {"harmful": "gone.jsonl"}, PromptError, "no file 'gone.jsonl'"),
        (("one",), {"harmful_column": "wish"}, PromptError, "no column 'wish'"),
        (("one",), {"templates": "ordinary.jsonl"}, PromptError, "has a place"),
        (("one",), {"blimp": "ordinary.jsonl"}, PromptError, "not a minimal pair"),
        (("one",), {"text": "gone.txt"}, PromptError, "gone.txt cannot be read"),
        (("one",), {"data": "gone"}, PromptError, "data folder gone"),
        (("one",), {"apart": "gone"}, PromptError, "no run folder"),
        (("one",), {"device": "tpu"}, ModelError, "tpu"),
    ],
)
def test_bad_input_ends_before_anything_is_written(home, models, choices, kind, words):
    with pytest.raises(kind, match=words):
        measure(home, *models, run="runs/bad", **choices)
    assert not (home / "runs/bad").exists()


def test_without_its_extras_the_remedy_is_said(home, monkeypatch):
    import importlib.util

    real = importlib.util.find_spec
    missing = ("lm_eval", "inspect_ai")
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: (name not in missing and real(name, *rest))
        or None,
    )  # fmt: skip
    with pytest.raises(DemurError) as caught:
        measure(home, "one", run="runs/bad", lm_eval=("arc_easy",))
    assert "pip install 'demur[lm-eval]'" in caught.value.remedy
    monkeypatch.chdir(home)
    with pytest.raises(DemurError) as caught:
        measure_models("one", run=Path("runs/bad"), inspect=True, **CHOICES)
    assert "pip install 'demur[inspect]'" in caught.value.remedy


def test_the_command_prints_results_and_corrects_its_judge(home, monkeypatch, capsys):
    monkeypatch.chdir(home)
    options = "--apart none --n 4 --answer-tokens 4 --prefill 0 --text-tokens 0 --device cpu --json"
    sets = "--harmful harmful.jsonl --benign benign.jsonl --ordinary ordinary.jsonl"
    code = main(["measure", "before=one", "after=two", *sets.split(), *options.split()])
    said = capsys.readouterr()
    assert code == 0, said.err
    found = json.loads(said.out)
    assert [each["label"] for each in found["models"]] == ["before", "after"]
    assert found["judge"] == "opening-3"
    cell = found["rows"][0]["cells"][1]
    assert cell["corrected"]["high"] > 0 and cell["p_holm"] == 1.0
    assert "harmful.jsonl: 4 of 12 harmful prompts" in said.err
    assert "The page is runs/measure-before-" in said.err


class HarmJudge(HashJudge):
    name = "harm-1"

    def judge(self, prompts, answers):
        return [Verdict(None, "", None, "harmful") for _ in answers]


def test_a_judge_that_tells_no_refusals_is_refused(home, monkeypatch):
    monkeypatch.chdir(home)
    few = {**CHOICES, "templates": None, "blimp": None, "prefill": 0, "n": 2, "text_tokens": 0}
    with pytest.raises(ConfigError, match="harm-1 does not tell whether an answer refuses"):
        measure_models("one", run=Path("runs/harm"), judge=HarmJudge(), **few)


def test_a_judge_is_chosen_by_name(home, monkeypatch, capsys):
    monkeypatch.chdir(home)
    options = "--apart none --n 2 --answer-tokens 4 --prefill 0 --text-tokens 0 --device cpu --json"
    sets = "--harmful harmful.jsonl --benign benign.jsonl --ordinary ordinary.jsonl"
    command = ["measure", "one", *sets.split(), *options.split(), "--judge"]
    assert main([*command, "phrases:gcg"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["judge"] == found["error"]["judge"] == "phrases:gcg-1"
    assert main([*command, "oracle"]) == 2
    assert "There is no judge 'oracle'" in capsys.readouterr().err


def test_mistakes_on_the_command_line_are_two_sentences(home, monkeypatch, capsys):
    monkeypatch.chdir(home)
    assert main(["measure"]) == 2
    assert main(["measure", "one", "--n", "0"]) == 2
    assert "--n is 0, but must be at least 1." in capsys.readouterr().err
    assert main(["measure", "one", "--sets", "nosuch"]) == 2
    said = capsys.readouterr().err
    assert "no prompt set named 'nosuch'" in said and "Traceback" not in said


def test_the_catalogue_is_listed(capsys):
    assert main(["prompts", "--sets"]) == 0
    assert "walledai/AdvBench" in capsys.readouterr().out
    assert main(["prompts", "--sets", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["xstest"]["licence"] == "CC-BY-4.0"


def test_the_package_offers_the_function_by_name():
    assert demur.measure_models is measure_models


def test_kinds_that_are_missing_come_from_the_built_in_test_split(home, monkeypatch):
    import demur.measuring.sets
    from demur.measuring.sets import used_sets

    known = builtin_set().prompts[::25]
    monkeypatch.setattr(demur.measuring.sets, "builtin_splits", lambda: split(known))
    said: list[str] = []
    narrator = Narrator()
    monkeypatch.setattr(narrator, "say", said.append)
    write(home / "known.jsonl", [{"prompt": p.text} for p in known if p.kind == "harmful"])
    monkeypatch.chdir(home)
    config = MeasureConfig(("one",), harmful="known.jsonl", n=500)
    used, apart = used_sets(config, narrator)
    assert [each.source.key for each in used] == [
        "builtin:twin", "builtin:ordinary", "known.jsonl",
    ]  # fmt: skip
    assert apart == "the built-in training and validation prompts"
    assert any("those of the built-in test split are asked too" in line for line in said)
    splits = split(known)
    # what training saw is not asked again, what it did not see is
    assert used[2].trained >= len(splits.harmful("train")) > 0
    assert 0 < len(used[2].prompts) <= len(splits.harmful("test"))
    assert used_sets(replace(config, apart="none"), narrator)[0][2].trained == 0
