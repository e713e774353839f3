"""The study's definitions with their reasons, as the report and the Markdown page print them."""

from __future__ import annotations

from demur.study.findings import Findings
from demur.study.premise import LEAST, SAME


def definitions(findings: Findings) -> tuple[tuple[str, str], ...]:
    """Return the terms, and what they mean here."""
    return (
        (
            "Refusal",
            f"An answer that the judge calls refused; partial and undecided ones are not. A "
            "judge that goes by openings misses unusual ones, and so makes openings look more "
            "uniform than they are; with people's labels (--judge people) it cannot. Judge: "
            f"{findings.judge}",
        ),
        (
            "Opening",
            f"The first {findings.opening_words} words in one spelling (lower case, without "
            "punctuation, contractions written out). A prefill replaces just this. Whole first "
            "sentences name the request's topic, so that nearly all differ; they stand beside it.",
        ),
        (
            "Refusing sentence",
            "Among an answer's first four sentences the first that states an inability, else that "
            "calls something improper, else the first. Words that the request brought are "
            "replaced, so that it is compared how is refused, not what.",
        ),
        (
            "Cluster",
            f"{findings.embedder} All sources' sentences are clustered together by average linkage "
            "on cosine distance up to a fixed threshold: deterministic, and the same clusters for "
            "every source. Silhouettes near zero mean that refusals form a continuum, which any "
            "threshold cuts somewhere; what two others give is shown.",
        ),
        (
            "Entropy",
            "Of the patterns' frequencies, in bits. The plug-in estimate is too low where refusals "
            "are few: Miller-Madow adds its first-order bias, Chao-Shen weighs by coverage. "
            " Neither makes five refusals comparable with five hundred.",
        ),
        (
            "Uniformity",
            f"1 - H / log2 m of the entropy H expected among m = {findings.rarefied_to} refusals "
            "drawn without replacement, m the same for all sources: 1 where all are alike, 0 "
            f"where no two are. m is the least that any source with at least {LEAST} of them has.",
        ),
        (
            "Alike",
            "The chance that two different refusals of a source share a pattern: unbiased whatever "
            "their number, and easily said.",
        ),
        (
            "Evenness",
            "Entropy over the logarithm of the patterns seen. It says how evenly they are used, "
            "not how many there are: no measure of uniformity alone.",
        ),
        (
            "Intervals",
            "Rates: Wilson. Differences: Newcombe, paired. Entropies and uniformity: bootstrap "
            "over refusals, shifted to the estimate. Correlations: bootstrap over sources. 95 %.",
        ),
        (
            "Security",
            "Harmful requests refused: direct, after a forced compliant opening (prefill), inside "
            "the user's jailbreak templates; with benign requests refused beside it. Held is the "
            "share of direct refusals that are refusals under prefill too.",
        ),
        (
            "Same requests",
            f"Sources that share at least {SAME:.0%} of their harmful requests. Others differ also "
            "by what they were asked.",
        ),
        (
            "Parts",
            "Rules on English text, whose agreement with a reader's labels was measured "
            "(docs/results/refusal-patterns.md); several may be in one refusal. "
            "Short answers have fewer by being short.",
        ),
    )
