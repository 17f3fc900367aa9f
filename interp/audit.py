"""The belief test for anything that reads: the model, the prompt, the world, or nothing?

from interp import audit

audit.reader("logit", model, layers="all")                         # a ready reader (`interp ls readers`)
audit.reader(lambda states: [["Paris"]] * len(states), model)      # any callable: states in, ranked names out
audit.reader(mine, model, edited=(twin, facts_of_the_twin))        # any model that has an edited twin
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from interp._lazy import exports

if TYPE_CHECKING:
    from interp.analyses.audit.cases import Case as Case
    from interp.analyses.audit.result import AuditResult as AuditResult
    from interp.analyses.audit.rule import VERDICTS as VERDICTS
    from interp.analyses.audit.run import reader as reader
    from interp.analyses.readers.reader import Reader as Reader

__getattr__, __dir__, __all__ = exports(__name__)
