"""The premise, put to the sources: does uniformity go with security, or with brittleness?

Paper (arXiv 2406.11285): models with a uniform refusal pattern are more secure, so that uniformity
should go with harmful requests refused. Opposite ("shallow alignment", arXiv 2406.05946): a fixed
opening is all that stands between a prefill and the harm, so that the share of refusals that hold
under prefill should go *down* with uniformity. Control: if uniformity goes with refusing benign
requests as well, it goes with refusing, not with security; and with the difference of the two
rates, it goes with telling harmful from benign.

All tests are named here before any data is seen, all are counted, and Holm's correction is over all
that could be made. Each is made over all sources, and again over the largest group that was asked
the same harmful requests, where it is smaller: sources that were asked other things differ by that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from demur.study.correlation import correlate, holm
from demur.study.findings import PremiseTest, SourceFindings
from demur.study.source import Source

LEAST = 10  # refusals from which a source has uniformity, and a share that holds
SAME = 0.9  # of the harmful requests of both, for two sources to have been asked the same
_Figure = Callable[[SourceFindings], float]


def _uniform(pattern: str) -> _Figure:
    def figure(source: SourceFindings) -> float:
        found = source.uniformity[pattern]
        return found.uniformity.value if found is not None else math.nan

    return figure


def _held(source: SourceFindings) -> float:
    held = source.security.held
    return held.value if held.n >= LEAST else math.nan


def _told_apart(source: SourceFindings) -> float:
    return source.security.harmful.value - source.security.benign.value


OPENINGS, CLUSTERS = "uniformity of openings", "uniformity of clusters"
_FIRST: Mapping[str, _Figure] = {OPENINGS: _uniform("openings"), CLUSTERS: _uniform("clusters")}
_SECOND: tuple[tuple[str, str, str, _Figure, str], ...] = (
    (
        "harmful",
        "paper",
        "harmful requests refused",
        lambda s: s.security.harmful.value,
        "positive",
    ),
    ("prefill", "opposite", "refusals that hold under prefill", _held, "negative"),
    (
        "templates",
        "opposite",
        "harmful requests refused inside templates",
        lambda s: s.security.templates.value,
        "negative",
    ),
    ("benign", "control", "benign requests refused", lambda s: s.security.benign.value, "none"),
    ("apart", "control", "harmful less benign refused", _told_apart, "none"),
)


def premise_tests(
    sources: Sequence[Source], found: Sequence[SourceFindings], seed: int = 0
) -> tuple[PremiseTest, ...]:
    """Return all tests, over all sources and over those that were asked the same; see above."""
    scopes = {"all sources": list(found)}
    group = same_requests(sources)
    if 3 <= len(group) < len(found):
        scopes["same requests"] = [found[place] for place in group]
    tests: list[PremiseTest] = []
    for scope, members in scopes.items():
        for first, x in _FIRST.items():
            for key, reading, second, y, expected in _SECOND:
                xs, ys = [x(each) for each in members], [y(each) for each in members]
                names = tuple(
                    each.name
                    for each, a, b in zip(members, xs, ys, strict=True)
                    if not math.isnan(a + b)
                )
                name = f"{first.rsplit(maxsplit=1)[-1]}/{key}"
                test = correlate(xs, ys, seed)
                tests.append(
                    PremiseTest(
                        name, reading, first, second, expected, scope, names, test, math.nan
                    )
                )
    adjusted = holm([test.correlation.p_value for test in tests])
    return tuple(replace(test, adjusted_p=p) for test, p in zip(tests, adjusted, strict=True))


def same_requests(sources: Sequence[Source]) -> list[int]:
    """Return the places of the largest group of sources whose harmful requests are the same."""
    asked = [frozenset(e.prompt for e in source.of("direct", "harmful")) for source in sources]
    best: list[int] = []
    for first in asked:
        group = [
            place
            for place, other in enumerate(asked)
            if first and len(first & other) >= SAME * len(first | other)
        ]
        best = max(best, group, key=len)
    return best


def conclusion(tests: Sequence[PremiseTest]) -> tuple[str, ...]:
    """Return what the tests allow to say, a sentence each; nothing is claimed from a mere sign."""
    made = [test for test in tests if not math.isnan(test.correlation.rho)]
    if not made:
        return (
            "No correlation can be computed: it needs at least three sources with at least "
            f"{LEAST} refusals each, of which security is known.",
        )
    said = [_sentence(test) for test in made if test.reading != "control"]
    said += _untested(tests)
    said += [_sentence(test) for test in made if test.reading == "control"]
    n = max(test.correlation.n for test in made)
    least, power = made[0].correlation.significant_from, made[0].correlation.detectable
    for test in made:
        if test.correlation.n == n:
            least, power = test.correlation.significant_from, test.correlation.detectable
    said.append(
        f"With {n} sources no correlation below {least:.2f} can be called significant even alone, "
        f"and only one of {power:.2f} would be found in four studies of five: that nothing is "
        "found says little."
        if not math.isnan(least)
        else f"With {n} sources no correlation whatever can be significant at 5 %."
    )
    tested = sum(not math.isnan(test.correlation.p_value) for test in tests)
    said.append(
        f"{tested} tests were made; p-values are also given corrected for that many (Holm)."
        if tested > 1
        else "One test was made."
    )
    return tuple(said)


def _untested(tests: Sequence[PremiseTest]) -> list[str]:
    """Return what could not be put to these sources, and why."""
    return [
        f"The {test.reading} reading, {test.first} and {test.second}, could not be tested: it "
        f"needs three sources that differ, and {test.correlation.n} here have both figures."
        for test in tests
        if math.isnan(test.correlation.rho)
        and (test.reading, test.scope) == ("opposite", "all sources")
        and test.first == OPENINGS
    ]


def _sentence(test: PremiseTest) -> str:
    found = test.correlation
    agrees = {"positive": found.rho > 0, "negative": found.rho < 0}.get(test.expected)
    reading = {
        "paper": "the paper's reading expects a positive sign",
        "opposite": "the opposite reading expects a negative sign",
        "control": "a control",
    }[test.reading]
    if test.adjusted_p <= 0.05:
        verdict = "significant after correction"
    elif found.p_value <= 0.05:
        verdict = "significant alone, not after correction"
    else:
        verdict = "not significant"
    sign = "" if agrees is None else ("; it is so" if agrees else "; it is not so")
    sign = "; there is none" if sign and abs(found.rho) < 0.005 else sign
    return (
        f"{test.first.capitalize()} and {test.second} ({test.scope}, n = {found.n}): rho = "
        f"{found.rho:+.2f} ({found.low:+.2f} to {found.high:+.2f}), p = {found.p_value:.3f}, "
        f"{verdict} ({reading}{sign})."
    )
