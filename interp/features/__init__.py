"""Features: sparse dictionaries of a model's states, published or trained here, as sites and mediators.

dictionary = features.load("FOLDER")                        # or a repository in the Hub's cache
model = model.with_dictionaries(dictionary)
model.capture(prompts, ["feature.12.*", "error.12"])
mediation.attribution(model, pairs, "feature.12.*")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from interp._lazy import exports

if TYPE_CHECKING:
    from interp.features.certificate import FeatureCertificate as FeatureCertificate
    from interp.features.certificate import check as check
    from interp.features.dictionary import Dictionary as Dictionary
    from interp.features.loading import LAYOUTS as LAYOUTS
    from interp.features.loading import load as load
    from interp.features.loading import load_all as load_all
    from interp.features.loading import push_to_hub as push_to_hub
    from interp.features.training import Plan as Plan
    from interp.features.training import gather as gather
    from interp.features.training import train as train
    from interp.features.views import FeatureViews as FeatureViews
    from interp.features.views import look as look

__getattr__, __dir__, __all__ = exports(__name__)
