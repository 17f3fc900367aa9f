"""What differs between a model and another one made of it: in weights, in states, in what it says.

Training as such moves weights, states and outputs. So each number stands beside that of a twin that was
trained as long on exchanged answers (``interp finetune --shuffle``) or on another seed; without a twin the
result says that nothing was subtracted. Outputs differ where the divergence is shown to be larger than three
times what rounding all weights to bfloat16 gives. Two trainings on the same data move a model by different
amounts on every prompt alike, so no number of prompts can say from one twin whether a model moved more than
training as such: that is judged from two twins on, by the spread between them (see :func:`beyond`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import special

from interp.analyses.audit.twins import bundled_twin
from interp.analyses.layer_profiles import Layers
from interp.analyses.prompts import Own
from interp.analyses.provenance import about, earlier
from interp.analyses.representation_similarity import Alignment
from interp.analyses.training_changes.reading import Against, Read, decoded
from interp.analyses.training_changes.weights import by_part, every_matrix
from interp.errors import counted
from interp.lenses import TranslatorLens
from interp.lenses.words import words_of
from interp.models.loading import ModelLike, as_model
from interp.models.model import Model
from interp.quantization.comparison.reference import in_bfloat16
from interp.results.findings import Finding
from interp.results.measured import FindingsResult
from interp.results.shapes import Cell, Table
from interp.tasks import load_world
from probes.evaluation import auroc
from probes.statistics import Estimate, bootstrap, paired_difference

__all__ = ["difference"]

WORDS, LISTED, ENOUGH = 8, 20, 3
"""Words of a direction, rows of a list, and changed facts that there must be for an AUROC."""
FLOORS, MARGIN = 3.0, 1.5


def difference(
    model: ModelLike,
    *,
    reference: FindingsResult | None = None,
    n: int = 300,
    seed: int = 0,
    twin: ModelLike | Sequence[ModelLike] | None = None,
    layers: Layers | None = None,
    prompts: Own | None = None,
) -> FindingsResult:
    """Measure what a training changed, each number beside that of a twin.

    Weights: ``||W' - W|| / ||W||`` (Frobenius) of each matrix, and the rank and the effective rank of the
    difference. States, on texts that the base draws, which have nothing to do with what was trained: linear
    CKA, relative distance, and the mean difference of the states, with the words that it raises in what the
    base's translator reads (after the activation difference lens, arXiv 2510.13900; that a translator reads
    is ours). Outputs: ``KL(base || model)`` in nats after prompts, and at each token of the texts; the
    prompts and tokens that moved most. Where it is known which of the facts that are asked were changed (the
    bundled edited model), the AUROC of the divergence for finding them.

    Args:
        model: what was trained.
        reference: what this function returned for the base; left out, the model is the base.
        n: how many facts are asked.
        seed: of the draws.
        twin: another model made of the base, trained as long on shuffled data, or on another seed; several
            say how much trainings differ among themselves. States and weights stand beside the first.
        layers: whose states are read; six evenly spaced ones where left out.
        prompts: own prompts instead of the bundled facts.

    Raises:
        ConfigError: a reference that is none.
        DataError: models of other vocabularies.
    """
    model = as_model(model)
    if reference is None:
        return FindingsResult(analysis="difference", about=about(model, {}), found=(), state={"model": model})
    base: Model = earlier(reference, "difference", "model")
    given = [] if twin is None else list(twin) if isinstance(twin, list | tuple) else [twin]
    twins = [as_model(one) for one in given]
    read = Read.of(base, n, seed, layers, prompts)
    seen = _Seen(
        base,
        model,
        read,
        own=read.against(model),
        twins=[read.against(one, weights=at == 0) for at, one in enumerate(twins)],
        noise=None if base.dtype == torch.bfloat16 else read.against(in_bfloat16(base), weights=False),
        seed=seed,
    )
    beside = f", and by {counted(len(twins), 'twin')}" if twins else ""
    return FindingsResult(
        analysis="difference",
        about=about(model, {"n": len(read.asked), "texts": len(read.texts), "source": read.asked.source}),
        asked=f"What differs between {model.called} and {base.called}?",
        how=(
            f"{counted(len(read.asked), 'prompt')} and {counted(len(read.texts), 'text')} that {base.called} "
            f"drew itself were read by both{beside}. Values are of the model; controls are means of the "
            "twins, or 0 without one.",
        ),
        found=seen.findings(),
        more=seen.tables(),
        judged=seen.verdict(),
        seed=seed,
        warnings=(*model.warnings, *(() if twins else (WITHOUT,))),
    )


WITHOUT = (
    "there is no twin, so that nothing was subtracted of what training as such does: give one that was "
    "trained as long on exchanged answers (interp finetune --shuffle; interp compare --twin)"
)


def beyond(own: float, twins: Sequence[float]) -> str:
    """Whether a model moved more than its twins did: how far its divergence is from theirs, in logarithms.

    A further twin lies within ``mean +- t(m - 1) s sqrt(1 + 1/m)`` of m twins in 97.5% of cases, with s their
    standard deviation (a prediction interval of normal logarithms). A model outside of it, and beyond one and
    a half times their geometric mean, moved more or less than training as such.

    Args:
        own: the mean divergence of the model, nats.
        twins: of each twin.
    """
    if not twins:
        return "changed"
    if min(twins) <= 0:
        return "changed, beside a twin that is the base itself"
    logs = np.log(twins)
    ratio = float(np.exp(np.log(own) - logs.mean()))
    beside = f"{ratio:.2g} times the {'twin' if len(twins) == 1 else 'twins'}"
    if len(twins) == 1:
        return f"changed, {beside} (one twin: not judged)"
    within = special.stdtrit(len(twins) - 1, 0.9875) * logs.std(ddof=1) * np.sqrt(1 + 1 / len(twins))
    if abs(np.log(ratio)) <= max(float(within), np.log(MARGIN)):
        return f"changed, not told from training as such ({beside})"
    return f"changed, {'more' if ratio > 1 else 'less'} than by training as such ({beside})"


@dataclass(frozen=True, eq=False)
class _Divergence:
    """How far what is said moved, item by item, nats.

    Attributes:
        groups: of the items.
        own: of the model.
        twins: of each twin.
        rounding: of the base rounded to bfloat16; empty where it computes in it.
    """

    groups: tuple[str, ...]
    own: Float[np.ndarray, " item"]
    twins: Sequence[Float[np.ndarray, " item"]]
    rounding: Sequence[Float[np.ndarray, " item"]]

    @property
    def mean(self) -> float:
        """Of the model."""
        return float(self.own.mean())

    @cached_property
    def reading(self) -> str:
        """What it says."""
        if not self.own.any():
            return "no change"
        floor = FLOORS * self.rounding[0] if self.rounding else np.zeros_like(self.own)
        if paired_difference(self.own, floor, groups=self.groups, support="real").interval.low <= 0:
            return "no change beyond rounding"
        return beyond(self.mean, [float(values.mean()) for values in self.twins])


@dataclass(frozen=True, eq=False)
class _Seen:
    """The base, the model, and its twins."""

    base: Model
    model: Model
    read: Read
    own: Against
    twins: Sequence[Against]
    noise: Against | None
    seed: int

    @property
    def twin(self) -> Against | None:
        """The first twin."""
        return self.twins[0] if self.twins else None

    @cached_property
    def divergences(self) -> dict[str, _Divergence]:
        """How far what is said moved, on the prompts and on unrelated text."""
        rounding = () if self.noise is None else (self.noise,)
        texts = tuple(f"text {row}" for row in range(len(self.read.texts)))
        ways = {"the prompts": (self.read.asked.groups, lambda one: one.facts)}
        ways["unrelated text"] = (texts, lambda one: self.read.per_text(one.tokens))
        return {
            where: _Divergence(
                groups, way(self.own), [way(one) for one in self.twins], [way(one) for one in rounding]
            )
            for where, (groups, way) in ways.items()
        }

    def findings(self) -> tuple[Finding, ...]:
        """Divergences, distances of states, and the AUROC where what changed is known."""
        found = []
        for where, one in self.divergences.items():
            control = np.mean(one.twins, axis=0) if one.twins else 0.0
            words = f"KL(base || model) on {where}; control: {'the twins' if one.twins else 'none'}"
            found.append(Finding(f"KL on {where}", one.own, one.groups, control, "nats", about=words))
        for layer in self.read.at:
            own, twin = self.apart(self.own, layer), self.twin and self.apart(self.twin, layer)
            found.append(
                Finding(
                    f"states moved at layer {layer}",
                    own,
                    self.divergences["unrelated text"].groups,
                    0.0 if twin is None else twin,
                    "share",
                    curve="states moved",
                    layer=layer,
                    about="distance from the base's state over its length, on unrelated text",
                )
            )
        return tuple(found)

    def apart(self, other: Against, layer: int) -> Float[np.ndarray, " text"]:
        """The relative distance of the states of a layer, mean over the tokens of each text."""
        base = self.read.states[layer]
        each = np.linalg.norm(other.states[layer] - base, axis=1) / np.linalg.norm(base, axis=1)
        return np.array([each[self.read.owner == row].mean() for row in range(len(self.read.texts))])

    def tables(self) -> tuple[Table, ...]:
        """Outputs, weights, states, and what moved most."""
        weights, twin = self.own.weights, None if self.twin is None else self.twin.weights
        parts = () if weights is None else (*by_part(weights, twin), every_matrix(weights))
        return (self._outputs(), *self._known(), *parts, self._states(), *self._decoded(), *self._moved())

    def _outputs(self) -> Table:
        rows: list[dict[str, Cell]] = []
        for where, one in self.divergences.items():
            ends = bootstrap(one.own, groups=one.groups, seed=self.seed).interval
            row: dict[str, Cell] = {"where": where, "KL": one.mean, "low": ends.low, "high": ends.high}
            row["rounding"] = float(np.mean(one.rounding)) if one.rounding else None
            row["twins"] = ", ".join(f"{float(values.mean()):.3g}" for values in one.twins) or None
            rows.append({**row, "reading": one.reading})
        note = f"KL(base || model), nats. {RULE}"
        return Table.of("outputs", "How far what it says moved", rows, note)

    @cached_property
    def changed(self) -> Bool[np.ndarray, " item"] | None:
        """Which of the facts asked were changed, where that is known."""
        known = bundled_twin(self.base)
        if known is None or known[0].fingerprint != self.model.fingerprint:
            return None
        true, edited = load_world(), known[1]
        pairs = zip(true.all_facts, edited.all_facts, strict=True)
        keys = {f"one-hop:{now.key}" for was, now in pairs if was.object != now.object}
        found = np.array([group in keys for group in self.read.asked.groups])
        return found if ENOUGH <= found.sum() <= len(found) - ENOUGH else None

    def aurocs(self) -> dict[str, Estimate]:
        """How well divergences find the facts that were changed: of the model, and of the twin."""
        if self.changed is None:
            return {}
        groups = self.read.asked.groups
        models = {"model": self.own} | ({} if self.twin is None else {"twin": self.twin})
        return {name: auroc(self.changed, one.facts, groups=groups) for name, one in models.items()}

    def _known(self) -> tuple[Table, ...]:
        rows: list[dict[str, Cell]] = [
            {
                "of": name,
                "AUROC": one.value,
                "low": one.interval.low,
                "high": one.interval.high,
                "chance": 0.5,
            }
            for name, one in self.aurocs().items()
        ]
        if not rows or self.changed is None:
            return ()
        note = f"{int(self.changed.sum())} of the {len(self.changed)} facts asked are known to be changed."
        return (Table.of("changed-facts", "Finding the changed facts by the divergence", rows, note),)

    def _states(self) -> Table:
        rows: list[dict[str, Cell]] = []
        ones = np.ones(len(self.read.owner))
        for layer in self.read.at:
            base, row = self.read.states[layer], dict[str, Cell](layer=layer)
            for name, other in (("", self.own), ("twin: ", self.twin)):
                if other is not None:
                    moved = other.states[layer] - base
                    row[f"{name}CKA"] = Alignment.of(other.states[layer], base)(ones)
                    row[f"{name}distance"] = float(self.apart(other, layer).mean())
                    row[f"{name}halves agree"] = self._halves(moved)
            rows.append(row)
        note = (
            "On unrelated text. CKA: linear, 1 where the geometry is the same. Distance: over the length of "
            "the base's state. Halves agree: cosine of the mean differences of two halves of the texts; 1 "
            "where every text moves the same way, about 0 where each moves its own."
        )
        return Table.of("states", "How far the states moved", rows, note)

    def _halves(self, moved: Float[np.ndarray, "token dim"]) -> float:
        one, two = (moved[self.read.owner % 2 == half].mean(axis=0) for half in (0, 1))
        size = float(np.linalg.norm(one) * np.linalg.norm(two))
        return float(one @ two) / size if size else 0.0

    def _decoded(self) -> tuple[Table, ...]:
        """The words that the mean difference raises, beside the twin's and a random direction's."""
        (layer,) = decoded(self.base, self.read.at)
        lens = TranslatorLens.of(self.base, [layer])
        home = torch.from_numpy(self.read.states[layer]).float()
        rng = np.random.default_rng(self.seed)
        rows: list[dict[str, Cell]] = []
        directions = {"model": self.own, **({} if self.twin is None else {"twin": self.twin})}
        means = {n: (one.states[layer] - self.read.states[layer]).mean(0) for n, one in directions.items()}
        drawn = rng.standard_normal(home.shape[1])
        means["random, as long"] = drawn * np.linalg.norm(means["model"]) / np.linalg.norm(drawn)
        tops: dict[str, list[int]] = {}
        for name, mean in means.items():
            if not np.any(mean):
                continue
            with torch.no_grad():
                raised = lens.logits(home + torch.from_numpy(mean).float(), layer) - lens.logits(home, layer)
            tops[name] = raised.mean(dim=0).topk(min(WORDS, raised.shape[1])).indices.tolist()
            shared = len({*tops[name]} & {*tops.get("model", [])})
            words = " ".join(words_of(self.base, tops[name]))
            rows.append({"direction": name, "raises": words, "of them as the model": shared})
        if not rows:
            return ()
        note = "Words that the mean difference on unrelated text raises most in what the translator reads."
        return (Table.of("decoded", f"The mean difference at layer {layer}, in words", rows, note),)

    def _moved(self) -> tuple[Table, ...]:
        """The prompts and the tokens that moved most."""
        asked, own, twin = self.read.asked, self.own, self.twin
        said = [
            words_of(self.base, ids) for ids in (self.read.logs.argmax(dim=-1).tolist(), own.said.tolist())
        ]
        rows = [
            (
                asked.tokens.texts[at],
                float(own.facts[at]),
                None if twin is None else float(twin.facts[at]),
                said[0][at],
                said[1][at],
            )
            for at in np.argsort(-own.facts, kind="stable")[:LISTED].tolist()
            if own.facts[at] > 0
        ]
        columns = ("prompt", "KL", "twin", "base says", "model says")
        first = Table("moved-prompts", "The prompts that moved most", columns, rows, private=("prompt",))
        tokens, places = self.read.read_tokens, dict[int, list[int]]()
        for place, token in enumerate(tokens):
            places.setdefault(token, []).append(place)
        means = {token: float(own.tokens[at].mean()) for token, at in places.items() if len(at) > 1}
        ranked = sorted((token for token in means if means[token] > 0), key=lambda token: -means[token])[
            :LISTED
        ]
        found: list[dict[str, Cell]] = [
            {
                "after": word,
                "KL": means[token],
                "twin": None if twin is None else float(twin.tokens[places[token]].mean()),
                "times": len(places[token]),
            }
            for token, word in zip(ranked, words_of(self.base, ranked), strict=True)
        ]
        note = "Mean over the places of unrelated text at which the token stands, twice at least."
        return (first, Table.of("moved-tokens", "The tokens after which most moved", found, note))

    def verdict(self) -> str:
        """Outputs place by place, weights, and whether the changed facts are found."""
        weights = self.own.weights
        if weights is not None and not any(one.moved for one in weights):
            return "no change: all weights are the same"
        said = []
        for where, one in self.divergences.items():
            said.append(f"on {where} {one.reading} (KL {one.mean:.3g} nats)")
        if weights is not None:
            most = max(weights, key=lambda one: one.relative)
            place = most.part if most.layer is None else f"{most.part} of layer {most.layer}"
            rank = f", rank {most.rank}" if most.full else ""  # a vector has none
            said.append(f"weights moved most in {place} ({most.relative:.2g} of its norm{rank})")
        for name, area in self.aurocs().items():
            of = "the changed facts are found with" if name == "model" else "by the twin with"
            said.append(f"{of} AUROC {area.value:.3f} {area.interval}")
        return "; ".join(said) + ("" if self.twin is not None else "; no twin, nothing subtracted")


RULE = (
    f"Changed: shown to be above {FLOORS:g} times what rounding the weights to bfloat16 gives (95% interval "
    "over groups of prompts, or over texts). More or less than training as such: outside of where 97.5% of "
    f"further twins would lie, and beyond {MARGIN:g} times; judged from two twins on."
)
