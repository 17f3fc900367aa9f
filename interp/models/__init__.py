"""The hooked wrappers over Hugging Face models. Names are imported on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from interp._lazy import exports

if TYPE_CHECKING:
    from interp.models.backends import BACKENDS as BACKENDS
    from interp.models.families import FAMILIES as FAMILIES
    from interp.models.families import Family as Family
    from interp.models.generated import Generation as Generation
    from interp.models.interventions import Intervention as Intervention
    from interp.models.loading import ModelLike as ModelLike
    from interp.models.loading import as_model as as_model
    from interp.models.loading import load as load
    from interp.models.model import Model as Model
    from interp.models.model import Run as Run
    from interp.models.sampling import Sampling as Sampling
    from interp.models.streaming import NewToken as NewToken
    from interp.models.tokens import Tokens as Tokens

__getattr__, __dir__, __all__ = exports(__name__)
