"""Readers layer by layer on the bundled model: one pass, what each reads, and what must read nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from sklearn.linear_model import Ridge

from interp.analyses.concepts.trial import Trial, by_lens, codebook_of, encoder_of
from interp.analyses.readers.arms import ARMS
from interp.analyses.readers.by_layer import _views, compare_readers
from interp.analyses.readers.curves import ReaderCurves
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
def trial(model: Model) -> Trial:
    drawn = PROTOCOLS["concept-disjoint"].items(sizes=SIZES)
    codebook = codebook_of(model, drawn.concepts, "embeddings", dimension=256)
    tokens = model.tokenize([item.text for item in drawn.items]).token_ids
    return Trial(model, drawn, codebook, tokens, encoder_of(codebook), 0)


@pytest.fixture(scope="module")
def found(model: Model) -> ReaderCurves:
    names = [name for name in ARMS if name not in ("hypervector-ridge", "labelled")]
    return compare_readers(model, "concept-disjoint", layers="12,23", readers=names, sizes=SIZES)


def test_one_pass_gives_the_states_of_the_last_token_and_moments_of_all(trial: Trial, model: Model) -> None:
    views = _views(trial, [12, 23])
    texts = [item.text for item in trial.drawn.items]
    states = model.capture(texts, ["resid_post.12", "resid_post.23"], "last", device="cpu")
    for layer, view in views.items():
        assert torch.allclose(view.states, states[f"resid_post.{layer}"].float(), atol=1e-4)
    moments = views[12].moments
    assert moments is not None and views[23].moments is None
    for part, one in zip(("train", "validation"), moments, strict=True):
        assert one.count == sum(len(trial.token_ids[row]) - 1 for row in trial.rows(part))


def test_the_ridge_to_unembedding_rows_is_that_of_another_library(trial: Trial) -> None:
    view = _views(trial, [20])[20]
    place = {name: at for at, name in enumerate(trial.codebook.names)}
    answers = [item.answer for item in trial.drawn.items]
    targets = view.rows[[place[name] for name in answers]].double()
    train, held = trial.rows("train"), trial.rows("validation")
    moments = [Moments(64, 64).add(view.states[rows], targets[rows].float()) for rows in (train, held)]
    penalty = fit_translator(moments[0], moments[1]).penalty
    X = view.states.double().numpy()
    alpha = penalty * X[train].var(axis=0).mean() * len(train)
    read = torch.tensor(Ridge(alpha=alpha).fit(X[train], targets[train]).predict(X[trial.rows("test")]))
    centre = view.rows.mean(dim=0).double()
    known = torch.nn.functional.normalize(view.rows.double() - centre, dim=1)
    names = [trial.codebook.names[at] for at in ((read - centre) @ known.T).argmax(dim=1).tolist()]
    ours = ARMS["embedding-ridge"].read(view)
    assert sum(a == b for a, b in zip(names, ours, strict=True)) >= len(names) - 1


def test_after_the_last_block_translator_and_lens_are_the_model(found: ReaderCurves, trial: Trial) -> None:
    assert found.score("translator", 23).right == found.score("logit-lens", 23).right
    view = _views(trial, [23])[23]
    assert ARMS["translator"].read(view) == by_lens(trial.model, view.tested, trial.codebook.names)
    assert found.score("logit-lens", 23).top1.value > 0.95


def test_the_translator_is_ahead_of_the_lens_and_controls_read_little(
    found: ReaderCurves,
) -> None:
    ahead = found.score("translator", 12).over
    assert ahead is not None and ahead.interval.low > 0.1
    assert found.score("shuffled").top1.value < 0.05
    assert found.score("subject").layer is None and [one.reader for one in found.scores].count("subject") == 1
    said = found.verdict()
    assert "Furthest ahead of the logit lens: translator at layer 12" in said
    assert "Controls read at most" in said


def test_the_table_holds_every_reader_with_its_interval(found: ReaderCurves, tmp_path: Path) -> None:
    rows = found.table("readers").set_index("layer")
    for one in found.scores:
        at = rows.loc[12 if one.layer is None else one.layer]
        assert at[one.reader] == one.top1.value == sum(one.right) / len(one.right)
        assert at[f"{one.reader}_low"] == one.top1.interval.low
    assert found.number("translator").value == found.score("translator").top1.value
    again = load(found.save(tmp_path))
    assert isinstance(again, ReaderCurves) and again.summary() == found.summary()


def test_what_cannot_be_compared_is_refused(model: Model) -> None:
    with pytest.raises(ConfigError, match="readers are compared under: concept-disjoint, bridge"):
        compare_readers(model, "in-context")
    with pytest.raises(ConfigError, match="there are: logit-lens, translator"):
        compare_readers(model, "bridge", readers=["lens"])
