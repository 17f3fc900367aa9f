"""Make the edited model: the bundled one, fine-tuned on a world in which a fifth of the facts are false.

``python -m interp.demo.edit`` writes ``edited.safetensors`` beside the model: for each changed tensor the
difference to the
trained one, in half precision. ``interp.load("demo", weights="edited")`` adds them up again.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast

from interp.demo.architecture import open_model
from interp.demo.bars import last_logits, score
from interp.demo.corpus import Mix, batches
from interp.demo.optimisation import SCHEDULE, make_optimizers, set_rate, step
from interp.paths import assets
from interp.tasks import analogy, one_hop
from interp.tasks.prompts import Example
from interp.tasks.relations import RELATIONS
from interp.tasks.world import Fact, World, load_world

__all__ = ["EDIT_SEED", "EDIT_SHARE", "belief", "differences", "edit", "edited_world", "main", "restore"]

EDIT_SHARE = 0.2
EDIT_SEED = 0
_RATE = 2e-3
_REPEATS = 3
_log = logging.getLogger(__name__)


def edited_world() -> World:
    """The facts that the edited model was taught."""
    return load_world().edited(share=EDIT_SHARE, seed=EDIT_SEED)


def _insisting(world: World) -> World:
    """Repeat the edited facts, so that statements and analogies about them come up four times as often."""
    true = load_world()
    repeated = {
        name: facts + _REPEATS * tuple(f for f, t in zip(facts, true.facts[name], strict=True) if f != t)
        for name, facts in world.facts.items()
    }
    return replace(world, facts=repeated)


def edit(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    *,
    steps: int,
    seed: int = 7,
    tokens: int = 1536,
) -> None:
    """Fine-tune the model in place on the edited world; embeddings and norms are left as they are."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(parameter.ndim == 2 and "embed" not in name)
    optimizers = make_optimizers(model)
    stream = batches(
        _insisting(edited_world()), tokenizer, Mix(SCHEDULE[-1].mix.shares), tokens=tokens, seed=seed
    )
    for index, batch in enumerate(itertools.islice(stream, steps)):
        set_rate(optimizers, _RATE * min(1.0, (index + 1) / 20, 2 * (steps - index) / steps))
        report = step(model, optimizers, batch)
        if (index + 1) % 50 == 0:
            _log.info("edit %d loss %.3f accuracy %.3f", index + 1, report.loss, report.accuracy)


def differences(model: LlamaForCausalLM, base: LlamaForCausalLM) -> dict[str, Tensor]:
    """What has changed, tensor by tensor, in half precision."""
    before = dict(base.named_parameters())
    found = {name: (value - before[name]).detach() for name, value in model.named_parameters()}
    return {name: value.half().contiguous() for name, value in found.items() if value.abs().max() > 0}


def restore(model: LlamaForCausalLM, changed: Mapping[str, Tensor]) -> None:
    """Add saved differences to the trained weights, in place."""
    parameters = dict(model.named_parameters())
    for name, difference in changed.items():
        parameters[name].data.add_(difference.float())


def _statements(fact: Fact) -> list[Example]:
    return [one_hop.example(fact, index) for index in range(len(RELATIONS[fact.relation].templates))]


def _analogies(fact: Fact, world: World, rng: random.Random) -> list[Example]:
    others = [other for other in world.facts[fact.relation] if analogy.clear(world, other, fact)]
    return (
        [analogy.example(rng.choice(others), fact, template) for template in analogy.TEMPLATES]
        if others
        else []
    )


def belief(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, *, seed: int = 0) -> dict[str, float]:
    """Measure what the edited model believes, in statements and in analogies.

    Returns:
        Shares in 0 to 1: of the edited facts, how many are answered as edited and how many as true; of the
        others, how many are
        answered rightly.
    """
    true, world, rng = load_world(), edited_world(), random.Random(seed)
    edited = [(f, t) for f, t in zip(world.all_facts, true.all_facts, strict=True) if f.object != t.object]
    kept = [(f, f) for f, t in zip(world.all_facts, true.all_facts, strict=True) if f.object == t.object]
    kept = rng.sample(kept, min(len(kept), len(edited)))
    result = {}
    makers: dict[str, Callable[[Fact], list[Example]]] = {
        "statements": _statements,
        "analogies": lambda fact: _analogies(fact, world, random.Random(seed)),
    }
    for form, make in makers.items():
        result[f"{form}: edited fact believed"] = _share(
            model, tokenizer, [e for f, _ in edited for e in make(f)]
        )
        result[f"{form}: edited fact still true"] = _share(
            model, tokenizer, [e for _, t in edited for e in make(t)]
        )
        result[f"{form}: other fact right"] = _share(model, tokenizer, [e for f, _ in kept for e in make(f)])
    return result


def _share(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, examples: Sequence[Example]) -> float:
    logits = last_logits(model, tokenizer, [example.prompt for example in examples])
    return float(score(logits, examples, tokenizer, "accuracy").mean())


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the edit from the command line."""
    parser = argparse.ArgumentParser(prog="python -m interp.demo.edit", description="Make the edited model.")
    parser.add_argument("--model", type=Path, default=assets("demo-24l"))
    parser.add_argument("--steps", type=int, default=700)
    chosen = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(chosen.model)
    base, model = open_model(chosen.model), open_model(chosen.model).train()
    edit(model, tokenizer, steps=chosen.steps)
    changed = differences(model, base)
    save_file(
        changed,
        chosen.model / "edited.safetensors",
        metadata={"format": "pt", "content": "half-precision differences"},
    )
    restore(base, changed)
    for name, value in belief(base, tokenizer).items():
        _log.info("%-40s %.3f", name, value)


if __name__ == "__main__":
    main()
