"""One job over many processes or machines. The work list is the shards of a store.

A shard is made by whoever is free, written beside the store, and counts once all shards before it are
there. So the store is the same, byte for byte, whoever made which shard, and a process that is killed costs
the shard it was at. Exact patching is shared the same way, in walks (:func:`together`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from interp._lazy import exports

if TYPE_CHECKING:
    from interp.scaling.calls import together as together
    from interp.scaling.capturing import capture as capture
    from interp.scaling.capturing import fill as fill
    from interp.scaling.capturing import stream as stream
    from interp.scaling.engines import ENGINES as ENGINES
    from interp.scaling.jobs import CaptureJob as CaptureJob
    from interp.scaling.jobs import alone as alone
    from interp.scaling.jobs import cache_keys as cache_keys
    from interp.scaling.jobs import help_out as help_out

__getattr__, __dir__, __all__ = exports(__name__)
