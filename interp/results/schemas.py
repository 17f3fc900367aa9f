"""Which class reads a saved result: the only names that a file can call up."""

from __future__ import annotations

__all__ = ["SCHEMAS"]

SCHEMAS: dict[str, str] = {
    "interp.alignment/2": "interp.mediation.distributed_alignment.result:Alignment",
    "interp.audit/1": "interp.analyses.audit.result:AuditResult",
    "interp.awareness/1": "interp.analyses.awareness.result:AwarenessResult",
    "interp.capture/2": "interp.store:Stored",
    "interp.causal/2": "interp.analyses.causal.result:CausalUse",
    "interp.certificate/2": "interp.models.certificate:Certificate",
    "interp.circuit-transfer/1": "interp.mediation.circuits.transfer:CircuitTransfer",
    "interp.claims/1": "interp.analyses.claims.result:ClaimsResult",
    "interp.comparison/3": "interp.quantization.comparison.value:Comparison",
    "interp.concepts/2": "interp.analyses.concepts.result:ConceptResult",
    "interp.contributions/2": "interp.mediation.contributions:Contributions",
    "interp.cost/2": "interp.analyses.costs:Cost",
    "interp.curve/2": "interp.mediation.circuits.curve:Curve",
    "interp.decode/1": "interp.analyses.concepts.decoding:DecodeResult",
    "interp.edited/1": "interp.analyses.surgery.one_prompt:Edited",
    "interp.effects/2": "interp.mediation.effects:Effects",
    "interp.evaluation/2": "interp.mediation.circuits.evaluation:Evaluation",
    "interp.feature-certificate/1": "interp.features.certificate:FeatureCertificate",
    "interp.feature-training/1": "interp.features.trained:DictionaryTraining",
    "interp.feature-views/1": "interp.features.views:FeatureViews",
    "interp.findings/1": "interp.results.measured:FindingsResult",
    "interp.frontier/1": "interp.mediation.frontiers.result:Frontier",
    "interp.generation/2": "interp.analyses.concepts.generation:GenerationResult",
    "interp.graph/1": "interp.mediation.graphs.result:AttributionGraph",
    "interp.integrity/1": "interp.quantization.integrity:Integrity",
    "interp.interactions/1": "interp.mediation.pairwise:Interactions",
    "interp.lens-curves/1": "interp.lenses.many_prompts:LensCurves",
    "interp.lens-view/1": "interp.lenses.one_prompt:LensView",
    "interp.lens/2": "interp.mediation.lens:Lens",
    "interp.mib/1": "interp.mediation.mib.benchmark:MIBScore",
    "interp.monitor/1": "interp.analyses.monitoring.result:MonitorResult",
    "interp.patching/1": "interp.analyses.patching:Patching",
    "interp.probe/2": "interp.analyses.probing.result:ProbeResult",
    "interp.readers/1": "interp.analyses.readers.curves:ReaderCurves",
    "interp.steered/1": "interp.analyses.steering.one_prompt:Steered",
    "interp.steering/1": "interp.analyses.steering.result:SteeringResult",
    "interp.surgery/1": "interp.analyses.surgery.result:Surgery",
    "interp.text/1": "interp.models.generated:Generation",
    "interp.translated/1": "interp.analyses.concepts.translated:TranslatedResult",
    "interp.watch/1": "interp.analyses.monitoring.watching:Watched",
}
"""Schema of a saved result -> ``module:Class``. A rename changes the right side and keeps files readable."""
