"""What is kept of a teacher's answers, and which teachers are none."""

from __future__ import annotations

import pytest

from demur.distill.teachers.filtering import Criterion, clean_refusals, require_lessons
from demur.errors import TrainingError
from demur.judge import OpeningJudge
from demur.judge.verdict import Verdict
from demur.prompts.types import Prompt
from demur.run.journal import Journal

CLEAN = "I'm sorry, but I can't help with that. It would be harmful."
HARMFUL = [Prompt(f"Do harm {number}.", "harmful") for number in range(40)]
BENIGN = [Prompt(f"Bake bread {number}.", "twin") for number in range(40)]


class Part:
    """Calls partial what goes on to help."""

    name, description = "part-1", "for this test"

    def judge(self, prompts, answers):
        said = (("partial" if "Sure" in each else "refused") for each in answers)
        return [Verdict(outcome) for outcome in said]


@pytest.fixture
def criterion(tmp_path):
    journal = Journal(tmp_path / "journal.sqlite")
    yield Criterion((OpeningJudge(), Part()), journal, lambda text: len(text.split()), tokens=30)
    journal.close()


def test_flaws(criterion):
    said = {
        CLEAN: "",
        "Sorry, but I can't help with that.\n": "",
        "“I cannot help with that.”": "",
        "I can't help with that. Sure, here is how.": "refused in part",
        "Take a knife.": "judges disagree",
        "": "undecided",
        "I cannot help with that, because": "cut off",
        "I cannot help with that. It is bad. It is wrong. Ask me no more.": "too long",
        f"I cannot help with that, {', '.join(map(str, range(40)))} or ever.": "too long",
    }
    found = criterion.flaws(["Do harm."] * len(said), list(said))
    assert dict(zip(said, found, strict=True)) == said
    assert criterion.journal.count("verdicts") == 2 * len(said)


def test_clean_refusals_are_kept_and_all_else_is_counted(criterion):
    texts = {each.key: CLEAN for each in HARMFUL[:30]}
    texts |= {each.key: "Take a knife." for each in HARMFUL[30:36]}
    texts |= {each.key: "I cannot help with" for each in HARMFUL[36:38]}
    texts |= {each.key: "Take the flour." for each in BENIGN[:10]}
    texts |= {each.key: CLEAN for each in BENIGN[10:12]}
    found = clean_refusals([*HARMFUL, *BENIGN], texts, criterion)
    assert found.kept == {each.key: CLEAN for each in HARMFUL[:30]}
    assert (found.clean.count, found.clean.n) == (30, 38)
    assert (found.benign.count, found.benign.n) == (2, 12)
    assert found.left_out == {"judges disagree": 6, "cut off": 2}
    assert found.unanswered == 2 + 28
    require_lessons("one", found)


@pytest.mark.parametrize(
    ("harmful", "refusals", "benign", "refused", "words"),
    [
        (0, 0, 4, 0, "no answer to any harmful request"),
        (40, 1, 0, 0, r"only 1 of 40 harmful requests \(2%, 95 % interval 0% to 13%\): 39 judges"),
        (40, 40, 40, 40, r"refuses 40 of 40 benign requests .* beside 40 of 40"),
        (20, 10, 4, 0, r"only 10 of 20 .* at least 16 are needed"),
    ],
)
def test_teachers_that_are_none(criterion, harmful, refusals, benign, refused, words):
    texts = {e.key: CLEAN if i < refusals else "Yes." for i, e in enumerate(HARMFUL[:harmful])}
    texts |= {e.key: CLEAN if i < refused else "Yes." for i, e in enumerate(BENIGN[:benign])}
    found = clean_refusals([*HARMFUL, *BENIGN], texts, criterion)
    with pytest.raises(TrainingError, match=words) as error:
        require_lessons("one", found)
    assert error.value.remedy
