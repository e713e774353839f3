"""The study's tables as text in cells, for the Markdown page, the HTML report and the console."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from demur import figures
from demur.stats import Rate
from demur.study.entropy import Estimate, rarefied_entropy
from demur.study.findings import PATTERNS, Findings, PremiseTest, SourceFindings
from demur.study.premise import LEAST
from demur.wording.parts import PARTS

Row = tuple[str, ...]
UNKNOWN = "unknown"
FEW = "too few"
_CLUSTERS, _OPENINGS = 12, 4


@dataclass(frozen=True)
class Table:
    """One table: `lead` says how to read it, `wide` whether it has a column a source."""

    key: str
    title: str
    lead: str
    head: Row
    rows: tuple[Row, ...]
    wide: bool = False


def tables(findings: Findings) -> tuple[Table, ...]:
    """Return all tables of a study, in the order in which they are shown; empty ones left out."""
    found = (
        _rates(findings),
        _attacks(findings),
        _uniformity(findings),
        _entropies(findings),
        _openings(findings),
        _clusters(findings),
        _thresholds(findings),
        _parts(findings),
        _tests(findings),
    )
    return tuple(each for each in found if each.rows)


def _rates(findings: Findings) -> Table:
    rows = tuple(
        (
            each.name,
            figures.grouped(each.answers),
            _rate(each.security.overall),
            _counted(each.security.harmful),
            _counted(each.security.benign),
            figures.grouped(each.undecided),
        )
        for each in findings.sources
    )
    lead = "Direct requests. Refusing what is harmful is never shown without refusing what is not."
    head = ("Source", "answers", "refused", "harmful refused", "benign refused", "undecided")
    return Table("rates", "Refusal and over-refusal", lead, head, rows)


def _attacks(findings: Findings) -> Table:
    rows = tuple(
        (
            each.name,
            _counted(each.security.prefill),
            figures.points(each.security.drop) if each.security.drop else UNKNOWN,
            _counted(each.security.held),
            _counted(each.security.held_commonest),
            _counted(each.security.held_others),
            _counted(each.security.templates),
        )
        for each in findings.sources
        if each.security.prefill.n or each.security.templates.n
    )
    lead = (
        "Harmful requests, for sources that were asked so; of recorded answers nothing is known "
        "under attack. The drop is direct less prefill on the same requests, in points. Held: of "
        "direct refusals, those that refuse under prefill too, all, and by whether they open with "
        "the source's commonest opening when direct."
    )
    head = (
        *("Source", "refused under prefill", "drop", "held", "held, commonest opening"),
        *("held, other openings", "refused inside templates"),
    )
    return Table("attacks", "Under attack", lead, head, rows)


def _uniformity(findings: Findings) -> Table:
    def cell(each: SourceFindings, pattern: str) -> str:
        found = each.uniformity[pattern]
        return FEW if found is None else _estimate(found.uniformity)

    rows = tuple(
        (
            each.name,
            figures.grouped(each.refusals),
            *(cell(each, pattern) for pattern in PATTERNS),
            *(
                FEW if found is None else _estimate(found.alike)
                for found in (each.uniformity["openings"], each.uniformity["clusters"])
            ),
        )
        for each in findings.sources
    )
    lead = (
        f"1: all alike; 0: no two alike. At m = {findings.rarefied_to} refusals for every source. "
        "Alike is the chance that two refusals share the pattern."
    )
    head = (
        *("Source", "refusals", "openings", "clusters", "first sentences"),
        *("openings alike", "clusters alike"),
    )
    return Table("uniformity", "Uniformity", lead, head, rows)


def _entropies(findings: Findings) -> Table:
    rows = []
    for each in findings.sources:
        for pattern in PATTERNS:
            found = each.uniformity[pattern]
            if found is None:
                continue
            rows.append(
                (
                    each.name,
                    pattern,
                    f"{found.kinds:,} of {found.n:,}",
                    f"{found.entropy:.2f}",
                    _estimate(found.miller_madow),
                    _estimate(found.chao_shen),
                    _estimate(found.rarefied),
                    f"{found.richness:.1f}",
                    figures.DASH if found.evenness is None else f"{found.evenness:.2f}",
                )
            )
    head = (
        *("Source", "pattern", "kinds", "plug-in", "Miller-Madow", "Chao-Shen", "rarefied"),
        *("kinds, rarefied", "evenness"),
    )
    lead = f"In bits. Rarefied figures are expected among {findings.rarefied_to} refusals."
    return Table("entropies", "Entropies", lead, head, tuple(rows))


def _openings(findings: Findings) -> Table:
    rows = tuple(
        (each.name if rank == 0 else "", one.text, _counted(one.rate))
        for each in findings.sources
        for rank, one in enumerate(each.openings[:_OPENINGS])
    )
    lead = f"The commonest {_OPENINGS} of each source, as shares of its refusals."
    return Table("openings", "Openings", lead, ("Source", "opening", "share"), rows)


def _clusters(findings: Findings) -> Table:
    clustering = findings.clustering
    totals = [each.refusals for each in findings.sources]
    rows = []
    for cluster in (clustering.clusters if clustering else ())[:_CLUSTERS]:
        shares = [
            (count / total, each.name)
            for count, total, each in zip(cluster.counts, totals, findings.sources, strict=True)
            if count
        ]
        shares.sort(key=lambda share: -share[0])
        who = ", ".join(f"{name} {share:.0%}" for share, name in shares[:4])
        more = f", and {len(shares) - 4} more" if len(shares) > 4 else ""
        count = f"{sum(cluster.counts):,}"
        rows.append((cluster.sentence, count, f"{cluster.sentences:,}", who + more))
    lead = (
        f"The largest {_CLUSTERS}, each by the sentence nearest to all its others, and the sources "
        "that have the largest shares of their refusals in it."
    )
    head = ("Refusing sentence, without the request's words", "refusals", "wordings", "sources")
    return Table("clusters", "Clusters of refusing sentences", lead, head, tuple(rows))


def _thresholds(findings: Findings) -> Table:
    size = findings.rarefied_to
    rows = []
    for clustering in findings.clusterings if size else ():
        cells = []
        for place, each in enumerate(findings.sources):
            counts = clustering.counts(place)
            enough = each.refusals >= LEAST
            left = 1 - rarefied_entropy(counts, size) / math.log2(size) if enough else math.nan
            cells.append(f"{max(0.0, left):.2f}" if enough else FEW)
        width = (
            figures.DASH if math.isnan(clustering.silhouette) else f"{clustering.silhouette:.2f}"
        )
        row = (f"{clustering.threshold:.2f}", f"{len(clustering.clusters):,}", width, *cells)
        rows.append(row)
    head = ("threshold", "clusters", "silhouette", *(each.name for each in findings.sources))
    lead = "Uniformity of clusters at the threshold that is used (the middle row), below and above."
    return Table("thresholds", "What the threshold does", lead, head, tuple(rows), wide=True)


def _parts(findings: Findings) -> Table:
    shown = [each for each in findings.sources if each.parts is not None]
    rows = tuple(
        (part, *(short(each.parts[part]) for each in shown if each.parts is not None))
        for part in PARTS
        if shown
    )
    head = ("part", *(f"{each.name}, n = {each.refusals:,}" for each in shown))
    lead = "Share of refusals that have each part, in percent, with 95 % intervals."
    return Table("parts", "Parts", lead, head, rows, wide=True)


def _tests(findings: Findings) -> Table:
    rows = tuple(_test(each) for each in findings.tests)
    lead = (
        "Spearman's rho over sources. p is of the permutation test, then corrected by Holm over "
        "all tests that could be made. The last columns say what so few sources can show: from "
        "which |rho| a test alone is significant, and which would be found in four studies of five."
    )
    head = (
        *("uniformity of", "goes with", "reading", "scope", "n", "rho", "p", "p, corrected"),
        *("significant from", "found at 80 %"),
    )
    return Table("premise", "The premise, and its opposite", lead, head, rows)


def _test(test: PremiseTest) -> Row:
    found = test.correlation
    expected = {"positive": " (+ expected)", "negative": f" ({figures.MINUS} expected)"}
    told = not math.isnan(found.rho)
    return (
        test.first.removeprefix("uniformity of "),
        test.second,
        test.reading + expected.get(test.expected, ""),
        test.scope,
        str(found.n),
        f"{_signed(found.rho)} ({_signed(found.low)} to {_signed(found.high)})"
        if told
        else "not testable",
        f"{found.p_value:.3f}" if told else figures.DASH,
        f"{test.adjusted_p:.3f}" if told else figures.DASH,
        _or_dash(found.significant_from),
        _or_dash(found.detectable),
    )


def _or_dash(value: float, text: Callable[[float], str] = "{:.2f}".format) -> str:
    return figures.DASH if math.isnan(value) else text(value)


def _signed(value: float) -> str:
    return figures.signed(value, 2)


def _rate(value: Rate) -> str:
    return figures.rate_text(value) if value.n else UNKNOWN


def _counted(value: Rate) -> str:
    return f"{figures.rate_text(value)}, n = {value.n:,}" if value.n else UNKNOWN


def short(value: Rate) -> str:
    """Return a rate in percent with its interval, in few characters."""
    return f"{100 * value.value:.0f} ({100 * value.low:.0f}{figures.DASH}{100 * value.high:.0f})"


def _estimate(value: Estimate) -> str:
    return f"{value.value:.2f} ({value.low:.2f}{figures.DASH}{value.high:.2f})"


def notes(findings: Findings) -> tuple[tuple[str, Sequence[str]], ...]:
    """Return each source with where its answers are from and what a reader must know of them."""
    return tuple((each.name, (each.origin, *each.notes)) for each in findings.sources)
