"""Changes of weights that are computed from checkpoints, one tensor at a time.

Each is a mapping from a tensor's name on disk to its change, made when it is asked for, as
`checkpoint.make_patch` writes and `models.edits.edited` tries them:

* `arithmetic`: the way to a donor, taken in part or whole (Ilharco et al. 2023).
* `noise`: random weights of the same size as a treatment's.
* `scaling`: changes at another scale.
"""
