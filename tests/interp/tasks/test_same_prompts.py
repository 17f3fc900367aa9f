"""The same seed draws the same prompts as ever: another draw would change every published number.

The digests were taken from the code of the first release, when every kind of task had a registry of its own.
"""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import astuple
from typing import Any

import pytest

from interp.tasks import LABELLED, PAIR_TASKS, TASKS, labelled, load_world, pairs
from interp.tasks.protocols import PROTOCOLS


def digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, ensure_ascii=False).encode()).hexdigest()[:12]


def examples(name: str, split: Any) -> Any:
    rng, world = random.Random(7), load_world()
    return [astuple(TASKS[name].generate(world, rng, split)) for _ in range(40)]


def labels(name: str) -> Any:
    data = labelled(name, n=60, seed=3)
    return [data.texts, data.labels, data.groups, data.splits]


def texts(name: str, kind: str) -> Any:
    return [astuple(pair)[:6] for pair in pairs._texts(name, 6, 2, kind, None)]


def items(name: str) -> Any:
    found = PROTOCOLS[name].items(seed=4, sizes=(60, 10, 20))
    return [[astuple(item) for item in found.items], found.concepts, found.notes]


DRAWS = {
    **{f"{name}, {split}": (examples, name, split) for name in TASKS for split in ("train", "held-out")},
    **{name: (labels, name) for name in LABELLED},
    **{
        f"{name}, pairs, {kind}": (texts, name, kind)
        for name, row in PAIR_TASKS.items()
        for kind in row.kinds
    },
    **{name: (items, name) for name in PROTOCOLS},
}
KNOWN = {
    "one-hop, train": "1b8fae7afec1",
    "one-hop, held-out": "3feb7f39d1a1",
    "analogy, train": "060e3e9f55f8",
    "analogy, held-out": "6511024d7d93",
    "key-value, train": "87745c13ca83",
    "key-value, held-out": "9fb0d7990502",
    "pattern, train": "1068381ef00b",
    "pattern, held-out": "a70dd0ba77c1",
    "two-hop, train": "23e65ea9c5f7",
    "two-hop, held-out": "bee0e0827f6d",
    "indirect-object, train": "8362b6d9523c",
    "indirect-object, held-out": "21f551707d05",
    "greater-than, train": "f00b9e3fcb63",
    "greater-than, held-out": "ba387b0c4c6a",
    "agreement, train": "f93eaa1b63bb",
    "agreement, held-out": "d23ac018c7c0",
    "addition, train": "a01d1a5275f2",
    "addition, held-out": "2de19835c1ea",
    "analogy-relation": "e1547cb5c423",
    "fact-relation": "15cf92ce7d4a",
    "category": "72a717aea990",
    "bridge-continent": "fecccebff11c",
    "subject-number": "89315cd9512b",
    "name-order": "d2aba55cddd0",
    "capitals, pairs, subject": "a903d71dacc3",
    "capitals, pairs, relation": "8fdfa5c37ce1",
    "capitals, pairs, null": "74a28b0895c6",
    "facts, pairs, subject": "c07cf76462ac",
    "facts, pairs, null": "7bb04fb59f88",
    "indirect-object, pairs, flip": "2e5cb3d9dc54",
    "indirect-object, pairs, names": "198805c1f2f6",
    "indirect-object, pairs, null": "ee15af6cc4bd",
    "greater-than, pairs, low": "1a3eae93e9fd",
    "greater-than, pairs, year": "d5c0054c17a5",
    "agreement, pairs, number": "affeaaae9b47",
    "agreement, pairs, attractor": "ccb9e9b0de36",
    "two-hop, pairs, first": "375a784e4743",
    "two-hop, pairs, second": "62233f427fc1",
    "addition, pairs, summand": "f3d26155118c",
    "addition, pairs, swap": "c237e6425d8e",
    "key-value, pairs, query": "36ae0d825c76",
    "key-value, pairs, values": "aae723b68771",
    "concept-disjoint": "6b77550415a2",
    "bridge": "906d6719abac",
    "in-context": "d9b972e6ed8a",
    "pair-disjoint": "cb2f710dd412",
    "seen-pairs": "0ad1d521f03a",
    "known-relations": "813fc58a6671",
}


@pytest.mark.parametrize("name", KNOWN)
def test_the_same_seed_draws_the_same_prompts(name: str) -> None:
    draw, *arguments = DRAWS[name]
    assert digest(draw(*arguments)) == KNOWN[name]


def test_every_task_is_pinned() -> None:
    assert set(DRAWS) == set(KNOWN)
