"""Edges between the parts of a model: the graph, exact runs of any set of edges, attribution, paths."""
