"""`demur align`, and what is done with its result: apply, revert, adapter, chat, show, prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from demur.aligning.config import AlignConfig
from demur.cli.app import OUTPUT, Json, Trust, app, print_json, say, stdout
from demur.cli.judge import EndpointOptions, how_from
from demur.cli.patching import Patching
from demur.options import MODEL


@app.command
def align(
    config: Annotated[AlignConfig, Parameter(name="*")],
    *,
    endpoint: EndpointOptions | None = None,
    run: Annotated[Path | None, OUTPUT] = None,
    json: Json = False,
    no_menu: Annotated[bool, Parameter(name=("--no-menu", "--yes"), group=OUTPUT.group)] = False,
) -> None:
    """Give a model its refusals back: measure, graft or distil, choose, measure again, report.

    The run folder holds the aligned model, a small patch, the report and the journal. The same
    command continues a run that was interrupted.

    Args:
        run: the run folder; by default runs/<model>-<hash of all choices>.
        json: print the result as one JSON object, and ask nothing.
        no_menu: leave out the menu at the end.
    """
    from demur.aligning.align import align as align_model
    from demur.console import Narrator, is_interactive

    narrator = Narrator()
    how = how_from(endpoint or EndpointOptions(), config.device, config.dtype, run)
    aligned = align_model(config, run=run, narrator=narrator, means=how.means, caps=how.caps)
    if json:
        from demur.measure.result import read_result

        print_json({"run": str(aligned.run), **read_result(aligned.run)})
    elif not no_menu and is_interactive():
        from demur.aligning.menu import QuestionaryAsker, actions_of, run_menu

        run_menu(actions_of(aligned, config, narrator.console), QuestionaryAsker(), narrator.say)


@app.command
def apply(
    patching: Annotated[Patching, Parameter(name="*")],
    *,
    json: Json = False,
) -> None:
    """Put a patch onto the model that it was made for, into a new folder.

    Args:
        json: print what was done as one JSON object.
    """
    from demur.checkpoint import apply_patch

    applied = apply_patch(patching.folder(), patching.patch, patching.out)
    _say_applied(applied, json)


@app.command
def revert(
    patching: Annotated[Patching, Parameter(name="*")],
    *,
    json: Json = False,
) -> None:
    """Take a patch out of a model that carries it, into a new folder.

    Args:
        json: print what was done as one JSON object.
    """
    from demur.checkpoint import revert_patch
    from demur.report.card import FILE
    from demur.treating.provenance import is_card_of_demur

    applied = revert_patch(patching.folder(), patching.patch, patching.out)
    card = patching.out / FILE
    if is_card_of_demur(card):  # it describes the model with the patch
        card.unlink()
    _say_applied(applied, json)


@app.command
def adapter(
    patching: Annotated[Patching, Parameter(name="*")],
    *,
    json: Json = False,
) -> None:
    """Write a patch of low rank as a PEFT adapter of the model that it was made for.

    Args:
        json: print where the adapter is as one JSON object.
    """
    from demur.models.resolve import ALIASES
    from demur.models.to_adapter import patch_to_adapter

    alias = ALIASES.get(patching.model.lower())
    base = alias.hub if alias else patching.model
    made = patch_to_adapter(
        *(patching.folder(), patching.patch, base, patching.out),
        trust_remote_code=patching.trust_remote_code,
    )
    if json:
        print_json({"adapter": str(made), "base": base})
    else:
        print(f"The adapter is {made}; `peft` loads it onto {base}.")


@app.command
def chat(
    model: Annotated[str, MODEL],
    *,
    against: Annotated[str | None, MODEL] = None,
    system: Annotated[str | None, MODEL] = None,
    thinking: Annotated[bool, MODEL] = False,
    chat_template: Annotated[str | None, MODEL] = None,
    device: Annotated[str, MODEL] = "auto",
    dtype: Annotated[str, MODEL] = "auto",
    trust_remote_code: Trust = False,
    tokens: Annotated[int, OUTPUT] = 200,
) -> None:
    """Talk to a model, or to two side by side; each line is asked on its own.

    Args:
        model: hub id, folder, GGUF file, PEFT adapter folder, or the alias smollm2-135m.
        against: a second model, which answers the same beside it.
        system: a system prompt; by default what the chat template itself has.
        thinking: leave the thinking block of the template open.
        chat_template: chatml, plain or a Jinja file, for a model without one.
        device: auto, cuda, mps or cpu.
        dtype: auto, float32, bfloat16 or float16.
        trust_remote_code: let a model bring its own Python code.
        tokens: at most so many tokens an answer.
    """
    from rich.console import Console

    from demur.cli.conversation import Manner, converse, speaker
    from demur.models.resolve import resolve

    manner = Manner(device, dtype, system, thinking, chat_template, trust_remote_code, tokens)
    names = [model] if against is None else [model, against]
    folders = [resolve(name, trust_remote_code=trust_remote_code, say=say) for name in names]
    converse([speaker(each.folder, each.name, manner) for each in folders], Console())


@app.command
def show(run: Path, *, json: Json = False) -> None:
    """Show the figures of a finished run again.

    Args:
        run: its run folder.
        json: print the result as one JSON object.
    """
    from demur.measure.result import read_result, scorecard_of
    from demur.report.html import FILE
    from demur.report.table import console_table
    from demur.treating.outcome import closing, goals

    result = read_result(run)
    if json:
        print_json({"run": str(run), **result})
        return
    scorecard = scorecard_of(result)
    stdout().print(console_table(scorecard))
    print(closing(scorecard, goals(scorecard), run / FILE))


@app.command
def prompts(*, export: Path | None = None, sets: bool = False, json: Json = False) -> None:
    """Count the built-in prompts by hazard, contrast and split, or write them to a file.

    Args:
        sets: list the public prompt sets that `demur measure --sets` knows by name.
        export: write all prompts, with the split of each, to this file as JSON lines.
        json: print the counts as one JSON object.
    """
    if sets:
        from demur.prompts.catalogue import listing, listing_table

        if json:
            print_json(listing())
        else:
            stdout().print(listing_table())
        return
    from demur.prompts.choose import gather
    from demur.prompts.listing import count, json_lines, tables
    from demur.report.files import write_text

    splits = gather()
    if export is not None:
        lines = json_lines(splits)
        write_text(export, lines)
        say(f"Wrote {lines.count(chr(10)):,} prompts to {export}.")
    if json:
        print_json(count(splits))
    elif export is None:
        for table in tables(count(splits)):
            stdout().print(table)


def _say_applied(applied: Any, json: bool) -> None:
    if json:
        from demur.checkpoint.manifest import plain

        print_json(plain(applied))
    else:
        print(applied.sentence)
