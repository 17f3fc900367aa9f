"""``interp probe --protocol``: concept probing, from the settings to the run folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from interp.cli.session import Outcome, Session
from interp.errors import ConfigError

if TYPE_CHECKING:
    from interp.analyses.concepts import ConceptResult
    from interp.config import ProbeConfig
    from interp.models import Model
    from interp.runs import RunFolder
    from interp.tasks import Labelled

__all__ = ["probe"]

METRIC = "top1"


def probe(session: Session, settings: ProbeConfig, protocol: str) -> Outcome:
    """Read concepts under a protocol, and measure them against the controls that bind it."""
    from interp.analyses.concepts import CONTROLS
    from interp.cli.gates import read_gates
    from interp.cli.work import claim, load_model, read_position
    from interp.config import choose
    from interp.tasks.protocols import PROTOCOLS

    assert session.resolved is not None
    name = choose("--protocol", protocol, PROTOCOLS)
    if settings.task or settings.data:
        raise ConfigError("--protocol has its own prompts: leave --task and --data out.")
    if read_position("--position", settings.position, ("last",)) != "last":
        raise ConfigError("--position: a protocol is read at the last token of each prompt; leave it out.")
    if settings.kind not in ("hyperdimensional", "logistic") or (
        settings.kind == "logistic" and session.resolved.origins["kind"] != "default"
    ):
        raise ConfigError("--protocol trains a Hyperdimensional Probe: leave --kind out.")
    gates = read_gates(settings.fail_under, (METRIC, *(f"over-{control}" for control in CONTROLS)))
    if settings.dry_run:
        return _plan(load_model(session, settings), settings, name)
    with claim(session, settings, "probe", name) as run:
        return _probe(session, settings, name, gates, run)


def _probe(
    session: Session, settings: ProbeConfig, protocol: str, gates: dict[str, float], run: RunFolder
) -> Outcome:
    from interp import report
    from interp.analyses.concepts import CONTROLS, probe_concepts
    from interp.cli.causal import causal_part
    from interp.cli.gates import failed_audit, failed_gate
    from interp.cli.work import certify, load_model
    from interp.config import choose

    assert session.resolved is not None
    chosen = None
    if session.resolved.origins["controls"] != "default":
        chosen = [choose("--controls", control, CONTROLS) for control in settings.controls]
    model = load_model(session, settings)
    certificate = certify(session, model)
    result = probe_concepts(
        model,
        protocol,
        layers=settings.layers,
        seed=settings.seed,
        controls=chosen,
        sizes=_sizes(settings),
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

    data = {**result.to_dict(), **causal, "certificate": {"passed": certificate["passed"]}}
    files = (*run.artifacts, page.name)
    error = failed_audit(settings.strict, result.leakage) or failed_gate(gates, _measured(result))
    return Outcome(data, show, run=run.path, artifacts=files, error=error)


def _sizes(settings: ProbeConfig) -> tuple[int, int, int] | None:
    """Share --limit out over training, validation and test."""
    if settings.limit is None:
        return None
    return tuple(max(1, round(settings.limit * share)) for share in (0.6, 0.15, 0.25))  # type: ignore[return-value]


def _measured(result: ConceptResult) -> dict[str, float | None]:
    found: dict[str, float | None] = {METRIC: result.top1.value}
    return found | {f"over-{s.name}": s.difference.value for s in result.scores if s.difference is not None}


def _labelled(result: ConceptResult, settings: ProbeConfig) -> Labelled:
    """Give the protocol's prompts as a data set, for the run's record."""
    from interp.tasks import Labelled
    from interp.tasks.protocols import PROTOCOLS

    row = PROTOCOLS[result.protocol]
    items = row.items(seed=settings.seed, sizes=_sizes(settings)).items
    return Labelled(
        row.name,
        row.question,
        tuple(item.text for item in items),
        tuple(item.answer for item in items),
        tuple(item.fact for item in items),
        tuple(item.part for item in items),
    )


def _write(
    session: Session,
    settings: ProbeConfig,
    run: RunFolder,
    model: Model,
    result: ConceptResult,
    certificate: Any,
    causal: dict[str, Any],
) -> None:
    """Write everything but the report, which is made from what is written here."""
    from interp.analyses.concepts import CONTROLS
    from interp.analyses.concepts.cards import card_of
    from interp.cli.work import row_table, run_facts
    from interp.report.pages import figure_page
    from interp.report.stories import figures

    data = _labelled(result, settings)
    table = row_table(data, model.tokenize(data.texts).token_ids, keep_text=settings.text)
    read = dict(
        zip(
            (item.text for item in result.items),
            zip(result.read, result.similarity, strict=True),
            strict=True,
        )
    )
    found = [
        read.get(text, ("", float("nan"))) if part == "test" else ("", float("nan"))
        for text, part in zip(data.texts, data.splits, strict=True)
    ]
    rows = table.assign(
        predicted=[name for name, _ in found],
        right=[name == label for (name, _), label in zip(found, data.labels, strict=True)],
        probability=[value for _, value in found],
    )
    content = {**result.to_dict(), **causal}
    if not settings.text:
        for cell in content["cells"].values():
            cell["examples"] = []
        content["leakage"]["first"] = []
    for text in result.warnings:
        session.warn(text)
    for text in run.write_json("metrics.json", content):
        session.warn(text)
    run.write_table("data.parquet", rows)
    run.write_table("metrics.parquet", result.table())
    result.probe.save(run.path / "probes" / f"resid_post.{result.layer}", card=card_of(result))
    run.add("probes")
    for name, figure in figures("probe", content, rows).items():
        run.write_text(f"figures/{name}.svg", figure.svg())
        run.write_text(f"figures/{name}.html", figure_page(figure))
    run.finish(
        **run_facts(model, data, certificate),
        command_line=session.line,
        controls={s.name: CONTROLS[s.name].description for s in result.scores if s.name in CONTROLS},
        probe={"kind": "hyperdimensional", "description": result.question},
        warnings=session.warnings,
    )


def _plan(model: Model, settings: ProbeConfig, protocol: str) -> Outcome:
    from interp.cli.causal import causal_passes
    from interp.cli.plan import of_probe, show_plan
    from interp.sites import parse_layers
    from interp.tasks.protocols import PROTOCOLS

    layers = parse_layers(settings.layers, model.n_layers, name=model.name, kind="resid_post")
    drawn = PROTOCOLS[protocol].items(seed=settings.seed, sizes=_sizes(settings))
    texts = [item.text for item in drawn.items]
    more = causal_passes(settings)
    plan = of_probe(model, texts, layers, classes=len(drawn.concepts), models=2, more=more)
    return Outcome(plan.to_dict(), lambda: show_plan(plan), status="planned")
