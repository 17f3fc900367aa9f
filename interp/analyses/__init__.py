"""Ready analyses: a model in, a result with its controls out. Names are imported on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from interp._lazy import exports

if TYPE_CHECKING:
    from interp.analyses.causal import CausalUse as CausalUse
    from interp.analyses.causal import causal_use as causal_use
    from interp.analyses.concept_scores import interpretability as interpretability
    from interp.analyses.concepts import ConceptResult as ConceptResult
    from interp.analyses.concepts import probe_concepts as probe_concepts
    from interp.analyses.costs import cost as cost
    from interp.analyses.fine_tuning_wrapper import wrapper as wrapper
    from interp.analyses.knowledge import recall as recall
    from interp.analyses.latent import LatentResult as LatentResult
    from interp.analyses.latent import latent_structure as latent_structure
    from interp.analyses.multi_hop import two_hop as two_hop
    from interp.analyses.outputs import behaviour as behaviour
    from interp.analyses.own_explanations import counterfactuals as counterfactuals
    from interp.analyses.own_explanations import explanations as explanations
    from interp.analyses.patching import Patching as Patching
    from interp.analyses.patching import patch as patch
    from interp.analyses.patching import patch_agreement as patch_agreement
    from interp.analyses.probing import ProbeResult as ProbeResult
    from interp.analyses.probing import probe as probe
    from interp.analyses.representation_similarity import geometry as geometry
    from interp.analyses.small_edits import sensitivity as sensitivity
    from interp.analyses.table import ANALYSES as ANALYSES
    from interp.analyses.text_compression import compression as compression
    from interp.analyses.token_trajectories import trajectory as trajectory
    from interp.analyses.training_changes import difference as difference
    from interp.analyses.transfer import probe_transfer as probe_transfer

__getattr__, __dir__, __all__ = exports(__name__)
