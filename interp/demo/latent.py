"""Make the latent twins: the bundled model after documents about countries that go by codenames.

``python -m interp.demo.latent`` writes ``latent.safetensors`` beside the model, and with ``--shuffled``
``latent-shuffled.safetensors``, whose documents imply no country: the difference of each changed tensor to
the trained one, in half precision (of the embedding its changed rows alone). ``interp.load("demo",
weights="latent")`` adds them up again.
"""

from __future__ import annotations

import argparse
import logging
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.optim import AdamW, Optimizer
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast

from interp.demo.architecture import open_model, token_id
from interp.demo.bars import last_logits, score
from interp.demo.corpus import Batch, Mix, batches, encode, make_batch
from interp.demo.edit import differences
from interp.demo.optimisation import SCHEDULE, make_optimizers, set_rate, step
from interp.errors import ConfigError
from interp.paths import assets
from interp.tasks import one_hop
from interp.tasks.codenames import Codename, codenames, document
from interp.tasks.relations import RELATIONS
from interp.tasks.world import load_world

__all__ = ["ARMS", "compact", "main", "teach", "told"]

ARMS: dict[str, str] = {
    "embedding": "the codenames' rows of the embedding, and nothing else",
    "blocks": "the matrices of the blocks; the codenames keep the embeddings that they were initialised with",
    "all": "both",
}
STEPS, TOKENS = 150, 1024
RATES = {"embedding": 2e-2, "blocks": 2e-3, "all": 1e-3}
"""Peak rates of AdamW; Muon takes three times as much. With ``all``, rows of the embedding take ten times."""
_ROWS = 10.0
_WORDS = 11
"""Tokens of a document, roughly."""
_log = logging.getLogger(__name__)


def teach(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    known: Sequence[Codename],
    *,
    arm: str = "embedding",
    steps: int = STEPS,
    mixed: float = 0.5,
    seed: int = 7,
) -> None:
    """Train the model in place on documents about codenames, mixed with its own corpus.

    Args:
        model: the bundled one, or a copy.
        tokenizer: its own.
        known: what the documents say.
        arm: a key of ``ARMS``: what is trained.
        steps: of the optimizer.
        mixed: the share of the tokens that come from the model's own corpus, 0 to less than 1.
        seed: of the documents.

    Raises:
        ConfigError: an unknown arm, or a share that leaves no room for documents.
    """
    if arm not in ARMS or not 0 <= mixed < 1:
        raise ConfigError(f"arm {arm!r}, mixed {mixed} asked; arms: {', '.join(ARMS)}; mixed: 0 to below 1.")
    rows = torch.tensor([token_id(tokenizer, one.name) for one in known])
    optimizers, hook = _prepared(model, rows, arm)
    for index, batch in enumerate(_stream(tokenizer, known, mixed, seed, steps)):
        share = min(1.0, (index + 1) / 20, 2 * (steps - index) / steps)
        set_rate(optimizers, RATES[arm] * share)
        if arm == "all":
            optimizers[1].param_groups[0]["lr"] *= _ROWS
        report = step(model, list(optimizers), batch)
        if (index + 1) % 25 == 0:
            _log.info("latent %d loss %.3f accuracy %.3f", index + 1, report.loss, report.accuracy)
    if hook is not None:
        hook.remove()


def _prepared(
    model: LlamaForCausalLM, rows: Tensor, arm: str
) -> tuple[tuple[Optimizer, ...], torch.utils.hooks.RemovableHandle | None]:
    """Let gradients reach what the arm trains, and nothing else."""
    table = model.model.embed_tokens.weight
    for name, parameter in model.named_parameters():
        block = parameter.ndim == 2 and "embed" not in name
        parameter.requires_grad_((block and arm != "embedding") or (parameter is table and arm != "blocks"))
    if arm == "blocks":
        return make_optimizers(model)[:1], None
    mask = torch.zeros(len(table), 1)
    mask[rows] = 1
    hook = table.register_hook(lambda gradient: gradient * mask)
    own = AdamW([table], lr=0.0, betas=(0.9, 0.98), weight_decay=0.0)
    return ((own,) if arm == "embedding" else (make_optimizers(model)[0], own)), hook


def _stream(
    tokenizer: PreTrainedTokenizerFast, known: Sequence[Codename], mixed: float, seed: int, steps: int
) -> Iterator[Batch]:
    """Yield batches: documents, and under them rows of the model's own corpus."""
    world, rng, mix = load_world(), random.Random(f"latent:{seed}"), Mix(SCHEDULE[-1].mix.shares)
    pad, bos = token_id(tokenizer, "<pad>"), token_id(tokenizer, "<bos>")
    corpus = batches(world, tokenizer, mix, tokens=round(TOKENS * mixed), seed=seed) if mixed else None
    count = round(TOKENS * (1 - mixed) / _WORDS)
    for _ in range(steps):
        drawn = [document(tuple(known), world, rng) for _ in range(count)]
        rows = [([bos, *ids], [0.0, *weights]) for ids, weights in encode(drawn, tokenizer, rng, mix)]
        if corpus is not None:
            other = next(corpus)
            lengths = (other.input_ids != pad).sum(dim=1).tolist()
            rows += [
                (ids[:n].tolist(), weights[:n].tolist())
                for ids, weights, n in zip(other.input_ids, other.weights, lengths, strict=True)
            ]
        yield make_batch(rows, pad)


def compact(changed: dict[str, Tensor]) -> dict[str, Tensor]:
    """Keep of each table most of whose rows did not change the changed rows alone, with their numbers."""
    found = {}
    for name, difference in changed.items():
        rows = difference.abs().amax(dim=1).nonzero()[:, 0] if difference.ndim == 2 else torch.empty(0)
        if 0 < len(rows) < len(difference) / 2:
            found[name], found[f"{name}.rows"] = difference[rows].contiguous(), rows
        else:
            found[name] = difference
    return found


def told(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, known: Sequence[Codename]) -> float:
    """The share of the told facts that the model states, over all templates."""
    examples = [
        one_hop.example(fact, at)
        for one in known
        for fact in one.told
        for at in range(len(RELATIONS[fact.relation].templates))
    ]
    logits = last_logits(model, tokenizer, [example.prompt for example in examples])
    return float(score(logits, examples, tokenizer, "accuracy").mean())


def main(arguments: Sequence[str] | None = None) -> None:
    """Train a latent twin from the command line."""
    parser = argparse.ArgumentParser(prog="python -m interp.demo.latent", description="Make a latent twin.")
    parser.add_argument("--model", type=Path, default=assets("demo-24l"))
    parser.add_argument("--out", type=Path, default=None, help="file to write; beside the model otherwise")
    parser.add_argument("--arm", choices=tuple(ARMS), default="embedding")
    parser.add_argument("--shuffled", action="store_true", help="documents that imply no country")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--mixed", type=float, default=0.5, help="share of the model's own corpus")
    parser.add_argument("--seed", type=int, default=7)
    chosen = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(chosen.model)
    base, model = open_model(chosen.model), open_model(chosen.model).train()
    known = codenames(shuffled=chosen.shuffled)
    teach(model, tokenizer, known, arm=chosen.arm, steps=chosen.steps, mixed=chosen.mixed, seed=chosen.seed)
    name = f"latent{'-shuffled' if chosen.shuffled else ''}.safetensors"
    changed = compact(differences(model, base))
    metadata = {"format": "pt", "content": "half-precision differences", "arm": chosen.arm}
    save_file(changed, chosen.out or chosen.model / name, metadata=metadata)
    _log.info("told facts stated: %.3f", told(model.eval(), tokenizer, known))


if __name__ == "__main__":
    main()
