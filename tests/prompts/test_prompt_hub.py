"""Hub data sets: which texts name one, and loading one from a double of the hub."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.hub_server import HubServer, hub_server, use_hub

from demur.errors import PromptError
from demur.prompts import load_prompts
from demur.prompts.hub import hub_address


@pytest.mark.parametrize(
    ("source", "address"),
    [
        ("org/name", ("org/name", None, None)),
        ("org/name:harmful", ("org/name", None, "harmful")),
        ("org/name@small:train", ("org/name", "small", "train")),
        ("hf://org/na.me_2@v-1", ("org/na.me_2", "v-1", None)),
        ("hf://org/name.csv", ("org/name.csv", None, None)),
        ("folder/prompts.csv", None),
        ("folder/PROMPTS.JSONL", None),
        ("name", None),
        ("/org/name", None),
        ("./name", None),
        ("a/b/c", None),
        ("C:\\org\\name", None),
    ],
)
def test_what_looks_like_a_data_set(source, address):
    assert hub_address(source) == address


def test_a_path_that_exists_is_no_data_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("org/name").mkdir(parents=True)
    assert hub_address("org/name") is None
    assert hub_address("hf://org/name") == ("org/name", None, None)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    import datasets

    with hub_server() as server:
        use_hub(server, tmp_path / "home", monkeypatch)
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", server.endpoint)
        cache = tmp_path / "cache"
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
        monkeypatch.setattr(datasets.config, "HF_MODULES_CACHE", str(tmp_path / "modules"))
        yield server


def publish(hub: HubServer, name: str, folder: Path, files: dict[str, list[dict]], card: str = ""):
    for file, rows in files.items():
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    (folder / "README.md").write_text(card)
    hub.add(name, folder, "datasets")


def test_the_only_split_is_taken(hub, tmp_path):
    rows = [{"Goal": "One?", "Category": "Fraud"}, {"Goal": "Two?", "Category": "Arson"}]
    publish(hub, "org/one", tmp_path / "one", {"train.jsonl": rows})
    prompts = load_prompts("org/one", "harmful")
    assert [(prompt.text, prompt.hazard) for prompt in prompts] == [
        ("One?", "Fraud"),
        ("Two?", "Arson"),
    ]
    assert {prompt.source for prompt in prompts} == {"org/one"}


def test_a_split_must_be_named_where_there_are_several(hub, tmp_path):
    files = {"train.jsonl": [{"prompt": "a b"}], "test.jsonl": [{"prompt": "c d"}]}
    publish(hub, "org/two", tmp_path / "two", files)
    assert load_prompts("hf://org/two:test", "ordinary")[0].text == "c d"
    with pytest.raises(
        PromptError, match=r"several splits: train, test\. Name one .* org/two:train"
    ):
        load_prompts("org/two", "ordinary")
    with pytest.raises(PromptError, match="no split 'benign': train, test"):
        load_prompts("org/two:benign", "ordinary")


CARD = """---
configs:
- config_name: left
  data_files: left.jsonl
- config_name: right
  data_files: right.jsonl
---
"""


def test_a_configuration_must_be_named_where_there_are_several(hub, tmp_path):
    files = {"left.jsonl": [{"prompt": "a b"}], "right.jsonl": [{"prompt": "c d"}]}
    publish(hub, "org/sides", tmp_path / "sides", files, CARD)
    assert load_prompts("org/sides@right", "ordinary")[0].text == "c d"
    assert load_prompts("org/sides@left:train", "ordinary")[0].text == "a b"
    with pytest.raises(PromptError, match="several configurations: left, right"):
        load_prompts("org/sides", "ordinary")
    with pytest.raises(PromptError, match="no configuration 'up': left, right"):
        load_prompts("org/sides@up", "ordinary")


def test_what_is_not_there_or_not_allowed_is_said(hub, tmp_path):
    with pytest.raises(PromptError, match="The hub has no data set 'org/none'"):
        load_prompts("org/none", "harmful")
    publish(hub, "org/gated", tmp_path / "gated", {"train.jsonl": [{"prompt": "x"}]})
    hub.fail("org/gated", 403, code="GatedRepo")
    with pytest.raises(PromptError, match="that you may read") as caught:
        load_prompts("org/gated", "harmful")
    assert "log in" in caught.value.remedy


def test_a_hub_that_is_switched_off_is_said(hub, monkeypatch):
    import datasets
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(PromptError, match="the hub cannot be reached"):
        load_prompts("org/some", "harmful")


def test_a_hub_that_fails_is_said(hub, tmp_path):
    publish(hub, "org/broken", tmp_path / "broken", {"train.jsonl": [{"prompt": "x"}]})
    hub.fail("api/datasets", 500)
    with pytest.raises(PromptError, match="the hub cannot be reached"):
        load_prompts("org/broken", "harmful")
