"""``interp decode``: read concepts out of a prompt, at one layer or several, or around an answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from interp.cli.budget import MEASURED, Job, fit_note
from interp.cli.frame import Work, command
from interp.cli.options import COUNT, SchemeSettings, SizeSettings, facts_flag, flag
from interp.cli.session import Outcome
from interp.errors import ConfigError

if TYPE_CHECKING:
    from interp.models import Model
    from interp.results import Result
    from interp.tasks.world import World
    from probes import HyperdimensionalProbe

__all__ = ["decode"]

EXAMPLES = (
    'interp decode --layer 20 "Denmark : krone = Japan :"',
    'interp decode --layer 20 --top 3 "the capital of France is"',
    "interp decode --layer 23 --questions facts --limit 100",
    'interp decode --model smollm2 --layers 16-28:4 "The capital of France is"',
    'interp decode --model smollm2 --layers 16-28:4 --concepts cities.txt "The capital of France is"',
    'interp decode --model smollm2 --replace Paris=Rome --at 24 "The capital of France is"',
    'interp decode --layer 20 --probe runs/NAME/probes/resid_post.20 "the capital of France is"',
)


LEAST = 600


@dataclass(frozen=True, kw_only=True)
class DecodeSettings(SizeSettings, SchemeSettings):
    """Print the concepts that a Hyperdimensional Probe reads at a prompt's last token.

    With --layers or --concepts: what the model is about to say, read at each layer by a map to its own final
    state that needs no labels, among any names. With --questions: the concepts before and after the model
    answers each question, gained and lost.
    """

    prompt: str = flag("", "The prompt to read.", given="position")
    layer: str | None = flag(
        None,
        "The layer to read, counted from 0: 20   -1   50%.",
        metavar="LAYER",
        allowed="20, -1 or 50%",
        shown="that of --probe, else 85%",
    )
    layers: str | None = flag(
        None,
        "Layers to read without labels: 16-28:4   8,12   50%   all.",
        metavar="LAYERS",
        allowed="20, 8,12, 8-24:4, -1, 50% or all",
        shown="with --concepts 50%,65%,80%,95%",
        many=True,
    )
    concepts: str | None = flag(
        None, "A file of names to tell apart, one a line.", metavar="FILE", shown="the vocabulary's tokens"
    )
    replace: str | None = flag(
        None,
        "Write a name in another's place, and print what the model says then.",
        metavar="OLD=NEW",
        shown="nothing is changed",
    )
    at: str | None = flag(
        None,
        "The layer at which --replace writes, counted from 0: 24   -3   80%.",
        metavar="LAYER",
        allowed="20, -1 or 50%",
        shown="with --replace 85%",
    )
    probe: str | None = flag(
        None, "The folder of a saved probe; one is trained where left out.", metavar="FOLDER"
    )
    facts: str | None = facts_flag()
    top: int = flag(5, "How many concepts to print.", **COUNT)
    questions: str | None = flag(
        None, "Read before and after answering: facts, or a file of question,answer.", metavar="FILE"
    )
    new_tokens: int = flag(4, "Tokens to generate for each question.", **COUNT)
    limit: int | None = flag(None, "Use so many questions.", **COUNT)
    statements: int | None = flag(
        None,
        "Statements that a probe is trained on, without --probe.",
        shown="as many as fit --budget",
        **COUNT,
    )

    @property
    def given(self) -> tuple[str, ...]:
        """The flags that say how much the probe is trained on."""
        return tuple(name for name in ("full", "statements") if getattr(self, name))

    @property
    def translated(self) -> bool:
        """Whether a translator reads, and no probe."""
        return self.layers is not None or self.concepts is not None

    def check(self) -> None:
        """Refuse a call without a prompt or questions, and flags that exclude each other."""
        super().check()
        own = [
            f"--{name}"
            for name in ("layer", "probe", "questions", "facts")
            if getattr(self, name) is not None
        ]
        if self.translated and own:
            raise ConfigError(
                f"--layers and --concepts read without labels, {own[0]} by a Hyperdimensional Probe; give "
                "one or the other."
            )
        if self.at is not None and self.replace is None:
            raise ConfigError("--at is where --replace writes; give --replace OLD=NEW, or leave --at out.")
        if self.replace is not None:
            old, _, new = self.replace.partition("=")
            if not old.strip() or not new.strip():
                raise ConfigError(
                    f"--replace: {self.replace!r} is no pair of names; give OLD=NEW: Paris=Rome."
                )
            if own or self.translated:
                raise ConfigError(
                    "--replace reads and writes by a translator at one layer (--at); leave --layer, "
                    "--layers, --concepts, --probe and --questions out."
                )
        if self.questions is not None and self.prompt:
            raise ConfigError("give a prompt or --questions, not both.")
        if self.facts is not None and self.probe is not None and self.questions != "facts":
            raise ConfigError("--facts train a probe, and --probe is trained: give one of them.")
        if self.questions is None and not self.prompt.strip():
            raise ConfigError(
                'no prompt; give one, such as "Denmark : krone = Japan :", or --questions facts.'
            )

    def world(self) -> World | None:
        """The facts of --facts; None for the bundled ones."""
        from interp.tasks import read_facts

        return None if self.facts is None else read_facts(self.facts)


@command(DecodeSettings, examples=EXAMPLES)
def decode(work: Work, settings: DecodeSettings) -> Outcome:
    """Read a prompt, or questions before and after they are answered."""
    from interp.report import terminal
    from interp.report.document import document

    if settings.replace is not None:
        result = _replaced(work, settings)
    elif settings.translated:
        result = _translated(work, settings)
    elif settings.questions is not None:
        result = _generation(work, settings)
    else:
        result = _prompt(work, settings)
    for text in result.warnings:
        work.session.warn(text)
    return Outcome(result.summary(), lambda: terminal.write(document(result)))


def _prompt(work: Work, settings: DecodeSettings) -> Result:
    from interp.analyses import concepts

    probe, layer = _probe(work, settings)
    return concepts.decode(
        work.model, settings.prompt, layer=layer, probe=probe, top=settings.top, seed=settings.seed
    )


def _replaced(work: Work, settings: DecodeSettings) -> Result:
    from interp.analyses.concepts.decoding import LAYER, one_layer
    from interp.analyses.surgery import replace_concepts

    old, _, new = str(settings.replace).partition("=")
    layer = one_layer(work.model, settings.at or LAYER)
    if said := fit_note(work.model, [layer], [settings.prompt] * MEASURED, settings.seed):
        work.session.note(said)
    given = {old.strip(): new.strip()}
    return replace_concepts(
        work.model, settings.prompt, given, layer=layer, top=settings.top, seed=settings.seed
    )


def _translated(work: Work, settings: DecodeSettings) -> Result:
    from interp.analyses.concepts.translated import LAYERS, decode_translated
    from interp.sites import parse_layers
    from interp.tasks.files import read_names

    model, layers = work.model, settings.layers or LAYERS
    names = None if settings.concepts is None else read_names(settings.concepts)
    chosen = parse_layers(layers, model.n_layers, name=model.name, kind="resid_post")
    if said := fit_note(model, chosen, [settings.prompt] * MEASURED, settings.seed):
        work.session.note(said)
    return decode_translated(
        model, settings.prompt, layers=layers, concepts=names, top=settings.top, seed=settings.seed
    )


def _generation(work: Work, settings: DecodeSettings) -> Result:
    from interp.analyses.concepts.generation import bundled_questions, probe_generation
    from interp.tasks.files import read_questions

    if settings.questions == "facts":
        n = settings.limit or 200
        questions = bundled_questions(n, seed=settings.seed, world=settings.world())
    else:
        questions = read_questions(str(settings.questions))[: settings.limit]
    probe, layer = _probe(work, settings)
    return probe_generation(
        work.model,
        probe,
        questions,
        layer=layer,
        max_new_tokens=settings.new_tokens,
        seed=settings.seed,
        batch_size=settings.batch_size,
    )


def _probe(work: Work, settings: DecodeSettings) -> tuple[HyperdimensionalProbe, int]:
    """The probe that was given, or one that is trained on the bundled facts; and the layer it reads."""
    from interp.analyses.concepts import trained_probe
    from interp.analyses.concepts.decoding import LAYER, one_layer
    from probes import HyperdimensionalProbe, ProbeFileError

    model, place = work.model, settings.probe
    asked = one_layer(model, settings.layer or LAYER)
    if place is None:
        settings = work.sized(settings, lambda: _job(model, settings, asked))
        work.session.note(
            f"training a probe at layer {asked} on one-hop statements (give --probe to use a saved one)"
        )
        return trained_probe(
            model, asked, seed=settings.seed, n=settings.statements, world=settings.world()
        ), asked
    site = None if settings.layer is None else f"resid_post.{asked}"
    try:
        probe = HyperdimensionalProbe.load(
            place, fingerprint=model.fingerprint, site=site, width=model.d_model
        )
    except ProbeFileError as error:
        raise ConfigError(f"--probe: {error}") from error
    kind, _, layer = probe.card_.site.partition(".")
    if kind != "resid_post" or not layer.isdigit():
        raise ConfigError(f"--probe: {place} does not say which layer it reads; give --layer.")
    return probe, int(layer)


def _job(model: Model, settings: DecodeSettings, layer: int) -> Job:
    """What training a probe takes: passes of its statements up to the layer."""
    from interp.tasks.protocols import PROTOCOLS

    row = PROTOCOLS["concept-disjoint"]
    train, held, _ = row.sizes
    drawn = row.items(seed=settings.seed, sizes=(train, held, 0), world=settings.world())
    texts = [item.text for item in drawn.items]
    share = (layer + 1) / model.n_layers
    return Job(
        whole=len(texts),
        least=min(LEAST, len(texts)),
        texts=texts,
        passes=lambda n: n * share,
        shown=lambda n: f"{n:,} statements",
        settings=lambda n: {"statements": n},
    )
