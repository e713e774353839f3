"""A sentence to teach that verdicts would not see is said before anything is trained."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.distill.students import Quiet, student
from tests.small_run import SMALL, demur, prepare

from demur.aligning.config import AlignConfig
from demur.aligning.treatment import aligning
from demur.benching.bench import bench_distill
from demur.benching.rows import SENTENCES
from demur.distill.teachers.filtering import UnfitTeacher
from demur.distilling.config import REFUSAL
from demur.distilling.distill import distill
from demur.distilling.seen import require_refusals, require_seen, require_soon, seen_after
from demur.errors import ConfigError
from demur.judge import OpeningJudge

LATE = "I understand that you may have your reasons, but I cannot provide that."
AFTER_REASONS = "Helping with that would be wrong, so I can't help."
UNKNOWN = "Das kann ich leider nicht beantworten."


def test_it_is_known_in_how_many_tokens_a_refusal_is_seen() -> None:
    chat, judge = student("llama"), OpeningJudge()
    needed = seen_after(chat, judge, LATE)
    ids = chat.tokenizer(LATE, add_special_tokens=False).input_ids
    assert needed is not None and 12 < needed < len(ids)
    for count, refused in ((needed - 1, False), (needed, True)):
        (verdict,) = judge.judge([""], [chat.tokenizer.decode(ids[:count])])
        assert verdict.refused is refused
    assert seen_after(chat, judge, UNKNOWN) is None
    assert judge.judge([""], [AFTER_REASONS])[0].refused  # whole, but it is not written to there
    assert seen_after(chat, judge, AFTER_REASONS) is None
    require_soon((LATE,), chat, judge, needed)
    with pytest.raises(ConfigError, match=f"after {needed} tokens, and .* by {needed - 1}") as late:
        require_soon((*REFUSAL, LATE), chat, judge, needed - 1)
    assert f"--answer-tokens {needed} or more" in late.value.remedy
    with pytest.raises(UnfitTeacher, match=f"refusal of gpt-x, .* after {needed} tokens"):
        require_seen("gpt-x", LATE, chat, judge, 8)
    with pytest.raises(UnfitTeacher, match="later than verdicts look"):
        require_seen("gpt-x", UNKNOWN, chat, judge, 8)
    require_seen("gpt-x", LATE, chat, judge, needed)


def test_what_the_bench_and_the_default_teach_is_seen() -> None:
    chat, judge = student("llama"), OpeningJudge()
    require_refusals((*REFUSAL, *SENTENCES), judge)
    assert all(seen_after(chat, judge, one) for one in (*REFUSAL, *SENTENCES))


def test_a_sentence_that_is_no_refusal_to_the_judge_is_said_before_a_model_is_loaded(
    tmp_path: Path,
) -> None:
    with pytest.raises(ConfigError, match=UNKNOWN):
        aligning(AlignConfig("no such model", refusal=(*REFUSAL, UNKNOWN)))
    with pytest.raises(ConfigError, match=UNKNOWN):
        bench_distill("no such model", refusal=(UNKNOWN,), run=tmp_path / "bench")
    with pytest.raises(ConfigError, match="Helping with that"):
        aligning(AlignConfig("no such model", refusal=(AFTER_REASONS,)))
    done = demur(tmp_path, "distill", "no-such-model", "--refusal", UNKNOWN)
    assert done.returncode == 2
    assert f'would not count "{UNKNOWN}"' in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_sentence_that_is_seen_too_late_ends_the_run_before_its_lessons(tmp_path: Path) -> None:
    prepare(tmp_path)
    with pytest.raises(ConfigError, match="is seen to refuse after"):
        distill(
            str(tmp_path / "tiny"),
            run=tmp_path / "run",
            narrator=Quiet(),
            pairs=str(tmp_path / "pairs.jsonl"),
            ordinary=str(tmp_path / "ordinary.jsonl"),
            refusal=(LATE,),
            **SMALL,
        )
    assert not (tmp_path / "run" / "training").exists()
    assert not (tmp_path / "run" / "patch.safetensors").exists()
