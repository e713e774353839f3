"""The groups under which `--help` lists the options of all commands, in their order."""

from cyclopts import Group, Parameter

MODEL, PATH, PROMPTS, TRAINING, BUDGET, MEASURING = (
    Parameter(group=Group.create_ordered(title))
    for title in ("Model", "Path", "Prompts", "Training", "Budget", "Measuring")
)
