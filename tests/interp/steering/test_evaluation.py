"""Evaluation: exact effects in a linear read-out, a null that holds, side effects, and what is refused."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import interp
from interp import steering
from interp.analyses.steering.result import largest, over_random
from interp.analyses.steering.run import with_evaluation
from interp.errors import ConfigError, DataError
from interp.lenses.translator import Kept, TranslatorLens
from interp.models import Model
from interp.models.readout import Readout
from interp.steering import Lexicon, LogOdds, Origin, Texts, Vector, Words
from probes import MeanDifferenceProbe
from probes.translation import Translator
from tests.noisy import demo
from tests.tiny import build, tokenizer

PROMPTS = tuple(
    f"w{a:02d} w{b:02d} w{c:02d}" for a, b, c in np.random.default_rng(0).integers(10, 60, (6, 3))
)
NEUTRAL = [f"w{a:02d} w{b:02d} w{c:02d} w{d:02d}" for a, b, c, d in
           np.random.default_rng(1).integers(0, 60, (8, 4))]  # fmt: skip
ODDS = LogOdds(PROMPTS, ("w07",), ("w08",))


@pytest.fixture(scope="module")
def model() -> Model:
    return interp.load(build("llama").double(), tokenizer=tokenizer())


def read_out(model: Model, dose: float = 1.0, seed: int = 3) -> Vector:
    drawn = torch.Generator().manual_seed(seed)
    vector = {"final_norm": torch.randn(model.d_model, generator=drawn)}
    return Vector.of("planted", vector, Origin("file"), {"final_norm": dose})


def evaluated(model: Model, vector: Vector, **more: Any) -> steering.SteeringResult:
    given: dict[str, Any] = {"doses": (0.5, 1), "draws": 4, "neutral": NEUTRAL, "instruction": "w59"}
    return steering.evaluate(model, vector, more.pop("score", ODDS), **given | more)


def row_of_head(model: Model, word: str) -> np.ndarray:
    assert model.tokenizer is not None
    head: Any = model.hf.get_output_embeddings()
    return head.weight[model.tokenizer.convert_tokens_to_ids(word)].detach().double().numpy()


def test_the_logits_of_the_bundled_model_move_by_the_dose_times_the_product() -> None:
    """After the final norm the read-out is linear: each logit moves by dose x unit x (v . u)."""
    real = interp.load("demo", dtype="float64")
    vector, prompts = read_out(real), ["the capital of France is", "the currency of Japan is"]
    head: Any = real.hf.get_output_embeddings()
    for dose in (-2.0, 0.5, 3.0):
        before = real.run(prompts).logits
        after = real.run(prompts, interventions=vector.interventions(dose)).logits
        assert before is not None
        assert after is not None
        wanted = dose * vector.unit * head.weight.detach().double() @ vector.direction.double()
        torch.testing.assert_close(after - before, wanted.expand(2, -1), atol=1e-5, rtol=0)


def test_before_the_norm_it_holds_with_the_scale_frozen(model: Model) -> None:
    """In the last block's output: logits x scale move by exactly gain x v . u."""
    vector = Vector.of("late", {"resid_post.2": read_out(model).direction}, Origin("file"))
    runs = [
        model.run(list(PROMPTS), interventions=what, capture="resid_post.2")
        for what in (None, vector.interventions(0.7))
    ]
    scaled = []
    for run in runs:
        assert run.activations is not None
        assert run.logits is not None
        states = run.activations["resid_post.2"].double()
        rms = (states.square().mean(dim=1, keepdim=True) + model.hf.config.rms_norm_eps).sqrt()
        scaled.append(run.logits.double() * rms)
    head: Any = model.hf.get_output_embeddings()
    wanted = 0.7 * head.weight.double() @ (model.hf.model.norm.weight.double() * vector.direction.double())
    torch.testing.assert_close(scaled[1] - scaled[0], wanted.expand(len(PROMPTS), -1), atol=1e-5, rtol=0)


def test_the_dose_response_is_the_product_at_every_dose(model: Model) -> None:
    vector = read_out(model)
    found = evaluated(model, vector)
    slope = float((row_of_head(model, "w07") - row_of_head(model, "w08")) @ vector.direction.double().numpy())
    table: Any = found.table("doses").set_index(["arm", "dose"])["change"]
    for dose in (0.5, 1.0):
        assert table["vector", dose] == pytest.approx(dose * slope, abs=1e-5)
        assert table["opposite", dose] == pytest.approx(-dose * slope, abs=1e-5)
    drawn = found.at("random", 1.0).draws
    assert drawn is not None
    assert table["random", 1.0] == pytest.approx(float((drawn - found.plain.score).mean()), abs=1e-9)
    for number, row in enumerate(drawn - found.plain.score):
        v = vector.random(number).direction.double().numpy()
        wanted = float((row_of_head(model, "w07") - row_of_head(model, "w08")) @ v)
        np.testing.assert_allclose(row, wanted, atol=1e-5)


def test_of_a_random_direction_the_interval_covers_nothing_in_95_percent(model: Model) -> None:
    """In a linear read-out effects are products with random unit vectors: 200 evaluations, in closed form."""
    rng = np.random.default_rng(0)
    u = row_of_head(model, "w07") - row_of_head(model, "w08")

    def effect() -> np.ndarray:
        v = rng.standard_normal(len(u))
        return np.full(6, v @ u / np.linalg.norm(v))

    covered = [over_random(effect(), np.stack([effect() for _ in range(4)])).interval.contains(0.0)
               for _ in range(200)]  # fmt: skip
    assert 0.91 <= np.mean(covered) <= 0.985
    large = over_random(6 * np.linalg.norm(u) + effect(), np.stack([effect() for _ in range(4)]))
    assert large.interval.low > 0


def test_side_effects_are_those_of_plain_transformers(model: Model) -> None:
    vector = read_out(model)
    found = evaluated(model, vector)
    shift = vector.unit * vector.direction.double()
    head: Any = model.hf.get_output_embeddings()
    kl, nll = [], []
    for text in NEUTRAL:
        ids = torch.tensor(model.tokenize([text]).token_ids)
        with torch.no_grad():
            logits = model.hf(ids).logits[0, :-1].double()
        plain = logits.log_softmax(-1)
        now = (logits + shift @ head.weight.detach().double().T).log_softmax(-1)
        kl.append(float((plain.exp() * (plain - now)).sum(-1).mean()))
        nll.append(-float(now.gather(1, ids[0, 1:, None]).mean()))
    side = found.at("vector", 1.0).side
    np.testing.assert_allclose(side.kl, kl, atol=1e-5)
    np.testing.assert_allclose(side.surprise, nll, atol=1e-5)
    np.testing.assert_allclose(found.plain.side.kl, 0, atol=1e-6)
    assert found.choosing.sum() == 4


def test_the_largest_dose_is_the_last_before_the_bound_is_passed() -> None:
    assert largest((1, 2, 4, 8), (0.01, 0.05, 0.2, 0.04), 0.1) == 2
    assert largest((1, 2), (0.2, 0.01), 0.1) is None


def test_over_the_bound_nothing_is_shown_and_under_it_a_planted_vector_works(model: Model) -> None:
    u = row_of_head(model, "w07") - row_of_head(model, "w08")
    vector = Vector.of("u", {"final_norm": torch.tensor(u)}, Origin("file"), {"final_norm": 0.1})
    good = evaluated(model, vector, bound=1.0, draws=8)
    assert good.verdict().startswith("Steering works: at dose 1,")
    assert good.works
    bad = evaluated(model, vector, bound=1e-6)
    assert bad.chosen is None
    assert "already at dose 0.5" in bad.verdict()
    assert not evaluated(model, vector, beside=("opposite",), bound=1.0).works


def test_prompting_measures_the_same_tokens_after_the_instruction(model: Model) -> None:
    texts = Texts(tuple(NEUTRAL[:4]), tuple(NEUTRAL[4:]))
    found = texts.values(model, (), instruction="w59 w58")
    for row, (up, down) in enumerate(zip(NEUTRAL[:4], NEUTRAL[4:], strict=True)):
        means = []
        for text in (up, down):
            ids = torch.tensor(model.tokenize([f"w59 w58 {text}"]).token_ids)
            with torch.no_grad():
                logs = model.hf(ids).logits[0].double().log_softmax(-1)
            means.append(float(logs[2:-1].gather(1, ids[0, 3:, None]).mean()))
        assert found[row] == pytest.approx(means[0] - means[1], abs=1e-6)


def test_words_and_lexicon_are_counted_by_hand(model: Model) -> None:
    words = Words(PROMPTS[:2], ("w07", "w08"))
    logits = model.run(list(PROMPTS[:2])).logits
    assert logits is not None
    assert model.tokenizer is not None
    at = model.tokenizer.convert_tokens_to_ids(["w07", "w08"])
    wanted = logits.double().softmax(-1)[:, at].sum(dim=1).log()
    np.testing.assert_allclose(words.values(model), wanted, atol=1e-6)
    real = demo()
    lexicon = Lexicon(("the capital of France is",), ("the", "OF"), max_new_tokens=8, temperature=0)
    text = real.generate(["the capital of France is"], max_new_tokens=8).texts[0].split()
    letters = [word for word in text if word.isalpha()]
    share = sum(word.lower() in ("the", "of") for word in letters) / len(letters)
    assert lexicon.values(real)[0] == pytest.approx(share)


def test_the_verdict_goes_onto_the_card(model: Model, tmp_path: Path) -> None:
    vector = read_out(model)
    found = evaluated(model, vector, beside=("random",))
    kept = Vector.load(with_evaluation(vector, found).save(tmp_path))
    assert kept.origin.evaluated["verdict"] == found.verdict()
    told = steering.side_by_side(model, kept, PROMPTS[0], dose=50, max_new_tokens=4)
    assert found.verdict() in told.verdict()
    assert [one.dose for one in told.written] == [0, 50, -50, 50]


def fitted(model: Model) -> Vector:
    return steering.fit(model, list(PROMPTS[:3]), NEUTRAL[:3], "resid_post.0")


def at(*sites: str) -> Vector:
    drawn = torch.Generator().manual_seed(0)
    return Vector.of("several", {site: torch.randn(32, generator=drawn) for site in sites}, Origin("file"))


def probed(site: str) -> steering.ProbeScore:
    return steering.ProbeScore(PROMPTS, MeanDifferenceProbe(), site)


WRONG: list[tuple[Any, type[Exception], str]] = [
    (lambda m: evaluated(m, read_out(m), doses=(-1, 1)), ConfigError, "positive ones"),
    (lambda m: evaluated(m, read_out(m), doses=()), ConfigError, "positive ones"),
    (lambda m: evaluated(m, read_out(m), beside=("prompts",)), ConfigError, "any of: random"),
    (lambda m: evaluated(m, read_out(m), draws=1), ConfigError, "3 random directions"),
    (lambda m: evaluated(m, read_out(m), bound=0.0), ConfigError, "nats per token above 0"),
    (lambda m: evaluated(m, read_out(m), instruction=""), ConfigError, "give instruction="),
    (lambda m: evaluated(m, fitted(m)), DataError, r"3 of 6 prompts of the score were fitted on.*Give other"),
    (lambda m: evaluated(m, read_out(m), score=LogOdds(PROMPTS[:2], ("w07",))), DataError, "Give more"),
    (lambda m: evaluated(m, read_out(m), neutral=NEUTRAL[:2]), DataError, "give 4 or more"),
    (lambda m: Texts(PROMPTS, PROMPTS[:2]), DataError, "give one for each"),
    (
        lambda m: evaluated(m, fitted(m), score=steering.ProbeScore.fitted(
            m, PROMPTS[:3], NEUTRAL[:3], (*PROMPTS[3:], "w01 w02"), site="resid_post.0")),
        ConfigError,
        r"would read the vector itself. Fit a probe at a later layer, such as resid_post.2",
    ),
    (lambda m: probed("resid_post.1").check(m, at("resid_post.0", "resid_post.2")), ConfigError,
     r"reads resid_post.1, and the vector is added at resid_post.2.*take an earlier layer for the vector"),
    (lambda m: probed("resid_post.1").check(m, at("resid_post.0", "resid_post.1")), ConfigError,
     r"added at resid_post.1.*such as resid_post.2"),
    (lambda m: evaluated(m, read_out(m), score=LogOdds(PROMPTS[:3] * 3, ("w07",))), DataError,
     "3 different prompts to evaluate on; 4 are the fewest"),
    (lambda m: evaluated(m, read_out(m), score=LogOdds((*PROMPTS, PROMPTS[0]), ("w07",))), DataError,
     "7 prompts to evaluate on, of which 6 are different.*Give each once"),
    (lambda m: Lexicon(PROMPTS, ("sea", "high tide")), DataError, "holds 'high tide'; .* Give single words"),
    (lambda m: Lexicon(PROMPTS, ("sea-side",)), DataError, "a word is letters alone"),
    (lambda m: Lexicon(PROMPTS, ()), DataError, "lexicon is empty"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "kind", "words"), WRONG)
def test_wrong_calls_are_answered_in_one_line_with_the_remedy(
    model: Model, call: Any, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words) as told:
        call(model)
    assert "\n" not in str(told.value)


def test_a_concept_is_the_gradient_of_its_score_as_a_translator_reads_it() -> None:
    """On the bundled model: autograd through a hand-written translator gives the same direction."""
    real = demo()
    d = real.d_model
    drawn = torch.Generator().manual_seed(0)
    weight = torch.randn(d, d, generator=drawn, dtype=torch.float64)
    states = torch.randn(40, d, generator=drawn)
    translator = Translator(weight, torch.zeros(d, dtype=torch.float64), 1.0, None, 1.0, weight)
    kept = {5: Kept(states, torch.zeros(40, dtype=torch.long), torch.zeros(40, dtype=torch.long))}
    lens = TranslatorLens(Readout.of(real.architecture), (5,), {5: translator}, {}, kept)
    vector = steering.fit(real, ["Paris"], ["Rome"], "resid_post.5", method="concept", reader=lens)
    head: Any = real.hf.get_output_embeddings()
    ids = [real.tokenize([f"the {word}"]).token_ids[0][-1] for word in ("Paris", "Rome")]
    state = states[:1].double().requires_grad_()
    scores = (state @ weight) @ head.weight.detach().double()[ids].T
    (slope,) = torch.autograd.grad(scores[0, 0] - scores[0, 1], state)
    torch.testing.assert_close(vector.direction.double(), slope[0] / slope.norm(), atol=1e-5, rtol=0)
    assert vector.unit == pytest.approx(0.1 * float(states.norm(dim=1).mean()), rel=1e-5)


TEMPLATE = (
    "{% for m in messages %}<s> {{ m['role'] }} {{ m['content'] }} </s> {% endfor %}"
    "{% if add_generation_prompt %}<s> assistant {% endif %}"
)


def test_of_a_conversation_the_assistants_last_message_is_measured() -> None:
    """By plain transformers: the tokens of the content alone, after whatever the template writes."""
    words = copy.deepcopy(tokenizer())
    words.chat_template = TEMPLATE
    model = interp.load(build("llama"), tokenizer=words)

    def said(content: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": "w10 w11"}, {"role": "assistant", "content": content}]

    found = Texts((said("w20 w21 w22"),), (said("w30 w31"),)).values(model, (), instruction="w40")
    means = []
    for content in ("w20 w21 w22", "w30 w31"):
        text = f"<s> system w40 </s> <s> user w10 w11 </s> <s> assistant {content}"
        ids = words(text, return_tensors="pt").input_ids
        with torch.no_grad():
            logs = model.hf(ids).logits[0].double().log_softmax(-1)
        n = len(content.split())
        means.append(float(logs[-n - 1 : -1].gather(1, ids[0, -n:, None]).mean()))
    assert found[0] == pytest.approx(means[0] - means[1], abs=1e-5)


def test_a_question_that_was_fitted_on_is_known_again_and_openings_are_told_once() -> None:
    words = copy.deepcopy(tokenizer())
    words.chat_template = TEMPLATE
    model = interp.load(build("llama"), tokenizer=words)

    def said(question: str, content: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": question}, {"role": "assistant", "content": content}]

    up, down = ([said(one, content) for one in PROMPTS[:4]] for content in ("w20", "w30"))
    vector = steering.fit(model, up, down, "resid_post.1")
    asked = tuple([{"role": "user", "content": one}] for one in PROMPTS)
    with pytest.raises(DataError, match="4 of 6 prompts of the score were fitted on"):
        evaluated(model, vector, score=LogOdds(asked, ("w07",)))
    assert Texts((*up, *down), (*down, *up)).openings == asked[:4]
    begin = "w01 w02 w03 w04 w05 w06"
    assert Texts((begin, begin), (f"{begin} w07", f"{begin} w08")).openings == (begin,)
