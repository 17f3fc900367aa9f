"""``interp decode``: read concepts out of one prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from interp.cli.frame import Work, command
from interp.cli.options import COUNT, SchemeSettings, flag
from interp.cli.session import Outcome, Session
from interp.errors import ConfigError

if TYPE_CHECKING:
    from interp.models import Model
    from probes import HyperdimensionalProbe

__all__ = ["decode"]

SHOWN = 3

EXAMPLES = (
    'interp decode --layer 20 "Denmark : krone = Japan :"',
    'interp decode --layer 20 --top 3 "the capital of France is"',
    "interp decode --layer 23 --questions facts --limit 100",
    'interp decode --layer 20 --probe runs/NAME/probes/resid_post.20 "the capital of France is"',
)


@dataclass(frozen=True, kw_only=True)
class DecodeSettings(SchemeSettings):
    """Print the concepts that a Hyperdimensional Probe reads at a prompt's last token.

    With --questions: those before and after the model answers each question, gained and lost.
    """

    prompt: str = flag("", "The prompt to read.", given="position")
    layer: str = flag(
        "20",
        "The layer to read, counted from 0: 20   -1   50%.",
        metavar="LAYER",
        allowed="20, -1 or 50%",
    )
    probe: str | None = flag(
        None, "The folder of a saved probe; one is trained where left out.", metavar="FOLDER"
    )
    top: int = flag(5, "How many concepts to print.", **COUNT)
    questions: str | None = flag(
        None, "Read before and after answering: facts, or a file of question,answer.", metavar="FILE"
    )
    new_tokens: int = flag(4, "Tokens to generate for each question.", **COUNT)
    limit: int | None = flag(None, "Use so many questions.", **COUNT)

    def check(self) -> None:
        """Refuse a call without a prompt or questions, and one with both."""
        super().check()
        if self.questions is not None and self.prompt:
            raise ConfigError("give a prompt or --questions, not both.")
        if self.questions is None and not self.prompt.strip():
            raise ConfigError(
                'no prompt; give one, such as "Denmark : krone = Japan :", or --questions facts.'
            )


@command(DecodeSettings, examples=EXAMPLES)
def decode(work: Work, settings: DecodeSettings) -> Outcome:
    """Read a prompt, or questions before and after they are answered."""
    from interp.sites import parse_layers

    questions = None if settings.questions is None else _questions(settings)
    model, session = work.model, work.session
    layers = parse_layers(settings.layer, model.n_layers, name=model.name, kind="resid_post")
    if len(layers) != 1:
        raise ConfigError(f"--layer {settings.layer!r} names {len(layers)} layers; decode reads one.")
    probe = _probe(session, settings, model, layers[0])
    if questions is not None:
        return _generation(session, settings, model, probe, questions, layers[0])
    state = model.capture([settings.prompt], [f"resid_post.{layers[0]}"], "last", device="cpu")
    read = probe.decode(state[f"resid_post.{layers[0]}"].float(), k=settings.top)
    data = {
        "prompt": settings.prompt,
        "layer": layers[0],
        "concepts": [{"concept": name, "similarity": value} for name, value in read[0]],
        "threshold": read.threshold,
        "abstained": bool(read.abstained[0]),
        "unfamiliar": read.unfamiliar is not None and bool(read.unfamiliar[0]),
        "model": _next_tokens(model, settings.prompt, settings.top),
    }
    return Outcome(data, lambda: _show(session, data))


def _probe(session: Session, settings: DecodeSettings, model: Model, layer: int) -> HyperdimensionalProbe:
    """Load the probe that was given, or train the one of the headline protocol on the bundled facts."""
    from interp.analyses.concepts import trained_probe
    from probes import HyperdimensionalProbe, ProbeFileError

    if settings.probe is None:
        session.note(
            f"training a probe at layer {layer} on one-hop statements (give --probe to use a saved one)"
        )
        return trained_probe(model, layer, seed=settings.seed)
    try:
        return HyperdimensionalProbe.load(
            settings.probe, fingerprint=model.fingerprint, site=f"resid_post.{layer}", width=model.d_model
        )
    except ProbeFileError as error:
        raise ConfigError(f"--probe: {error}") from error


def _questions(settings: DecodeSettings) -> list[tuple[str, str]]:
    from interp.analyses.concepts.generation import bundled_questions
    from interp.tasks.files import read_questions

    if settings.questions == "facts":
        return bundled_questions(settings.limit or 200, seed=settings.seed)
    return read_questions(str(settings.questions))[: settings.limit]


def _generation(
    session: Session,
    settings: DecodeSettings,
    model: Model,
    probe: HyperdimensionalProbe,
    questions: list[tuple[str, str]],
    layer: int,
) -> Outcome:
    from interp.analyses.concepts.generation import probe_generation

    found = probe_generation(
        model,
        probe,
        questions,
        layer=layer,
        max_new_tokens=settings.new_tokens,
        seed=settings.seed,
        batch_size=settings.batch_size,
    )
    for text in found.warnings:
        session.warn(text)
    data = found.to_dict()
    return Outcome(data, lambda: _show_generation(session, data))


def _show_generation(session: Session, data: dict[str, Any]) -> None:
    session.say(f"{data['n']} questions, layer {data['layer']}, concepts above {data['threshold']:.3f}")
    session.say("overlap (Jaccard, 0 to 1) of the concepts read with")
    for row in data["scores"]:
        luck = "" if row["by_luck"] is None else f"   with another question's {row['by_luck']:.3f}"
        line = f"  {row['name']:<22}{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]{luck}"
        session.say(line)
    for reply in data["replies"][:SHOWN]:
        session.say(f"{reply['question']} -> {reply['generated']} (right: {reply['answer']})")
        for when in ("before", "after", "gained", "lost"):
            session.say(f"  {when}: {', '.join(reply[when]) or '-'}")


def _next_tokens(model: Model, prompt: str, k: int) -> list[dict[str, Any]]:
    from interp.analyses.concepts import next_tokens

    return [{"token": text, "probability": value} for text, value in next_tokens(model, prompt, k)]


def _show(session: Session, data: dict[str, Any]) -> None:
    session.say(f"read at layer {data['layer']}, last token (similarity, from -1 to 1)")
    for row in data["concepts"]:
        mark = "" if row["similarity"] >= data["threshold"] else "   below the threshold"
        session.say(f"  {row['similarity']:.3f}  {row['concept']}{mark}")
    if data["unfamiliar"]:
        session.say("  nothing is claimed: this state is unlike those that the probe was trained on")
    elif data["abstained"]:
        session.say(f"  nothing is claimed: the best is below the threshold of {data['threshold']:.3f}")
    session.say("the model's own next token (probability)")
    for row in data["model"]:
        session.say(f"  {row['probability']:.3f}  {row['token']}")
