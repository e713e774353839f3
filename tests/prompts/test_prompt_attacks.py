"""Attack wrappers: prefills and templates."""

from __future__ import annotations

import pytest

from demur.errors import PromptError
from demur.prompts import PREFILLS, Prompt, prefill_for, templated, with_template


def test_prefills_are_a_few_distinct_clean_openings():
    assert 3 <= len(PREFILLS) == len(set(PREFILLS)) <= 12
    assert all(text == text.strip() and len(text) < 80 for text in PREFILLS)
    assert [prefill_for(i) for i in range(len(PREFILLS))] == list(PREFILLS)
    assert prefill_for(len(PREFILLS)) == PREFILLS[0]


@pytest.mark.parametrize(
    "place",
    [
        "{prompt}",
        "{{ Prompt }}",
        "{question}",
        "[INSERT PROMPT HERE]",
        "[insert your prompt here]",
        "[Your question]",
        "[PROMPT]",
    ],
)
def test_with_template_fills_every_kind_of_place(place):
    assert with_template("Why?", f"Play a pirate. {place} Arr.") == "Play a pirate. Why? Arr."


def test_with_template_leaves_other_braces_and_odd_signs_alone():
    template = 'Answer as {"json": [1, 2]} to {prompt} and again {prompt}'
    assert with_template(r"\1 {prompt} %s", template) == (
        r'Answer as {"json": [1, 2]} to \1 {prompt} %s and again \1 {prompt} %s'
    )


@pytest.mark.parametrize("template", ["", "no place", "{prompts}", "[1]", "{}"])
def test_a_template_without_place_is_refused(template):
    with pytest.raises(PromptError, match="has no place for the request") as caught:
        with_template("Why?", template)
    assert "{prompt}" in caught.value.remedy


def test_templated_changes_the_text_only():
    prompt = Prompt("Why?", "harmful", "h", "homonym", "p", "b", "mine")
    (wrapped,) = templated([prompt], "Say: {prompt}")
    assert wrapped == Prompt("Say: Why?", "harmful", "h", "homonym", "p", "b", "mine")
    assert wrapped.key != prompt.key
