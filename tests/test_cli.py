"""The command line: help, exit codes, errors in two sentences, and a whole run."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from demur import __version__, cli
from demur.cli import main
from tests.small_run import ENVIRONMENT, OPTIONS, demur, prepare, without_cost


@pytest.fixture(autouse=True)
def _restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep what `main` sets for the whole process from the other tests."""
    former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.setattr(cli, "hush", lambda: None)
    yield
    for number, handler in former.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model and few prompts."""
    folder = tmp_path_factory.mktemp("place")
    prepare(folder)
    return folder


@pytest.fixture(scope="module")
def finished(place: Path) -> tuple[Path, dict[str, Any]]:
    """The run folder of a whole `demur align --json`, and the object that it printed."""
    done = demur(place, "align", "tiny", *OPTIONS, "--json")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    printed = json.loads(done.stdout)
    return place / printed["run"], printed


def rows(run: Path) -> dict[str, int]:
    """How many rows the tables of a journal have."""
    with sqlite3.connect(run / "journal.sqlite") as connection:
        return {
            table: connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0]
            for table in ("answers", "verdicts", "arrays", "facts")
        }


def tensors(folder: Path) -> dict[str, bytes]:
    """The weights of a model folder, bit by bit."""
    from safetensors.numpy import load_file

    return {
        name: value.tobytes() for name, value in load_file(folder / "model.safetensors").items()
    }


def test_help_and_version_come_without_the_heavy_libraries() -> None:
    heavy = "{'torch', 'transformers', 'datasets', 'numpy', 'matplotlib'}"
    for arguments, wanted in ((["--help"], "align"), (["align", "--help"], "--learning-rate")):
        code = (
            f"import sys; from demur.cli import main; done = main({arguments!r}); "
            f"assert not {heavy} & set(sys.modules); sys.exit(done)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert wanted in done.stdout


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__


def test_every_choice_has_a_flag_in_its_group_with_help(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from dataclasses import fields

    from demur.aligning.config import AlignConfig

    assert main(["align", "--help"]) == 0
    text = capsys.readouterr().out
    for each in fields(AlignConfig):
        assert f"--{each.name.replace('_', '-')}" in text
    places = [text.index(f" {title} ─") for title in ("Model", "Prompts", "Training", "Measuring")]
    assert places == sorted(places)
    assert "the price of divergence on benign requests" in text


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (["bogus"], "Unknown command"),
        (["align"], "requires an argument"),
        (["align", "tiny", "--bogus", "1"], "Unknown option: --bogus"),
        (["align", "tiny", "other"], "There is no use for 'other'"),
        (["align", "tiny", "--rank", "many"], 'unable to convert "many" into int'),
        (["align", "tiny", "--rank", "0"], "--rank is 0, but must be at least 1"),
        (["align", "tiny", "--last-layer", "0.2"], "--last-layer is 0.2"),
        (["apply", "tiny", "patch.safetensors"], "--out requires an argument"),
        (["align", "nothing-here"], "There is no model 'nothing-here'"),
        (["align", "tiny", "--harmful", "none.csv"], "There is no file 'none.csv'"),
        (
            ["align", "tiny", "--ordinary", "ordinary.jsonl", "--ordinary-column", "words"],
            "'ordinary.jsonl' has no column 'words'",
        ),
        (["align", "tiny", "--pairs", "ordinary.jsonl"], "no two columns 'harmful' and 'benign'"),
        (["align", "tiny", "--device", "abacus"], "There is no device named 'abacus'"),
        (["apply", "tiny", "none.safetensors", "-o", "out"], "There is no patch file"),
        (["show", "tiny"], "tiny is not a run folder"),
        (["chat", "nothing-here"], "There is no model"),
    ],
)
def test_errors_are_a_cause_and_a_remedy(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    cause: str,
) -> None:
    monkeypatch.chdir(place)
    before = sorted(place.iterdir())
    assert main(arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    said, remedy = output.err.splitlines()[-2:]
    assert said.startswith("error: ")
    assert cause in said
    assert remedy.endswith((".", "`.", "?"))
    assert "Traceback" not in output.err
    assert sorted(place.iterdir()) == before


def test_a_failure_is_one_json_object_too(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    for arguments in (["align", "nothing-here", "--json"], ["align", "--bogus", "--json"]):
        assert main(arguments) == 2
        assert set(json.loads(capsys.readouterr().out)) == {"error", "remedy"}


def test_a_run_folder_of_another_configuration(
    finished: tuple[Path, dict[str, Any]],
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(place)
    arguments = ["align", "tiny", *OPTIONS, "--rank", "4", "--run", str(finished[0])]
    assert main(arguments) == 2
    assert "another configuration (different: rank)" in capsys.readouterr().err


def test_interrupted_is_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "app", stop)
    assert main(["align", "tiny", "--json"]) == 130
    output = capsys.readouterr()
    assert output.err.startswith("Interrupted")
    assert json.loads(output.out)["error"] == "Interrupted."


def test_a_full_disk_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import errno

    def fill(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "somewhere")

    monkeypatch.setattr(cli, "app", fill)
    assert main(["align", "tiny"]) == 2
    assert "no room left on the disk" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB.\nMore lines."),
    ],
)
def test_full_memory_is_said(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
) -> None:
    def full(*arguments: Any, **choices: Any) -> None:
        raise error

    monkeypatch.setattr("demur.aligning.align.align", full)
    assert main(["align", str(place / "tiny")]) == 2
    said = capsys.readouterr().err
    assert "The memory is full (" in said and "it continues" in said
    assert "More lines" not in said and "Traceback" not in said


def test_other_errors_keep_their_traceback(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any, **choices: Any) -> None:
        raise RuntimeError("the shapes do not fit")

    monkeypatch.setattr("demur.aligning.align.align", broken)
    with pytest.raises(RuntimeError, match="do not fit"):
        main(["align", str(place / "tiny")])


def test_a_closed_pipe_is_quiet(place: Path) -> None:
    command = f'"{sys.executable}" -m demur align --help | true'
    done = subprocess.run(
        ["bash", "-c", command],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""


def test_a_whole_run_leaves_a_complete_folder(finished: tuple[Path, dict[str, Any]]) -> None:
    run, printed = finished
    names = {path.name for path in run.iterdir()}
    assert names >= {
        "config.json", "journal.sqlite", "model", "model_card.md", "patch.safetensors",
        "report.html", "result.json", "run.log",
    }  # fmt: skip
    assert not [name for name in names if name.endswith((".part", ".partial"))]
    assert (run / "model" / "README.md").read_text() == (run / "model_card.md").read_text()
    written = json.loads((run / "result.json").read_text())
    assert {**written, "run": printed["run"]} == printed
    keys = [each["key"] for each in printed["scorecard"]["comparisons"]]
    assert keys == ["harmful", "twins", "ordinary", "prefill"]
    for each in printed["scorecard"]["comparisons"]:
        assert each["before"]["n"] == each["after"]["n"] > 0
        assert each["after"]["low"] <= each["after"]["value"] <= each["after"]["high"]
    assert len(printed["tried"]) == 2  # the last checkpoint at two strengths
    log = (run / "run.log").read_text().rstrip()
    assert log.splitlines()[-1].endswith("report.html.")
    assert "Harmful requests refused" in log


def test_the_aligned_model_is_base_plus_patch_and_loads_alone(
    finished: tuple[Path, dict[str, Any]], place: Path, tmp_path: Path
) -> None:
    run, printed = finished
    code = (
        "import sys; sys.modules['demur'] = None\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        f"model = AutoModelForCausalLM.from_pretrained({str(run / 'model')!r})\n"
        f"assert AutoTokenizer.from_pretrained({str(run / 'model')!r}).chat_template\n"
        "assert model.num_parameters() > 0\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    patch = run / "patch.safetensors"
    assert main(["apply", str(place / "tiny"), str(patch), "-o", str(tmp_path / "put")]) == 0
    assert tensors(tmp_path / "put") == tensors(run / "model") != tensors(place / "tiny")
    back = ["revert", str(run / "model"), str(patch), "--out", str(tmp_path / "back"), "--json"]
    assert main(back) == 0
    assert tensors(tmp_path / "back") == tensors(place / "tiny")
    assert not (tmp_path / "back" / "README.md").exists()
    made = ["adapter", str(place / "tiny"), str(patch), "--out", str(tmp_path / "adapter")]
    assert main(made) == 0
    assert (tmp_path / "adapter" / "adapter_config.json").exists()
    from demur.checkpoint import read_patch

    manifest = read_patch(patch).manifest
    assert manifest.base_hash == printed["hashes"]["base"]
    assert manifest.results["headline"] == printed["headline"]


def test_a_chosen_chat_template_goes_with_the_aligned_model(place: Path) -> None:
    chosen = ["--chat-template", "plain", "--run", "templated"]
    done = demur(place, "align", "tiny", *OPTIONS, *chosen)
    assert done.returncode == 0, done.stderr
    from transformers import AutoTokenizer

    from demur.models.chat_model import TEMPLATES

    found = AutoTokenizer.from_pretrained(place / "templated" / "model").chat_template
    assert found.endswith(TEMPLATES["plain"])
    assert not AutoTokenizer.from_pretrained(place / "tiny").chat_template.endswith(found)


def test_the_same_command_again_takes_no_new_answers(
    finished: tuple[Path, dict[str, Any]], place: Path
) -> None:
    run, printed = finished
    before = rows(run)
    again = demur(place, "align", "tiny", *OPTIONS)
    assert again.returncode == 0, again.stderr
    assert again.stdout == ""
    assert again.stderr.rstrip().endswith("report.html.")
    assert rows(run) == before
    result = json.loads((run / "result.json").read_text())
    assert without_cost(result) == without_cost(printed, "run")


def test_show(finished: tuple[Path, dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    run, printed = finished
    assert main(["show", str(run)]) == 0
    text = capsys.readouterr().out
    assert "Benign twins refused" in text
    assert text.rstrip().endswith("report.html.")
    assert main(["show", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["hashes"] == printed["hashes"]


def test_a_finished_run_is_judged_again(place: Path, finished: tuple[Path, dict[str, Any]]) -> None:
    run, printed = finished
    done = demur(place, "judge", str(run), "--judges", "opening,phrases:gcg", "--json")
    assert done.returncode == 0, done.stderr
    changes = json.loads(done.stdout)["changes"]
    again = {each["title"]: each for each in changes if each["judge"] == "opening-3"}
    for each in printed["scorecard"]["comparisons"]:
        for side in ("before", "after", "difference"):
            assert again[each["title"]][side] == each[side]
    assert len(changes) == 2 * len(again)


def test_a_run_that_is_terminated_can_go_on(place: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "demur", "align", "tiny", *OPTIONS, "--epochs", "400"],
        cwd=place,
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("Training"):
            break
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    rest = process.stderr.read()
    assert process.wait(timeout=60) == 130
    assert rest.rstrip().endswith("Run the same command again to continue.")
    assert "Traceback" not in rest


def test_prompts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from demur.prompts.builtin import CONTRASTS, builtin_set, hazard_titles

    assert main(["prompts", "--export", str(tmp_path / "all.jsonl"), "--json"]) == 0
    counts = json.loads(capsys.readouterr().out)
    lines = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    assert len(lines) == len(builtin_set().prompts) - counts["removed"]
    assert {line["split"] for line in lines} == {"train", "validation", "test"}
    assert set(counts["hazards"]) == set(hazard_titles())
    assert set(counts["contrasts"]) == set(CONTRASTS)
    assert sum(sum(found.values()) for found in counts["kinds"].values()) == len(lines)
    assert main(["prompts"]) == 0
    assert "Pairs by hazard category" in capsys.readouterr().out


def test_chat_side_by_side(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = iter(["How are you?", "x" * 3000, ""])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    model = str(place / "tiny")
    assert main(["chat", model, "--against", model, "--tokens", "4", "--device", "cpu"]) == 0
    text = capsys.readouterr().out
    assert "Each line is asked on its own" in text
    assert "the model's context holds 512" in " ".join(text.split())
