"""Edit states, run the rest of the model, and measure what it says then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from interp.analyses.surgery.arms import ARMS, OURS, RANDOM, Arm, Bench, random_like
from interp.analyses.surgery.result import Measured, Surgery
from interp.analyses.surgery.swaps import Swap, same_subject, swaps_of, unrelated
from interp.analyses.surgery.writers import Writer
from interp.errors import DataError
from interp.mediation.engine import Engine
from interp.mediation.mediators import Mediator
from interp.mediation.patches import Row
from interp.models.loading import ModelLike, as_model
from interp.models.model import Model
from interp.results import About
from interp.sites import Site
from interp.tasks.protocols import Item

__all__ = ["surgery"]

DRAWS = 5
FEWEST = 8
Logs = Float[Tensor, "example vocab"]
Places = Mapping[str, int]


def surgery(
    model: ModelLike,
    writer: Writer,
    items: Sequence[Item],
    *,
    layer: int,
    n: int = 100,
    swaps: Sequence[Swap] | None = None,
    others: Sequence[Item] = (),
    places: Mapping[str, int] | None = None,
    draws: int = DRAWS,
    seed: int = 0,
    progress: bool = False,
) -> Surgery:
    """Exchange a concept for another in the states of prompts, and say what becomes of the model's answer.

    Of every prompt that the model answers right, the concept is exchanged for that of another prompt of the
    same relation, by the least change of the state at the last token after which the writer reads them
    exchanged. How far to go on in that direction is chosen on half of the facts; everything reported comes
    from the other half. Beside it stand random changes of the same length, the difference of the mean states
    of other prompts with the two answers (at its own best dose), and the state of a real prompt with the new
    answer, which no edit of this state can be expected to beat. What else changed is measured by making the
    same change in a prompt of another relation, and in prompts about the same subject.

    Args:
        model: what is edited.
        writer: what reads and writes concepts at the layer.
        items: prompts with concepts and answers, such as the test part of a protocol.
        layer: the block after which states are edited.
        n: swaps that are drawn among the items, at most.
        swaps: those to make; drawn where left out.
        others: further prompts about the same concepts, such as the same facts in other words, of which mean
            states are taken, beside ``items``.
        places: text of every prompt -> the token whose state is read and edited, counted from 0; the last one
            where left out.
        draws: random changes of each state.
        seed: of the swaps, the halves and the random changes.
        progress: show a progress bar.

    Raises:
        DataError: the model answers too few of the prompts right.
        ValueError: two concepts that the writer cannot tell apart.
    """
    model = as_model(model)
    swaps = swaps_of(model, items, n=n, seed=seed) if swaps is None else tuple(swaps)
    if len(swaps) < FEWEST:
        raise DataError(f"{len(swaps)} swaps can be made of these prompts; {FEWEST} are needed. Give more.")
    theatre = _Theatre.of(model, writer, swaps, items, others, layer, seed, places)
    tuning = theatre.tuning
    arms: dict[str, Measured] = {}
    curve: dict[str, tuple[tuple[float, float], ...]] = {}
    for arm in tqdm(ARMS.values(), desc="edits", disable=not progress):
        tried = {dose: theatre.first(arm.change(theatre.bench, dose)) for dose in arm.doses}
        curve[arm.name] = tuple((dose, _mean(found, ~tuning)) for dose, found in tried.items())
        best = max(tried, key=lambda dose: np.nan_to_num(_mean(tried[dose], tuning), nan=-1.0))
        arms[arm.name] = theatre.measured(arm, best)
    ours = ARMS[OURS].change(theatre.bench, arms[OURS].dose)
    arms[RANDOM] = theatre.random(ours, arms[OURS].dose, draws)
    return Surgery(
        about=About(model.described, {"name": "swaps", "n": len(swaps), "groups": len(theatre.facts)}),
        seed=seed,
        layer=layer,
        at_last=places is None,
        written_by=writer.words,
        role=swaps[0].role,
        pairs=tuple(swap.pair for swap in swaps),
        prompts=tuple(swap.item.text for swap in swaps),
        facts=tuple(swap.item.fact for swap in swaps),
        reported=~tuning,
        arms=arms,
        curve=curve,
        warnings=_warnings(arms),
    )


def _mean(values: Float[np.ndarray, " example"], rows: np.ndarray) -> float:
    kept = values[rows & np.isfinite(values)]
    return float(kept.mean()) if len(kept) else float("nan")


def _warnings(arms: dict[str, Measured]) -> tuple[str, ...]:
    missing = int((~np.isfinite(arms["mean-difference"].new_first)).sum())
    if not missing:
        return ()
    return (
        f"mean-difference: {missing} swaps have no other prompt with the old or the new answer and are left "
        "out of that row.",
    )


@dataclass(frozen=True, eq=False)
class _Set:
    """Prompts whose last state can be written."""

    engine: Engine
    site: Site
    states: Float[Tensor, "example d_model"]
    before: Logs
    places: tuple[int, ...]

    @classmethod
    def of(
        cls, model: Model, texts: Sequence[str], layer: int, seed: int, places: Places | None = None
    ) -> _Set:
        tokens = model.tokenize(list(texts))
        site, at = Site("resid_post", layer), _positions(texts, places)
        run = model.run(tokens, capture=[site], positions=at, dtype=torch.float32)
        assert run.activations is not None
        assert run.logits is not None
        states = run.activations[str(site)].cpu()
        where = tuple(length - 1 for length in tokens.lengths) if isinstance(at, str) else tuple(at)
        return cls(Engine(model, tokens, seed=seed), site, states, _logs(run.logits), where)

    def after(self, change: Float[Tensor, "example d_model"]) -> Logs:
        """Log-probabilities of the next token with the last state changed."""
        lengths = self.engine.tokens.lengths
        values = torch.zeros(len(lengths), max(lengths), self.states.shape[1])
        for row, place in enumerate(self.places):
            values[row, place] = self.states[row] + change[row]
        rows = [Row(at, (Mediator(self.site, place),)) for at, place in enumerate(self.places)]
        return _logs(self.engine.logits(rows, {self.site: values}))


def _positions(texts: Sequence[str], places: Places | None) -> Literal["last"] | list[int]:
    return "last" if places is None else [places[text] for text in texts]


def _logs(logits: Tensor) -> Logs:
    return logits.double().log_softmax(dim=1).cpu()


def _divergence(before: Logs, after: Logs) -> Float[Tensor, " example"]:
    return (before.exp() * (before - after)).sum(dim=1)


@dataclass(frozen=True, eq=False)
class _Theatre:
    """Everything an edit is tried on."""

    bench: Bench
    own: _Set
    apart: _Set
    beside: _Set | None
    beside_of: Int[np.ndarray, " prompt"]
    tuning: np.ndarray
    facts: tuple[str, ...]

    @classmethod
    def of(
        cls,
        model: Model,
        writer: Writer,
        swaps: tuple[Swap, ...],
        items: Sequence[Item],
        others: Sequence[Item],
        layer: int,
        seed: int,
        places: Places | None,
    ) -> _Theatre:
        own = _Set.of(model, [swap.item.text for swap in swaps], layer, seed, places)
        site = str(own.site)
        known = {item.text: item for item in (*items, *others)}
        texts = list(known)
        at = _positions(texts, places)
        pool = model.capture(texts, [site], at, device="cpu", dtype=torch.float32)[site]
        rows = {text: at for at, text in enumerate(texts)}
        donors = pool[[rows[swap.donor.text] for swap in swaps]]
        beside = same_subject(swaps, items)
        facts = tuple(dict.fromkeys(swap.item.fact for swap in swaps))
        order = np.random.default_rng(seed).permutation(len(facts))
        half = {facts[at] for at in order[: len(facts) // 2].tolist()}
        return cls(
            Bench(writer, swaps, own.states, donors, tuple(known.values()), pool, seed),
            own,
            _Set.of(model, [item.text for item in unrelated(swaps, items, seed)], layer, seed, places),
            _Set.of(model, [item.text for _, item in beside], layer, seed, places) if beside else None,
            np.array([at for at, _ in beside], dtype=np.int64),
            np.array([swap.item.fact in half for swap in swaps]),
            facts,
        )

    def first(self, change: Float[Tensor, "example d_model"]) -> Float[np.ndarray, " example"]:
        """1 where the new answer is the first choice after the change; not a number where there is none."""
        there = torch.isfinite(change).all(dim=1)
        best = self.own.after(torch.nan_to_num(change)).argmax(dim=1)
        new = torch.tensor([swap.new for swap in self.bench.swaps])
        return torch.where(there, (best == new).double(), torch.nan).numpy()

    def measured(self, arm: Arm, dose: float) -> Measured:
        """Everything about an edit at a dose."""
        return self.of_change(arm.change(self.bench, dose), dose)

    def random(self, like: Float[Tensor, "example d_model"], dose: float, draws: int) -> Measured:
        """The mean over random changes of the same length."""
        found = [self.of_change(random_like(like, self.bench.seed + draw), dose) for draw in range(draws)]
        return Measured.mean(found)

    def of_change(self, change: Float[Tensor, "example d_model"], dose: float) -> Measured:
        """Everything about one change of every state."""
        there = torch.isfinite(change).all(dim=1).numpy()
        change = torch.nan_to_num(change)
        after, swaps = self.own.after(change), self.bench.swaps
        old, new = (torch.tensor([getattr(swap, name) for swap in swaps]) for name in ("old", "new"))
        best = after.argmax(dim=1)
        apart = self.apart.after(change)
        read = self.bench.writer.read(self.own.states + change)
        values = {
            "new_first": (best == new).double(),
            "old_first": (best == old).double(),
            "new_probability": after.gather(1, new[:, None])[:, 0].exp(),
            "old_probability": after.gather(1, old[:, None])[:, 0].exp(),
            "read": torch.tensor([float(a == s.pair[1]) for a, s in zip(read, swaps, strict=True)]),
            "length": change.norm(dim=1) / self.own.states.norm(dim=1),
            "elsewhere": _elsewhere(self.own.before, after, old, new),
            "unrelated": _divergence(self.apart.before, apart),
            "unrelated_kept": (apart.argmax(dim=1) == self.apart.before.argmax(dim=1)).double(),
            **self._beside(change),
        }
        found = {name: np.where(there, value.double().numpy(), np.nan) for name, value in values.items()}
        return Measured(dose=dose, **found)

    def _beside(self, change: Float[Tensor, "example d_model"]) -> dict[str, Tensor]:
        """The means over other prompts about each swap's subject; not a number where there are none."""
        found = torch.full((2, len(self.bench.swaps)), torch.nan, dtype=torch.float64)
        if self.beside is not None:
            at = torch.from_numpy(self.beside_of)
            after = self.beside.after(change[at])
            kept = (after.argmax(dim=1) == self.beside.before.argmax(dim=1)).double()
            moved = _divergence(self.beside.before, after)
            counts = torch.bincount(at, minlength=found.shape[1])
            for row, one in enumerate((moved, kept)):
                sums = torch.zeros(found.shape[1], dtype=torch.float64).index_add_(0, at, one)
                found[row] = torch.where(counts > 0, sums / counts, torch.nan)
        return {"same_subject": found[0], "same_subject_kept": found[1]}


def _elsewhere(
    before: Logs, after: Logs, old: Int[Tensor, " example"], new: Int[Tensor, " example"]
) -> Float[Tensor, " example"]:
    """How much probability moved among all tokens but the two."""
    moved = (before.exp() - after.exp()).abs().scatter(1, torch.stack([old, new], dim=1), 0.0)
    return moved.sum(dim=1) / 2
