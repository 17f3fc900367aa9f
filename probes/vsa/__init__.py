"""Vector symbolic architectures: names as long random vectors, and an algebra to join and part them.

>>> from probes.vsa import MAP, Codebook
>>> codebook = Codebook.random(MAP(4096), ["France", "Paris", "Japan", "Tokyo"], seed=0)
>>> bound = codebook.algebra.bind(codebook["France"], codebook["Paris"])
>>> codebook.top(codebook.algebra.unbind(bound, codebook["France"])[None], k=1).names
[('Paris',)]
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from probes._lazy import exports

if TYPE_CHECKING:
    from probes.vsa import structures as structures
    from probes.vsa.algebra import Algebra as Algebra
    from probes.vsa.algebras import ALGEBRAS as ALGEBRAS
    from probes.vsa.algebras import BSC as BSC
    from probes.vsa.algebras import FHRR as FHRR
    from probes.vsa.algebras import HRR as HRR
    from probes.vsa.algebras import MAP as MAP
    from probes.vsa.capacity import Capacity as Capacity
    from probes.vsa.capacity import expected_accuracy as expected_accuracy
    from probes.vsa.capacity import measured_accuracy as measured_accuracy
    from probes.vsa.codebook import Codebook as Codebook
    from probes.vsa.codebook import CodebookError as CodebookError
    from probes.vsa.codebook import Targets as Targets
    from probes.vsa.nearest import Ranking as Ranking
    from probes.vsa.resonator import Factors as Factors
    from probes.vsa.resonator import factorise as factorise

__getattr__, __dir__, __all__ = exports(__name__)
