"""The analysis ``two-hop``: both answers, the recall of the bridge, and its use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.analyses.layer_profiles import curve
from interp.analyses.multi_hop.chains import Chains, Placed, draw
from interp.analyses.multi_hop.losses import loss_table
from interp.analyses.provenance import about, earlier
from interp.errors import ConfigError, ModelError, counted
from interp.models.answers import score
from interp.models.forward import gradients, plan_batches
from interp.models.loading import ModelLike, as_model
from interp.models.model import Model
from interp.models.readout import Readout
from interp.results.findings import Finding
from interp.results.measured import FindingsResult
from interp.results.shapes import Cell, Table
from interp.tasks.chains import Chain

__all__ = ["consistency", "recalled", "second_hop_slopes", "two_hop"]


@dataclass(frozen=True, eq=False)
class Answers:
    """How the questions are answered.

    Attributes:
        first: 1 where every token of the bridge is the likeliest after the question for it, else 0.
        second: 1 where the question that names the bridge is answered, else 0.
        both: 1 where the two-hop question is answered, else 0.
        consistency: CnstScore of two-hop and one-hop question, in nats.
        consistency_other: with the one-hop question about another bridge.
        one_hop: log-probabilities after the question that names the bridge.
        said: log-probability of the answer's first token after the two-hop question, in nats.
        bridged: of the bridge's first token after the question for it.
    """

    first: Float[np.ndarray, " item"]
    second: Float[np.ndarray, " item"]
    both: Float[np.ndarray, " item"]
    consistency: Float[np.ndarray, " item"]
    consistency_other: Float[np.ndarray, " item"]
    one_hop: Float[Tensor, "item vocab"]
    said: Float[np.ndarray, " item"]
    bridged: Float[np.ndarray, " item"]


def answers(model: Model, chains: Chains) -> Answers:
    """Ask every question once."""
    asked = chains.asked
    first, second, both, other = (
        model.logits(prompts)
        for prompts in (
            [one.chain.first for one in asked],
            [one.chain.second for one in asked],
            [one.chain.both for one in asked],
            [one.chain.second for one in chains.others],
        )
    )
    logs = [logits.double().log_softmax(dim=1) for logits in (both, second, other)]
    return Answers(
        _right(model, first, [(one.chain.first, one.bridge) for one in asked]),
        _right(model, second, [(one.chain.second, one.answer_alone) for one in asked]),
        _right(model, both, [(one.chain.both, one.answer) for one in asked]),
        consistency(logs[0], logs[1]).cpu().numpy(),
        consistency(logs[0], logs[2]).cpu().numpy(),
        logs[1],
        _of_first(logs[0], [one.answer for one in asked]),
        _of_first(first.double().log_softmax(dim=1), [one.bridge for one in asked]),
    )


def _of_first(logs: Tensor, ids: Sequence[tuple[int, ...]]) -> Float[np.ndarray, " item"]:
    """The log-probability of each answer's first token."""
    return logs.cpu().gather(1, torch.tensor([[one[0]] for one in ids]))[:, 0].numpy()


def _right(
    model: Model, logits: Tensor, asked: Sequence[tuple[str, tuple[int, ...]]]
) -> Float[np.ndarray, " item"]:
    """1 where every token of the answer is the likeliest where it stands."""
    if any(len(ids) > 1 for _, ids in asked):
        return score(model, [text for text, _ in asked], [ids for _, ids in asked]).likeliest.double().numpy()
    return (logits.argmax(dim=1).cpu() == torch.tensor([ids[0] for _, ids in asked])).double().numpy()


def consistency(one: Float[Tensor, "item vocab"], two: Float[Tensor, "item vocab"]) -> Float[Tensor, " item"]:
    """CnstScore: half the negative cross-entropies of two distributions in both directions, in nats.

    Args:
        one: log-probabilities.
        two: log-probabilities.
    """
    return 0.5 * ((one.exp() * two).sum(dim=1) + (two.exp() * one).sum(dim=1))


def recalled(
    model: Model, readout: Readout, where: Sequence[Placed], bridges: Int[Tensor, " item"]
) -> Float[Tensor, "layer item"]:
    """EntRec of every layer: the bridge's log-probability read at the end of its description, in nats.

    Args:
        model: what is run, once.
        readout: its last step.
        where: the prompts, and the position of each that is read.
        bridges: whose log-probability.
    """
    sites = [f"resid_post.{layer}" for layer in range(model.n_layers)]
    read = model.capture([one.chain.both for one in where], sites, [one.position for one in where])
    return torch.stack([readout.log_probabilities(read[site], bridges[:, None])[:, 0] for site in sites])


def second_hop_slopes(
    model: Model, readout: Readout, chains: Chains, one_hop: Float[Tensor, "item vocab"]
) -> Float[Tensor, "layer item"]:
    """The slope of CnstScore as the description's end moves along EntRec's gradient: is recall used?

    The derivative at 0 of ``CnstScore(x + a * grad_x EntRec)`` is the product of both gradients: one backward
    pass through the model and one through the last step, for all layers at once.

    Args:
        model: what is run with its graph.
        readout: its last step.
        chains: what is asked.
        one_hop: log-probabilities after the question that names the bridge, held.

    Returns:
        For layers 0 to the last but one.

    Raises:
        ModelError: the model's gradients are not to be believed.
    """
    asked = chains.asked
    lengths = model.tokenize([one.chain.both for one in asked]).lengths
    found = torch.zeros(model.n_layers - 1, len(asked), dtype=torch.float64)
    for rows in plan_batches(lengths, "auto", device=model.device.type):
        held = one_hop[torch.tensor(rows, device=one_hop.device)]
        found[:, rows] = _slopes(model, readout, [asked[row] for row in rows], held)
    return found


@gradients()
def _slopes(model: Model, readout: Readout, asked: Sequence[Placed], one_hop: Tensor) -> Tensor:
    sites = [f"resid_post.{layer}" for layer in range(model.n_layers - 1)]
    run = model.run([one.chain.both for one in asked], capture=sites, positions="all", grad=True)
    assert run.logits is not None and run.activations is not None
    nodes = [run.activations[site] for site in sites]
    score = consistency(run.logits.double().log_softmax(dim=1), one_hop).sum()
    gradients: Any = torch.autograd.grad(score, nodes)
    items = torch.arange(len(asked), device=nodes[0].device)
    at = torch.tensor([one.position for one in asked], device=nodes[0].device)
    bridges = torch.tensor([[one.bridge[0]] for one in asked], device=nodes[0].device)
    slopes: list[Tensor] = []
    for node, gradient in zip(nodes, gradients, strict=True):
        states = node.detach()[items, at].to(readout.dtype).requires_grad_(True)
        with torch.enable_grad():
            recall = readout.of_tokens(states, bridges).sum()
        (along,) = torch.autograd.grad(recall, states)
        slopes.append((gradient[items, at].double() * along.double()).sum(dim=1).cpu())
    return torch.stack(slopes)


JOINT = {
    "SS": ("recalled", "used"),
    "SF": ("recalled", "not used"),
    "FS": ("not recalled", "used"),
    "FF": ("not recalled", "not used"),
}


@dataclass(frozen=True, eq=False)
class _Hops:
    """What one model does with the chains.

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
        """1 where the bridge is said more clearly than where another is described."""
        return (self.recall > self.recall_other).astype(np.float64)

    @property
    def second(self) -> Float[np.ndarray, "layer_but_one item"] | None:
        """1 where recalling the bridge more would make the answers more alike."""
        return None if self.slopes is None else (self.slopes > 0).astype(np.float64)

    def joint(self) -> dict[str, Float[np.ndarray, "layer_but_one item"]]:
        """The four outcomes of both tests; nothing where the second was not made."""
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
    data: Sequence[Chain] | str | Path | None = None,
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
        data: your own chains, or a file of them (``interp.tasks.read_chains``), of which those are asked that
            the tokenizer can be; those of the bundled facts where left out.

    Returns:
        Accuracies (against always saying the most frequent answer), the tests over all layers, CnstScore in
        nats (against the one-hop question about another bridge), joint outcomes, and by layer EntRec in nats
        (against the prompt that describes another bridge) and both tests. Further tables: ``layers`` with all
        layers, ``hops`` with losses from the reference, and ``losses``: whether the loss of two hops goes
        with the first hop (Spearman). Without sound gradients the second test and the joint outcomes are left
        out, and a warning says so.

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
            f"{counted(len(chains.asked), 'question of two hops was', 'questions of two hops were')} asked, "
            "and both of their single hops. EntRec "
            "is the log-probability of the entity in the middle where its description ends; CnstScore says "
            "how alike the answers of two hops and of the second hop alone are.",
        ),
        found=found,
        more=(*_tables(hops, known), *([] if known is hops else [_losses(hops, known, seed)])),
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


def _losses(hops: _Hops, known: _Hops, seed: int) -> Table:
    own, theirs = hops.answers, known.answers
    return loss_table(
        theirs.said - own.said,
        theirs.bridged,
        theirs.bridged - own.bridged,
        hops.chains.groups,
        seed=seed,
    )


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
