"""The card that goes with a saved probe: where it comes from, how it scored, where it is wrong."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from interp import results
from probes.cards import ProbeCard

if TYPE_CHECKING:
    import pandas

    from interp.analyses.probing.result import ProbeResult

__all__ = ["card_of"]


def card_of(result: ProbeResult, layer: int) -> ProbeCard:
    """Write the card of the probe of one layer."""
    plain, _ = results.jsonable([score.row() for score in result.scores if score.layer == layer])
    names = json.dumps(result.split.names(len(result.data))).encode()
    return ProbeCard(
        model=result.model["name"],
        revision=result.model["revision"],
        weights=result.model["weights"],
        fingerprint=result.model["fingerprint"],
        scheme=result.model["scheme"],
        site=f"resid_post.{layer}",
        positions=str(result.position),
        tokenizer=result.model["tokenizer_fingerprint"],
        data=result.data.name,
        data_hash=result.data.fingerprint,
        split_hash=hashlib.sha256(names).hexdigest(),
        metrics={row["name"]: row for row in plain if row["name"] == "probe"},
        controls={row["name"]: row for row in plain if row["name"] != "probe"},
        known_failures=_failures(result.confusion()) if layer == result.layer else (),
    )


def _failures(counts: pandas.DataFrame) -> tuple[str, ...]:
    """Name the labels of the test split that are read wrong more often than right, the worst five."""
    rows = zip(counts.index, counts.to_numpy().diagonal(), counts.to_numpy().sum(axis=1), strict=True)
    wrong = sorted((hits / n, label, hits, n) for label, hits, n in rows if n and hits / n < 0.5)
    return tuple(f"'{label}': right on {hits} of {n} test prompts" for _, label, hits, n in wrong[:5])
