"""Teachers: whose refusals are imitated, what of them is kept, and in which words.

* `instructed`: the student itself, under a safety instruction or after examples.
* `other`: another model of this machine or the hub.
* `remote`: a model behind an endpoint.
* `recorded`: answers in a file, which brings its own prompts.

`choose.find_teacher` tells them apart; `filtering` keeps clean refusals, `pattern` finds the
dominant wording of them, and `lessons` makes lessons of what was kept.
"""

from demur.distill.teachers.base import Teacher

__all__ = ["Teacher"]
