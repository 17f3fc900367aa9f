"""``interp audit``: does a reader read the model, the prompt, the world, or nothing?"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from interp.cli.budget import Job, fit_passes, in_words, pass_seconds
from interp.cli.frame import Made, Work, command
from interp.cli.options import COUNT, ModelSettings, RunSettings, flag, layers_flag
from interp.cli.session import Outcome
from interp.errors import ConfigError

if TYPE_CHECKING:
    from interp.analyses.audit.cases import Case
    from interp.models import Model
    from interp.tasks.protocols import ProtocolItems
    from interp.tasks.world import World

__all__ = ["audit"]

EXAMPLES = (
    "interp audit --reader logit,probe --layer 20",
    "interp audit --reader linear --protocol seen-pairs --layers 8-23:5",
    "interp audit --model smollm2 --edit --layers 12-28:4",
)
DEFAULT, PROTOCOL = ("logit", "probe"), "concept-disjoint"
ANALOGIES = ("concept-disjoint", "pair-disjoint", "seen-pairs")
LEAST, PASSES = 240, 6
"""The fewest cases that say anything; passes of each case beside one for each layer."""
BACKWARD, SHOWN = 3, 4
"""Passes of a step of teaching, forward and back; lines of facts in a prompt."""
FIT = 4e-6
"""Seconds of a fit for each prompt, layer and unit of width, roughly: measured."""


def _readers() -> Collection[str]:
    from interp.analyses.readers.table import reader_names

    return reader_names()


def _protocols() -> Collection[str]:
    return ANALOGIES


@dataclass(frozen=True, kw_only=True)
class AuditSettings(RunSettings, ModelSettings):
    """Give readers the states of a copy that was taught false facts, and of four others: what do they read?

    The bundled model has such a copy. For any other model --edit makes one of facts that the model knows (a
    low-rank adapter, kept in the user's cache).
    """

    reader: tuple[str, ...] = flag(
        DEFAULT,
        "What reads (`interp ls readers`); several by commas.",
        "--reader",
        "--readers",
        metavar="NAMES",
        allowed=_readers,
    )
    layers: str = layers_flag()
    protocol: str = flag(
        PROTOCOL,
        "What readers that are trained learn from, on the bundled model.",
        metavar="NAME",
        allowed=_protocols,
    )
    edit: bool = flag(False, "Teach a copy of the model false facts first, where that was not done yet.")
    steps: int = flag(200, "Steps of that teaching.", **COUNT)

    def check(self) -> None:
        """Refuse weights that have no copy."""
        super().check()
        if self.weights != "trained":
            raise ConfigError(
                f"--weights {self.weights}: the audit compares the trained model with its edited copy and "
                "with random weights by itself; leave the flag out."
            )

    def about(self) -> str:
        """The readers."""
        return "-".join(self.reader)


@dataclass(frozen=True, eq=False)
class Given:
    """What the audit of one model is made of: its twin, prompts, and what is said about them."""

    edited: tuple[Model, World] | None
    protocol: str
    drawn: ProtocolItems | None = None
    cases: tuple[Case, ...] | None = None
    notes: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)


def plan(work: Work, settings: AuditSettings) -> Outcome:
    """What an audit would take: the cases, in passes of three models and one for each layer.

    Where no copy was taught yet none is: then it is the facts that the model is asked, and the steps.
    """
    from interp.cli.dry_run import of_probe, show_plan

    layers = _chosen(work, settings)
    if settings.edit and not _taught(work, settings):
        texts, more = _teaching(work, settings)
        found = of_probe(work.model, texts, layers, classes=1, models=1, more=more)
        work.session.note("the copy is taught first; its cases, a part of these prompts, are read after that")
        return Outcome(found.to_dict(), lambda: show_plan(found), status="planned")
    job = _job(work, settings, _given(work, settings))
    settings = work.sized(settings, lambda: job)
    texts = job.texts[: settings.limit]
    found = of_probe(work.model, texts, layers, classes=1, models=3, more=len(layers) * len(texts))
    return Outcome(found.to_dict(), lambda: show_plan(found), status="planned")


@command(AuditSettings, examples=EXAMPLES, plan=plan)
def audit(work: Work, settings: AuditSettings) -> Made:
    """Audit readers at layers."""
    from dataclasses import replace

    from interp.audit import reader

    given = _given(work, settings)
    settings = work.sized(settings, lambda: _job(work, settings, given))
    result = reader(
        settings.reader,
        work.certified(),
        edited=given.edited,
        protocol=given.protocol,
        layers=settings.layers,
        drawn=given.drawn,
        cases=given.cases,
        seed=settings.seed,
        limit=settings.limit,
        batch_size=settings.batch_size,
        progress=work.session.progress,
    )
    return Made(replace(result, warnings=(*given.notes, *result.warnings)), facts=given.facts)


def _chosen(work: Work, settings: AuditSettings) -> list[int]:
    from interp.sites import parse_layers

    return parse_layers(settings.layers, work.model.n_layers, name=work.model.name, kind="resid_post")


def _job(work: Work, settings: AuditSettings, given: Given) -> Job:
    """What an audit takes: passes of every case, and of what probes are trained on."""
    from interp.analyses.audit.cases import edited_cases
    from interp.lenses import LENSES
    from interp.tasks import load_world
    from interp.tasks.protocols import PROTOCOLS

    layers = len(_chosen(work, settings))
    drawn = given.drawn or PROTOCOLS[given.protocol].items(seed=settings.seed)
    cases = given.cases
    if cases is None:
        assert given.edited is not None
        cases = edited_cases(drawn, load_world(), given.edited[1], seed=settings.seed)
    trained = [name for name in settings.reader if name not in LENSES]
    learned = len(drawn.part("train")) + len(drawn.part("validation")) if trained else 0
    texts = [case.text for case in cases]
    fitted = "translator" in settings.reader
    first = fit_passes(work.model, _chosen(work, settings), texts, settings.seed) if fitted else 0.0
    fits = FIT * work.model.d_model * learned * layers * len(trained)
    return Job(
        whole=len(cases),
        least=min(LEAST, len(cases)),
        texts=texts,
        passes=lambda n: n * (PASSES + layers) + learned + first,
        besides=lambda n: fits,
        shown=lambda n: f"{n:,} cases",
    )


def _taught(work: Work, settings: AuditSettings) -> bool:
    from interp.analyses.audit.teaching import Recipe, taught

    recipe = Recipe(steps=settings.steps)
    return taught(work.model, recipe=recipe, seed=settings.seed) is not None


def _teaching(work: Work, settings: AuditSettings) -> tuple[list[str], int]:
    """Prompts that the model is asked at most, and passes of one of them that the teaching takes besides."""
    from random import Random

    from interp.analyses.audit.known import INVERSE, asked_of
    from interp.analyses.audit.teaching import Recipe
    from interp.tasks import load_world

    recipe, rng = Recipe(steps=settings.steps), Random(settings.seed)
    facts = [known[: recipe.most] for name, known in load_world().facts.items() if name not in INVERSE]
    texts = [asked_of(fact, known, rng)[0] for known in facts for fact in known]
    return texts, BACKWARD * recipe.steps * recipe.lines // SHOWN


def _given(work: Work, settings: AuditSettings) -> Given:
    """The twin of the model: the bundled one's own, or one that is taught."""
    from interp.analyses.audit.teaching import Recipe, teach
    from interp.analyses.audit.twins import bundled_twin

    model = work.model
    if not settings.edit and (own := bundled_twin(model)) is not None:
        return Given(own, settings.protocol)
    recipe = Recipe(steps=settings.steps)
    if not settings.edit and not _taught(work, settings):
        raise ConfigError(
            f"{model.name!r} has no copy that was taught false facts. --edit makes one (some minutes, once)."
        )
    if not _taught(work, settings):
        texts, more = _teaching(work, settings)
        lasts = in_words((len(texts) + more) * pass_seconds(model, texts, settings.batch_size))
        work.session.note(f"teaching a copy, kept in the cache: about {lasts} that a second run is spared")
    progress = work.session.progress
    found = teach(model, recipe=recipe, seed=settings.seed, batch_size=settings.batch_size, progress=progress)
    note = f"{found.sentence} ({', '.join(found.true.facts)})."
    return Given(
        (found.twin, found.edited),
        PROTOCOL,
        found.drawn,
        found.cases,
        (note[0].upper() + note[1:],),
        {"taught": {"said": found.said.to_dict(), "kept": found.kept.to_dict(), "seconds": found.seconds}},
    )
