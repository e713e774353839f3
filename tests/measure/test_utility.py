"""Perplexity and divergence against what they are defined to be."""

from __future__ import annotations

import math
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.models.architectures import tiny
from tests.tiny import TEXT, tiny_tokenizer

from demur.errors import PromptError
from demur.measure import utility
from demur.measure.utility import (
    Text,
    divergence,
    load_text,
    make_reference,
    negative_log_likelihoods,
    perplexity,
    perplexity_ratio,
)
from demur.models.chat_model import ChatModel
from demur.models.device import Placement
from demur.models.generation import Decoding, answer
from demur.run.journal import Answer, Journal

PROMPTS = ["How do I bake bread?", "Why?", "Tell me what the weather is like in the mountains."]


def chat_model(model: Any) -> ChatModel:
    placement = Placement("cpu", "float32", "")
    return ChatModel(Path("tiny"), model, tiny_tokenizer(), placement, "w", _stops=frozenset({2}))


def disturbed(model: Any, size: float) -> Any:
    other = deepcopy(model)
    generator = torch.Generator().manual_seed(0)
    for parameter in other.parameters():
        parameter.data += size * torch.randn(parameter.shape, generator=generator)
    return other


@pytest.fixture(scope="module")
def answers(tmp_path_factory) -> list[Answer]:
    journal = Journal(tmp_path_factory.mktemp("run") / "journal.sqlite")
    return answer(chat_model(tiny("llama")), PROMPTS, journal, Decoding(8))


def direct_kl(one: Any, other: Any, answers: list[Answer]) -> list[float]:
    """Return the exact mean KL a token of each answer, one row at a time, without padding."""
    values = []
    for each in answers:
        prompt = chat_model(one).encode(each.prompt)
        ids = torch.tensor([[*prompt, *each.tokens]])
        first, second = (
            model(ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1) for model in (one, other)
        )
        values.append(float((first.exp() * (first - second)).sum(-1).mean()))
    return values


@pytest.mark.parametrize("name", ["llama", "gpt2", "mpt"])
def test_perplexity_is_the_exponential_of_the_mean_loss(name):
    chat = chat_model(tiny(name))
    text = Text("text", TEXT * 8)
    ids = torch.tensor([chat.tokenizer(text.content).input_ids])
    width = 256
    assert ids.shape[1] > 2 * width
    total, count = 0.0, ids.shape[1] // width
    for start in range(0, count * width, width):
        window = ids[:, start : start + width]
        total += float(chat.model(window, labels=window).loss)
    advanced: list[int] = []
    losses = negative_log_likelihoods(chat, text, advance=advanced.append)
    assert len(losses) == count == sum(advanced)
    assert perplexity(losses) == pytest.approx(math.exp(total / count), rel=1e-4)


def test_only_the_beginning_of_a_text_is_read_and_short_ones_whole():
    chat = chat_model(tiny("llama"))
    long = negative_log_likelihoods(chat, Text("text", TEXT * 8), tokens=512)
    assert long == negative_log_likelihoods(chat, Text("text", TEXT * 8))[:2]
    assert len(negative_log_likelihoods(chat, Text("text", TEXT))) == 1
    assert len(negative_log_likelihoods(chat, Text("text", "Bread and butter"))) == 1
    with pytest.raises(PromptError, match="fewer than two tokens"):
        negative_log_likelihoods(chat, Text("text", "a"))


def test_perplexity_ratio_is_paired():
    before, after = [2.0, 3.0, 4.0], [2.1, 3.1, 4.1]
    ratio = perplexity_ratio(before, after)
    assert ratio.value == pytest.approx(math.exp(0.1))
    assert ratio.low == pytest.approx(ratio.value)
    assert ratio.high == pytest.approx(ratio.value)
    assert ratio.n == 3
    with pytest.raises(ValueError):
        perplexity_ratio([1.0], [1.0, 2.0])


def test_the_same_model_diverges_from_itself_by_nothing(answers):
    chat = chat_model(tiny("llama"))
    values = divergence(chat, make_reference(chat, answers))
    assert values == pytest.approx([0.0] * len(PROMPTS), abs=1e-5)


@pytest.mark.parametrize("size", [0.01, 0.1])
def test_divergence_is_the_exact_one_where_the_whole_vocabulary_is_kept(answers, size):
    chat = chat_model(tiny("llama"))
    other = disturbed(chat.model, size)
    values = divergence(chat_model(other), make_reference(chat, answers))
    exact = direct_kl(chat.model, other, answers)
    assert min(values) > 0
    assert values == pytest.approx(exact, rel=1e-2, abs=1e-4)


def test_the_top_and_one_bucket_bound_the_divergence_from_below(answers, monkeypatch):
    chat = chat_model(tiny("llama"))
    other = disturbed(chat.model, 0.1)
    exact = direct_kl(chat.model, other, answers)
    closer = [0.0] * len(exact)
    for top in (2, 20, 100):
        monkeypatch.setattr(utility, "TOP", top)
        reference = make_reference(chat, answers)
        assert {values.shape[1] for values in reference.candidates} == {top}
        values = divergence(chat_model(other), reference)
        for value, bound, earlier in zip(values, exact, closer, strict=True):
            assert earlier - 1e-5 <= value <= bound + 1e-5
            assert value > 0
        closer = values
    assert sum(closer) > 0.5 * sum(exact)


def test_empty_answers_are_left_out(answers):
    chat = chat_model(tiny("llama"))
    empty = Answer("k", "Nothing?", "", (), False)
    reference = make_reference(chat, [empty, *answers])
    assert len(reference.rows) == len(answers)
    assert make_reference(chat, []).rows == ()
    assert divergence(chat, make_reference(chat, [])) == []


def test_texts(tmp_path):
    built_in = load_text(None)
    assert built_in.name == "built-in passages"
    assert len(built_in.content.split()) > 1000
    file = tmp_path / "own.txt"
    file.write_text("Bread.", encoding="utf-8")
    assert load_text(str(file)) == Text("own.txt", "Bread.")
    file.write_text(" \n")
    with pytest.raises(PromptError, match="is empty"):
        load_text(str(file))
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PromptError, match="cannot be read"):
        load_text(str(file))
    with pytest.raises(PromptError, match="cannot be read"):
        load_text(str(tmp_path / "absent.txt"))
