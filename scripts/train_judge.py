"""Train demur's embedded judge, and print what it is worth on answers that it was not trained on.

    python scripts/judge_small_model.py --out small_model.jsonl   # once: answers of a small model
    python scripts/train_judge.py --data $DEMUR_DATA --small small_model.jsonl   # measure and write
    python scripts/train_judge.py --data $DEMUR_DATA --check      # measure only

Needs scikit-learn (the package itself does not). Deterministic: the same data give the same file.
XSTest's completions are measured, never trained on. Splits are by group (a request, a template or a
behaviour) and by source, never at random.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sparse
from judge_data import Example, Request, refusal_examples, requests, rows
from sklearn.linear_model import LogisticRegression

from demur.judge.cues import NAMES
from demur.judge.features import BUCKETS, Hashed, parts, request_ngrams
from demur.judge.heads import Features, Head, harm_inputs, look
from demur.judge.opening import degenerate
from demur.stats import rate

# Cues of how much was written: what is composed is shorter than what models write, and a refusal
# is one at any length, so that the refusal head does better without them.
AMOUNTS = re.compile(
    r"length|very short|list items|list in opening|request overlap in body|code|speakers|cut off"
    r"|overlap with request|request length|.*, body"
)
SHARE = 0.12  # of standardised cues beside n-grams of unit length
FOLDS = 4
TELLING = np.array([AMOUNTS.fullmatch(name) is None for name in NAMES], np.float32)
WEIGHTS = Path(__file__).resolve().parents[1] / "src/demur/judge/embedded.npz"


def fold(group: str, folds: int = FOLDS) -> int:
    """Return the fold of a group, by its hash."""
    return int(hashlib.sha256(group.encode()).hexdigest()[:8], 16) % folds


def table(hashed: Hashed) -> Any:
    """Return hashed n-grams as a sparse table, each row divided by the root of its count."""
    count = np.bincount(hashed.row, minlength=hashed.rows)
    value = (1 / np.sqrt(np.maximum(count, 1)))[hashed.row].astype(np.float32)
    return sparse.csr_matrix((value, (hashed.row, hashed.bucket)), shape=(hashed.rows, BUCKETS))


def fit(
    hashed: Any, dense: Any, labels: Any, weights: Any, strength: float, share: float = SHARE
) -> Head:
    """Fit one head.

    Args:
        hashed: sparse table of n-grams.
        dense: cues, or None.
        strength: scikit-learn's C.
        share: what a standardised cue is multiplied by; 0 leaves the n-grams out.
    """
    model = LogisticRegression(C=strength, max_iter=400)
    if dense is None:
        model.fit(hashed, labels, sample_weight=weights)
        return Head(
            model.coef_[0].astype(np.float32), np.zeros(0, np.float32), float(model.intercept_[0])
        )
    centre, spread = dense.mean(0), np.where(dense.any(0), dense.std(0) + 0.02, 1.0)
    scaled = (dense - centre) / spread * (share or 1.0)
    inputs = sparse.hstack([hashed, sparse.csr_matrix(scaled)]).tocsr() if share else scaled
    model.fit(inputs, labels, sample_weight=weights)
    weight = model.coef_[0]
    cut = BUCKETS if share else 0
    slope = weight[cut:] * (share or 1.0) / spread
    bias = float(model.intercept_[0] - slope @ centre)
    grams = weight[:cut] if share else np.zeros(BUCKETS)
    return Head(grams.astype(np.float32), slope.astype(np.float32), bias)


def calibrate(head: Head, logits: Any, labels: Any, weights: Any, shift: bool = True) -> Head:
    """Return the head with Platt's slope (and shift), fitted on held-out log-odds."""
    model = LogisticRegression(C=1e3, fit_intercept=shift)
    model.fit(np.asarray(logits)[:, None], labels, sample_weight=weights)
    return Head(
        head.sparse,
        head.dense,
        head.bias,
        float(model.coef_[0, 0]),
        float(np.ravel(model.intercept_)[0]),
    )


@dataclass(frozen=True)
class Set:
    """Examples with their features and labels, ready to be cut into folds."""

    examples: list[Example]
    features: Features
    opening: Any
    rest: Any

    def column(self, read: Callable[[Example], Any]) -> Any:
        """Return one value an example."""
        return np.array([read(example) for example in self.examples])


def train_requests(found: Sequence[Request]) -> tuple[Head, list[Head]]:
    """Return the request head, and one a fold that has not seen that fold's groups."""
    grams = table(request_ngrams([parts(item.text, "") for item in found]))
    labels = np.array([item.harmful for item in found])
    weights = np.array([item.weight for item in found])
    folds = np.array([fold(item.group, 3) for item in found])
    held = []
    logits = np.zeros(len(found))
    for number in range(3):
        train = folds != number
        head = fit(grams[train], None, labels[train], weights[train], 20.0)
        held.append(head)
        logits[~train] = grams[~train] @ head.sparse + head.bias
    whole = fit(grams, None, labels, weights, 20.0)
    whole = calibrate(whole, logits, labels, weights)
    plain = np.array([item.source == "builtin" and item.weight == 1.0 for item in found])
    print(
        f"| request harm | own pairs, grouped | {shown((logits > 0) == labels, plain)} |",
        flush=True,
    )
    return whole, held


def request_logits(
    prompts: Sequence[str], found: Sequence[Request], whole: Head, held: list[Head]
) -> Any:
    """Return log-odds of requests, each from a head that was not trained on its group."""
    hashed = request_ngrams([parts(prompt, "") for prompt in prompts])
    places = {item.text: fold(item.group, 3) for item in found}
    known = np.array([places.get(prompt, -1) for prompt in prompts])
    values = whole.logit(hashed)
    for number, head in enumerate(held):
        values = np.where(known == number, head.logit(hashed), values)
    return values


def shown(right: Any, mask: Any = None) -> str:
    """Return an accuracy with its interval and n."""
    right = right if mask is None else right[mask]
    value = rate(int(right.sum()), len(right))
    return (
        f"{100 * value.value:.1f} ({100 * value.low:.1f} to {100 * value.high:.1f}), n = {value.n}"
    )


def held_refusals(data: Set) -> Any:
    """Return log-odds of refusal, each row's from a head that has not seen its group."""
    refused = data.column(lambda item: -1 if item.refused is None else item.refused)
    groups = data.column(lambda item: fold(item.group))
    values = np.zeros(len(groups))
    for number in range(FOLDS):
        head = fit_refusals(data, (groups != number) & np.isin(refused, (0, 1)))
        part = groups == number
        values[part] = head.logit(data.features.opening, data.features.dense)[part]
    return values


def fit_refusals(data: Set, train: Any) -> Head:
    """Fit the refusal head on the rows of `train`, all of which have a label."""
    labels = data.column(lambda item: item.refused == 1)[train]
    weights = data.column(lambda item: item.weight)[train]
    return fit(data.opening[train], data.features.dense[train] * TELLING, labels, weights, 5.0)


def fit_answers(data: Set, train: Any, held: Any) -> tuple[Head, Head, Head]:
    """Return the heads for refusal, partial refusal and harm, fitted on the rows of `train`.

    Args:
        held: what `held_refusals` returns; the harm head learns from it.
    """
    refused = data.column(lambda item: -1 if item.refused is None else item.refused)
    harmful = data.column(lambda item: -1 if item.harmful is None else item.harmful)
    weights = data.column(lambda item: item.weight)
    dense = data.features.dense
    head = fit_refusals(data, train & np.isin(refused, (0, 1)))
    some = train & (refused >= 0)
    part = fit(data.rest[some], dense[some], (refused == 2)[some], weights[some], 5.0)
    easy = data.column(lambda item: item.source in EASY and item.model != "helpful")
    some = train & (harmful >= 0) & ~(easy & (np.arange(len(easy)) % 4 > 0))
    inputs = harm_inputs(data.features, held, part.logit(data.features.rest, dense))
    harm_weights = weights * data.column(lambda item: HARM_WEIGHTS.get(item.source, 1.0))
    harm = fit(data.rest[some], inputs[some], harmful[some], harm_weights[some], 10.0, HARM_SHARE)
    return head, part, harm


HARM_SHARE = 0.2
HARM_WEIGHTS = {"harmbench": 10.0, "gptfuzz": 1.0, "composed": 1.0, "scenes": 0.2}
EASY = ("composed", "scenes", "gsm8k_train", "dolly_3k", "gpteacher_roleplay", "llms_from_scratch")


def answer_logits(heads: tuple[Head, Head, Head], features: Features) -> tuple[Any, Any, Any]:
    """Return raw log-odds of refusal, partial refusal and harm."""
    refused = heads[0].logit(features.opening, features.dense)
    partial = heads[1].logit(features.rest, features.dense)
    return refused, partial, heads[2].logit(features.rest, harm_inputs(features, refused, partial))


def report(name: str, split: str, logits: Any, labels: Any) -> None:
    """Print one line of the table: accuracy at even odds."""
    known = np.isin(labels, (0, 1))
    if known.sum():
        right = (logits > 0) == labels
        print(f"| {name} | {split} | {shown(right, known)} |", flush=True)


def calibration(name: str, probability: Any, labels: Any) -> None:
    """Print Brier score and expected calibration error (ten bins)."""
    bins = np.minimum((probability * 10).astype(int), 9)
    error = sum(
        abs(probability[bins == b].mean() - labels[bins == b].mean()) * (bins == b).mean()
        for b in range(10)
        if (bins == b).any()
    )
    brier = float(((probability - labels) ** 2).mean())
    print(f"| {name} | Brier {brier:.3f}, ECE {error:.3f}, n = {len(labels)} | |", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--small", type=Path, help="what judge_small_model.py wrote")
    parser.add_argument("--check", action="store_true", help="write nothing")
    parser.add_argument("--quick", action="store_true", help="skip the cross-validation")
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    options = parser.parse_args(arguments)
    found = requests(options.data)
    print("| head | split | accuracy, % (95 % interval) |\n|---|---|---|")
    whole, held = train_requests(found)
    examples = refusal_examples(options.data, options.small)
    prompts = [item.prompt for item in examples]
    features = look(
        prompts, [item.answer for item in examples], whole,
        request_logits=request_logits(prompts, found, whole, held),
    )  # fmt: skip
    data = Set(examples, features, table(features.opening), table(features.rest))
    held_out = held_refusals(data)
    heads = fit_answers(data, np.ones(len(examples), bool), held_out)
    measure(options.data, whole, heads)
    if not options.quick:
        heads = cross_validate(data, heads, held_out)
    if not options.check:
        write(options.out, whole, heads)
    return 0


def cross_validate(data: Set, heads: tuple[Head, Head, Head], held: Any) -> tuple[Head, Head, Head]:
    """Print the grouped and the leave-one-source-out table; return calibrated heads."""
    sources = data.column(lambda item: item.source)
    groups = data.column(lambda item: fold(item.group))
    refused = data.column(lambda item: -1 if item.refused is None else item.refused)
    harmful = data.column(lambda item: -1 if item.harmful is None else item.harmful)
    weights = data.column(lambda item: item.weight)
    logits = [np.zeros(len(sources)) for _ in range(3)]
    for number in range(FOLDS):
        part = groups == number
        made = answer_logits(fit_answers(data, ~part, held), data.features)
        for column, values in zip(logits, made, strict=True):
            column[part] = values[part]
    for source in sorted(set(sources)):
        mask = sources == source
        report("refused", f"{source}, groups held out", logits[0][mask], refused[mask])
        report("harmful", f"{source}, groups held out", logits[2][mask], harmful[mask])
    for source in ("chatgpt", "harmbench", "gptfuzz"):
        mask = sources == source
        made = answer_logits(fit_answers(data, ~mask, held), data.features)
        report("refused", f"{source}, source held out", made[0][mask], refused[mask])
        report("harmful", f"{source}, source held out", made[2][mask], harmful[mask])
    people = np.isin(sources, ("chatgpt", "harmbench", "dolly_3k"))
    some = people & ((refused == 0) | (refused == 1))
    # no shift: how often the sets here refuse is not how often other models do
    head = calibrate(heads[0], logits[0][some], refused[some], weights[some], shift=False)
    calibration("refused, groups held out", head.probability(logits[0][some]), refused[some])
    some = np.isin(sources, ("harmbench", "gptfuzz")) & (harmful >= 0)
    balance = weights * np.where(sources == "harmbench", 5.0, 1.0)
    harm = calibrate(heads[2], logits[2][some], harmful[some], balance[some])
    for source in ("harmbench", "gptfuzz"):
        mask = (sources == source) & (harmful >= 0)
        calibration(
            f"harmful, {source}, groups held out", harm.probability(logits[2][mask]), harmful[mask]
        )
    return head, heads[1], harm


def measure(data: Path, whole: Head, heads: tuple[Head, Head, Head]) -> None:
    """Print agreement on what was never trained on: XSTest's completions, whole and cut off."""
    found = rows(data, "labelled/xstest_completions_dev.jsonl")
    found = [row for row in found if row["human_label_refused"] is not None]
    found = [row for row in found if not degenerate(row["response"])]
    if not found:
        return
    labels = np.array([int(row["human_label_refused"]) for row in found])
    models = np.array([row["model"] for row in found])
    for words in (0, 6, 12, 24, 48):
        answers = [row["response"] for row in found]
        if words:
            answers = [" ".join(answer.split()[:words]) for answer in answers]
        seen = look([row["prompt"] for row in found], answers, whole)
        logits = answer_logits(heads, seen)
        split = f"XSTest, {f'first {words} words' if words else 'whole'}, never trained on"
        report("refused", split, logits[0], labels)
        if not words:
            for model in sorted(set(models)):
                report(
                    "refused",
                    f"XSTest, {model}",
                    logits[0][models == model],
                    labels[models == model],
                )


def write(path: Path, whole: Head, heads: tuple[Head, Head, Head]) -> None:
    """Write the heads as one compressed file of half-precision arrays."""
    arrays: dict[str, Any] = {}
    for name, head in zip(("request", "refused", "partial", "harm"), (whole, *heads), strict=True):
        arrays[f"{name}_sparse"] = head.sparse.astype(np.float16)
        arrays[f"{name}_dense"] = head.dense.astype(np.float32)
        arrays[f"{name}_rest"] = np.array([head.bias, head.slope, head.shift], np.float32)
    np.savez_compressed(path, **arrays)
    print(f"\nwrote {path.name}: {path.stat().st_size / 1e6:.2f} MB", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
