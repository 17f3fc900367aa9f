"""Distributed alignment search: directions of a site that carry a variable, with their controls.

Cases (interchanges with the answer each should give) are read once; the blocks behind the site are run with
the graph kept; the rows of an orthonormal basis are trained; the exact engine scores the result on held-out
groups, next to every control.
"""

from interp.mediation.distributed_alignment.controls import CONTROLS
from interp.mediation.distributed_alignment.result import Alignment, Score
from interp.mediation.distributed_alignment.search import das, interchange_accuracy

__all__ = ["CONTROLS", "Alignment", "Score", "das", "interchange_accuracy"]
