"""Baselines and controls: what a distilled model must beat, made without training.

Each gives weight changes by the tensor's name on disk, as `checkpoint.make_patch` writes and
`models.edits.edited` tries them, or a model that is asked in another way:

* `direction`: the refusal direction added into weights (Arditi et al. 2024).
* `context`: a safety instruction, or one example, in the context.
* `probe`: what a linear probe reads off the untouched model: no treatment, but the line to meet.
* `choose_scale`: picks a scale on validation prompts.

Task arithmetic and noise, which grafting is compared with too, are in `models.changes`.
"""
