"""Vectors: what is fitted, what a dose adds and where, what ablation leaves, what files hold."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import interp
from interp import steering
from interp.activations.files import write_facts
from interp.errors import ArtifactError, ConfigError, DataError, ModelError, SiteError
from interp.models import Model
from interp.steering import Origin, Vector
from interp.steering.methods import METHODS, Sides
from interp.steering.pairs import Contrast
from tests.tiny import build, tiny, tokenizer

IDS = [[5, 6, 7, 8, 9], [10, 11, 12], [13, 14, 15, 16]]
UP = [f"w{a:02d} w01 w{b:02d}" for a, b in zip(range(10, 22), range(30, 42), strict=True)]
DOWN = [f"w{a:02d} w02 w{b:02d}" for a, b in zip(range(10, 22), range(30, 42), strict=True)]


@pytest.fixture(scope="module")
def llama() -> Model:
    hf, words = tiny("llama")
    return interp.load(hf, tokenizer=words)


@pytest.fixture(scope="module")
def fitted(llama: Model) -> Vector:
    return steering.fit(llama, UP, DOWN, "resid_post.1")


def planted(site: str = "resid_post.1", seed: int = 3, width: int = 32) -> Vector:
    drawn = torch.Generator().manual_seed(seed)
    return Vector.of("planted", {site: torch.randn(width, generator=drawn)}, Origin("file"))


def test_mean_difference_is_that_of_plain_transformers(llama: Model, fitted: Vector) -> None:
    def states(texts: list[str]) -> np.ndarray:
        with torch.no_grad():
            given = tokenizer()(texts, return_tensors="pt").input_ids
            return llama.hf(given, output_hidden_states=True).hidden_states[2][:, -1].double().numpy()

    wanted = states(UP).mean(axis=0) - states(DOWN).mean(axis=0)
    np.testing.assert_allclose(fitted.unit * fitted.direction.double(), wanted, atol=1e-5)
    assert fitted.layer == 1
    assert fitted.origin.norms["resid_post.1"] == pytest.approx(
        np.linalg.norm(np.concatenate([states(UP), states(DOWN)]), axis=1).mean(), rel=1e-5
    )


def test_methods_find_a_planted_direction_and_agree_on_the_dose(llama: Model) -> None:
    found = {name: steering.fit(llama, UP, DOWN, "resid_post.0", method=name, positions=1) for name in
             ("mean-difference", "whitened", "pca", "probe")}  # fmt: skip
    main = found["mean-difference"]
    for name, one in found.items():
        assert one.unit == pytest.approx(main.unit), name
        assert float(one.direction @ main.direction) > 0.2, name  # by chance 0.18 in 32 dimensions
        assert one.origin.separation["resid_post.0"]["value"] > 0.9, name
    mixed = UP[::2] + DOWN[::2], DOWN[1::2] + UP[1::2]
    shuffled = steering.fit(llama, *mixed, "resid_post.0", positions=1)
    assert shuffled.origin.separation["resid_post.0"]["value"] < 0.8


def test_a_contrast_of_instructions_is_the_mean_difference_of_the_prompts_under_them(llama: Model) -> None:
    ours = steering.fit(llama, ["w50"], ["w51"], "resid_post.1", method="prompts", prompts=UP)
    up, down = ([f"{word}\n{text}" for text in UP] for word in ("w50", "w51"))
    plain = steering.fit(llama, up, down, "resid_post.1")
    torch.testing.assert_close(ours.direction, plain.direction)
    assert ours.unit == pytest.approx(plain.unit)


@pytest.mark.parametrize("positions", ["all", "last", slice(1, None)])
def test_a_dose_is_added_at_exactly_the_asked_tokens(llama: Model, positions: Any) -> None:
    vector = planted()
    before, after = (
        llama.run(IDS, interventions=what, capture="resid_post.1", positions="all").activations
        for what in (None, vector.interventions(-1.5, positions=positions))
    )
    assert before is not None
    assert after is not None
    moved = (after["resid_post.1"] - before["resid_post.1"]).double()
    for row, ids in enumerate(IDS):
        chosen = range(len(ids))[positions] if isinstance(positions, slice) else range(len(ids))
        chosen = [len(ids) - 1] if positions == "last" else list(chosen)
        for at in range(len(ids)):
            wanted = -1.5 * vector.unit * vector.direction.double() * (at in chosen)
            torch.testing.assert_close(moved[row, at], wanted, atol=2e-5, rtol=0)


def test_generation_is_steered_with_the_cache_as_without(llama: Model) -> None:
    vector = planted()
    plain, cached, whole = (
        llama.generate(IDS, max_new_tokens=6, interventions=what, use_cache=cache).token_ids
        for what, cache in ((None, True), (vector.interventions(2), True), (vector.interventions(2), False))
    )
    assert cached == whole
    assert cached != plain


@pytest.mark.parametrize("family", ["llama", "gpt2", "gptj", "opt"])
def test_ablation_at_every_writer_is_the_edit_of_the_weights(family: str) -> None:
    model, vector = interp.load(build(family)), planted("resid_post.2")
    plain = model.run(IDS).logits
    ablated = model.run(IDS, interventions=steering.ablations(model, vector)).logits
    edited = steering.without(model, vector)
    assert plain is not None
    assert ablated is not None
    torch.testing.assert_close(edited.run(IDS).logits, ablated, atol=2e-5, rtol=0)
    assert float((ablated - plain).abs().max()) > 0.1
    torch.testing.assert_close(model.run(IDS).logits, plain, atol=0, rtol=0)  # the original stays
    stream = edited.capture(IDS, "resid_post.*", "all")
    assert max(float((one @ vector.direction).abs().max()) for _, one in stream.items()) < 1e-4


@pytest.mark.parametrize("family", ["gemma2", "mixtral", "bloom"])
def test_a_writer_that_is_no_plain_matrix_is_found_by_measuring(family: str) -> None:
    with pytest.raises(ModelError, match=r"still writes the direction .* Use steering.ablations"):
        steering.without(interp.load(build(family)), planted())


def test_random_directions_are_as_long_and_almost_orthogonal(fitted: Vector) -> None:
    drawn = torch.stack([fitted.random(seed).direction for seed in range(200)])
    torch.testing.assert_close(drawn.norm(dim=1), torch.ones(200))
    assert fitted.random(7).unit == fitted.unit
    assert float((drawn @ fitted.direction).mean().abs()) < 3 / (32 * 200) ** 0.5
    torch.testing.assert_close(fitted.opposite().direction, -fitted.direction)


def test_a_saved_vector_is_read_as_it_was(fitted: Vector, tmp_path: Path) -> None:
    read = Vector.load(fitted.save(tmp_path / "run" / "vector").parent)
    assert torch.equal(read.direction, fitted.direction)
    assert (read.origin, read.units, read.name) == (fitted.origin, fitted.units, fitted.name)
    fitted.save(tmp_path / "hidden", text=False)
    assert "w10 w01" not in (tmp_path / "hidden" / "vector.json").read_text()
    card = tmp_path / "run" / "vector" / "vector.json"
    card.write_text(card.read_text().replace("mean-difference", "probe"))
    with pytest.raises(ArtifactError, match="checksum"):
        Vector.load(tmp_path / "run")
    with pytest.raises(ArtifactError, match="holds no steering vector"):
        Vector.load(tmp_path)


def test_control_vectors_are_files_that_the_package_gguf_reads(llama: Model, tmp_path: Path) -> None:
    from gguf import GGUFReader

    vector = steering.fit(llama, UP, DOWN, ["resid_post.1", "resid_post.2"])
    path = steering.write_control_vector(vector, tmp_path / "v.gguf", dose=2)
    file: Any = GGUFReader(path)
    assert file.get_field("general.architecture").contents() == "controlvector"
    assert file.get_field("controlvector.model_hint").contents() == "llama"
    assert file.get_field("controlvector.layer_count").contents() == 2
    assert "; strength 1 is dose 2" in file.get_field("general.description").contents()
    tensors = {one.name: np.array(one.data) for one in file.tensors}
    assert list(tensors) == ["direction.1", "direction.2"]
    wanted = 2 * vector.units["resid_post.2"] * vector.directions["resid_post.2"].numpy()
    np.testing.assert_allclose(tensors["direction.2"], wanted, rtol=1e-6)
    read = steering.read_control_vector(path, llama)
    one, two = (llama.run(IDS, interventions=v.interventions(d)).logits for v, d in ((read, 1), (vector, 2)))
    torch.testing.assert_close(one, two, atol=1e-5, rtol=0)
    assert read.check(llama) == ()
    again: Any = GGUFReader(steering.write_control_vector(read, tmp_path / "again.gguf"))
    assert again.get_field("controlvector.model_hint").contents() == "llama"


def test_a_control_vector_adds_to_what_its_block_gives(llama: Model, tmp_path: Path) -> None:
    """``direction.N`` belongs to block N counted from 0: here a plain hook on that block adds it."""
    vector = planted("resid_post.2")
    read = steering.read_control_vector(steering.write_control_vector(vector, tmp_path / "v.gguf"), llama)
    ours = llama.run(IDS[:1], interventions=read.interventions(1)).logits
    shift = vector.unit * vector.direction
    hook = llama.hf.model.layers[2].register_forward_hook(lambda *a: a[2] + shift)
    with torch.no_grad():
        theirs = llama.hf(torch.tensor(IDS[:1])).logits[:, -1]
    hook.remove()
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_another_model_is_refused_and_other_weights_are_said(
    llama: Model, fitted: Vector, tmp_path: Path
) -> None:
    same, other = interp.load(build("llama", seed=1)), interp.load(build("gpt2"))
    assert "other weights" in fitted.check(same)[0]
    with pytest.raises(ModelError, match="other weights"):
        fitted.check(same, other_weights="refuse")
    with pytest.raises(ModelError, match=r"type llama; .* has gpt2"):
        fitted.check(other)
    wide = interp.load(build("llama", hidden_size=64, head_dim=16))
    with pytest.raises(ModelError, match=r"d_model 32; .* has 64"):
        fitted.check(wide)
    path = steering.write_control_vector(fitted, tmp_path / "v.gguf")
    with pytest.raises(ModelError, match=r"width 32; .* width 64"):
        steering.read_control_vector(path, wide)
    assert "'llama'" in steering.read_control_vector(path, other).check(other)[-1]  # llama.cpp's name, maybe


def test_other_numbers_of_the_weights_are_said(llama: Model, fitted: Vector) -> None:
    mine = replace(fitted, origin=replace(fitted.origin, model={**fitted.origin.model, "scheme": "int4"}))
    assert "'int4'; here it is 'none'" in mine.check(llama)[0]
    assert fitted.check(llama) == ()


@pytest.mark.parametrize("lost", ["units", "origin.method", "origin.prompts", "tensors.sha256"])
def test_a_card_that_lacks_something_is_named_with_it(fitted: Vector, tmp_path: Path, lost: str) -> None:
    path = fitted.save(tmp_path) / "vector.json"
    card: Any = json.loads(path.read_text())
    part, _, key = lost.rpartition(".")
    del (card[part] if part else card)[key], card["checksum"]
    write_facts(path, card)
    with pytest.raises(ArtifactError, match=rf"vector.json has no '{lost}'"):
        Vector.load(tmp_path)


def test_all_leaves_out_the_special_tokens_with_which_a_prompt_begins() -> None:
    model = interp.load(build("llama"), tokenizer=tokenizer(bos=True))
    up, down = ["w10 w11", "w12 w13"], ["w20 w21 w22 w23", "w24 w25 w26 w27"]
    found = steering.fit(model, up, down, "resid_post.1", positions="all")

    def mean(texts: list[str]) -> torch.Tensor:
        ids = tokenizer(bos=True)(texts, return_tensors="pt").input_ids
        with torch.no_grad():
            return model.hf(ids, output_hidden_states=True).hidden_states[2][:, 1:].double().mean(dim=(0, 1))

    torch.testing.assert_close(
        found.unit * found.direction.double(), mean(up) - mean(down), atol=1e-5, rtol=0
    )


def test_held_out_of_instructions_are_prompts_that_no_instruction_was_fitted_on(
    llama: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[torch.Tensor] = []

    def recorded(sides: Sides) -> torch.Tensor:
        given.append(sides.positive)
        return sides.difference

    monkeypatch.setitem(METHODS, "prompts", replace(METHODS["prompts"], direction=recorded))
    sides = (["w50", "w51", "w52"], ["w53", "w54", "w55"])
    found = steering.fit(llama, *sides, AT, method="prompts", prompts=UP[:10])
    assert found.origin.separation[AT]["n_groups"] == 10
    whole = max(given, key=len)
    for fold in (one for one in given if len(one) < len(whole)):
        rows = [row for row in range(30) if (fold == whole[row]).all(dim=1).any()]
        assert len(rows) == 24
        assert len({row % 10 for row in rows}) == 8
    assert len(given) == 6
    one = steering.fit(llama, UP, DOWN, "resid_post.1").origin.separation["resid_post.1"]
    assert one["n_groups"] == len(UP)
    pair = steering.fit(llama, ["w50"] * 3, ["w51"] * 3, AT, method="prompts", prompts=UP[:9])
    assert pair.origin.separation == {}


def said(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def test_a_question_is_fitted_on_or_evaluated_on_whatever_the_answer_and_a_pair_counts_once() -> None:
    asked = [f"w{number}" for number in range(10)] * 2
    up = [said(one, f"w3{number % 7}") for number, one in enumerate(asked)]
    down = [said(one, f"w4{number % 7}") for number, one in enumerate(asked)]
    for seed in range(5):
        fit, held = Contrast((*up, up[0]), (*down, down[0])).divided(seed)
        questions = [{one[0]["content"] for one in part.positive} for part in (fit, held)]
        assert not questions[0] & questions[1]
        assert len(fit) + len(held) == len(up)
    with pytest.raises(DataError, match="2 different positive prompts"):
        Contrast(tuple(said(f"w0{n % 2}", f"w{n}") for n in range(10, 20)), tuple(down[:10])).divided()


AT = "resid_post.1"
WRONG = [
    (lambda m, v: v.interventions(float("nan")), ConfigError, "dose nan asked; give a finite number"),
    (lambda m, v: steering.fit(m, UP, DOWN, AT, method="pls"), ConfigError, "there are: mean"),
    (lambda m, v: steering.fit(m, UP, DOWN[1:], AT, method="pca"), DataError, "one for each"),
    (lambda m, v: steering.fit(m, UP, UP, AT), DataError, "do not differ .* Give other prompts"),
    (lambda m, v: steering.fit(m, UP, [], AT), DataError, "negative side is empty"),
    (lambda m, v: steering.fit(m, UP[0], DOWN, AT), DataError, "one text; give a list"),
    (lambda m, v: steering.fit(m, UP, DOWN, "pattern.1"), SiteError, "width d_model; steer resid_post"),
    (lambda m, v: steering.fit(m, UP, DOWN, AT, prompts=UP), ConfigError, "'prompts' alone"),
    (lambda m, v: steering.write_control_vector(planted("embed"), "x"), SiteError, "1 or later"),
    (lambda m, v: steering.write_control_vector(v, "x", dose=0), ConfigError, "dose 0 asked"),
    (lambda m, v: steering.read_control_vector(__file__, m), ArtifactError, "no readable GGUF"),
    (lambda m, v: v.at("resid_post.0"), ConfigError, "it is at: resid_post.1"),
    (lambda m, v: Vector.of("x", {AT: torch.zeros(32)}, Origin("file")), DataError, "is zero"),
    (lambda m, v: m.run(IDS, interventions=v.interventions(1, positions=[])), ConfigError, "positions"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "kind", "words"), WRONG)
def test_wrong_calls_are_answered_in_one_line_with_the_remedy(
    llama: Model, fitted: Vector, call: Any, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words) as told:
        call(llama, fitted)
    assert "\n" not in str(told.value)


def test_the_pairs_of_the_documentation_are_divided_as_it_says() -> None:
    pairs = steering.read_pairs(Path(__file__).parents[3] / "docs" / "sea.jsonl")
    fitted, held = pairs.divided(0)
    assert (len(pairs), len(fitted), len(held)) == (20, 12, 8)
    for up, down in zip(pairs.positive, pairs.negative, strict=True):
        assert up[0] == down[0] and [one["role"] for one in (*up, *down)] == ["user", "assistant"] * 2
