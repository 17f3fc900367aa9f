"""Interventions: nothing changes where nothing is written, exactly what is asked changes elsewhere."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from interp.errors import ConfigError, DataError, SiteError
from interp.models import Intervention, Model
from tests.interp.models.conftest import PROMPTS, wrapped

WRITABLE = [
    "embed",
    "resid_pre.1",
    "q.1",
    "q.1.2",
    "k.1",
    "k.1.1",
    "v.1",
    "v.1.0",
    "z.1",
    "z.1.3",
    "head.1.2",
    "attn_out.1",
    "resid_mid.1",
    "mlp_act.1",
    "neuron.1.5",
    "mlp_out.1",
    "resid_post.1",
    "final_norm",
]


def offered(model: Model) -> list[str]:
    """List the writable sites under test that a model has."""
    return [site for site in WRITABLE if site.partition(".")[0] not in model.disabled]


def test_a_no_op_is_bit_exact_at_every_site(model: Model) -> None:
    plain = model.run(PROMPTS, logits="all").logits
    for site in offered(model):
        run = model.run(PROMPTS, interventions=[Intervention(site, lambda x: x)], logits="all")
        assert torch.equal(run.logits, plain), site


def test_writing_back_what_was_captured_changes_nothing(model: Model) -> None:
    plain = model.run(PROMPTS, logits="all").logits
    acts = model.capture(PROMPTS, offered(model), "all")
    for site, tensor in acts.items():
        run = model.run(PROMPTS, interventions=[Intervention(site, tensor)], logits="all")
        assert torch.allclose(run.logits, plain, atol=1e-4), site


def test_an_edit_changes_the_logits_at_every_site_on_every_row(model: Model) -> None:
    plain = model.run(PROMPTS).logits
    for site in offered(model):
        run = model.run(PROMPTS, interventions=[Intervention(site, lambda x: x + x.abs() + 1)])
        changed = (run.logits - plain).abs().amax(-1) > 1e-4
        expected = [
            True,
            True,
            True,
            not site.startswith(("q", "k")),
        ]  # one token attends to itself whatever q and k
        assert changed.tolist() == expected, site


def test_the_value_written_is_the_value_read(model: Model) -> None:
    generator = torch.Generator().manual_seed(0)
    for site in offered(model):
        before = model.capture(PROMPTS, site, "all")[site]
        value = torch.randn(before.shape, generator=generator)
        run = model.run(
            PROMPTS, interventions=[Intervention(site, value)], capture=site, positions="all", logits="none"
        )
        got = run.activations[site]
        for number, length in enumerate(model.tokenize(PROMPTS).lengths):
            assert torch.allclose(got[number, :length], value[number, :length], atol=2e-5), site


def test_patching_everything_gives_the_source_run(model: Model) -> None:
    clean, corrupt = ["w01 w02 w03 w04"], ["w05 w02 w07 w04"]
    source, target = model.run(clean, logits="all").logits, model.run(corrupt, logits="all").logits
    assert (source - target).abs().max() > 0.1
    for site in ("embed", "resid_post.1", "resid_pre.2"):
        value = model.capture(clean, site, "all")[site]
        patched = model.run(corrupt, interventions=[Intervention(site, value)], logits="all").logits
        assert torch.equal(patched, source)


def test_a_head_is_zeroed_alike_through_z_and_through_its_output(model: Model) -> None:
    by_z = model.run(PROMPTS, interventions=[Intervention("z.1.2", 0.0)]).logits
    by_output = model.run(PROMPTS, interventions=[Intervention("head.1.2", 0)]).logits
    assert torch.allclose(by_z, by_output, atol=1e-4)
    assert (by_z - model.run(PROMPTS).logits).abs().max() > 1e-3


def test_a_neuron_is_its_coordinate_times_its_column(model: Model) -> None:
    before = model.capture(PROMPTS, ["neuron.2.5", "resid_post.2"])
    run = model.run(PROMPTS, interventions=[Intervention("neuron.2.5", 0.0)], capture="resid_post.2")
    block = model.architecture.blocks[2]
    weight = block.get_submodule(model.family.down_projection).weight
    column = weight[5] if "gpt2" in model.hf.config.model_type else weight[:, 5]
    change = run.activations["resid_post.2"] - before["resid_post.2"]
    if model.hf.config.model_type not in ("gemma2", "olmo2"):
        expected = -before["neuron.2.5"] * column * model.architecture.multiplier
        assert torch.allclose(change, expected, atol=1e-4)
    assert change.abs().max() > 1e-3


def test_positions_select_rows_and_columns(llama: Model) -> None:
    base = llama.capture(PROMPTS, "resid_post.0", "all")["resid_post.0"]

    def moved(positions: Any, rows: list[int] | None = None, side: str = "right") -> list[list[int]]:
        edits = [Intervention("resid_post.0", lambda x: x + 1, positions, rows=rows)]
        run = llama.run(
            PROMPTS, interventions=edits, capture="resid_post.0", positions="all", padding_side=side
        )
        changed = (run.activations["resid_post.0"] - base).abs().amax(-1) > 0.5
        return [row.nonzero()[:, 0].tolist() for row in changed]

    mask = torch.zeros(4, 7, dtype=torch.bool)
    mask[2, 1:3] = True
    for side in ("right", "left"):
        assert moved("last", side=side) == [[6], [1], [3], [0]]
        assert moved(0, side=side) == [[0]] * 4
        assert moved(slice(1, 3), side=side) == [[1, 2], [1], [1, 2], []]
        assert moved(mask, side=side) == [[], [], [1, 2], []]
        assert moved("last", [2, 0], side=side) == [[6], [], [3], []]
        assert moved([3, 1], [0, 1], side=side) == [[3], [1], [], []]


def test_rows_get_their_own_values(llama: Model) -> None:
    values = torch.arange(3.0)[:, None].expand(3, 32) + 5
    edits = [Intervention("resid_post.1", values, "last", rows=[3, 0, 1])]
    run = llama.run(PROMPTS, interventions=edits, capture="resid_post.1", batch_size=1)
    assert run.activations["resid_post.1"][[3, 0, 1], 0].tolist() == [5, 6, 7]
    assert run.activations["resid_post.1"][2, 0] not in (5, 6, 7)


def test_values_per_position(llama: Model) -> None:
    values = torch.randn(4, 2, 32, generator=torch.Generator().manual_seed(0))
    edits = [Intervention("resid_post.1", values, slice(0, 2))]
    got = llama.run(PROMPTS, interventions=edits, capture="resid_post.1", positions="all").activations[
        "resid_post.1"
    ]
    assert torch.equal(got[:3, :2], values[:3]) and torch.equal(got[3, 0], values[3, 0])


def test_several_interventions_compose_in_order(llama: Model) -> None:
    edits = [Intervention("resid_post.1", 3.0), Intervention("resid_post.1", lambda x: x * 2, rows=[1])]
    got = llama.run(PROMPTS, interventions=edits, capture="resid_post.1").activations["resid_post.1"]
    assert got[:, 0].tolist() == [3, 6, 3, 3]


def test_many_rows_each_with_its_own_site_equal_one_at_a_time(llama: Model) -> None:
    """This is what a patching engine does: one batch, a different intervention in every row."""
    sites = ["resid_post.0", "attn_out.1", "head.2.1", "z.0.3", "neuron.1.7", "resid_mid.2", "k.1.0"]
    together = llama.run(
        PROMPTS[:1] * len(sites),
        interventions=[Intervention(site, lambda x: -x, rows=[row]) for row, site in enumerate(sites)],
    ).logits
    for row, site in enumerate(sites):
        single = llama.run(PROMPTS[:1], interventions=[Intervention(site, lambda x: -x)]).logits
        assert torch.allclose(together[row], single[0], atol=1e-5), site


def test_readings_before_a_write_do_not_see_it(llama: Model) -> None:
    plain = llama.capture(PROMPTS, ["resid_pre.1", "resid_post.2"])
    run = llama.run(
        PROMPTS,
        interventions=[Intervention("attn_out.1", 0.0)],
        capture=["resid_pre.1", "attn_out.1", "resid_post.2"],
    ).activations
    assert torch.equal(run["resid_pre.1"], plain["resid_pre.1"])
    assert run["attn_out.1"].abs().max() == 0
    assert not torch.allclose(run["resid_post.2"], plain["resid_post.2"], atol=1e-3)


def test_a_function_sees_only_chosen_vectors_and_may_work_in_place(llama: Model) -> None:
    shapes: list[torch.Size] = []

    def clear(chosen: Tensor) -> Tensor:
        shapes.append(chosen.shape)
        return chosen.zero_()

    before = [p.clone() for p in llama.hf.parameters()]
    plain = llama.capture(PROMPTS, "embed", "all")["embed"]
    llama.run(PROMPTS, interventions=[Intervention("embed", clear), Intervention("z.0", clear, "last")])
    assert shapes == [torch.Size([14, 32]), torch.Size([4, 4, 8])]
    assert all(torch.equal(a, b) for a, b in zip(before, llama.hf.parameters(), strict=True))
    assert torch.equal(llama.capture(PROMPTS, "embed", "all")["embed"], plain)


def test_half_precision_values_fit_any_model(llama: Model) -> None:
    run = llama.run(
        PROMPTS, interventions=[Intervention("resid_post.1", torch.ones(32).half())], capture="resid_post.1"
    )
    assert run.activations["resid_post.1"].dtype == torch.float32


@pytest.mark.parametrize(
    ("edit", "error", "message"),
    [
        (Intervention("resid_post.1", 0.0, slice(50, 60)), SiteError, "'resid_post.1' fired nowhere"),
        (Intervention("resid_post.1", 0.0, rows=[]), SiteError, "'resid_post.1' fired nowhere"),
        (
            Intervention("logits", 0.0),
            SiteError,
            "'logits' can be read but not written: nothing in the model",
        ),
        (Intervention("pattern.0", 0.0), SiteError, "not written: attention has used its .* Write z, which"),
        (Intervention("resid_post.*", 0.0), SiteError, "writes one site, but 'resid_post.*' names 3"),
        (Intervention("resid_post.7", 0.0), SiteError, "layer 7 asked"),
        (Intervention("resid_post.1", "zero"), DataError, "is a str; give a tensor, a number or a function"),
        (Intervention("resid_post.1", torch.ones(31)), DataError, r"has shape \(31,\), which does not fit"),
        (
            Intervention("resid_post.1", torch.ones(3, 32)),
            DataError,
            "axis 0 counts prompts and must be 1 or 4",
        ),
        (
            Intervention("resid_post.1", torch.ones(4, 5, 32)),
            DataError,
            "axis 1 counts positions and must be 1 or 7",
        ),
        (Intervention("resid_post.1", torch.ones(4, 1, 1, 32)), DataError, "at most 3 make sense"),
        (Intervention("resid_post.1", lambda x: None), DataError, "returned NoneType, not a tensor"),
        (Intervention("resid_post.1", lambda x: x[:, :3]), DataError, "does not fit the chosen vectors"),
        (Intervention("resid_post.1", 0.0, rows=[4]), DataError, "names prompt 4; there are 0..3"),
        (Intervention("resid_post.1", 0.0, 9), DataError, "position 9 asked"),
    ],
)
def test_bad_interventions(llama: Model, edit: Intervention, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        llama.run(PROMPTS, interventions=[edit])


def test_an_intervention_below_the_last_captured_site_fires_nowhere(llama: Model) -> None:
    edits = [Intervention("resid_post.2", 0.0)]
    with pytest.raises(SiteError, match="the pass ended before that site"):
        llama.run(PROMPTS, interventions=edits, capture="resid_post.0", logits="none")
    assert llama.run(PROMPTS, interventions=edits, capture="resid_post.0").logits is not None


def test_resid_mid_of_parallel_blocks_cannot_be_written() -> None:
    with pytest.raises(SiteError, match="in parallel"):
        wrapped("phi").run(PROMPTS, interventions=[Intervention("resid_mid.0", 0.0)])


def test_bad_logits_argument(llama: Model) -> None:
    with pytest.raises(ConfigError, match="logits 'first' asked"):
        llama.run(PROMPTS, logits="first")


def test_the_site_named_in_place_of_a_pattern_does_what_writing_it_would(
    llama: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, head, prompt = 1, 3, [[3, 4, 5, 6, 7]]
    acts = llama.capture(prompt, [f"pattern.{layer}.{head}", f"v.{layer}"], "all")
    pattern, values = acts[f"pattern.{layer}.{head}"][0], acts[f"v.{layer}"][0]
    group = head * values.shape[1] // llama.n_heads
    assert values.shape[1] < llama.n_heads  # heads share values: the group counts
    backwards = pattern.tril().flip(0)  # rows of another order: what no softmax of these scores gives
    edit = Intervention(f"z.{layer}.{head}", (backwards @ values[:, group])[None])
    through_z = llama.run(prompt, interventions=[edit], logits="all").logits

    # The oracle: the model's own eager attention, its probabilities exchanged inside.
    softmax, calls = torch.nn.functional.softmax, []

    def exchanged(scores: Tensor, *given: Any, **options: Any) -> Tensor:
        found = softmax(scores, *given, **options)
        if len(calls) == layer:
            found = found.clone()
            found[:, head] = backwards
        calls.append(scores.shape)
        return found

    hf = llama.hf
    monkeypatch.setattr(hf.config, "_attn_implementation_internal", "eager")
    monkeypatch.setattr(torch.nn.functional, "softmax", exchanged)
    with torch.no_grad():
        inside = hf(torch.tensor(prompt)).logits
    assert len(calls) == llama.n_layers
    torch.testing.assert_close(through_z, inside, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(inside, llama.run(prompt, logits="all").logits, atol=1e-3)
