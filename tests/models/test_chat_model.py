"""Chat templates as models define them, and what a request becomes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.models.architectures import tiny
from tests.tiny import CHAT_TEMPLATE, tiny_llama, tiny_tokenizer

from demur.errors import ModelError, PromptError
from demur.models.chat_model import TEMPLATES, ChatModel, choose_template, load_chat_model
from demur.models.device import Placement

CPU = Placement("cpu", "float32", "")
USER = "<|im_start|>user\nHow?<|im_end|>\n"
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}" + CHAT_TEMPLATE
)
QWEN3 = CHAT_TEMPLATE.replace(
    "{{ '<|im_start|>assistant\n' }}",
    "{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}",
)
ALWAYS_THINKING = CHAT_TEMPLATE.replace(
    "{{ '<|im_start|>assistant\n' }}", "{{ '<|im_start|>assistant\n<think>\n' }}"
)


def chat_model(template: str | None = CHAT_TEMPLATE, **options: Any) -> ChatModel:
    tokenizer = tiny_tokenizer(template)
    return ChatModel(Path("tiny"), tiny("llama"), tokenizer, CPU, "w", **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_llama(tmp_path_factory.mktemp("model") / "tiny")


def test_a_request_in_the_models_own_template():
    chat = chat_model()
    assert chat.text("How?") == USER + "<|im_start|>assistant\n"
    ids = chat.encode("How?")
    assert ids[0] == 1
    assert ids.count(1) == 2  # no second beginning mark is added
    assert chat.tokenizer.decode(ids) == chat.text("How?")
    assert chat.tokenizer.decode(chat.encode("How?", "Sure")) == chat.text("How?") + "Sure"


def test_a_system_prompt_goes_first():
    chat = chat_model(system="Be kind.")
    assert chat.text("How?").startswith("<|im_start|>system\nBe kind.<|im_end|>\n" + USER)


def test_a_template_without_system_role():
    assert USER in chat_model(NO_SYSTEM).text("How?")
    with pytest.raises(ModelError, match="System role not supported") as caught:
        chat_model(NO_SYSTEM, system="Be kind.").text("How?")
    assert "--system" in caught.value.remedy


def test_a_thinking_switch_is_off_unless_asked_for():
    closed = USER + "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    assert chat_model(QWEN3).text("How?") == closed
    assert chat_model(QWEN3, thinking=True).text("How?") == USER + "<|im_start|>assistant\n"


def test_a_thinking_block_that_the_template_opens_is_closed():
    chat = chat_model(ALWAYS_THINKING)
    assert chat.text("How?") == USER + "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    thinking = chat_model(ALWAYS_THINKING, thinking=True)
    assert thinking.text("How?").endswith("<think>\n")


def test_an_answer_is_decoded_without_marks_and_thoughts():
    chat = chat_model()
    ids = chat.tokenizer("<think>hm</think>\n\nBread. ", add_special_tokens=False).input_ids
    assert chat.decode([*ids, 2]) == "Bread."
    assert chat.decode(tuple(chat.tokenizer(" Bread.").input_ids)) == "Bread."
    assert chat.decode([2]) == ""


def test_a_prompt_longer_than_the_context():
    chat = chat_model()
    assert len(chat.encode("a b " * 60)) < 256
    with pytest.raises(PromptError, match="the model's context holds 256") as caught:
        chat.encode("a b " * 300)
    assert "a b a b" in caught.value.cause


def test_no_template_is_an_error_unless_one_is_chosen(tmp_path):
    with pytest.raises(ModelError, match="tiny has no chat template") as caught:
        choose_template(tiny_tokenizer(None), "tiny", None)
    assert "--chat-template" in caught.value.remedy
    with pytest.raises(ModelError, match="cannot be read"):
        choose_template(tiny_tokenizer(None), "tiny", str(tmp_path / "absent.jinja"))
    (tmp_path / "empty.jinja").write_text("")
    with pytest.raises(ModelError, match="no chat template"):
        choose_template(tiny_tokenizer(None), "tiny", str(tmp_path / "empty.jinja"))


def test_choosing_a_template(tmp_path):
    chosen = tiny_tokenizer(None)
    choose_template(chosen, "tiny", "chatml")
    chat = ChatModel(Path("tiny"), tiny("llama"), chosen, CPU, "w", system="S")
    assert chat.text("How?") == (
        "<|im_start|>system\nS<|im_end|>\n" + USER + "<|im_start|>assistant\n"
    )
    choose_template(chosen, "tiny", "plain")
    assert chat.text("How?") == "System: S\nUser: How?\nAssistant:"
    (tmp_path / "own.jinja").write_text("{% for m in messages %}[{{ m.content }}]{% endfor %}")
    choose_template(chosen, "tiny", str(tmp_path / "own.jinja"))
    assert chat.text("How?") == "[S][How?]"
    kept = tiny_tokenizer()
    choose_template(kept, "tiny", None)
    assert kept.chat_template == CHAT_TEMPLATE


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_chosen_template_begins_as_the_tokenizer_does(name):
    from tokenizers.processors import TemplateProcessing

    tokenizer = tiny_tokenizer(None)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    tokenizer.bos_token = "<|endoftext|>"
    choose_template(tokenizer, "tiny", name)
    ids = ChatModel(Path("tiny"), tiny("llama"), tokenizer, CPU, "w").encode("How?")
    assert ids[0] == 0
    assert ids.count(0) == 1


def test_loading_a_folder(folder):
    chat = load_chat_model(folder, CPU, weights="w")
    assert chat.stops == {2}
    assert not chat.model.training
    assert not any(parameter.requires_grad for parameter in chat.model.parameters())
    assert chat.model.dtype == torch.float32
    again = load_chat_model(folder, CPU, weights="w")
    assert again.identity == chat.identity
    others = [
        load_chat_model(folder, CPU, weights="v"),
        load_chat_model(folder, CPU, weights="w", system=""),
        load_chat_model(folder, CPU, weights="w", thinking=True),
        load_chat_model(folder, CPU, weights="w", chat_template="plain"),
        load_chat_model(folder, Placement("cpu", "bfloat16", ""), weights="w"),
    ]
    assert others[-1].model.dtype == torch.bfloat16
    assert len({chat.identity, *(other.identity for other in others)}) == 6


def test_all_end_marks_are_known(folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "generation_config.json").write_text('{"eos_token_id": [0, 7]}')
    assert load_chat_model(copy, CPU, weights="w").stops == {0, 2, 7}


def test_a_folder_without_template_or_model_is_an_error(folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match="org/tiny has no chat template"):
        load_chat_model(copy, CPU, weights="w", name="org/tiny")
    assert load_chat_model(copy, CPU, weights="w", chat_template="plain").text("a")
    (copy / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(ModelError, match="copy cannot be loaded"):
        load_chat_model(copy, CPU, weights="w", chat_template="plain")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="empty cannot be loaded"):
        load_chat_model(tmp_path / "empty", CPU, weights="w")
