"""The table of protocols: what each asks, what a probe could know without the model, what binds it."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Literal

from interp.tasks.protocols.items import ProtocolItems
from interp.tasks.world import World, load_world

__all__ = ["PROTOCOLS", "Protocol"]


@dataclass(frozen=True)
class Protocol:
    """Describe a way of asking what a probe reads.

    Attributes:
        name: what users type (``--protocol``).
        module: where its prompts are made.
        question: what it tests, in one sentence.
        knower: what a probe could score without the model.
        codebook: ``embeddings`` (of the model's unembedding) or ``random``.
        controls: which controls bind it, keys of ``interp.analyses.concepts.CONTROLS``.
        holdout: what the validation part holds out: ``concepts`` or ``groups``.
        upper_bound: whether a good score can be had by storing the facts.
        leaks: kinds of leak that belong to the question (``probes.evaluation.LEAKS``).
    """

    name: str
    module: str
    question: str
    knower: str
    codebook: Literal["embeddings", "random"]
    controls: tuple[str, ...]
    holdout: Literal["concepts", "groups"] = "groups"
    upper_bound: bool = False
    leaks: tuple[str, ...] = ()

    def items(
        self, *, seed: int = 0, world: World | None = None, sizes: tuple[int, int, int] | None = None
    ) -> ProtocolItems:
        """Draw the prompts.

        Args:
            seed: of the shares and of the draw.
            world: the facts; the bundled ones where left out.
            sizes: prompts for training, validation and test, at most; the protocol's own where left out.
        """
        draw = importlib.import_module(self.module).items
        facts = load_world() if world is None else world
        return draw(facts, seed=seed) if sizes is None else draw(facts, seed=seed, sizes=sizes)


_COMMON = ("constant", "bag-of-tokens", "ordered-slots", "shuffled", "random-weights")
_NEW_CONCEPTS = (*_COMMON, "permuted-codebook")  # exchanged codes only rename concepts that were trained
_ROWS = (
    Protocol(
        "concept-disjoint",
        "interp.tasks.protocols.concept_disjoint",
        "can concepts be read that the probe was never trained on?",
        "nothing: the answers of the test are in no training prompt",
        "embeddings",
        _NEW_CONCEPTS,
        holdout="concepts",
    ),
    Protocol(
        "bridge",
        "interp.tasks.protocols.bridge",
        "can the middle of two hops be read, which is neither in the prompt nor in the output?",
        "nothing: the bridges of the test are in no training prompt",
        "embeddings",
        (*_NEW_CONCEPTS, "shuffled-in-relation"),
        holdout="concepts",
    ),
    Protocol(
        "in-context",
        "interp.tasks.protocols.in_context",
        "can a binding be read that holds in one prompt only?",
        "which values stand in the prompt: one over their number",
        "random",
        _COMMON,
        leaks=("answer",),
    ),
    Protocol(
        "pair-disjoint",
        "interp.tasks.protocols.pair_disjoint",
        "can facts be read that the probe was never trained on, where it knows the answers?",
        "the commonest answer of the relation",
        "embeddings",
        (*_COMMON, "control-task"),
    ),
    Protocol(
        "seen-pairs",
        "interp.tasks.protocols.seen_pairs",
        "what does the published protocol score, where every fact of the test was trained?",
        "everything: the facts of the test are stored in the training part",
        "embeddings",
        (*_COMMON, "control-task"),
        upper_bound=True,
        leaks=("group",),
    ),
)

PROTOCOLS: dict[str, Protocol] = {row.name: row for row in _ROWS}
