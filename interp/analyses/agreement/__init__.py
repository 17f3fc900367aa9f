"""Does another model do the same thing by the same parts? Effects, ranking, circuit."""

from interp.analyses.agreement.run import patch_agreement

__all__ = ["patch_agreement"]
