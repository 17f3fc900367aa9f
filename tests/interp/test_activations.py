"""Activations: what goes in comes out, in any selection, and nothing of another model gets mixed in."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.activations import Activations
from interp.errors import ArtifactError, ConfigError, DataError, SiteError
from interp.sites import Site

NAMES = ("embed", "resid_pre.0", "resid_post.0", "resid_post.2", "resid_post.10", "logits")
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def made(
    count: int = 4,
    *,
    names: tuple[str, ...] = ("resid_post.0", "resid_post.10", "resid_post.2"),
    lengths: list[int] | None = None,
    width: int = 3,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    texts: list[str] | None = None,
    **facts: Any,
) -> Activations:
    """Make random activations; ``lengths`` are the numbers of positions per example, None for one each."""
    generator = torch.Generator().manual_seed(seed)
    shape = (count, width) if lengths is None else (count, max(lengths), width)
    tensors = {name: torch.randn(shape, generator=generator).to(dtype) for name in names}
    if lengths is not None:
        empty = torch.arange(max(lengths))[None] >= torch.tensor(lengths)[:, None]
        tensors = {name: tensor.masked_fill(empty[..., None], 0) for name, tensor in tensors.items()}
    sizes = [2] * count if lengths is None else lengths
    ids = [list(range(seed, seed + size + 1)) for size in sizes]
    positions: Any = [1] * count if lengths is None else [list(range(size)) for size in lengths]
    settings = {"fingerprint": "f" * 64, "model_name": "tiny"} | facts
    texts = [f"text {i}" for i in range(count)] if texts is None else texts
    return Activations(tensors, ids, positions, texts, **settings)


@st.composite
def recipes(draw: st.DrawFn) -> dict[str, Any]:
    """Draw how to make activations of any size, kind of positions, dtype and sites."""
    count = draw(st.integers(1, 4))
    return {
        "count": count,
        "lengths": draw(st.none() | st.lists(st.integers(0, 3), min_size=count, max_size=count)),
        "names": tuple(draw(st.lists(st.sampled_from(NAMES), min_size=1, unique=True))),
        "width": draw(st.integers(1, 3)),
        "seed": draw(st.integers(0, 99)),
        "dtype": draw(st.sampled_from(DTYPES)),
        "weights": draw(st.sampled_from(["trained", "random"])),
        "texts": draw(st.lists(st.text(st.characters()), min_size=count, max_size=count)),
        "warnings": draw(st.lists(st.text(), max_size=2)),
    }


@given(recipes())
@settings(max_examples=60, deadline=None)
def test_what_is_saved_is_what_is_loaded(
    tmp_path_factory: pytest.TempPathFactory, recipe: dict[str, Any]
) -> None:
    """Any value survives the disk, surrogates and empty rows included; a changed number is not equal."""
    acts = made(**recipe)
    folder = acts.save(tmp_path_factory.mktemp("saved"))
    loaded = Activations.load(folder)
    assert loaded == acts
    assert loaded.keys() == acts.keys() and loaded.dtype == acts.dtype
    name = acts.keys()[-1]
    if acts[name].numel():
        other = Activations.load(folder).tensors[name].clone()
        other.view(-1)[-1] += 1
        assert Activations({**loaded.tensors, name: other}, *_facts(acts)) != acts


def _facts(acts: Activations) -> tuple[Any, ...]:
    where = (acts.token_ids, acts.positions, acts.texts)
    return (*where, acts.fingerprint, acts.model_name, acts.weights, acts.scheme, acts.warnings)


@given(recipes(), st.data())
@settings(max_examples=60, deadline=None)
def test_cutting_and_joining_gives_the_same(recipe: dict[str, Any], data: st.DataObject) -> None:
    """Selecting all rows in parts and concatenating them is the identity, padding included."""
    acts = made(**recipe)
    cut = data.draw(st.integers(0, len(acts)))
    rows = list(range(len(acts)))
    parts = [acts.select(examples=part) for part in (rows[:cut], rows[cut:]) if part]
    joined = Activations.concatenate(parts)
    assert joined.keys() == acts.keys() and _facts(joined)[:3] == _facts(acts)[:3]
    for name, tensor in acts.items():
        assert torch.equal(joined[name], tensor)


@given(recipes(), st.data())
@settings(max_examples=60, deadline=None)
def test_selected_rows_are_the_rows_asked_in_the_order_asked(
    recipe: dict[str, Any], data: st.DataObject
) -> None:
    """Indices may repeat and count from the end; the oracle is plain NumPy indexing of the valid entries."""
    acts = made(**recipe)
    rows = data.draw(st.lists(st.integers(-len(acts), len(acts) - 1), min_size=1, max_size=5))
    chosen = acts.select(examples=rows)
    for place, row in enumerate(rows):
        assert chosen.texts[place] == acts.texts[row]
        assert chosen.token_ids[place] == acts.token_ids[row]
        for name, tensor in acts.items():
            old, new = tensor[row], chosen[name][place]
            if not acts.single:
                old, new = old[: len(acts.positions[row])], new[chosen.mask[place]]
            assert torch.equal(new, old)


@given(st.lists(st.sampled_from(NAMES[1:5]), min_size=1, max_size=4, unique=True), st.booleans())
@settings(max_examples=40, deadline=None)
def test_stack_puts_layers_in_the_order_asked(asked: list[str], several: bool) -> None:
    """``stack(sites)[..., i, :]`` is the i-th site asked."""
    acts = made(names=NAMES, lengths=[2, 1, 3, 2] if several else None)
    stacked = acts.stack(asked)
    assert stacked.shape == (*acts["embed"].shape[:-1], len(asked), 3)
    for number, name in enumerate(asked):
        assert torch.equal(stacked[..., number, :], acts[name])


def test_sites_come_in_execution_order_and_globs_follow_it() -> None:
    """Layer 10 stands after layer 2, whatever the order given; an explicit list keeps its own order."""
    acts = made()
    assert acts.keys() == ("resid_post.0", "resid_post.2", "resid_post.10")
    assert acts.sites == (Site("resid_post", 0), Site("resid_post", 2), Site("resid_post", 10))
    assert torch.equal(acts.stack("resid_post.*")[:, 2], acts["resid_post.10"])
    assert torch.equal(acts.stack(["resid_post.10", "resid_post.0"])[:, 0], acts["resid_post.10"])
    assert acts.select("resid_post.10,resid_post.0").keys() == ("resid_post.0", "resid_post.10")


def test_redacted_activations_do_not_say_their_prompts() -> None:
    """Token ids decode to the text; the lengths and the values stay."""
    acts = Activations({"embed": torch.ones(2, 3)}, [[5, 6], [7]], [1, 0], ["a b", "c"], "print", "m")
    bare = acts.redacted()
    assert bare.token_ids == ((-1, -1), (-1,)) and bare.texts == ("", "")
    assert torch.equal(bare["embed"], acts["embed"]) and bare.positions == acts.positions
    assert "left out" in bare.warnings[-1] and acts.token_ids == ((5, 6), (7,))


@pytest.mark.parametrize("asked", ["resid_post.2", Site("resid_post", 2), "blocks.2.hook_resid_post", "*.2"])
def test_a_site_can_be_asked_by_any_of_its_names(asked: str | Site) -> None:
    acts = made()
    assert acts[asked] is acts.tensors["resid_post.2"]
    assert asked in acts
    assert "resid_post.3" not in acts and 3 not in acts


@pytest.mark.parametrize(
    ("examples", "rows"),
    [
        (2, [2]),
        (-1, [3]),
        (slice(1, 3), [1, 2]),
        ([3, 0, 3], [3, 0, 3]),
        ([True, False, False, True], [0, 3]),
        (torch.tensor([False, True, True, False]), [1, 2]),
        (np.array([2, -4]), [2, 0]),
    ],
)
def test_examples_can_be_named_in_every_usual_way(examples: Any, rows: list[int]) -> None:
    acts = made()
    chosen = acts.select(examples=examples)
    assert chosen.texts == tuple(f"text {row}" for row in rows)
    assert torch.equal(chosen["resid_post.0"], acts["resid_post.0"][rows])


def test_padding_shrinks_and_grows_with_the_longest_row() -> None:
    """The position axis is never wider than needed, and what is padded is zero and masked."""
    acts = made(lengths=[1, 3, 2, 0])
    assert acts["resid_post.0"].shape == (4, 3, 3)
    assert acts.mask.sum(1).tolist() == [1, 3, 2, 0]
    assert acts.select(examples=[0, 2])["resid_post.0"].shape == (2, 2, 3)
    longer = Activations.concatenate([acts.select(examples=[0]), acts.select(examples=[1])])
    assert longer["resid_post.0"].shape == (2, 3, 3)
    assert longer["resid_post.0"][~longer.mask].abs().sum() == 0
    assert longer["resid_post.0"][longer.mask].abs().min() > 0


def test_head_axes_and_patterns_are_kept() -> None:
    """A pattern's key axis grows like the position axis; no other axis may differ."""

    def part(width: int) -> Activations:
        tensors = {"z.0": torch.ones(2, width, 4, 8), "pattern.0": torch.ones(2, width, 4, width)}
        ids = [list(range(width))] * 2
        return Activations(tensors, ids, [list(range(width))] * 2, ["a", "b"], "f", "m")  # fmt: skip

    joined = Activations.concatenate([part(2), part(3)])
    assert joined["pattern.0"].shape == (4, 3, 4, 3)
    assert joined["pattern.0"][0, :, :, 2].abs().sum() == 0 and joined["pattern.0"][0, 0, 0, 1] == 1
    other = Activations({"z.0": torch.ones(2, 2, 5, 8)}, [[1, 2]] * 2, [[0, 1]] * 2, ["a", "b"], "f", "m")
    with pytest.raises(DataError, match=r"z\.0 has shape .* Capture both alike"):
        Activations.concatenate([part(2).select("z.0"), other])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: made(fingerprint="e" * 64), r"fingerprint 'f{12}\.\.\.', part 1 has 'e{12}"),
        (lambda: made(weights="random"), "weights 'trained', part 1 has 'random'"),
        (lambda: made(scheme="int4"), "scheme 'none', part 1 has 'int4'"),
        (lambda: made(lengths=[1, 1, 1, 1]), "single True, part 1 has False"),
        (lambda: made(names=("resid_post.0",)), "Select the same sites first"),
        (lambda: made(dtype=torch.bfloat16), r"torch.bfloat16 on cpu in part 1. Use .to first"),
        (lambda: made(width=2), r"shape \[4, 3\] in the first, \[4, 2\] in part 1"),
    ],
)
def test_what_does_not_belong_together_is_not_joined(change: Callable[[], Activations], message: str) -> None:
    """Each single difference is refused by name, and the same part is accepted without it."""
    assert len(Activations.concatenate([made(), made(seed=1)])) == 8
    with pytest.raises(DataError, match=message):
        Activations.concatenate([made(), change()])


def test_a_model_under_another_name_is_the_same_model() -> None:
    assert len(Activations.concatenate([made(), made(model_name="a copy")])) == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (({}, [[1]], [0], ["a"]), "at least one site"),
        (({"embed": torch.ones(0, 2)}, [], [], []), "at least one example"),
        (({"embed": torch.ones(2, 2)}, [[1]], [0], ["a"]), r"embed has shape \[2, 2\], .* need \[1, ...\]"),
        (({"embed": torch.ones(1, 3, 2)}, [[1, 2]], [[0, 1]], ["a"]), r"need \[1, 2, ...\]"),
        (({"embed": torch.ones(1)}, [[1]], [0], ["a"]), r"embed has shape \[1\]"),
        (({"embed": torch.ones(1, 2)}, [[1]], [0, 0], ["a"]), "2 positions and 1 texts"),
        (({"embed": torch.ones(1, 2)}, [[1]], [1], ["a"]), r"position 1, but its tokens are 0\.\.0"),
        (({"embed": torch.ones(1, 2)}, [[1]], [-1], ["a"]), "position -1"),
        (({"embed": torch.ones(2, 1, 2)}, [[1], [1]], [[0], 0], ["a", "b"]), "mix numbers with lists"),
    ],
)
def test_parts_that_do_not_fit_are_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Activations(*arguments, "f", "m")


@pytest.mark.parametrize(
    ("ask", "error", "message"),
    [
        (lambda a: a["resid_post.3"], SiteError, r"'resid_post\.3' was not captured\. Nearest: resid_post"),
        (lambda a: a["resid_post.*"], SiteError, r"matches resid_post\.0, .* \.stack"),
        (lambda a: a["blocks.0.hook_nothing"], SiteError, "no site corresponds"),
        (lambda a: a.select("head.*"), SiteError, r"'head\.\*' was not captured"),
        (lambda a: a.select([]), SiteError, "no sites asked"),
        (lambda a: a.select(examples=4), DataError, r"example 4 asked, but there are examples 0\.\.3"),
        (lambda a: a.select(examples=[True]), DataError, "mask of 1 entry was given for 4 examples"),
        (lambda a: a.select(examples=[]), DataError, "at least one example"),
        (lambda a: a.to(dtype="float31"), ConfigError, "no dtype 'float31'"),
        (lambda a: Activations.concatenate([]), DataError, "Give at least one"),
    ],
)
def test_wrong_questions_get_an_answer_that_helps(
    ask: Callable[[Activations], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        ask(made())


def test_sites_of_different_widths_are_not_stacked() -> None:
    acts = Activations({"embed": torch.ones(1, 2), "logits": torch.ones(1, 5)}, [[1]], [0], ["a"], "f", "m")
    with pytest.raises(DataError, match=r"embed has shape \[1, 2\], logits has \[1, 5\]"):
        acts.stack()


def test_a_value_is_frozen_and_neither_copies_nor_detaches() -> None:
    leaf = torch.ones(1, 2, requires_grad=True)
    acts = Activations({"embed": leaf}, [[1]], [0], ["a"], "f", "m")
    assert acts["embed"] is leaf
    acts["embed"].sum().backward()
    assert leaf.grad is not None
    with pytest.raises(AttributeError):
        acts.texts = ()  # type: ignore[misc]
    with pytest.raises(TypeError):
        acts.tensors["embed"] = leaf  # type: ignore[index]
    with pytest.raises(TypeError, match="not iterable"):
        iter(acts)


def test_a_gradient_is_not_saved_but_its_values_are(tmp_path: Path) -> None:
    leaf = torch.arange(4.0).reshape(2, 2).requires_grad_()
    acts = Activations({"embed": leaf, "resid_pre.0": leaf.T}, [[1], [2]], [0, 0], ["a", "b"], "f", "m")
    loaded = Activations.load(acts.save(tmp_path))
    assert torch.equal(loaded["embed"], leaf) and torch.equal(loaded["resid_pre.0"], leaf.T)


def test_to_changes_the_numbers_only() -> None:
    acts = made()
    half = acts.to(dtype="float16")
    assert half.dtype == torch.float16 and acts.dtype == torch.float32
    assert _facts(half) == _facts(acts)
    assert acts.to("meta").device.type == "meta"
    assert acts.to("cpu") == acts


def test_it_copies_and_pickles_like_a_plain_value() -> None:
    acts = made(lengths=[1, 2, 3, 1], warnings=("careful",))
    assert copy.deepcopy(acts) == acts
    assert pickle.loads(pickle.dumps(acts)) == acts


def test_nan_equals_nan_and_nothing_else() -> None:
    nan = {"embed": torch.tensor([[float("nan"), 1.0]])}
    one, two = (Activations(nan, [[1]], [0], ["a"], "f", "m") for _ in range(2))
    assert one == two
    assert one != Activations({"embed": torch.ones(1, 2)}, [[1]], [0], ["a"], "f", "m")
    assert one != "something else"


def test_loading_some_sites_reads_those_only(tmp_path: Path) -> None:
    acts = made()
    acts.save(tmp_path)
    assert Activations.load(tmp_path, sites="resid_post.1*").keys() == ("resid_post.10",)
    with pytest.raises(SiteError, match="not captured"):
        Activations.load(tmp_path, sites="embed")


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    """Flip one bit at 40 places of each file; every one is an ArtifactError that names the file."""
    made().save(tmp_path)
    generator = np.random.default_rng(0)
    for name in ("activations.safetensors", "activations.json"):
        path = tmp_path / name
        good = path.read_bytes()
        for place in generator.integers(0, len(good), 40):
            bad = bytearray(good)
            bad[place] ^= 1 << int(generator.integers(0, 8))
            path.write_bytes(bad)
            if name.endswith(".json") and _same_json(good, bytes(bad)):
                continue
            with pytest.raises(ArtifactError, match=name.replace(".", r"\.")):
                Activations.load(tmp_path)
        path.write_bytes(good)
    assert Activations.load(tmp_path) == made()


def _same_json(good: bytes, bad: bytes) -> bool:
    try:
        return json.loads(bad) == json.loads(good)
    except ValueError:
        return False


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "activations.json").unlink(), "cannot read"),
        (lambda f: (f / "activations.safetensors").unlink(), r"activations\.safetensors is missing"),
        (lambda f: (f / "activations.safetensors").write_bytes(b"x"), "has 1 byte"),
        (lambda f: (f / "activations.json").write_text("[]"), "holds a list"),
        (
            lambda f: (f / "activations.json").write_text('{"schema": "interp.activations/9"}'),
            "activations/9",
        ),
    ],
)
def test_damage_is_named(tmp_path: Path, damage: Callable[[Path], Any], message: str) -> None:
    made().save(tmp_path)
    damage(tmp_path)
    with pytest.raises(ArtifactError, match=message):
        Activations.load(tmp_path)


def test_a_place_that_cannot_be_written_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write"):
        made().save(tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_saving_twice_gives_the_same_bytes_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    made().save(tmp_path / "a")
    made().save(tmp_path / "a")
    made().save(tmp_path / "b")
    files = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()}
    assert sorted(files) == ["activations.json", "activations.safetensors"]


def test_it_prints_in_one_line_and_escapes_html() -> None:
    acts = made(model_name="<script>alert(1)</script>", weights="random")
    assert "4 examples, one position each; resid_post.0, resid_post.2, resid_post.10" in repr(acts)
    assert "\n" not in repr(acts) and len(repr(made(names=NAMES))) < 200
    assert "<script>" not in acts._repr_html_() and "&lt;script&gt;" in acts._repr_html_()
    assert "up to 3 positions each" in repr(made(lengths=[1, 2, 3, 1]))


def test_only_torch_and_safetensors_are_imported() -> None:
    """Opening activations must not load transformers or pandas."""
    code = (
        "import sys, interp.activations, interp.store; print({'transformers', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
