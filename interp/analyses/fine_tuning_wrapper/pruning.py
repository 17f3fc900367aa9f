"""Does removing a few units bring lacking answers back? Heads and neurons, ranked by slope, then removed.

The score of a unit is the first-order fall of ``L = -log p(old answer)`` when the unit is set to zero: its
value times ``dL/d value``, summed over tokens, mean over questions. This definition is ours, after the idea
of arXiv 2311.12786, whose exact estimator was not at hand.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from interp.analyses.fine_tuning_wrapper.capability import Capability, right
from interp.analyses.knowledge.questions import Question
from interp.models.interventions import Intervention
from interp.models.model import Model
from interp.models.peft_adapters import merged

__all__ = ["COUNTS", "Pruned", "Units", "prune", "units_of"]

COUNTS = (1, 2, 4, 8, 16, 32)
AT_ONCE, DRAWS, NEAR = 16, 4, 40
"""Questions of a pass with gradients; random sets of units; and units of like size that one is drawn from."""


@dataclass(frozen=True, eq=False)
class Units:
    """Every head and neuron of a model.

    Attributes:
        names: their sites.
        slopes: ``[question, unit]`` first-order fall of L, nats, when the unit is zero.
        sizes: ``[unit]`` root mean square of what the unit's value is.
        moved: ``[unit]`` change of the weights that read and write it, since the base; zero for heads, and
            where the models cannot be laid beside each other.
    """

    names: tuple[str, ...]
    slopes: Float[np.ndarray, "question unit"]
    sizes: Float[np.ndarray, " unit"]
    moved: Float[np.ndarray, " unit"]


@dataclass(frozen=True)
class Pruned:
    """What removing k units brings back, for one division of the facts.

    Attributes:
        count: k.
        back: on unseen facts: 1 where the old answer is said again.
        fitted: share of the facts that chose the units.
        random: share for as many random units of like size, mean over draws.
        heaviest: share for as many neurons whose weights moved most; NaN where it is not known which.
        kept: share of what both models answered that is still answered; NaN where that is nothing.
        names: the units.
    """

    count: int
    back: tuple[float, ...]
    fitted: float
    random: float
    heaviest: float
    kept: float
    names: tuple[str, ...]

    @property
    def share(self) -> float:
        """``R(k)``: base right and tuned wrong on all of them, so the share that is right again."""
        return float(np.mean(self.back))


def units_of(base: Model, tuned: Model, questions: Sequence[Question]) -> Units:
    """Score every head and neuron of the tuned model on questions."""
    kinds = [kind for kind in ("z", "mlp_act") if tuned.expand(f"{kind}.*")]
    sites = [str(site) for kind in kinds for site in tuned.expand(f"{kind}.*")]
    slopes: list[np.ndarray] = []
    squares: list[np.ndarray] = []
    for start in range(0, len(questions), AT_ONCE):
        part = questions[start : start + AT_ONCE]
        ran = tuned.run(
            [one.prompt for one in part], capture=sites, positions="all", logits="last", grad=True
        )
        assert ran.logits is not None and ran.activations is not None
        wanted = torch.tensor([one.token for one in part], device=ran.logits.device)
        loss = -ran.logits.float().log_softmax(dim=-1).gather(1, wanted[:, None]).sum()
        values = [ran.activations[site] for site in sites]
        gradients = torch.autograd.grad(loss, values)
        pairs = [
            (value.detach(), value.detach() * slope) for value, slope in zip(values, gradients, strict=True)
        ]
        squares.append(_flat([value**2 for value, _ in pairs], sites))
        slopes.append(_flat([product for _, product in pairs], sites))
    names = tuple(name for site, value in zip(sites, values, strict=True) for name in _names(site, value))
    moved = _moved(base, tuned, names)
    return Units(names, np.concatenate(slopes), np.sqrt(np.concatenate(squares).mean(axis=0)), moved)


def _flat(values: Sequence[torch.Tensor], sites: Sequence[str]) -> Float[np.ndarray, "question unit"]:
    """Sum over tokens, and for heads over their entries: ``[question, unit]`` of all sites."""
    found = []
    for site, value in zip(sites, values, strict=True):
        summed = value.sum(dim=-1) if site.startswith("z.") else value
        found.append(summed.sum(dim=1).float().cpu())
    return torch.cat(found, dim=1).numpy()


def _names(site: str, value: torch.Tensor) -> list[str]:
    layer = site.rpartition(".")[2]
    kind, count = ("head", value.shape[-2]) if site.startswith("z.") else ("neuron", value.shape[-1])
    return [f"{kind}.{layer}.{at}" for at in range(count)]


def _moved(base: Model, tuned: Model, names: Sequence[str]) -> Float[np.ndarray, " unit"]:
    """How far the rows and columns of each neuron moved: the matrices of a block that have its width."""
    one, two = (dict(merged(model.hf).named_parameters()) for model in (base, tuned))
    total = {name: 0.0 for name in names}
    prefixes = {id(block): at for at, block in enumerate(base.architecture.blocks)}
    places = {
        name: prefixes[id(module)] for name, module in base.hf.named_modules() if id(module) in prefixes
    }
    for prefix, layer in places.items():
        for name, weight in one.items():
            if not name.startswith(f"{prefix}.") or weight.ndim != 2 or name not in two:
                continue
            if two[name].shape != weight.shape or weight.shape.count(base.d_mlp) != 1:
                continue
            moved = (two[name] - weight).detach().double().square().cpu()
            for at, value in enumerate(moved.sum(dim=1 - list(weight.shape).index(base.d_mlp)).tolist()):
                key = f"neuron.{layer}.{at}"
                if key in total:
                    total[key] += value
    return np.sqrt([total[name] for name in names])


def prune(
    tuned: Model, found: Capability, units: Units, seed: int, counts: Sequence[int] = COUNTS
) -> tuple[Pruned, ...]:
    """Remove the units that help most on some facts, and ask the others.

    Args:
        tuned: the model that lacks answers.
        found: the questions.
        units: scored on all lacking questions, in their order; only those to learn from choose.
        seed: of the division and of random units.
        counts: how many units are removed.
    """
    train, test = found.divided(seed)
    order = np.argsort(-units.slopes[train].mean(axis=0), kind="stable").tolist()
    heavy = np.argsort(-units.moved, kind="stable").tolist()
    fitted, unseen = ([found.lacking[row] for row in rows] for rows in (train, test))
    rng, made = np.random.default_rng(seed), []
    for k in counts:
        chosen = order[:k]
        lucky = [_alike(units.sizes, chosen, rng) for _ in range(DRAWS)]
        share = {
            name: float(np.mean(_asked(tuned, units, rows, unseen)))
            for name, rows in {"heavy": heavy[:k], **{str(at): rows for at, rows in enumerate(lucky)}}.items()
        }
        made.append(
            Pruned(
                count=k,
                back=tuple(_asked(tuned, units, chosen, unseen).astype(float).tolist()),
                fitted=float(np.mean(_asked(tuned, units, chosen, fitted))),
                random=float(np.mean([share[str(at)] for at in range(DRAWS)])),
                heaviest=share["heavy"] if units.moved.any() else math.nan,
                kept=float(np.mean(_asked(tuned, units, chosen, found.kept))) if found.kept else math.nan,
                names=tuple(units.names[at] for at in chosen[:8]),
            )
        )
    return tuple(made)


def _asked(tuned: Model, units: Units, rows: Sequence[int], questions: Sequence[Question]) -> np.ndarray:
    """Which questions are answered right with some units at zero."""
    return right(tuned, questions, [Intervention(units.names[int(at)], 0.0) for at in rows])


def _alike(sizes: Float[np.ndarray, " unit"], chosen: Sequence[int], rng: np.random.Generator) -> list[int]:
    """Random units, one for each of the chosen, among those whose values are most like it in size."""
    taken, found = set(map(int, chosen)), list[int]()
    for at in chosen:
        near = np.argsort(np.abs(sizes - sizes[at]), kind="stable")
        free = [int(one) for one in near if int(one) not in taken][:NEAR]
        if free:
            found.append(int(rng.choice(free)))
            taken.add(found[-1])
    return found
