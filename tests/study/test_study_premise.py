"""Security and the premise on sources whose figures are known by construction."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from demur.stats import paired
from demur.study.patterns import describe, rarefied_to, refusals_of
from demur.study.premise import conclusion, premise_tests, same_requests
from demur.study.security import security
from demur.study.source import Entry, Source
from demur.wording.embeddings import TfIdf

REFUSALS = (
    "I can't help with that.",
    "As an AI I will not do so.",
    "That would be wrong, so I must decline.",
    "Sorry, but no help from me today.",
    "My answer is that I cannot comply.",
)


def source(name: str, direct: Sequence[str], forced: int, *, requests: str = "r") -> Source:
    """A source that refuses 20 requests with phrases in turn, `forced` of them under prefill."""
    n = 20
    entries = [Entry(f"{requests}{i}", direct[i % len(direct)], "harmful") for i in range(n)]
    entries += [Entry(f"{requests}benign{i}", "Yes, of course.", "benign") for i in range(n)]
    entries += [
        Entry(f"{requests}{i}", REFUSALS[0] if i < forced else "Step one.", "harmful", "prefill")
        for i in range(n)
    ]
    return Source(name, "run", "Made for a test.", tuple(entries))


def outcomes(one: Source) -> list[str]:
    return ["refused" if entry.answer in REFUSALS else "complied" for entry in one.entries]


@pytest.fixture(scope="module")
def sources() -> list[Source]:
    """Five sources: the more uniform the openings, the fewer refusals hold under prefill."""
    return [source(f"s{k}", REFUSALS[:k], forced=4 * k - 3) for k in range(1, 6)]


def test_uniform_and_brittle_is_found_where_it_is(sources: list[Source]) -> None:
    gathered = [refusals_of(each, outcomes(each), 4) for each in sources]
    assert rarefied_to(gathered) == 20
    found, _ = describe(gathered, TfIdf(), 4)
    values = [each.uniformity["openings"].uniformity.value for each in found]  # type: ignore[union-attr]
    assert values == sorted(values, reverse=True) and values[0] == 1
    tests = {test.key: test for test in premise_tests(sources, found)}
    held = tests["openings/prefill"]
    assert held.correlation.rho == pytest.approx(-1)
    assert held.correlation.p_value == pytest.approx(2 / math.factorial(5))
    assert held.expected == "negative" and held.reading == "opposite"
    assert held.adjusted_p == pytest.approx(2 * 2 / math.factorial(5)), "clusters are tested too"
    said = " ".join(conclusion(list(tests.values())))
    assert "significant after correction" in said and "2 tests were made" in said
    assert math.isnan(tests["openings/harmful"].correlation.rho), "all refuse everything"


def test_what_cannot_be_tested_is_said(sources: list[Source]) -> None:
    direct = [
        Source(s.name, s.how, s.origin, tuple(e for e in s.entries if e.attack == "direct"))
        for s in sources
    ]
    # each answers one harmful request more than the one before it
    gathered = [
        refusals_of(s, ["complied"] * place + ["refused"] * (20 - place) + ["complied"] * 20, 4)
        for place, s in enumerate(direct)
    ]
    found, _ = describe(gathered, TfIdf(), 4)
    said = conclusion(premise_tests(direct, found))
    assert any(
        "refusals that hold under prefill" in line and "0 here have both" in line for line in said
    )


def test_security_and_what_holds_by_opening() -> None:
    one = source("s", (REFUSALS[0], REFUSALS[0], REFUSALS[1], "Yes."), forced=7)
    refused = [each == "refused" for each in outcomes(one)]
    found = security(one, refused, "i cannot help with", 4)
    assert (found.harmful.count, found.harmful.n, found.benign.count) == (15, 20, 0)
    assert (found.overall.n, found.prefill.count) == (40, 7)
    assert found.templates.n == 0 and math.isnan(found.templates.value)
    # of the first seven requests, the fourth was answered when direct
    assert (found.held.count, found.held.n) == (6, 15)
    assert (found.held_commonest.count, found.held_commonest.n) == (4, 10)
    assert (found.held_others.count, found.held_others.n) == (2, 5)
    direct, forced = refused[:20], refused[40:]
    assert found.drop == paired(forced, direct) and found.drop.value == pytest.approx(0.4)


def test_the_largest_group_that_was_asked_the_same(sources: list[Source]) -> None:
    other = [source("t", REFUSALS, 3, requests="other"), source("u", REFUSALS, 3, requests="other")]
    assert same_requests([other[0], *sources[:3], other[1]]) == [1, 2, 3]
    unknown = Source("v", "recorded", "Made.", (Entry("x", "No."),))
    assert same_requests([unknown, unknown]) == []
    gathered = [refusals_of(each, outcomes(each), 4) for each in (*sources[:3], *other)]
    found, _ = describe(gathered, TfIdf(), 4)
    scopes = {test.scope for test in premise_tests([*sources[:3], *other], found)}
    assert scopes == {"all sources", "same requests"}
