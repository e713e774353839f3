"""Every name a user can give, and every folder that cannot be used."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.tiny import tiny_llama

from demur.errors import CheckpointError, ModelError
from demur.models.cache import build_once, cache_root
from demur.models.config import check_weights
from demur.models.resolve import resolve


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("resolve") / "tiny-llama")


@pytest.fixture
def changed(llama: Path, tmp_path: Path) -> Callable[..., Path]:
    """Return a copy of the tiny Llama whose config.json differs."""

    def copy(**settings: Any) -> Path:
        folder = shutil.copytree(llama, tmp_path / "changed")
        config = json.loads((folder / "config.json").read_text()) | settings
        kept = {key: value for key, value in config.items() if value is not None}
        (folder / "config.json").write_text(json.dumps(kept))
        return folder

    return copy


def test_a_folder(llama: Path, tmp_path: Path) -> None:
    found = resolve(str(llama), cache=tmp_path)
    assert found.kind == "folder"
    assert found.folder == llama.resolve()
    assert found.revision is None
    assert (found.model_type, found.architecture) == ("llama", "LlamaForCausalLM")
    assert found.parameters > 10_000
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_shards_counts_the_same(llama: Path, tmp_path: Path) -> None:
    sharded = tiny_llama(tmp_path / "sharded", max_shard_size="60KB")
    assert len(list(sharded.glob("model-*.safetensors"))) > 1
    assert resolve(str(sharded)).parameters == resolve(str(llama)).parameters


def test_a_relative_folder(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(llama.parent)
    assert resolve("tiny-llama").folder == llama.resolve()


def test_resolving_a_folder_imports_no_torch_before_it_is_needed() -> None:
    code = "import sys, demur.models.resolve, demur.models.device; print('torch' in sys.modules)"
    paths = os.pathsep.join(sys.path)
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.strip() == "False"


def test_near_names_are_offered(llama: Path) -> None:
    with pytest.raises(ModelError, match="There is no model") as caught:
        resolve(str(llama.parent / "tiny-lama"))
    assert "tiny-llama" in caught.value.remedy
    with pytest.raises(ModelError) as caught:
        resolve("smolm2-135m")
    assert "smollm2-135m" in caught.value.remedy


def test_a_parent_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist either"):
        resolve(str(tmp_path / "nowhere" / "deep" / "model"))


@pytest.mark.parametrize("name", ["", "  ", "a b c", "gpt2", "..\0", "x" * 5000])
def test_odd_names_are_errors_too(name: str) -> None:
    with pytest.raises(ModelError):
        resolve(name)


def test_options_that_mean_nothing_are_refused(llama: Path) -> None:
    with pytest.raises(ModelError, match="A revision was given"):
        resolve(str(llama), revision="main")
    with pytest.raises(ModelError, match="A base was given"):
        resolve(str(llama), base="other")


def test_a_file_of_a_folder_leads_to_the_folder(llama: Path) -> None:
    with pytest.raises(ModelError, match="not a GGUF file") as caught:
        resolve(str(llama / "model.safetensors"))
    assert str(llama) in caught.value.remedy


def test_a_folder_of_gguf_files_leads_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelError) as caught:
        resolve(str(tmp_path))
    assert str(tmp_path / "model.gguf") in caught.value.remedy


def test_config_missing(changed: Callable[..., Path]) -> None:
    folder = changed()
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match=r"has no config\.json; it holds chat_template"):
        resolve(str(folder))


@pytest.mark.parametrize("text", ["{broken", "[1, 2]", "\xff", ""])
def test_config_that_is_no_json_object(changed: Callable[..., Path], text: str) -> None:
    folder = changed()
    (folder / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ModelError, match=r"config\.json"):
        resolve(str(folder))


def test_an_unknown_architecture_is_named(changed: Callable[..., Path]) -> None:
    import transformers

    folder = changed(model_type="marsrover", architectures=["MarsForCausalLM"])
    with pytest.raises(ModelError, match=r"'marsrover', architectures .'MarsFor") as caught:
        resolve(str(folder))
    assert transformers.__version__ in caught.value.cause


def test_code_of_the_model_is_used_only_when_allowed(changed: Callable[..., Path]) -> None:
    settings = {
        "model_type": "marsrover",
        "architectures": ["MarsForCausalLM"],
        "auto_map": {"AutoModelForCausalLM": "modeling_mars.MarsForCausalLM"},
    }
    folder = changed(**settings)
    with pytest.raises(ModelError, match="brings its own code") as caught:
        resolve(str(folder))
    assert "--trust-remote-code" in caught.value.remedy
    assert resolve(str(folder), trust_remote_code=True).architecture == "MarsForCausalLM"


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "an encoder"),
        ({"model_type": "roberta", "architectures": None}, "an encoder"),
        (
            {"model_type": "t5", "architectures": ["T5Model"], "is_encoder_decoder": True},
            "an encoder-decoder",
        ),
        ({"architectures": ["LlamaForSequenceClassification"]}, "not a causal language model"),
        (
            {"model_type": "llava", "architectures": ["LlavaForConditionalGeneration"]},
            "a vision-language model",
        ),
    ],
)
def test_what_is_no_causal_model_is_named(
    changed: Callable[..., Path], settings: dict[str, Any], found: str
) -> None:
    with pytest.raises(ModelError, match=f"is {found}.*{settings.get('model_type', 'llama')}"):
        resolve(str(changed(**settings)))


def test_a_vision_language_model_with_a_causal_class_is_accepted(
    changed: Callable[..., Path],
) -> None:
    folder = changed(model_type="gemma3", architectures=["Gemma3ForConditionalGeneration"])
    assert resolve(str(folder)).architecture == "Gemma3ForConditionalGeneration"


def test_architectures_may_be_left_out(changed: Callable[..., Path]) -> None:
    assert resolve(str(changed(architectures=None))).architecture == "LlamaForCausalLM"


@pytest.mark.parametrize(
    ("quantization", "method"),
    [
        ({"quant_method": "gptq", "bits": 4}, "gptq"),
        ({"quant_method": "awq"}, "awq"),
        ({"load_in_4bit": True}, "bitsandbytes"),
    ],
)
def test_quantised_models_are_refused(
    changed: Callable[..., Path], quantization: dict[str, Any], method: str
) -> None:
    with pytest.raises(ModelError, match=rf"is quantised \({method}\)") as caught:
        resolve(str(changed(quantization_config=quantization)))
    assert "unquantised" in caught.value.remedy


def test_a_missing_tokenizer(changed: Callable[..., Path]) -> None:
    folder = changed()
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="has no tokenizer"):
        resolve(str(folder))


def test_a_truncated_checkpoint(changed: Callable[..., Path]) -> None:
    weights = changed() / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError):
        resolve(str(weights.parent))


def test_a_missing_shard(tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path / "sharded", max_shard_size="60KB")
    next(folder.glob("model-00002*")).unlink()
    with pytest.raises(CheckpointError, match="model-00002"):
        resolve(str(folder))


def test_only_pickled_weights(changed: Callable[..., Path]) -> None:
    weights = changed() / "model.safetensors"
    weights.rename(weights.with_name("pytorch_model.bin"))
    with pytest.raises(CheckpointError, match="pickle") as caught:
        resolve(str(weights.parent))
    assert "python -c" in caught.value.remedy


def test_weights_that_are_no_numbers(changed: Callable[..., Path]) -> None:
    from safetensors.numpy import load_file, save_file

    folder = changed()
    check_weights(folder)
    weights = load_file(folder / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    weights[name][3, 5] = float("nan")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=name):
        check_weights(folder)


def test_where_the_cache_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("DEMUR_CACHE", raising=False)
    assert cache_root() == tmp_path / "home" / ".cache" / "demur"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_root() == tmp_path / "xdg" / "demur"
    monkeypatch.setenv("DEMUR_CACHE", str(tmp_path / "own"))
    assert cache_root() == tmp_path / "own"
    assert cache_root(tmp_path) == tmp_path


def test_a_folder_is_built_whole_or_not_at_all(tmp_path: Path) -> None:
    place = tmp_path / "place"

    def fails(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(ModelError, match="no room left"):
        build_once(place, fails)
    assert [path.name for path in tmp_path.iterdir()] == ["place.lock"]
    (tmp_path / ".place.1").mkdir()
    build_once(place, lambda folder: (folder / "whole").touch())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["place", "place.lock"]
    build_once(place, fails)
    assert [path.name for path in place.iterdir()] == ["whole"]


BUILD = """
import sys, time
from pathlib import Path
from demur.models.cache import build_once

def build(folder):
    (folder / "half").touch()
    with Path(sys.argv[2]).open("a") as builds:
        builds.write("built ")
    time.sleep(float(sys.argv[3]))

build_once(Path(sys.argv[1]), build)
"""


def _start_build(place: Path, log: Path, seconds: float) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    arguments = [sys.executable, "-c", BUILD, str(place), str(log), str(seconds)]
    return subprocess.Popen(arguments, env=environment)


def test_a_killed_build_leaves_nothing_in_use_and_two_at_once_build_once(tmp_path: Path) -> None:
    place, log = tmp_path / "cache" / "place", tmp_path / "log"
    killed = _start_build(place, log, 60)
    deadline = time.monotonic() + 30
    while not log.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    killed.kill()
    killed.wait()
    assert not place.exists() and list(place.parent.glob(".place.*/half"))

    both = [_start_build(place, log, 0.3) for _ in range(2)]
    assert [each.wait() for each in both] == [0, 0]
    assert log.read_text() == "built built "
    assert sorted(path.name for path in place.parent.iterdir()) == ["place", "place.lock"]


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ModelError, match="cannot be written"):
        build_once(tmp_path / "file" / "place", lambda folder: None)
