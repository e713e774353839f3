"""How models refuse: patterns, their uniformity, their security, and whether the two go together.

The paper "refusal-pattern distillation" (arXiv 2406.11285) opens with a study of nine models and
finds uniform patterns more secure; neither its models nor its definitions are public, so that the
definitions here are ours. `demur study SOURCE...`, or `demur.study_refusals(...)` in Python.
"""
