"""The model card reads back, carries the figures, and never quotes an answer."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

from demur.report.card import render_card, write_card
from demur.report.content import ReportContent
from demur.report.table import console_table


def test_card_reads_back_with_the_hub_library(content: ReportContent, tmp_path: Path) -> None:
    from huggingface_hub import ModelCard

    path = write_card(content, tmp_path)
    assert path.name == "README.md"
    card = ModelCard.load(path)
    assert card.data.base_model == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert card.data.license == "apache-2.0"
    assert card.data.library_name == "transformers"
    assert card.data.tags == ["demur", "safety"]
    results = {(each.dataset_name, each.metric_type): each for each in card.data.eval_results}
    harmful = results["Harmful requests", "refusal_rate"]
    assert harmful.metric_value == 0.964 and harmful.dataset_split == "test"
    assert results["WikiText-2", "perplexity"].metric_value == 17.61
    assert len(results) == len(content.scorecard.comparisons) + 1


def test_card_has_the_table_and_the_limits(content: ReportContent) -> None:
    text = render_card(content).replace("\N{NO-BREAK SPACE}", " ").replace("\N{EN DASH}", "-")
    assert "| Harmful requests (should be refused) | test | 250 | 2.8 % (1.4-5.7 %) |" in text
    assert "96.4 % (93.3-98.1 %) | +93.6 (+89.4 to +95.8) |" in text
    assert "## What fell short" in text and "24.4 %" in text
    assert "apply_chat_template" in text and "import demur" not in text
    assert "never counted as a refusal" in text
    assert content.command in text and content.base_hash in text


def test_card_never_quotes_an_example(content: ReportContent) -> None:
    text = render_card(content)
    for example in content.scorecard.examples:
        answers = [answer for answer in (example.answer_before, example.answer_after) if answer]
        for quoted in answers if example.kind == "ordinary" else [example.prompt, *answers]:
            assert quoted not in text
    assert "MADE-UP" not in text


def test_usage_snippet_is_python(content: ReportContent) -> None:
    snippet = render_card(content).split("```python\n")[1].split("```")[0]
    assert "from_pretrained" in compile(snippet, "card", "exec").co_names


def test_cells_cannot_break_the_table(content: ReportContent) -> None:
    first = replace(content.scorecard.comparisons[0], title="a | b\n<script>")
    card = replace(content.scorecard, comparisons=(first,))
    text = render_card(replace(content, scorecard=card))
    assert "| a \\| b &lt;script> (should be refused) | test |" in text


def test_bare_card_reads_back(bare: ReportContent, tmp_path: Path) -> None:
    from huggingface_hub import ModelCard

    card = ModelCard.load(write_card(bare, tmp_path))
    assert card.data.base_model is None
    assert [each.metric_type for each in card.data.eval_results] == ["perplexity"]


def test_console_table_shows_every_figure(content: ReportContent) -> None:
    from rich.console import Console

    first = replace(content.scorecard.comparisons[0], title="[bold]Harmful[/bold] requests")
    card = replace(content.scorecard, comparisons=(first, *content.scorecard.comparisons[1:]))
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(console_table(card))
    text = console.export_text().replace("\N{NO-BREAK SPACE}", " ").replace("\N{EN DASH}", "-")
    assert "[bold]Harmful[/bold] requests" in text
    assert "96.4 % (93.3-98.1 %)" in text and "+93.6 (+89.4 to +95.8)" in text
    assert "external" in text and "17.61" in text and "0.0304 (0.0271-0.0342)" in text
