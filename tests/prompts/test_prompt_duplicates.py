"""Near-duplicates: found exactly, fast, and in a fixed order."""

from __future__ import annotations

import random
import time

import pytest

from demur.prompts.duplicates import near_duplicates, normalise, similarity

WORDS = ["how", "do", "i", "make", "a", "cake", "for", "my", "friend", "in", "an", "hour", "now"]


def sentences(n: int, seed: int, vocabulary: list[str] = WORDS) -> list[str]:
    generator = random.Random(seed)
    return [" ".join(generator.choices(vocabulary, k=generator.randint(1, 12))) for _ in range(n)]


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("Don\u2019t  STOP -- now!", "dont stop now"),
        ("\ufb01re", "FIRE"),
        ("Stra\u00dfe_1", "strasse 1"),
        ("  \n", ""),
    ],
)
def test_normalise_makes_equal(left, right):
    assert normalise(left) == normalise(right)
    assert similarity(left, right) == 1.0


def test_similarity_of_unlike_and_of_slightly_changed_texts():
    assert similarity("How do I bake a loaf?", "Where is the station?") == 0.0
    changed = similarity(
        "Write a short letter to my landlord about the broken boiler in the flat.",
        "Write a short letter to my landlord about the brokn boiler in the flat",
    )
    assert 0.8 < changed < 1.0


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.6, 0.9, 1.0])
def test_index_finds_exactly_what_comparing_all_finds(threshold):
    left, right = sentences(60, 1), sentences(50, 2)
    expected = [
        (i, j)
        for i in range(len(left))
        for j in range(len(right))
        if similarity(left[i], right[j]) >= threshold
    ]
    found = near_duplicates(left, right, threshold)
    assert [(i, j) for i, j, _ in found] == expected
    for i, j, value in found:
        assert value == pytest.approx(similarity(left[i], right[j]))


def test_inside_one_list_each_pair_comes_once():
    texts = [
        "Say hello to my dog.",
        "Nothing alike here",
        "say hello to my dog",
        "Say hello, to my dog",
    ]
    assert [(i, j) for i, j, _ in near_duplicates(texts, None, 0.9)] == [(0, 2), (0, 3), (2, 3)]


def test_empty_lists_and_empty_texts_are_no_duplicates():
    assert near_duplicates([], ["a"]) == []
    assert near_duplicates(["a"], []) == []
    assert near_duplicates(["...", "?"], None) == []


@pytest.mark.parametrize("threshold", [0.0, -1.0, 1.1])
def test_threshold_outside_its_range_is_refused(threshold):
    with pytest.raises(ValueError, match="threshold"):
        near_duplicates(["a"], ["b"], threshold)


def test_five_thousand_prompts_take_seconds():
    letters = random.Random(4)
    vocabulary = ["".join(letters.choices("aeioulmnrst", k=6)) for _ in range(4000)]
    texts = [f"write a {text} for me" for text in sentences(5000, 3, vocabulary)]
    start = time.process_time()
    near_duplicates(texts, None, 0.6)
    assert time.process_time() - start < 8  # 2 s on an idle core; the rest is for a busy one
