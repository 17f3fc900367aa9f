"""``interp capture``: save a model's activations, shard by shard."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from interp.addresses import place
from interp.cli.dry_run import of_capture, show_plan
from interp.cli.frame import (
    Made,
    Work,
    about_data,
    command,
    load_model,
    prompt_job,
    prompt_table,
    read_prompts,
)
from interp.cli.options import PromptSettings, features_flag, flag, position
from interp.cli.session import Outcome
from interp.errors import ConfigError, counted

if TYPE_CHECKING:
    from pathlib import Path

    from interp.models import Model, Tokens
    from interp.scaling import CaptureJob
    from interp.store import ActivationStore

__all__ = ["CaptureSettings", "capture", "job_of"]

EXAMPLES = (
    "interp capture --task analogy-relation --sites 'resid_post.*' --out runs/x",
    "interp capture --data prompts.jsonl --sites resid_post.20,head.20.3 --positions all",
    "interp capture --data chats.jsonl --positions 'role:assistant & content' --out runs/x",
    "interp capture --data prompts.jsonl --out runs/x --resume",
    "interp capture --data prompts.jsonl --full --workers 4 --out runs/x",
)


def _engines() -> Collection[str]:
    from interp.scaling import ENGINES

    return ENGINES


@dataclass(frozen=True, kw_only=True)
class CaptureSettings(PromptSettings):
    """Save a model's activations, in shards with checksums; an interrupted capture can be resumed."""

    sites: str = flag(
        "resid_post.*", "Sites to save, globs allowed (`interp ls sites`).", metavar="SITES", many=True
    )
    features: tuple[str, ...] = features_flag()
    positions: str = flag(
        "last",
        "Tokens to save of each prompt: last, all, an index, or a selector (`interp ls selectors`).",
        metavar="WHICH",
    )

    workers: int = flag(
        1,
        "Processes that make shards, each with a model of its own.",
        metavar="N",
        group="Run",
        check=lambda n: n >= 1,
        allowed="at least 1",
        part="speed",
    )
    engine: str = flag(
        "processes",
        "Who runs the workers: processes of this machine, or a Ray cluster.",
        metavar="NAME",
        group="Run",
        allowed=_engines,
        part="speed",
    )
    store: str | None = flag(
        None,
        "An address of fsspec for the states, such as s3://bucket/x.",
        metavar="ADDRESS",
        group="Run",
        shown="the run folder",
    )

    def check(self) -> None:
        """Refuse what is no position too."""
        super().check()
        self.where()
        if self.store is not None:
            if "://" not in self.store:
                raise ConfigError(
                    f"--store {self.store!r} is no address; write one such as s3://bucket/x, or --out FOLDER."
                )
            place(self.store)

    def where(self) -> str | int:
        """The position of each prompt's token, or all of them."""
        return position("--positions", self.positions, ("last", "all"))


def plan(work: Work, settings: CaptureSettings) -> Outcome:
    """What a capture would take."""
    data = read_prompts(work, settings)
    found = of_capture(work.model, data.prompts, settings.sites.split(","), positions=settings.where())
    return Outcome(found.to_dict(), lambda: show_plan(found), status="planned")


@command(CaptureSettings, examples=EXAMPLES, plan=plan)
def capture(work: Work, settings: CaptureSettings) -> Made:
    """Capture the shards that are missing, and count what there is."""
    from interp.report.selections import selected_table
    from interp.store import ActivationStore

    settings = work.sized(settings, lambda: prompt_job(settings, 1.0), own=settings.data is not None)
    data = read_prompts(work, settings)
    tokens = work.model.tokenize(list(data.prompts))
    for warning in tokens.warnings if data.messages else ():
        work.session.warn(warning)
    job = job_of(work.certified(), tokens, settings, work.run.path)
    work.run.begin()
    with ActivationStore(job.folder, cache_keys=job.keys) as store:
        _fill(work, settings, job, tokens, store)
        found = store.summary()
    return Made(
        found,
        tables={
            "data.parquet": prompt_table(data, tokens.token_ids, keep_text=settings.text),
            **selected_table(work.model, tokens, settings.where(), keep_text=settings.text),
        },
        folders=() if settings.store else ("activations",),
        facts={"data": about_data(data), **({"store": settings.store} if settings.store else {})},
    )


def job_of(model: Model, tokens: Tokens, settings: CaptureSettings, folder: Path) -> CaptureJob:
    """What any process needs to make shards of a capture."""
    from interp import scaling

    sites = tuple(str(site) for site in model.expand(settings.sites.split(",")))
    return scaling.CaptureJob(
        make=partial(load_model, settings, settings.scheme),
        fingerprint=model.fingerprint,
        folder=settings.store or folder,
        sites=sites,
        positions=settings.where(),
        keys=scaling.cache_keys(model, tokens, sites, settings.where()),
        batch_size=settings.batch_size,
        text=settings.text,
    )


def _fill(
    work: Work, settings: CaptureSettings, job: CaptureJob, tokens: Tokens, store: ActivationStore
) -> None:
    """Capture the shards that are missing; each one that is on disk is there to stay."""
    from tqdm.auto import tqdm

    from interp import scaling

    if len(store):
        work.session.note(f"resuming: {len(store):,} of {counted(len(tokens), 'prompt')} are there already")
        work.run.keep_partial()
    if settings.workers == 1 and settings.engine == "processes":
        counts = scaling.alone(store, job, work.model, tokens)
    else:
        counts = scaling.fill(store, job, tokens, workers=settings.workers, engine=settings.engine)
    with tqdm(total=len(tokens), initial=len(store), unit="prompt", disable=not work.session.progress) as bar:
        for count in counts:
            work.run.keep_partial()
            bar.update(count - bar.n)
