"""What a user would pick instead of a graft, and the controls that stand beside it.

Each rival takes a recipient, an aligned donor and their common base, all checkpoint folders, and
gives changes by the tensor's name on disk, made when they are asked for:

* `vectors`: the donor's chat vector added (Huang et al. 2024), RESTA with DARE (Bhardwaj et al.
  2024), and low-rank extrapolation as in LoX (Perin et al. 2025).
* `subspace`: projection as in Safe LoRA (Hsu et al. 2024), and merging layer by layer as in
  SafeMERGE (Djuhera et al. 2025).
* `controls`: the whole donor, which is the ceiling, and random modules of the same size. Noise of
  the same norm is `models.changes.noise`.
* `table`: all of them by name, as their papers have them.

No scale is negative: what a donor has more of than its base is only ever added.
"""
