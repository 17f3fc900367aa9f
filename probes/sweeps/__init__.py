"""Many probes at once: layers x seeds x targets, solved together in torch.

    found = sweeps.sweep(states, labels, kind="ridge", seeds=range(5), groups=subjects)
    found.table()
    found.best()

Every number is that of the probe fitted alone: the same split, scaling and objective as in
:mod:`probes.linear`; the suite compares the coefficients.
"""

from __future__ import annotations

from probes.sweeps.result import Sweep
from probes.sweeps.run import sweep
from probes.sweeps.solvers import KINDS, SweepKind

__all__ = ["KINDS", "Sweep", "SweepKind", "sweep"]
