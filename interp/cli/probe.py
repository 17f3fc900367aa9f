"""``interp probe``: read concepts or a label from a layer, and measure it against controls."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from interp.cli.budget import Job, fit_note, fit_passes
from interp.cli.dry_run import of_probe, show_plan
from interp.cli.frame import (
    Made,
    Work,
    about_data,
    command,
    prompt_job,
    prompt_table,
    read_gates,
    read_prompts,
)
from interp.cli.options import PromptSettings, choose, facts_flag, flag, layers_flag, position
from interp.cli.session import Outcome
from interp.errors import ConfigError, GateError, counted

if TYPE_CHECKING:
    from interp.analyses.causal import CausalUse
    from interp.analyses.concepts import ConceptResult
    from interp.analyses.probing import ProbeResult
    from interp.tasks.protocols import Protocol
    from interp.tasks.world import World
    from probes import Probe

__all__ = ["probe"]

EXAMPLES = (
    "interp probe --layer 20",
    "interp probe --layers all --task fact-relation --out runs/facts",
    "interp probe --model gpt2 --layer 50% --data reviews.csv --fail-under accuracy=0.8",
    "interp probe --model smollm2 --layer 24",
    "interp probe --model smollm2 --layer 20 --data chats.jsonl --position 'answer[-1]'",
    "interp probe --model smollm2 --reader all --layers 12-28:4",
    "interp probe --layers all --protocol concept-disjoint",
    "interp probe --model gpt2 --layer 50% --facts capitals.csv",
    "interp probe --layer 20 --data reviews.csv --positions all --pooling max",
    "interp probe --layer 20 --causal",
    "interp probe --layer 20 --json | python -m json.tool",
)
KIND = "logistic"
BUNDLED = "demo"
SHARES = (0.6, 0.15, 0.25)
"""Of --limit: training, validation and test, whose prompts the model also answers."""
TEST, TRANSLATED = SHARES[2], SHARES[0] + SHARES[1]
LEAST, LEAST_CONCEPTS = 200, 600
KNOWN = 0.4
"""The share of prompts that a model is taken to answer right, until it is asked."""
LABEL_FIT, CONCEPT_FIT = 1e-6, 2e-6
"""Seconds of a fit for each prompt and unit of width, roughly: measured."""
LABEL_FITS, CONCEPT_FITS = 20, 12
"""Fits of controls at the chosen layer."""


def _kinds() -> Collection[str]:
    from probes import PROBES

    return PROBES


def _protocols() -> Collection[str]:
    from interp.tasks.protocols import PROTOCOLS

    return PROTOCOLS


def _readers() -> Collection[str]:
    from interp.analyses.readers.table import reader_names

    return ("all", *reader_names())


@dataclass(frozen=True, kw_only=True)
class ProbeSettings(PromptSettings):
    """Train a probe on a layer and measure it against controls on held-out prompts.

    Without --task, --data or --kind a Hyperdimensional Probe reads concepts: on the bundled model the
    middle of two hops (protocol bridge), on another one answers that it knows (known-relations). With one of
    them a probe reads a label. --causal also changes the state along the probe's directions (erase,
    exchange, push), beside random ones, and says whether the model uses them.
    """

    layers: str = layers_flag()
    protocol: str | None = flag(
        None,
        "Read concepts with a Hyperdimensional Probe (`interp ls protocols`).",
        metavar="NAME",
        allowed=_protocols,
        shown="bridge on the bundled model, known-relations on others",
    )
    facts: str | None = facts_flag()
    kind: str | None = flag(
        None,
        "Kind of probe that reads a label (`interp ls probes`).",
        metavar="NAME",
        allowed=_kinds,
        shown=f"{KIND} with --task or --data",
    )
    reader: tuple[str, ...] = flag(
        ("probe",),
        "What reads the concepts (`interp ls readers`): the probe, by its own encoder or another "
        "(probe-embedding); or several, or all, compared in one table.",
        "--reader",
        "--readers",
        metavar="NAMES",
        allowed=_readers,
        shown="probe, which learns as suits the protocol",
    )
    position: str = flag(
        "last",
        "The token to read in each prompt: last, an index (-2 is the second last), or a selector.",
        metavar="WHICH",
    )
    positions: str | None = flag(
        None,
        "Several tokens of each prompt, with --pooling: all, or a selector such as 'role:assistant'.",
        metavar="SELECTOR",
    )
    pooling: str | None = flag(
        None,
        "How the scores of several tokens become one, such as max (`interp ls poolings`).",
        metavar="NAME",
        shown="mean with --positions",
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
            if self.facts is not None:
                raise ConfigError("--facts are for concepts: leave --task, --data and --kind out.")
            if self.reader != ("probe",):
                raise ConfigError("--reader is for concepts: leave --task, --data and --kind out.")
            from interp.analyses.causal import check_directions
            from interp.analyses.probing import check_kind
            from interp.analyses.probing.several_tokens import check_pooling

            check_kind(self.kind or KIND)
            check_pooling(self.pooled, self.kind or KIND, reference=False)
            if self.pooled and self.position != "last":
                raise ConfigError("--position is one token, --positions are several. Give one of them.")
            if self.pooled and self.causal:
                raise ConfigError("--causal changes one token: leave --positions and --pooling out.")
            if self.causal:
                check_directions(self.kind or KIND)
        if self.compares and (self.causal or self.controls):
            raise ConfigError(
                f"--reader {','.join(self.reader)} compares readers in a table, controls among them: leave "
                "--causal and --controls out, or name one probe."
            )
        if self.concepts is None:
            return
        if self.pooled:
            raise ConfigError(
                "--positions and --pooling are for a label: give --task or --data, or leave them out."
            )
        if self.task or self.data:
            raise ConfigError("--protocol has its own prompts: leave --task and --data out.")
        if self.kind not in (None, "hyperdimensional"):
            raise ConfigError("--protocol trains a Hyperdimensional Probe: leave --kind out.")
        if where != "last":
            raise ConfigError(
                "--position: a protocol is read at the last token of each prompt; leave it out."
            )

    def measured(self) -> tuple[str, ...]:
        """The numbers that --fail-under can name."""
        from interp.analyses import concepts, probing
        from interp.analyses.probing.run import DEFAULT_CONTROLS

        if self.compares:
            return tuple(_readers())[1:]
        table = probing.CONTROLS if self.concepts is None else concepts.CONTROLS
        for name in self.controls or ():
            choose("--controls", name, table)
        if self.concepts is not None:
            row = _protocol(self)
            assert row is not None
            known = self.controls if self.controls is not None else (*row.controls, *concepts.BASELINES)
            return ("top1", *(f"over-{name}" for name in known))
        own = self.controls if self.controls is not None else DEFAULT_CONTROLS
        return tuple(
            name for name in probing.METRICS if name in ("accuracy", *(f"over-{one}" for one in own))
        )

    @property
    def encoder(self) -> str | None:
        """How the one probe that is asked for learns; None where readers are compared."""
        from interp.analyses.readers.table import encoder_named

        return encoder_named(self.reader[0]) if len(self.reader) == 1 else None

    @property
    def compares(self) -> bool:
        """Whether readers of concepts are compared in a table."""
        return self.concepts is not None and self.encoder is None

    @property
    def concepts(self) -> str | None:
        """The protocol of concept probing; None where a label is read."""
        plain = self.kind is None and self.task is None and self.data is None
        if self.protocol is not None or not plain:
            return self.protocol
        if self.model != BUNDLED:
            return "known-relations"
        return "bridge" if self.facts is None else "concept-disjoint"

    def world(self) -> World | None:
        """The facts of --facts; None for the bundled ones."""
        from interp.tasks import read_facts

        return None if self.facts is None else read_facts(self.facts)

    @property
    def pooled(self) -> str:
        """The pooling of several tokens; "" where one is read."""
        return self.pooling or ("mean" if self.positions is not None else "")

    def where(self) -> str | int:
        """The token that is read."""
        return position("--position", self.position, ("last",))

    def about(self) -> str:
        """The name of the protocol or of the prompts."""
        return self.concepts or super().about()

    def sizes(self) -> tuple[int, int, int] | None:
        """--limit, shared out over training, validation and test."""
        return self.shared_out(SHARES)


def plan(work: Work, settings: ProbeSettings) -> Outcome:
    """What a probe would take: its model and, for one control, the same with random weights."""
    from interp.analyses.causal import most_passes
    from interp.sites import parse_layers

    settings = _sized(work, settings)
    row = _protocol(settings)
    if row is None:
        data = read_prompts(work, settings)
        texts, classes = list[Any](data.prompts), len(set(data.labels))
    else:
        drawn = row.items(seed=settings.seed, sizes=settings.sizes(), world=settings.world())
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
def probe(work: Work, settings: ProbeSettings) -> Made:
    """Read concepts under a protocol, or a label of prompts."""
    settings = _sized(work, settings)
    if settings.compares:
        return _compared(work, settings)
    return _label(work, settings) if settings.concepts is None else _concepts(work, settings)


def _sized(work: Work, settings: ProbeSettings) -> ProbeSettings:
    return work.sized(
        settings, lambda: _job(work, settings), own=settings.data is not None or settings.facts is not None
    )


def _job(work: Work, settings: ProbeSettings) -> Job:
    """What a probe takes: passes of the model and its untrained twin to the deepest layer, and the fits."""
    from interp.analyses.causal import most_passes
    from interp.sites import parse_layers

    model, row = work.model, _protocol(settings)
    layers = parse_layers(settings.layers, model.n_layers, name=model.name, kind="resid_post")
    share = (max(layers) + 1) / model.n_layers
    causal = most_passes() if settings.causal else 0
    if row is None:
        twins = 2 if "random-weights" in _controls(work, settings, quiet=True) else 1
        found = prompt_job(settings, twins * share, LEAST)
        fits = LABEL_FIT * model.d_model * (len(layers) * twins + LABEL_FITS)
        return replace(found, passes=lambda n: found.passes(n) + causal, besides=lambda n: fits * n)
    texts = [item.text for item in row.items(seed=settings.seed, world=settings.world()).items]
    fits = CONCEPT_FIT * model.d_model * (len(layers) + CONCEPT_FITS)
    compared = settings.compares  # readers that are compared share one pass
    if row.asked == "answers":  # which says what the model knows, too; its untrained twin runs only that
        each = 1.0 if compared else 1.0 + (TRANSLATED + TEST * KNOWN) * share
    else:
        each = 1.0 if compared else 2 * share + TRANSLATED + TEST
    first = 0.0
    if "all" in settings.reader or "translator" in settings.reader:
        first = fit_passes(model, layers, texts, settings.seed)
    if first:
        work.session.note(fit_note(model, layers, texts, settings.seed))
    return Job(
        whole=len(texts),
        least=min(LEAST_CONCEPTS, len(texts)),
        texts=texts,
        passes=lambda n: n * each + causal + first,
        besides=lambda n: fits * n,
        shown=lambda n: f"{counted(n, 'prompt')}",
    )


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
        position=(settings.positions or "all") if settings.pooled else settings.where(),
        pooling=settings.pooled,
        seed=settings.seed,
        controls=names,
        batch_size=settings.batch_size,
        progress=work.session.progress,
    )
    return _made(work, settings, result, result.probes, PROBES[kind].description)


def _controls(work: Work, settings: ProbeSettings, *, quiet: bool = False) -> tuple[str, ...]:
    """The controls of a label: those asked for, or those that a model of these weights can have."""
    from interp.analyses.probing.run import DEFAULT_CONTROLS

    if settings.controls is not None:
        return settings.controls
    if settings.weights != "random":
        return DEFAULT_CONTROLS
    if not quiet:
        work.session.note("the model has random weights: the random-weights control is left out")
    return tuple(name for name in DEFAULT_CONTROLS if name != "random-weights")


def _concepts(work: Work, settings: ProbeSettings) -> Made:
    from interp.analyses.concepts import probe_concepts

    row = _protocol(settings)
    assert row is not None
    result = probe_concepts(
        work.certified(),
        row.name,
        layers=settings.layers,
        encoder=settings.encoder or "auto",
        seed=settings.seed,
        controls=settings.controls,
        sizes=settings.sizes(),
        world=settings.world(),
        batch_size=settings.batch_size,
        progress=work.session.progress,
    )
    return _made(work, settings, result, {result.layer: result.probe}, row.question)


def _compared(work: Work, settings: ProbeSettings) -> Made:
    """Several readers of the same states, layer by layer."""
    from interp.analyses.readers.by_layer import compare_readers

    row, names = _protocol(settings), settings.reader
    assert row is not None
    result = compare_readers(
        work.certified(),
        row.name,
        layers=settings.layers,
        readers=None if "all" in names else names,
        seed=settings.seed,
        sizes=settings.sizes(),
        world=settings.world(),
        batch_size=settings.batch_size,
        progress=work.session.progress,
    )
    return Made(result, facts={"data": dict(result.about.data)})


def _protocol(settings: ProbeSettings) -> Protocol | None:
    from interp.tasks.protocols import PROTOCOLS

    return None if settings.concepts is None else PROTOCOLS[settings.concepts]


def _made(
    work: Work,
    settings: ProbeSettings,
    result: ProbeResult | ConceptResult,
    probes: Mapping[int, Probe],
    description: str,
) -> Made:
    """The result with its causal test, what was read from every prompt, and the probes by layer."""
    result = replace(result, causal=_causal(work, settings, result))
    tokens = work.model.tokenize(list(result.data.prompts))
    rows = prompt_table(result.data, tokens.token_ids, keep_text=settings.text)
    found = result.predictions()
    rows = rows.assign(**{key: found[key] for key in ("split", "predicted", "right", "probability")})
    kept = {f"probes/resid_post.{layer}": fitted for layer, fitted in probes.items()}
    for path, fitted in kept.items():
        fitted.save(work.run.begin() / path)
    kind = next(iter(probes.values())).kind
    leaks = settings.strict and not result.leakage.clean
    return Made(
        result,
        tables={"data.parquet": rows},
        kept=kept,
        facts={"data": about_data(result.data), "probe": {"kind": kind, "description": description}},
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
