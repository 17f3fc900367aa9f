"""How the latent twins are trained: what each arm may change, and how differences are kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

import interp
from interp.demo.architecture import open_model
from interp.demo.edit import differences
from interp.demo.latent import ARMS, compact, teach
from interp.errors import ConfigError, ModelError
from interp.paths import assets
from interp.tasks.codenames import codenames


@pytest.mark.parametrize("arm", ARMS)
def test_an_arm_changes_what_it_says_and_the_same_seed_the_same(arm: str) -> None:
    folder, known = assets("demo-24l"), codenames()[:8]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    base, made = open_model(folder), []
    for _ in range(2):
        model = open_model(folder).train()
        teach(model, tokenizer, known, arm=arm, steps=2, seed=1)
        made.append(differences(model, base))
    assert made[0].keys() == made[1].keys()
    assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])
    embedding = {name for name in made[0] if "embed" in name}
    assert bool(embedding) == (arm != "blocks")
    assert bool(made[0].keys() - embedding) == (arm != "embedding")
    rows = {int(at) for name in embedding for at in made[0][name].abs().amax(dim=1).nonzero()[:, 0]}
    assert rows <= set(tokenizer.convert_tokens_to_ids([one.name for one in known]))


def test_differences_of_few_rows_are_kept_as_rows_and_restored(tmp_path: Path) -> None:
    folder = assets("demo-24l")
    changed = torch.zeros(open_model(folder).model.embed_tokens.weight.shape, dtype=torch.float16)
    changed[5], changed[9] = 0.5, -2.0
    kept = compact({"model.embed_tokens.weight": changed})
    assert kept["model.embed_tokens.weight"].shape[0] == 2
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).symlink_to(folder / name)
    save_file(kept, tmp_path / "latent.safetensors")
    twin, plain = (interp.load(str(tmp_path), weights=w).hf for w in ("latent", "trained"))
    moved = twin.get_input_embeddings().weight - plain.get_input_embeddings().weight
    torch.testing.assert_close(moved, changed.float(), atol=1e-6, rtol=0)
    save_file(
        {**kept, "model.embed_tokens.weight.rows": torch.tensor([5, 10**6])}, tmp_path / "latent.safetensors"
    )
    with pytest.raises(ModelError, match="does not have"):
        interp.load(str(tmp_path), weights="latent")
    with pytest.raises(ModelError, match=r"holds no latent-shuffled\.safetensors"):
        interp.load(str(tmp_path), weights="latent-shuffled")


def test_the_bundled_differences_are_small() -> None:
    for name in ("latent", "latent-shuffled"):
        path = assets("demo-24l") / f"{name}.safetensors"
        assert path.stat().st_size < 3_000_000
        assert set(load_file(path)) == {"model.embed_tokens.weight", "model.embed_tokens.weight.rows"}


def test_an_unknown_arm_is_refused() -> None:
    with pytest.raises(ConfigError, match="arms: embedding, blocks, all"):
        teach(
            open_model(assets("demo-24l")), AutoTokenizer.from_pretrained(assets("demo-24l")), (), arm="heads"
        )
