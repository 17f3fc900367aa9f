"""How often each analysis of training and its neighbours claims something where there is nothing to find.

    python -m pytest tests/simulations/test_null_replications.py -m slow -s

One row for each claim: a null, drawn at least 50 times, on which the analysis' own rule is asked. Where a
replication is a whole training of a large model, the null is drawn from the same statistics that the rule
uses, and the row says so. The bar is 5%; the interval that is printed is Clopper and Pearson's.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from itertools import repeat
from typing import Any

import numpy as np
import pytest

from interp.analyses import compression, wrapper
from interp.analyses.concept_scores import conclusion as concepts_shown
from interp.analyses.concept_scores import score
from interp.analyses.fine_tuning_wrapper import rule
from interp.analyses.fine_tuning_wrapper.hidden import Hidden, Layer, _readings
from interp.analyses.fine_tuning_wrapper.pruning import Units, prune, units_of
from interp.analyses.fine_tuning_wrapper.revival import Curve, re_drawn, relearn
from interp.analyses.latent.asking import matched_p
from interp.analyses.latent.reading import Reading
from interp.analyses.multi_hop.losses import loss_table
from interp.analyses.own_explanations import Sentence, counterfactuals, explanations
from interp.analyses.own_explanations.counterfactuals import random_edits
from interp.analyses.own_explanations.sentences import Asked
from interp.analyses.token_trajectories import _followed, courses
from interp.analyses.token_trajectories import conclusion as course_shown
from interp.analyses.training_changes.reading import Against, Read
from interp.analyses.training_changes.run import _Divergence, _Seen, beyond
from interp.demo.finetune import exchanged
from interp.models.adapter_training import lessons_of, train
from interp.models.loading import load
from interp.models.model import Model
from interp.models.peft_adapters import low_rank, matrices
from interp.quantization import judge
from interp.quantization.quantizing import quantize
from probes.statistics import clopper_pearson
from tests.interp.analyses import test_concept_scores as planted_concepts
from tests.interp.analyses import test_own_explanations as chats
from tests.interp.analyses import test_small_edits as edits
from tests.interp.analyses import test_wrapper as wrappers
from tests.interp.mediation import test_baselines as bandit
from tests.noisy import demo, noisy
from tests.tiny import WORDS, build, tokenizer

pytestmark = pytest.mark.slow
ALLOWED, FEWEST = 0.05, 50

Claims = Callable[[int], bool]
"""Whether the rule claims something in the replication of this number."""


@dataclass(frozen=True)
class Null:
    """A null of one claim.

    Attributes:
        analysis: whose.
        claim: what it must not say.
        drawn: what has nothing to find, in words.
        n: replications.
        claims: whether it says it in one.
        real: whether a replication is a model that is run, rather than statistics that are drawn.
    """

    analysis: str
    claim: str
    drawn: str
    n: int
    claims: Claims
    real: bool


# difference -------------------------------------------------------------------------------------------------

PROMPTS = [f"{WORDS[at]} {WORDS[(3 * at + 1) % 60]}" for at in range(24)]


@cache
def small() -> Model:
    return load(build("llama"), tokenizer=tokenizer())


@cache
def read() -> Read:
    return Read.of(small(), len(PROMPTS), 0, None, PROMPTS)


@cache
def rounding() -> Against:
    return read().against(quantize(small(), "bf16"), weights=False)


def itself_under_noise(turn: int) -> bool:
    own = read().against(noisy(small(), 1e-3, seed=turn), weights=False)
    seen = _Seen(small(), small(), read(), own, (), rounding(), 0)
    return any(one.reading.startswith("changed") for one in seen.divergences.values())


@cache
def shuffled_twin(seed: int) -> np.ndarray:
    """How far an adapter moved what is said, that was trained on answers exchanged anew."""
    pairs = exchanged([(text, WORDS[(at * 7 + 5) % 60]) for at, text in enumerate(PROMPTS)], seed)
    names = matrices(small().architecture)
    _, hf = low_rank(small().hf, layers=range(small().n_layers), modules=names, rank=4, seed=seed)
    lessons, rng = lessons_of(small(), *map(list, zip(*pairs, strict=True))), random.Random(seed)
    train(hf, (rng.sample(lessons, 8) for _ in repeat(None)), steps=12, rate=1e-2, rates="fixed")
    return read().against(load(hf, tokenizer=small().tokenizer), weights=False).facts


def more_than_twins(turn: int, twins: int = 2) -> bool:
    own, *others = (shuffled_twin(turn * (twins + 1) + at) for at in range(twins + 1))
    said = _Divergence(read().asked.groups, own, others, (rounding().facts,)).reading
    assert said.startswith("changed"), said  # else nothing is judged
    return "not told from training as such" not in said


def far_apart_twins(turn: int) -> bool:
    own, *others = np.exp(1.5 * np.random.default_rng(turn).standard_normal(4)).tolist()
    return "not told from training as such" not in beyond(own, others)


# wrapper ----------------------------------------------------------------------------------------------------


def little_is_lost(turn: int) -> bool:
    data = [(one.prompt, one.answer) for one in wrappers.lacking().kept[:24]]
    found = wrapper(noisy(demo(), 0.05, seed=turn), reference=wrappers.base(), data=data)
    return not found.verdict().startswith("Nothing to explain")


def read_in_noise(turn: int) -> bool:
    """States that hold nothing, beside a base in which 90% is read: two divisions of 16 unseen facts."""
    rng, found = np.random.default_rng(turn), []
    head = rng.standard_normal((60, 24))
    for _ in range(2):
        tokens = rng.integers(0, 30, 56)
        states = rng.standard_normal((56, 32))
        luck = rng.permutation(tokens[:40])
        named = [_readings(states[:40], one, states[40:], head, np.arange(30)) for one in (tokens[:40], luck)]
        (left, unseen), (_, wrong) = named
        right = tuple((unseen == tokens[40:]).astype(float).tolist())
        found.append(
            Hidden(
                (
                    Layer(
                        3,
                        float((left == tokens[:40]).mean()),
                        right,
                        float((wrong == tokens[40:]).mean()),
                    ),
                )
            )
        )
    return rule.hidden([wrappers.hidden(0.9)] * 2, found).says == "yes"


@cache
def units() -> Units:
    return units_of(demo(), wrappers.planted(), wrappers.lacking().lacking)


def units_by_lot(turn: int) -> bool:
    """The planted wrapper, whose one neuron is left where it is: units chosen by lot among all others."""
    slopes = np.random.default_rng(turn).standard_normal(units().slopes.shape)
    slopes[:, units().names.index(wrappers.NEURON)] = -np.inf
    chosen = replace(units(), slopes=slopes)
    rows = prune(wrappers.planted(), wrappers.lacking(), chosen, turn, counts=(1, 8))
    return rule.back([rows]).says == "yes"


CURVES = 12


@cache
def redrawn_curve(at: int) -> Curve:
    """A copy whose middle layers were exchanged anew, taught the plurals again."""
    return relearn(re_drawn(demo(), at), wrappers.lacking(), name="re-drawn", steps=24, seed=at)


def re_drawn_beside_re_drawn(turn: int) -> bool:
    """Two divisions each of two pairs of re-drawn copies, among twelve that were really trained."""
    own = np.random.default_rng(turn).permutation(CURVES)[:4].tolist()
    curves = [redrawn_curve(at) for at in own]
    return rule.quick({"tuned": curves[:2], "re-drawn": curves[2:]}).says == "yes"


# geometry over tokens ---------------------------------------------------------------------------------------

ENDS, TEXTS, LEVELS = (6, 12, 18, 24), 10, tuple(f"g{at}" for at in range(10))


def no_order(turn: int) -> bool:
    rng = np.random.default_rng(turn)

    def drawn() -> Any:
        return courses(rng.standard_normal((TEXTS, 24, 9)) * rng.random(9), ENDS, seed=turn, draws=3)

    own, blank = ({at: drawn() for at in (0, 1)} for _ in range(2))
    return "all three controls at" in course_shown(own, blank, LEVELS)


def untrained_beside_untrained(turn: int) -> bool:
    """Two untrained models that read the same tokens."""
    rng = random.Random(turn)
    ids = [[rng.randrange(4, 64) for _ in range(26)] for _ in range(TEXTS)]
    models = [load(build("llama", seed=2 * turn + at), tokenizer=tokenizer()) for at in (0, 1)]
    own, blank = (_followed(one, ids, [2] * TEXTS, (0, 2), ENDS, turn) for one in models)
    return "all three controls at" in course_shown(own, blank, LEVELS)


# interpretability, sensitivity, compression ----------------------------------------------------------------


def random_library(turn: int) -> bool:
    own, rng = planted_concepts, np.random.default_rng(turn)
    states, labels, basis = own.planted(rng, others=3, noise=0.3)
    blank = score(rng.standard_normal((own.N, own.DIM)), labels, own.PARTS, basis[: own.M])
    found = score(states, labels, own.PARTS, rng.standard_normal((own.M, own.DIM)), seed=turn)
    return "is not shown" not in concepts_shown({0: found}, {0: blank}, own.GROUPS)


def edits_alike_used(turn: int) -> bool:
    return "more often than benign ones (DS" in edits.said(np.random.default_rng(turn), 0.0)


def edits_alike_noticed(turn: int) -> bool:
    return "noticed but not used" in edits.said(np.random.default_rng(turn), 0.0)


SHORT = tuple(
    f"{WORDS[at]} {WORDS[(3 * at) % 60]} {WORDS[(at * at) % 60]} w01 {WORDS[at]}" for at in range(24)
)


@cache
def bits() -> Any:
    return compression(small(), texts=SHORT)


def bits_under_noise(turn: int) -> bool:
    other = compression(noisy(small(), 1e-3, seed=turn), reference=bits(), texts=SHORT)
    found = judge(bits().finding("bits per byte"), other.finding("bits per byte"), seed=turn)
    return found.verdict in ("weakened", "lost")


# chats ------------------------------------------------------------------------------------------------------

NAMEABLE = [word for word in chats.FILLERS if len(word) > 2 and word not in ("the",)]


def sentences(seed: int, n: int = 24) -> list[Sentence]:
    """Sentences with a planted cue among words that can all be named."""
    rng, found = random.Random(seed), []
    for at in range(n):
        words, cue = rng.sample(NAMEABLE, 8), ("good", "bad")[at % 2]
        words.insert(rng.randrange(8), cue)
        found.append(Sentence(" ".join(words), {"good": "w01", "bad": "w02"}[cue], cue))
    return found


def written_by_lot(writer: Callable[[str], str], run: Callable[..., Any], turn: int) -> str:
    """The verdict of an analysis in which a writer stands in the place of generation."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Asked, "odds", chats.bag)
        for name in chats.NAMES:
            place = import_module(f"interp.analyses.own_explanations.{name}")
            patch.setattr(place, "written", lambda _, talks, **__: [writer(chats.text_in(t)) for t in talks])
            patch.setattr(place, "surprise", lambda _, texts: np.zeros(len(texts)), raising=False)
        return str(run(chats.model(), data=sentences(turn), n=24, seed=turn).verdict())


def edits_by_lot(turn: int) -> bool:
    rng, pool = random.Random(turn), sorted({*NAMEABLE, "good", "bad"})
    said = written_by_lot(lambda text: random_edits(text, 3, pool, rng), counterfactuals, turn)
    return "more than random edits" in said or "more than a paraphrase" in said


def reasons_by_lot(turn: int) -> bool:
    rng = random.Random(turn)
    said = written_by_lot(lambda text: " ".join(rng.sample(text.split(), 2)), explanations, turn)
    return "carries the answer more than" in said


# bandit, latent structure, two hops ------------------------------------------------------------------------


def equal_baselines(turn: int) -> bool:
    result, rng = bandit.found(), np.random.default_rng(turn)
    none, whole = (result.runs["mean"][at] for at in (0, -1))
    runs = {}
    for name in result.runs:
        inner = none + (whole - none) * rng.normal(0.6, 0.4, (len(result.sizes) - 2, len(none)))
        runs[name] = np.stack([none, *inner, whole])
    trained = {name: float(rng.random()) for name in result.arms}
    return replace(result, runs=runs, trained=trained).winner is not None


def no_link(turn: int) -> bool:
    table = np.random.default_rng(turn).dirichlet(np.full(23, 0.05), size=23)
    return matched_p(table, seed=turn) <= ALLOWED


def names_by_lot(turn: int) -> bool:
    rng = np.random.default_rng(turn)
    names = tuple(tuple(f"c{at}" for at in rng.integers(0, 30, 23)) for _ in range(24))
    return Reading(tuple(range(24)), tuple(f"c{at}" for at in range(23)), names, (1.0,) * 24).p <= ALLOWED


def unlinked_losses(turn: int) -> bool:
    rng, groups = np.random.default_rng(turn), [f"bridge {at // 3}" for at in range(90)]
    return loss_table(*rng.normal(size=(3, 90)), groups).rows[0][-1] == "yes"


NULLS = (
    Null("difference", "changed", "noise of bfloat16's size", 60, itself_under_noise, True),
    Null("difference", "more than training", "three twins on shuffled data", 60, more_than_twins, True),
    Null("difference", "more than training", "log-normal twins far apart", 400, far_apart_twins, False),
    Null("wrapper", "anything to explain", "the bundled model under noise", 60, little_is_lost, True),
    Null("wrapper", "still there", "states that hold nothing", 200, read_in_noise, False),
    Null("wrapper", "few units bring it back", "units by lot in a wrapper", 60, units_by_lot, True),
    Null("wrapper", "returns quicker", "12 re-drawn copies", 200, re_drawn_beside_re_drawn, False),
    Null("trajectory", "a course of its own", "states in no order", 200, no_order, False),
    Null("trajectory", "a course of its own", "untrained models", 60, untrained_beside_untrained, True),
    Null("interpretability", "concepts carry it", "a random library", 100, random_library, False),
    Null("sensitivity", "edits are used", "both kinds alike", 200, edits_alike_used, False),
    Null("sensitivity", "noticed, not used", "both kinds alike", 200, edits_alike_noticed, False),
    Null("baselines", "a winner", "baselines alike", 100, equal_baselines, False),
    Null("latent", "connected", "tables without a link", 400, no_link, False),
    Null("latent", "read at some layer", "names by lot, 24 layers", 200, names_by_lot, False),
    Null("compression", "weakened or lost", "noise of bfloat16's size", 60, bits_under_noise, True),
    Null("counterfactuals", "flips more than by chance", "edits by lot", 100, edits_by_lot, False),
    Null("explanations", "reasons carry the answer", "reasons by lot", 100, reasons_by_lot, False),
    Null("two-hop", "losses go together", "independent losses", 200, unlinked_losses, False),
)  # fmt: skip


@pytest.mark.parametrize("null", NULLS, ids=lambda one: one.claims.__name__)
def test_chance_is_claimed_in_at_most_five_percent(null: Null) -> None:
    told = sum(null.claims(turn) for turn in range(null.n))
    ends = clopper_pearson(told, null.n)
    print(
        f"\n| {null.analysis} | {null.claim} | {null.drawn} | {'models' if null.real else 'statistics'} "
        f"| {told} of {null.n} | {told / null.n:.3f} [{ends.low:.3f}, {ends.high:.3f}] |"
    )
    assert told / null.n <= ALLOWED


def test_there_are_fifty_of_each() -> None:
    assert all(null.n >= FEWEST for null in NULLS)


def test_the_same_calls_claim_what_is_planted() -> None:
    """Else a rule that never says anything would pass."""
    own, rng = planted_concepts, np.random.default_rng(0)
    states, labels, basis = own.planted(rng, others=3, noise=0.3)
    blank = score(rng.standard_normal((own.N, own.DIM)), labels, own.PARTS, basis[: own.M])
    found = score(states, labels, own.PARTS, basis[: own.M])
    assert "is not shown" not in concepts_shown({0: found}, {0: blank}, own.GROUPS)
    assert "noticed but not used" in edits.said(np.random.default_rng(0), 2.0)
    knows = written_by_lot(
        lambda text: " ".join(chats.SWAPS.get(word, word) for word in text.split()), counterfactuals, 0
    )
    assert "more than random edits" in knows
    names = written_by_lot(lambda text: "good" if "good" in text else "bad", explanations, 0)
    assert "carries the answer more than" in names
    loss = np.random.default_rng(0).normal(size=90)
    linked = loss_table(loss, -loss, loss, [f"bridge {at // 3}" for at in range(90)])
    assert linked.rows[0][-1] == "yes"
    assert matched_p(0.9 * np.eye(23) + 0.1 / 23) < ALLOWED
    assert rule.back([prune(wrappers.planted(), wrappers.lacking(), units(), 0, counts=(1,))]).says == "yes"
    gone = rule.quick({"tuned": [wrappers.curve(4)] * 2, "re-drawn": [wrappers.curve(None)] * 2})
    assert gone.says == "yes"
    far = _Divergence(
        ("a", "b", "c", "d") * 6, shuffled_twin(0) * 9, [shuffled_twin(1)] * 2, (rounding().facts,)
    )
    assert "more than by training as such" in far.reading
