"""``interp features``: dictionaries trained, resumed, judged and looked at; wrong calls end in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import interp
from interp import features
from interp.features import certificate
from interp.features.certificate import FeatureCertificate
from interp.features.layouts.saelens import write
from interp.features.texts import texts_of
from interp.features.trained import DictionaryTraining
from interp.features.training import gather
from interp.features.views import FeatureViews
from interp.results import load
from interp.store import ActivationStore
from tests.dictionaries import random_dictionary
from tests.interp.cli.conftest import Call

TEXTS = [
    f"the capital of {name} is {city} . the {animal} of {name} is {colour} ."
    for name, city in (("France", "Paris"), ("Japan", "Tokyo"), ("Italy", "Rome"), ("Spain", "Madrid"))
    for animal in ("dog", "cat")
    for colour in ("brown", "white")
]


def texts() -> str:
    Path("texts.jsonl").write_text("".join(f"{json.dumps({'text': one, 'label': 'x'})}\n" for one in TEXTS))
    return "texts.jsonl"


def test_a_dictionary_is_trained_then_judged_looked_at_and_patched(call: Call) -> None:
    line = ("--data", texts(), "--site", "mlp_out.3", "--width", "96", "--k", "6", "--epochs", "25")
    answer = call("features", "train", *line, "--out", "t", "--json")
    assert answer.code == 0, answer.err
    found = load("t/result")
    assert isinstance(found, DictionaryTraining)
    own = features.load("t/dictionary")
    assert own.fingerprint == found.certificate.dictionary["fingerprint"]
    assert (own.n_features, own.name, str(own.site_in)) == (96, "demo/mlp_out.3", "mlp_out.3")
    value = answer.envelope["data"]["numbers"]["variance-explained"]["value"]
    assert value == found.certificate.variance["own"].value > 0.5
    again = call("features", "train", *line, "--store", "t", "--out", "u")
    assert again.code == 2 and "holds states already" in again.err
    shown = call("features", "show", "t/dictionary", "--data", texts(), "--out", "s")
    assert shown.code == 0, shown.err
    views = load("s/result")
    assert isinstance(views, FeatureViews) and len(views.views) == 10
    assert views.views[0].snippets[0].token.strip() in shown.out
    one = call("features", "show", "t/dictionary", "7,9", "--data", texts(), "--out", "s2", "--json")
    assert [row["feature"] for row in one.envelope["data"]["tables"]["features"]["rows"]] == [7, 9]
    line = ("--features", "t/dictionary", "--mediators", "feature.3.*,error.3", "--search", "attribution")
    patched = call("patch", *line, "--task", "capitals", "--limit", "8", "--out", "p", "--json")
    assert patched.code == 0, patched.err
    assert any("'demo/mlp_out.3' at mlp_out.3: explains" in text for text in patched.envelope["warnings"])
    saved = call(
        "capture", "--features", "t/dictionary", "--sites", "feature.3", "--limit", "4", "--out", "c"
    )
    assert saved.code == 0, saved.err


@pytest.mark.slow
def test_an_interrupted_training_goes_on(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    line = ("--data", texts(), "--site", "resid_post.3", "--width", "64", "--k", "4", "--epochs", "30")
    assert call("features", "train", *line, "--out", "whole").code == 0
    real = torch.Tensor.scatter
    monkeypatch.setattr("interp.features.training.EVERY", 5)
    count = iter(range(10**6))

    def fails(*given: object) -> torch.Tensor:
        if next(count) == 12:
            raise KeyboardInterrupt
        return real(*given)

    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "scatter", fails)
        stopped = call("features", "train", *line, "--out", "part")
    assert stopped.code == 130 and "--resume" in stopped.err
    assert call("features", "train", *line, "--out", "part", "--resume").code == 0
    whole, part = (features.load(f"{name}/dictionary") for name in ("whole", "part"))
    assert whole.fingerprint == part.fingerprint


def test_a_dictionary_of_nothing_is_named_so(call: Call) -> None:
    write(random_dictionary(64, 96, site="resid_post.3"), "noise")
    answer = call("features", "check", "noise", "--data", texts(), "--out", "c")
    assert answer.code == 0 and "may not be of this model" in answer.out
    assert isinstance(load("c/result"), FeatureCertificate)
    gated = call("features", "check", "noise", "--data", texts(), "--fail-under", "variance-explained=0.5")
    assert gated.code in (2, 7)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (("check",), "needs a dictionary"),
        (("train", "x"), "takes no dictionary"),
        (("show", "x", "seven"), "give numbers"),
        (("check", "missing"), "there is no folder"),
        (("look", "x"), "allowed: train, check, show"),
    ],
)
def test_wrong_calls(line: tuple[str, ...], words: str, call: Call) -> None:
    answer = call("features", *line)
    assert answer.code in (2, 3) and words in answer.err


def judged_texts(call: Call, monkeypatch: pytest.MonkeyPatch, *line: str) -> tuple[set[Any], set[Any], Any]:
    """Token ids that were trained on and those that were judged on, and the answer."""
    seen: list[Any] = []
    real = certificate.judged

    def spied(model: Any, own: Any, ids: Any, **rest: Any) -> Any:
        seen.extend(ids)
        return real(model, own, ids, **rest)

    monkeypatch.setattr(certificate, "judged", spied)
    answer = call(
        "features", "train", *line, "--width", "16", "--k", "2", "--epochs", "1", "--out", "h", "--json"
    )
    place = line[line.index("--store") + 1] if "--store" in line else "h"
    trained = {ids for acts in ActivationStore(place).shards() for ids in acts.token_ids}
    return trained, set(seen), answer


def test_no_given_text_is_trained_on_and_judged_on(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("plain.jsonl").write_text("".join(f"{json.dumps({'text': one})}\n" for one in [*TEXTS, *TEXTS]))
    line = ("--data", "plain.jsonl", "--site", "mlp_out.3")
    trained, judged, answer = judged_texts(call, monkeypatch, *line)
    assert answer.code == 0, answer.err
    assert (len(trained), len(judged)) == (13, 3) and not trained & judged
    Path("few.jsonl").write_text("".join(f"{json.dumps({'text': one})}\n" for one in TEXTS[:5]))
    few = call("features", "train", "--data", "few.jsonl", "--site", "mlp_out.3", "--out", "few")
    assert few.code != 0 and "5 different texts" in few.err and "give 6 at least" in few.err


def test_a_store_of_another_model_or_of_the_judged_texts_is_refused(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, own = interp.load("demo", weights="random"), interp.load("demo")
    held = texts_of(own, None, certificate.TEXTS, seed=1)
    for name, model, ids in (("other", other, held), ("held", own, held), ("partly", own, held[:40])):
        with ActivationStore(name) as store:
            gather(model, "mlp_out.3", ids, store)
    refused = call("features", "train", "--store", "other", "--out", "o")
    assert refused.code != 0 and "with random weights" in refused.err and "another model" in refused.err
    absent = call("features", "train", "--store", "held", "--site", "mlp_out.4", "--out", "a")
    assert absent.code != 0 and "holds: mlp_out.3" in absent.err
    same = call("features", "train", "--store", "held", "--width", "16", "--k", "2", "--out", "s")
    assert same.code != 0 and "Give another --seed" in same.err
    trained, judged, answer = judged_texts(call, monkeypatch, "--store", "partly")
    assert answer.code == 0, answer.err
    assert judged == set(held[40:]) and not judged & trained


def test_layouts_are_listed(call: Call) -> None:
    rows = call("ls", "layouts", "--json").envelope["data"]["layouts"]
    assert [row["layout"] for row in rows] == list(features.LAYOUTS)
