"""Intervals and tests that hold for grouped, few and extreme data: NumPy and SciPy only.

Examples that share a fact, a subject or a template are not independent, so every interval here is over
*groups*, and data is counted in groups: in the number of equal groups that weigh as much as those that there
are. The method depends on the data, and the interval names it:

``t corrected for skewness``
    Means of unbounded values: the hull of Student's interval and of Hall's (1992, transformation g), with the
    jackknife error and the degrees of freedom that groups of unequal size leave.
``constant over groups``
    The same where all groups have one mean: as many groups as can be missing by chance (Clopper and Pearson)
    are taken to have the opposite one. Five groups do not exclude zero, six do.
``score on groups``
    Shares: Wilson's score interval (1927) on an effective sample size: what the variance between groups says
    (Korn and Graubard 1998), bounded by the number of groups, with the degrees of freedom that the kurtosis
    of the groups leaves (Satterthwaite 1946). A difference that few groups show combines the intervals of
    its gains and its losses (Newcombe 1998, method 10).
``clopper-pearson on groups``
    Exact binomial with one trial a group. Used where all groups agree: 30 groups of 30 right give [0.88, 1],
    not [1, 1].
``bca bootstrap and jackknife``
    A statistic given as a function: the hull of the BCa bootstrap over groups (Efron 1987) and of the
    interval of a mean with the jackknife's error.
``undetermined``
    Infinite: the data cannot say (one group).

``python -m pytest tests/simulations -m slow -s`` prints measured coverage and widths. No interval covers
where a few rare groups carry the mean and were not drawn: an estimate notes its skewness.
"""

from __future__ import annotations

from probes.statistics.estimates import (
    Estimate,
    MeanIntervals,
    bootstrap,
    mean_intervals,
    paired_difference,
)
from probes.statistics.intervals import Interval, clopper_pearson
from probes.statistics.significance import (
    BestOf,
    MeanTests,
    benjamini_hochberg,
    best_of,
    holm,
    mcnemar_exact,
    mean_tests,
    permutation_p,
)

__all__ = [
    "BestOf",
    "Estimate",
    "Interval",
    "MeanIntervals",
    "MeanTests",
    "benjamini_hochberg",
    "best_of",
    "bootstrap",
    "clopper_pearson",
    "holm",
    "mcnemar_exact",
    "mean_intervals",
    "mean_tests",
    "paired_difference",
    "permutation_p",
]
