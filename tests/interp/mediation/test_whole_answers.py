"""Effects on whole answers, against transformers' own loss under plain hooks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from interp import mediation
from interp.errors import ConfigError, DataError
from interp.mediation.circuits.runs import run_all
from interp.mediation.steps import steps_of
from interp.models import answers
from interp.models.loading import load
from interp.models.model import Model
from interp.pairs import Pair, PairSet
from tests.tiny import build, tokenizer

PAIRS = [
    Pair("w01 w02 w03", "w01 w05 w03", ("w10 w11 w12",), ("w10 w13",)),
    Pair("w04 w06 w07", "w04 w08 w07", ("w14",), ("w15 w16",)),
    Pair("w17 w18 w19", "w20 w18 w19", ("w21 w22",), ("w23 w24 w25",)),
]
ODDS = "answer-log-odds"


@pytest.fixture(scope="module")
def model() -> Model:
    return load(build("llama"), tokenizer=tokenizer(bos=True))


@pytest.fixture(scope="module")
def pairs(model: Model) -> PairSet:
    return PairSet.build(model, PAIRS, whole=True)


def ids_of(model: Model, text: str) -> torch.Tensor:
    assert model.tokenizer is not None
    return torch.tensor([model.tokenizer(text)["input_ids"]])


@contextmanager
def states(
    model: Model, layer: int, *, put: torch.Tensor | None = None, at: int | None = None
) -> Iterator[list[Any]]:
    """Read what a block gives, or put something in its place: a plain hook of torch."""
    seen: list[Any] = []

    def hook(module: Any, given: Any, out: torch.Tensor) -> Any:
        seen.append(out.detach().clone())
        if put is None:
            return None
        where = slice(None) if at is None else slice(at, at + 1)
        out = out.clone()
        out[:, where] = put[:, where]
        return out

    hf: Any = model.hf
    handle = hf.model.layers[layer].register_forward_hook(hook)
    try:
        yield seen
    finally:
        handle.remove()


def said(model: Model, prompt: str, answer: str) -> float:
    """The log-probability of an answer: transformers' loss over its tokens."""
    ids, n = ids_of(model, f"{prompt} {answer}"), len(answer.split())
    labels = torch.cat([torch.full((1, ids.shape[1] - n), -100), ids[:, -n:]], dim=1)
    with torch.no_grad():
        return -float(model.hf(input_ids=ids, labels=labels).loss) * n


def patched(model: Model, base: str, source: str, answer: str, layer: int, at: int | None) -> float:
    """The same in a run of one prompt with a block's states of the other, the answer behind both."""
    with states(model, layer) as seen:
        said(model, source, answer)
    with states(model, layer, put=seen[0], at=at):
        return said(model, base, answer)


@pytest.mark.parametrize(("positions", "at"), [("all", None), (1, 1), (-1, 3)])
def test_effects_are_those_of_whole_passes_with_the_answer_behind(
    model: Model, pairs: PairSet, positions: Any, at: int | None
) -> None:
    given: Any = {"metric": ODDS, "positions": positions}
    found = mediation.exhaustive(model, pairs, ["resid_post.0", "resid_post.1"], **given)
    for row, pair in enumerate(PAIRS):
        right, wrong = pair.answers[0], pair.foils[0]
        odds = {
            text: said(model, text, right) - said(model, text, wrong) for text in (pair.clean, pair.corrupt)
        }
        assert found.clean[row] == pytest.approx(odds[pair.clean], abs=1e-4)
        assert found.corrupt[row] == pytest.approx(odds[pair.corrupt], abs=1e-4)
        for layer in (0, 1):
            denoised = [patched(model, pair.corrupt, pair.clean, a, layer, at) for a in (right, wrong)]
            noised = [patched(model, pair.clean, pair.corrupt, a, layer, at) for a in (right, wrong)]
            wanted = denoised[0] - denoised[1] - odds[pair.corrupt], odds[pair.clean] - noised[0] + noised[1]
            got = [found.values[way][layer, row] for way in ("denoising", "noising")]
            assert got == pytest.approx(wanted, abs=1e-4)
    assert np.abs(found.values["noising"]).max() > 0.01 and len(found.groups) == 3
    assert found.about.data["n"] == 3 and found.unit == "nats"


def test_the_whole_answer_alone(model: Model, pairs: PairSet) -> None:
    found = mediation.exhaustive(model, pairs, "resid_post.1", metric="answer-log-prob", positions="all")
    for row, pair in enumerate(PAIRS):
        scored = answers.score(model, [pair.clean, pair.corrupt], [*pair.answers, *pair.answers])
        whole = [found.clean[row], found.corrupt[row]]
        assert whole == pytest.approx(scored.log_probability.tolist(), abs=1e-4)


def test_of_answers_of_one_token_the_odds_are_the_difference_of_logits(model: Model) -> None:
    short = [replace(one, answers=(f"w3{at}",), foils=(f"w4{at}",)) for at, one in enumerate(PAIRS)]
    single = PairSet.build(model, short)
    for search in ("exhaustive", "attribution"):
        found = [
            mediation.searches.effects(model, single, "head.*", search=search, metric=metric).values[
                "denoising"
            ]
            for metric in ("logit-diff", ODDS)
        ]
        assert np.allclose(*found, atol=1e-4) and np.abs(found[0]).max() > 0.01


def test_gradients_are_those_of_the_loss(model: Model, pairs: PairSet) -> None:
    found = mediation.attribution(
        model, pairs, "embed", metric=ODDS, positions="all", directions="noising", verify=0
    )
    hf: Any = model.hf
    for row, pair in enumerate(PAIRS):
        wanted = 0.0
        for answer, sign in ((pair.answers[0], 1), (pair.foils[0], -1)):
            clean, corrupt = (ids_of(model, f"{text} {answer}") for text in (pair.clean, pair.corrupt))
            n = len(answer.split())
            labels = torch.cat([torch.full((1, clean.shape[1] - n), -100), clean[:, -n:]], dim=1)
            here, there = (hf.model.embed_tokens(ids).detach() for ids in (clean, corrupt))
            here.requires_grad_(True)
            (slope,) = torch.autograd.grad(-hf(inputs_embeds=here, labels=labels).loss * n, here)
            wanted -= sign * float((slope * (there - here)).sum().detach())
        assert found.values["noising"][0, row] == pytest.approx(wanted, rel=1e-3, abs=1e-4)


def test_circuits_and_interactions_are_measured_per_pair(model: Model, pairs: PairSet) -> None:
    nodes = mediation.mediators_of(model, pairs, ["head.*", "mlp_out.*"], positions="all")
    whole, none, one = run_all(model, pairs, nodes, [set(nodes), set(), {nodes[0]}], ODDS, 0)
    clean = [said(model, p.clean, p.answers[0]) - said(model, p.clean, p.foils[0]) for p in PAIRS]
    assert whole.tolist() == pytest.approx(clean, abs=1e-4)
    assert (
        whole.shape == none.shape == (3,) and np.abs(none - whole).min() > 1e-3 and not np.allclose(one, none)
    )
    both = mediation.interactions(model, pairs, ["resid_post.0", "resid_post.1"], metric=ODDS, positions=1)
    assert both.values.shape == (2, 2, 3) and np.abs(both.values).max() > 1e-3
    edges = mediation.exhaustive(model, pairs, "edge.mlp_out.2->logits", metric=ODDS)
    assert edges.values["noising"].shape == (1, 3)
    site = mediation.exhaustive(model, pairs, "mlp_out.2", metric=ODDS)
    assert np.allclose(edges.values["noising"], site.values["noising"], atol=1e-4)


def test_steps_begin_where_answers_part(model: Model, pairs: PairSet) -> None:
    steps = steps_of(model, pairs, mediation.METRICS[ODDS])
    assert [steps.owners.count(at) for at in range(3)] == [2, 2, 4]
    ends = [ids[len(pairs.clean.token_ids[0]) :] for ids in steps.pairs.clean.token_ids[:2]]
    first, second = (ids_of(model, "w10 w11 w12")[0, 1:].tolist()[at] for at in (0, 1))
    assert ends == [(first,), (first, second)]
    assert steps.sums(np.ones(8)).tolist() == [2, 2, 4]


def test_what_cannot_be_told_apart_or_scored_is_refused(model: Model, pairs: PairSet) -> None:
    with pytest.raises(DataError, match=r"start with the same token 'w10'.*whole=True"):
        PairSet.build(model, PAIRS)
    with pytest.raises(DataError, match="goes on where the other ends"):
        PairSet.build(model, [replace(PAIRS[0], foils=("w10 w11",))], whole=True)
    with pytest.raises(DataError, match="are the same"):
        PairSet.build(model, [replace(PAIRS[0], foils=PAIRS[0].answers)], whole=True)
    with pytest.raises(DataError, match=r"begin with the same token.*Use metric 'answer-log-odds'"):
        mediation.exhaustive(model, pairs, "resid_post.1")
    several = PairSet.build(model, [replace(PAIRS[1], foils=("w15 w16", "w30"))])
    with pytest.raises(ConfigError, match=r"scores one whole foil, and pair 0 has 2\. Keep one"):
        mediation.exhaustive(model, several, "resid_post.1", metric=ODDS)
    with pytest.raises(ConfigError, match="answers of pair 0 were exchanged"):
        turned = replace(pairs, answer_ids=pairs.foil_ids[::-1])
        mediation.exhaustive(model, turned, "resid_post.1", metric=ODDS)
    uneven = PairSet.build(
        model, [PAIRS[1], replace(PAIRS[2], clean="w17 w18", corrupt="w20 w18")], whole=True
    )
    with pytest.raises(ConfigError, match=r"positions must count from the start.*positions='all'"):
        mediation.exhaustive(model, uneven, "resid_post.1", metric=ODDS)
    assert mediation.exhaustive(model, uneven, "resid_post.1", metric=ODDS, positions="all").clean.shape == (
        2,
    )


def test_which_pairs_the_model_answers_is_judged_whole_where_first_tokens_are_shared(model: Model) -> None:
    pair = PAIRS[0]
    scores = [said(model, pair.clean, text) for text in (*pair.answers, *pair.foils)]
    right = pair if scores[0] > scores[1] else replace(pair, answers=pair.foils, foils=pair.answers)
    assert len(PairSet.build(model, [right], whole=True).right(model)) == 1
    wrong = replace(right, answers=right.foils, foils=right.answers)
    with pytest.raises(DataError, match="answers none of the 1 clean prompts"):
        PairSet.build(model, [wrong], whole=True).right(model)
