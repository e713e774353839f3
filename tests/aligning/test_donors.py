"""Looking for a donor: the user's, a patch of an earlier run, an aligned sibling; never fetched."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tests.tiny import tiny_llama

from demur.aligning.config import AlignConfig
from demur.aligning.donors import look_for_donors
from demur.aligning.treatment import aligning
from demur.checkpoint import LowRank, make_patch
from demur.errors import ConfigError, EndpointError
from demur.judge.names import Means
from demur.models.lineage import aligned_names
from demur.models.resolve import resolve
from demur.run.journal import Journal
from demur.treating.stages import Context


@dataclass(frozen=True)
class Place:
    """A base, a recipient whose card names it, and a run folder."""

    folder: Path
    context: Context

    @property
    def base(self) -> Path:
        return self.folder / "base"

    @property
    def config(self) -> AlignConfig:
        return AlignConfig(str(self.folder / "recipient"))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    tiny_llama(tmp_path / "base")
    recipient = tiny_llama(tmp_path / "recipient")
    card(recipient, str(tmp_path / "base"))
    run = tmp_path / "runs" / "own"
    run.mkdir(parents=True)
    journal = Journal(run / "journal.sqlite")
    context = SimpleNamespace(
        resolved=resolve(str(recipient)), folder=SimpleNamespace(path=run, journal=journal)
    )
    yield Place(tmp_path, cast(Any, context))
    journal.close()


def card(model: Path, base: str) -> None:
    text = f"---\nbase_model: {json.dumps(base)}\n---\n\nA model.\n"
    (model / "README.md").write_text(text, encoding="utf-8")


def patch_of(base: Path, run: Path) -> Path:
    import numpy as np

    run.mkdir(parents=True)
    change = LowRank(np.ones((64, 1), "f4"), np.ones((1, 32), "f4"))
    name = "model.layers.0.mlp.gate_proj.weight"
    path = run / "patch.safetensors"
    make_patch(base, {name: change}, path, base_name=str(base), recipe={}, results={})
    return path


@pytest.mark.parametrize(
    ("base", "names"),
    [
        ("org/Model-7B", ("org/Model-7B-Instruct", "org/Model-7B-Chat")),
        ("org/Model-7B-v0.1", ("org/Model-7B-Instruct-v0.1",)),
        ("org/Model-7b-hf", ("org/Model-7b-chat-hf",)),
        ("org/model-2b", ("org/model-2b-it",)),
        ("models/base/", ("models/base-aligned",)),
    ],
)
def test_what_an_aligned_sibling_may_be_called(base: str, names: tuple[str, ...]) -> None:
    assert set(names) <= set(aligned_names(base))
    assert base not in aligned_names(base)


def test_an_aligned_base_stands_alone() -> None:
    for name in ("org/Model-Instruct", "org/model-2b-it", "org/Model-7b-chat-hf"):
        assert aligned_names(name) == (name,)
    assert aligned_names("org/Bitter-Litchi") != ("org/Bitter-Litchi",)  # words, not letters


def test_the_users_donor_stands_alone(place: Place) -> None:
    shutil.copytree(place.base, place.folder / "base-aligned")
    config = AlignConfig(place.config.model, donor="org/other", base="org/base")
    (donor,) = look_for_donors(config, place.context).donors
    assert (donor.name, donor.base, donor.found) == ("org/other", "org/base", "")


def test_a_sibling_is_found_and_kept_for_when_the_run_goes_on(place: Place) -> None:
    sibling = place.folder / "base-aligned"
    shutil.copytree(place.base, sibling)
    looked = look_for_donors(place.config, place.context)
    (donor,) = looked.donors
    assert (donor.name, donor.base) == (str(sibling), str(place.base))
    assert looked.sentence.startswith(f"Its card names {place.base} as base; found: {sibling}")
    shutil.rmtree(sibling)
    assert look_for_donors(place.config, place.context) == looked


def test_a_patch_of_an_earlier_run_comes_first(place: Place) -> None:
    shutil.copytree(place.base, place.folder / "base-aligned")
    finished = patch_of(place.base, place.folder / "runs" / "finished")
    (finished.parent / "result.json").write_text("{}", encoding="utf-8")
    patch_of(place.base, place.folder / "runs" / "unfinished")
    other = patch_of(tiny_llama(place.folder / "other"), place.folder / "runs" / "others")
    (other.parent / "result.json").write_text("{}", encoding="utf-8")
    damaged = place.folder / "runs" / "damaged"
    damaged.mkdir()
    for name in ("patch.safetensors", "result.json"):
        (damaged / name).write_text("{", encoding="utf-8")
    first, second = look_for_donors(place.config, place.context).donors
    assert Path(first.name) == finished
    assert first.base == str(place.base)
    assert second.name == str(place.folder / "base-aligned")


def test_what_is_not_here_is_named_and_not_fetched(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reached(*arguments: Any, **options: Any) -> None:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr("demur.models.hub._download", reached)
    card(place.context.resolved.folder, "nobody/base-of-nothing")
    looked = look_for_donors(place.config, place.context)
    assert looked.donors == ()
    assert "nobody/base-of-nothing-Instruct" in looked.sentence
    assert "named with --donor" in looked.sentence


def test_a_model_without_a_card_knows_no_donor(place: Place) -> None:
    (place.context.resolved.folder / "README.md").unlink()
    looked = look_for_donors(place.config, place.context)
    assert looked.donors == ()
    assert "does not say what it was made from" in looked.sentence


@pytest.mark.parametrize(
    ("choices", "cause"),
    [
        ({"path": "magic"}, "--path is magic, but must be one of auto, distill, graft"),
        ({"donor": " "}, "--donor is  , but must be a model or a patch"),
        ({"donor": "x", "path": "distill"}, "--path is distill, but must be auto or graft"),
    ],
)
def test_choices_that_make_no_sense(choices: dict[str, Any], cause: str) -> None:
    with pytest.raises(ConfigError, match=cause):
        AlignConfig("tiny", **choices)


def test_the_endpoint_of_a_teacher_is_asked_for_with_its_key() -> None:
    config = AlignConfig("tiny", teacher="openai:some-model")
    with pytest.raises(EndpointError, match="DEMUR_TEST_NO_SUCH_KEY is not set"):
        aligning(config, Means(key_variable="DEMUR_TEST_NO_SUCH_KEY"))
