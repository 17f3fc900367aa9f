"""Write the finished model as a folder anyone can open.

Weights, tokenizer, card, and what was trained and held out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from interp.demo.bars import Row, format_rows
from interp.demo.edit import EDIT_SEED, EDIT_SHARE, edited_world
from interp.demo.optimisation import SCHEDULE, Progress
from interp.tasks.one_hop import held_out_template
from interp.tasks.relations import RELATIONS
from interp.tasks.splits import HELD_OUT_SHARES, SALT
from interp.tasks.table import TASKS
from interp.tasks.two_hop import TEMPLATES, compositions
from interp.tasks.world import World, load_world

__all__ = ["held_out", "training_record", "write_card", "write_model"]


def held_out(world: World) -> dict[str, list[str]]:
    """List what can be listed.

    Held-out (fact, template) combinations and two-hop compositions never trained.
    """
    statements = [
        f"{fact.key}/{index}"
        for fact in world.all_facts
        for index in range(len(RELATIONS[fact.relation].templates))
        if held_out_template(fact, index)
    ]
    composed = [f"{c.bridge.relation}:{c.entity}:{c.second}" for c in compositions(world) if c.held_out]
    return {"one-hop (relation:subject/template)": statements, "two-hop (first:bridge:second)": composed}


def training_record(progress: Progress, *, seed: int) -> dict[str, object]:
    """What exactly was trained and what was held out."""
    world, twin = load_world(), edited_world()
    changed = [
        {"relation": old.relation, "subject": old.subject, "true": old.object, "edited": new.object}
        for old, new in zip(world.all_facts, twin.all_facts, strict=True)
        if old.object != new.object
    ]
    return {
        "seed": seed,
        "tokens": progress.tokens,
        "seconds": round(progress.seconds),
        "stages": [asdict(stage) for stage in SCHEDULE],
        "tasks": {name: task.description for name, task in TASKS.items()},
        "facts": {name: len(facts) for name, facts in world.facts.items()},
        "held_out": {
            "rule": "held out when blake2b(salt, task, key) / 2**64 < share: interp.tasks.splits.is_held_out",
            "salt": SALT,
            "shares": HELD_OUT_SHARES,
            "two_hop_templates": list(TEMPLATES),
            "listed": held_out(world),
        },
        "edited_twin": {"share": EDIT_SHARE, "seed": EDIT_SEED, "facts": changed},
    }


def write_model(
    folder: Path,
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    progress: Progress,
    *,
    seed: int,
) -> None:
    """Write weights, configuration, tokenizer and ``training.json``."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    record = training_record(progress, seed=seed)
    (folder / "training.json").write_text(
        json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )


def write_card(
    folder: Path,
    model: LlamaForCausalLM,
    rows: Sequence[Row],
    belief: Mapping[str, float],
    record: Mapping[str, object],
) -> None:
    """Write the model card with the numbers just measured."""
    config, twin = model.config, record["edited_twin"]
    template = Path(__file__).with_name("card.md").read_text(encoding="utf-8")
    text = template.format(
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        heads=config.num_attention_heads,
        kv=config.num_key_value_heads,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        facts=len(load_world().all_facts),
        edited=len(twin["facts"]) if isinstance(twin, Mapping) else 0,
        table=format_rows(rows),
        belief="\n".join(f"{name:40}{value:6.3f}" for name, value in belief.items()),
        tokens=record["tokens"],
        minutes=round(float(str(record["seconds"])) / 60),
    )
    (folder / "README.md").write_text(text, encoding="utf-8")
