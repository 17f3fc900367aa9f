"""The analysis ``two-hop``: both answers, the recall of the bridge, and its use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float

from interp.analyses.curves import curve
from interp.analyses.hops.chains import Chain, Chains, draw
from interp.analyses.hops.measuring import Answers, answers, recalled, second_hop_slopes
from interp.analyses.provenance import about, earlier
from interp.errors import ConfigError, ModelError
from interp.models.loading import ModelLike, as_model
from interp.models.model import Model
from interp.models.readout import Readout
from interp.results.findings import Finding
from interp.results.measured import FindingsResult
from interp.results.shapes import Cell, Table

__all__ = ["two_hop"]

JOINT = {
    "SS": ("recalled", "used"),
    "SF": ("recalled", "not used"),
    "FS": ("not recalled", "used"),
    "FF": ("not recalled", "not used"),
}


@dataclass(frozen=True, eq=False)
class _Hops:
    """Hold what one model does with the chains.

    Attributes:
        chains: what was asked.
        answers: how it was answered.
        recall: EntRec of every layer.
        recall_other: EntRec of the same bridge where the prompt describes another.
        slopes: of CnstScore along EntRec, for all layers but the last; None where gradients are not sound.
    """

    chains: Chains
    answers: Answers
    recall: Float[np.ndarray, "layer item"]
    recall_other: Float[np.ndarray, "layer item"]
    slopes: Float[np.ndarray, "layer_but_one item"] | None

    @property
    def first(self) -> Float[np.ndarray, "layer item"]:
        """Give 1 where the bridge is said more clearly than where another is described."""
        return (self.recall > self.recall_other).astype(np.float64)

    @property
    def second(self) -> Float[np.ndarray, "layer_but_one item"] | None:
        """Give 1 where recalling the bridge more would make the answers more alike."""
        return None if self.slopes is None else (self.slopes > 0).astype(np.float64)

    def joint(self) -> dict[str, Float[np.ndarray, "layer_but_one item"]]:
        """Give the four outcomes of both tests; nothing where the second was not made."""
        if self.second is None:
            return {}
        one, two = self.first[:-1], self.second
        return {"SS": one * two, "SF": one * (1 - two), "FS": (1 - one) * two, "FF": (1 - one) * (1 - two)}


def two_hop(
    model: ModelLike,
    *,
    reference: FindingsResult | None = None,
    n: int = 100,
    seed: int = 0,
    data: Sequence[Chain] | None = None,
) -> FindingsResult:
    """Ask questions of two hops, and test whether the bridge is recalled and used (Yang et al. 2024).

    First-hop test: EntRec of the bridge, read where its description ends, is higher than where another bridge
    is described. Second-hop test: moving that state along EntRec's gradient would raise CnstScore. Chance is
    one half for each, a quarter for every joint outcome.

    Args:
        model: what is run.
        reference: the same analysis of another model, from which losses are counted.
        n: how many chains, pairs of relations in equal parts.
        seed: of the draw, and of the chains that stand in.
        data: your own chains; those of the bundled facts where left out.

    Returns:
        Accuracies (against always saying the most frequent answer), the tests over all layers, CnstScore in
        nats (against the one-hop question about another bridge), joint outcomes, and by layer EntRec in nats
        (against the prompt that describes another bridge) and both tests. Further tables: ``layers`` with all
        layers, ``hops`` with losses from the reference. Without sound gradients the second
        test and the joint outcomes are left out, and a warning says so.

    Raises:
        ConfigError: n below 1, or a reference that asked other questions.
        DataError: no chain can be asked of this tokenizer.
        SiteError: the model's final norm is unknown.
    """
    model = as_model(model)
    chains = draw(model, data, n=n, seed=seed)
    if reference is not None and earlier(reference, "two-hop", "fingerprint") != chains.fingerprint:
        raise ConfigError(
            "two-hop: the reference asked other questions. Use the same data, n and seed for both, and "
            "models that share a tokenizer."
        )
    hops, missing = _measured(model, chains)
    known: _Hops = hops if reference is None else reference.state["hops"]
    found = (*_accuracies(hops), *_tests(hops), _alike(hops), *_joint(hops), *_curves(hops))
    return FindingsResult(
        analysis="two-hop",
        about=about(model, {"n": len(chains.asked)}),
        asked=f"Does {model.name} recall the entity in the middle, and does it use it?",
        how=(
            f"{len(chains.asked):,} questions of two hops were asked, and both of their single hops. EntRec "
            "is the log-probability of the entity in the middle where its description ends; CnstScore says "
            "how alike the answers of two hops and of the second hop alone are.",
        ),
        found=found,
        more=_tables(hops, known),
        state={"fingerprint": chains.fingerprint, "hops": hops},
        seed=seed,
        warnings=(*model.warnings, *chains.notes, *missing),
    )


def _measured(model: Model, chains: Chains) -> tuple[_Hops, tuple[str, ...]]:
    readout = Readout.precise(model.architecture)
    bridges = torch.tensor([one.bridge[0] for one in chains.asked], device=model.device)
    own, other = (
        recalled(model, readout, where, bridges).double().cpu().numpy()
        for where in (chains.asked, chains.others)
    )
    given = answers(model, chains)
    slopes, missing = None, ("the second-hop test was left out: the model has a single layer",)
    if model.n_layers > 1:
        try:
            slopes = second_hop_slopes(model, readout, chains, given.one_hop).numpy()
            missing = ()
        except ModelError as error:
            missing = (f"the second-hop test and the joint outcomes were left out: {error}",)
    return _Hops(chains, given, own, other, slopes), missing


def _accuracies(hops: _Hops) -> list[Finding]:
    chains = [one.chain for one in hops.chains.asked]
    usual = [hops.chains.usual[chain.kind] for chain in chains]
    bridge = np.array([float(chain.bridge == most[0]) for chain, most in zip(chains, usual, strict=True)])
    answer = np.array([float(chain.answer == most[1]) for chain, most in zip(chains, usual, strict=True)])
    rows = (
        ("two hops", hops.answers.both, answer, "the question that only describes the bridge"),
        ("first hop", hops.answers.first, bridge, "the question for the bridge"),
        ("second hop", hops.answers.second, answer, "the question that names the bridge"),
    )
    tail = "; control: always the usual answer"
    return [
        Finding(
            f"accuracy: {name}", values, hops.chains.groups, control, "share", about=about + tail, direction=1
        )
        for name, values, control, about in rows
    ]


def _tests(hops: _Hops) -> list[Finding]:
    rows = [("first-hop test", hops.first, "the bridge is recalled where it is described")]
    if hops.second is not None:
        rows.append(("second-hop test", hops.second, "more recall would make the answer more like one hop's"))
    return [
        Finding(
            name,
            values.mean(axis=0),
            hops.chains.groups,
            0.5,
            "share",
            about=f"{about}; mean over layers",
            direction=1,
        )
        for name, values, about in rows
    ]


def _alike(hops: _Hops) -> Finding:
    return Finding(
        "CnstScore",
        hops.answers.consistency,
        hops.chains.groups,
        hops.answers.consistency_other,
        "nats",
        about="how alike two-hop and one-hop answers are; control: one hop about another bridge",
        direction=1,
    )


def _joint(hops: _Hops) -> list[Finding]:
    return [
        Finding(
            f"{name}: {' and '.join(JOINT[name])}",
            values.mean(axis=0),
            hops.chains.groups,
            0.25,
            "share",
            about="joint outcome of both tests, mean over layers",
        )
        for name, values in hops.joint().items()
    ]


def _curves(hops: _Hops) -> list[Finding]:
    groups = hops.chains.groups
    about = "the bridge's log-probability where its description ends; control: another bridge is described"
    found = [
        *curve("EntRec", hops.recall, hops.recall_other, groups=groups, unit="nats", about=about, direction=1)
    ]
    rows = [("first-hop test", hops.first, "EntRec is higher than where another bridge is described")]
    if hops.second is not None:
        rows.append(("second-hop test", hops.second, "CnstScore rises along EntRec's gradient"))
    for name, values, about in rows:
        found += curve(name, values, 0.5, groups=groups, unit="share", about=about, direction=1)
    return found


def _tables(hops: _Hops, reference: _Hops) -> tuple[Table, ...]:
    """All layers, and the hops with their losses, also where both single ones are answered."""
    given, known = hops.answers, reference.answers
    columns = {
        "EntRec": hops.recall,
        "EntRec, another bridge described": hops.recall_other,
        "EntRec drop": reference.recall - hops.recall,
        "first-hop test": hops.first,
        **({} if hops.second is None else {"second-hop test": hops.second}),
        **hops.joint(),
    }
    means = {name: values.mean(axis=1) for name, values in columns.items()}
    layers: list[dict[str, Cell]] = [
        {"layer": at, **{name: float(values[at]) for name, values in means.items() if at < len(values)}}
        for at in range(len(hops.recall))
    ]
    both = (given.first * given.second).astype(bool)
    parts = {"first": "first hop", "second": "second hop", "both": "two hops"}
    rows: list[dict[str, Cell]] = [
        {
            "question": said,
            "n": len(both),
            "accuracy": float(getattr(given, name).mean()),
            "drop of accuracy": float((getattr(known, name) - getattr(given, name)).mean()),
        }
        for name, said in parts.items()
    ]
    asked = float(given.both[both].mean()) if both.any() else None
    rows.append({"question": "two hops, both single ones answered", "n": int(both.sum()), "accuracy": asked})
    return (
        Table.of("hops", "One hop and two", rows),
        replace(Table.of("layers", "Layer by layer", layers), folded=True),
    )
