"""Is a capability that training took away still there, behind a wrapper, or deleted?"""

from __future__ import annotations

from interp.analyses.fine_tuning_wrapper.run import wrapper

__all__ = ["wrapper"]
