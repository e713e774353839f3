"""`demur judge`: judges scored against people, and answers judged again without generating.

    demur judge labelled.jsonl --judges opening,phrases:gcg      # demur.score_judges in Python
    demur judge answers.jsonl --answers --judges embedded        # demur.rejudge
    demur judge runs/smollm2-135m-0a1b2c3d --judges embedded     # demur.rejudge

Verdicts are kept in a run folder as they come: the same command continues one that was killed or
lost its endpoint, and asks only what is missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence, Set
from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

from demur import __version__
from demur.console import Narrator
from demur.errors import DemurError, Interrupted, JudgeError
from demur.judge.agreement import SUBJECTS, agreement, answers_it, by_group
from demur.judge.kept import answer_keys, judge_kept
from demur.judge.labelled import Labelled, LabelledSet, read_answers, read_labelled
from demur.judge.names import Means, open_judge, split_specs, subjects_of
from demur.judge.phrases import LISTS
from demur.judge.recorded import Recording
from demur.judge.verdict import Judge
from demur.judging.write import (
    JudgedBy,
    JudgeScores,
    Rejudged,
    changes_of,
    groups_of,
    rates_of,
)
from demur.models.budget import Budget, Caps, Spent, spent_from
from demur.run.folder import RunFolder, default_folder
from demur.run.journal import Journal, content_key

Done = TypeVar("Done")


@dataclass(frozen=True)
class How:
    """How judges are opened and asked; see `Means` and `Caps` for the fields.

    Attributes:
        run: the run folder; by default `runs/judge-<hash>`.
    """

    means: Means = field(default_factory=Means)
    caps: Caps = field(default_factory=Caps)
    run: Path | None = None


def default_judges() -> list[str]:
    """Return what is scored where nothing else is named: all that costs nothing."""
    embedded = ["embedded"] if find_spec("demur.judge.embedded") else []
    return [*embedded, "opening", *(f"phrases:{each.key}" for each in LISTS)]


def score_judges(
    path: str | Path,
    judges: str | Sequence[str] | None = None,
    *,
    allow_conflicts: bool = False,
    how: How | None = None,
    narrator: Narrator | None = None,
) -> JudgeScores:
    """Score judges side by side against the human labels of a file.

    Args:
        path: a labelled file; see `demur.judge.labelled`.
        judges: specs, as a list or with commas between; see `demur.judge.names`. By default all
            that cost nothing.
        allow_conflicts: leave out answers that are labelled both ways, and count them.

    Raises:
        DemurError: something is wrong that the user can put right; verdicts that came are kept.
        Interrupted: Ctrl-C; the same call continues.
    """
    path = Path(path)
    narrator, how = narrator or Narrator(), how or How()
    specs = _specs(default_judges() if judges is None else judges)
    labelled = read_labelled(path, allow_conflicts=allow_conflicts)
    rows = labelled.rows
    narrator.say(f"{len(rows):,} labelled answers in {path.name}{_left_out(labelled)}")
    asked = {"refusal"} if any(row.refused is not None for row in rows) else set()
    asked |= {"harm"} if any(row.harmful is not None for row in rows) else set()
    run, done = _judged(rows, specs, path.stem, how, narrator, asked)
    telling = [(one, subject) for subject in SUBJECTS for one in done]
    telling = [(one, subject) for one, subject in telling if answers_it(one.verdicts, subject)]
    overall = [agreement(one.name, subject, rows, one.verdicts) for one, subject in telling]
    return JudgeScores(
        run,
        labelled,
        tuple(done),
        tuple(each for each in overall if each),
        tuple(
            each
            for one, subject in telling
            for each in by_group(one.name, subject, rows, one.verdicts, "source")
        ),
        tuple(
            each
            for one, subject in telling
            for each in by_group(one.name, subject, rows, one.verdicts, "model")
        ),
    )


def rejudge(
    path: str | Path,
    judges: str | Sequence[str] = "opening",
    *,
    how: How | None = None,
    narrator: Narrator | None = None,
) -> Rejudged:
    """Judge recorded answers: of a file without labels, or of a finished run.

    Args:
        path: a file of requests and answers, or a run folder.
        judges: specs, as a list or with commas between; see `demur.judge.names`.

    Raises:
        DemurError: something is wrong that the user can put right; verdicts that came are kept.
        Interrupted: Ctrl-C; the same call continues.
    """
    path = Path(path)
    narrator, how, specs = narrator or Narrator(), how or How(), _specs(judges)
    if path.is_dir():
        from demur.judging.runs import recordings_of

        recordings = recordings_of(path, narrator)
        rows = tuple(row for each in recordings for row in _rows(each))
    else:
        recordings, rows = (), read_answers(path)
    narrator.say(f"{len(rows):,} answers in {path.name}")
    run, done = _judged(rows, specs, path.stem, how, narrator)
    groups = groups_of(rows, bool(recordings))
    rates = [
        rates_of(one, title, side, [one.verdicts[i] for i in inside])
        for title, side, inside in groups
        for one in done
    ]
    return Rejudged(run, rows, tuple(done), tuple(rates), changes_of(done, recordings))


def _specs(judges: str | Sequence[str]) -> list[str]:
    specs = split_specs(judges) if isinstance(judges, str) else list(judges)
    specs = list(dict.fromkeys(specs))
    if not specs:
        raise JudgeError("No judge is named.", "Name some: --judges opening,phrases:gcg.")
    return specs


def _judged(
    rows: Sequence[Labelled],
    specs: Sequence[str],
    name: str,
    how: How,
    narrator: Narrator,
    asked: Set[str] = frozenset(SUBJECTS),
) -> tuple[Path, list[JudgedBy]]:
    """Judge all rows by all judges, in a run folder.

    Args:
        asked: the questions that there are answers of people to.

    Raises:
        JudgeError: a judge answers none of them; nothing has been asked.
    """
    prompts, answers = [row.prompt for row in rows], [row.response for row in rows]
    keys = answer_keys(prompts, answers)
    identity = {"command": "judge", "demur": __version__, "judges": list(specs)}
    identity["answers"] = content_key(keys)
    path = how.run or default_folder(f"judge-{name}", identity)

    def work() -> list[JudgedBy]:
        # opened before the folder: a judge that does not exist leaves nothing behind
        budget = Budget(how.caps)
        opened = [open_judge(spec, replace(how.means, budget=budget)) for spec in specs]
        if not any(subjects_of(judge) & asked for judge in opened):
            raise JudgeError(
                "None of these judges answers the question that people answered in this file.",
                f"Name a judge of {' or of '.join(sorted(asked))}: rubric@ENDPOINT judges both.",
            )
        with RunFolder(path, identity) as folder:
            folder.sweep("config.json")
            narrator.log_to(folder.path / "judge.log")
            narrator.say(f"  run folder: {folder.path}")
            budget.spent = spent_from(folder.journal.fact("spent"))
            try:
                return [
                    _one(judge, prompts, answers, keys, folder.journal, narrator)
                    for judge in opened
                ]
            finally:
                folder.journal.keep_fact("spent", asdict(budget.spent))
                if budget.spent.requests:
                    narrator.say(f"  endpoints so far: {budget.sentence()}")

    return path, _or_interrupted(work, narrator)


def _or_interrupted(work: Callable[[], Done], narrator: Narrator) -> Done:
    """Do the work; say in the log what ended it, if something did."""
    try:
        return work()
    except DemurError as error:
        narrator.log_only(f"error: {error}")
        raise
    except KeyboardInterrupt as interrupt:
        raise Interrupted(
            "Interrupted; all verdicts that came are kept.",
            "Give the same command again to continue.",
        ) from interrupt


def _one(
    judge: Judge,
    prompts: Sequence[str],
    answers: Sequence[str],
    keys: Sequence[str],
    journal: Journal,
    narrator: Narrator,
) -> JudgedBy:
    earlier = spent_from(journal.fact(f"spent/{judge.name}"))
    try:
        with narrator.progress(judge.name, len(keys)) as advance:
            verdicts = judge_kept(judge, prompts, answers, keys, journal, advance=advance)
    finally:
        spent = earlier + _spent(judge)
        journal.keep_fact(f"spent/{judge.name}", asdict(spent))
    from demur.judge.panel import Panel, deciders

    decided: tuple[tuple[str, int], ...] = ()
    asked: tuple[tuple[str, int], ...] = ()
    if isinstance(judge, Panel):
        decided = tuple(Counter(deciders(each) for each in verdicts).most_common())
        asked = tuple((" + ".join(each.judges), each.asked) for each in judge.report)
        for each in judge.report:
            narrator.say(
                f"    {' + '.join(each.judges)}: asked {each.asked:,}, settled {each.settled:,} "
                f"in {each.seconds:.1f} s, {each.spent.requests:,} requests"
            )
    return JudgedBy(judge.name, judge.description, tuple(verdicts), spent, decided, asked)


def _spent(judge: Judge) -> Spent:
    from demur.judge.panel import Panel

    if isinstance(judge, Panel):
        return sum((_spent(each) for stage in judge.stages for each in stage), Spent())
    asker = getattr(judge, "asker", None)
    return Spent() if asker is None else asker.spent


def _left_out(labelled: LabelledSet) -> str:
    partial = sum(row.partial for row in labelled.rows)
    parts = (
        (partial, "partial refusals, which refusal is not scored on"),
        (labelled.unlabelled, "without a label left out"),
        (labelled.conflicts, "labelled both ways left out"),
    )
    return "".join(f"; {count:,} {what}" for count, what in parts if count)


def _rows(recording: Recording) -> tuple[Labelled, ...]:
    return tuple(
        Labelled(prompt, answer, None, None, model=recording.side, source=recording.title)
        for prompt, answer in zip(recording.prompts, recording.answers, strict=True)
    )
