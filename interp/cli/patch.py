"""``interp patch``: which part of a model carries the difference between two prompts."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from interp.cli.budget import Job
from interp.cli.frame import Made, Work, command
from interp.cli.options import PromptSettings, choose, features_flag, flag, position
from interp.cli.session import Outcome
from interp.errors import ConfigError, counted

if TYPE_CHECKING:
    import pandas

    from interp.analyses.patching import PairsFor
    from interp.models import Model

__all__ = ["patch"]

EXAMPLES = (
    "interp patch --task capitals --mediators 'head.*'",
    "interp patch --mediators 'head.*' --search attribution --task ioi",
    "interp patch --task capitals --mediators 'resid_post.*' --where -1",
    "interp patch --task capitals --mediators 'resid_post.*' --positions '[-3:]'",
    "interp patch --task capitals --mediators 'edge.*' --search attribution",
    "interp patch --model gpt2 --data pairs.jsonl --mediators 'attn_out.*,mlp_out.*'",
)
DEFAULT_TASK, DEFAULT_PAIRS = "capitals", 32
LEAST, SURE = 8, 0.05
EXACT, QUICK = "exhaustive", "attribution"
CIRCUIT = 40
"""Passes of each pair for a circuit (sizes, random ones, cuts), for the unpatched prompts and for checks."""


def _table(name: str) -> Any:
    """A function that reads a table of interp.mediation when it is called."""

    def read() -> Collection[str]:
        from interp import mediation

        return getattr(mediation, name)

    return read


def _directions() -> Collection[str]:
    from interp.mediation import DIRECTIONS

    return ("both", *DIRECTIONS)


@dataclass(frozen=True, kw_only=True)
class PatchSettings(PromptSettings):
    """Rank mediators by their causal effect on the answer, in both directions, with intervals.

    Pairs come from --task, or from --data: a JSONL file of clean, corrupt, answer, foil.
    """

    mediators: tuple[str, ...] = flag(
        ("head.*",), "What is replaced (`interp ls mediators`).", metavar="SITES"
    )
    features: tuple[str, ...] = features_flag()
    search: str | None = flag(
        None,
        "How effects are found (`interp ls searches`).",
        metavar="NAME",
        allowed=_table("SEARCHES"),
        shown=f"{EXACT}, or {QUICK} where that fits --budget and the first does not",
    )
    task: str | None = flag(
        None, "A bundled task of pairs (`interp ls pairs`).", metavar="NAME", shown=DEFAULT_TASK
    )
    data: str | None = flag(
        None, "Your own pairs: a JSONL file of clean, corrupt, answer, foil.", metavar="FILE"
    )
    counterfactual: str | None = flag(None, "Which counterfactual of the task.", metavar="NAME")
    metric: str = flag(
        "logit-diff", "What is measured (`interp ls metrics`).", metavar="NAME", allowed=_table("METRICS")
    )
    replacement: str = flag(
        "interchange", "What a value is replaced with (`interp ls replacements`).", metavar="NAME"
    )
    directions: str = flag("both", "both, denoising or noising.", metavar="WHICH", allowed=_directions)
    misaligned: Literal["refuse", "drop"] = flag(
        "refuse", "Pairs of --data that do not line up: refuse or drop.", metavar="WHICH"
    )
    where: str = flag(
        "auto",
        "At which tokens: auto, all, each, an index, or a selector of each one after the other.",
        "--where",
        "--positions",
        metavar="WHICH",
    )

    def check(self) -> None:
        """Refuse an unknown replacement, and what is no position."""
        super().check()
        from interp.mediation import REPLACEMENTS, replacement_of

        choose("--replacement", self.replacement.partition(":")[0], REPLACEMENTS)
        replacement_of(self.replacement)
        self.positions()
        if self.data is not None and self.counterfactual is not None:
            raise ConfigError(
                f"--counterfactual {self.counterfactual!r} chooses among those of a task, and --data brings "
                "its own corrupt prompts. Give one of them."
            )

    def positions(self) -> str | int:
        """At which tokens values are replaced."""
        return position("--where", self.where, ("auto", "all", "each"))

    def about(self) -> str:
        """The name of the pairs."""
        return super().about() if self.data or self.task else DEFAULT_TASK

    def measured(self) -> dict[str, Any]:
        """The arguments of a search that are settings of this command."""
        names = ("metric", "replacement", "directions", "seed")
        plain = {name: getattr(self, name) for name in names}
        return {**plain, "search": self.search or EXACT, "positions": self.positions()}


def plan(work: Work, settings: PatchSettings) -> Outcome:
    """How many forward passes a search would take."""
    from interp.mediation import plan as planned

    settings = _sized(work, settings)
    pairs = _pairs(settings, work.model)
    found = planned(work.model, pairs.ranking, list(settings.mediators), **settings.measured())
    return Outcome(asdict(found), lambda: work.session.say(f"{found}; nothing was run"), status="planned")


@command(PatchSettings, examples=EXAMPLES, plan=plan)
def patch(work: Work, settings: PatchSettings) -> Made:
    """Rank mediators, and evaluate the circuit of the best on other pairs."""
    from interp.analyses.patching import patch as ranked
    from interp.mediation.parsing import members_of

    settings = _sized(work, settings)
    pairs = _pairs(settings, work.model)
    found = members_of(work.model, pairs.ranking, list(settings.mediators), positions=settings.positions())
    held = f", {len(pairs.held_out)} others held out" if pairs.held_out is not None else ""
    work.session.note(f"pairs: {pairs.ranking!r}{held}, {counted(len(found), 'mediator')}")
    model, progress = work.certified(), work.session.progress
    result = ranked(model, pairs, list(found), **settings.measured(), progress=progress)
    if result.note:
        work.session.note(f"no circuit: {result.note}")
    return Made(
        result,
        tables={"data.parquet": _pair_table(pairs, keep_text=settings.text)},
        facts={"data": pairs.ranking.described},
    )


def _sized(work: Work, settings: PatchSettings) -> PatchSettings:
    return work.sized(settings, lambda: _job(work, settings), own=settings.data is not None)


def _quicker(work: Work, settings: PatchSettings) -> tuple[str, Mapping[str, Any], Job]:
    """The same by gradients, for mediators that are too many to be replaced one by one."""
    words = f"--search {QUICK} estimates all, and verifies the largest (--search {EXACT} for each one)"
    return words, {"search": QUICK}, _job(work, replace(settings, search=QUICK))


def _job(work: Work, settings: PatchSettings) -> Job:
    """What a search takes, by its own plan, and the circuit of its best on other pairs."""
    from interp.mediation import METRICS
    from interp.mediation import plan as planned

    free = settings.search is None and METRICS[settings.metric].differentiable
    pairs = _pairs(settings, work.model)
    forecast = planned(work.model, pairs.ranking, list(settings.mediators), **settings.measured())
    every = len(pairs.ranking) + (0 if pairs.held_out is None else len(pairs.held_out))
    whole = every if settings.data is not None else len(pairs.ranking)
    # fewer groups than this cannot tell any of so many mediators from chance, whatever their effects
    groups = math.ceil(math.log2(2 * forecast.mediators / SURE))
    least = max(LEAST, math.ceil(groups * whole / max(1, len(set(pairs.ranking.groups)))))
    rows = (forecast.forwards + CIRCUIT * every) / whole
    return Job(
        whole=whole,
        least=min(least, whole),
        texts=pairs.ranking.clean.texts,
        passes=lambda n: rows * n,
        shown=lambda n: f"{counted(n, 'pair')}",
        otherwise=(lambda: _quicker(work, settings)) if free else None,
    )


def _pairs(settings: PatchSettings, model: Model) -> PairsFor:
    from interp.analyses.patching import pairs_for
    from interp.mediation import METRICS
    from interp.pairs import PairSet

    n = settings.limit or DEFAULT_PAIRS
    if settings.data is None:
        kind = settings.counterfactual
        return pairs_for(model, settings.about(), n, seed=settings.seed, counterfactual=kind)
    whole = bool(METRICS[settings.metric].whole)
    own = PairSet.from_jsonl(model, settings.data, misaligned=settings.misaligned, whole=whole)
    own = own[: settings.limit]
    return pairs_for(model, own, seed=settings.seed)


def _pair_table(parts: PairsFor, *, keep_text: bool) -> pandas.DataFrame:
    """``data.parquet``: one row per pair; without the text, the sha256 of both prompts."""
    import pandas

    from interp.tasks.prompts import text_sha256

    halves = {"ranking": parts.ranking, "held out": parts.held_out}
    rows = [
        {
            "half": name,
            "clean": pairs.clean.texts[row],
            "corrupt": pairs.corrupt.texts[row],
            "answer": pair.answers[0],
            "foil": pair.foils[0],
            "group": pair.group,
            "token_ids": list(ids),
            "n_tokens": len(ids),
        }
        for name, pairs in halves.items()
        if pairs is not None
        for row, (pair, ids) in enumerate(zip(pairs, pairs.clean.token_ids, strict=True))
    ]
    table = pandas.DataFrame(rows)
    if keep_text:
        return table
    hashes = {f"{side}_sha256": table[side].map(text_sha256) for side in ("clean", "corrupt")}
    return table[["half", "n_tokens"]].assign(**hashes)
