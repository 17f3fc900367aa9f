"""``interp claims``: what a vector symbolic algebra adds, beside controls and readers without it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from interp.cli.budget import Job, fit_passes, twin_fit_passes
from interp.cli.dry_run import planned
from interp.cli.frame import Made, Work, command
from interp.cli.options import RunSettings, SchemeSettings, choose, flag
from interp.cli.session import Outcome
from interp.errors import counted

__all__ = ["claims"]

EXAMPLES = (
    "interp claims --layer 20",
    "interp claims --model smollm2 --layer 24 --claims parts,abstention --full",
)
SHARES = (0.55, 0.25, 0.2)
"""Of --limit: training, validation and test. A risk is stated of one validation prompt for each concept: with
78 of them, of 600 in all, the bundled model's probe could claim nothing, with 150 it claims 91 of 120."""
LEAST, FIT = 600, 3e-5
"""Seconds of all fits of a claim for each prompt and unit of width, roughly: measured."""


def _claims() -> Collection[str]:
    from interp.analyses.claims import CLAIMS

    return CLAIMS


@dataclass(frozen=True, kw_only=True)
class ClaimsSettings(RunSettings, SchemeSettings):
    """Ask what a vector symbolic algebra adds: one row for each claim.

    Each row has the trained model, the hardest control, the strongest reader without the algebra, and the
    difference with its interval. --limit is the number of prompts of each claim.
    """

    layer: str = flag(
        "85%", "The layer to read, counted from 0: 20   -1   50%.", metavar="LAYER", shown="85%"
    )
    claims: tuple[str, ...] | None = flag(
        None,
        "Which claims (parts, bindings, entities, alphabet, abstention, failures).",
        metavar="NAMES",
        shown="all",
    )

    def check(self) -> None:
        """Refuse an unknown claim."""
        super().check()
        for name in self.claims or ():
            choose("--claims", name, _claims())

    def about(self) -> str:
        """The claims that are measured."""
        return "-".join(self.claims) if self.claims else "claims"

    @property
    def chosen(self) -> tuple[str, ...]:
        """The names of the claims."""
        return self.claims or tuple(_claims())


def plan(work: Work, settings: ClaimsSettings) -> Outcome:
    """What the claims would take."""
    return planned(work, settings, _job(work, settings), models=2)


@command(ClaimsSettings, examples=EXAMPLES, plan=plan)
def claims(work: Work, settings: ClaimsSettings) -> Made:
    """Measure the claims on a model."""
    from interp.analyses.claims import claims as measured
    from interp.analyses.claims.run import SIZES

    settings = work.sized(settings, lambda: _job(work, settings))
    sizes = settings.shared_out(SHARES) or SIZES
    result = measured(
        work.certified(),
        settings.claims,
        layer=settings.layer,
        sizes=sizes,
        seed=settings.seed,
        progress=work.session.progress,
    )
    return Made(result)


def _job(work: Work, settings: ClaimsSettings) -> Job:
    """What the claims take: passes of the model and its untrained twin, translators, and the fits."""
    from interp.analyses.claims.run import CLAIMS, SIZES
    from interp.sites import parse_layers
    from interp.tasks.protocols import PROTOCOLS

    model, rows = work.model, [CLAIMS[name] for name in settings.chosen]
    texts = [
        item.text for item in PROTOCOLS["concept-disjoint"].items(seed=settings.seed, sizes=(100, 1, 1)).items
    ]
    layers = parse_layers(settings.layer, model.n_layers, name=model.name, kind="resid_post")
    each = sum(share * n for row in rows for share, n in zip(SHARES, row.passes, strict=True))
    first = 0.0
    if fitted := max(row.translators for row in rows):  # the model's own serves all claims
        first = (twin_fit_passes if fitted > 1 else fit_passes)(model, layers, texts, settings.seed)
    fits = FIT * model.d_model * len(rows)
    return Job(
        whole=sum(SIZES),
        least=LEAST,
        texts=texts,
        passes=lambda n: each * n + first,
        besides=lambda n: fits * n,
        shown=lambda n: f"{counted(n, 'prompt')} for each claim",
    )
