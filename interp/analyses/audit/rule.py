"""The decision rule of the belief test: from what was read in each arm to one verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool

from interp.analyses.audit.cases import Case
from interp.analyses.audit.evidence import Evidence, difference, evidence
from probes.statistics import Estimate

__all__ = [
    "ARMS",
    "BELIEF",
    "LEAST",
    "MARGIN",
    "MIXED",
    "OTHER",
    "STANDING",
    "TRUTH",
    "VERDICTS",
    "Audit",
    "Verdict",
    "judge",
]

Verdict = Literal["the model", "the prompt", "the world", "a mixture", "nothing", "inconclusive"]
VERDICTS: dict[Verdict, str] = {
    "the model": "where the edited model believes something else, that is read, and it follows the state",
    "the prompt": "a name that stands in the prompt is read, or what goes with the prompt whatever the state",
    "the world": "what is true is read, even where the model believes something else",
    "a mixture": "two of these are read, the lesser at least a quarter as often as the greater",
    "nothing": "names are read no more often than by luck",
    "inconclusive": "the cases are too few to tell, or do not tell these apart",
}
"""The verdicts, and what each says."""

ARMS: dict[str, str] = {
    "trained": "states of the model",
    "edited": "states of the edited twin, which was taught something false",
    "untrained": "states of the same architecture with random weights",
    "another": "the state of another prompt of the relation, with this prompt",
    "no state": "one constant state, with this prompt",
}
"""The arms: whose states a reader is given."""
MARGIN = 0.1
"""A share beyond luck that is surely less counts as nothing."""
MIXED = 0.25
"""A second source that is read this often, in parts of the first, makes a mixture."""
LEAST = 10
"""So many facts must be there whose edit the state carries."""
BELIEF, TRUTH, STANDING, OTHER = "its belief", "the truth", "a name in the prompt", "that prompt's answer"


@dataclass(frozen=True, eq=False)
class Audit:
    """What one reader reads at one layer, and why we say so.

    Attributes:
        reader: its name.
        layer: the block whose ``resid_post`` it read.
        verdict: a key of ``VERDICTS``.
        reason: the numbers behind it, in a sentence.
        evidence: every arm on every target.
        carried: the share of the cases in which the twin's state, put into the unedited model, makes it say
            the belief: only these can tell the model from the world.
        abstained: the share of the twin's states of which the reader says nothing.
        over_lens: how much more often than the logit lens it reads what the model and the twin would say,
            with its 95% interval over facts; None for the lens itself.
    """

    reader: str
    layer: int
    verdict: Verdict
    reason: str
    evidence: tuple[Evidence, ...]
    carried: float
    abstained: float
    over_lens: Estimate | None = None

    def of(self, arm: str, target: str) -> Evidence | None:
        """One arm on one target; None where it was not measured."""
        found = [one for one in self.evidence if (one.arm, one.target) == (arm, target)]
        return found[0] if found else None


def judge(
    reader: str,
    layer: int,
    cases: Sequence[Case],
    read: Mapping[str, Sequence[str]],
    partners: Sequence[int],
    carried: Bool[np.ndarray, " item"] | None = None,
    *,
    seed: int = 0,
) -> Audit:
    """Decide what a reader reads.

    A target is *read* where the reader names it more often than the same target of other facts of the
    relation (permuted names): the 99% interval of the difference, over facts, lies above zero, and the
    exchange test has p <= 0.01. It is *not read* where that interval ends below 0.1. Only cases count that
    the model answers rightly and the twin falsely, and of the twin only those whose state carries the edit:
    put into the unedited model at this layer, it makes that model prefer the belief.

    1. Sources. From the twin's states: its belief (the model), the truth (the world), a name that stands in
       the prompt (the prompt). With fewer than 10 facts whose state carries the edit, belief is not judged;
       the truth is then judged without a state, and the prompt's names on the trained model; where that
       leads but the truth is read from the trained model at least a quarter as often: *inconclusive*.
    2. None is read: *nothing*, if all are not read and neither is the truth from the trained model's states;
       else *inconclusive*.
    3. The source with the largest excess leads. A second one that is read at least a quarter as often as the
       leader (in excess over luck) makes *a mixture*. Else the leader must be read more often than each other
       source (99% interval of the paired difference above zero); if not: *inconclusive*.
    4. *The world* and *the prompt* are the verdict where they lead.
    5. The belief leads: given the state of another prompt of the relation, the reader must follow the state
       (that prompt's answer is read more often than this prompt's; 99%); if it follows the prompt instead:
       *the prompt*. And it must read the trained model's answers more often from its states than from those
       of random weights (99%). Then *the model*; else *inconclusive*.

    Args:
        reader: its name.
        layer: what was read.
        cases: the prompts.
        read: the likeliest name of each case, "" where the reader abstained, for every arm of ``ARMS``.
        partners: for each case the row of the prompt whose state it gets in the arm ``another``; -1 for none.
        carried: whether the twin's state carries the edit; None for all.
        seed: of the exchange tests.
    """
    known = np.ones(len(cases), dtype=bool) if carried is None else np.asarray(carried, dtype=bool)
    found = _evidence(cases, read, partners, known, seed)
    silent = float(np.mean([not name for name in read["edited"]])) if cases else 0.0
    audit = Audit(reader, layer, "inconclusive", "", tuple(found.values()), float(known.mean()), silent)
    verdict, reason = _decided(found, [case.fact for case in cases], known, partners)
    return replace(audit, verdict=verdict, reason=reason)


Found = dict[tuple[str, str], Evidence]


def _evidence(
    cases: Sequence[Case],
    read: Mapping[str, Sequence[str]],
    partners: Sequence[int],
    known: Bool[np.ndarray, " item"],
    seed: int,
) -> Found:
    truths = [(case.truth,) for case in cases]
    targets = {
        TRUTH: truths,
        BELIEF: [(case.belief,) for case in cases],
        STANDING: [case.standing for case in cases],
        OTHER: [truths[at] if at >= 0 else () for at in partners],
    }
    everywhere, swapped = list(range(len(cases))), [row for row, at in enumerate(partners) if at >= 0]
    carrying: list[int] = np.flatnonzero(known).tolist()
    plan = (
        *(("edited", target, carrying) for target in (BELIEF, TRUTH, STANDING)),
        *(("trained", target, everywhere) for target in (TRUTH, STANDING)),
        ("untrained", TRUTH, everywhere),
        *(("another", target, swapped) for target in (OTHER, TRUTH)),
        ("no state", TRUTH, everywhere),
    )
    found: Found = {}
    for arm, target, rows in plan:
        given = [[column[row] for row in rows] for column in (read[arm], targets[target])]
        facts, relations = [cases[row].fact for row in rows], [cases[row].relation for row in rows]
        one = evidence(arm, target, given[0], given[1], facts, relations, seed=seed) if len(rows) else None
        if one is not None:
            found[arm, target] = one
    return found


def _decided(
    found: Found, facts: Sequence[str], known: Bool[np.ndarray, " item"], partners: Sequence[int]
) -> tuple[Verdict, str]:
    sources, told = _sources(found)
    if not sources:
        return "inconclusive", "there are no two facts of one relation to tell apart"
    read = {name: one for name, one in sources.items() if one.present}
    if not read:
        return _nothing(found, sources, told)
    order = sorted(read, key=lambda name: -read[name].excess.value)
    leader, best = order[0], read[order[0]]
    for name in order[1:]:
        if read[name].excess.value >= MIXED * best.excess.value:
            return "a mixture", f"{_said(best)}, and {_said(read[name])}"
    carrying = [fact for fact, here in zip(facts, known, strict=True) if here]
    for name, one in sources.items():
        if name == leader or len(one.hit) != len(best.hit):
            continue
        over = difference(best.hit, one.hit, carrying if best.arm == "edited" else facts)
        if over.interval.low <= 0:
            return "inconclusive", f"{_said(best)}, but not surely more often than {one.target}"
    trained = found.get(("trained", TRUTH))
    also = trained is not None and trained.present and trained.excess.value >= MIXED * best.excess.value
    if trained is not None and also and not told and leader == "prompt":
        return "inconclusive", f"{_said(best)}, and {_said(trained)}, which may be the model's or the world's"
    if leader != "model":
        return (
            ("the world", f"{_said(best)}{_route(found)}")
            if leader == "world"
            else ("the prompt", _said(best))
        )
    return _follows(found, best, facts, partners)


def _sources(found: Found) -> tuple[dict[str, Evidence], bool]:
    """What could be read, and whether the twin can tell belief from truth."""
    twin = found.get(("edited", BELIEF))
    told = twin is not None and twin.n_facts >= LEAST
    places = {"model": ("edited", BELIEF), "world": ("edited", TRUTH), "prompt": ("edited", STANDING)}
    if not told:
        places = {"world": ("no state", TRUTH), "prompt": ("trained", STANDING)}
    return {name: found[place] for name, place in places.items() if place in found}, told


def _nothing(found: Found, sources: Mapping[str, Evidence], told: bool) -> tuple[Verdict, str]:
    trained = found.get(("trained", TRUTH))
    every = [*sources.values(), *([] if trained is None else [trained])]
    most = max(every, key=lambda one: one.excess.interval.high)
    if all(one.absent(MARGIN) for one in every) and not (trained is not None and trained.present):
        return "nothing", f"nothing beyond luck: at most {most.excess.interval.high:.2f} ({most.target})"
    if trained is not None and trained.present:
        why = "the twin's states do not say whose" if told else "too few of the twin's states carry its edit"
        return "inconclusive", f"{_said(trained)}, but {why}"
    few = min(one.n_facts for one in every)
    return "inconclusive", f"{few} facts exclude nothing: up to {most.excess.interval.high:.2f} beyond luck"


def _follows(
    found: Found, best: Evidence, facts: Sequence[str], partners: Sequence[int]
) -> tuple[Verdict, str]:
    """Whether a reading of beliefs follows the state, and needs a trained one."""
    state, prompt = found.get(("another", OTHER)), found.get(("another", TRUTH))
    trained, untrained = found.get(("trained", TRUTH)), found.get(("untrained", TRUTH))
    if state is None or prompt is None or trained is None or untrained is None:
        return "inconclusive", f"{_said(best)}, but no other prompt of a relation tells state from prompt"
    groups = [fact for fact, at in zip(facts, partners, strict=True) if at >= 0]
    over = difference(state.hit, prompt.hit, groups)
    if over.interval.high < 0:
        return "the prompt", f"{_said(best)}, but with another prompt's state it follows the prompt"
    gained = difference(trained.hit, untrained.hit, facts)
    if over.interval.low <= 0:
        return "inconclusive", f"{_said(best)}, but it does not surely follow the state of another prompt"
    if gained.interval.low <= 0:
        return "inconclusive", f"{_said(best)}, but from random weights it reads about as much"
    return "the model", f"{_said(best)}; it follows another prompt's state"


def _said(one: Evidence) -> str:
    """What was read, in a clause."""
    whose = {"edited": "from the twin's states", "no state": "without a state"}.get(
        one.arm, f"from {ARMS[one.arm]}"
    )
    return f"{one.target} is read {whose} ({one.share.value:.2f} against {one.luck:.2f} by luck)"


def _route(found: Found) -> str:
    """Whether a reading of the world needs the state."""
    bare = found.get(("no state", TRUTH))
    return ", without any state too" if bare is not None and bare.present else ", through the state"
