"""BLiMP: reading pairs, and the log-likelihoods that they are told apart by."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import pytest
from tests.tiny import tiny_llama

from demur.errors import ModelError, PromptError
from demur.measure.minimal_pairs import judge_pairs, log_likelihoods, read_pairs
from demur.models.chat_model import load_chat_model
from demur.models.device import Placement

REPOSITORY = Path(__file__).parents[2]
DATA = Path(os.environ.get("DEMUR_DATA", REPOSITORY / "../shared/data"))
BLIMP = DATA / "text" / "blimp.zip"
SENTENCES = (
    "The assistant answers the user in a short way.",
    "I cannot help.",
    "Tell me how to bake bread, and what the weather is like in the mountains.",
    "How do I kill a process that hangs?",
)


@pytest.fixture(scope="module")
def chat(tmp_path_factory):
    folder = tiny_llama(tmp_path_factory.mktemp("tiny"), initializer_range=0.3)
    return load_chat_model(folder, Placement("cpu", "float32", ""), weights="w")


def row(paradigm: str, number: int) -> str:
    good, bad = f"{paradigm} {number} goes.", f"{paradigm} {number} go."
    return json.dumps({"sentence_good": good, "sentence_bad": bad, "UID": paradigm})


@pytest.fixture
def archive(tmp_path) -> Path:
    path = tmp_path / "pairs.zip"
    with zipfile.ZipFile(path, "w") as file:
        for paradigm in ("b_two", "a_one", "c_three"):
            lines = "".join(f"{row(paradigm, i)}\n" for i in range(5))
            file.writestr(f"data/{paradigm}.jsonl", lines)
        file.writestr("__MACOSX/data/._a_one.jsonl", b"\x00\xff")
        file.writestr("data/notes.txt", "no pairs")
    return path


def test_a_sample_has_as_many_of_each_paradigm(archive):
    assert len(read_pairs(archive)) == 15
    assert [pair.paradigm for pair in read_pairs(archive, 7)] == [
        "a_one", "b_two", "c_three", "a_one", "b_two", "c_three", "a_one",
    ]  # fmt: skip
    assert read_pairs(archive, 100) == read_pairs(archive)


def test_a_folder_or_a_file_does_as_well(archive, tmp_path):
    with zipfile.ZipFile(archive) as file:
        file.extract("data/a_one.jsonl", tmp_path)
    folder = tmp_path / "data"
    assert read_pairs(folder) == read_pairs(folder / "a_one.jsonl")
    assert len(read_pairs(folder)) == 5


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("gone.zip", None, "cannot be read"),
        ("broken.zip", b"no zip", "cannot be read"),
        ("latin.jsonl", b"\xff\xfe\xff", "cannot be read"),
        ("empty.jsonl", b"\n", "holds no minimal pairs"),
        ("other.jsonl", b'{"prompt": "x"}\n', "line 1: not a minimal pair"),
        ("list.jsonl", b"[1]\n", "line 1: not a minimal pair"),
        ("half.jsonl", b'{"sentence_good": "x", "sentence_bad": ""}\n', "empty sentences"),
    ],
)
def test_what_holds_no_pairs_is_said(tmp_path, name, content, words):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(PromptError, match=words):
        read_pairs(tmp_path / name)


def test_a_batch_gives_what_single_sentences_give(chat):
    import torch

    together = log_likelihoods(chat, SENTENCES)
    for text, found in zip(SENTENCES, together, strict=True):
        ids = [chat.tokenizer.bos_token_id, *chat.tokenizer(text).input_ids]
        with torch.inference_mode():
            loss = chat.model(torch.tensor([ids]), labels=torch.tensor([ids])).loss
        assert found == pytest.approx(-float(loss) * (len(ids) - 1), rel=1e-4)


def test_the_likelier_sentence_of_a_pair_is_found_and_a_tie_is_wrong(chat, tmp_path):
    sums = log_likelihoods(chat, SENTENCES)
    likely, unlikely = sums.index(max(sums)), sums.index(min(sums))
    pairs = [(likely, unlikely), (unlikely, likely), (likely, likely)]
    lines = [
        json.dumps({"sentence_good": SENTENCES[good], "sentence_bad": SENTENCES[bad], "UID": "x"})
        for good, bad in pairs
    ]
    path = tmp_path / "three.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    counted = []
    assert judge_pairs(chat, read_pairs(path), counted.append) == [True, False, False]
    assert sum(counted) == 6


def test_a_tokenizer_without_a_first_token_is_refused(tmp_path):
    chat = load_chat_model(tiny_llama(tmp_path), Placement("cpu", "float32", ""), weights="w")
    chat.tokenizer.bos_token = chat.tokenizer.eos_token = None
    with pytest.raises(ModelError, match="neither a BOS nor an EOS"):
        log_likelihoods(chat, ["One."])


@pytest.mark.skipif(not BLIMP.exists(), reason="no text/blimp.zip in DEMUR_DATA")
def test_the_whole_of_blimp_is_read():
    pairs = read_pairs(BLIMP)
    assert len(pairs) == 67_000
    assert len({pair.paradigm for pair in pairs}) == 67
    assert len({pair.paradigm for pair in read_pairs(BLIMP, 67)}) == 67
