"""The groups under which `--help` lists the options of all commands, in their order."""

from cyclopts import Group, Parameter

MODEL, PROMPTS, TRAINING, BUDGET, MEASURING = (
    Parameter(group=Group.create_ordered(title))
    for title in ("Model", "Prompts", "Training", "Budget", "Measuring")
)
