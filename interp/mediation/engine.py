"""Run many patched copies of prompts: planned, batched, checked against whole forward passes."""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from interp.errors import InterpError, ModelError
from interp.mediation.mediators import Mediator
from interp.mediation.naive import naive_logits
from interp.mediation.walk import Patch, Row, Rule, Walker, interchange
from interp.models.batches import in_batches
from interp.models.model import Model
from interp.models.tokens import Tokens
from interp.sites import Site

__all__ = ["Bill", "Engine"]

TOKENS = {"cpu": 16384, "cuda": 131072}
CHECKED = 4
TOLERANCE = 1e-5
_log = logging.getLogger(__name__)


@dataclass
class Bill:
    """Count what was done, in forward passes of one prompt through the whole model.

    Attributes:
        forwards: forward-equivalents of the patched rows.
        rows: patched rows that were run.
        skipped: rows whose effect is exactly zero and that were not run.
        checked: largest relative difference to whole forward passes, on random rows.
        fallback: why whole passes were used instead, or "".
    """

    forwards: float = 0.0
    rows: int = 0
    skipped: int = 0
    checked: float = 0.0
    fallback: str = ""


@dataclass(eq=False)
class Engine:
    """Patch prompts of one model.

    Attributes:
        model: what is run.
        tokens: the prompts that are patched.
        seed: of the rows that are checked.
        bill: what was done so far.
    """

    model: Model
    tokens: Tokens
    seed: int = 0
    bill: Bill = field(default_factory=Bill)
    _walkers: dict[int, Walker | None] = field(default_factory=dict)

    def logits(
        self,
        rows: Sequence[Row],
        values: Mapping[Site, Tensor],
        *,
        rule: Rule = interchange,
        progress: bool = False,
    ) -> Tensor:
        """Give the fp32 logits ``[row vocab]`` after the last token of each patched copy.

        Args:
            rows: what is replaced in which copy.
            values: carrier -> ``[example pos ...]`` for every prompt; positions beyond a prompt's end are not
                read.
            rule: from current and source values to new ones.
            progress: show a progress bar.

        Raises:
            ModelError: the patched passes differ from whole forward passes.
        """
        if not rows:
            return torch.zeros(0, self.model.vocab_size)
        found: list[Tensor | None] = [None] * len(rows)
        for length, numbers in self._by_length(rows).items():
            examples = [at for at, n in enumerate(self.tokens.lengths) if n == length]
            place = {example: at for at, example in enumerate(examples)}
            local = [Row(place[rows[at].example], rows[at].mediators) for at in numbers]
            index = torch.tensor(examples)
            short = {site: value[index.to(value.device), :length] for site, value in values.items()}
            ids = [self.tokens.token_ids[at] for at in examples]
            got = self._group(length, ids, local, Patch(short, rule), progress)
            for at, logits in zip(numbers, got, strict=True):
                found[at] = logits
        return torch.stack([logits for logits in found if logits is not None])

    def _by_length(self, rows: Sequence[Row]) -> dict[int, list[int]]:
        groups: dict[int, list[int]] = {}
        for at, row in enumerate(rows):
            groups.setdefault(self.tokens.lengths[row.example], []).append(at)
        return groups

    def _group(
        self, length: int, ids: Sequence[Sequence[int]], rows: Sequence[Row], patch: Patch, progress: bool
    ) -> Tensor:
        walker = self._walker(length, ids)
        if walker is None:
            self.bill.forwards += len(rows)
            self.bill.rows += len(rows)
            return naive_logits(self.model, ids, rows, patch)
        order = sorted(range(len(rows)), key=lambda at: rows[at].layer)
        size = max(1, TOKENS.get(self.model.device.type, 16384) // length)
        found: dict[int, Tensor] = {}
        before = walker.steps

        def run(numbers: Sequence[int]) -> None:
            got = walker([rows[at] for at in numbers], patch)
            found.update(zip(numbers, got, strict=True))

        batches = [order[at : at + size] for at in range(0, len(order), size)]
        in_batches(batches, run, progress=progress)
        self.bill.forwards += (walker.steps - before) / self.model.n_layers
        self.bill.rows += len(rows)
        logits = torch.stack([found[at] for at in range(len(rows))])
        self._check(ids, rows, patch, logits)
        return logits

    def _walker(self, length: int, ids: Sequence[Sequence[int]]) -> Walker | None:
        """Give the walker of a length; None where a walk does not give the model's own logits."""
        if length not in self._walkers:
            walker, reason = self._measured(ids)
            if reason:
                self.bill.fallback = reason
                _log.warning("%r is patched by whole forward passes: %s", self.model.name, reason)
            self._walkers[length] = None if reason else walker
        return self._walkers[length]

    def _measured(self, ids: Sequence[Sequence[int]]) -> tuple[Walker | None, str]:
        """Build a walker and say why it cannot be used, or ""."""
        if self.model.backend is not None:
            return None, f"{self.model.backend.name} runs the whole model only"
        try:
            walker = Walker.of(self.model, ids)
            plain = walker([Row(0)], Patch({}))
            walked = walker(
                [Row(0, (Mediator(Site("resid_pre", 0)),))],
                Patch({Site("resid_pre", 0): walker.streams[0]}),
            )
            wanted = self.model.logits([list(ids[0])]).to(plain.device)
            off = max(_relative(plain, wanted), _relative(walked, wanted))
        except (InterpError, RuntimeError, TypeError, ValueError) as error:
            return None, f"its blocks cannot be run one by one ({type(error).__name__})"
        return walker, "" if off <= TOLERANCE * 10 else f"a walk differs from the model by {off:.1e}"

    def _check(self, ids: Sequence[Sequence[int]], rows: Sequence[Row], patch: Patch, logits: Tensor) -> None:
        """Recompute random rows by whole forward passes."""
        some = random.Random(f"check:{self.seed}").sample(range(len(rows)), min(CHECKED, len(rows)))
        wanted = naive_logits(self.model, ids, [rows[at] for at in some], patch)
        off = _relative(logits[some], wanted)
        self.bill.checked = max(self.bill.checked, off)
        allowed = TOLERANCE if self.model.dtype == torch.float32 else 0.05
        if not off <= allowed:
            raise ModelError(
                f"patched passes of {self.model.name!r} differ from whole passes by {off:.1e} "
                f"(relative to the logits; allowed: {allowed:.0e}). Report the family; see interp doctor."
            )


def _relative(found: Tensor, wanted: Tensor) -> float:
    scale = max(1.0, float(wanted.abs().max()))
    return float((found - wanted.to(found.device)).abs().max()) / scale
