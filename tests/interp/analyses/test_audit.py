"""The belief test for readers: planted readers get their verdict, and arms are what they say."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from interp import audit
from interp.analyses.audit.arms import carries, partners_of
from interp.analyses.audit.cases import Case, edited_cases, hits, luck
from interp.analyses.audit.evidence import evidence
from interp.analyses.audit.rule import ARMS, judge
from interp.analyses.audit.twins import bundled_twin
from interp.analyses.concepts.trial import concept_tokens
from interp.analyses.controls import beyond_guessing
from interp.analyses.readers.reader import Reader, as_reader
from interp.errors import ConfigError, DataError
from interp.models.model import Model
from interp.tasks import load_world
from interp.tasks.protocols import PROTOCOLS
from interp.tasks.world import World
from tests.noisy import demo, noisy
from tests.planted_readers import PLANTED, audit_of, planted

LAYER = 23


@pytest.fixture(scope="module")
def model() -> Model:
    return demo()


@pytest.fixture(scope="module")
def twin(model: Model) -> tuple[Model, World]:
    given = bundled_twin(model)
    assert given is not None
    return given


def counted(name: str, seeds: range, facts: int = 12) -> Counter[str]:
    return Counter(audit_of(name, planted(seed, facts), seed=seed).verdict for seed in seeds)


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_reader_gets_its_verdict(name: str) -> None:
    assert counted(name, range(4)) == {PLANTED[name][1]: 4}


@pytest.mark.slow
@pytest.mark.parametrize("name", PLANTED)
def test_at_most_five_verdicts_in_a_hundred_are_false(name: str) -> None:
    found = counted(name, range(100))
    print(name, dict(found))
    assert found[PLANTED[name][1]] >= 95


@pytest.mark.parametrize("name", ["noise", "silent", "commonest", "half", "shy"])
def test_with_few_facts_the_verdict_is_open(name: str) -> None:
    assert counted(name, range(3), facts=2) == {"inconclusive": 3}


def test_without_carried_edits_the_truth_is_nobodys_unless_no_state_is_needed() -> None:
    made = planted(3)
    none = np.zeros(len(made.arms.cases), dtype=bool)
    made = replace(made, arms=replace(made.arms, carried=none))
    found = audit_of("unembedding", made)
    assert found.verdict == "inconclusive" and "too few of the twin's states carry" in found.reason
    assert audit_of("lookup", made).verdict == "the world"
    assert audit_of("echo", made).verdict == "the prompt"
    assert audit_of("noise", made).verdict == "nothing"
    both = audit_of("answer or echo", made)
    assert both.verdict == "inconclusive" and "may be the model's or the world's" in both.reason


def test_luck_is_the_score_against_the_other_facts_of_the_relation() -> None:
    names, targets = ["a", "b", "a", ""], [("a",), ("a",), ("b", "a"), ("c",)]
    facts, relations = ["f", "f", "g", "h"], ["r", "r", "r", "s"]
    found = luck(names, targets, facts, relations)
    assert hits(names, targets).tolist() == [1, 0, 1, 0]
    assert found.reading[:3].tolist() == [1, 1, 1] and np.isnan(found.reading[3])
    assert found.target[:3].tolist() == [1, 1, 1]
    assert [table.tolist() for table in found.tables] == [[[1, 2], [1, 1]], [[0]]]


def test_the_exchange_test_agrees_with_the_one_of_probes() -> None:
    rng = np.random.default_rng(5)
    facts = [f"f{at // 2}" for at in range(80)]
    answers = {fact: str(rng.integers(0, 6)) for fact in facts}
    labels = [answers[fact] for fact in facts]
    read = [label if rng.random() < 0.3 else str(rng.integers(0, 6)) for label in labels]
    one = evidence("edited", "x", read, [(label,) for label in labels], facts, ["r"] * 80)
    other = beyond_guessing(labels, read, facts)
    assert one is not None and one.excess.interval.low > 0
    assert one.p_value == pytest.approx(other.p_value, abs=0.01)
    assert one.share.value - one.excess.value == pytest.approx(other.expected, abs=0.02)


def test_a_reader_that_always_says_the_same_has_no_excess_at_all() -> None:
    found = audit_of("commonest", planted(1))
    for one in found.evidence:
        assert one.excess.value == pytest.approx(0, abs=0.1)
    trained = found.of("trained", "the truth")
    assert trained is not None and trained.excess.value == pytest.approx(0, abs=1e-12) and trained.luck > 0.1


def test_a_callable_is_given_what_its_parameters_are_called() -> None:
    states = torch.eye(3)
    assert as_reader(lambda prompts: [[text] for text in prompts]).first(states, list("abc"), 4) == list(
        "abc"
    )
    assert (
        as_reader(lambda layer, states: [[str(layer)]] * len(states)).first(states, list("abc"), 4)
        == ["4"] * 3
    )
    assert as_reader(lambda states: [[], [" x "], []]).first(states, list("abc"), 4) == ["", "x", ""]
    with pytest.raises(ConfigError, match="wants 'inputs'; a reader is given states, prompts, layer"):
        as_reader(lambda inputs: inputs, "mine")
    with pytest.raises(DataError, match="'short' gave 1 readings for 3 states; it must give one list"):
        Reader("short", lambda states: [["a"]]).first(states, list("abc"), 0)
    with pytest.raises(DataError, match="gave texts for 3 states"):
        Reader("flat", lambda states: ["a", "b", "c"]).first(states, list("abc"), 0)


def test_what_is_no_list_of_names_is_refused_and_not_read_as_nothing() -> None:
    states = torch.eye(2)
    for given, said in (
        ([[("yen", 0.4)], []], "a tuple \\(\\('yen', 0.4\\)\\) in place of a name"),
        ([["yen"], None], "a NoneType"),
        ([["yen"], {"won"}], "a set"),
        (None, "a NoneType"),
        ((one for one in (["yen"], ["won"])), "a generator"),
    ):
        with pytest.raises(DataError, match=f"'odd' gave {said} for 2 states"):
            Reader("odd", lambda states, given=given: given, ("states",)).first(states, list("ab"), 0)


def test_a_reader_cannot_change_the_states_of_those_after_it() -> None:
    states = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    before = states.clone()
    inplace = Reader("inplace", lambda states: [[str(one)] for one in states.mul_(0).sum(1)])
    inplace.first(states, list("abc"), 0)
    assert torch.equal(states, before)


def test_partners_are_other_facts_of_the_relation_with_another_answer() -> None:
    cases = [Case(f"{f}", "r" if f < 3 else "s", f"f{f}", "ab"[f % 2], "c", ()) for f in range(4)]
    assert partners_of(cases)[0] == 1 and partners_of(cases)[1] in (0, 2) and partners_of(cases)[3] == -1


def test_only_the_last_states_of_the_twin_carry_its_edit(model: Model, twin: tuple[Model, World]) -> None:
    """Put into the unedited model after the last block, the twin's state is the twin's own answer."""
    cases = edited_cases(PROTOCOLS["concept-disjoint"].items(), load_world(), twin[1])[::12]
    found = twin[0].capture([case.text for case in cases], ["resid_post.2", "resid_post.23"], device="cpu")
    logits = twin[0].logits([case.text for case in cases]).cpu()
    belief, truth = (
        torch.tensor([ids[0] for ids in concept_tokens(model, names)])
        for names in ([case.belief for case in cases], [case.truth for case in cases])
    )
    rows = torch.arange(len(cases))
    own = (logits[rows, belief] > logits[rows, truth]).tolist()
    assert carries(model, found["resid_post.23"], cases, 23).tolist() == own and np.mean(own) > 0.9
    assert carries(model, found["resid_post.2"], cases, 2).mean() < 0.1


def test_on_the_bundled_model_the_lens_reads_the_model_and_a_table_the_world(
    model: Model, twin: tuple[Model, World]
) -> None:
    world = load_world()
    cases = edited_cases(PROTOCOLS["concept-disjoint"].items(), load_world(), twin[1])
    subjects = {case.text: case.fact for case in cases}
    truths = {fact.key: fact.object for fact in world.all_facts}

    def table(prompts: list[str]) -> list[list[str]]:
        return [[truths[subjects[text]]] for text in prompts]

    def first_word(prompts: list[str]) -> list[list[str]]:
        return [[text.split(" ")[0]] for text in prompts]

    found = audit.reader(["logit", table, first_word], model, layers=LAYER, limit=240, edited=twin)
    assert {one.reader: one.verdict for one in found.audits} == {
        "logit": "the model",
        "table": "the world",
        "first_word": "the prompt",
    }
    lens, looked = found.of("logit"), found.of("table")
    assert lens.carried > 0.9 and lens.over_lens is None
    assert looked.over_lens is not None and looked.over_lens.interval.high < 0
    assert (found.number("logit-belief").value or 0) > 0.9 and found.number("table-truth").value == 1.0
    assert (
        "logit reads the model at layer 23" in found.verdict() and "without any state too" in found.verdict()
    )


def test_what_cannot_be_audited_is_said(model: Model, twin: tuple[Model, World]) -> None:
    other = noisy(model, 0.02)
    with pytest.raises(ConfigError, match="has no edited twin"):
        audit.reader("logit", other, layers=LAYER)
    with pytest.raises(ConfigError, match="the twin has the very weights of the model"):
        audit.reader("logit", model, edited=(model, load_world()), layers=LAYER)
    with pytest.raises(ConfigError, match="reader 'nonsense' asked; there are: logit"):
        audit.reader("nonsense", model, layers=LAYER, edited=twin)
    wrong = Case("Denmark : krone = Japan :", "currency", "Japan", "dog", "cat", ())
    with pytest.raises(DataError, match=r"answers 0 with the truth .* none of them both"):
        audit.reader("logit", model, layers=LAYER, cases=[wrong] * 3, edited=twin)


def test_no_two_facts_of_a_relation_is_no_verdict() -> None:
    cases = [Case("a", "r", "a", "x", "y", ())]
    read = {arm: ["y"] for arm in ARMS}
    assert judge("mine", 0, cases, read, [-1]).verdict == "inconclusive"
