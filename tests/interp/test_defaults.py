"""Every public function with its default arguments, on a random model of three layers.

What a default names (a layer, a task, a number of prompts) must suit models other than the bundled one: a
call ends with a value, or with an error of this project that says what to do.
"""

from __future__ import annotations

import importlib
import inspect
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import interp
import probes
from interp import features, mediation, quantization, steering, tasks
from interp.analyses import looking
from interp.errors import InterpError
from interp.store import ActivationStore
from probes import controls, evaluation, hyperdimensional, statistics, sweeps
from probes.vsa import MAP, Codebook, structures
from tests.dictionaries import random_dictionary
from tests.noisy import demo
from tests.tiny import build

PACKAGES = (
    "interp",
    "interp.tasks",
    "interp.mediation",
    "interp.quantization",
    "interp.steering",
    "interp.features",
    "interp.analyses",
    "interp.analyses.looking",
    "probes",
    "probes.controls",
    "probes.evaluation",
    "probes.hyperdimensional",
    "probes.statistics",
    "probes.sweeps",
)


@cache
def given() -> SimpleNamespace:
    """What the calls are given: the model, data drawn with defaults, and arrays captured from the model."""
    tokenizer = demo().tokenizer
    model = interp.load(build("llama", vocab_size=len(tokenizer)), tokenizer=tokenizer)
    data = tasks.labelled("subject-number", n=90)
    pairs = tasks.sample(model, "ioi", 8, only_correct=False)
    states = model.capture(data.texts, ["resid_post.*"], "last")
    X, y, groups = states["resid_post.1"], list(data.labels), list(data.groups)
    split = evaluation.group_split(groups, stratify=y)
    book = Codebook.random(MAP(256), sorted(set(y)), seed=0)
    fitted = hyperdimensional.HyperdimensionalProbe(book).fit(X, y)
    right = np.arange(len(y)) % 3 > 0
    return SimpleNamespace(**locals())


@cache
def effects() -> mediation.Effects:
    return mediation.exhaustive(given().model, given().pairs, "head.*")


@cache
def stored_states() -> ActivationStore:
    """States of a few texts in a folder of their own."""
    folder = tempfile.mkdtemp()
    with ActivationStore(folder) as store:
        features.gather(given().model, "resid_post.1", [[5, 6, 7, 8]] * 40, store)
    return ActivationStore(folder)


@cache
def direction(site: str = "resid_post.1") -> steering.Vector:
    g = given()
    sides = (
        [text for text, y in zip(g.data.texts, g.y, strict=True) if y == name] for name in sorted(set(g.y))
    )
    up, down = (side[:20] for side in sides)
    return steering.fit(g.model, up, down, site)


@cache
def evaluation_of_direction() -> steering.SteeringResult:
    score = steering.LogOdds(tuple(given().data.texts[-6:]), ("is",), ("are",))
    return steering.evaluate(given().model, direction(), score)


def halves(g: SimpleNamespace) -> tuple[Any, Any]:
    labels, (train, test) = np.array(g.y), (g.split.train, g.split.test)
    return (g.X[train], labels[train]), (g.X[test], labels[test])


Calls = Mapping[str, Callable[[SimpleNamespace], Any]]
INTERP: Calls = {
    "interp.examine": lambda g: interp.examine(g.model),
    "interp.load": lambda g: interp.load(g.model.hf),
    "interp.patch": lambda g: interp.patch(g.model),
    "interp.patch, own pairs": lambda g: interp.patch(g.model, g.pairs),
    "interp.plot": lambda g: interp.plot(effects()),
    "interp.show_tokens": lambda g: interp.show_tokens(["a", "b"], [0.5, -1.0]),
    "interp.probe": lambda g: interp.probe(g.model, g.data),
    "interp.probe_concepts": lambda g: interp.probe_concepts(g.model),
    "interp.probe_concepts, few prompts": lambda g: interp.probe_concepts(g.model, sizes=(300, 60, 60)),
    "interp.tasks.is_held_out": lambda g: tasks.is_held_out("one-hop", "a"),
    "interp.tasks.labelled": lambda g: tasks.labelled("fact-relation"),
    "interp.tasks.read_chains": lambda g: tasks.read_chains("no such file.csv"),
    "interp.tasks.read_facts": lambda g: tasks.read_facts("no such file.csv"),
    "interp.tasks.read_labelled": lambda g: tasks.read_labelled("no such file.csv"),
    "interp.tasks.sample": lambda g: tasks.sample(g.model, "capitals"),
}
MEDIATION: Calls = {
    **{
        name: lambda g, name=name: getattr(mediation, name)(g.model, g.pairs, "head.*")
        for name in (
            "attribution",
            "attribution_star",
            "integrated_gradients",
            "exhaustive",
            "experiment_of",
            "mediators_of",
            "plan",
        )
    },
    "attribution_graph": lambda g: mediation.attribution_graph(g.model, "the capital of France is"),
    "curve": lambda g: mediation.curve(g.model, g.pairs, ["head.0.0", "head.1.1", "mlp_out.2"]),
    "das": lambda g: mediation.das(g.model, g.pairs, "resid_post.1"),
    "direct_logit_attribution": lambda g: mediation.direct_logit_attribution(g.model, g.pairs),
    "baselines": lambda g: mediation.baselines(g.model, g.pairs[:4], g.pairs[4:]),
    "estimands": lambda g: mediation.estimands(effects(), "head.0.0"),
    "evaluate": lambda g: mediation.evaluate(g.model, g.pairs, ["head.0.0", "mlp_out.2"]),
    "feature_circuit": lambda g: mediation.feature_circuit(
        g.model.with_dictionaries(random_dictionary(g.model.d_model)), g.pairs
    ),
    "frontier": lambda g: mediation.frontier(g.model, g.pairs, types=["heads"]),
    "generality": lambda g: mediation.generality(g.model, ["head.0.0"], {"same": g.pairs}),
    "interactions": lambda g: mediation.interactions(g.model, g.pairs, ["head.0.0", "mlp_out.2"]),
    "interchange_accuracy": lambda g: mediation.interchange_accuracy(g.model, g.pairs, "resid_post.1"),
    "logit_lens": lambda g: mediation.logit_lens(g.model, g.pairs),
    "mean_difference": lambda g: mediation.mean_difference(g.model, g.pairs, "resid_post.1"),
    "mib_score": lambda g: mediation.mib_score(g.model, g.pairs),
    "path_patching": lambda g: mediation.path_patching(g.model, g.pairs, "head.*", "logits"),
    "pca": lambda g: mediation.pca(g.model, g.pairs, "resid_post.1"),
    "replacement_of": lambda g: mediation.replacement_of("mean"),
    "selectivity": lambda g: mediation.selectivity(g.model, ["head.0.0"], g.pairs, {"same": g.pairs}),
    "choose": lambda g: mediation.choose(g.model, effects(), 2),
    "ensemble": lambda g: mediation.ensemble([effects()]),
    "stability": lambda g: mediation.stability(effects()),
}
ANALYSES: Calls = {
    "interp.quantization.calibration_texts": lambda g: quantization.calibration_texts(),
    "interp.quantization.compare": lambda g: quantization.compare(
        lambda model, *, reference=None: mediation.attribution(model, g.pairs, "mlp_out.*"), g.model
    ),
    "interp.quantization.verify_quantization": lambda g: quantization.verify_quantization(
        quantization.quantize(g.model), g.model
    ),
    "interp.quantization.judge": lambda g: quantization.judge(
        effects().findings()[0], effects().findings()[0]
    ),
    "interp.quantization.quantize": lambda g: quantization.quantize(g.model),
    **{
        f"interp.analyses.{name}": lambda g, name=name: getattr(interp.analyses, name)(g.model)
        for name in (
            "behaviour",
            "compression",
            "cost",
            "counterfactuals",
            "difference",
            "explanations",
            "geometry",
            "interpretability",
            "latent_structure",
            "patch_agreement",
            "probe_transfer",
            "recall",
            "sensitivity",
            "trajectory",
            "two_hop",
            "wrapper",
        )
    },
    "interp.analyses.causal_use": lambda g: interp.analyses.causal_use(
        g.model, interp.probe(g.model, g.data)
    ),
}
PROBES: Calls = {
    **{
        f"probes.{row.class_name}": lambda g, row=row: row.create().fit(g.X, targets(g, row.target))
        for row in probes.PROBES.values()
    },
    "probes.Sequences": lambda g: probes.Sequences.of(g.X[:, None]),
    "probes.load": lambda g: probes.load("no such folder"),
    "probes.controls.bag_of_tokens": lambda g: controls.bag_of_tokens(g.states.token_ids),
    "probes.controls.control_task_labels": lambda g: controls.control_task_labels(g.groups, g.y),
    "probes.controls.length_only": lambda g: controls.length_only(g.states.token_ids),
    "probes.controls.ordered_slots": lambda g: controls.ordered_slots(g.states.token_ids),
    "probes.controls.shuffled_labels": lambda g: controls.shuffled_labels(g.y),
    "probes.evaluation.accuracy": lambda g: evaluation.accuracy(g.y, g.y),
    "probes.evaluation.audit": lambda g: evaluation.audit(g.data.texts, g.y, g.split),
    **{
        f"probes.evaluation.{name}": lambda g, name=name: getattr(evaluation, name)(
            g.right, np.linspace(0, 1, len(g.y))
        )
        for name in ("auroc", "average_precision", "brier", "expected_calibration_error", "recall_at_fpr")
    },
    "probes.evaluation.folds": lambda g: evaluation.folds(g.groups),
    "probes.evaluation.group_split": lambda g: evaluation.group_split(g.groups),
    "probes.evaluation.informed_chance": lambda g: evaluation.informed_chance(g.y, g.y),
    "probes.evaluation.majority_label": lambda g: evaluation.majority_label(g.y),
    "probes.evaluation.permutation_test": lambda g: evaluation.permutation_test(
        probes.RidgeProbe(), *halves(g)
    ),
    "probes.evaluation.platt": lambda g: evaluation.platt(g.right, np.linspace(0, 1, len(g.y))),
    "probes.evaluation.threshold_at": lambda g: evaluation.threshold_at(np.linspace(0, 1, 99), 0.05),
    "probes.evaluation.right": lambda g: evaluation.right(g.y, g.y),
    "probes.evaluation.selectivity": lambda g: evaluation.selectivity(
        probes.RidgeProbe(),
        *halves(g),
        ([g.groups[i] for i in g.split.train], [g.groups[i] for i in g.split.test]),
    ),
    "probes.evaluation.straddling": lambda g: evaluation.straddling(g.groups, g.split),
    "probes.hyperdimensional.constant_floor": lambda g: hyperdimensional.constant_floor(g.book.vectors),
    "probes.hyperdimensional.decode": lambda g: hyperdimensional.decode(g.book, g.book.vectors),
    "probes.hyperdimensional.evaluate": lambda g: hyperdimensional.evaluate(g.fitted.decode(g.X), g.y),
    "probes.hyperdimensional.published_floors": lambda g: hyperdimensional.published_floors(
        g.book, structures.published_analogies(g.book, [tuple(g.book.names) * 2])
    ),
    "probes.statistics.benjamini_hochberg": lambda g: statistics.benjamini_hochberg([0.01, 0.5]),
    "probes.statistics.best_of": lambda g: statistics.best_of(np.eye(3, 20), np.zeros((3, 20))),
    "probes.statistics.bootstrap": lambda g: statistics.bootstrap(g.right),
    "probes.statistics.clopper_pearson": lambda g: statistics.clopper_pearson(3, 9),
    "probes.statistics.holm": lambda g: statistics.holm([0.01, 0.5]),
    "probes.statistics.mcnemar_exact": lambda g: statistics.mcnemar_exact(g.right, ~g.right),
    "probes.statistics.mean_intervals": lambda g: statistics.mean_intervals(g.X.T.numpy()),
    "probes.statistics.mean_tests": lambda g: statistics.mean_tests(g.X.T.numpy()),
    "probes.statistics.paired_difference": lambda g: statistics.paired_difference(g.right, ~g.right),
    "probes.statistics.permutation_p": lambda g: statistics.permutation_p(3.0, [1.0, 2.0]),
    "probes.sweeps.sweep": lambda g: sweeps.sweep(g.states.tensors, g.right.astype(float)),
}
STEERING: Calls = {
    "ablations": lambda g: steering.ablations(g.model, direction()),
    "evaluate": lambda g: evaluation_of_direction(),
    "fit": lambda g: direction(),
    "read_control_vector": lambda g: steering.read_control_vector("no such file.gguf", g.model),
    "read_pairs": lambda g: steering.read_pairs("no such file.csv"),
    "side_by_side": lambda g: steering.side_by_side(g.model, direction(), g.data.texts[0]),
    "with_evaluation": lambda g: steering.with_evaluation(direction(), evaluation_of_direction()),
    "without": lambda g: steering.without(g.model, direction()),
    "write_control_vector": lambda g: steering.write_control_vector(direction("embed"), "v.gguf"),
}
LOOKING: Calls = {
    "attention": lambda g: looking.attention(g.model, g.data.texts[0]),
    "edit": lambda g: looking.edit(g.model, g.data.texts[0], "resid_post.1"),
    "surprise": lambda g: looking.surprise(g.model, g.data.texts[0]),
    "token_effects": lambda g: looking.token_effects(g.model, g.data.texts[0]),
    "token_scores": lambda g: looking.token_scores(g.model, g.data.texts[0], "no such folder"),
}
FEATURES: Calls = {
    "check": lambda g: features.check(g.model, random_dictionary(g.model.d_model)),
    "gather": lambda g: stored_states(),
    "load": lambda g: features.load("no such folder"),
    "load_all": lambda g: features.load_all("no such folder"),
    "look": lambda g: features.look(g.model, random_dictionary(g.model.d_model), [0, 1]),
    "train": lambda g: features.train(stored_states(), features.Plan("resid_post.1", 64)),
}
CALLS: Calls = {
    **INTERP,
    **{f"interp.analyses.looking.{name}": call for name, call in LOOKING.items()},
    **{f"interp.features.{name}": call for name, call in FEATURES.items()},
    **{f"interp.steering.{name}": call for name, call in STEERING.items()},
    **{f"interp.mediation.{name}": call for name, call in MEDIATION.items()},
    **ANALYSES,
    **PROBES,
}
REFUSED = {
    "interp.analyses.looking.token_scores": "no such folder",
    "interp.features.load": "there is no folder",
    "interp.features.load_all": "there is no folder",
    "interp.steering.read_control_vector": "no such file.gguf",
    "interp.steering.read_pairs": "no such file.csv",
    "interp.steering.write_control_vector": "has no place for 'embed'",
    "interp.tasks.read_chains": "no such file.csv",
    "interp.tasks.read_facts": "no such file.csv",
    "interp.analyses.counterfactuals": "has no template for conversations",
    "interp.analyses.explanations": "has no template for conversations",
    "interp.tasks.read_labelled": "no such file.csv",
    "probes.load": "no such folder",
}
"""What ends with an error, and a word of what it says."""
SLOW = ("interp.probe_concepts", "interp.analyses.patch_agreement")
LEFT_OUT = {
    "interp.features.push_to_hub": "it needs a server: test_hub.py",
    "interp.mediation.edge_logits": "its values come from a caller that has captured the carriers",
    "interp.tasks.draw": "the old name of sample, deprecated",
}


def targets(g: SimpleNamespace, kind: str) -> Any:
    if kind in ("class", "sequence", "concept"):
        return g.y
    return np.array([[label == name for name in g.book.names] for label in g.y]).astype(
        int if kind == "labels" else float
    )


NAMES = [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in CALLS]


@pytest.mark.parametrize("name", NAMES)
def test_defaults_suit_a_small_random_model(name: str) -> None:
    try:
        CALLS[name](given())
    except (InterpError, probes.ProbeFileError) as error:
        assert name in REFUSED and REFUSED[name] in str(error), error
    else:
        assert name not in REFUSED


def function(name: str) -> Any:
    package, _, own = name.partition(",")[0].rpartition(".")
    return getattr(importlib.import_module(package), own)


@pytest.mark.parametrize("package", PACKAGES)
def test_no_public_function_is_left_out(package: str) -> None:
    module = importlib.import_module(package)
    public = [name for name in module.__all__ if f"{package}.{name}" not in LEFT_OUT]
    called = {function(name) for name in CALLS}
    found = {name for name in public if inspect.isfunction(getattr(module, name))}
    assert [name for name in found if getattr(module, name) not in called] == []
