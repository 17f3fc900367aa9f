"""What only a vector symbolic algebra can do: claims, controls, and the strongest readers without it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from interp._lazy import exports

if TYPE_CHECKING:
    from interp.analyses.claims.evidence import Claim as Claim
    from interp.analyses.claims.result import ClaimsResult as ClaimsResult
    from interp.analyses.claims.run import CLAIMS as CLAIMS
    from interp.analyses.claims.run import claims as claims

__getattr__, __dir__, __all__ = exports(__name__)
