"""Are facts known, and which neurons and layers raise the log-probability of their answers?

Importances are forward passes only: what a neuron or a sublayer writes is added to the stream that enters it,
and both are read through the final norm and head (Yu and Ananiadou 2024, arXiv 2312.12141).
"""

from interp.analyses.knowledge.run import recall

__all__ = ["recall"]
