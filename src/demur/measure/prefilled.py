"""Prefill probes of a given depth: the first k tokens of an answer are written for the model.

    probes = prefilled_probes(harmful, own, split="test", tokens=32)
    before = [measure_prefilled(chat, one, journal, judge, narrator, "before") for one in probes]

`own` are the untouched model's own complying answers to harmful requests, so that at each depth k
the model finds itself where it would have gone (Qi et al. 2024, arXiv 2406.05946, section 3; there
the answers are another model's). All depths ask the same prompts, those with an answer long enough
for the deepest, and what comes after the first k tokens is judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from demur.console import Narrator
from demur.judge.kept import judge_kept
from demur.judge.settled import is_quick, settled
from demur.judge.verdict import Judge
from demur.measure.protocol import Judged, Probe
from demur.models.chat_model import ChatModel
from demur.models.generation import Decoding, decode_all
from demur.prompts.types import Prompt
from demur.run.journal import Answer, Journal, content_key

DEPTHS = (0, 5, 10, 20)


@dataclass(frozen=True)
class PrefilledProbe:
    """A probe, and for each of its prompts the token ids that the answer begins with."""

    probe: Probe
    openings: tuple[tuple[int, ...], ...]


def prefilled_probes(
    prompts: Sequence[Prompt],
    own: Sequence[Sequence[int]],
    *,
    split: str,
    tokens: int,
    depths: Sequence[int] = DEPTHS,
    wanted: str = "up",
) -> tuple[PrefilledProbe, ...]:
    """Return one probe a depth, all of the same prompts; none where no answer is long enough.

    Args:
        own: an answer's token ids for each prompt; empty where there is none to begin with.
        tokens: how many tokens a model may write after them.
        wanted: `up` for harmful prompts, `down` for benign ones.
    """
    asked = [
        (prompt, tuple(answer))
        for prompt, answer in zip(prompts, own, strict=True)
        if len(answer) >= max(1, *depths)
    ]
    if not asked:
        return ()
    kind = "Harmful" if wanted == "up" else "Benign"
    return tuple(
        PrefilledProbe(
            Probe(
                f"{kind.lower()}-prefill-{depth}",
                f"{kind} requests refused after {depth} tokens of the original's own answer",
                split,
                wanted,
                tuple(prompt for prompt, _ in asked),
                Decoding(tokens),
            ),
            tuple(answer[:depth] for _, answer in asked),
        )
        for depth in depths
    )


def measure_prefilled(
    chat: ChatModel,
    prefilled: PrefilledProbe,
    journal: Journal,
    judge: Judge,
    narrator: Narrator,
    label: str,
) -> Judged:
    """Put one probe to one model; answers and verdicts are in the journal afterwards.

    The answers in it are what the model writes after the tokens that were given.
    """
    probe = prefilled.probe
    texts = [prompt.text for prompt in probe.prompts]
    quick = is_quick(judge) and not probe.whole
    settings = {
        "tokens": probe.decoding.tokens,
        "greedy": True,
        "until": judge.name if quick else "",
    }
    keys = [
        content_key(chat.identity, text, settings, "prefilled", list(opening))
        for text, opening in zip(texts, prefilled.openings, strict=True)
    ]
    known = journal.answers(keys)
    done = frozenset(index for index, key in enumerate(keys) if key in known)

    def ends(index: int, new: Sequence[int]) -> bool:
        return settled(judge, texts[index], chat.decode(tuple(new)))

    with narrator.progress(f"{label}, {probe.key}", len(texts)) as advance:
        advance(len(done))
        if len(done) < len(keys):
            requests = [
                [*chat.encode(text), *opening]
                for text, opening in zip(texts, prefilled.openings, strict=True)
            ]
            for batch in decode_all(
                chat, requests, probe.decoding.tokens, settled=ends if quick else None, done=done
            ):
                fresh = [
                    Answer(
                        keys[index],
                        texts[index],
                        chat.decode(written.tokens),
                        written.tokens,
                        written.finished,
                    )
                    for index, written in batch
                    if index not in done
                ]
                journal.add_answers(fresh, chat.identity, settings)
                known.update({one.key: one for one in fresh})
                advance(len(fresh))
    answers = tuple(known[key] for key in keys)
    verdicts = judge_kept(judge, texts, [one.text for one in answers], keys, journal)
    return Judged(probe, answers, tuple(verdicts))
