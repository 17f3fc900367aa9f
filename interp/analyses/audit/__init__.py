"""The belief test for anything that reads: does it read the model, the prompt, the world, or nothing?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from interp._lazy import exports

if TYPE_CHECKING:
    from interp.analyses.audit.cases import Case as Case
    from interp.analyses.audit.evidence import Evidence as Evidence
    from interp.analyses.audit.result import AuditResult as AuditResult
    from interp.analyses.audit.rule import VERDICTS as VERDICTS
    from interp.analyses.audit.rule import judge as judge
    from interp.analyses.audit.run import reader as reader

__getattr__, __dir__, __all__ = exports(__name__)
