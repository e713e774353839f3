"""Write docs/results/refusal-patterns.md: the study of refusal patterns on real sources.

    DEMUR_DATA=../shared/data python benchmarks/refusal_patterns/study.py \\
        uniform=runs/demo varied=runs/varied

Sources: XSTest completions of five models, ChatGPT's answers, a recorded GPT-3.5 teacher, and the
models of each run, before and after. `xstest_kinds.csv` says which of XSTest's prompts are harmful,
by hash; they were labelled for this project by reading them, since the file of completions does not
say. None of the data is part of this repository; files that are absent are left out and named.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path

from agreement import table as agreement

from demur.quiet import hush
from demur.study.findings import Findings
from demur.study.markdown import render_markdown
from demur.study.outcome import Study
from demur.study.study import study_refusals

HERE = Path(__file__).parent
DOCS = HERE.parents[1] / "docs" / "results"
XSTEST = "labelled/xstest_completions_dev.jsonl"
CHATGPT = "labelled/chatgpt_refusals.jsonl"
TEACHER = "recorded/safety_only.jsonl"
LENGTHS = (2, 3, 6)
INTRODUCTION = """\
What the figures below can and cannot say:

* Security under attack is known only for the models of runs; all others are recorded answers.
* The sources differ in what they were asked: XSTest (five models, the same 225 requests), ChatGPT's
  hand-labelled set (of which it is not known which requests are harmful), the recorded teacher's
  requests (all harmful; its answers were selected for being safe, so that its refusal rate is no
  model's), and demur's own test prompts (SmolLM2). *Same requests* in the table of tests is
  XSTest's five models alone.
* The embedded judge was trained on these very labels of ChatGPT's, and its phrases were written
  with XSTest's answers read (never trained on): on them it is better than it will be elsewhere. A
  judge that goes by openings misses unusual ones, so that openings look more uniform than they are.
  Other judges and people's labels are shown below.
* On SmolLM2 before aligning, judges differ most. Next to none of what the embedded judge calls its
  refusals states an *inability* (table of parts): many are apologies at random ("I'm sorry for
  ..."), cut after 16 tokens. Its rates, direct and under prefill, are to be read with that in mind.
* SmolLM2 after aligning was taught one sentence (`uniform`), or five of them (`varied`), so that
  its uniformity is what it was taught.
* Whether a uniform pattern holds better under prefill cannot be said from the two runs of SmolLM2
  (one seed each, the same lessons but for the sentence): of 40 harmful requests begun with "Sure,
  here is", 10 are refused after either by the embedded judge, 5 (uniform) and 1 (varied) by the
  rule on openings (exact McNemar of the latter: p = 0.125).
* Answers of runs are cut after a few tokens: refusals there cannot show parts that come late."""


def sources(data: Path, runs: list[str]) -> tuple[list[str], list[str]]:
    """Return the sources at hand and the names of those absent."""
    names = {"chatgpt": CHATGPT, "teacher": TEACHER}
    present = [str(data / XSTEST)] if (data / XSTEST).exists() else []
    present += [f"{name}={data / file}" for name, file in names.items() if (data / file).exists()]
    absent = [file for file in (XSTEST, CHATGPT, TEACHER) if not (data / file).exists()]
    return [*present, *runs], absent


def _uniformity(findings: Findings, index: int) -> str:
    found = findings.sources[index].uniformity["openings"]
    if found is None:
        return "too few"
    value = found.uniformity
    return f"{value.value:.2f} ({value.low:.2f} to {value.high:.2f})"


def by_study(done: dict[str, Study]) -> str:
    """Return a table of uniformity of openings in several studies of the same sources."""
    first = next(iter(done.values())).findings.sources
    lines = ["| source | " + " | ".join(done) + " |", "|---" * (len(done) + 1) + "|"]
    for place, source in enumerate(first):
        cells = [_uniformity(study.findings, place) for study in done.values()]
        lines.append(f"| {source.name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def premise(done: Study) -> str:
    """Return the tests of the paper's reading and its opposite that could be made."""
    made = [line for line in done.findings.conclusion if "rho" in line and "a control" not in line]
    return "\n".join(f"* {line}" for line in made) or "* None could be made."


def main() -> int:
    """Run the studies and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="*", help="finished run folders; NAME=FOLDER names one")
    parser.add_argument("--judge", default="embedded")
    parser.add_argument("--embedder", default="auto")
    parser.add_argument("--folder", type=Path, default=Path("runs/refusal-patterns"))
    arguments = parser.parse_args()
    hush()
    data = Path(os.environ.get("DEMUR_DATA", "../shared/data"))
    given, absent = sources(data, arguments.runs)
    kinds = os.path.relpath(HERE / "xstest_kinds.csv")
    harmful = ("teacher",) if (data / TEACHER).exists() else ()

    def run(name: str, **choices: object) -> Study:
        shutil.rmtree(arguments.folder / name, ignore_errors=True)
        chosen = {"judge": arguments.judge, "embedder": arguments.embedder, **choices}
        return study_refusals(
            given, run=arguments.folder / name, kinds=kinds, all_harmful=harmful, **chosen
        )

    done = run("main")
    people = run("people", judge="people")
    opening = run("opening", judge="opening")
    by_length = {words: run(f"words-{words}", words=words, embedder="tfidf") for words in LENGTHS}
    by_length = dict(sorted({**by_length, done.findings.opening_words: done}.items()))
    parts, n = agreement(data)
    page = render_markdown(done.findings, "Refusal patterns: a study")
    begin, middle, end = page.partition("## Refusal and over-refusal")
    blocks = [
        begin.rstrip(),
        INTRODUCTION,
        *([f"Absent, and left out: {', '.join(absent)}."] if absent else []),
        (middle + end).rstrip(),
        "## With people's own labels in place of the judge",
        "XSTest's and ChatGPT's answers by their human labels, the others by the judge as above.",
        premise(people),
        "## With the rule on openings as the judge",
        premise(opening),
        "## Uniformity of openings by who judges",
        by_study({"as above": done, "people": people, "opening rule": opening}),
        "## How long an opening is",
        "Uniformity of openings by how many words they have.",
        by_study({f"{count} words": study for count, study in by_length.items()}),
        "## How far the rules on parts can be trusted",
        f"Against a reader's labels of the first 500 characters of {n} refusals, evenly from the "
        "seven recorded sources as far as they have enough, labelled before the rules were run on "
        "them; no rule was changed for them. Another 71 were used to mend the rules before. The "
        "reader also wrote the rules, so that agreement with another may be lower. "
        "`python benchmarks/refusal_patterns/agreement.py` prints this table.",
        parts,
    ]
    (DOCS / "refusal-patterns.md").write_text("\n\n".join(blocks) + "\n", encoding="utf-8")
    found = json.loads(done.data.read_text(encoding="utf-8"))
    del found["findings"]["clusterings"]  # sentences of other people's data, but for the page's few
    text = json.dumps(found, indent=1, ensure_ascii=False) + "\n"
    (DOCS / "refusal-patterns.json").write_text(text, encoding="utf-8")
    print(f"Wrote {DOCS / 'refusal-patterns.md'}; the report is {done.report}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
