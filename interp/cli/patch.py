"""``interp patch``: which part of a model carries the difference between two prompts."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from interp.cli.baselines import check_baselines, choose_baseline, job_of_baselines
from interp.cli.budget import Job
from interp.cli.feature_circuit import check_features, find_circuit, job_of_features
from interp.cli.frame import Made, Work, command, load_model
from interp.cli.frontier import check_goal, compare_types, job_of_types, wants_types
from interp.cli.options import COUNT, PromptSettings, choose, features_flag, flag, position
from interp.cli.session import Outcome
from interp.errors import ConfigError, counted

if TYPE_CHECKING:
    import pandas

    from interp.analyses.patching import PairsFor, Patching
    from interp.mediation import Search
    from interp.models import Model
    from interp.results import Result

__all__ = ["patch"]

EXAMPLES = (
    "interp patch --task capitals --mediators 'head.*'",
    "interp patch --mediators 'head.*' --search attribution --task ioi",
    "interp patch --task capitals --mediators 'resid_post.*' --where -1",
    "interp patch --task capitals --mediators 'resid_post.*' --positions '[-3:]'",
    "interp patch --task capitals --mediators 'edge.*' --search attribution",
    "interp patch --mediators 'edge.*->v.22.*' --search peap --spans 'subject=[3:-1],end=last'",
    "interp patch --task ioi --mediators all --goal explain",
    "interp patch --task capitals --baselines 40",
    "interp patch --features layer8,layer16 --circuit features",
    "interp patch --model gpt2 --data pairs.jsonl --mediators 'attn_out.*,mlp_out.*'",
)
DEFAULT_TASK, DEFAULT_PAIRS = "capitals", 32
LEAST, SURE = 8, 0.05
EXACT, QUICK, PARTS = "exhaustive", "attribution", "peap"
CHECKS = 20
"""Passes of each pair for unpatched prompts, checks and the noise floor."""
CIRCUIT, HELD = 18, 115
"""Passes of a pair for a circuit: of those that its size is chosen on, and of those that it is held to."""
EDGES, EDGE_CIRCUIT, EDGE_HELD, EDGE_PAIRS = 2.7, 39, 182, 8
"""The same of edges, whose search takes more than its passes, and on how many pairs they are held to at most
where the whole does not fit."""


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
        ("head.*",),
        "What is replaced (`interp ls mediators`); all: every type, beside the others.",
        metavar="SITES",
    )
    goal: Literal["explain", "edit", "predict"] | None = flag(
        None,
        "Which type of mediator does it at the least: explain, edit or predict.",
        metavar="GOAL",
        shown="none; with --mediators all explain",
    )
    passes: int = flag(
        300, "With --goal, forward passes of every pair that each type's search may take.", **COUNT
    )
    baselines: int | None = flag(
        None,
        "Which baseline suits path attribution, by so many rounds of a bandit; --replacement then stands "
        "outside circuits.",
        **COUNT,
    )
    features: tuple[str, ...] = features_flag()
    circuit: Literal["features"] | None = flag(
        None,
        "features: nodes and edges of --features by gradients, run on unseen pairs with and without errors.",
        metavar="WHICH",
        shown="that of the ranking",
    )
    search: str | None = flag(
        None,
        "How effects are found (`interp ls searches`).",
        metavar="NAME",
        allowed=_table("SEARCHES"),
        shown=f"{EXACT}, or {QUICK} where that fits --budget and the first does not",
    )
    spans: tuple[str, ...] = flag(
        (),
        "With --search peap: spans of the clean prompts, such as end=last, that positions are summed to.",
        metavar="NAME=WHICH",
        shown="every position alone",
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
    select: str = flag(
        "top",
        "How the circuit is chosen: top, signed, stable, ratio; of edges greedy, ilp.",
        metavar="NAME",
        allowed=_table("SELECTIONS"),
    )
    directions: str = flag("both", "both, denoising or noising.", metavar="WHICH", allowed=_directions)
    misaligned: Literal["refuse", "drop"] = flag(
        "refuse", "Pairs of --data that do not line up: refuse or drop.", metavar="WHICH"
    )
    held_out: int | None = flag(
        None,
        "Evaluate the circuit on so many other pairs, at most.",
        shown=f"as many as there are; of edges {EDGE_PAIRS} where all do not fit --budget",
        **COUNT,
    )
    workers: int = flag(
        1,
        "Processes that share exact patching, each with a model of its own.",
        metavar="N",
        group="Run",
        check=lambda n: n >= 1,
        allowed="at least 1",
        part="speed",
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
        if self.spans and self.search != PARTS:
            raise ConfigError(
                f"--spans {','.join(self.spans)!r} asked; they are of --search {PARTS}, whose parts of "
                "edges they sum. Give that search, or leave --spans out."
            )
        self.searched()
        if self.circuit is not None:
            check_features(self)
        elif self.baselines is not None:
            check_baselines(self)
        elif wants_types(self):
            check_goal(self)
        if self.workers > 1 and (
            _handed_over(self)
            or self.search not in (None, EXACT)
            or ",".join(self.mediators).startswith("edge.")
        ):
            raise ConfigError(
                f"--workers {self.workers} share the exact patching of sites (--search {EXACT}), one by one; "
                "this call does something else. Leave --workers out."
            )
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
        return {**plain, "search": self.searched(), "positions": self.positions()}

    def searched(self) -> str | Search:
        """How effects are found: a key of ``SEARCHES``, or that search with the spans asked for.

        Raises:
            ConfigError: a span whose selector cannot be read.
        """
        if not self.spans:
            return self.search or EXACT
        from interp.mediation import PositionAttribution

        named = [one.partition("=") for one in self.spans]
        both = [(name, which) if equals else (name, name) for name, equals, which in named]
        return PositionAttribution(
            spans=tuple(
                (name.strip(), str(position("--spans", which.strip(), ("last",)))) for name, which in both
            )
        )


def plan(work: Work, settings: PatchSettings) -> Outcome:
    """How many forward passes a search would take."""
    from interp.mediation import plan as planned

    settings = _sized(work, settings)
    pairs = _pairs(settings, work.model)
    if other := _handed_over(settings):
        words, job_of, _ = other
        passes = job_of(settings, work.model, pairs).passes(len(pairs.ranking))
        said = f"{words}: about {passes:,.0f} forward passes of one prompt"
        return Outcome(
            {"forwards": passes}, lambda: work.session.say(f"{said}; nothing was run"), status="planned"
        )
    found = planned(work.model, pairs.ranking, list(settings.mediators), **settings.measured())
    return Outcome(asdict(found), lambda: work.session.say(f"{found}; nothing was run"), status="planned")


@command(PatchSettings, examples=EXAMPLES, plan=plan)
def patch(work: Work, settings: PatchSettings) -> Made:
    """Rank mediators, and evaluate the circuit of the best on other pairs."""
    from interp.analyses.patching import patch as ranked
    from interp.mediation.parsing import members_of

    settings = _sized(work, settings)
    pairs = _pairs(settings, work.model)
    if other := _handed_over(settings):
        work.session.note(f"pairs: {pairs.ranking!r}, {len(pairs.held_out or ())} others held out")
        return _made(other[-1](work, settings, pairs), pairs, settings)
    found = members_of(work.model, pairs.ranking, list(settings.mediators), positions=settings.positions())
    held = f", {len(pairs.held_out)} others held out" if pairs.held_out is not None else ""
    work.session.note(f"pairs: {pairs.ranking!r}{held}, {counted(len(found), 'mediator')}")
    model, progress = work.certified(), work.session.progress
    call = partial(
        ranked, model, pairs, list(found), **settings.measured(), select=settings.select, progress=progress
    )
    result = call() if settings.workers == 1 or settings.search == QUICK else _shared(work, settings, call)
    if result.note:
        work.session.note(f"no circuit: {result.note}")
    return _made(result, pairs, settings)


def _shared(work: Work, settings: PatchSettings, call: Callable[[], Patching]) -> Patching:
    """The result of a call whose walks other processes make too; kept beside the run until it is finished."""
    from interp import scaling

    folder = work.run.begin() / ".walks"
    if not work.run.resumed:
        shutil.rmtree(folder, ignore_errors=True)
    if there := len([*folder.glob("*.json")]):
        work.session.note(f"resuming: {counted(there, 'walk')} of the patching are there already")
    work.run.keep_partial()
    return scaling.together(call, partial(_ranked, settings), folder, workers=settings.workers)


def _ranked(settings: PatchSettings) -> Patching:
    """The same call in a process that starts with nothing."""
    from interp.analyses.patching import patch as ranked
    from interp.mediation.parsing import members_of

    model = load_model(settings, settings.scheme)
    pairs = _pairs(settings, model)
    found = members_of(model, pairs.ranking, list(settings.mediators), positions=settings.positions())
    return ranked(model, pairs, list(found), **settings.measured(), select=settings.select)


def _handed_over(settings: PatchSettings) -> tuple[str, Any, Any] | None:
    """What is done instead of a ranking: in words, what it takes, and what does it; None for a ranking."""
    if settings.circuit is not None:
        return "a circuit of features", job_of_features, find_circuit
    if settings.baselines is not None:
        return "baselines by a bandit", job_of_baselines, choose_baseline
    return ("types side by side", job_of_types, compare_types) if wants_types(settings) else None


def _made(result: Result, pairs: PairsFor, settings: PatchSettings) -> Made:
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
    from interp.analyses.patching import MOST_NODES
    from interp.mediation import METRICS, Edge, replacement_of
    from interp.mediation import plan as planned
    from interp.mediation.parsing import members_of

    if other := _handed_over(settings):
        return other[1](settings, work.model, _pairs(settings, work.model))
    rule, by_gradient = replacement_of(settings.replacement), METRICS[settings.metric].differentiable
    free = settings.search is None and by_gradient and not (rule.noised or rule.fitted)
    pairs = _pairs(settings, work.model)
    forecast = planned(work.model, pairs.ranking, list(settings.mediators), **settings.measured())
    every = len(pairs.ranking) + (0 if pairs.held_out is None else len(pairs.held_out))
    whole = every if settings.data is not None else len(pairs.ranking)
    # fewer groups than this cannot tell any of so many mediators from chance, whatever their effects
    groups = math.ceil(math.log2(2 * forecast.mediators / SURE))
    least = max(LEAST, math.ceil(groups * whole / max(1, len(set(pairs.ranking.groups)))))
    asked = list(settings.mediators)
    found = members_of(work.model, pairs.ranking, asked, positions=settings.positions())
    edges = isinstance(found[0], Edge)
    factor, chosen, held = (EDGES, EDGE_CIRCUIT, EDGE_HELD) if edges else (1.0, CIRCUIT, HELD)
    if not edges and (not 2 <= len(found) <= MOST_NODES or any(one.position is not None for one in found)):
        chosen = held = 0  # cells of a grid, for example, form no circuit
    ranked = (factor * forecast.forwards + (CHECKS + chosen) * len(pairs.ranking)) / whole
    others = (every - len(pairs.ranking) or len(pairs.ranking)) / whole
    fewer = EDGE_PAIRS if edges and settings.held_out is None and settings.data is None else None

    def held_to(n: int) -> float:
        most = settings.held_out or (fewer if n < whole else None)
        return float(min(n * others, most or n * others))

    def sizes(n: int) -> dict[str, Any]:
        return {"limit": n} | ({"held_out": fewer} if fewer else {})

    return Job(
        whole=whole,
        least=min(least, whole),
        texts=pairs.ranking.clean.texts,
        passes=lambda n: ranked * n + held * held_to(n),
        shown=lambda n: f"{counted(n, 'pair')}{f' and {fewer} held out' if fewer and n < whole else ''}",
        settings=sizes,
        otherwise=(lambda: _quicker(work, settings)) if free else None,
    )


def _pairs(settings: PatchSettings, model: Model) -> PairsFor:
    from interp.analyses.patching import pairs_for
    from interp.mediation import METRICS
    from interp.pairs import PairSet

    n = settings.limit or DEFAULT_PAIRS
    if settings.data is None:
        kind = settings.counterfactual
        return _held(pairs_for(model, settings.about(), n, seed=settings.seed, counterfactual=kind), settings)
    whole = bool(METRICS[settings.metric].whole)
    own = PairSet.from_jsonl(model, settings.data, misaligned=settings.misaligned, whole=whole)
    own = own[: settings.limit]
    return _held(pairs_for(model, own, seed=settings.seed), settings)


def _held(found: PairsFor, settings: PatchSettings) -> PairsFor:
    """The pairs, with as many held out as were asked for."""
    if settings.held_out is None or found.held_out is None:
        return found
    return replace(found, held_out=found.held_out[: settings.held_out])


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
