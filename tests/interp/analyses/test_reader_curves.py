"""Readers layer by layer on the bundled model: one pass, what each reads, and what must read nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sklearn.linear_model import Ridge

from interp.analyses.concepts.trial import by_lens
from interp.analyses.readers.by_layer import compare_readers
from interp.analyses.readers.curves import ReaderCurves
from interp.analyses.readers.material import Material
from interp.analyses.readers.table import READERS, encoder_named, make, of_all
from interp.errors import ConfigError
from interp.models.model import Model
from interp.results import load
from interp.tasks.protocols import PROTOCOLS
from probes.translation import Moments, fit_translator
from tests.noisy import demo

SIZES = (260, 60, 80)


@pytest.fixture(scope="module")
def model() -> Model:
    return demo()


@pytest.fixture(scope="module")
def material(model: Model) -> Material:
    return Material(model, PROTOCOLS["concept-disjoint"].items(sizes=SIZES), (12, 20, 23))


@pytest.fixture(scope="module")
def found(model: Model) -> ReaderCurves:
    names = ("logit", "translator-prompts", "ridge", "linear", "shuffled", "subject")
    return compare_readers(model, "concept-disjoint", layers="12,23", readers=names, sizes=SIZES)


def read_by(material: Material, name: str, layer: int) -> list[str]:
    """What a reader names first in the states of the test prompts."""
    rows = material.part("test")
    texts = [material.drawn.items[row].text for row in rows]
    return make(name, material).first(material.seen.states[layer][rows], texts, layer)


def test_one_table_names_every_reader_of_probe_and_audit() -> None:
    assert {"logit", "translator", "jacobian", "patchscope", "probe", "linear", "subject"} <= set(READERS)
    assert set(of_all()) < set(READERS) and "jacobian" not in of_all()
    assert encoder_named("probe") == "auto" and encoder_named("probe-mlp") == "mlp"
    assert encoder_named("logit") is None
    assert {row.kind for row in READERS.values()} == {"free", "labels", "control"}


def test_the_ridge_to_unembedding_rows_is_that_of_another_library(material: Material) -> None:
    concepts, states = material.drawn.concepts, material.seen.states[20]
    place = {name: at for at, name in enumerate(concepts)}
    targets = material.rows[[place[name] for name in material.answers]].double()
    train, held = material.part("train"), material.part("validation")
    moments = [Moments(64, 64).add(states[rows], targets[rows].float()) for rows in (train, held)]
    penalty = fit_translator(moments[0], moments[1]).penalty
    X = states.double().numpy()
    alpha = penalty * X[train].var(axis=0).mean() * len(train)
    read = torch.tensor(Ridge(alpha=alpha).fit(X[train], targets[train]).predict(X[material.part("test")]))
    centre = material.rows.mean(dim=0).double()
    known = torch.nn.functional.normalize(material.rows.double() - centre, dim=1)
    names = [concepts[at] for at in ((read - centre) @ known.T).argmax(dim=1).tolist()]
    ours = read_by(material, "ridge", 20)
    assert sum(a == b for a, b in zip(names, ours, strict=True)) >= len(names) - 1


def test_a_reader_of_the_subject_reads_prompts_that_it_was_not_given(material: Material) -> None:
    """The audit gives it prompts of its own, and whom they ask about."""
    item = material.drawn.part("test")[0]
    other = Material(
        material.model, material.drawn, material.layers, passed=material.seen, subjects={"new": item.subject}
    )
    reader = make("subject", other)
    assert reader.first(material.seen.states[12][:1], ["new"], 12) == reader.first(
        material.seen.states[20][:1], [item.text], 20
    )


def test_after_the_last_block_translator_and_lens_are_the_model(
    found: ReaderCurves, material: Material
) -> None:
    assert found.score("translator-prompts", 23).right == found.score("logit", 23).right
    states = material.seen.states[23][material.part("test")]
    own = by_lens(material.model, states, material.drawn.concepts)
    assert read_by(material, "translator-prompts", 23) == own == read_by(material, "logit", 23)
    assert found.score("logit", 23).top1.value > 0.95


def test_the_layer_that_is_named_is_the_best_on_validation(found: ReaderCurves) -> None:
    for name in found.readers:
        best = found.score(name)
        assert best.validation == max(one.validation for one in found.scores if one.reader == name)
    shown = replace(found, scores=tuple(replace(one, validation=-one.top1.value) for one in found.scores))
    worst = min((one for one in found.scores if one.reader == "ridge"), key=lambda one: one.top1.value)
    assert shown.score("ridge").layer == worst.layer  # whatever the test prompts say


def test_the_translator_is_ahead_of_the_lens_and_controls_read_little(
    found: ReaderCurves,
) -> None:
    ahead = found.score("translator-prompts", 12).over
    assert ahead is not None and ahead.interval.low > 0.1
    assert found.score("shuffled").top1.value < 0.05
    assert found.score("subject").layer is None and [one.reader for one in found.scores].count("subject") == 1
    said = found.verdict()
    assert "Furthest ahead of the logit lens: translator-prompts at layer 12" in said
    assert "Controls read at most" in said


def test_a_control_that_reads_as_much_is_said(found: ReaderCurves) -> None:
    """Planted: the subject alone reads what the best reader does, or all of that but a few prompts."""
    own = [one for one in found.scores if READERS[one.reader].kind != "control"]
    best = max(own, key=lambda one: one.validation)
    for lost, shown in ((0, False), (1, False), (40, True)):
        right = tuple(ok and at >= lost for at, ok in enumerate(best.right))
        top1 = replace(best.top1, value=sum(right) / len(right))
        planted = [
            replace(one, right=right, top1=top1) if one.reader == "subject" else one for one in found.scores
        ]
        said = replace(found, scores=tuple(planted)).verdict()
        assert ("It is not shown to read more than subject, a control" in said) != shown
        assert ("Controls read at most" in said) == shown


def test_the_table_holds_every_reader_with_its_interval(found: ReaderCurves, tmp_path: Path) -> None:
    rows = found.table("readers").set_index("layer")
    for one in found.scores:
        at = rows.loc[12 if one.layer is None else one.layer]
        assert at[one.reader] == one.top1.value == sum(one.right) / len(one.right)
        assert at[f"{one.reader}_low"] == one.top1.interval.low
    assert found.number("ridge").value == found.score("ridge").top1.value
    again = load(found.save(tmp_path))
    assert isinstance(again, ReaderCurves) and again.summary() == found.summary()


def test_what_cannot_be_compared_is_refused(model: Model) -> None:
    with pytest.raises(ConfigError, match="readers are compared under: concept-disjoint, bridge"):
        compare_readers(model, "in-context")
    with pytest.raises(ConfigError, match="there are: logit, translator"):
        compare_readers(model, "bridge", readers=["lens"])
