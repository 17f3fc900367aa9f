"""``interp graph``: what one answer is made of, as a graph whose every edge is tested."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.cli.budget import Job
from interp.cli.frame import Made, Work, command
from interp.cli.options import RunSettings, SchemeSettings, features_flag, flag
from interp.cli.session import Outcome
from interp.errors import ConfigError, counted

if TYPE_CHECKING:
    from interp.mediation import AttributionGraph

__all__ = ["graph"]

EXAMPLES = (
    'interp graph "the capital of France is"',
    'interp graph --model smollm2 "The capital of France is" --neuronpedia france.json',
    'interp graph "the capital of France is" --answer Paris --foil Rome --instead "the capital of Italy is"',
    'interp graph --model smollm2 "The capital of France is" --features transcoders/',
)
MOST, LEAST = 4000, 100
"""Parts that are followed back where time allows, and the fewest that say anything."""
LOCAL = 0.05
"""What following one part back costs, in forward passes of the prompt: measured."""
COUNT = {"allowed": "a whole number from 1", "check": lambda n: n >= 1, "metavar": "N"}


@dataclass(frozen=True, kw_only=True)
class GraphSettings(RunSettings, SchemeSettings):
    """Trace which tokens, heads and neurons (or features) an answer is made of, and test every edge drawn.

    --limit says how many parts are followed back. The run folder holds graph.html, whose nodes open.
    """

    prompt: str = flag("", "The prompt.", given="position", private=True)
    answer: str | None = flag(
        None,
        "The word that is explained.",
        metavar="WORD",
        shown="the likeliest tokens, at most 3",
        private=True,
    )
    foil: str | None = flag(
        None,
        "The word whose logit is taken off.",
        metavar="WORD",
        shown="the mean of all logits",
        private=True,
    )
    instead: str | None = flag(
        None,
        "A prompt of as many tokens: sources get what they write there.",
        metavar="TEXT",
        private=True,
        shown="sources are taken out",
    )
    features: tuple[str, ...] = features_flag()
    neurons: int = flag(64, "Neurons of each MLP that are nodes of their own, at most.", **COUNT)
    alone: float = flag(
        0.05,
        "Effect on the output (a share of it) from which on a head or neuron is a node of its own; others of "
        "a block at a token are one. 0: each.",
        metavar="SHARE",
        allowed="a share of 0 or above",
        check=lambda share: 0 <= share < float("inf"),
    )
    keep: float = flag(
        0.8,
        "The share of the influence of tokens at which no more paths are drawn.",
        metavar="SHARE",
        allowed="a share above 0 and at most 1",
        check=lambda share: 0 < share <= 1,
    )
    nodes: int = flag(60, "How many nodes are drawn at most.", **COUNT)
    edges: int = flag(100, "How many edges are drawn and tested at most.", **COUNT)
    neuronpedia: str | None = flag(
        None, "Write the graph as JSON for Neuronpedia, too.", metavar="FILE", group="Output", part="call"
    )
    read: str | None = flag(None, "Show such a file of this model, instead of a prompt.", metavar="FILE")
    text: bool = flag(
        True, "Keep the prompt's text in the run, or nothing of it.", "--text/--no-text", group="Run"
    )

    def check(self) -> None:
        """Refuse a call without a prompt, and a foil without an answer."""
        super().check()
        if self.read is not None and self.prompt.strip():
            raise ConfigError("give a prompt, or a graph by --read, not both.")
        if not self.prompt.strip() and self.read is None:
            raise ConfigError('no prompt; give one, such as "the capital of France is".')
        if self.foil is not None and self.answer is None:
            raise ConfigError("--foil is what --answer is compared with; give both.")
        if self.neuronpedia is not None and not self.text:
            raise ConfigError("--neuronpedia writes the prompt, which --no-text keeps out. Give one of them.")

    def about(self) -> str:
        """What the nodes are."""
        return "features" if self.features else "neurons"


def plan(work: Work, settings: GraphSettings) -> Outcome:
    """How many forward passes of the prompt a graph would take."""
    if settings.read is not None:
        raise ConfigError("--dry-run: a graph that is read takes no passes. Leave it out.")
    settings = work.sized(settings, lambda: _job(work, settings))
    parts = settings.limit or MOST
    passes = round(_job(work, settings).passes(parts))
    took = counted(passes, "pass", "passes")
    said = f"{took} of the prompt at most, {parts:,} parts followed; nothing was run"
    data = {"passes": passes, "parts": parts}
    return Outcome(data, lambda: work.session.say(said), status="planned")


@command(GraphSettings, examples=EXAMPLES, plan=plan)
def graph(work: Work, settings: GraphSettings) -> Made:
    """Trace one answer, test what is drawn, and write the page that opens its nodes."""
    from interp.report.graph_page import render

    result = _made(work, settings)
    if settings.neuronpedia is not None:
        _export(result, settings.neuronpedia)
    shown = result if settings.text else result.redacted()
    work.run.begin()
    work.run.write_text("graph.html", render(shown))
    work.session.note(f"its nodes open in {work.run.path / 'graph.html'}")
    return Made(result)


def _made(work: Work, settings: GraphSettings) -> AttributionGraph:
    """The graph of the prompt, or of the file."""
    from interp.mediation import attribution_graph
    from interp.mediation.graphs import from_neuronpedia

    if settings.read is not None:
        return from_neuronpedia(settings.read, work.certified())
    settings = work.sized(settings, lambda: _job(work, settings))
    return attribution_graph(
        work.certified(),
        settings.prompt,
        answer=settings.answer,
        foil=settings.foil,
        instead=settings.instead,
        neurons=settings.neurons,
        alone=settings.alone,
        followed=settings.limit or MOST,
        keep=settings.keep,
        nodes=settings.nodes,
        edges=settings.edges,
        seed=settings.seed,
        batch_size=settings.batch_size,
    )


def _export(result: AttributionGraph, place: str) -> None:
    from interp.mediation.graphs.neuronpedia import to_neuronpedia
    from interp.results import write_atomically
    from interp.results.files import encode

    content: dict[str, Any] = to_neuronpedia(result)
    write_atomically(Path(place), encode(content))


def _job(work: Work, settings: GraphSettings) -> Job:
    """What a graph takes: passes for tests, of random graphs too, and a step back for each part followed."""
    from interp.mediation.graphs.build import RANDOM

    tests = settings.nodes * (1 + RANDOM / 2) + 2 * settings.edges + 10
    return Job(
        whole=MOST,
        least=LEAST,
        texts=[settings.prompt],
        passes=lambda n: tests + n * LOCAL,
        shown=lambda n: f"{counted(n, 'part')} followed back, {counted(settings.edges, 'edge')} tested",
    )
