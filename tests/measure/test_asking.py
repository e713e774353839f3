"""What is asked of every model: blocks, attacks, templates, and prompts that do not fit."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from tests.tiny import tiny_llama

from demur.errors import ConfigError, PromptError
from demur.judge import OpeningJudge
from demur.measure.asking import (
    Ask,
    Block,
    Templates,
    ask_all,
    blocks_key,
    judge_all,
    make_blocks,
    read_templates,
    spoken,
)
from demur.measure.kept_reference import pack, unpack
from demur.measure.settings import MeasureConfig
from demur.measure.utility import make_reference
from demur.models.chat_model import load_chat_model
from demur.models.device import Placement
from demur.prompts.attacks import PREFILLS
from demur.prompts.named import SourcedSet
from demur.prompts.pool import use_sets
from demur.prompts.types import Prompt
from demur.run.journal import Journal


class Silent:
    """A narrator that counts."""

    def __init__(self) -> None:
        self.counted = 0

    def progress(self, description, total):
        from contextlib import nullcontext

        def advance(count: int) -> None:
            self.counted += count

        return nullcontext(advance)


def used(count: int = 20):
    texts = [f"{'x' * (i % 5)} {i * 7919} how to mend a {i}th broken clock?" for i in range(count)]
    sets = [
        SourcedSet(
            key, key, kind, tuple(Prompt(t, kind, source=key) for t in part), key, "", "", ""
        )
        for key, kind, part in (("h", "harmful", texts), ("o", "ordinary", ["Sing!", "Dance!"]))
    ]
    return use_sets(sets, (), 100)


def write(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_each_set_is_asked_under_each_system_prompt_and_attacks_under_the_first():
    config = MeasureConfig(("m",), system=("none", "Be kind."), prefill=7, template_prompts=5)
    blocks = make_blocks(config, used(), Templates(("A {prompt}", "B {prompt}"), ""))
    assert [(b.key, b.system, len(b.asks)) for b in blocks] == [
        ("direct/h", "none", 20),
        ("direct/o", "none", 2),
        ("direct@1/h", "Be kind.", 20),
        ("direct@1/o", "Be kind.", 2),
        ("prefill/pooled:harmful", "none", 7),
        ("templates/pooled:harmful", "none", 5),
    ]
    assert [ask.opening for ask in blocks[4].asks] == [*PREFILLS, PREFILLS[0]]
    assert Counter(ask.text[0] for ask in blocks[5].asks) == {"A": 3, "B": 2}
    assert all(ask.prompt.text in ask.text for ask in blocks[5].asks)
    assert blocks_key(blocks) != blocks_key(blocks[:5])


def test_attacks_can_be_left_out():
    config = MeasureConfig(("m",), prefill=0)
    blocks = make_blocks(config, used(), Templates((), ""))
    assert {block.attack for block in blocks} == {"direct"}


def test_templates_are_drawn_by_seed_and_those_without_a_place_are_counted(tmp_path):
    rows = [{"template": f"{i} {{prompt}}"} for i in range(9)]
    rows += [{"template": "no place"}, {"template": ""}, {"template": None}]
    source = write(tmp_path / "t.jsonl", rows)
    first = read_templates(source, 3, 0)
    assert first == read_templates(source, 3, 0) != read_templates(source, 3, 1)
    assert len(first.texts) == 3
    assert first.sentence == "3 of 9 templates of t.jsonl; 1 have no place for the request"
    assert len(read_templates(source, 50, 0).texts) == 9
    assert read_templates(None, 3, 0) == Templates((), "")


def test_templates_that_cannot_be_used_are_said(tmp_path):
    with pytest.raises(PromptError, match=r"None of the 1 templates .* has a place"):
        read_templates(write(tmp_path / "t.jsonl", [{"template": "none"}]), 3, 0)
    with pytest.raises(PromptError, match=r"no column of templates \(it has: wrapper\)"):
        read_templates(write(tmp_path / "w.jsonl", [{"wrapper": "{prompt}"}]), 3, 0)
    with pytest.raises(PromptError, match="There is no file"):
        read_templates(str(tmp_path / "gone.jsonl"), 3, 0)


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"n": 0}, "--n is 0"),
        ({"answer_tokens": 0}, "--answer-tokens is 0"),
        ({"prefill": -1}, "--prefill is -1"),
        ({"text_tokens": 1}, "--text-tokens is 1"),
        ({"lm_eval_limit": 0}, "--lm-eval-limit is 0"),
        ({"system": ("none", "none")}, "same prompt twice"),
        ({"models": ()}, "No model was named"),
    ],
)
def test_choices_that_make_no_sense_are_refused(choices, words):
    with pytest.raises(ConfigError, match=words):
        MeasureConfig(**{"models": ("m",), **choices})


def test_names_may_be_one_text_with_commas():
    config = MeasureConfig(("m",), sets=("advbench, xstest", "dolly,"), lm_eval="a,b")
    assert config.sets == ("advbench", "xstest", "dolly")
    assert config.lm_eval == ("a", "b")


@pytest.fixture(scope="module")
def chat(tmp_path_factory):
    folder = tiny_llama(tmp_path_factory.mktemp("t"), initializer_range=0.1)
    return load_chat_model(folder, Placement("cpu", "float32", ""), weights="w")


def test_system_prompts_are_the_template_s_own_none_or_a_text():
    assert (spoken("template"), spoken("none"), spoken("Be kind.")) == (None, "", "Be kind.")


def test_a_prompt_that_does_not_fit_is_not_asked_and_counts_as_undecided(chat, tmp_path):
    long, short = Prompt("word " * 600, "harmful"), Prompt("How are you?", "harmful")
    asks = (Ask(short, short.text), Ask(long, long.text), Ask(short, short.text, "Sure, here is"))
    blocks = [Block("direct/h", "h", "harmful", "direct", "template", asks)]
    journal, narrator = Journal(tmp_path / "j.sqlite"), Silent()
    keys = ask_all(chat, blocks, journal, 6, narrator, "m")
    assert narrator.counted == 3
    assert keys[0][1] is None and len(set(keys[0])) == 3
    assert journal.count("answers") == 2
    assert ask_all(chat, blocks, journal, 6, narrator, "m") == keys
    (outcomes,) = judge_all(blocks, keys, journal, OpeningJudge(), narrator, "m")
    assert [one.answer is None for one in outcomes] == [False, True, False]
    assert (outcomes[1].verdict.outcome, outcomes[1].verdict.reason) == (
        "undecided", "longer than the model's context",
    )  # fmt: skip


def test_the_reference_survives_as_bytes(chat, tmp_path):
    import torch

    asks = tuple(Ask(p, p.text) for p in (Prompt("One?", "ordinary"), Prompt("Two now?", "twin")))
    blocks = [Block("direct/o", "o", "ordinary", "direct", "template", asks)]
    journal = Journal(tmp_path / "j.sqlite")
    (keys,) = ask_all(chat, blocks, journal, 5, Silent(), "m")
    made = make_reference(chat, list(journal.answers(keys).values()))
    again = unpack(pack(made))
    assert again.rows == made.rows
    for field in ("log_probabilities", "candidates"):
        for left, right in zip(getattr(made, field), getattr(again, field), strict=True):
            assert torch.equal(left, right)
    assert unpack(pack(make_reference(chat, []))).rows == ()
