"""``interp patch``: which part of a model carries the difference between two prompts."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from interp.cli.group import define
from interp.cli.session import Outcome, Session
from interp.errors import ConfigError

if TYPE_CHECKING:
    from interp.analyses.patching import PairsFor, Patching
    from interp.config import PatchConfig
    from interp.models import Model
    from interp.pairs import PairSet
    from interp.runs import RunFolder
    from interp.tasks import Labelled

__all__ = ["command"]

EXAMPLES = (
    "interp patch --task capitals --mediators 'head.*'",
    "interp patch --mediators 'head.*' --search attribution --task ioi",
    "interp patch --task capitals --mediators 'resid_post.*' --where -1",
    "interp patch --task capitals --mediators 'edge.*' --search attribution",
    "interp patch --model gpt2 --data pairs.jsonl --mediators 'attn_out.*,mlp_out.*'",
)
DEFAULT_TASK, DEFAULT_PAIRS = "capitals", 32


@define("patch", examples=EXAMPLES)
def command(session: Session, settings: PatchConfig) -> Outcome:
    """Rank mediators by their causal effect on the answer, in both directions, with intervals.

    Pairs come from --task, or from --data: a JSONL file of clean, corrupt, answer, foil.
    """
    from interp.cli.work import claim, read_position
    from interp.config import choose
    from interp.mediation import DIRECTIONS, METRICS, REPLACEMENTS, SEARCHES, replacement_of

    if settings.data is not None and settings.task is not None:
        raise ConfigError(
            f"--task {settings.task!r} and --data {settings.data!r} exclude each other. Give one of them."
        )
    choose("--search", settings.search, SEARCHES)
    choose("--metric", settings.metric, METRICS)
    choose("--replacement", settings.replacement.partition(":")[0], REPLACEMENTS)
    replacement_of(settings.replacement)
    choose("--directions", settings.directions, ("both", *DIRECTIONS))
    where = read_position("--where", settings.where, ("auto", "all", "each"))
    if settings.dry_run:
        return _plan(session, settings, where)
    with claim(session, settings, "patch", _name(settings)) as run:
        return _patch(session, settings, where, run)


def _name(settings: PatchConfig) -> str:
    from pathlib import Path

    return Path(settings.data).stem if settings.data is not None else settings.task or DEFAULT_TASK


def _pairs(settings: PatchConfig, model: Model) -> PairsFor:
    from interp.analyses.patching import pairs_for
    from interp.pairs import PairSet

    n = settings.limit or DEFAULT_PAIRS
    if settings.data is None:
        kind = settings.counterfactual
        return pairs_for(model, _name(settings), n, seed=settings.seed, counterfactual=kind)
    own = PairSet.from_jsonl(model, settings.data, misaligned=settings.misaligned)[: settings.limit]
    return pairs_for(model, own, seed=settings.seed)


def _patch(session: Session, settings: PatchConfig, where: str | int, run: RunFolder) -> Outcome:
    from interp import report
    from interp.analyses.patching import patch
    from interp.cli.work import certify, load_model
    from interp.mediation.chosen import chosen

    model = load_model(session, settings)
    pairs = _pairs(settings, model)
    found = chosen(model, pairs.ranking, list(settings.mediators), positions=where)
    held = f", {len(pairs.held_out)} others held out" if pairs.held_out is not None else ""
    session.note(f"pairs: {pairs.ranking!r}{held}, {len(found)} mediators")
    certificate = certify(session, model)
    result = patch(
        model,
        pairs,
        list(found),
        search=settings.search,
        metric=settings.metric,
        replacement=settings.replacement,
        directions=settings.directions,
        positions=where,
        seed=settings.seed,
        progress=session.progress,
    )
    if result.note:
        session.note(f"no circuit: {result.note}")
    _write(session, settings, run, model, pairs.ranking, result, certificate)
    story = report.read(run.path)
    page = report.html(run.path)

    def show() -> None:
        report.write(story)
        session.say(f"run: {run.path}   report: {page}")

    data = {**result.to_dict(), "certificate": {"passed": certificate["passed"]}}
    return Outcome(data, show, run=run.path, artifacts=(*run.artifacts, page.name))


def _labelled(settings: PatchConfig, pairs: PairSet) -> Labelled:
    """Give the pairs' clean prompts as a data set, for the run's record."""
    from interp.tasks import PAIR_TASKS, Labelled

    n, name = len(pairs), _name(settings)
    rows = {row.name: row.description for row in PAIR_TASKS.values()}
    return Labelled(
        name,
        rows.get(name, f"pairs of {name}"),
        tuple(pair.clean for pair in pairs),
        tuple(pair.answers[0] for pair in pairs),
        tuple(pairs.groups),
        ("test",) * n,
    )


def _write(
    session: Session,
    settings: PatchConfig,
    run: RunFolder,
    model: Model,
    pairs: PairSet,
    result: Patching,
    certificate: Any,
) -> None:
    """Write everything but the report, which is made from what is written here."""
    from interp.cli.work import row_table, run_facts
    from interp.report.pages import figure_page
    from interp.report.stories import figures

    data = _labelled(settings, pairs)
    table = row_table(data, pairs.clean.token_ids, keep_text=settings.text)
    if settings.text:
        table = table.assign(corrupt=[pair.corrupt for pair in pairs], foil=[pair.foils[0] for pair in pairs])
    for text in result.effects.warnings:
        session.warn(text)
    for text in run.write_json("metrics.json", result.to_dict()):
        session.warn(text)
    run.write_table("data.parquet", table)
    run.write_table("effects.parquet", result.table())
    for name, figure in figures("patch", result.to_dict(), table).items():
        run.write_text(f"figures/{name}.svg", figure.svg())
        run.write_text(f"figures/{name}.html", figure_page(figure))
    run.finish(**run_facts(model, data, certificate), command_line=session.line, warnings=session.warnings)


def _plan(session: Session, settings: PatchConfig, where: str | int) -> Outcome:
    from interp.cli.work import load_model
    from interp.mediation import plan

    model = load_model(session, settings)
    found = plan(
        model,
        _pairs(settings, model).ranking,
        list(settings.mediators),
        search=settings.search,
        metric=settings.metric,
        replacement=settings.replacement,
        directions=settings.directions,
        positions=where,
        seed=settings.seed,
    )

    def show() -> None:
        session.say(f"{found}; nothing was run")

    return Outcome(asdict(found), show, status="planned")
