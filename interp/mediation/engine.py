"""Run many patched copies of prompts: planned, batched, checked against whole forward passes."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from interp.errors import InterpError, ModelError
from interp.mediation.batching import Costs, Need, Plan, planned
from interp.mediation.mediators import Mediator, Place
from interp.mediation.partial_forward import PartialForward
from interp.mediation.patches import Patch, Row, Rule, interchange, within
from interp.mediation.sharing import shared
from interp.models.forward import in_batches, progress_bar
from interp.models.interventions import Intervention
from interp.models.model import Model
from interp.models.rounding import rounded_otherwise
from interp.models.tokens import Tokens
from interp.sites import Site

__all__ = ["Bill", "Engine", "full_forward_logits", "unembedded"]

CHECKED = 4
UNEMBEDDED, LOGITS = 1024, 1 << 26
"""Most rows, and most numbers, of logits that are computed at once: the head's weights are read rarely."""
Keep = Callable[[Sequence[int], Tensor], None]
"""Takes numbers of rows and their logits."""
TOLERANCE = 1e-5
HALF = 0.05
"""What a patched pass may differ from a whole one in half precision, relative to the logits."""


@dataclass
class Bill:
    """Count what was done, in forward passes of one prompt through the whole model.

    Attributes:
        forwards: forward-equivalents of the patched rows; part of a prompt, or of the layers, counts as such.
        setup: forward passes of the unpatched prompts that the walks begin from, and of checks.
        rows: patched rows that were run.
        skipped: rows whose effect is exactly zero and that were not run.
        checked: largest relative difference to whole forward passes, on random rows.
        fallback: what could not be used, why, and for prompts of which lengths; or "".
    """

    forwards: float = 0.0
    setup: float = 0.0
    rows: int = 0
    skipped: int = 0
    checked: float = 0.0
    fallback: str = ""

    def facts(self) -> dict[str, Any]:
        """The bill as plain data."""
        return {**asdict(self), "forwards": round(self.forwards, 2)}


@dataclass(eq=False)
class Engine:
    """Patch prompts of one model.

    Attributes:
        model: what is run.
        tokens: the prompts that are patched.
        seed: of the rows that are checked.
        division: how rows are divided into walks, a key of ``DIVISIONS``; all give the same logits.
        since: per prompt the position before which the values that are put in are its own, so that nothing
            changes there: for values of another prompt the first token that differs. None: from the start.
        bill: what was done so far.
    """

    model: Model
    tokens: Tokens
    seed: int = 0
    division: str = "auto"
    since: Sequence[int] | None = None
    bill: Bill = field(default_factory=Bill)
    _walkers: dict[int, PartialForward | None] = field(default_factory=dict)
    _fallen: dict[int, tuple[str, str]] = field(default_factory=dict)

    def plan(self, rows: Sequence[Row]) -> Plan:
        """How rows would be run and what they would cost, without running anything.

        What falls back to less while it runs costs more than planned; the bill says so.

        Args:
            rows: what is replaced in which copy.
        """
        plans = [
            self._plan(length, [rows[at] for at in numbers], numbers)
            for length, numbers in self._by_length(rows).items()
        ]
        return Plan(tuple(w for plan in plans for w in plan.walks), sum(plan.forwards for plan in plans))

    def _plan(self, length: int, rows: Sequence[Row], numbers: Sequence[int]) -> Plan:
        """Plan rows of one length, which have these numbers."""
        walker = self._walkers.get(length)
        costs, since = Costs.of(self.model), self.since
        before = [0 if since is None else since[row.example] for row in rows]
        needs = [
            Need(min(row.layer, costs.depth), row.first(length, own))
            for row, own in zip(rows, before, strict=True)
        ]
        whole = walker is not None and walker.base.past is None
        found = planned(needs, length, costs, division="whole" if whole else self.division)
        walks = tuple(replace(w, rows=tuple(numbers[at] for at in w.rows)) for w in found.walks)
        return Plan(walks, found.forwards)

    def logits(
        self,
        rows: Sequence[Row],
        values: Mapping[Site, Tensor],
        *,
        rule: Rule = interchange,
        progress: bool = False,
    ) -> Tensor:
        """The fp32 logits ``[row vocab]`` after the last token of each patched copy; see :meth:`each`."""
        found: dict[int, Tensor] = {}

        def keep(numbers: Sequence[int], logits: Tensor) -> None:
            found.update(zip(numbers, logits, strict=True))

        self.each(rows, values, keep, rule=rule, progress=progress)
        kept = [found[at] for at in range(len(rows))]
        return torch.stack(kept) if kept else torch.zeros(0, self.model.vocab_size)

    def each(
        self,
        rows: Sequence[Row],
        values: Mapping[Site, Tensor],
        keep: Keep,
        *,
        rule: Rule = interchange,
        progress: bool = False,
    ) -> None:
        """Run every patched copy and hand its logits over, part by part, so that they need not all be held.

        Args:
            rows: what is replaced in which copy.
            values: carrier -> ``[example pos ...]`` for every prompt; positions beyond a prompt's end are not
                read.
            keep: called with numbers of rows and their fp32 logits ``[row vocab]`` after the last token.
            rule: from current and source values to new ones.
            progress: show a progress bar.

        Raises:
            ModelError: the patched passes differ from whole forward passes.
        """
        if not rows:
            return
        chosen = random.Random(f"check:{self.seed}").sample(range(len(rows)), min(CHECKED, len(rows)))
        checked: dict[int, Tensor] = {}

        def handed(numbers: Sequence[int], logits: Tensor) -> None:
            # a copy: a view would keep the logits of all rows of the part
            checked.update({at: logits[place].clone() for place, at in enumerate(numbers) if at in chosen})
            keep(numbers, logits)

        with progress_bar(len(rows), progress, "patching", "copy") as advance:
            for length, numbers in self._by_length(rows).items():
                self._group(length, numbers, rows, Patch(values, rule), handed, advance)
        self.bill.rows += len(rows)
        self._check(rows, chosen, Patch(values, rule), torch.stack([checked[at] for at in chosen]))

    def _by_length(self, rows: Sequence[Row]) -> dict[int, list[int]]:
        groups: dict[int, list[int]] = {}
        for at, row in enumerate(rows):
            groups.setdefault(self.tokens.lengths[row.example], []).append(at)
        return groups

    def _group(
        self,
        length: int,
        numbers: Sequence[int],
        rows: Sequence[Row],
        patch: Patch,
        keep: Keep,
        advance: Callable[[int], object],
    ) -> None:
        """Run the rows of one length. Of last states and of logits, those of a part are held at a time."""
        examples = [at for at, n in enumerate(self.tokens.lengths) if n == length]
        walker = self._walker(length, [self.tokens.token_ids[at] for at in examples])
        most = unembedded(self.model)
        if walker is None:
            self.bill.forwards += len(numbers)
            for part in (numbers[at : at + most] for at in range(0, len(numbers), most)):
                keep(
                    part,
                    full_forward_logits(self.model, self.tokens.token_ids, [rows[at] for at in part], patch),
                )
                advance(len(part))
            return
        place = {example: at for at, example in enumerate(examples)}
        local = {at: Row(place[rows[at].example], rows[at].mediators) for at in numbers}
        index = torch.tensor(examples)
        short = {site: value[index.to(value.device), :length] for site, value in patch.values.items()}
        plan = self._plan(length, [rows[at] for at in numbers], numbers)
        starts = {at: walk.start for walk in plan.walks for at in walk.rows}
        states: dict[int, Tensor] = {}
        before = walker.steps
        own = Patch(short, patch.rule)

        def walked(batch: Sequence[int]) -> tuple[Tensor, float]:
            begun = walker.steps
            found = walker.last([local[at] for at in batch], own, start=starts[batch[0]])
            return found, walker.steps - begun

        take = self._shared(length, walker, plan, rows, own, walked)

        def unembed(batch: Sequence[int]) -> None:
            keep(batch, self.model.unembed(torch.stack([states[at] for at in batch])))

        def hand_over(part: Sequence[int]) -> None:
            in_batches([part], unembed)
            for at in part:
                del states[at]

        def run(batch: Sequence[int]) -> None:
            states.update(zip(batch, take(batch), strict=True))
            while len(states) >= most:
                hand_over(list(states)[:most])

        in_batches([walk.rows for walk in plan.walks], run, advance=advance)
        if states:
            hand_over(list(states))
        self.bill.forwards += (walker.steps - before) / self.model.n_layers

    def _shared(
        self,
        length: int,
        walker: PartialForward,
        plan: Plan,
        rows: Sequence[Row],
        patch: Patch,
        walked: Callable[[Sequence[int]], tuple[Tensor, float]],
    ) -> Callable[[Sequence[int]], Tensor]:
        """What gives the last states of a walk: made here, or by another process where walks are shared."""
        place = shared()
        if place is None:
            return lambda batch: walked(batch)[0]
        ids = [self.tokens.token_ids[at] for at, n in enumerate(self.tokens.lengths) if n == length]
        rule = f"{patch.rule.__module__}.{getattr(patch.rule, '__qualname__', type(patch.rule).__qualname__)}"
        starts = [walk.start for walk in plan.walks]
        about = [self.model.fingerprint, rule, [list(map(int, one)) for one in ids], starts]
        names = place.names(place.call(about, patch), [walk.rows for walk in plan.walks], rows)
        billed = walker.steps
        place.ahead(names, walked)
        walker.steps = billed  # they count when they are taken

        def taken(batch: Sequence[int]) -> Tensor:
            name = names.get(tuple(batch))
            there = None if name is None else place.take(name)
            if there is not None:
                walker.steps += there[1]
                return there[0].to(self.model.device)
            made = walked(batch)
            if name is not None:
                place.give(name, made)
            return made[0]

        return taken

    def _walker(self, length: int, ids: Sequence[Sequence[int]]) -> PartialForward | None:
        """The walker of a length; None where a walk does not give the model's own logits."""
        if length not in self._walkers and self.model.backend is not None:
            reason = f"{self.model.backend.name} runs the whole model only"
            self._fall_back(length, "by whole forward passes", reason)
            self._walkers[length] = None
        if length not in self._walkers and any(one.later for one in self.model.dictionaries.values()):
            reason = "features of a cross-layer transcoder write to several blocks"
            self._fall_back(length, "by whole forward passes", reason)
            self._walkers[length] = None
        if length not in self._walkers:
            wanted = self.model.logits([list(ids[0]), list(ids[-1])])
            self.bill.setup += 2
            for past, remedy in (("kept", "from the first position on"), ("none", "by whole forward passes")):
                walker, reason = _tried(self.model, ids, past, wanted)
                self.bill.setup += len(ids)
                if walker is not None:
                    break
                self._fall_back(length, remedy, reason)
            self._walkers[length] = walker
        return self._walkers[length]

    def _fall_back(self, length: int, way: str, reason: str) -> None:
        """Write in the bill how prompts of a length are patched instead, and why; one line for each way."""
        self._fallen[length] = (way, reason)
        ways: dict[str, list[int]] = {}
        for at, (name, _) in sorted(self._fallen.items()):
            ways.setdefault(name, []).append(at)
        self.bill.fallback = "; ".join(
            f"patched {name}: {self._fallen[lengths[0]][1]} (prompts of "
            f"{', '.join(map(str, lengths))} tokens)"
            for name, lengths in ways.items()
        )

    def _check(self, rows: Sequence[Row], chosen: Sequence[int], patch: Patch, logits: Tensor) -> None:
        """Recompute chosen rows by whole forward passes, beside the logits they got."""
        wanted = full_forward_logits(self.model, self.tokens.token_ids, [rows[at] for at in chosen], patch)
        self.bill.setup += len(chosen)
        off = _relative(logits, wanted)
        self.bill.checked = max(self.bill.checked, off)
        allowed = TOLERANCE if self.model.dtype == torch.float32 else HALF
        if not off <= allowed:
            raise ModelError(
                f"patched passes of {self.model.name!r} differ from whole passes by {off:.1e} "
                f"(relative to the logits; allowed: {allowed:.0e}). Report the family; see interp doctor."
            )


def unembedded(model: Model) -> int:
    """Of how many rows logits are computed at once, and so of how many last states are held."""
    return min(UNEMBEDDED, max(1, LOGITS // model.vocab_size))


def _tried(
    model: Model, ids: Sequence[Sequence[int]], past: str, wanted: Tensor
) -> tuple[PartialForward | None, str]:
    """A walker, or None and the reason: unpatched copies, walked in several ways, give other logits.

    Two prompts at once: blocks may be called with more than the stream that belongs to a prompt.
    """
    try:
        walker = PartialForward.of(model, ids, past=past)
        stream, last = Site("resid_pre", 0), len(ids[0]) - 1
        starts = {0} if past == "none" else {0, last // 2, last}
        own, both = Patch({stream: walker.base.streams[0]}), (0, len(ids) - 1)
        plain = [walker([Row(at) for at in both], Patch({}))]
        plain += [
            walker([Row(at, (Mediator(stream, last),)) for at in both], own, start=start)
            for start in sorted(starts)
        ]
    except (InterpError, LookupError, RuntimeError, TypeError, ValueError, AttributeError) as error:
        return None, f"its blocks cannot be run one by one ({type(error).__name__})"
    off, allowed = max(_relative(logits, wanted) for logits in plain), TOLERANCE * 10
    if off > allowed and model.dtype != torch.float32:
        allowed = max(allowed, min(HALF, 2 * _rounding(model, ids[0], wanted)))
    return (walker, "") if off <= allowed else (None, f"a walk differs from the model by {off:.1e}")


def _rounding(model: Model, ids: Sequence[int], wanted: Tensor) -> float:
    """What one rounding of the embedding does to the logits; 0 where the embedding cannot be written."""
    if "embed" in model.disabled:
        return 0.0
    edit = Intervention("embed", rounded_otherwise(), "all")
    found = model.run([list(ids)], interventions=[edit]).logits
    assert found is not None
    return _relative(found.float(), wanted)


def _relative(found: Tensor, wanted: Tensor) -> float:
    scale = max(1.0, float(wanted.abs().max()))
    return float((found - wanted.to(found.device)).abs().max()) / scale


def full_forward_logits(
    model: Model, token_ids: Sequence[Sequence[int]], rows: Sequence[Row], patch: Patch
) -> Tensor:
    """The fp32 logits ``[row vocab]`` after the last token of each changed copy.

    Args:
        model: what is run.
        token_ids: the prompts, of any lengths; values beyond a prompt's end are not read.
        rows: what is replaced in which copy.
        patch: the replacement values and the rule.
    """
    found: list[Tensor] = []
    for row in rows:
        prompt = list(token_ids[row.example])
        edits = [
            _edit(place, None if m.position is None else m.position % len(prompt), row.example, patch)
            for m in row.mediators
            for place in m.places
        ]
        logits = model.run([prompt], interventions=edits or None).logits
        assert logits is not None
        found.append(logits[0].float())
    return torch.stack(found)


def _edit(place: Place, at: int | None, example: int, patch: Patch) -> Intervention:
    """Write a place of the carrier; the function sees ``[pos ...]`` of the one prompt."""
    source = patch.values[place.carrier][example]
    wanted = source if at is None else source[at][None]

    def change(current: Tensor) -> Tensor:
        given = wanted[: len(current)].to(current.device, current.dtype)
        if place.index is None:
            return within(place.subspace, current, given, patch.rule)
        result, index = current.clone(), place.index
        part = list(index) if isinstance(index, tuple) else index
        result[:, part] = within(place.subspace, current[:, part], given[:, part], patch.rule)
        return result

    return Intervention(place.carrier, change, "all" if at is None else at)
