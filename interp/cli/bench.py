"""``interp bench``: the metric of a public benchmark on any model and search, with intervals and chance."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from interp.cli.budget import Job
from interp.cli.frame import Made, Work, command
from interp.cli.options import RunSettings, SchemeSettings, choose, flag
from interp.cli.session import Outcome
from interp.errors import ConfigError

if TYPE_CHECKING:
    from interp.analyses.patching import PairsFor
    from interp.models import Model

__all__ = ["bench"]

EXAMPLES = (
    "interp bench mib --task ioi",
    "interp bench mib --task ioi --search eap-ig",
    "interp bench mib --task ioi --level nodes --search exhaustive",
    "interp bench mib --model gpt2 --task ioi --scores ioi-eap-ig.json",
)
SUITES = {"mib": "the circuit track of the Mechanistic Interpretability Benchmark"}
DEFAULT_PAIRS, LEAST = 32, 8
ENDS = 20
"""Passes of each pair for the unpatched prompts and checks."""


def _searches() -> Collection[str]:
    from interp.mediation import SEARCHES

    return SEARCHES


@dataclass(frozen=True, kw_only=True)
class BenchSettings(RunSettings, SchemeSettings):
    """Score a search by MIB's circuit track: CPR and CMD, with intervals, beside a random order.

    MIB's data are not shipped: pairs are those of the task here of the same kind, so that a score stands
    beside no row of its leaderboard. All scores are kept as scores.json, in MIB's layout.
    """

    suite: str = flag("mib", "The benchmark: mib.", given="position", allowed=lambda: SUITES)
    task: str = flag("ioi", "A task of MIB (ioi, arithmetic_addition) or of pairs here.", metavar="NAME")
    search: str = flag("attribution", "What ranks (`interp ls searches`).", metavar="NAME", allowed=_searches)
    level: Literal["edges", "nodes"] = flag("edges", "What is ranked: edges or nodes.", metavar="WHICH")
    scores: str | None = flag(
        None, "Rank by the scores of a circuit in MIB's JSON instead of a search.", metavar="FILE"
    )
    copies: Literal["refuse", "any", "all"] = flag(
        "refuse",
        "Of --scores, keys shared by heads of which some are in: refuse, any or all.",
        metavar="WHICH",
    )

    def check(self) -> None:
        """Refuse a task that is not here, and say why."""
        super().check()
        self.pairs_name()
        if self.scores is None:
            from interp.mediation.mib.benchmark import refuse_parts

            refuse_parts(self.search)

    def pairs_name(self) -> str:
        """The task here, whose pairs are used."""
        from interp.mediation import MIB_TASKS
        from interp.tasks import PAIR_TASKS

        row = MIB_TASKS.get(self.task)
        if row is None:
            aliases = [name for one in PAIR_TASKS.values() for name in one.aliases]
            choose("--task", self.task, [*MIB_TASKS, *PAIR_TASKS, *aliases])
            return self.task
        if not row.pairs:
            here = ", ".join(name for name, one in MIB_TASKS.items() if one.pairs)
            raise ConfigError(f"--task {self.task!r} of MIB is not here: {row.remark}. There are: {here}.")
        return row.pairs

    def about(self) -> str:
        """The benchmark and the task."""
        return f"{self.suite}-{self.task}"


def plan(work: Work, settings: BenchSettings) -> Outcome:
    """How many forward passes the search would take."""
    settings = _sized(work, settings)
    pairs = _pairs(work.model, settings)
    held = pairs.ranking if pairs.held_out is None else pairs.held_out
    circuits = _circuits(work.model, pairs, settings) * len(held)
    said = f"about {circuits:,.0f} forward passes of one prompt for the circuits"
    data: dict[str, float | int | str] = {"circuits": circuits}
    if settings.scores is None:
        found = _forecast(work.model, pairs, settings)
        said, data = f"{found}; {said}", asdict(found) | data
    return Outcome(data, lambda: work.session.say(f"{said}; nothing was run"), status="planned")


@command(BenchSettings, examples=EXAMPLES, plan=plan)
def bench(work: Work, settings: BenchSettings) -> Made:
    """Rank, and run circuits of every size on pairs that the search has not seen."""
    from interp.mediation import MIBCircuit, mib_score

    settings = _sized(work, settings)
    pairs, model = _pairs(work.model, settings), work.certified()
    held = "" if pairs.held_out is None else f", {len(pairs.held_out)} others held out"
    work.session.note(f"pairs: {pairs.ranking!r}{held}")
    scores = None
    if settings.scores is not None:
        scores = MIBCircuit.load(settings.scores, model, copies=settings.copies)
    asked: Any = {"search": settings.search, "level": settings.level, "seed": settings.seed}
    score, circuit = mib_score(
        model, pairs.ranking, pairs.held_out, scores=scores, progress=work.session.progress, **asked
    )
    folders: tuple[str, ...] = ()
    if scores is None:
        circuit.save(work.run.path / "scores.json", model)
        folders = ("scores.json",)
    return Made(score, folders=folders, facts={"data": pairs.ranking.described})


def _pairs(model: Model, settings: BenchSettings) -> PairsFor:
    from interp.analyses.patching import pairs_for

    return pairs_for(model, settings.pairs_name(), settings.limit or DEFAULT_PAIRS, seed=settings.seed)


def _forecast(model: Model, pairs: PairsFor, settings: BenchSettings) -> Any:
    from interp.mediation import plan as planned
    from interp.mediation.mib import LEVELS

    given: Any = {"search": settings.search, "directions": "noising", "positions": "all"}
    return planned(model, pairs.ranking, list(LEVELS[settings.level]), **given)


def _circuits(model: Model, pairs: PairsFor, settings: BenchSettings) -> float:
    """Passes of each pair for the circuits of both orders and of the random ones."""
    from interp.mediation.circuits.curve import FRACTIONS
    from interp.mediation.mib.benchmark import LEVELS, RANDOM
    from interp.mediation.parsing import members_of

    n = len(members_of(model, pairs.ranking, list(LEVELS[settings.level]), positions="all"))
    sizes = {int(fraction * n + 1e-9) for fraction in FRACTIONS} | {0, n}
    return float((2 + RANDOM) * (len(sizes) - 2) + ENDS)


def _sized(work: Work, settings: BenchSettings) -> BenchSettings:
    def job() -> Job:
        pairs = _pairs(work.model, settings)
        n = len(pairs.ranking)
        search = 0.0 if settings.scores is not None else _forecast(work.model, pairs, settings).forwards / n
        circuits = _circuits(work.model, pairs, settings)
        held = n if pairs.held_out is None else len(pairs.held_out)
        return Job(
            whole=n,
            least=min(LEAST, n),
            texts=pairs.ranking.clean.texts,
            passes=lambda count: (search + circuits * held / n) * count,
            shown=lambda count: f"{count} pairs",
        )

    return work.sized(settings, job)
