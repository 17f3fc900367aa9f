"""One instance of every result class, by schema: what the test of all results walks over."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import interp
from interp import features, lenses, mediation, steering, tasks
from interp.analyses import ProbeResult, causal_use, looking
from interp.features.trained import DictionaryTraining
from interp.results import Result
from interp.store import ActivationStore
from interp.tasks import Labelled
from tests.dictionaries import planted_dictionary, random_dictionary
from tests.interp import compared_results
from tests.interp.mediation.test_planted_subspaces import balanced
from tests.noisy import demo
from tests.planted import planted_subspace
from tests.planted_heads import PLANTED, Planted, planted
from tests.tiny import WORDS, tiny

__all__ = ["MAKERS", "result_of"]


def alignment() -> Result:
    """Two variables of a planted subspace, and one control."""
    found = planted_subspace()
    variables = {"value": balanced(found), "other": balanced(found)}
    return mediation.das(found.model, variables, "resid_post.0", dim=(2, 1), steps=11, controls=("random",))


def stored() -> Result:
    """Two shards of a tiny model's stream."""
    hf, words = tiny("llama")
    model = interp.load(hf, tokenizer=words)
    with tempfile.TemporaryDirectory() as folder, ActivationStore(folder) as store:
        for ids in ([[1, 2, 3], [4, 5]], [[6, 7]]):
            store.append(model.capture(ids, ["resid_post.*"], "last"))
        return store.summary()


def curve() -> Result:
    """Of the heads of a planted circuit, beside a random order."""
    found = PLANTED["copy"]()
    return mediation.curve(found.model, found.pairs, sorted(found.heads), control=True)


def evaluation() -> Result:
    """Of a planted circuit, with all its controls."""
    found = PLANTED["copy"]()
    return mediation.evaluate(found.model, found.pairs, sorted(found.heads))


def mib() -> Result:
    """The edges of a planted circuit, scored as MIB scores them."""
    found = PLANTED["copy"]()
    return mediation.mib_score(found.model, found.pairs[:6], found.pairs[6:])[0]


def of_baselines() -> Result:
    """Three baselines on a model in which only the mean is right."""
    from tests.interp.mediation.test_baselines import found

    return found()


def frontier() -> Result:
    """Three types on a planted circuit, one of which cannot carry it."""
    found = PLANTED["copy"]()
    return mediation.frontier(found.model, found.pairs, types=["heads", "groups", "subspaces"])


def circuit_transfer() -> Result:
    """A planted circuit on its own pairs and on others."""
    found, other = PLANTED["copy"](), PLANTED["copy"](seed=1)
    return mediation.selectivity(found.model, sorted(found.heads), found.pairs, {"other": other.pairs})


@cache
def circuit() -> Planted:
    """A model whose circuit is known, with pairs."""
    return planted("induction")


def effects() -> Result:
    """Estimates with their verification, whose intervals and tests are all there."""
    return mediation.attribution(circuit().model, circuit().pairs, "head.*", verify=3)


def feature_circuit() -> Result:
    """Random dictionaries of two layers."""
    found = circuit()
    dictionaries = [random_dictionary(found.model.d_model, 8, site=f"resid_post.{layer}") for layer in (0, 1)]
    return mediation.feature_circuit(found.model.with_dictionaries(*dictionaries), found.pairs, steps=2)


def interactions() -> Result:
    """Two heads of a circuit and one outside."""
    return mediation.interactions(circuit().model, circuit().pairs, ["head.0.0", "head.0.2", "head.1.3"])


@cache
def labels() -> ProbeResult:
    """A probe of every layer of a tiny model, whose words mean nothing: some prompts are read wrongly."""
    model = interp.load(tiny("llama")[0], tokenizer=tiny("llama")[1])
    rows = [(f"{WORDS[at % 7]} {WORDS[at % 13]} {word}", "ab"[at % 2], word) for at, word in enumerate(WORDS)]
    texts, names, groups = zip(*rows * 2, strict=True)
    data = Labelled("kinds", "what a word is", texts, names, groups, ("",) * len(texts))
    found = interp.probe(model, data, layers="all")
    return replace(found, causal=causal_use(model, found))


def concepts() -> Result:
    """A concept probe at the best of two layers of the bundled model, with its use."""
    model = demo()
    given = {"layers": "8,23", "sizes": (150, 30, 40), "controls": ("constant", "shuffled", "ridge")}
    found = interp.probe_concepts(model, **given)
    return replace(found, causal=causal_use(model, found, prompts=6))


def claimed() -> Result:
    """Two claims on few prompts, whose controls and plain readers are all there."""
    from interp.analyses.claims import claims

    return claims(demo(), ["parts", "bindings"], layer=20, sizes=(150, 40, 40), dimension=256)


def decoded() -> Result:
    """One prompt, read by a probe that was trained on a few prompts."""
    from interp.analyses.concepts import decode
    from interp.analyses.concepts.trial import trained_probe

    model = demo()
    return decode(model, "Denmark : krone = Japan :", probe=trained_probe(model, 20, n=350), layer=20)


def translated() -> Result:
    """One prompt, read by translators that were fitted on little text."""
    from interp.analyses.concepts import decode_translated
    from interp.lenses.texts import prepared
    from interp.lenses.translator import fitted

    lens = fitted(demo(), [12, 20], prepared(demo(), n_tokens=1500, length=32))
    return decode_translated(
        demo(), "the capital of France is", layers="12,20", concepts=["Paris", "Rome", "krone"], lens=lens
    )


def generated() -> Result:
    """Three questions, answered and read."""
    from interp.analyses.concepts.generation import bundled_questions, probe_generation
    from interp.analyses.concepts.trial import trained_probe

    model = demo()
    return probe_generation(model, trained_probe(model, 23, n=350), bundled_questions(3), layer=23)


def audited() -> Result:
    """Two planted readers of made-up states at two layers, and one of few facts."""
    from interp.analyses.audit import AuditResult
    from tests.planted_readers import audit_of, planted

    made = planted(0)
    audits = [audit_of(name, made, layer) for layer in (0, 1) for name in ("unembedding", "half")]
    few = audit_of("noise", planted(0, facts=2), 1)
    return AuditResult(protocol="planted", twin={"name": "planted"}, audits=(*audits, few))


def readers() -> Result:
    """Four readers at two layers of the bundled model."""
    from interp.analyses.readers.by_layer import compare_readers

    names = ("logit", "translator-prompts", "ridge", "subject")
    return compare_readers(demo(), "bridge", layers="8,20", readers=names, sizes=(200, 40, 60))


def operated() -> Result:
    """A few concepts exchanged in the bundled model."""
    from tests.interp.analyses.test_surgery import found

    return found()


def latent() -> Result:
    """Countries under their own names, beside the untrained model."""
    from interp.analyses.latent import latent_structure
    from interp.models.loading import untrained_model
    from interp.tasks.codenames import ASKED
    from tests.interp.analyses.test_latent import LAYER, countries, standing

    known = standing(countries(6), countries(6))
    return latent_structure(demo(), untrained_model(demo()), known=known, relations=ASKED[:1], layers=LAYER)


def lens_curves() -> Result:
    """Two lenses that need no fit, over a few prompts, beside the untrained model."""
    data = tasks.labelled("fact-relation", n=8)
    kinds = ("logit", "patchscope")
    target = "Denmark : Denmark ; Japan : Japan ; ?"
    return lenses.curves(demo(), data, kinds=kinds, layers="8,16,23", target=target)


def edited() -> Result:
    """One prompt of the bundled model with a name in another's place."""
    from interp.analyses.surgery import replace_concepts

    return replace_concepts(demo(), "the capital of France is", {"Paris": "Rome"}, layer=20, doses=(1.0, 2.0))


def written() -> Result:
    """Two prompts, drawn, with the states of the new tokens."""
    hf, words = tiny("llama")
    model = interp.load(hf, tokenizer=words)
    sample = interp.Sampling(0.8, top_k=20, seed=1)
    return model.generate(
        ["w01 w02", "w05"], max_new_tokens=4, sample=sample, capture="resid_post.1", tokens="new"
    )


def steered_vector() -> steering.Vector:
    """From currencies to capitals, in the bundled model."""
    names = ("France", "Japan", "Italy", "Spain")
    sides = ([f"the {kind} of {name} is" for name in names] for kind in ("capital", "currency"))
    return steering.fit(demo(), *sides, "resid_post.20")


def steering_evaluated() -> Result:
    """The same, scored on four countries that it was not fitted on."""
    prompts = tuple(f"the currency of {name} is" for name in ("China", "India", "Peru", "Cuba"))
    score = steering.LogOdds(prompts, ("Paris", "Tokyo"), ("euro", "yen"))
    neutral = [f"the dog of {name} is brown" for name in ("Mary", "John", "Anna", "Paul")]
    task = [("the capital of France is", "Paris")]
    given = {"doses": (0.5, 1.0), "draws": 3, "neutral": neutral, "task": task}
    return steering.evaluate(demo(), steered_vector(), score, **given)


def steered() -> Result:
    """One prompt, with and without."""
    return steering.side_by_side(demo(), steered_vector(), "the currency of China is", max_new_tokens=3)


def monitored() -> Result:
    """A monitor of a tiny chat model, with three sources."""
    from tests.interp.analyses.monitored import fitted

    return fitted()


def watched() -> Result:
    """Messages that a monitor scored."""
    from interp.analyses.monitoring import watch
    from tests.interp.analyses.monitored import chat, fitted, talks

    return watch(chat(), fitted().monitor, talks(6, seed=9))


def aware() -> Result:
    """Readers of sources that were left out, made up."""
    from tests.interp.analyses.test_awareness import areas, result

    return result(areas([0.9, 0.8, 0.85, 0.9, 0.7]), {"length": areas([0.5, 0.6, 0.4, 0.5, 0.5])})


def feature_certificate() -> Result:
    """Of a planted dictionary, on given texts."""
    found = planted_dictionary()
    return features.check(found.model, found.dictionary, texts=[" ".join(WORDS[n : n + 9]) for n in range(4)])


def feature_views() -> Result:
    """Of three planted features."""
    found = planted_dictionary()
    texts = [" ".join(WORDS[n : n + 9]) for n in range(4)]
    return features.look(found.model, found.dictionary, [3, 4, 5], texts=texts, translator=False)


def feature_training() -> Result:
    """A course of training in numbers, with a certificate."""
    certificate = feature_certificate()
    assert isinstance(certificate, features.FeatureCertificate)
    history = ((0.0, 1.0, 0.0), (1.0, 0.5, 0.25))
    plan = {"site": "resid_post.0", "n_features": 12, "k": 1, "epochs": 1}
    about = certificate.about
    return DictionaryTraining(
        plan=plan, steps=2, states=9, history=history, certificate=certificate, about=about
    )


MAKERS: dict[str, Callable[[], Result]] = {
    "interp.alignment/2": alignment,
    "interp.attention/1": lambda: looking.attention(demo(), "the capital of France is", draws=3),
    "interp.audit/1": audited,
    "interp.awareness/1": aware,
    "interp.baselines/1": of_baselines,
    "interp.capture/2": stored,
    "interp.causal/2": lambda: labels().causal,
    "interp.cell-edit/1": lambda: looking.edit(demo(), "the capital of France is", "resid_post.20", draws=3),
    "interp.certificate/2": compared_results.certificate,
    "interp.circuit-transfer/1": circuit_transfer,
    "interp.comparison/3": compared_results.compared,
    "interp.concepts/2": concepts,
    "interp.contributions/2": lambda: mediation.direct_logit_attribution(circuit().model, circuit().pairs),
    "interp.cost/2": compared_results.cost_of_a_model,
    "interp.curve/2": curve,
    "interp.claims/1": claimed,
    "interp.decode/1": decoded,
    "interp.edited/1": edited,
    "interp.effects/2": effects,
    "interp.evaluation/2": evaluation,
    "interp.feature-certificate/1": feature_certificate,
    "interp.feature-training/1": feature_training,
    "interp.feature-views/1": feature_views,
    "interp.findings/1": compared_results.measured,
    "interp.frontier/1": frontier,
    "interp.generation/2": generated,
    "interp.graph/1": lambda: mediation.attribution_graph(
        circuit().model, circuit().pairs.clean.token_ids[0]
    ),
    "interp.integrity/1": compared_results.integrity,
    "interp.feature-circuit/1": feature_circuit,
    "interp.interactions/1": interactions,
    "interp.latent/1": latent,
    "interp.lens-curves/1": lens_curves,
    "interp.lens-view/1": lambda: lenses.view(demo(), "the capital of France is"),
    "interp.mib/1": mib,
    "interp.monitor/1": monitored,
    "interp.lens/2": lambda: mediation.logit_lens(circuit().model, circuit().pairs),
    "interp.patching/1": lambda: interp.patch(circuit().model, circuit().pairs, ["head.*", "mlp_out.*"]),
    "interp.translated/1": translated,
    "interp.probe/2": labels,
    "interp.readers/1": readers,
    "interp.steered/1": steered,
    "interp.steering/1": steering_evaluated,
    "interp.surgery/1": operated,
    "interp.surprise/1": lambda: looking.surprise(demo(), "the capital of France is", draws=3),
    "interp.text/1": written,
    "interp.token-scores/1": lambda: looking.token_effects(demo(), "the capital of France is", draws=4),
    "interp.watch/1": watched,
}
"""Schema -> makes a small result of that class."""


@cache
def result_of(schema: str) -> Result:
    """A small result of a class, made once for all tests of a process."""
    return MAKERS[schema]()
