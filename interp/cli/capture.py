"""``interp capture``: save a model's activations, shard by shard."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from interp.cli.dry_run import of_capture, show_plan
from interp.cli.frame import Made, Work, about_data, command, prompt_job, prompt_table, read_prompts
from interp.cli.options import PromptSettings, features_flag, flag, position
from interp.cli.session import Outcome
from interp.errors import counted

if TYPE_CHECKING:
    from interp.models import Model, Tokens
    from interp.store import ActivationStore

__all__ = ["capture"]

EXAMPLES = (
    "interp capture --task analogy-relation --sites 'resid_post.*' --out runs/x",
    "interp capture --data prompts.jsonl --sites resid_post.20,head.20.3 --positions all",
    "interp capture --data chats.jsonl --positions 'role:assistant & content' --out runs/x",
    "interp capture --data prompts.jsonl --out runs/x --resume",
)


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

    def check(self) -> None:
        """Refuse what is no position too."""
        super().check()
        self.where()

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
    sites = [str(site) for site in work.model.expand(settings.sites.split(","))]
    tokens = work.model.tokenize(list(data.prompts))
    for warning in tokens.warnings if data.messages else ():
        work.session.warn(warning)
    keys = _keys(work.certified(), tokens, sites, settings.where())
    work.run.begin()
    with ActivationStore(work.run.path, cache_keys=keys) as store:
        _fill(work, settings, tokens, store, sites)
        found = store.summary()
    return Made(
        found,
        tables={
            "data.parquet": prompt_table(data, tokens.token_ids, keep_text=settings.text),
            **selected_table(work.model, tokens, settings.where(), keep_text=settings.text),
        },
        folders=("activations",),
        facts={"data": about_data(data)},
    )


def _keys(model: Model, tokens: Tokens, sites: list[str], where: str | int) -> dict[str, str]:
    from interp.runs import cache_key
    from interp.sites import OF_DICTIONARIES

    dtype = str(model.dtype).removeprefix("torch.")
    parts = (model.fingerprint, model.tokenizer_fingerprint, tokens.token_ids)
    own = {
        f"{kind}.{n}": one.fingerprint for n, one in model.dictionaries.items() for kind in OF_DICTIONARIES
    }
    names = {site: f"{site} {own.get('.'.join(site.split('.')[:2]), '')}".strip() for site in sites}
    return {site: cache_key(*parts, site=names[site], positions=str(where), dtype=dtype) for site in sites}


def _fill(
    work: Work, settings: CaptureSettings, tokens: Tokens, store: ActivationStore, sites: list[str]
) -> None:
    """Capture the shards that are missing; each one that is on disk is there to stay."""
    from tqdm.auto import tqdm

    if len(store):
        work.session.note(f"resuming: {len(store):,} of {counted(len(tokens), 'prompt')} are there already")
        work.run.keep_partial()
    for rows in tqdm(list(store.missing(len(tokens))), unit="shard", disable=not work.session.progress):
        part = work.model.capture(
            tokens.select(rows),
            sites,
            settings.where(),
            batch_size=settings.batch_size,
            device="cpu",
        )
        part = dataclasses.replace(part, texts=[tokens.texts[i] for i in rows])
        store.append(part if settings.text else part.redacted())
        work.run.keep_partial()
