"""A monitor: a probe of tokens, how its scores become one, and what score raises an alarm."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import special

from interp.errors import ArtifactError, ModelError
from interp.hub import HubCard, Shared, local
from interp.models.model import Model
from interp.results.files import write_atomically
from probes.base import load as load_probe
from probes.cards import ProbeCard, ProbeFileError
from probes.cards import hub_card as probe_hub_card
from probes.evaluation import Threshold
from probes.pooling import Sequences, read_pooling, running
from probes.sequences import SequenceProbe
from probes.table import PROBES

__all__ = ["Monitor"]

SCHEMA, RECORD, PROBE = "interp.monitor-file/1", "monitor.json", "probe"


@dataclass(frozen=True, eq=False)
class Monitor(Shared):
    """What watches conversations.

    Attributes:
        probe: scores every token and pools the scores.
        site: what it reads, such as ``resid_post.20``.
        positions: the selector of the tokens it reads.
        threshold: a higher score raises an alarm.
        slope: of the calibration; the probability of the alarm's label is sigmoid(slope * score + offset).
        offset: of the calibration.
        negatives: name of the data whose negatives the threshold stands on.
        model: what it was fitted on: name, fingerprint, tokenizer_fingerprint, scheme.
        measured: scores on data that was not used, by name.
        hub: ``user/name@commit`` of the Hub where it was fetched there.
    """

    probe: SequenceProbe
    site: str
    positions: str
    threshold: Threshold
    slope: float
    offset: float
    negatives: str
    model: Mapping[str, Any]
    measured: Mapping[str, Any] = field(default_factory=dict)
    hub: str = ""

    @property
    def alarm(self) -> str:
        """The label that raises an alarm."""
        return str(self.probe.positive_)

    def scores(self, states: Sequences) -> np.ndarray:
        """``[message]`` scores."""
        return self.probe.pooled(states)[:, 0]

    def token_scores(self, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of one message's ``[pos dim]`` states: ``[pos]`` own scores, and those of the tokens so far."""
        scores, keys = self.probe.token_scores(Sequences.of(states[None]))
        return scores[0, :, 0], running(read_pooling(self.probe.pooling), scores[0], keys[0])[:, 0]

    def probability(self, scores: Any) -> np.ndarray:
        """The calibrated probability of the alarm's label, where both labels are as frequent as there."""
        return np.asarray(special.expit(self.slope * np.asarray(scores, dtype=np.float64) + self.offset))

    def check(self, model: Model) -> None:
        """Refuse a model that it was not fitted on.

        Raises:
            ModelError: naming what differs.
        """
        for key in ("fingerprint", "tokenizer_fingerprint", "scheme"):
            found, known = model.described[key], self.model.get(key)
            if found != known:
                raise ModelError(
                    f"this monitor was fitted on {self.model.get('name')!r}, and {model.name!r} has another "
                    f"{key.replace('_', ' ')} ({str(found)[:12]!r}, not {str(known)[:12]!r}). Load "
                    "that model, or fit a monitor on this one."
                )

    def card(self) -> ProbeCard:
        """What a reader of the saved probe should know."""
        return ProbeCard(
            model=str(self.model.get("name", "")),
            weights=str(self.model.get("weights", "")),
            fingerprint=str(self.model.get("fingerprint", "")),
            scheme=str(self.model.get("scheme", "none")),
            site=self.site,
            positions=f"{self.positions}, pooled by {self.probe.pooling}",
            tokenizer=str(self.model.get("tokenizer_fingerprint", "")),
            data=self.negatives,
            metrics=dict(self.measured),
            threshold=f"{self.threshold}, of {self.negatives}",
            intended_use=f"raising an alarm for {self.alarm!r} in conversations like those of its data",
            known_failures=("other sources than those of its data, unless the transfer matrix shows them",),
        )

    def hub_card(self) -> HubCard:
        """The card of its probe, for the Hub."""
        kind, classes = PROBES[self.probe.kind], list(map(str, self.probe.facts().get("classes", [])))
        return replace(
            probe_hub_card(kind.name, kind.description, classes, self.probe.width, self.card()),
            kind="monitor",
            title=f"Monitor: an alarm for {self.alarm}",
            load='from interp.analyses.monitoring import Monitor\n\nMonitor.from_pretrained("REPO")',
        )

    def save(self, folder: str | Path) -> Path:
        """Write ``probe/`` (safetensors, JSON and a card) and ``monitor.json``."""
        folder = Path(folder)
        self.probe.save(folder / PROBE, card=self.card())
        facts = {
            "schema": SCHEMA,
            "site": self.site,
            "positions": self.positions,
            "threshold": asdict(self.threshold),
            "slope": self.slope,
            "offset": self.offset,
            "negatives": self.negatives,
            "model": dict(self.model),
            "measured": dict(self.measured),
            "probe_sha256": _sha256(folder),
        }
        write_atomically(folder / RECORD, json.dumps(facts, indent=2, allow_nan=False).encode() + b"\n")
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> Monitor:
        """Read what :meth:`save` wrote.

        Args:
            folder: that, or ``hf://user/name[@revision]``.

        Raises:
            ArtifactError: nothing is there, or it is damaged.
        """
        fetched = local(folder, "monitor")
        folder = fetched.folder
        if not (folder / RECORD).is_file():
            inside = folder / "monitor"
            place = f"{inside.as_posix()!r}" if (inside / RECORD).is_file() else "what monitor.save wrote"
            raise ArtifactError(f"'{folder}' holds no monitor ({RECORD} is missing). Give {place}.")
        try:
            facts = json.loads((folder / RECORD).read_text(encoding="utf-8"))
            if facts["schema"] != SCHEMA or facts["probe_sha256"] != _sha256(folder):
                raise ValueError("its probe is not the one that it was saved with")
            probe = load_probe(folder / PROBE)
            assert isinstance(probe, SequenceProbe)
            threshold = Threshold(**facts["threshold"])
            names = ("site", "positions", "slope", "offset", "negatives", "model", "measured")
            found = {name: facts[name] for name in names}
            return cls(probe=probe, threshold=threshold, hub=fetched.source, **found)
        except (KeyError, TypeError, ValueError, AssertionError, OSError, ProbeFileError) as error:
            raise ArtifactError(
                f"'{folder}' holds no monitor that this version can read ({error}). Fit and save it again."
            ) from error


def _sha256(folder: Path) -> str:
    return hashlib.sha256((folder / PROBE / "probe.json").read_bytes()).hexdigest()
