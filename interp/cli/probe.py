"""``interp probe``: read concepts or a label from a layer, and measure it against controls."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from interp.cli.dry_run import of_probe, show_plan
from interp.cli.frame import (
    Made,
    OldMade,
    Work,
    about_data,
    command,
    prompt_table,
    read_gates,
    read_prompts,
)
from interp.cli.options import PromptSettings, choose, flag, position
from interp.cli.session import Outcome
from interp.errors import ConfigError, GateError

if TYPE_CHECKING:
    import pandas

    from interp.analyses.causal import CausalUse
    from interp.analyses.concepts import ConceptResult
    from interp.analyses.probing import ProbeResult
    from interp.tasks import Labelled
    from interp.tasks.protocols import Protocol

__all__ = ["probe"]

EXAMPLES = (
    "interp probe --layer 20",
    "interp probe --layers all --task fact-relation --out runs/facts",
    "interp probe --model gpt2 --layer 50% --data reviews.csv --fail-under accuracy=0.8",
    "interp probe --layers all --protocol bridge",
    "interp probe --layer 20 --causal",
    "interp probe --layer 20 --json | python -m json.tool",
)
KIND, PROTOCOL = "logistic", "concept-disjoint"


def _kinds() -> Collection[str]:
    from probes import PROBES

    return PROBES


def _protocols() -> Collection[str]:
    from interp.tasks.protocols import PROTOCOLS

    return PROTOCOLS


@dataclass(frozen=True, kw_only=True)
class ProbeSettings(PromptSettings):
    """Train a probe on a layer and measure it against controls on held-out prompts.

    Without --task, --data or --kind a Hyperdimensional Probe reads concepts, under the protocol
    concept-disjoint; with one of them a probe reads a label. --causal also changes the state along the
    probe's directions (erase, exchange, push), beside random ones, and says whether the model uses them.
    """

    layers: str = flag(
        "all",
        "Layers, counted from 0: 20   8,12   8-24:4   -1   50%   all",
        "--layers",
        "--layer",
        metavar="LAYERS",
        allowed="20, 8,12, 8-24:4, -1, 50% or all",
        many=True,
    )
    protocol: str | None = flag(
        None,
        "Read concepts with a Hyperdimensional Probe (`interp ls protocols`).",
        metavar="NAME",
        allowed=_protocols,
    )
    kind: str | None = flag(
        None,
        "Kind of probe that reads a label (`interp ls probes`).",
        metavar="NAME",
        allowed=_kinds,
        shown=f"{KIND} with --task or --data",
    )
    position: str = flag(
        "last",
        "The token to read in each prompt: last, or an index (-2 is the second last).",
        metavar="WHICH",
    )
    controls: tuple[str, ...] | None = flag(
        None,
        "What the probe is measured against.",
        metavar="NAMES",
        shown="those that apply; of a label shuffled,random-weights,bag-of-tokens,majority",
    )
    causal: bool = flag(
        False, "Change the state along the probe's directions: does the model use what is read?"
    )
    strict: bool = flag(False, "Exit with 7 when the audit of the prompts finds a leak.")
    fail_under: tuple[str, ...] = flag(
        (), "Exit with 7 when a metric is lower, such as accuracy=0.8.", metavar="METRIC=VALUE", many=True
    )

    def check(self) -> None:
        """Refuse what does not go together, and gates and controls of another analysis."""
        super().check()
        where = self.where()
        read_gates(self.fail_under, self.measured())
        if self.concepts is None:
            from interp.analyses.causal import check_directions
            from interp.analyses.probing import check_kind

            check_kind(self.kind or KIND)
            if self.causal:
                check_directions(self.kind or KIND)
        elif self.task or self.data:
            raise ConfigError("--protocol has its own prompts: leave --task and --data out.")
        elif self.kind not in (None, "hyperdimensional"):
            raise ConfigError("--protocol trains a Hyperdimensional Probe: leave --kind out.")
        elif where != "last":
            raise ConfigError(
                "--position: a protocol is read at the last token of each prompt; leave it out."
            )

    def measured(self) -> tuple[str, ...]:
        """The numbers that --fail-under can name."""
        from interp.analyses import concepts, probing
        from interp.analyses.probing.run import DEFAULT_CONTROLS

        table = probing.CONTROLS if self.concepts is None else concepts.CONTROLS
        for name in self.controls or ():
            choose("--controls", name, table)
        if self.concepts is not None:
            return ("top1", *(f"over-{name}" for name in table))
        own = self.controls if self.controls is not None else DEFAULT_CONTROLS
        return tuple(
            name for name in probing.METRICS if name in ("accuracy", *(f"over-{one}" for one in own))
        )

    @property
    def concepts(self) -> str | None:
        """The protocol of concept probing; None where a label is read."""
        plain = self.kind is None and self.task is None and self.data is None
        return PROTOCOL if self.protocol is None and plain else self.protocol

    def where(self) -> str | int:
        """The token that is read."""
        return position("--position", self.position, ("last",))

    def about(self) -> str:
        """The name of the protocol or of the prompts."""
        return self.concepts or super().about()

    def sizes(self) -> tuple[int, int, int] | None:
        """--limit, shared out over training, validation and test."""
        if self.limit is None:
            return None
        return tuple(max(1, round(self.limit * share)) for share in (0.6, 0.15, 0.25))  # type: ignore[return-value]


def plan(work: Work, settings: ProbeSettings) -> Outcome:
    """What a probe would take: its model and, for one control, the same with random weights."""
    from interp.analyses.causal import most_passes
    from interp.sites import parse_layers

    row = _protocol(settings)
    if row is None:
        data = read_prompts(work, settings)
        texts, classes = data.texts, len(set(data.labels))
    else:
        drawn = row.items(seed=settings.seed, sizes=settings.sizes())
        texts, classes = [item.text for item in drawn.items], len(drawn.concepts)
    model = work.model
    found = of_probe(
        model,
        texts,
        parse_layers(settings.layers, model.n_layers, name=model.name, kind="resid_post"),
        classes=classes,
        models=2 if row is not None or "random-weights" in _controls(work, settings) else 1,
        more=most_passes() if settings.causal else 0,
    )
    return Outcome(found.to_dict(), lambda: show_plan(found), status="planned")


@command(ProbeSettings, examples=EXAMPLES, plan=plan)
def probe(work: Work, settings: ProbeSettings) -> Made | OldMade:
    """Read concepts under a protocol, or a label of prompts."""
    return _label(work, settings) if settings.concepts is None else _concepts(work, settings)


def _label(work: Work, settings: ProbeSettings) -> Made:
    from interp.analyses import probing
    from probes import PROBES

    data, kind = read_prompts(work, settings), settings.kind or KIND
    names = _controls(work, settings)
    result = probing.probe(
        work.certified(),
        data,
        layers=settings.layers,
        kind=kind,
        position=settings.where(),
        seed=settings.seed,
        controls=names,
        batch_size=settings.batch_size,
        progress=work.session.progress,
    )
    result = replace(result, causal=_causal(work, settings, result))
    rows = prompt_table(data, work.model.tokenize(data.texts).token_ids, keep_text=settings.text)
    found = result.predictions()
    rows = rows.assign(**{key: found[key] for key in ("split", "predicted", "right", "probability")})
    for layer, fitted in result.probes.items():
        fitted.save(work.run.begin() / "probes" / f"resid_post.{layer}")
    about = {"kind": kind, "description": PROBES[kind].description}
    leaks = settings.strict and not result.leakage.clean
    return Made(
        result,
        tables={"data.parquet": rows},
        folders=("probes",),
        facts={"data": about_data(data), "probe": about},
        error=_leaks(result.leakage.sentence()) if leaks else None,
    )


def _controls(work: Work, settings: ProbeSettings) -> tuple[str, ...]:
    """The controls of a label: those asked for, or those that a model of these weights can have."""
    from interp.analyses.probing.run import DEFAULT_CONTROLS

    if settings.controls is not None:
        return settings.controls
    if settings.weights != "random":
        return DEFAULT_CONTROLS
    work.session.note("the model has random weights: the random-weights control is left out")
    return tuple(name for name in DEFAULT_CONTROLS if name != "random-weights")


def _concepts(work: Work, settings: ProbeSettings) -> OldMade:
    from interp.analyses.concepts import CONTROLS, probe_concepts
    from interp.analyses.concepts.cards import card_of

    row = _protocol(settings)
    assert row is not None
    result = probe_concepts(
        work.certified(),
        row.name,
        layers=settings.layers,
        seed=settings.seed,
        controls=settings.controls,
        sizes=settings.sizes(),
        batch_size=settings.batch_size,
        progress=work.session.progress,
    )
    data = _prompts(row, settings)
    rows = prompt_table(data, work.model.tokenize(data.texts).token_ids, keep_text=settings.text)
    texts, values = [item.text for item in result.items], zip(result.read, result.similarity, strict=True)
    read = dict(zip(texts, values, strict=True))
    nothing = ("", float("nan"))
    found = [
        read.get(text, nothing) if part == "test" else nothing
        for text, part in zip(data.texts, data.splits, strict=True)
    ]
    rows = rows.assign(
        predicted=[name for name, _ in found],
        right=[name == label for (name, _), label in zip(found, data.labels, strict=True)],
        probability=[value for _, value in found],
    )
    place = work.run.begin() / "probes" / f"resid_post.{result.layer}"
    result.probe.save(place, card=card_of(result))
    numbers = {"top1": result.top1.value}
    numbers |= {f"over-{s.name}": s.difference.value for s in result.scores if s.difference is not None}
    about = {"kind": "hyperdimensional", "description": result.question}
    controls = {s.name: CONTROLS[s.name].description for s in result.scores if s.name in CONTROLS}
    return _made(work, settings, result, data, rows, numbers, {"probe": about, "controls": controls})


def _protocol(settings: ProbeSettings) -> Protocol | None:
    from interp.tasks.protocols import PROTOCOLS

    return None if settings.concepts is None else PROTOCOLS[settings.concepts]


def _prompts(row: Protocol, settings: ProbeSettings) -> Labelled:
    """The protocol's prompts as a data set, for the run's record."""
    from interp.tasks import Labelled

    items = row.items(seed=settings.seed, sizes=settings.sizes()).items
    return Labelled(
        row.name,
        row.question,
        tuple(item.text for item in items),
        tuple(item.answer for item in items),
        tuple(item.fact for item in items),
        tuple(item.part for item in items),
    )


def _made(
    work: Work,
    settings: ProbeSettings,
    result: ConceptResult,
    data: Labelled,
    rows: pandas.DataFrame,
    numbers: Mapping[str, float | None],
    facts: Mapping[str, Any],
) -> OldMade:
    """What is written of concepts, with the causal test where it was asked for."""
    content = {**result.to_dict(), **_told(_causal(work, settings, result))}
    if not settings.text:
        content["leakage"]["first"] = []
        for cell in content.get("cells", {}).values():
            cell["examples"] = []
    leaks = settings.strict and not result.leakage.clean
    return OldMade(
        content,
        tables={"data.parquet": rows, "metrics.parquet": result.table()},
        numbers=numbers,
        folders=("probes",),
        facts={"data": about_data(data), **facts},
        warnings=result.warnings,
        error=_leaks(result.leakage.sentence()) if leaks else None,
    )


def _leaks(sentence: str) -> GateError:
    return GateError(f"--strict: {sentence}. The run is complete; its audit failed.")


def _causal(work: Work, settings: ProbeSettings, result: ProbeResult | ConceptResult) -> CausalUse | None:
    """What --causal adds to the result."""
    if not settings.causal:
        return None
    from interp.analyses.causal import causal_use

    return causal_use(
        work.model,
        result,
        seed=settings.seed,
        batch_size=settings.batch_size,
        progress=work.session.progress,
    )


def _told(found: CausalUse | None) -> dict[str, Any]:
    """A causal test as a dictionary, for the page of concepts."""
    if found is None:
        return {}
    names = ("position", "site", "directions", "measure", "measured", "draws", "used", "rank")
    effects = [
        {
            **effect.estimate.to_dict(),
            "edit": effect.edit,
            "random": effect.random,
            "random_low": effect.random_low,
            "random_high": effect.random_high,
            "difference": effect.difference.value,
            "difference_low": effect.difference.interval.low,
            "difference_high": effect.difference.interval.high,
            "whole": None if effect.whole is None else effect.whole.value,
        }
        for effect in found.effects
    ]
    verdict = found.verdict()
    told = {name: getattr(found, name) for name in names} | {"doses": [asdict(dose) for dose in found.doses]}
    return {"causal": {**told, "effects": effects, "verdict": verdict[:1].lower() + verdict[1:-1]}}
