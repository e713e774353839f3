"""`demur judge`: score judges against people, or judge recorded answers again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Group, Parameter

from demur.cli.app import OUTPUT, Json, Out, app, print_json, say, stdout

ENDPOINTS = Parameter(group=Group.create_ordered("Endpoints"))
JUDGES = Parameter(group=Group.create_ordered("Judges"))


@Parameter(name="*")
@dataclass(frozen=True)
class EndpointOptions:
    """How endpoints are asked, and what it may cost.

    Attributes:
        max_requests: answer at most so many requests, earlier tries of the same run included.
        max_tokens: spend at most so many tokens, of requests and replies together.
        max_dollars: spend at most so much; needs the two prices.
        price_in: dollars a million tokens of requests.
        price_out: dollars a million tokens of replies.
        at_once: how many requests are under way at the same time.
        tries: how often a request is sent at most.
        timeout: seconds until a reply must be there.
        key_variable: the environment variable that holds the key, if not OPENAI_API_KEY or
            ANTHROPIC_API_KEY.
    """

    max_requests: Annotated[int | None, ENDPOINTS] = None
    max_tokens: Annotated[int | None, ENDPOINTS] = None
    max_dollars: Annotated[float | None, ENDPOINTS] = None
    price_in: Annotated[float | None, ENDPOINTS] = None
    price_out: Annotated[float | None, ENDPOINTS] = None
    at_once: Annotated[int, ENDPOINTS] = 8
    tries: Annotated[int, ENDPOINTS] = 6
    timeout: Annotated[float, ENDPOINTS] = 120.0
    key_variable: Annotated[str | None, ENDPOINTS] = None


@app.command
def judge(
    file: Path,
    *,
    judges: Annotated[str | None, JUDGES] = None,
    answers: Annotated[bool, JUDGES] = False,
    allow_conflicts: Annotated[bool, JUDGES] = False,
    device: Annotated[str, JUDGES] = "auto",
    dtype: Annotated[str, JUDGES] = "auto",
    endpoint: EndpointOptions | None = None,
    run: Annotated[Path | None, OUTPUT] = None,
    out: Out | None = None,
    json: Json = False,
) -> None:
    """Score judges against human labels, or judge recorded answers again.

    FILE is a labelled file (CSV, TSV, JSON, JSON lines, Parquet), with
    --answers a file of requests and answers, or the folder of a finished
    run, whose answers are not generated again. Verdicts are kept as they
    come: the same command continues.

    Args:
        file: a labelled file, a file of answers, or a run folder.
        judges: judges with commas between: opening, embedded, phrases:gcg, llama-guard-3,
            wildguard=FOLDER, qwen3guard@http://HOST:PORT/v1#MODEL, strongreject@openai:MODEL,
            rubric@anthropic:MODEL, panel:opening,wildguard@... An unknown name lists all. By
            default all that cost nothing.
        answers: the file has no labels: write verdicts and rates.
        allow_conflicts: leave out answers that are labelled both ways.
        device: where guard models run: auto, cuda, mps or cpu.
        dtype: of guard models: auto, float32, bfloat16 or float16.
        run: the folder where verdicts are kept; by default runs/judge-<name>-<hash>.
        out: write every answer with its verdicts to this file, as JSON lines.
        json: print the result as one JSON object.
    """
    from demur.judging.write import verdict_lines

    how = how_from(endpoint or EndpointOptions(), device, dtype, run)
    if out is not None and out.is_dir():
        from demur.errors import JudgeError

        raise JudgeError(f"{out} is a folder.", "Name a file with --out.")
    if answers or file.is_dir():
        found = _judged_again(file, judges or "opening", how)
    else:
        found = _scored(file, judges, allow_conflicts, how)
    if out is not None:
        _write(out, verdict_lines(found.rows, found.judges))
    if json:
        print_json(found.as_json())
        return
    for table in found.tables:
        stdout().print(table)
    for one in found.judges:
        say(f"{one.name}: {one.description}")


@dataclass(frozen=True)
class _Found:
    """What judging came to, as it is shown.

    Attributes:
        rows: the answers that were judged.
        judges: those that judged, each with its verdicts.
        tables: for people.
        figures: for programs, by name.
        folder: where verdicts are kept.
    """

    rows: Any
    judges: Any
    tables: list[Any]
    figures: dict[str, Any]
    folder: Path

    def as_json(self) -> Any:
        """Return all of it but the tables, in what JSON knows."""
        from demur.checkpoint.manifest import plain

        said = [
            {
                "name": one.name,
                "description": one.description,
                "spent": one.spent,
                "decided_by": dict(one.decided_by),
                "asked": dict(one.asked),
            }
            for one in self.judges
        ]
        told = {"run": str(self.folder), "n": len(self.rows), "judges": said}
        return plain(told | self.figures)


def _judged_again(file: Path, judges: str, how: Any) -> _Found:
    from demur.judging.judge import rejudge
    from demur.judging.tables import rate_tables

    again = rejudge(file, judges, how=how)
    figures = {"rates": again.rates, "changes": again.changes}
    return _Found(again.rows, again.judges, list(rate_tables(again)), figures, again.run)


def _scored(file: Path, judges: str | None, allow_conflicts: bool, how: Any) -> _Found:
    from demur.judging.judge import score_judges
    from demur.judging.tables import score_tables

    scores = score_judges(file, judges, allow_conflicts=allow_conflicts, how=how)
    figures = {
        "overall": scores.overall,
        "by_source": scores.by_source,
        "by_model": scores.by_model,
        "unlabelled": scores.labelled.unlabelled,
        "conflicts": scores.labelled.conflicts,
    }
    tables = list(score_tables(scores))
    return _Found(scores.labelled.rows, scores.judges, tables, figures, scores.run)


def how_from(options: EndpointOptions, device: str, dtype: str, run: Path | None) -> Any:
    """Return how judges and models at endpoints are asked, from the options of a command.

    Raises:
        ConfigError: an option makes no sense.
    """
    from demur.errors import ConfigError
    from demur.judge.names import Means
    from demur.judging.judge import How
    from demur.models.asking import Patience
    from demur.models.budget import Caps

    for name in ("tries", "at_once", "timeout"):
        if not getattr(options, name) > 0:
            flag = f"--{name.replace('_', '-')}"
            raise ConfigError(f"{flag} is {getattr(options, name)}.", "Give a positive number.")
    caps = Caps(
        options.max_requests,
        options.max_tokens,
        options.max_dollars,
        options.price_in,
        options.price_out,
    )
    means = Means(
        patience=Patience(tries=options.tries, timeout=options.timeout),
        at_once=options.at_once,
        key_variable=options.key_variable,
        device=device,
        dtype=dtype,
    )
    return How(means, caps, run)


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    import json as json_format

    from demur.report.files import write_text

    text = "".join(json_format.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_text(path, text)
    say(f"Wrote {len(rows):,} answers with their verdicts to {path}.")
