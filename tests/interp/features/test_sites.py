"""Features and errors as sites: read, written as changes, bit-exact where nothing changes."""

from __future__ import annotations

from functools import cache

import pytest
import torch

import interp
from interp import Intervention
from interp.errors import ConfigError, InterpError, SiteError
from interp.models.model import Model
from interp.sites import Site
from tests.dictionaries import ACTIVATIONS, random_dictionary, transcoder
from tests.tiny import tiny

PROMPTS = [[5, 9, 11, 7], [8, 6, 10]]
OTHERS = [[4, 12, 13, 20], [30, 31, 10]]


@cache
def plain(family: str = "llama") -> Model:
    hf, words = tiny(family)
    return interp.load(hf, tokenizer=words)


PLACES = {
    "resid_post.1": ("llama", "gpt2", "granite"),
    "resid_pre.1": ("llama",),
    "resid_mid.1": ("llama", "gemma2"),
    "mlp_out.2": ("llama", "gemma2", "granite", "gpt2"),
    "attn_out.0": ("granite",),
    "z.1": ("llama",),
    "mlp_act.1": ("llama",),
    "embed": ("llama",),
}
WIDTHS = {"mlp_act.1": 48}
CASES = [(site, family) for site, families in PLACES.items() for family in families]


def given(site: str, family: str, activation: str = "jumprelu") -> Model:
    model = plain(family)
    width = WIDTHS.get(site, model.d_model)
    if site.startswith("z"):
        width = model.n_heads * model.d_head
    return model.with_dictionaries(random_dictionary(width, 40, site=site, activation=activation))


@pytest.mark.parametrize(("site", "family"), CASES)
def test_features_and_error_are_those_of_the_captured_site(site: str, family: str) -> None:
    model = given(site, family)
    layer = model.dictionaries and next(iter(model.dictionaries))
    read = model.capture(PROMPTS, [site, f"feature.{layer}", f"feature.{layer}.7", f"error.{layer}"], "all")
    x = read[site].flatten(2)
    dictionary = model.dictionaries[layer]
    # beyond a prompt's end everything captured is 0
    inside = torch.arange(4) < torch.tensor([4, 3])[:, None]
    wanted, left = dictionary.encode(x) * inside[..., None], dictionary.errors(x) * inside[..., None]
    assert torch.allclose(read[f"feature.{layer}"], wanted, atol=1e-5)
    assert torch.allclose(read[f"error.{layer}"], left, atol=1e-5)
    assert torch.equal(read[f"feature.{layer}.7"][..., 0], read[f"feature.{layer}"][..., 7])
    assert float(wanted.abs().max()) > 0.1


@pytest.mark.parametrize(("site", "family"), CASES)
def test_no_change_leaves_every_bit_and_everything_replaced_gives_the_other_run(
    site: str, family: str
) -> None:
    model = given(site, family)
    layer = next(iter(model.dictionaries))
    prompts, others = PROMPTS[:1], OTHERS[:1]
    own, other = model.logits(prompts), plain(family).logits(others)
    same = [Intervention(name, lambda x: x.clone()) for name in (f"feature.{layer}", f"error.{layer}")]
    assert torch.equal(model.run(prompts, interventions=same).logits, own)
    assert torch.equal(own, plain(family).logits(prompts))
    read = model.capture(others, [f"feature.{layer}", f"error.{layer}", site], "all")
    swap = [Intervention(name, read[name]) for name in (f"feature.{layer}", f"error.{layer}")]
    found = model.run(prompts, interventions=swap).logits
    wanted = model.run(prompts, interventions=[Intervention(site, read[site])]).logits
    assert torch.allclose(found, wanted, atol=2e-5)
    alone = model.run(prompts, interventions=swap[:1]).logits
    assert not torch.allclose(alone, wanted, atol=1e-3)  # the error carries the rest
    if site in ("resid_post.1", "resid_pre.1", "embed"):
        assert torch.allclose(found, other, atol=2e-5)


@pytest.mark.parametrize("read", ["site", "norm"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "olmo2", "gemma2"])
def test_a_transcoder_reads_one_place_and_writes_another(family: str, read: str) -> None:
    model = plain(family).with_dictionaries(transcoder(layer=1, read=read))
    values = model.capture(PROMPTS[:1], ["resid_mid.1", "mlp_out.1", "feature.1", "error.1"], "all")
    x = values["resid_mid.1"]
    if read == "norm":
        module = model.architecture.part(1, "resid_mid")
        x = x if family == "olmo2" else module(x)
    dictionary = model.dictionaries[1]
    assert torch.allclose(values["feature.1"], dictionary.encode(x), atol=1e-5)
    assert torch.allclose(values["error.1"], dictionary.errors(x, values["mlp_out.1"]), atol=1e-5)
    change = torch.zeros(48).index_fill(0, torch.tensor([3, 8]), 2.0)
    edit = Intervention("feature.1", lambda f: f + change)
    after = model.run(PROMPTS[:1], interventions=[edit], capture=["mlp_out.1", "feature.1"], positions="all")
    moved = after.activations["mlp_out.1"] - values["mlp_out.1"]
    assert torch.allclose(moved, (change @ dictionary.decoder).expand_as(moved), atol=1e-5)
    assert torch.allclose(after.activations["feature.1"], values["feature.1"] + change, atol=1e-5)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_written_features_move_the_stream_by_their_rows_and_read_as_written(activation: str) -> None:
    model = given("resid_post.1", "llama", activation)
    before = model.capture(PROMPTS[:1], ["resid_post.1", "feature.1"], "all")
    edits = [Intervention("feature.1.3", 5.0), Intervention("feature.1.9", 0.0), Intervention("error.1", 0.0)]
    read = ["resid_post.1", "feature.1", "feature.1.3", "error.1"]
    after = model.run(PROMPTS[:1], interventions=edits, capture=read, positions="all").activations
    wanted = before["feature.1"].clone()
    wanted[..., 3], wanted[..., 9] = 5.0, 0.0
    assert torch.allclose(after["feature.1"], wanted, atol=1e-5)
    assert torch.allclose(after["feature.1.3"], torch.full_like(after["feature.1.3"], 5.0), atol=1e-5)
    assert float(after["error.1"].abs().max()) < 1e-5
    assert torch.allclose(after["resid_post.1"], model.dictionaries[1].decode(wanted), atol=1e-5)


def test_gradients_at_features_are_decoder_rows_times_gradients_of_the_site() -> None:
    model = given("resid_post.1", "llama", "topk")
    run = model.run(PROMPTS[:1], capture=["resid_post.1", "feature.1", "error.1"], positions="all", grad=True)
    nodes = [run.activations[name] for name in ("resid_post.1", "feature.1", "error.1")]
    score = run.logits[0, 7] - run.logits[0, 9]
    at_site, at_features, at_error = torch.autograd.grad(score, nodes)
    assert torch.allclose(at_features, at_site @ model.dictionaries[1].decoder.T, atol=1e-6)
    assert torch.allclose(at_error, at_site, atol=1e-7)
    assert float(at_features.abs().max()) > 1e-3


def test_features_can_be_written_while_text_is_generated() -> None:
    model = given("resid_post.1", "llama")
    edit = Intervention("feature.1.3", lambda f: f + 3.0)
    step = model.generate([PROMPTS[0]], max_new_tokens=3, interventions=[edit])
    whole = model.generate([PROMPTS[0]], max_new_tokens=3, interventions=[edit], use_cache=False)
    assert step.token_ids == whole.token_ids
    assert step.token_ids != model.generate([PROMPTS[0]], max_new_tokens=3).token_ids


def test_a_model_without_a_dictionary_says_how_to_give_one() -> None:
    for name in ("feature.1", "feature.*.*", "error.1", "feature.1.5"):
        with pytest.raises(SiteError, match=r"was given no dictionary.*with_dictionaries"):
            plain().capture(PROMPTS, name)
    model = given("resid_post.1", "llama")
    with pytest.raises(SiteError, match=r"layer 2 .* These layers have one: 1"):
        model.capture(PROMPTS, "feature.2")
    with pytest.raises(SiteError, match=r"features 0\.\.39"):
        model.capture(PROMPTS, "feature.1.40")
    assert "feature" in model.sites and "feature" not in plain().sites


def test_dictionaries_that_do_not_fit_are_refused() -> None:
    model = plain()
    wrong = [
        ([random_dictionary(16, 24)], ConfigError, "of another model"),
        ([random_dictionary(site="resid_post.7")], SiteError, "of another model"),
        ([random_dictionary(site="q.1")], SiteError, "can be used"),
        (
            [random_dictionary(), random_dictionary(site="mlp_out.1")],
            ConfigError,
            "two dictionaries read layer 1",
        ),
    ]
    for dictionaries, error, text in wrong:
        with pytest.raises(error, match=text):
            model.with_dictionaries(*dictionaries)
    with pytest.raises(InterpError, match="resid_mid"):
        plain("gpt_neox").with_dictionaries(transcoder())
    assert Site.parse("feature.1.5") == Site("feature", 1, 5)
