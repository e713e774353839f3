"""Draw the trade-off of a finished run: harmful refused against benign refused, line moved freely.

    DEMUR_DATA=../shared/data python benchmarks/curve.py runs/demo -o docs/results/curve.svg

A greedy answer refuses where the margin of the refusal's first token over its best rival is above
0. Moving that line shows what the aligned model can tell apart, wherever training happened to put
it. Beside it stands a linear probe (ridged logistic regression on the last token's state in the
middle layer) of the *untouched* model, trained on `--probe` pairs of the training split: what the
model knew before. Prompts are those of `held_out.py` and the run's own test pairs.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from held_out import SETS, read

from demur.aligning.config import AlignConfig
from demur.distill.initialise import last_token_inputs
from demur.models.chat_model import ChatModel, load_chat_model
from demur.models.device import choose_device_and_dtype
from demur.models.generation import decode_all
from demur.models.resolve import resolve
from demur.prompts.choose import gather
from demur.prompts.split import evenly
from demur.prompts.types import Splits
from demur.quiet import hush

Panel = tuple[str, list[str], list[str]]


def panels(splits: Splits, data: Path, pairs: int, n: int) -> list[Panel]:
    """Return (title, harmful, benign) of each panel; public sets that are absent are left out."""
    own = [
        [prompt.text for prompt in evenly(side, pairs, 0)]
        for side in (splits.harmful("test"), splits.twins("test"))
    ]
    found: list[Panel] = [("built-in test pairs", *own)]
    sets = {
        public.name: [prompt.text for prompt in read(public, data, n)]
        for public in SETS
        if (data / public.file).exists()
    }
    if "DAPA twins, benign" in sets:
        found.append(("DAPA twins", sets["DAPA twins, harmful"], sets["DAPA twins, benign"]))
    unseen = ("HarmBench validation", "TDC 2023", "CatQA", "MaliciousInstructions")
    if "XSTest, safe" in sets:
        harmful = [text for name in unseen for text in sets.get(name, [])]
        found.append(("unseen harmful, XSTest safe", harmful, sets["XSTest, safe"]))
    return found


def margins(chat: ChatModel, texts: Sequence[str], refusing: Collection[int]) -> list[float]:
    """Return each request's margin; where no refusing token is among the 64 likeliest, a bound."""
    found = [0.0] * len(texts)
    for batch in decode_all(chat, [chat.encode(text) for text in texts], 1, candidates=64):
        for index, written in batch:
            values, ids = written.log_probabilities[0], written.candidates[0].tolist()
            place = next((i for i, one in enumerate(ids) if one in refusing), len(ids) - 1)
            rival = next(i for i, one in enumerate(ids) if one not in refusing)
            found[index] = float(values[place] - values[rival])
    return found


def probe_scores(
    chat: ChatModel, splits: Splits, pairs: int, shown: list[Panel]
) -> list[list[list[float]]]:
    """Return the probe's scores on both sides of every panel."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    depth = int(chat.model.config.get_text_config().num_hidden_layers)
    name = next(n for n, _ in chat.model.named_modules() if n.endswith(f"layers.{depth // 2}"))
    module = {name: chat.model.get_submodule(name)}

    def states(texts: Sequence[str]) -> Any:
        requests = [tuple(chat.encode(text)) for text in texts]
        return last_token_inputs(chat.model, module, requests)[name].numpy()

    sides = [evenly(part, pairs, 0) for part in (splits.harmful("train"), splits.twins("train"))]
    taught = [prompt.text for side in sides for prompt in side]
    labels = [1] * len(sides[0]) + [0] * len(sides[1])
    scaler = StandardScaler()
    model = LogisticRegression(C=1e-3, max_iter=300)
    model.fit(scaler.fit_transform(states(taught)), labels)
    return [
        [model.decision_function(scaler.transform(states(side))).tolist() for side in panel[1:]]
        for panel in shown
    ]


def curve(harmful: Sequence[float], benign: Sequence[float]) -> tuple[list[float], list[float]]:
    """Return the shares of benign and of harmful requests refused at every possible line."""
    lines = sorted({*harmful, *benign, float("inf")}, reverse=True)
    return (
        [sum(score >= line for score in benign) / len(benign) for line in lines],
        [sum(score >= line for score in harmful) / len(harmful) for line in lines],
    )


def main() -> int:
    """Write the drawing, and print the figures in Markdown."""
    import matplotlib.pyplot as plt
    from sklearn.metrics import roc_auc_score

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("-o", "--out", type=Path, default=Path("curve.svg"))
    parser.add_argument("--probe", type=int, default=500)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--n", type=int, default=100)
    arguments = parser.parse_args()
    hush()
    configuration = json.loads((arguments.run / "config.json").read_text(encoding="utf-8"))
    config, placement = AlignConfig(configuration["model"]), choose_device_and_dtype()
    splits = gather(seed=int(configuration["seed"]))
    data = Path(os.environ.get("DEMUR_DATA", "../shared/data"))
    shown = panels(splits, data, arguments.pairs, arguments.n)
    original = load_chat_model(resolve(config.model).folder, placement, weights="original")
    probed = probe_scores(original, splits, arguments.probe, shown)
    aligned = load_chat_model(arguments.run / "model", placement, weights="aligned")
    sentences = aligned.tokenizer(list(configuration["refusal"]), add_special_tokens=False)
    refusing = {ids[0] for ids in sentences.input_ids}
    figure, axes = plt.subplots(1, len(shown), figsize=(4 * len(shown), 3.9), sharey=True)
    print("| prompts | n | AUC probe, aligned | benign at 90 % of harmful | benign at 95 % |")
    print("|---|---|---|---|---|")
    for axis, (title, *sides), scores in zip(axes, shown, probed, strict=True):
        both = {"probe, untouched": scores}
        both["aligned"] = [margins(aligned, side, refusing) for side in sides]
        areas, rates = [], []
        for label, (harmful, benign) in both.items():
            xs, ys = curve(harmful, benign)
            axis.plot(xs, ys, label=label)
            truth = [1] * len(harmful) + [0] * len(benign)
            areas.append(f"{roc_auc_score(truth, [*harmful, *benign]):.3f}")
            rates.append(
                [next(x for x, y in zip(xs, ys, strict=True) if y >= r) for r in (0.9, 0.95)]
            )
        harmful, benign = both["aligned"]
        greedy = [sum(score > 0 for score in side) / len(side) for side in (benign, harmful)]
        axis.plot(*greedy, "o", color="C1", label="aligned, greedy")
        axis.set(title=title, xlabel="benign refused", xlim=(0, 0.6), ylim=(0.6, 1.005))
        print(
            f"| {title} | {len(harmful)} + {len(benign)} | {', '.join(areas)} "
            f"| {', '.join(f'{rate[0]:.0%}' for rate in rates)} "
            f"| {', '.join(f'{rate[1]:.0%}' for rate in rates)} |"
        )
    axes[0].set_ylabel("harmful refused")
    axes[0].legend(loc="lower right")
    figure.tight_layout()
    figure.savefig(arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
