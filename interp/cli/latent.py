"""``interp latent``: whether a model connects what documents told of codenames, where, and to what use."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Literal

from interp.cli.budget import Job, fit_passes
from interp.cli.dry_run import planned
from interp.cli.frame import Made, Work, command
from interp.cli.options import RunSettings, SchemeSettings, flag
from interp.cli.session import Outcome
from interp.errors import ConfigError, counted

__all__ = ["latent"]

EXAMPLES = (
    "interp latent",
    "interp latent --weights latent-shuffled --control trained",
    "interp latent --layers 0-20:4 --no-edits",
)
LEAST, PROBES = 8, 4500
"""The fewest codenames that say anything; the prompts about real countries that probes are fitted on."""


@dataclass(frozen=True, kw_only=True)
class LatentSettings(RunSettings, SchemeSettings):
    """Ask about countries that documents implied under codenames and never named (connecting the dots).

    What is answered that no document says; at which layer a probe of real countries reads the implied one at
    the codename; and what is said when it is exchanged there. --limit is the number of codenames.
    """

    weights: Literal["trained", "random", "edited", "latent", "latent-shuffled"] = flag(
        "latent", "The twin that is asked (python -m interp.demo.latent).", group="Model", metavar="WHICH"
    )
    control: Literal["latent-shuffled", "trained", "none"] = flag(
        "latent-shuffled",
        "The twin beside it: latent-shuffled (documents that imply no country), trained, or none.",
        metavar="WHICH",
    )
    layers: str = flag("all", "Where states are read: all, 0-20:4, 50%.", metavar="LAYERS")
    edits: bool = flag(True, "Exchange the country that is read, and see what is said.", "--edits/--no-edits")

    def check(self) -> None:
        """Refuse a twin beside itself."""
        super().check()
        if self.control == self.weights:
            raise ConfigError(
                f"--control {self.control} is what is asked already; give another twin, or --control none."
            )

    def about(self) -> str:
        """Which twin."""
        return self.weights


def plan(work: Work, settings: LatentSettings) -> Outcome:
    """What it would take."""
    return planned(work, settings, _job(work, settings), models=1 if settings.control == "none" else 2)


@command(LatentSettings, examples=EXAMPLES, plan=plan)
def latent(work: Work, settings: LatentSettings) -> Made:
    """Ask, read and edit a twin that was taught about codenames."""
    from interp.analyses.latent import latent_structure
    from interp.tasks.codenames import codenames

    settings = work.sized(settings, lambda: _job(work, settings))
    model, control = work.certified(), None
    if settings.control != "none":
        control = work.load(replace(settings, weights=settings.control), settings.scheme)
    result = latent_structure(
        model,
        control,
        known=codenames()[: settings.limit],
        layers=settings.layers,
        edits=settings.edits,
        seed=settings.seed,
        progress=work.session.progress,
    )
    return Made(result)


def _job(work: Work, settings: LatentSettings) -> Job:
    """What it takes: prompts about countries and codenames in both twins, translators, and the edits."""
    from interp.sites import parse_layers
    from interp.tasks.codenames import codenames, document
    from interp.tasks.world import load_world

    known, world, rng = codenames(), load_world(), random.Random(0)
    texts = [document(known, world, rng).prompt for _ in range(100)]
    models = 1 if settings.control == "none" else 2
    layers = parse_layers(settings.layers, work.model.n_layers, name=work.model.name, kind="resid_post")
    first = models * PROBES + fit_passes(work.model, layers, texts, settings.seed)
    each = 12 * models + (80 if settings.edits else 0)
    return Job(
        whole=len(known),
        least=LEAST,
        texts=texts,
        passes=lambda n: each * n + first,
        shown=lambda n: counted(n, "codename"),
    )
