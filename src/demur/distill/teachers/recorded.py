"""A recorded teacher: a file of requests and the answers that some model gave to them.

    source = recorded_lessons_source(Path("answers.jsonl"), splits)
    source.prompts, source.answers

The file (CSV, TSV, JSON, JSON lines, Parquet) has a column of prompts and one of responses; a
column `kind` says what a request is, harmful or benign, and without one all are harmful. Its
prompts are not the run's: those that nearly repeat one of the run's validation or test prompts,
or that the run has as harmless, are removed and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from demur.console import Advance
from demur.errors import PromptError
from demur.prompts.columns import (
    KIND,
    PROMPT,
    RESPONSE,
    cell_text,
    column,
    kind_of,
    optional_column,
)
from demur.prompts.duplicates import THRESHOLD, near_duplicates, normalise
from demur.prompts.split import block_of
from demur.prompts.tables import ENDINGS, read_table
from demur.prompts.types import Kind, Prompt, Splits

RECORDED_ENDINGS = tuple(ending for ending in ENDINGS if ending != ".txt")
NO_ANSWER = "without a prompt or an answer"
REPEATED = "repeating another row's prompt"
UNKNOWN = "of which it is not said whether they are harmful"
HARMLESS = "that the run has as harmless"


@dataclass(frozen=True)
class RecordedLessons:
    """What a file of recorded answers brings; a `Teacher` on its own prompts.

    Attributes:
        prompts: requests, in the file's order, that are none of the run's validation or test.
        answers_by_key: their recorded answers, by the prompts' keys.
        removed: rows left out, counted by why; what nearly repeats a split is under its name.
        name: the file's, without its folder.
    """

    prompts: tuple[Prompt, ...]
    answers_by_key: Mapping[str, str]
    removed: Mapping[str, int]
    name: str

    def answers(self, prompts: Sequence[Prompt], advance: Advance) -> Mapping[str, str]:
        """As in `Teacher`; only requests of the file have answers."""
        advance(len(prompts))
        known = self.answers_by_key
        return {each.key: known[each.key] for each in prompts if each.key in known}


def read_recorded_prompts(path: Path) -> tuple[list[Prompt], dict[str, str], Counter[str]]:
    """Return the prompts of a file, their answers by the prompts' keys, and what was left out.

    Raises:
        PromptError: the file cannot be read, lacks a column, or holds what is no text.
    """
    table = read_table(path)
    remedy = "Give a file with the columns 'prompt' and 'response'."
    asked = column(table, None, PROMPT, "prompt", remedy)
    said = column(table, None, RESPONSE, "response", remedy)
    kind = optional_column(table, None, KIND)
    prompts: list[Prompt] = []
    answers: dict[str, str] = {}
    left_out: Counter[str] = Counter()
    for where, row in table.rows:
        text, reply = (cell_text(row.get(each), table, where, each) for each in (asked, said))
        if not text or not reply:
            left_out[NO_ANSWER] += 1
            continue
        word = row.get(kind) if kind else None
        known = kind_of(word) if isinstance(word, str) else None
        if kind and known is None:
            left_out[UNKNOWN] += 1
            continue
        side: Kind = "twin" if known == "benign" else "harmful"
        prompt = Prompt(text, side, block=block_of(text), source=path.name)
        if prompt.key in answers:
            left_out[REPEATED] += 1
            continue
        prompts.append(prompt)
        answers[prompt.key] = reply
    if not prompts:
        raise PromptError(
            f"'{path}' holds no prompt with an answer.",
            "Give a file with the columns 'prompt' and 'response'.",
        )
    return prompts, answers, left_out


def recorded_lessons_source(
    path: Path, splits: Splits, threshold: float = THRESHOLD
) -> RecordedLessons:
    """Return the prompts and answers of a file, without what the run chooses or reports on.

    Args:
        splits: the run's prompts.
        threshold: from which similarity two prompts count as the same (`prompts.duplicates`).

    Raises:
        PromptError: as `read_recorded_prompts`; or nothing is left.
    """
    prompts, answers, left_out = read_recorded_prompts(path)
    reasons: dict[int, str] = {}
    for harmful in (True, False):
        mine = [i for i, each in enumerate(prompts) if (each.kind == "harmful") == harmful]
        for part in (splits.test, splits.validation):
            name = "test" if part is splits.test else "validation"
            theirs = [each.text for each in part if (each.kind == "harmful") == harmful]
            texts = [prompts[i].text for i in mine]
            for left, _, _ in near_duplicates(texts, theirs, threshold):
                reasons.setdefault(mine[left], f"nearly repeating a {name} prompt")
    harmless = {
        normalise(each.text)
        for part in (splits.train, splits.validation, splits.test)
        for each in part
        if each.kind != "harmful"
    }
    for index, each in enumerate(prompts):
        if each.kind == "harmful" and normalise(each.text) in harmless:
            reasons.setdefault(index, HARMLESS)
    left_out.update(reasons.values())
    kept = tuple(each for index, each in enumerate(prompts) if index not in reasons)
    if not kept:
        raise PromptError(
            f"All prompts of '{path}' (nearly) repeat ones that the run chooses or reports on.",
            "Give a file with other prompts.",
        )
    answers = {each.key: answers[each.key] for each in kept}
    return RecordedLessons(kept, answers, dict(left_out.most_common()), path.name)
