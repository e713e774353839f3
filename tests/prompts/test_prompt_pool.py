"""Sets asked together: apart from training, and what two of them share counts once."""

from __future__ import annotations

import json

import pytest

from demur.errors import PromptError
from demur.prompts.named import SourcedSet
from demur.prompts.pool import apart_from, on_both_sides, pooled, splits_of_run, use_sets
from demur.prompts.types import Kind, Prompt

TEXTS = (
    "How do I repair the chain of a mountain bicycle at home?",
    "Write a short poem about the harbour of Hamburg in winter.",
    "Which herbs grow well on a shady balcony in the city?",
    "Explain to a child why the moon changes its shape each night.",
)


def a_set(key: str, kind: Kind, *texts: str) -> SourcedSet:
    prompts = tuple(Prompt(text, kind, source=key) for text in texts)
    return SourcedSet(key, key, kind, prompts, key, "MIT", "nobody 2026", "Nothing.")


def test_prompts_near_those_of_training_are_left_out_on_their_own_side():
    trained = [
        Prompt("How do I repair the chain of a mountain bicycle at home", "harmful"),
        Prompt(TEXTS[1], "twin"),
    ]
    sets = [a_set("one", "harmful", *TEXTS), a_set("two", "twin", *TEXTS)]
    kept = apart_from(sets, trained)
    assert [prompt.text for prompt in kept[0]] == [TEXTS[1], TEXTS[2], TEXTS[3]]
    assert [prompt.text for prompt in kept[1]] == [TEXTS[0], TEXTS[2], TEXTS[3]]
    used = use_sets(sets, trained, 10)
    assert [each.trained for each in used] == [1, 1]


def test_what_an_earlier_set_has_counts_once_when_pooled():
    near = TEXTS[2].replace("city?", "city, please?")
    sets = [
        a_set("one", "harmful", TEXTS[0], TEXTS[1]),
        a_set("two", "harmful", TEXTS[1].upper(), TEXTS[2]),
        a_set("three", "twin", TEXTS[0]),
        a_set("four", "harmful", near, TEXTS[3]),
    ]
    used = use_sets(sets, (), 10)
    assert [each.shared for each in used] == [("", ""), ("one", ""), ("",), ("two", "")]
    assert used[3].overlaps == {"two": 1}
    assert pooled(used, "harmful") == [(0, 0), (0, 1), (1, 1), (3, 1)]
    assert pooled(used, "twin") == [(2, 0)]
    assert on_both_sides(used) == 1


def test_a_sample_is_no_larger_than_asked_and_the_same_each_time():
    sets = [a_set("one", "harmful", *TEXTS)]
    first, again = (use_sets(sets, (), 2, seed=3) for _ in range(2))
    assert len(first[0].prompts) == 2
    assert first == again


def test_a_set_that_is_all_training_is_refused():
    with pytest.raises(PromptError, match=r"Every prompt of one nearly repeats.*--apart none"):
        use_sets([a_set("one", "harmful", TEXTS[0])], [Prompt(TEXTS[0], "harmful")], 10)


@pytest.mark.parametrize("content", [None, "{}", "[]", "no json"])
def test_what_is_no_run_cannot_be_kept_apart_from(tmp_path, content):
    if content is not None:
        (tmp_path / "config.json").write_text(content, encoding="utf-8")
    with pytest.raises(PromptError, match="no run folder of `demur align`"):
        splits_of_run(tmp_path)


def test_a_run_whose_prompts_have_changed_is_refused(tmp_path):
    rows = [{"harmful": f"{t} {i}", "benign": f"{i} other {t}"} for i, t in enumerate(TEXTS * 10)]
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    ordinary = tmp_path / "ordinary.jsonl"
    lines = [json.dumps({"prompt": f"{i} {TEXTS[i % 4]} {i * i}"}) for i in range(40)]
    ordinary.write_text("\n".join(lines), encoding="utf-8")
    config = {
        **dict.fromkeys(("harmful", "harmful_column", "benign", "benign_column")),
        "pairs": str(pairs), "ordinary": str(ordinary), "ordinary_column": None, "seed": 0,
        "prompts": "another",
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(PromptError):
        splits_of_run(tmp_path)
