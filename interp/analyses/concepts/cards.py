"""The card that goes with a saved Hyperdimensional Probe."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from interp import results
from probes.cards import ProbeCard

if TYPE_CHECKING:
    from interp.analyses.concepts.result import ConceptResult

__all__ = ["card_of"]


def card_of(result: ConceptResult) -> ProbeCard:
    """Write the card of the probe of the chosen layer."""
    rows, _ = results.jsonable([score.row() for score in result.scores])
    texts = "\n".join(item.text for item in result.items).encode()
    threshold = next(iter(result.probe.fitted_.thresholds.values()))
    worst = sorted((share, name, n) for name, (n, share, _) in result.by_relation.items() if share < 0.5)
    return ProbeCard(
        model=result.model["name"],
        weights=result.model["weights"],
        fingerprint=result.model["fingerprint"],
        scheme=result.model["scheme"],
        site=f"resid_post.{result.layer}",
        positions="last",
        tokenizer=result.model["tokenizer_fingerprint"],
        data=f"protocol {result.protocol}",
        data_hash=hashlib.sha256(texts).hexdigest(),
        metrics={row["name"]: row for row in rows if row["name"] == "probe"},
        controls={row["name"]: row for row in rows if row["name"] != "probe"},
        threshold=f"nothing is claimed below similarity {threshold:.3f} (95% of null states stay below), "
        "nor where a state lies farther from those of training than 95% of the validation states",
        intended_use="reading the concepts of its codebook from the last token of a prompt",
        known_failures=tuple(f"{name}: {share:.0%} of {n} prompts read" for share, name, n in worst[:5]),
    )
