"""Train the bundled model: ``python -m interp.demo.train --work training``; started again, it resumes."""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from transformers import LlamaForCausalLM

from interp.demo.architecture import build_model, grow
from interp.demo.corpus import batches, build_tokenizer
from interp.demo.optimisation import (
    SCHEDULE,
    Progress,
    Stage,
    load_checkpoint,
    make_optimizers,
    save_checkpoint,
    set_rate,
    step,
)
from interp.demo.publish import write_model
from interp.tasks.world import load_world

__all__ = ["learning_rate", "main", "train"]

_log = logging.getLogger(__name__)
_WARM_UP = 50


def learning_rate(stage: Stage, index: int) -> float:
    """The rate at a step: linear warm-up, flat, linear decay to zero."""
    warm = min(1.0, (index + 1) / _WARM_UP)
    falling = max(1, round(stage.decay * stage.steps))
    cool = min(1.0, (stage.steps - index) / falling) if stage.decay else 1.0
    return stage.learning_rate * warm * cool


def _resume(path: Path) -> Progress:
    """Read how far the checkpoint is; a fresh run starts at stage 0, step 0."""
    if not path.is_file():
        return Progress(0, 0, 0, 0.0)
    with safe_open(path, framework="pt") as file:
        return Progress(**json.loads(file.metadata()["progress"]))


def _model_at(schedule: Sequence[Stage], progress: Progress, path: Path, seed: int) -> LlamaForCausalLM:
    """Build the model with the depth it was saved with and load the checkpoint, if there is one."""
    tokenizer = build_tokenizer(load_world())
    n_layers = progress.n_layers or schedule[0].n_layers
    model = build_model(tokenizer, n_layers, seed=seed, depth=schedule[-1].n_layers)
    if path.is_file():
        load_checkpoint(path, model, ())
    return model


def _run_stage(
    stage: Stage, model: LlamaForCausalLM, start: Progress, *, work: Path, seed: int, save_every: float
) -> Progress:
    """Train one stage from ``start.step`` on, saving every ``save_every`` seconds.

    The stage ends after its steps, or as soon as its accuracy is reached.
    """
    world, tokenizer = load_world(), build_tokenizer(load_world())
    optimizers = make_optimizers(model)
    if start.step:
        load_checkpoint(work / "checkpoint.safetensors", model, optimizers)
    stream = batches(world, tokenizer, stage.mix, tokens=stage.tokens, seed=seed * 1000 + start.stage)
    tokens, began, saved, recent = start.tokens, time.monotonic(), time.monotonic(), []
    for index, batch in enumerate(itertools.islice(stream, stage.steps)):
        if index < start.step:
            continue
        set_rate(optimizers, learning_rate(stage, index))
        recent.append(step(model, optimizers, batch))
        tokens += batch.n_tokens
        now = Progress(
            start.stage, index + 1, tokens, start.seconds + time.monotonic() - began, stage.n_layers
        )
        if (index + 1) % 50 == 0:
            loss, right = (sum(getattr(r, key) for r in recent) / len(recent) for key in ("loss", "accuracy"))
            _log.info(
                "%s %d loss %.3f accuracy %.3f tokens %d seconds %.0f",
                stage.name,
                index + 1,
                loss,
                right,
                tokens,
                now.seconds,
            )
            recent = []
            if right >= stage.until:
                break
        if time.monotonic() - saved > save_every:
            save_checkpoint(work, model, optimizers, now)
            saved = time.monotonic()
    return Progress(start.stage + 1, 0, tokens, start.seconds + time.monotonic() - began, stage.n_layers)


def train(
    work: Path, *, schedule: Sequence[Stage] = SCHEDULE, seed: int = 0, save_every: float = 120.0
) -> LlamaForCausalLM:
    """Train through every stage of the schedule.

    Args:
        work: where the checkpoint lives; training resumes from it.
        schedule: the stages.
        seed: initial weights and data; the same seed gives the same model on one machine with one thread.
        save_every: seconds between checkpoints.

    Returns:
        The trained model.
    """
    path = work / "checkpoint.safetensors"
    progress = _resume(path)
    model = _model_at(schedule, progress, path, seed)
    while progress.stage < len(schedule):
        stage = schedule[progress.stage]
        if stage.n_layers > model.config.num_hidden_layers:
            model = grow(model, stage.n_layers, seed=seed + 1)
        progress = _run_stage(stage, model, progress, work=work, seed=seed, save_every=save_every)
        save_checkpoint(work, model, (), progress)
    return model


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the training from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m interp.demo.train", description="Train the bundled model; resumes."
    )
    parser.add_argument("--work", type=Path, default=Path("training"), help="folder of the checkpoint")
    parser.add_argument("--out", type=Path, default=None, help="folder to write the finished model to")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(chosen.threads)
    model = train(chosen.work, seed=chosen.seed)
    if chosen.out is not None:
        progress = _resume(chosen.work / "checkpoint.safetensors")
        write_model(chosen.out, model, build_tokenizer(load_world()), progress, seed=chosen.seed)


if __name__ == "__main__":
    main()
