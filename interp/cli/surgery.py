"""``interp surgery``: exchange concepts in states, and see how often the model says the new answer."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from interp.cli.budget import Job, fit_passes
from interp.cli.dry_run import planned
from interp.cli.frame import Made, Work, command
from interp.cli.options import COUNT, RunSettings, SchemeSettings, facts_flag, flag
from interp.cli.session import Outcome
from interp.errors import ConfigError

if TYPE_CHECKING:
    from interp.analyses.surgery.swaps import Role

__all__ = ["surgery"]

EXAMPLES = (
    "interp surgery --layer 20",
    "interp surgery --model smollm2 --layer 26",
    "interp surgery --layer 20 --writer probe",
    "interp surgery --layer 12 --writer probe --role subject",
)
LEAST, SWAPS = 400, 100
SHARES = (0.6, 0.15, 0.25)
"""Of --limit: training, validation and test."""
PASSES = 3.0
"""Whole passes of each prompt: asked, read, and its share of the edits."""


def _protocols() -> Collection[str]:
    from interp.tasks.protocols import PROTOCOLS

    return PROTOCOLS


def _writers() -> Collection[str]:
    from interp.analyses.surgery.protocol import WRITERS

    return WRITERS


def _roles() -> Collection[str]:
    from interp.analyses.surgery.protocol import WRITTEN

    return WRITTEN


@dataclass(frozen=True, kw_only=True)
class SurgerySettings(RunSettings, SchemeSettings):
    """Exchange a concept for another in the states of many prompts, and see what the model says.

    Beside it: random changes as long, the difference of mean states, and the state of a real prompt with the
    new answer. One prompt alone: `interp decode --replace OLD=NEW --at LAYER "PROMPT"`.
    """

    layer: str = flag(
        "85%", "The layer that is changed, counted from 0: 20   -1   50%.", metavar="LAYER", shown="85%"
    )
    writer: str = flag(
        "translator",
        "What reads and writes: translator (no labels) or probe.",
        metavar="NAME",
        allowed=_writers,
    )
    role: str | None = flag(
        None,
        "Of --writer probe: exchange this part of a record; after subject the answer should follow.",
        metavar="ROLE",
        allowed=_roles,
        shown="bare concepts",
    )
    protocol: str | None = flag(
        None,
        "Whose prompts are edited (`interp ls protocols`).",
        metavar="NAME",
        allowed=_protocols,
        shown="concept-disjoint for the bundled model, else known-relations",
    )
    facts: str | None = facts_flag()
    swaps: int = flag(SWAPS, "How many prompts are edited, at most.", **COUNT)

    def check(self) -> None:
        """Refuse a role of a writer that has none."""
        super().check()
        if self.role is not None and self.writer != "probe":
            raise ConfigError(f"--role {self.role} is of records, which --writer probe reads; add it.")

    def about(self) -> str:
        """What writes, and where."""
        return f"{self.writer}-{self.layer}"


def plan(work: Work, settings: SurgerySettings) -> Outcome:
    """What the edits would take."""
    return planned(work, settings, _job(work, settings), models=1)


@command(SurgerySettings, examples=EXAMPLES, plan=plan)
def surgery(work: Work, settings: SurgerySettings) -> Made:
    """Edit the prompts of a protocol."""
    from interp.analyses.concepts.decoding import one_layer
    from interp.analyses.surgery import surgery_under
    from interp.tasks import read_facts

    settings = work.sized(settings, lambda: _job(work, settings), own=settings.facts is not None)
    model = work.certified()
    result = surgery_under(
        model,
        settings.protocol,
        layer=one_layer(model, settings.layer),
        writer=settings.writer,
        role=cast("Role | None", settings.role),  # one of _roles()
        n=settings.swaps,
        sizes=settings.shared_out(SHARES),
        world=None if settings.facts is None else read_facts(settings.facts),
        seed=settings.seed,
        progress=work.session.progress,
    )
    return Made(result)


def _job(work: Work, settings: SurgerySettings) -> Job:
    """What it takes: the prompts are asked and read, and some of them edited."""
    from interp.analyses.concepts.decoding import one_layer
    from interp.analyses.concepts.known import protocol_of
    from interp.results.shapes import counted
    from interp.tasks.protocols import PROTOCOLS

    row = PROTOCOLS[settings.protocol or protocol_of(work.model)]
    texts = [item.text for item in row.items(seed=settings.seed, sizes=(100, 1, 1)).items]
    whole, first = sum(row.sizes), 0.0
    if settings.writer == "translator":
        first = fit_passes(work.model, [one_layer(work.model, settings.layer)], texts, settings.seed)
    return Job(
        whole=whole,
        least=min(LEAST, whole),
        texts=texts,
        passes=lambda n: PASSES * n + first,
        shown=lambda n: counted(n, "prompt"),
    )
