"""PEFT adapters: merged into their base once, and refused where they do not fit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.hub_server import hub_server, use_hub
from tests.tiny import tiny_llama

from demur.errors import ModelError
from demur.models.resolve import resolve


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("base") / "base")


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _save_adapter(base, tmp_path_factory.mktemp("adapter") / "adapter")


def _save_adapter(base: Path, folder: Path) -> Path:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model: Any = get_peft_model(
            AutoModelForCausalLM.from_pretrained(base),
            LoraConfig(r=2, lora_alpha=8, target_modules=["q_proj", "down_proj"]),
        )
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_()
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def changed(adapter: Path, tmp_path: Path) -> Callable[..., Path]:
    """Return a copy of the adapter whose configuration differs."""

    def copy(**settings: Any) -> Path:
        folder = shutil.copytree(adapter, tmp_path / "changed")
        config = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps(config | settings))
        return folder

    return copy


def test_the_merged_folder_answers_as_the_adapted_model(
    adapter: Path, base: Path, tmp_path: Path
) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    said: list[str] = []
    found = resolve(str(adapter), cache=tmp_path, say=said.append)
    assert found.kind == "adapter"
    assert found.architecture == "LlamaForCausalLM"
    assert str(base) in found.origin and "happens once" in said[0]
    files = {path.name for path in found.folder.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= files
    assert "adapter_config.json" not in files

    ids = torch.tensor([[1, 40, 50, 60]])
    plain = AutoModelForCausalLM.from_pretrained(base)
    before = plain(ids).logits
    adapted = PeftModel.from_pretrained(plain, str(adapter))(ids).logits
    merged = AutoModelForCausalLM.from_pretrained(found.folder)(ids).logits
    assert torch.allclose(adapted, merged, atol=1e-5)
    assert not torch.allclose(before, merged, atol=1e-3)
    assert AutoTokenizer.from_pretrained(found.folder).chat_template

    said.clear()
    assert resolve(str(adapter), cache=tmp_path, say=said.append) == found
    assert said == []


def test_another_base_gives_another_folder(adapter: Path, tmp_path: Path) -> None:
    first = resolve(str(adapter), cache=tmp_path)
    other = tiny_llama(tmp_path / "other", seed=5)
    second = resolve(str(adapter), base=str(other), cache=tmp_path)
    assert first.folder != second.folder
    assert str(other) in second.origin


def test_a_base_from_the_hub(
    base: Path, changed: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = changed(base_model_name_or_path="tiny/base", revision="main")
    with hub_server() as running:
        use_hub(running, tmp_path / "home", monkeypatch)
        commit = running.add("tiny/base", base)
        running.add("tiny/adapter", folder)
        local = resolve(str(folder), cache=tmp_path)
        fetched = resolve("tiny/adapter", cache=tmp_path)
    assert commit[:12] in local.origin
    assert fetched.kind == "adapter" and fetched.folder == local.folder


def test_a_base_that_is_not_there(changed: Callable[..., Path], tmp_path: Path) -> None:
    folder = changed(base_model_name_or_path="no_such_place/deep/base")
    with pytest.raises(ModelError, match=r"stands on no_such_place/deep/base, which") as caught:
        resolve(str(folder), cache=tmp_path)
    assert "--base" in caught.value.remedy
    assert not (tmp_path / "adapter-1").exists()


def test_an_adapter_that_names_no_base(changed: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not name its base"):
        resolve(str(changed(base_model_name_or_path=None)), cache=tmp_path)


def test_an_adapter_that_stands_on_itself(changed: Callable[..., Path], tmp_path: Path) -> None:
    folder = changed(base_model_name_or_path=str(tmp_path / "changed"))
    with pytest.raises(ModelError, match="own base"):
        resolve(str(folder), cache=tmp_path)


@pytest.mark.parametrize(
    "shape", [{"hidden_size": 48}, {"num_hidden_layers": 1}, {"num_hidden_layers": 3}]
)
def test_a_base_that_does_not_fit(adapter: Path, tmp_path: Path, shape: dict[str, int]) -> None:
    other = tiny_llama(tmp_path / "other", **shape)
    with pytest.raises(ModelError, match=r"does not fit|cannot be merged") as caught:
        resolve(str(adapter), base=str(other), cache=tmp_path / "cache")
    assert "--base" in caught.value.remedy
    left = [path for path in (tmp_path / "cache").rglob("*") if path.suffix != ".lock"]
    assert [path.name for path in left] == ["adapter-1"]


def test_pickled_adapters_are_refused(changed: Callable[..., Path], tmp_path: Path) -> None:
    folder = changed()
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(ModelError, match="only pickled weights") as caught:
        resolve(str(folder), cache=tmp_path)
    assert "python -c" in caught.value.remedy


def test_an_adapter_without_weights(changed: Callable[..., Path], tmp_path: Path) -> None:
    folder = changed()
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"has no adapter_model\.safetensors"):
        resolve(str(folder), cache=tmp_path)


@pytest.mark.parametrize("kind", ["PROMPT_TUNING", "MARS_TUNING", None])
def test_what_cannot_be_merged_is_named(
    changed: Callable[..., Path], tmp_path: Path, kind: str | None
) -> None:
    with pytest.raises(ModelError, match=f"of the kind {kind}"):
        resolve(str(changed(peft_type=kind)), cache=tmp_path)
