"""The analyses that can be run again at every precision: one row each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interp.models.model import Model
    from interp.results import Result

__all__ = ["ANALYSES", "Analysis", "Cost"]


@dataclass(frozen=True)
class Cost:
    """What an analysis takes, in whole forward passes of one prompt, roughly: a plan of time is made of it.

    Attributes:
        each: for each item, in every model.
        cells: the same for each head or MLP of the model.
        fixed: in every model, however few items.
        first: for each item, in the reference alone.
        start: in the reference alone, however few items.
        fits: seconds of all else for each item and unit of the model's width, in every model.
        own: the same whatever the width.
        own_first: likewise, in the reference alone.
        words: seconds of all else for each word of the vocabulary, in every model.
        cubes: seconds of all else for each block and cubed thousand of the width, in the other model and in
            the first twin.
    """

    each: float = 0.0
    cells: float = 0.0
    fixed: float = 0.0
    first: float = 0.0
    start: float = 0.0
    fits: float = 0.0
    own: float = 0.0
    own_first: float = 0.0
    words: float = 0.0
    cubes: float = 0.0

    def passes(self, n: int, cells: int, models: float) -> float:
        """Whole passes of so many items, heads and MLPs, in so many models."""
        return (n * (self.each + self.cells * cells) + self.fixed) * models + n * self.first + self.start

    def besides(self, n: int, width: int, vocabulary: int, models: float) -> float:
        """Seconds of all else."""
        return (n * (self.fits * width + self.own) + self.words * vocabulary) * models + n * self.own_first


@dataclass(frozen=True)
class Analysis:
    """An analysis ``(model, *, reference=None, n=None, seed=0) -> Result``.

    Attributes:
        name: what users type (``--analyses``).
        description: one line.
        run: ``module:function``, imported when it is used.
        data: what its items are drawn from, in words.
        n: how many items it takes by default; 0 where it takes none.
        least: the fewest items that say anything.
        cost: what it takes.
        quicker: what it takes where less of it is measured, with ``less``; None where it has no such way.
        less: the arguments that measure less.
        words: what is then measured.
        tokenizers: "same" where two models must read the same tokens, "any" where it compares texts.
        beside: it lays the model beside the reference's itself and gives its own verdict: the reference is
            not analysed, and has no noise floor.
        floors: it has findings, whose noise floors are measured.
        twins: it takes ``twin=``, reads each, and the reference in bfloat16 too.
        translated: ``module:function`` of a model, which gives the layers whose translators it needs: they
            are fitted once. "" where it needs none.
        reads: which file of the user's its items can be read from (``data=``), in words; "" for none.
        chat: it needs a model that chats, and is left out where all analyses are asked.
    """

    name: str
    description: str
    run: str
    data: str
    n: int
    least: int = 0
    cost: Cost = Cost()
    quicker: Cost | None = None
    less: Mapping[str, Any] = field(default_factory=dict)
    words: str = ""
    tokenizers: str = "same"
    beside: bool = False
    floors: bool = True
    twins: bool = False
    translated: str = ""
    reads: str = ""
    chat: bool = False

    @property
    def function(self) -> Callable[..., Result]:
        """The function."""
        return _named(self.run)

    def translators(self, model: Model) -> tuple[int, ...]:
        """The layers whose translators it needs."""
        return tuple(_named(self.translated)(model)) if self.translated else ()

    def bound(
        self,
        *,
        n: int | None = None,
        seed: int = 0,
        less: bool = False,
        twins: Sequence[Any] = (),
        data: str | Path | None = None,
    ) -> Callable[..., Result]:
        """The analysis as ``(model, *, reference=None) -> Result``.

        Args:
            n: how many items; its own number where left out.
            seed: of draws.
            less: measure less of each, where there is a way.
            twins: further models made of the reference, for what lays models beside each other; others have
                no use for them.
            data: a file to read the items from, where it ``reads`` one.
        """
        given: dict[str, Any] = {"n": self.n if n is None else n, "seed": seed}
        given |= {**(self.less if less else {}), **({"twin": tuple(twins)} if self.twins and twins else {})}
        given |= {} if data is None else {"data": data}
        return partial(self.function, **given)


def _named(path: str) -> Callable[..., Any]:
    module, _, name = path.partition(":")
    found: Any = getattr(import_module(module), name)
    return found


_ROWS = (
    Analysis(
        "recall",
        "one-hop facts by relation, and the neurons and layers that raise the answer's log-probability",
        "interp.analyses.knowledge:recall",
        "the bundled facts",
        400,
        least=100,
        cost=Cost(each=3.5, fixed=320.0, own=0.005),
        reads="facts: a table of subject, relation, answer, template, or LRE relations",
    ),
    Analysis(
        "two-hop",
        "is the entity in the middle recalled, is it used, and are both questions answered?",
        "interp.analyses.multi_hop:two_hop",
        "chains of the bundled facts",
        100,
        least=40,
        cost=Cost(each=11.0, own=0.01),
        reads="chains: a table of both, mention, first, second, bridge, answer, or TwoHopFact's",
    ),
    Analysis(
        "probe",
        "linear and hyperdimensional probes fitted anew, and carried over in both directions",
        "interp.analyses.transfer:probe_transfer",
        "prompts of the task analogy-relation",
        1200,
        least=300,
        cost=Cost(each=0.6, first=0.9, fits=1.2e-5, own=1.8e-3, own_first=0.017),
    ),
    Analysis(
        "patch",
        "effects of heads and MLPs, their ranking, and the full model's circuit inside the other model",
        "interp.analyses.patching:patch_agreement",
        "pairs of the first task whose answers the model gives",
        32,
        least=8,
        cost=Cost(each=20.0, cells=0.57, fixed=20.0, first=170.0, start=300.0),
        quicker=Cost(each=54.0, fixed=20.0, first=48.0, start=300.0),
        less={"largest": 16},
        words="only the reference's 16 largest effects by attribution and 24 drawn at random are exact",
    ),
    Analysis(
        "geometry",
        "cosine, linear CKA, shared neighbours and effective rank of the residual stream, layer by layer",
        "interp.analyses.representation_similarity:geometry",
        "prompts of every bundled task",
        200,
        least=60,
        cost=Cost(each=2.9),
    ),
    Analysis(
        "behaviour",
        "next-token distributions: divergence, agreement, surprise, and answers that flip",
        "interp.analyses.outputs:behaviour",
        "prompts of every bundled task",
        200,
        least=60,
        cost=Cost(each=1.0, words=1.2e-4),
    ),
    Analysis(
        "sensitivity",
        "do small edits that change the right answer change the model's, and are those it ignores noticed?",
        "interp.analyses.small_edits:sensitivity",
        "prompts of four bundled tasks, each with edits of both kinds",
        120,
        least=40,
        cost=Cost(each=6.2, own=0.011),
    ),
    Analysis(
        "trajectory",
        "how fast a text's states fill their space: effective rank by token, its velocity and acceleration",
        "interp.analyses.token_trajectories:trajectory",
        "sentences of every bundled task, 48 tokens of each text",
        32,
        least=12,
        cost=Cost(each=4.0, first=4.0, start=60.0, fits=5e-5, own=0.03, own_first=0.05),
    ),
    Analysis(
        "interpretability",
        "accuracy kept with only the strongest concepts kept, less that of random libraries of equal size",
        "interp.analyses.concept_scores:interpretability",
        "prompts of the task analogy-relation",
        800,
        least=200,
        cost=Cost(each=0.8, first=0.8, start=40.0, fits=1.5e-5, own=2.5e-3, own_first=8e-3),
    ),
    Analysis(
        "counterfactuals",
        "can a chat model edit a sentence so that its own answer changes? validity, minimality, fluency",
        "interp.analyses.own_explanations:counterfactuals",
        "forty bundled sentences with an opinion",
        40,
        least=20,
        cost=Cost(each=60.0),
        reads="sentences: a table of text, label, cue",
        chat=True,
    ),
    Analysis(
        "explanations",
        "does what a chat model names as its reason carry its answer, more than as many other words?",
        "interp.analyses.own_explanations:explanations",
        "forty bundled sentences with an opinion",
        40,
        least=20,
        cost=Cost(each=40.0),
        reads="sentences: a table of text, label, cue",
        chat=True,
    ),
    Analysis(
        "compression",
        "bits per byte of a text, beside the bytes of the weights and the operations of decoding",
        "interp.analyses.text_compression:compression",
        "sentences of every bundled task",
        48,
        least=12,
        cost=Cost(each=6.0, own=0.008),
        tokenizers="any",
    ),
    Analysis(
        "difference",
        "what a training changed in weights, states and outputs, beside a twin trained on shuffled data",
        "interp.analyses.training_changes:difference",
        "the bundled facts, and text that the reference draws",
        300,
        least=100,
        cost=Cost(each=1.0, fixed=130.0, start=150.0, words=4e-5, cubes=1.6),
        beside=True,
        twins=True,
        translated="interp.analyses.training_changes.reading:decoded",
    ),
    Analysis(
        "wrapper",
        "is what the model lacks of the reference's answers still there behind a wrapper, or deleted?",
        "interp.analyses.fine_tuning_wrapper:wrapper",
        "the bundled facts that the reference answers and the model does not",
        100,
        least=40,
        cost=Cost(each=165.0, start=24_000.0),
        quicker=Cost(each=100.0, start=9_000.0),
        less={"seeds": 2, "steps": 24},
        words="2 divisions of the facts into seen and unseen ones, and 24 steps of each training",
        beside=True,
        translated="interp.analyses.fine_tuning_wrapper.hidden:needed",
    ),
    Analysis(
        "cost",
        "bytes of weights, peak memory, and time of prefill and decoding, against full precision in one run",
        "interp.analyses.costs:cost",
        "random tokens",
        0,
        cost=Cost(fixed=1400.0),
        quicker=Cost(fixed=620.0),
        less={"n": 5, "prompts": 4, "width": 32},
        words="times are those of 5 rounds of 4 prompts of 32 tokens",
        floors=False,
        tokenizers="any",
    ),
)

ANALYSES: dict[str, Analysis] = {row.name: row for row in _ROWS}
