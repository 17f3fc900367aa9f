"""Sites: the grammar round-trips, sorts in execution order, and says what is wrong."""

from __future__ import annotations

import copy
import pickle
import random
import subprocess
import sys
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interp import sites
from interp.errors import SiteError
from interp.sites import KINDS, Site, expand, parse_layers, transformer_lens_name


@dataclass(frozen=True)
class Dims:
    """A model's sizes."""

    name: str = "gpt2"
    n_layers: int = 12
    n_heads: int = 4
    n_kv_heads: int = 2
    d_mlp: int = 8


DIMS = Dims()


@st.composite
def any_site(draw: st.DrawFn) -> Site:
    """Draw a valid site."""
    row = KINDS[draw(st.sampled_from(sorted(KINDS)))]
    number = st.integers(0, 200)
    layer = draw(number) if row.layered else None
    index = {"none": st.none(), "optional": st.none() | number, "required": number}[row.index]
    return Site(row.name, layer, draw(index))


@given(any_site())
def test_parse_and_str_are_inverses(site: Site) -> None:
    assert Site.parse(str(site)) == site


@given(any_site())
def test_copies_are_equal_and_hash_alike(site: Site) -> None:
    for other in (pickle.loads(pickle.dumps(site)), copy.deepcopy(site), replace(site)):
        assert other == site and hash(other) == hash(site) and str(other) == str(site)
        assert {site: 1}[other] == 1


@given(st.lists(any_site(), min_size=2, unique=True), st.randoms(use_true_random=False))
def test_order_is_total_and_by_layer(found: list[Site], rng: random.Random) -> None:
    ordered = sorted(found)
    rng.shuffle(found)
    assert sorted(found) == ordered
    layers = [site.layer for site in ordered if site.layer is not None]
    assert layers == sorted(layers)


def test_order_is_execution_order() -> None:
    names = [
        "embed",
        "resid_pre.0",
        "q.0",
        "k.0",
        "v.0",
        "pattern.0",
        "z.0",
        "head.0.1",
        "attn_out.0",
        "resid_mid.0",
        "mlp_act.0",
        "neuron.0.3",
        "mlp_out.0",
        "resid_post.0",
        "resid_pre.1",
        "resid_post.10",
        "final_norm",
        "logits",
    ]
    assert [str(site) for site in sorted(map(Site.parse, reversed(names)))] == names


@given(st.integers(1, 80), st.data())
def test_layer_grammar_against_ranges(n_layers: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, n_layers - 1))
    stop = data.draw(st.integers(start, n_layers - 1))
    step = data.draw(st.integers(1, 9))
    assert parse_layers(f"{start}-{stop}:{step}", n_layers) == list(range(start, stop + 1, step))
    assert parse_layers(f"{stop},{start},{stop}", n_layers) == sorted({start, stop})
    assert parse_layers(-1, n_layers) == [n_layers - 1]
    assert parse_layers("all", n_layers) == list(range(n_layers))
    assert parse_layers("0%,100%", n_layers) == sorted({0, n_layers - 1})


def test_half_depth() -> None:
    assert parse_layers("50%", 25) == [12]
    assert parse_layers("12.5%", 9) == [1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("20", "layer 20 asked, but 'gpt2' has layers 0..11 (-1 is the last). Nearest: 11."),
        ("-13", "layer -13 asked, but 'gpt2' has layers 0..11 (-1 is the last). Nearest: 0."),
        ("5-2", "layers '5-2' runs backwards; write '2-5'."),
        ("5-7:0", "layers '5-7:0' has step 0."),
        ("101%", "layer '101%' asked, but a depth goes from 0% (first layer) to 100% (last layer)."),
        ("first", "cannot read layers 'first'. Write one of: 20   8,12   8-24:4   -1   50%   all"),
        ("", "cannot read layers ''. Write one of: 20   8,12   8-24:4   -1   50%   all"),
    ],
)
def test_bad_layers(text: str, message: str) -> None:
    with pytest.raises(SiteError) as caught:
        parse_layers(text, 12, name="gpt2")
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("resid_post.*", [f"resid_post.{n}" for n in range(12)]),
        ("head.5.*", [f"head.5.{n}" for n in range(4)]),
        ("k.0.*", ["k.0.0", "k.0.1"]),
        ("neuron.1.2-6:2", ["neuron.1.2", "neuron.1.4", "neuron.1.6"]),
        ("resid_post.-1", ["resid_post.11"]),
        ("resid_post.50%, embed", ["embed", "resid_post.6"]),
        ("resid_post.1,2,attn_out.0", ["attn_out.0", "resid_post.1", "resid_post.2"]),
        ("*_out.3", ["attn_out.3", "mlp_out.3"]),
        ("resid_*.0", ["resid_pre.0", "resid_mid.0", "resid_post.0"]),
        ("blocks.*.hook_resid_post", [f"resid_post.{n}" for n in range(12)]),
        ("blocks.2.attn.hook_result", [f"head.2.{n}" for n in range(4)]),
        ("resid_post.12.5%", ["resid_post.1"]),
    ],
)
def test_expand(pattern: str, expected: list[str]) -> None:
    assert [str(site) for site in expand(pattern, DIMS)] == expected


def test_expand_merges_and_sorts() -> None:
    found = expand(["resid_post.1", sites.embed(), "resid_post.*"], DIMS)
    assert [str(site) for site in found] == ["embed", *(f"resid_post.{n}" for n in range(12))]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (
            "resid_post.20",
            "layer 20 asked, but 'gpt2' has layers 0..11 (-1 is the last). Nearest: resid_post.11.",
        ),
        ("head.20.3", "layer 20 asked, but 'gpt2' has layers 0..11 (-1 is the last). Nearest: head.11.*."),
        ("resid_pst.1", "unknown site 'resid_pst.1'. Nearest: resid_post."),
        ("head.3", "site 'head.3' needs a head: for example head.3.0 or head.3.*"),
        ("resid_post", "site 'resid_post' needs a layer: for example resid_post.0 or resid_post.*"),
        ("head.3.4", "head '4' of 'head' asked, but 'gpt2' has heads 0..3 per layer."),
        ("k.3.2", "kv head '2' of 'k' asked, but 'gpt2' has kv heads 0..1 per layer."),
        ("embed.3", "site 'embed' has no layer, but 3 was given. Write 'embed'."),
        ("resid_post.3.1", "site 'resid_post' takes no index, but '1' was given."),
        ("blocks.1.mlp.hook_pre", "no site corresponds to the TransformerLens name 'blocks.1.mlp.hook_pre'."),
        ("", "unknown site ''."),
    ],
)
def test_expand_errors(pattern: str, message: str) -> None:
    with pytest.raises(SiteError) as caught:
        expand(pattern, DIMS)
    assert message in str(caught.value)


def test_expand_checks_site_values_and_emptiness() -> None:
    with pytest.raises(SiteError, match="layer 12 asked"):
        expand(sites.resid_post(12), DIMS)
    with pytest.raises(SiteError, match="no sites asked"):
        expand([], DIMS)


@pytest.mark.parametrize(
    "text", ["resid_post.*", "resid_post.-1", "resid_post.1-2", "resid_post..1", "z.0.1.2", "layer.3"]
)
def test_parse_refuses_what_needs_a_model(text: str) -> None:
    with pytest.raises(SiteError):
        Site.parse(text)


@pytest.mark.parametrize(
    ("kind", "layer", "index"), [("resid_post", -1, None), ("head", 0, None), ("embed", 0, None)]
)
def test_impossible_sites_are_refused(kind: str, layer: int | None, index: int | None) -> None:
    with pytest.raises(SiteError):
        Site(kind, layer, index)


@given(any_site().filter(lambda site: site.index is None))
def test_transformer_lens_names_round_trip(site: Site) -> None:
    if site.kind in ("router", "shared_expert", "feature", "error"):
        with pytest.raises(SiteError, match="has no name in TransformerLens"):
            transformer_lens_name(site)
        return
    assert Site.parse(transformer_lens_name(site)) == site


def test_constructors_match_names() -> None:
    assert str(sites.head(5, 3)) == "head.5.3"
    assert {
        str(getattr(sites, kind)(*[2] * row.layered, *[1] * (row.index == "required")))
        for kind, row in KINDS.items()
    } == {
        ".".join([kind, *["2"] * row.layered, *["1"] * (row.index == "required")])
        for kind, row in KINDS.items()
    }


def test_sites_need_no_torch() -> None:
    code = "import interp.sites, sys; print(sorted({'torch', 'numpy', 'transformers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
