"""Capture: equal to Hugging Face, blind to padding and batching, early to stop, easy on memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

from interp.errors import ConfigError, DataError, OutOfMemoryError, SiteError
from interp.models import Model, load
from tests.interp.models.conftest import PROMPTS, wrapped
from tests.tiny import build, tiny


@contextmanager
def counting(module: nn.Module) -> Iterator[list[int]]:
    """Count the forward passes of a module and their rows."""
    rows: list[int] = []
    handle = module.register_forward_pre_hook(lambda m, args, kwargs: rows.append(1), with_kwargs=True)
    try:
        yield rows
    finally:
        handle.remove()


def alone(model: Model, prompt: str, site: str) -> Tensor:
    """Read a block's output by hand, one unpadded prompt at a time."""
    layer = int(site.rpartition(".")[2])
    found: list[Tensor] = []

    def read(module: nn.Module, args: object, output: object) -> None:
        found.append(output if isinstance(output, Tensor) else output[0])

    handle = model.architecture.blocks[layer].register_forward_hook(read)
    with torch.no_grad():
        model.hf(model.tokenize([prompt]).input_ids, use_cache=False)
    handle.remove()
    return found[0][0]


def test_last_logits_equal_hugging_face_exactly(model: Model) -> None:
    for prompt in PROMPTS:
        with torch.no_grad():
            ids = model.tokenize([prompt]).input_ids
            expected, full = model.hf(ids, logits_to_keep=1).logits[:, 0], model.hf(ids).logits[:, -1]
        assert torch.equal(model.logits([prompt]), expected)
        assert torch.allclose(expected, full, atol=1e-4)


def test_hooks_do_not_change_logits(model: Model) -> None:
    ids = model.tokenize(PROMPTS[:1]).input_ids
    with torch.no_grad():
        expected = model.hf(ids).logits
    run = model.run(
        PROMPTS[:1], capture=["resid_post.*", "z.*", "q.*", "mlp_act.*", "head.*.*"], logits="all"
    )
    assert torch.equal(run.logits, expected)


@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_never_changes_a_number(model: Model, side: str) -> None:
    sites = ["embed", "resid_post.*", "attn_out.*", "z.*", "k.*", "mlp_out.*", "logits", "pattern.*"]
    together = model.capture(PROMPTS, sites, "all", padding_side=side)
    for number, prompt in enumerate(PROMPTS):
        single = model.capture([prompt], sites, "all")
        length = single["embed"].shape[1]
        for site, tensor in single.items():
            got = together[site][number, :length]
            got = got[..., :length] if site.startswith("pattern") else got
            assert (got - tensor[0]).abs().max() <= 1e-5 * max(1.0, tensor.abs().max().item()), site
            assert together[site][number, length:].abs().sum() == 0


@pytest.mark.parametrize("family", ["gpt2", "llama", "bloom", "opt"])
def test_control_ignoring_positions_is_visible(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Positions counted from the left padding give other numbers, except where only distances matter."""
    model = wrapped(family)
    right = model.capture(PROMPTS, "resid_post.-1")["resid_post.2"]
    monkeypatch.setattr(
        "interp.models.forward.position_ids", lambda mask: torch.arange(mask.shape[1]).expand_as(mask)
    )
    left = model.capture(PROMPTS, "resid_post.-1", padding_side="left")["resid_post.2"]
    differs = bool((left - right).abs().max() > 1e-3)
    assert differs == (family in ("gpt2", "opt"))


def test_last_position_against_a_hand_written_hook(model: Model) -> None:
    acts = model.capture(PROMPTS, "resid_post.*")
    for number, prompt in enumerate(PROMPTS):
        for site, tensor in acts.items():
            expected = alone(model, prompt, site)[-1]
            assert torch.allclose(tensor[number], expected, atol=1e-5)


@pytest.mark.parametrize("positions", [0, -1, [3, 1, -2, 0], torch.tensor([0, 0, 1, 0])])
def test_one_position_each(llama: Model, positions: object) -> None:
    acts = llama.capture(PROMPTS, "resid_post.1", positions)
    wanted = [positions] * 4 if isinstance(positions, int) else [int(p) for p in positions]
    for number, (prompt, position) in enumerate(zip(PROMPTS, wanted, strict=True)):
        expected = alone(llama, prompt, "resid_post.1")
        assert torch.allclose(acts["resid_post.1"][number], expected[position], atol=1e-5)
        assert acts.positions[number] == position % len(expected)


def test_slices_and_masks(llama: Model) -> None:
    full = llama.capture(PROMPTS, "resid_post.1", "all")["resid_post.1"]
    lengths = llama.tokenize(PROMPTS).lengths
    part = llama.capture(PROMPTS, "resid_post.1", slice(1, 3))
    assert part.positions == tuple(tuple(range(length))[1:3] for length in lengths)
    mask = torch.zeros(4, 7, dtype=torch.bool)
    mask[0, [1, 4]] = mask[2, 3] = True
    masked = llama.capture(PROMPTS, "resid_post.1", mask)
    assert masked.positions == ((1, 4), (), (3,), ())
    for acts in (part, masked):
        for number, row in enumerate(acts.positions):
            for column, position in enumerate(row):
                assert torch.allclose(acts["resid_post.1"][number, column], full[number, position], atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_results_are_in_prompt_order_whatever_the_batches(llama: Model, batch_size: int) -> None:
    prompts = [" ".join(f"w{(7 * i + j) % 60:02d}" for j in range(1 + (5 * i) % 9)) for i in range(13)]
    expected = llama.run(prompts, capture=["resid_post.*", "pattern.0"], positions="all", logits="all")
    got = llama.run(
        prompts, capture=["resid_post.*", "pattern.0"], positions="all", logits="all", batch_size=batch_size
    )
    assert torch.allclose(got.logits, expected.logits, atol=1e-5)
    for site, tensor in expected.activations.items():
        assert torch.allclose(got.activations[site], tensor, atol=1e-5)


def test_batches_respect_the_size(llama: Model) -> None:
    with counting(llama.architecture.blocks[0]) as passes:
        llama.capture(PROMPTS, "resid_post.0", batch_size=3)
    assert len(passes) == 2


def test_early_stop_after_the_deepest_wanted_layer(model: Model) -> None:
    with counting(model.architecture.blocks[2]) as third, counting(model.architecture.blocks[1]) as second:
        model.capture(PROMPTS[:1], ["resid_post.0", "resid_post.1", "attn_out.1"])
    assert len(second) == 1 and not third


def test_mid_block_stop_skips_the_mlp(llama: Model) -> None:
    with counting(llama.architecture.blocks[1].mlp) as passes:
        llama.capture(PROMPTS, "resid_mid.1")
    assert not passes


def test_only_needed_logits_are_computed(llama: Model) -> None:
    shapes: list[torch.Size] = []
    handle = llama.hf.lm_head.register_forward_hook(lambda m, args, output: shapes.append(output.shape))
    llama.logits(PROMPTS)
    llama.logits(PROMPTS[:1])
    llama.capture(PROMPTS, "resid_post.*")
    handle.remove()
    assert shapes == [(4, 1, 64), (1, 1, 64)]


def test_captured_slices_do_not_pin_the_full_tensor(llama: Model) -> None:
    for site, tensor in llama.capture(PROMPTS[:1], ["resid_post.*", "z.0", "q.1.2"], -1).items():
        assert tensor.untyped_storage().nbytes() == tensor.numel() * 4, site


def test_no_two_sites_share_memory(model: Model) -> None:
    sites = [
        "embed",
        "resid_pre.*",
        "resid_post.*",
        "q.*",
        "k.*",
        "v.*",
        "z.*",
        "z.0.1",
        "mlp_act.*",
        "neuron.1.2",
    ]
    acts = model.capture(PROMPTS[:1], sites, "all")
    before = {site: tensor.clone() for site, tensor in acts.items()}
    for site, tensor in acts.items():
        assert tensor.untyped_storage().nbytes() == tensor.numel() * 4, site
    acts["resid_pre.1"].zero_()
    acts["embed"].zero_()
    acts["q.0"].zero_()
    changed = {site for site, tensor in acts.items() if not torch.equal(tensor, before[site])}
    assert changed == {"resid_pre.1", "embed", "q.0"}


def test_a_later_edit_in_place_cannot_reach_what_was_captured() -> None:
    """OLMo clamps queries in place after the projection."""
    model = wrapped("olmo")
    clipped = model.hf.config.clip_qkv
    q = model.capture(PROMPTS[:1], "q.0", "all")["q.0"]
    block = model.architecture.blocks[0]
    expected = block.self_attn.q_proj(
        block.input_layernorm(model.capture(PROMPTS[:1], "resid_pre.0", "all")["resid_pre.0"])
    )
    assert expected.abs().max() > clipped
    assert torch.allclose(q.flatten(-2), expected, atol=1e-5)


def test_training_mode_is_switched_off_and_restored() -> None:
    hf = build("gpt2", resid_pdrop=0.5, embd_pdrop=0.5)
    model = load(hf)
    expected = model.capture([[5, 6, 7]], "resid_post.*")
    hf.train()
    hf.transformer.h[1].eval()
    before = [module.training for module in hf.modules()]
    got = model.capture([[5, 6, 7]], "resid_post.*")
    assert [module.training for module in hf.modules()] == before
    assert all(torch.equal(got[site], tensor) for site, tensor in expected.items())


def test_results_carry_no_gradient(llama: Model) -> None:
    assert not llama.capture(PROMPTS, "resid_post.1")["resid_post.1"].requires_grad
    assert not llama.logits(PROMPTS).requires_grad


def test_dtype_and_device_of_results(llama: Model) -> None:
    acts = llama.capture(PROMPTS, "resid_post.1", dtype=torch.float16, device="cpu")
    assert acts["resid_post.1"].dtype == torch.float16
    plain = llama.capture(PROMPTS, "resid_post.1")["resid_post.1"]
    assert torch.equal(acts["resid_post.1"], plain.half())


class _Hungry:
    """Run out of memory whenever a pass has more rows than fit."""

    def __init__(self, fits: int, error: BaseException | None = None) -> None:
        self.fits, self.sizes, self.error = fits, [], error or torch.OutOfMemoryError("not enough memory")

    def __call__(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        self.sizes.append(len(args[0]))
        if len(args[0]) > self.fits:
            raise self.error


def _of_the_cpu() -> BaseException:
    """What torch raises where the CPU's memory runs out: asked for a petabyte."""
    try:
        torch.empty(10**15)
    except RuntimeError as error:
        return error
    raise AssertionError("there is a petabyte")


@pytest.mark.parametrize(
    ("fits", "error"),
    [(1, None), (2, None), (3, None), (2, _of_the_cpu()), (2, MemoryError())],
    ids=["1", "2", "3", "cpu", "python"],
)
def test_out_of_memory_halves_and_retries_the_same_rows(
    llama: Model, fits: int, error: BaseException | None
) -> None:
    prompts = PROMPTS * 2
    expected = llama.run(prompts, capture="resid_post.*", positions="all")
    hungry = _Hungry(fits, error)
    handle = llama.architecture.blocks[1].register_forward_pre_hook(hungry, with_kwargs=True)
    try:
        got = llama.run(prompts, capture="resid_post.*", positions="all")
    finally:
        handle.remove()
    assert hungry.sizes[0] == 8 and max(hungry.sizes[3:]) <= fits
    assert torch.allclose(got.logits, expected.logits, atol=1e-5)
    for site, tensor in expected.activations.items():
        assert torch.allclose(got.activations[site], tensor, atol=1e-5)


def test_out_of_memory_at_one_prompt_is_our_error(llama: Model) -> None:
    handle = llama.architecture.blocks[1].register_forward_pre_hook(_Hungry(0), with_kwargs=True)
    try:
        with pytest.raises(OutOfMemoryError, match="prompt 0 alone, at batch size 1"):
            llama.capture(PROMPTS[:2], "resid_post.1")
    finally:
        handle.remove()


def test_other_errors_are_not_taken_for_memory(llama: Model) -> None:
    def fail(*given: object) -> None:
        raise RuntimeError("something else")

    handle = llama.architecture.blocks[1].register_forward_pre_hook(fail)
    try:
        with pytest.raises(RuntimeError, match="something else"):
            llama.capture(PROMPTS, "resid_post.1")
    finally:
        handle.remove()


def test_transformer_lens_names(llama: Model, gpt2: Model) -> None:
    acts = llama.capture(PROMPTS, ["blocks.1.hook_resid_post", "blocks.0.attn.hook_z", "hook_embed"])
    assert [str(site) for site in acts.sites] == ["embed", "z.0", "resid_post.1"]
    with pytest.raises(SiteError, match="token embedding alone"):
        gpt2.capture(PROMPTS, "hook_embed")


def test_pattern_is_eager_for_this_run_only() -> None:
    hf, tokenizer = tiny("llama")
    model = load(hf, tokenizer=tokenizer)
    before = hf.config._attn_implementation
    assert before == "sdpa"
    acts = model.capture(PROMPTS, "pattern.*", "all")
    assert hf.config._attn_implementation == before
    assert "eagerly" in acts.warnings[-1]
    assert acts["pattern.0"].shape == (4, 7, 4, 7)
    hf.config._attn_implementation = "eager"
    try:
        assert torch.equal(
            model.capture(PROMPTS, "pattern.0")["pattern.0"], model.capture(PROMPTS, "pattern.0")["pattern.0"]
        )
        assert hf.config._attn_implementation == "eager"
    finally:
        hf.config._attn_implementation = before


def test_the_record_is_complete(llama: Model) -> None:
    acts = llama.capture([[5, 6], [7]], "resid_post.0")
    assert acts.token_ids == ((5, 6), (7,)) and acts.texts == ("w01 w02", "w03")
    assert acts.positions == (1, 0)
    assert (
        acts.fingerprint == llama.fingerprint and acts.model_name == llama.name and acts.weights == "trained"
    )


@pytest.mark.parametrize(
    ("sites", "positions", "keywords", "error", "message"),
    [
        ("resid_post.3", "last", {}, SiteError, "layer 3 asked, but 'LlamaForCausalLM' has layers 0..2"),
        ("resid_post.0", "first", {}, ConfigError, "the selector 'first' is wrong at character 0"),
        ("resid_post.0", True, {}, ConfigError, "positions True asked"),
        ("resid_post.0", 5, {}, DataError, r"position 5 asked, but prompt 1 has positions 0..1 \(-1 is"),
        ("resid_post.0", [0, 0], {}, DataError, "2 positions for 4 prompts. Give one per prompt."),
        (
            "resid_post.0",
            torch.ones(4, 7).bool(),
            {},
            DataError,
            "marks position 6, but prompt 1 has positions 0..1",
        ),
        ("resid_post.0", torch.ones(2, 7).bool(), {}, DataError, r"mask has shape \(2, 7\)"),
        ("resid_post.0", "last", {"batch_size": 0}, ConfigError, "batch_size 0 asked"),
        ("resid_post.0", "last", {"batch_size": "big"}, ConfigError, "batch_size 'big' asked"),
        ("resid_post.0", "last", {"padding_side": "top"}, ConfigError, "padding_side 'top' asked"),
        ([], "last", {}, SiteError, "no sites asked"),
    ],
)
def test_bad_calls(
    llama: Model, sites: object, positions: object, keywords: dict, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        llama.capture(PROMPTS, sites, positions, **keywords)


def test_parallel_blocks_say_so() -> None:
    model = wrapped("gpt_neox")
    with pytest.raises(SiteError) as caught:
        model.capture(PROMPTS, "resid_mid.0")
    assert str(caught.value).startswith(
        "gpt_neox runs attention and MLP in parallel, so it has no 'resid_mid'. Its sites: embed, resid_pre, "
    )


def test_a_glob_over_kinds_takes_what_there_is() -> None:
    acts = wrapped("gpt_neox").capture(PROMPTS, "resid_*.1")
    assert [str(site) for site in acts.sites] == ["resid_pre.1", "resid_post.1"]


def test_a_misspelt_argument_is_refused(llama: Model) -> None:
    with pytest.raises(TypeError):
        llama.capture(PROMPTS, "resid_post.0", position="last")  # pyright: ignore[reportCallIssue]


def test_fingerprint_follows_the_weights() -> None:
    hf = build("llama")
    model = load(hf)
    before = model.fingerprint
    assert before == load(build("llama")).fingerprint and before != load(build("llama", seed=1)).fingerprint
    with torch.no_grad():
        hf.lm_head.weight[0, 0] += 1
    assert model.fingerprint != before
