"""Causal mediation: which part of a model carries the difference between two prompts.

    pairs = tasks.sample(model, "capitals", 32)
    effects = mediation.exhaustive(model, pairs, "head.*")
    effects.table(5)

A study names its mediator type, its search and its evaluation (Mueller et al. 2024, arXiv 2408.01416); here
any mediator goes through any search with any replacement and metric, and returns ``Effects``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from interp._lazy import exports

if TYPE_CHECKING:
    from interp.mediation.bandits import Baselines as Baselines
    from interp.mediation.bandits import baselines as baselines
    from interp.mediation.circuits import SELECTIONS as SELECTIONS
    from interp.mediation.circuits import CircuitTransfer as CircuitTransfer
    from interp.mediation.circuits import Curve as Curve
    from interp.mediation.circuits import Evaluation as Evaluation
    from interp.mediation.circuits import choose as choose
    from interp.mediation.circuits import curve as curve
    from interp.mediation.circuits import evaluate as evaluate
    from interp.mediation.circuits import generality as generality
    from interp.mediation.circuits import selectivity as selectivity
    from interp.mediation.contributions import Contributions as Contributions
    from interp.mediation.contributions import direct_logit_attribution as direct_logit_attribution
    from interp.mediation.directions import mean_difference as mean_difference
    from interp.mediation.directions import pca as pca
    from interp.mediation.distributed_alignment import Alignment as Alignment
    from interp.mediation.distributed_alignment import das as das
    from interp.mediation.distributed_alignment import interchange_accuracy as interchange_accuracy
    from interp.mediation.edges import Edge as Edge
    from interp.mediation.edges import Graph as Graph
    from interp.mediation.edges import Reader as Reader
    from interp.mediation.edges import edge_logits as edge_logits
    from interp.mediation.effects import DIRECTIONS as DIRECTIONS
    from interp.mediation.effects import Effects as Effects
    from interp.mediation.estimand_table import ESTIMANDS as ESTIMANDS
    from interp.mediation.estimand_table import estimands as estimands
    from interp.mediation.experiment import Experiment as Experiment
    from interp.mediation.experiment import Forecast as Forecast
    from interp.mediation.feature_circuits import FeatureCircuit as FeatureCircuit
    from interp.mediation.feature_circuits import feature_circuit as feature_circuit
    from interp.mediation.frontiers import FRONTIER_TYPES as FRONTIER_TYPES
    from interp.mediation.frontiers import GOALS as GOALS
    from interp.mediation.frontiers import Frontier as Frontier
    from interp.mediation.frontiers import frontier as frontier
    from interp.mediation.graphs import AttributionGraph as AttributionGraph
    from interp.mediation.graphs import attribution_graph as attribution_graph
    from interp.mediation.lens import Lens as Lens
    from interp.mediation.lens import logit_lens as logit_lens
    from interp.mediation.masks.gates import GATES as GATES
    from interp.mediation.masks.training import MaskTraining as MaskTraining
    from interp.mediation.mediators import MEDIATORS as MEDIATORS
    from interp.mediation.mediators import Mediator as Mediator
    from interp.mediation.mediators import mediators_of as mediators_of
    from interp.mediation.metrics import METRICS as METRICS
    from interp.mediation.mib import MIB_TASKS as MIB_TASKS
    from interp.mediation.mib import MIBCircuit as MIBCircuit
    from interp.mediation.mib import MIBScore as MIBScore
    from interp.mediation.mib import mib_score as mib_score
    from interp.mediation.pairwise import Interactions as Interactions
    from interp.mediation.pairwise import interactions as interactions
    from interp.mediation.parsing import experiment_of as experiment_of
    from interp.mediation.rankings import ensemble as ensemble
    from interp.mediation.rankings import stability as stability
    from interp.mediation.replacements import REPLACEMENTS as REPLACEMENTS
    from interp.mediation.replacements import replacement_of as replacement_of
    from interp.mediation.searches import ACDC as ACDC
    from interp.mediation.searches import SEARCHES as SEARCHES
    from interp.mediation.searches import AtPStar as AtPStar
    from interp.mediation.searches import Attribution as Attribution
    from interp.mediation.searches import Contextual as Contextual
    from interp.mediation.searches import Direct as Direct
    from interp.mediation.searches import EdgeIntegratedGradients as EdgeIntegratedGradients
    from interp.mediation.searches import Exhaustive as Exhaustive
    from interp.mediation.searches import IntegratedGradients as IntegratedGradients
    from interp.mediation.searches import LearnedMask as LearnedMask
    from interp.mediation.searches import PathPatching as PathPatching
    from interp.mediation.searches import PositionAttribution as PositionAttribution
    from interp.mediation.searches import Search as Search
    from interp.mediation.searches import Shapley as Shapley
    from interp.mediation.searches import attribution as attribution
    from interp.mediation.searches import attribution_star as attribution_star
    from interp.mediation.searches import exhaustive as exhaustive
    from interp.mediation.searches import integrated_gradients as integrated_gradients
    from interp.mediation.searches import path_patching as path_patching
    from interp.mediation.searches import plan as plan
    from interp.mediation.searches.path_patching import THROUGH as THROUGH
    from interp.mediation.subspaces import Subspace as Subspace

__getattr__, __dir__, __all__ = exports(__name__)
