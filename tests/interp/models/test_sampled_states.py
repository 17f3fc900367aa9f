"""States of sampled text are those of a pass over the finished text; the oracle is hooks on plain passes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from interp import Intervention, Model, Sampling
from interp.models.generated import Generation
from tests.family_matrix import loaded

FAMILIES = (
    *(
        "llama",
        "gpt2",
        "bloom",
        "gemma2",
        "mistral",
        "qwen3",
        "phi",
    ),  # dense, ALiBi, sliding windows, parallel
    *("mixtral", "gpt_oss", "deepseek_v3"),  # experts, sinks, latent attention
    *("mamba", "mamba2", "jamba", "granitemoehybrid", "falcon_h1", "qwen3_next", "lfm2"),  # recurrences
    *("gemma3n_text", "gemma4_shared"),  # several streams, shared keys and values
)
PROMPTS = [[5, 14, 15, 52, 35, 6], [7, 8], [9, 33, 21]]
SAMPLE = Sampling(0.9, top_p=0.95, seed=3)
STEPS = 4


def plain(model: Model, ids: list[int], edit: Tensor | None = None, start: int = 0) -> list[Tensor]:
    """What every block gives for one text alone, and the logits; the middle one is edited from a place on."""
    seen: list[Tensor] = []
    middle = model.architecture.blocks[model.n_layers // 2]

    def changed(module: object, args: object, output: Tensor | tuple[Tensor, ...]) -> object:
        stream = output if isinstance(output, Tensor) else output[0]
        new = stream.clone()
        new[..., start:, :] = new[..., start:, :] + edit
        return new if isinstance(output, Tensor) else (new, *output[1:])

    def see(module: object, args: object, output: Tensor | tuple[Tensor, ...]) -> None:
        stream = output if isinstance(output, Tensor) else output[0]
        seen.append((stream if model.family.stream is None else stream[model.family.stream])[0])

    handles = [middle.register_forward_hook(changed)] if edit is not None else []
    handles += [block.register_forward_hook(see) for block in model.architecture.blocks]
    with torch.no_grad():
        logits = model.hf(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    for handle in handles:
        handle.remove()
    return [*seen, logits]


def drawn(
    model: Model, *, cache: bool, batch_size: int = 3, edits: tuple[Intervention, ...] = ()
) -> Generation:
    """Sampled texts of three lengths; the second of them ends early."""
    given = {"sample": replace(SAMPLE, first=1), "interventions": edits}
    stop = model.generate(PROMPTS[1:2], max_new_tokens=3, **given).token_ids[0][2]
    return model.generate(
        PROMPTS,
        max_new_tokens=STEPS,
        sample=SAMPLE,
        interventions=edits,
        use_cache=cache,
        stop=stop,
        capture=["resid_post.*", "logits"],
        tokens="all",
        batch_size=batch_size,
    )


@pytest.mark.parametrize("kind", FAMILIES)
def test_sampled_states_are_those_of_a_pass_over_the_finished_text(kind: str) -> None:
    model = loaded(kind)
    edit = torch.linspace(-1, 1, model.d_model)
    streams = model.family.stream is not None
    site = f"resid_post.{model.n_layers // 2}"
    edits = () if streams else (Intervention(site, lambda x: x + edit, slice(1, None)),)
    cached, plainly = (drawn(model, cache=cache, edits=edits) for cache in (True, False))
    alone = drawn(model, cache=False, edits=edits, batch_size=1)
    assert cached.token_ids == plainly.token_ids == alone.token_ids
    assert cached.texts == alone.texts and len(cached.token_ids[1]) <= 3
    for row, (prompt, new) in enumerate(zip(PROMPTS, cached.token_ids, strict=True)):
        full = [*prompt, *new]
        wanted = plain(model, full, None if streams else edit, 1)
        sites = [f"resid_post.{layer}" for layer in range(model.n_layers)] + ["logits"]
        for name, expected in zip(sites, wanted, strict=True):
            assert torch.equal(alone.activations[name][row, : len(full)], expected), name
            assert not alone.activations[name][row, len(full) :].any()
            for made in (cached, plainly):
                error = (made.activations[name][row, : len(full)] - expected).abs().max()
                assert error <= 1e-5 * expected.abs().max(), (name, row)
            assert cached.activations.positions[row] == tuple(range(len(full)))


def test_which_states_are_kept() -> None:
    """New tokens, positions of the finished text, and the last token of each, with a cache and without."""
    model, site = loaded("llama"), "resid_post.1"
    for cache in (True, False):
        made = {
            str(kept): model.generate(
                PROMPTS, max_new_tokens=3, sample=SAMPLE, capture=site, tokens=kept, use_cache=cache
            ).activations
            for kept in ("all", "new", "last", 0, slice(-4, -1))
        }
        ends = [(len(prompt), len(prompt) + 3) for prompt in PROMPTS]
        assert made["new"].positions == tuple(tuple(range(*pair)) for pair in ends)
        assert made["last"].positions == tuple(end - 1 for _, end in ends) and made["last"].single
        for row, (start, end) in enumerate(ends):
            whole = made["all"][site][row, :end]
            for kept, wanted in (
                ("new", whole[start:]),
                ("last", whole[-1]),
                ("0", whole[0]),
                ("slice(-4, -1, None)", whole[-4:-1]),
            ):
                assert torch.allclose(made[kept][site][row], wanted, atol=1e-5), (kept, cache)
            assert not torch.allclose(whole[-1], whole[-2], atol=1e-2)
