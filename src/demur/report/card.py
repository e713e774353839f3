"""The model card: Markdown with front matter that the hub reads. It never quotes an answer.

Answers to harmful prompts stay in the report, folded away: a card is read by anybody who looks
for a model, so nothing here looks at the scorecard's examples.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from demur import figures
from demur.measure.scorecard import Comparison, Scorecard
from demur.report import files
from demur.report.content import ReportContent

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

FILE = "README.md"
_USAGE = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "path/to/this/folder"
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder)

messages = [{"role": "user", "content": "How do I cook a paella?"}]
inputs = tokenizer.apply_chat_template(
    messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"
)
outputs = model.generate(**inputs, max_new_tokens=200)
print(tokenizer.decode(outputs[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
"""
_LIMITS = (
    "The judge is simple: it reads whether an answer declines, not how harmful it is. "
    "It can be wrong, and the intervals do not cover its mistakes.",
    "An undecided answer (empty, looping or incoherent) is never counted as a refusal.",
    "Refusing is a habit of the model, not a guarantee: phrasings, languages, long "
    "conversations and attacks that were not measured may get past it.",
    "Some harmless requests are refused as well; the table says how many.",
)


def render_card(content: ReportContent) -> str:
    """Return the model card as Markdown with YAML front matter."""
    from huggingface_hub import ModelCard, ModelCardData

    name = f"{_line(content.model_name)}, aligned with demur"
    data = ModelCardData(
        base_model=content.base_model,
        license=content.license,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=list(content.tags),
        model_name=name,
        eval_results=_results(content.scorecard),
    )
    body = "\n\n".join(_sections(content, name))
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}\n", ignore_metadata_errors=False))


def write_card(content: ReportContent, folder: Path) -> Path:
    """Write the card as `README.md` into `folder`, whole or not at all, and return its path.

    Raises:
        RunError: the folder cannot be written to, or has no room.
    """
    return files.write_text(folder / FILE, render_card(content))


def _results(card: Scorecard) -> list[EvalResult]:
    """Return the figures after the treatment, as the hub's leaderboards read them."""
    from huggingface_hub import EvalResult

    rates = [
        EvalResult(
            task_type="text-generation",
            dataset_type=each.key,
            dataset_name=figures.plain(each.title),
            dataset_split=each.split,
            metric_type="refusal_rate",
            metric_name=f"refused, n = {each.after.n}",
            metric_value=round(each.after.value, 4),
        )
        for each in card.comparisons
        if each.after.n
    ]
    perplexity = EvalResult(
        task_type="text-generation",
        dataset_type=card.utility.text,
        dataset_name=card.utility.text,
        metric_type="perplexity",
        metric_value=round(card.utility.perplexity_after, 3),
    )
    return [*rates, perplexity]


def _sections(content: ReportContent, name: str) -> list[str]:
    patch = content.patch
    source = f"`{content.base_model}`" if content.base_model else _line(content.model_name)
    rank = "" if patch.rank is None else f", rank {patch.rank}"
    sections = [
        f"# {name}",
        _line(content.headline),
        f"{source} with a patch that changes {figures.percent(patch.share)} of its "
        f"{figures.parameters(content.parameters)} parameters ({patch.tensors} tensors{rank}).",
        "## Before and after",
        _comparisons(content.scorecard),
        "Share of prompts refused, with Wilson 95 % intervals; differences are paired by prompt, "
        "in percentage points, with Newcombe's interval. "
        "The whole report with its definitions is `report.html`.",
    ]
    sections += _bullets("## What met its goal", content.achieved)
    sections += _bullets("## What fell short", content.fell_short)
    sections += ["## Use", f"```python\n{_USAGE}```"]
    sections += _bullets("## How it was made", content.steps)
    sections += ["## Limits", _list((*_LIMITS, f"Judge: {content.judge}"))]
    sections += ["## Reproduce, apply, revert", _commands(content), _hashes(content)]
    return sections


def _comparisons(card: Scorecard) -> str:
    rows = [_comparison_row(each) for each in card.comparisons]
    utility = card.utility
    rows.append(
        (
            f"Perplexity on {utility.text}",
            "",
            f"{utility.perplexity_ratio.n} windows",
            figures.number(utility.perplexity_before),
            figures.number(utility.perplexity_after),
            f"ratio {figures.mean_text(utility.perplexity_ratio, 3)}",
        )
    )
    rows.append(
        (
            "KL from the original, nats a token",
            "",
            f"{utility.divergence.n} prompts",
            "0",
            figures.mean_text(utility.divergence, 4),
            "",
        )
    )
    head = ("", "split", "n", "before", "after", "difference")
    return _table(head, rows)


def _comparison_row(each: Comparison) -> tuple[str, ...]:
    wanted = "should be refused" if each.wanted == "up" else "should be answered"
    return (
        f"{each.title} ({wanted})",
        each.split,
        figures.grouped(each.after.n),
        figures.rate_text(each.before),
        figures.rate_text(each.after),
        figures.points(each.difference),
    )


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [_row(head), "|---|---|---:|---:|---:|---:|", *(_row(row) for row in rows)]
    return "\n".join(lines)


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(_line(cell).replace("|", "\\|") for cell in cells) + " |"


def _bullets(title: str, lines: tuple[str, ...]) -> list[str]:
    return [title, _list(lines)] if lines else []


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {_line(line)}" for line in lines)


def _commands(content: ReportContent) -> str:
    commands = "\n".join(
        figures.plain(each)
        for each in (content.command, content.apply_command, content.revert_command)
    )
    return f"```sh\n{commands}\n```"


def _hashes(content: ReportContent) -> str:
    versions = ", ".join(f"{key} {value}" for key, value in content.versions)
    lines = [
        f"Base weights, sha256: `{content.base_hash}`",
        f"`{content.patch.file}`, sha256: `{content.patch.sha256}`",
    ]
    return _list([*lines, f"Versions: {versions}"] if versions else lines)


def _line(text: str) -> str:
    """Return text in one line, with no markup of HTML's in it."""
    return " ".join(figures.plain(text).replace("<", "&lt;").split())
