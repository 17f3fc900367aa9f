"""``interp probe``: the main job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from interp.cli.group import define
from interp.cli.session import Outcome, Session

if TYPE_CHECKING:
    from interp.analyses.probing import ProbeResult
    from interp.config import ProbeConfig
    from interp.models import Model
    from interp.runs import RunFolder
    from interp.tasks import Labelled

__all__ = ["command"]

EXAMPLES = (
    "interp probe --layer 20",
    "interp probe --layers all --task fact-relation --out runs/facts",
    "interp probe --model gpt2 --layer 50% --data reviews.csv --fail-under accuracy=0.8",
    "interp probe --layers all --protocol bridge",
    "interp probe --layer 20 --causal",
    "interp probe --layer 20 --json | python -m json.tool",
)


@define("probe", examples=EXAMPLES)
def command(session: Session, settings: ProbeConfig) -> Outcome:
    """Train a probe on a layer and measure it against controls on held-out prompts.

    Without --task, --data or --kind a Hyperdimensional Probe reads concepts, under the protocol
    concept-disjoint; with one of them a probe reads a label. --causal also changes the state along the
    probe's directions (erase, exchange, push), beside random ones, and says whether the model uses them.
    """
    from interp.analyses import probing
    from interp.cli.causal import check_causal
    from interp.cli.gates import read_gates
    from interp.cli.work import claim, load_model, read_data, read_position
    from interp.config import choose
    from probes import PROBES

    if (protocol := _protocol(session, settings)) is not None:
        from interp.cli import concepts

        return concepts.probe(session, settings, protocol)
    choose("--kind", settings.kind, PROBES)
    probing.check_kind(settings.kind)
    check_causal(settings)
    for name in settings.controls:
        choose("--controls", name, probing.CONTROLS)
    measured = ("accuracy", *(f"over-{name}" for name in settings.controls))
    gates = read_gates(settings.fail_under, [name for name in probing.METRICS if name in measured])
    position = read_position("--position", settings.position, ("last",))
    data = read_data(session, settings)
    if settings.dry_run:
        return _plan(load_model(session, settings), data, settings)
    with claim(session, settings, "probe", data.name) as run:
        return _probe(session, settings, data, position, gates, run)


def _protocol(session: Session, settings: ProbeConfig) -> str | None:
    """Give the protocol asked for; the headline one where nothing says that a label is to be read."""
    assert session.resolved is not None
    if settings.protocol is not None:
        return settings.protocol
    plain = session.resolved.origins["kind"] == "default"
    return "concept-disjoint" if plain and not (settings.task or settings.data) else None


def _probe(
    session: Session,
    settings: ProbeConfig,
    data: Labelled,
    position: str | int,
    gates: dict[str, float],
    run: RunFolder,
) -> Outcome:
    from interp import report
    from interp.analyses.probing import probe
    from interp.cli.causal import causal_part
    from interp.cli.gates import failed_audit, failed_gate
    from interp.cli.work import certify, load_model

    model = load_model(session, settings)
    certificate = certify(session, model)
    result = probe(
        model,
        data,
        layers=settings.layers,
        kind=settings.kind,
        position=position,
        seed=settings.seed,
        controls=_controls(session, settings),
        batch_size=settings.batch_size,
        progress=session.progress,
    )
    causal = causal_part(session, settings, model, result)
    _write(session, settings, run, model, result, certificate, causal)
    story = report.read(run.path)
    page = report.html(run.path)

    def show() -> None:
        report.write(story)
        session.say(f"run: {run.path}   report: {page}")

    files = (*run.artifacts, page.name)
    data_out = {**result.to_dict(), **causal, "certificate": {"passed": certificate["passed"]}}
    error = failed_audit(settings.strict, result.leakage) or failed_gate(gates, result.metrics)
    return Outcome(data_out, show, run=run.path, artifacts=files, error=error)


def _controls(session: Session, settings: ProbeConfig) -> tuple[str, ...]:
    """Leave out the control that a model of random weights cannot have, unless it was asked for."""
    assert session.resolved is not None
    if settings.weights == "random" and session.resolved.origins["controls"] == "default":
        session.note("the model has random weights: the random-weights control is left out")
        return tuple(name for name in settings.controls if name != "random-weights")
    return settings.controls


def _write(
    session: Session,
    settings: ProbeConfig,
    run: RunFolder,
    model: Model,
    result: ProbeResult,
    certificate: Any,
    causal: dict[str, Any],
) -> None:
    """Write everything but the report, which is made from what is written here."""
    from interp.analyses.probing import CONTROLS
    from interp.cli.work import row_table, run_facts
    from interp.report.pages import figure_page
    from interp.report.stories import figures
    from probes import PROBES

    table = row_table(result.data, model.tokenize(result.data.texts).token_ids, keep_text=settings.text)
    found = result.predictions()
    rows = table.assign(**{key: found[key] for key in ("split", "predicted", "right", "probability")})
    for text in result.warnings:
        session.warn(text)
    content = {**result.to_dict(), **causal}
    if not settings.text:
        content["leakage"]["first"] = []
    for text in run.write_json("metrics.json", content):
        session.warn(text)
    run.write_table("data.parquet", rows)
    run.write_table("metrics.parquet", result.table())
    for layer, fitted in result.probes.items():
        fitted.save(run.path / "probes" / f"resid_post.{layer}", card=result.card(layer))
    run.add("probes")
    for name, figure in figures("probe", content, rows).items():
        run.write_text(f"figures/{name}.svg", figure.svg())
        run.write_text(f"figures/{name}.html", figure_page(figure))
    run.finish(
        **run_facts(model, result.data, certificate),
        command_line=session.line,
        controls={name: CONTROLS[name].description for name in settings.controls},
        probe={"kind": settings.kind, "description": PROBES[settings.kind].description},
        warnings=session.warnings,
    )


def _plan(model: Model, data: Labelled, settings: ProbeConfig) -> Outcome:
    from interp.cli.causal import causal_passes
    from interp.cli.plan import of_probe, show_plan
    from interp.sites import parse_layers

    layers = parse_layers(settings.layers, model.n_layers, name=model.name, kind="resid_post")
    models = 2 if "random-weights" in settings.controls else 1
    more = causal_passes(settings)
    plan = of_probe(model, data.texts, layers, classes=len(set(data.labels)), models=models, more=more)
    return Outcome(plan.to_dict(), lambda: show_plan(plan), status="planned")
