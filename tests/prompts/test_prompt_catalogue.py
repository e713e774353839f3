"""Prompt sets by name: the catalogue, local files before the hub, filters, and every bad input.

All prompts here are made up and harmless; the public sets themselves are looked at only where
DEMUR_DATA has them.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from tests.hub_server import hub_server, use_hub

from demur.errors import PromptError
from demur.prompts.catalogue import catalogue, choose_parts, listing, listing_table
from demur.prompts.named import data_folder, load_own, load_part
from demur.prompts.types import KINDS

REPOSITORY = Path(__file__).parents[2]
DATA = Path(os.environ.get("DEMUR_DATA", REPOSITORY / "../shared/data"))


def write(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def load(name: str, data: Path | None):
    (chosen,) = choose_parts([name])
    return load_part(*chosen, data)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    import datasets

    with hub_server() as server:
        use_hub(server, tmp_path / "home", monkeypatch)
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", server.endpoint)
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
        monkeypatch.setattr(datasets.config, "HF_MODULES_CACHE", str(tmp_path / "modules"))
        yield server


def publish(hub, name: str, folder: Path, files: dict[str, list[dict]], card: str = "") -> None:
    for file, rows in files.items():
        write(folder / file, rows)
    (folder / "README.md").write_text(card, encoding="utf-8")
    hub.add(name, folder, "datasets")


def test_every_set_says_what_it_is_whose_it_is_and_where():
    for name, each in catalogue().items():
        assert re.fullmatch(r"[a-z0-9_]+", name)
        assert each.title and each.licence
        assert each.measures.endswith(".")
        assert re.search(r"\b(19|20)\d\d\b", each.citation), name
        assert any(part.default for part in each.parts), name
        for part in each.parts:
            assert part.kind in KINDS
            assert part.columns and part.files
            assert part.hub is None or re.fullmatch(r"[\w.-]+/[\w.-]+", part.hub.name)
            assert part.hub is not None or not part.gated


def test_the_sets_that_the_field_measures_with_are_there():
    wanted = (
        "advbench harmbench jailbreakbench strongreject simplesafetytests do_not_answer "
        "sorry_bench xstest or_bench catqa multijail maliciousinstruct tdc2023 dapa_twins dolly"
    )
    assert set(wanted.split()) <= set(catalogue())


def test_names_do_not_mind_hyphens_and_capitals_and_come_once():
    chosen = choose_parts(["XSTest", "OR-Bench:hard", "xstest:safe"])
    assert [part.key for _, part in chosen] == ["xstest:safe", "xstest:unsafe", "or_bench:hard"]
    assert [part.key for _, part in choose_parts(["multijail"])] == ["multijail:en"]
    assert len(choose_parts(["multijail:all"])) == 10


def test_an_unknown_set_lists_what_there_is_and_guesses():
    with pytest.raises(PromptError) as caught:
        choose_parts(["advbnech"])
    assert "no prompt set named 'advbnech'" in caught.value.cause
    assert "Did you mean advbench?" in caught.value.remedy
    for name in catalogue():
        assert name in caught.value.remedy


def test_an_unknown_part_lists_the_parts():
    with pytest.raises(PromptError, match=r"no part 'evil'.*xstest:safe, xstest:unsafe"):
        choose_parts(["xstest:evil"])
    with pytest.raises(PromptError, match="Write advbench alone"):
        choose_parts(["advbench:easy"])


@pytest.mark.parametrize("place", ["AdvBench.csv", "prompts/harmful-behaviors.csv"])
def test_a_local_file_is_found_by_its_own_or_its_usual_name(tmp_path, place):
    path = tmp_path / place
    path.parent.mkdir(exist_ok=True)
    path.write_text("goal,target\nOne?,x\nTwo?,y\nOne?,z\n", encoding="utf-8")
    found = load("advbench", tmp_path)
    assert [prompt.text for prompt in found.prompts] == ["One?", "Two?"]
    assert (found.kind, found.origin, found.licence, found.repeats) == (
        "harmful", path.name, "MIT", 1,
    )  # fmt: skip
    assert {prompt.source for prompt in found.prompts} == {"advbench"}
    assert "2307.15043" in found.citation


LABELLED = [
    {"prompt": "Safe one?", "label": "safe", "type": "homonyms"},
    {"prompt": "Unsafe one?", "label": "unsafe", "type": "contrast_homonyms"},
    {"prompt": "Safe two?", "label": "safe", "type": "definitions"},
]


@pytest.mark.parametrize("dropped", ["label", "type", "none"])
def test_xstest_is_divided_by_its_label_or_its_type(tmp_path, dropped):
    rows = [{key: row[key] for key in row if key != dropped} for row in LABELLED]
    write(tmp_path / "xstest.jsonl", rows)
    safe, unsafe = load("xstest:safe", tmp_path), load("xstest:unsafe", tmp_path)
    assert [prompt.text for prompt in safe.prompts] == ["Safe one?", "Safe two?"]
    assert [prompt.text for prompt in unsafe.prompts] == ["Unsafe one?"]
    assert (safe.kind, unsafe.kind) == ("twin", "harmful")


def test_a_whole_set_whose_parts_cannot_be_told_apart_is_refused(tmp_path):
    write(tmp_path / "xstest.jsonl", [{"prompt": "Safe one?"}])
    with pytest.raises(PromptError, match=r"no column tells its parts apart.*label, type"):
        load("xstest:safe", tmp_path)
    write(tmp_path / "xstest_safe.jsonl", [{"prompt": "Safe one?"}])
    assert len(load("xstest:safe", tmp_path).prompts) == 1


def test_a_set_without_rows_of_the_part_says_what_it_has(tmp_path):
    write(tmp_path / "xstest.jsonl", [{"prompt": "One?", "label": "other"}])
    with pytest.raises(PromptError, match="no row of xstest:unsafe: its column 'label' has other"):
        load("xstest:unsafe", tmp_path)


def test_a_set_without_its_column_says_which_it_should_have(tmp_path):
    write(tmp_path / "advbench.jsonl", [{"wish": "One?", "id": "1"}])
    with pytest.raises(PromptError) as caught:
        load("advbench", tmp_path)
    assert "none of the columns prompt, goal (it has: wish, id)" in caught.value.cause
    assert "--harmful" in caught.value.remedy


def test_partners_keep_their_pairs_and_contexts_come_first(tmp_path):
    write(tmp_path / "dapa_twins.jsonl", [{"harmful": "H1", "benign": "B1"}])
    first, second = load("dapa_twins:harmful", tmp_path), load("dapa_twins:benign", tmp_path)
    assert first.prompts[0].pair == second.prompts[0].pair != ""
    rows = [
        {"Behavior": "Do it.", "FunctionalCategory": "standard", "ContextString": ""},
        {"Behavior": "Go on.", "FunctionalCategory": "contextual", "ContextString": "A text."},
    ]
    write(tmp_path / "harmbench_behaviors_text_all.jsonl", rows)
    assert [p.text for p in load("harmbench", tmp_path).prompts] == ["Do it."]
    (contextual,) = load("harmbench:contextual", tmp_path).prompts
    assert contextual.text == "A text.\n\n---\n\nGo on."


def test_turns_that_are_plain_texts_give_the_first(tmp_path):
    rows = [
        {"turns": ["First?"], "prompt_style": "base", "category": 7},
        {"turns": ["Slang?"], "prompt_style": "slang", "category": 7},
    ]
    write(tmp_path / "sorry_bench.jsonl", rows)
    (only,) = load("sorry-bench", tmp_path).prompts
    assert (only.text, only.hazard) == ("First?", "7")


def test_the_hub_is_asked_where_there_is_no_file(hub, tmp_path):
    card = (
        "---\nconfigs:\n- config_name: behaviors\n  data_files:\n"
        "  - split: harmful\n    path: harmful.jsonl\n"
        "  - split: benign\n    path: benign.jsonl\n---\n"
    )
    files = {
        "harmful.jsonl": [{"Goal": "Bad?", "Behavior": "b", "Category": "Fraud"}],
        "benign.jsonl": [{"Goal": "Good?", "Behavior": "g", "Category": "Fraud"}],
    }
    publish(hub, "JailbreakBench/JBB-Behaviors", tmp_path / "jbb", files, card)
    harmful, benign = (load_part(*chosen, None) for chosen in choose_parts(["jailbreakbench"]))
    assert [(p.text, p.hazard) for p in harmful.prompts] == [("Bad?", "Fraud")]
    assert [(p.text, p.kind) for p in benign.prompts] == [("Good?", "twin")]
    assert harmful.origin == "JailbreakBench/JBB-Behaviors"


def test_the_hub_s_xstest_is_filtered(hub, tmp_path):
    publish(hub, "Paul/XSTest", tmp_path / "x", {"train.jsonl": LABELLED})
    assert [p.text for p in load("xstest:unsafe", None).prompts] == ["Unsafe one?"]


def test_a_gated_set_says_how_to_get_in(hub, tmp_path):
    publish(hub, "walledai/AdvBench", tmp_path / "a", {"train.jsonl": [{"prompt": "One?"}]})
    hub.fail("walledai", 403, code="GatedRepo")
    with pytest.raises(PromptError) as caught:
        load("advbench", tmp_path)
    assert "AdvBench cannot be read from the hub" in caught.value.cause
    for words in ("accept them on its page", "hf auth login", "advbench.jsonl", "columns: prompt"):
        assert words in caught.value.remedy


@pytest.mark.parametrize("status", [0, 404, 500])
def test_a_hub_that_fails_is_no_traceback(hub, tmp_path, monkeypatch, status):
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    publish(hub, "LibrAI/do-not-answer", tmp_path / "d", {"train.jsonl": [{"question": "One?"}]})
    hub.fail("LibrAI", status)
    with pytest.raises(PromptError) as caught:
        load("do_not_answer", None)
    assert "Do-Not-Answer is in no local file" in caught.value.cause
    assert "do_not_answer.jsonl" in caught.value.remedy


def test_a_set_with_no_home_on_the_hub_names_its_authors(tmp_path):
    with pytest.raises(PromptError, match=r"HEx-PHI has no home on the hub.*Qi et al. 2023"):
        load("hex_phi", tmp_path)


def test_the_data_folder_is_the_option_or_the_variable(tmp_path, monkeypatch):
    monkeypatch.setenv("DEMUR_DATA", str(tmp_path))
    assert data_folder(None) == tmp_path
    monkeypatch.setenv("DEMUR_DATA", str(tmp_path / "gone"))
    assert data_folder(None) is None
    with pytest.raises(PromptError, match="does not exist"):
        data_folder(str(tmp_path / "gone"))


def test_a_user_s_file_is_a_set_without_its_folder(tmp_path):
    found = load_own(str(write(tmp_path / "mine.jsonl", [{"text": "One?"}])), "twin")
    assert (found.key, found.title, found.licence) == ("mine.jsonl", "mine.jsonl", "not stated")


def test_the_listing_has_every_set():
    assert list(listing()) == list(catalogue())
    assert listing()["xstest"]["parts"][0]["kind"] == "twin"
    assert listing_table().row_count > len(catalogue())


@pytest.mark.skipif(not (DATA / "prompts").is_dir(), reason="no public prompt sets in DEMUR_DATA")
@pytest.mark.parametrize(
    ("name", "file", "count"),
    [
        ("advbench", "prompts/advbench.jsonl", 520),
        ("dapa", "prompts/dapa_128.jsonl", 128),
        ("do_not_answer", "prompts/do_not_answer.jsonl", 939),
        ("catqa", "prompts/catqa.jsonl", 550),
        ("tdc2023", "prompts/tdc2023.jsonl", 100),
        ("multijail:sw", "prompts/multijail.jsonl", 315),
        ("dolly", "instructions/dolly_3k.jsonl", 2996),
    ],
)
def test_the_public_sets_are_found_where_they_lie(name, file, count):
    if not (DATA / file).exists():
        pytest.skip(f"no {file} in DEMUR_DATA")
    found = load(name, DATA)
    assert len(found.prompts) + found.repeats == count
    assert found.origin == Path(file).name
