"""Attribution graphs of one prompt that test themselves: ``mediation.attribution_graph``."""

from interp.mediation.graphs.build import attribution_graph
from interp.mediation.graphs.neuronpedia import from_neuronpedia, to_neuronpedia
from interp.mediation.graphs.parts import Edge, Node
from interp.mediation.graphs.result import AttributionGraph

__all__ = ["AttributionGraph", "Edge", "Node", "attribution_graph", "from_neuronpedia", "to_neuronpedia"]
