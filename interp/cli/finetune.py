"""``interp finetune``: train a small adapter on pairs of a prompt and an answer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from interp.cli.budget import Job
from interp.cli.dry_run import planned
from interp.cli.frame import Made, Work, command
from interp.cli.options import COUNT, ModelSettings, RunSettings, flag
from interp.errors import ConfigError, counted

if TYPE_CHECKING:
    from interp.cli.session import Outcome
    from interp.demo.finetune import FineTuning

__all__ = ["finetune"]

EXAMPLES = (
    "interp finetune --data pairs.jsonl --lora 8 --out tuned",
    "interp finetune --data pairs.jsonl --model smollm2 --out tuned",
    "interp finetune --data pairs.jsonl --shuffle --out twin",
    "interp finetune --data pairs.jsonl --seed 1 --out again",
)
STEPS, FEWEST = 100, 10
PASSES = 3.0
"""Passes of one pair that learning it once takes: forward, and backward twice as long."""


@dataclass(frozen=True, kw_only=True)
class FinetuneSettings(RunSettings, ModelSettings):
    """Train a low-rank adapter (LoRA) on the answers of pairs, and say what it learned.

    A fifth of the prompts, or of the groups, is held out. The run's folder `adapter` goes where models go:
    --adapter of every command, and --with and --twin of `interp compare`. A run that was stopped goes on
    with --resume.
    """

    data: str = flag(
        "",
        "Pairs: a JSONL, CSV or TSV file of prompt,answer[,group][,relation].",
        metavar="FILE",
        shown="none: it must be given",
    )
    lora: int = flag(8, "Rank of the change of each matrix.", **COUNT)
    steps: int | None = flag(
        None, "Steps of eight pairs.", shown=f"{STEPS}, or as many as fit --budget", **COUNT
    )
    rate: float = flag(
        2e-3,
        "The largest learning rate.",
        metavar="X",
        allowed="a number above 0 and below 1",
        check=lambda x: 0 < x < 1,
    )
    shuffle: bool = flag(
        False,
        "Give each prompt another's answer, of its relation where there is one: the twin of a comparison.",
    )

    @property
    def given(self) -> tuple[str, ...]:
        """The flags that say how much is taken."""
        return (*super().given, *(("steps",) if self.steps is not None else ()))

    def how(self) -> FineTuning:
        """The training that is asked for."""
        from interp.demo.finetune import FineTuning

        steps = self.steps or STEPS
        return FineTuning(rank=self.lora, steps=steps, rate=self.rate, shuffle=self.shuffle)

    def about(self) -> str:
        """The data, and whether it is shuffled."""
        return Path(self.data).stem + ("-shuffled" if self.shuffle else "")


def plan(work: Work, settings: FinetuneSettings) -> Outcome:
    """What the training would take."""
    settings = work.sized(settings, lambda: _job(settings))
    job, seen = _job(settings), settings.how().batch * settings.how().steps
    asked = replace(job, whole=seen, passes=lambda n: job.passes(settings.how().steps))
    return planned(work, replace(settings, limit=None, full=True), asked, models=2)


@command(FinetuneSettings, examples=EXAMPLES, plan=plan)
def finetune(work: Work, settings: FinetuneSettings) -> Made:
    """Train, keeping what is done."""
    from interp.demo.finetune import ADAPTER
    from interp.demo.finetune import finetune as trained

    pairs = _pairs(settings)
    settings = work.sized(settings, lambda: _job(settings))
    model, folder = work.certified(), work.run.begin()
    work.run.keep_partial()
    result = trained(
        model,
        pairs,
        folder,
        groups=_groups(settings),
        relations=_relations(settings),
        how=settings.how(),
        seed=settings.seed,
        progress=work.session.progress,
    )
    work.session.note(f"adapter: {folder / ADAPTER} (interp compare --with {folder / ADAPTER})")
    return Made(result, folders=(ADAPTER, "finetuned.json"))


def _pairs(settings: FinetuneSettings) -> list[tuple[str, str]]:
    from interp.demo.finetune import divided, read_training_pairs

    if not settings.data:
        raise ConfigError(
            'no pairs; give --data FILE, with lines such as {"prompt": "the capital of Peru is", '
            '"answer": "Lima"}.'
        )
    pairs = read_training_pairs(settings.data)[: settings.limit]
    divided(pairs, settings.how().held_out, settings.seed, _groups(settings))  # too few are refused at once
    return pairs


def _groups(settings: FinetuneSettings) -> list[str] | None:
    from interp.demo.finetune import read_training_groups

    groups = read_training_groups(settings.data)
    return None if groups is None else groups[: settings.limit]


def _relations(settings: FinetuneSettings) -> list[str] | None:
    from interp.demo.finetune import read_training_relations

    relations = read_training_relations(settings.data)
    return None if relations is None else relations[: settings.limit]


def _job(settings: FinetuneSettings) -> Job:
    """What it takes: passes forward and back for each pair of each step, and asking both models."""
    pairs = _pairs(settings)
    how = settings.how()
    return Job(
        whole=STEPS,
        least=FEWEST,
        texts=[f"{prompt} {answer}" for prompt, answer in pairs],
        passes=lambda steps: PASSES * how.batch * steps + 2 * len(pairs),
        shown=lambda steps: counted(steps, "step"),
        settings=lambda steps: {"steps": steps},
    )
