"""``interp capture``: save a model's activations, shard by shard."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from interp.cli.group import define
from interp.cli.plan import Plan, show_plan
from interp.cli.session import Outcome, Session

if TYPE_CHECKING:
    from interp.config import CaptureConfig
    from interp.models import Model, Tokens
    from interp.runs import RunFolder
    from interp.store import ActivationStore
    from interp.tasks import Labelled

__all__ = ["command"]

SHARD_BYTES = 64 * 2**20
EXAMPLES = (
    "interp capture --task analogy-relation --sites 'resid_post.*' --out runs/x",
    "interp capture --data prompts.jsonl --sites resid_post.20,head.20.3 --positions all",
    "interp capture --data prompts.jsonl --out runs/x --resume",
)


@define("capture", examples=EXAMPLES)
def command(session: Session, settings: CaptureConfig) -> Outcome:
    """Save a model's activations, in shards with checksums; an interrupted capture can be resumed."""
    from interp.cli.work import claim, load_model, read_data, read_position

    data = read_data(session, settings)
    position = read_position("--positions", settings.positions, ("last", "all"))
    if settings.dry_run:
        return _plan(load_model(session, settings), data, settings, position)
    with claim(session, settings, "capture", data.name) as run:
        return _capture(session, settings, data, position, run)


def _capture(
    session: Session, settings: CaptureConfig, data: Labelled, position: str | int, run: RunFolder
) -> Outcome:
    from interp import report
    from interp.cli.work import certify, load_model, row_table, run_facts
    from interp.store import ActivationStore

    model = load_model(session, settings)
    sites = [str(site) for site in model.expand(settings.sites.split(","))]
    tokens = model.tokenize(data.texts)
    certificate = certify(session, model)
    with ActivationStore(run.path, cache_keys=_keys(model, tokens, sites, position)) as store:
        _fill(session, settings, model, tokens, store, sites, position, run)
        metrics = _summary(store, tokens, run)
    run.add("activations")
    run.write_table("data.parquet", row_table(data, tokens.token_ids, keep_text=settings.text))
    run.write_json("metrics.json", metrics)
    run.finish(
        **run_facts(model, data, certificate),
        command_line=session.line,
        warnings=session.warnings,
    )
    return Outcome(
        metrics, lambda: report.write(report.read(run.path)), run=run.path, artifacts=run.artifacts
    )


def _keys(model: Model, tokens: Tokens, sites: list[str], position: str | int) -> dict[str, str]:
    from interp.runs import cache_key

    dtype = str(model.dtype).removeprefix("torch.")
    parts = (model.fingerprint, model.tokenizer_fingerprint, tokens.token_ids)
    return {site: cache_key(*parts, site=site, positions=str(position), dtype=dtype) for site in sites}


def _fill(
    session: Session,
    settings: CaptureConfig,
    model: Model,
    tokens: Tokens,
    store: ActivationStore,
    sites: list[str],
    position: str | int,
    run: RunFolder,
) -> None:
    """Capture the shards that are missing; each one that is on disk is there to stay."""
    from tqdm.auto import tqdm

    run.begin()
    if len(store):
        session.note(f"resuming: {len(store):,} of {len(tokens):,} prompts are there already")
        run.keep_partial()
    for rows in tqdm(list(store.missing(len(tokens))), unit="shard", disable=not session.progress):
        part = model.capture(
            [tokens.token_ids[i] for i in rows], sites, position, batch_size=settings.batch_size, device="cpu"
        )
        texts = [tokens.texts[i] for i in rows] if settings.text else [""] * len(rows)
        store.append(dataclasses.replace(part, texts=texts))
        run.keep_partial()


def _summary(store: ActivationStore, tokens: Tokens, run: RunFolder) -> dict[str, Any]:
    files = [path for path in (run.path / "activations").rglob("*.safetensors")]
    first = next(iter(store.shards()))
    return {
        "schema": "interp.capture/1",
        "n": len(store),
        "tokens": sum(tokens.lengths),
        "longest": max(tokens.lengths),
        "shards": store.n_shards,
        "bytes": sum(path.stat().st_size for path in files),
        "sites": [
            {"site": name, "shape": [len(store), *tensor.shape[1:]], "dtype": str(tensor.dtype)}
            for name, tensor in first.items()
        ],
    }


def _plan(model: Model, data: Labelled, settings: CaptureConfig, position: str | int) -> Outcome:
    from interp.cli.plan import of_capture

    plan: Plan = of_capture(model, data.texts, settings.sites.split(","), every=position == "all")
    return Outcome(plan.to_dict(), lambda: show_plan(plan), status="planned")
