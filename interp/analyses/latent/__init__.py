"""Latent structure: does a model connect what documents say of a codename, where, and does it use it?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from interp._lazy import exports

if TYPE_CHECKING:
    from interp.analyses.latent.asking import Asked as Asked
    from interp.analyses.latent.asking import asked as asked
    from interp.analyses.latent.reading import Reading as Reading
    from interp.analyses.latent.result import LatentResult as LatentResult
    from interp.analyses.latent.run import latent_structure as latent_structure

__getattr__, __dir__, __all__ = exports(__name__)
