"""Claim: several concepts out of one state, each in its role, from one record."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from interp.analyses.claims.evidence import Counts, Evidence, Setting
from interp.analyses.claims.peeling import SetReader, overlap
from interp.analyses.concepts.records import ROLES, record_codebook, record_of
from interp.tasks import one_hop
from interp.tasks.items import parts_of
from interp.tasks.relations import RELATIONS
from interp.tasks.world import load_world
from probes.arrays import Inputs
from probes.controls import bag_of_tokens
from probes.hyperdimensional import HyperdimensionalProbe
from probes.hyperdimensional.encoders import Linear
from probes.vsa import Codebook

__all__ = ["parts"]

Record = dict[str, str]


@dataclass(frozen=True, eq=False)
class Statements:
    """Statements with what they are about; answers of validation and test are no answers of training."""

    texts: list[str]
    records: list[Record]
    rows: dict[str, list[int]]
    codebook: Codebook


def parts(setting: Setting) -> Evidence:
    """Train on records of subject, relation and answer, and read all three out of one state by unbinding."""
    drawn = _drawn(setting)
    states = setting.states(drawn.texts)
    probe = _fitted(setting, drawn, states, drawn.records, drawn.codebook)
    pull = probe.fitted_.notes["regularisation"]
    own, plain = _read(probe, drawn, states), _compared(probe, drawn, states)
    tokens = setting.model.tokenize(drawn.texts).token_ids
    known = sorted({token for row in drawn.rows["train"] for token in tokens[row]})
    order = list(range(len(drawn.records)))
    for rows in drawn.rows.values():
        mixed = random.Random(setting.seed).sample(rows, len(rows))
        for row, other in zip(rows, mixed, strict=True):
            order[row] = other

    def control(X: Inputs, records: list[Record], codebook: Codebook) -> Int[np.ndarray, " test"]:
        fitted = _fitted(setting, drawn, X, records, codebook, pull)
        return _all(_read(fitted, drawn, X))

    right = drawn.records
    controls = {
        "random weights": control(setting.untrained.states(drawn.texts), right, drawn.codebook),
        "a permuted codebook": control(states, right, drawn.codebook.permuted(setting.seed)),
        "a bag of words": control(bag_of_tokens(tokens, vocabulary=known), right, drawn.codebook),
        "shuffled records": control(states, [drawn.records[row] for row in order], drawn.codebook),
    }
    return Evidence(
        "subject, relation and answer all right, among all concepts",
        _all(own),
        controls,
        {"one map for each role": _all(plain)},
        [f"{r['relation']}:{r['subject']}" for r in _test(drawn)],
        {role: (own[role], plain[role]) for role in ROLES} | _peeled(setting, drawn, states),
        "answers of the test were no answers in training; what unbinding costs is the noise of the bundle. "
        "By peeling, the three are read as a set without roles, which ends where a true set would be used "
        "up; the plain reader takes the nearest three, knowing the number",
    )


def _drawn(setting: Setting) -> Statements:
    world, rng = load_world(), random.Random(f"parts:{setting.seed}")
    part = parts_of([fact.object for fact in world.all_facts], (0.6, 0.15, 0.25), setting.seed)
    held = {name for name, where in part.items() if where != "train"}
    known = [
        (one_hop.example(fact, template).prompt, fact, part[fact.object])
        for fact in world.all_facts
        for template in range(len(RELATIONS[fact.relation].templates))
        if part[fact.object] != "train" or fact.subject not in held
    ]
    rng.shuffle(known)
    plan = zip(("train", "validation", "test"), setting.sizes, strict=True)
    found = [row for name, n in plan for row in [one for one in known if one[2] == name][:n]]
    rows = {
        name: [i for i, row in enumerate(found) if row[2] == name]
        for name in (*dict.fromkeys(part.values()),)
    }
    records = [record_of(fact.subject, fact.relation, fact.object) for _, fact, _ in found]
    given: dict[str, int] = {"dimension": setting.dimension, "seed": setting.seed}
    book = record_codebook(setting.model, world.concepts, list(RELATIONS), **given)
    return Statements([row[0] for row in found], records, rows, book)


def _fitted(
    setting: Setting,
    drawn: Statements,
    X: Inputs,
    records: list[Record],
    codebook: Codebook,
    pull: float | None = None,
) -> HyperdimensionalProbe:
    probe = HyperdimensionalProbe(codebook, encoder="embedding", seed=setting.seed, regularisation=pull)
    learned, later = (
        (X[drawn.rows[part]], codebook.records([records[row] for row in drawn.rows[part]]))
        for part in ("train", "validation")
    )
    return probe.fit(*learned, validation=later)


def _test(drawn: Statements) -> list[Record]:
    return [drawn.records[row] for row in drawn.rows["test"]]


def _read(probe: HyperdimensionalProbe, drawn: Statements, X: Inputs) -> dict[str, Int[np.ndarray, " test"]]:
    """Whether each role is read right by unbinding."""
    X = X[drawn.rows["test"]]
    return {
        role: np.array(
            [
                int(names[0] == record[role])
                for names, record in zip(probe.decode(X, role=role, k=1).names, _test(drawn), strict=True)
            ]
        )
        for role in ROLES
    }


def _compared(
    probe: HyperdimensionalProbe, drawn: Statements, states: Float[torch.Tensor, "example d_model"]
) -> dict[str, Int[np.ndarray, " test"]]:
    """The same maps before they are bound and bundled, compared with the embeddings themselves."""
    encoder, fitted, rows = probe.fitted_.encoder, probe.fitted_, drawn.codebook.embeddings
    assert isinstance(encoder, Linear) and rows is not None
    scaled = (states[drawn.rows["test"]] - fitted.mean) / fitted.scale
    inner = (scaled @ encoder.weight + encoder.offset).split(rows.shape[1], dim=1)
    found: dict[str, Int[np.ndarray, " test"]] = {}
    for role, predicted in zip(ROLES, inner, strict=True):
        gold = drawn.codebook.index([record[role] for record in _test(drawn)])
        found[role] = ((predicted @ rows.T).argmax(dim=1) == gold).long().numpy()
    return found


def _peeled(
    setting: Setting, drawn: Statements, states: Float[torch.Tensor, "example d_model"]
) -> dict[str, tuple[Counts, Counts]]:
    """Precision and recall of the same three as a set: peeled, and the nearest three without the algebra."""
    members = [tuple(record[role] for role in ROLES) for record in drawn.records]
    reader = SetReader.fitted(drawn.codebook, states, members, drawn.rows, seed=setting.seed)
    test = drawn.rows["test"]
    true = [members[row] for row in test]
    own = overlap(reader.read(states[test]), true)
    plain = overlap(reader.plainly(states[test], [len(ROLES)] * len(test)), true)
    return {f"peeling, {name}": (own[at], plain[at]) for at, name in enumerate(("precision", "recall"))}


def _all(read: dict[str, Int[np.ndarray, " test"]]) -> Int[np.ndarray, " test"]:
    return np.min([read[role] for role in ROLES], axis=0)
