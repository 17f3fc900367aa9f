"""``interp ls``: what there is to use."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from interp.cli.frame import Work, command
from interp.cli.options import Settings, flag
from interp.cli.session import Outcome

__all__ = ["LISTS", "ls"]


def models() -> list[dict[str, Any]]:
    """List the bundled model, and the models in the Hugging Face cache."""
    from interp.paths import assets

    folder = assets("demo-24l")
    missing = "" if (folder / "config.json").is_file() else " (not in this checkout)"
    rows = [
        {
            "model": "demo",
            "where": "bundled",
            "description": f"24-layer model of known facts; weights trained, random, edited, latent{missing}",
        }
    ]
    return rows + [{"model": name, "where": "Hugging Face cache", "description": ""} for name in _cached()]


def _cached() -> list[str]:
    if importlib.util.find_spec("huggingface_hub") is None:
        return []
    from huggingface_hub.constants import HF_HUB_CACHE

    return sorted(
        path.name.removeprefix("models--").replace("--", "/") for path in Path(HF_HUB_CACHE).glob("models--*")
    )


def tasks() -> list[dict[str, Any]]:
    """List the bundled tasks that a probe can be trained on."""
    from interp.tasks import LABELLED

    return [{"task": row.name, "prompts": row.n, "label": row.description} for row in LABELLED.values()]


def protocols() -> list[dict[str, Any]]:
    """List the protocols of concept probing."""
    from interp.tasks.protocols import PROTOCOLS

    return [
        {"protocol": row.name, "question": row.question, "without the model": row.knower}
        for row in PROTOCOLS.values()
    ]


def sites() -> list[dict[str, Any]]:
    """List the kinds of site."""
    from interp.sites import KINDS

    return [{"site": _spelling(kind), "counted": kind.unit} for kind in KINDS.values()]


def _spelling(kind: Any) -> str:
    index = {"none": "", "optional": "[.INDEX]", "required": ".INDEX"}[kind.index]
    return f"{kind.name}{'.LAYER' if kind.layered else ''}{index}"


def probes() -> list[dict[str, Any]]:
    """List the kinds of probe."""
    from probes import PROBES

    return [
        {"probe": row.name, "reads": row.target, "description": row.description} for row in PROBES.values()
    ]


def poolings() -> list[dict[str, Any]]:
    """List how scores of several tokens become one."""
    from probes.pooling import POOLINGS

    return [
        {"pooling": f"{row.name}[:{row.size}]" if row.size else row.name, "description": row.description}
        for row in POOLINGS.values()
    ]


def runs() -> list[dict[str, Any]]:
    """List the runs in ./runs, newest first."""
    from interp.runs import listing

    return listing("runs")


def pairs() -> list[dict[str, Any]]:
    """List the tasks that come in pairs, with their counterfactuals."""
    from interp.tasks import PAIR_TASKS

    return [
        {
            "task": row.name,
            "counterfactual": kind,
            "what changes": what,
            "example": row.sentence or row.description,
        }
        for row in PAIR_TASKS.values()
        for kind, what in row.kinds.items()
    ]


def mediators() -> list[dict[str, Any]]:
    """List the types of mediator and when to use them."""
    from interp.mediation import MEDIATORS

    return [{"mediator": row.grammar, "what": row.what, "use": row.use} for row in MEDIATORS.values()]


def metrics() -> list[dict[str, Any]]:
    """List the metrics of mediation."""
    from interp.mediation import METRICS

    return [{"metric": r.name, "unit": r.unit, "description": r.description} for r in METRICS.values()]


def replacements() -> list[dict[str, Any]]:
    """List what a mediator's value can be replaced with."""
    from interp.mediation import REPLACEMENTS

    return [{"replacement": row.name, "description": row.description} for row in REPLACEMENTS.values()]


def searches() -> list[dict[str, Any]]:
    """List the searches over mediators."""
    from interp.mediation import SEARCHES

    return [
        {
            "search": row.name,
            "effects": "exact" if row.exact else "estimated",
            "over": ", ".join(row.over),
            "description": row.description,
        }
        for row in SEARCHES.values()
    ]


def analyses() -> list[dict[str, Any]]:
    """List the analyses that can be run again at other precisions."""
    from interp.analyses.table import ANALYSES

    return [
        {
            "analysis": row.name,
            "items": row.n or None,
            "data": row.data + (f" (--data: {row.reads})" if row.reads else ""),
            "description": row.description,
        }
        for row in ANALYSES.values()
    ]


def lenses() -> list[dict[str, Any]]:
    """List the lenses, and what each is fitted on."""
    from interp.lenses import LENSES

    return [
        {"lens": row.name, "what it makes of a state": row.description, "fitted on": row.fitted or "nothing"}
        for row in LENSES.values()
    ]


def readers() -> list[dict[str, Any]]:
    """List what `interp probe --reader` compares and `interp audit` judges."""
    from interp.analyses.readers.table import READERS

    rows = [(row.name, row.description, row.learns or "nothing") for row in READERS.values()]
    return [dict(zip(("reader", "what it makes of a state", "fitted on"), row, strict=True)) for row in rows]


def methods() -> list[dict[str, Any]]:
    """List how `interp steer` and `interp.steering.fit` find a direction."""
    from interp.steering import METHODS

    return [
        {"method": row.name, "reads": row.reads, "direction": row.description} for row in METHODS.values()
    ]


def scores() -> list[dict[str, Any]]:
    """List what a steering vector can be scored by."""
    from interp.steering import SCORES

    lines = {name: (row.__doc__ or "").splitlines()[0] for name, row in SCORES.items()}
    return [{"score": name, "unit": SCORES[name].unit or "-", "is": line} for name, line in lines.items()]


def estimands() -> list[dict[str, Any]]:
    """List what an effect can be an estimate of."""
    from interp.mediation import ESTIMANDS

    return [
        {"estimand": row.name, "formula": row.formula, "question": row.question} for row in ESTIMANDS.values()
    ]


def schemes() -> list[dict[str, Any]]:
    """List the schemes of quantization, and what those that are not here need."""
    from interp.quantization import SCHEMES
    from interp.quantization.libraries import library_of

    return [
        {
            "scheme": row.name if not row.regroups else f"{row.name}[-gN]",
            "bits": row.bits,
            "library": row.library or "-",
            "here": (library_of(row).missing(row) if row.library else "") or "yes",
            "description": row.description,
        }
        for row in SCHEMES.values()
    ]


def backends() -> list[dict[str, Any]]:
    """List what can run captures, interventions and gradients."""
    from interp.models import BACKENDS

    return [{"backend": row.name, "description": row.description} for row in BACKENDS.values()]


def layouts() -> list[dict[str, Any]]:
    """List the layouts in which dictionaries of features are read."""
    from interp.features import LAYOUTS

    return [
        {"layout": row.name, "files": row.files, "description": row.description} for row in LAYOUTS.values()
    ]


def selectors() -> list[dict[str, Any]]:
    """List the words of selectors of tokens, which & | - ( ) [ ] combine."""
    from interp.conversations.nodes import ATOMS

    return [{"selector": row.example, "tokens": row.meaning} for row in ATOMS.values()]


LISTS: dict[str, Callable[[], list[dict[str, Any]]]] = {
    "models": models,
    "backends": backends,
    "schemes": schemes,
    "tasks": tasks,
    "protocols": protocols,
    "pairs": pairs,
    "mediators": mediators,
    "metrics": metrics,
    "replacements": replacements,
    "searches": searches,
    "estimands": estimands,
    "analyses": analyses,
    "sites": sites,
    "layouts": layouts,
    "selectors": selectors,
    "lenses": lenses,
    "readers": readers,
    "methods": methods,
    "scores": scores,
    "probes": probes,
    "poolings": poolings,
    "runs": runs,
}


def _lists() -> Collection[str]:
    return LISTS


@dataclass(frozen=True, kw_only=True)
class ListSettings(Settings):
    """List what there is: models, schemes, tasks, pairs, mediators, sites, probes, runs and more."""

    what: str = flag(dataclasses.MISSING, "What to list.", given="position", allowed=_lists)


@command(ListSettings, examples=("interp ls tasks", "interp ls runs --json"))
def ls(work: Work, settings: ListSettings) -> Outcome:
    """Print one list."""
    rows = LISTS[settings.what]()
    return Outcome({settings.what: rows}, lambda: _print(settings.what, rows))


def _print(what: str, rows: list[dict[str, Any]]) -> None:
    from interp.report.terminal import console, of_rows, to_rich

    if not rows:
        click.echo(f"no {what} here yet")
        return
    console().print(to_rich(of_rows(rows)))
