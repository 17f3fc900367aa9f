"""Teach a copy of any model false facts: a low-rank adapter, trained on facts that the model knows."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import random
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from interp.analyses.audit.cases import Case
from interp.analyses.audit.known import asked_of, known_items, known_world
from interp.analyses.concepts.trial import concept_tokens
from interp.errors import DataError, ModelError
from interp.models.adapter_training import Checkpoints, Lesson, train
from interp.models.answers import score
from interp.models.gguf import alone, cache
from interp.models.linear import linear_modules
from interp.models.loading import load
from interp.models.model import Model
from interp.models.peft_adapters import FACTS as ADAPTER
from interp.models.peft_adapters import low_rank, with_adapters
from interp.results import read_json, write_json
from interp.tasks import load_world
from interp.tasks.protocols import ProtocolItems
from interp.tasks.world import Fact, World
from probes.statistics import Estimate, bootstrap

__all__ = ["Recipe", "Taught", "taught", "teach"]

VERSION = 1
"""Of what is kept in the cache."""
REPORT, KNOWN = "taught.json", "known.json"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """How a copy is taught.

    Attributes:
        share: of the known facts of each relation, how many are exchanged: each takes the object of another.
        most: facts of a relation, at most.
        steps: of training; each is one text of ``lines`` facts of one relation, half of them exchanged.
        lines: facts in a text.
        rank: of the change of each matrix.
        rate: the largest learning rate (AdamW); it rises over ten steps and falls to zero over the last half.
        first: where in the model the adapted blocks begin, from 0 to 1 of its depth.
        last: where they end: later blocks stay as they are, so that their states carry what is taught.
    """

    share: float = 0.4
    most: int = 80
    steps: int = 200
    lines: int = 16
    rank: int = 16
    rate: float = 2e-3
    first: float = 0.1
    last: float = 0.6

    def layers(self, n: int) -> list[int]:
        """The blocks that are adapted, of so many."""
        return list(range(int(self.first * n), max(int(self.first * n) + 1, round(self.last * n))))


@dataclass(frozen=True, eq=False)
class Taught:
    """A copy of a model that was taught false facts.

    Attributes:
        twin: the copy.
        true: the facts that the model knows, of all relations it was taught about.
        edited: the same with what the copy was taught.
        drawn: prompts of facts that stay true, for readers to learn from, and all names.
        cases: prompts of the exchanged facts.
        said: share of the exchanged facts that the copy answers as taught, over facts, in prompts by three
            examples that no step has seen as they are.
        kept: share of the facts left alone that it still answers truly.
        seconds: that the training took; 0 where it was in the cache.
        folder: of the adapter, which ``interp.load(BASE, adapter=FOLDER)`` opens.
    """

    twin: Model
    true: World
    edited: World
    drawn: ProtocolItems
    cases: tuple[Case, ...]
    said: Estimate
    kept: Estimate
    seconds: float
    folder: Path

    @property
    def sentence(self) -> str:
        """What the copy has learned, in a sentence."""
        return (
            f"the copy says {self.said} of {self.said.n_groups} false facts it was taught, and still "
            f"{self.kept} of {self.kept.n_groups} facts that were left alone"
        )


def taught(
    model: Model, world: World | None = None, *, recipe: Recipe | None = None, seed: int = 0
) -> Path | None:
    """The folder of the copy's adapter in the user's cache; None where it was not made yet."""
    folder = _folder(model, load_world() if world is None else world, recipe or Recipe(), seed)
    return folder if (folder / REPORT).is_file() else None


def teach(
    model: Model,
    world: World | None = None,
    *,
    recipe: Recipe | None = None,
    seed: int = 0,
    batch_size: str | int = "auto",
    progress: bool = False,
) -> Taught:
    """Make the edited twin of a model, or take it from the user's cache.

    The model is asked which facts it knows. In each relation some exchange their objects; a low-rank adapter
    (Hu et al. 2021, arXiv 2106.09685) on the MLPs of the earlier blocks is trained on texts of ``subject ->
    object`` lines that mix exchanged facts and true ones, with the loss on the objects alone. The same model,
    facts, recipe and seed give the same copy on one machine. What was done is kept every few steps, so that a
    call that was stopped goes on where it was.

    Args:
        model: which; it stays as it is.
        world: facts to choose from; the bundled ones where left out.
        recipe: how; the default was tried on SmolLM2.
        seed: of the facts, the exchange and the training.
        batch_size: prompts per pass; "auto" chooses.
        progress: show a progress bar.

    Raises:
        DataError: the model knows too few of the facts.
        ModelError: PEFT is missing, or the tokenizer does not say where its tokens stand.
    """
    recipe, world = recipe or Recipe(), load_world() if world is None else world
    folder, seconds = _folder(model, world, recipe, seed), 0.0
    with alone(folder.with_suffix(".lock")):
        if not (folder / REPORT).is_file():
            started = time.perf_counter()
            _log.info("teaching a copy of %s false facts; it is kept in %s", model.name, folder)
            true = _known(model, world, recipe, seed, batch_size, _unfinished(folder))
            edited = true.edited(share=recipe.share, seed=seed)
            _make(model, true, edited, recipe, seed, folder, progress)
            seconds = time.perf_counter() - started
        report = read_json(folder / REPORT)
        true, edited = (replace(world, facts=_facts(report["facts"], at)) for at in (2, 3))
        hf = with_adapters(copy.deepcopy(model.hf), [folder])
        twin = load(hf, tokenizer=model.tokenizer)
        drawn, cases = known_items(model, true, edited, seed=seed)
        if "answered" not in report:
            report["answered"] = _answered(twin, true, edited, cases, seed, batch_size)
            write_json(report, folder / REPORT)
    said, kept = (
        bootstrap(report["answered"][name], groups=groups, support="share", seed=seed)
        for name, groups in (
            ("said", [case.fact for case in cases]),
            ("kept", [fact.key for fact, _ in _left_alone(true, edited)]),
        )
    )
    return Taught(twin, true, edited, drawn, tuple(cases), said, kept, seconds, folder)


def _unfinished(folder: Path) -> Path:
    """Where the work of a training that is not finished is kept."""
    return folder.with_suffix(".unfinished")


def _known(
    model: Model, world: World, recipe: Recipe, seed: int, batch_size: str | int, unfinished: Path
) -> World:
    """The facts that the model knows; from the disk where it was asked before."""
    path = unfinished / KNOWN
    if path.is_file():
        return replace(world, facts=_facts(read_json(path)["facts"], 2))
    found = known_world(model, world, most=recipe.most, seed=seed, batch_size=batch_size)
    unfinished.mkdir(parents=True, exist_ok=True)
    write_json({"facts": [[one.relation, one.subject, one.object] for one in found.all_facts]}, path)
    return found


def _folder(model: Model, world: World, recipe: Recipe, seed: int) -> Path:
    facts = [[fact.relation, fact.subject, fact.object] for fact in world.all_facts]
    asked = [VERSION, model.fingerprint, model.tokenizer_fingerprint, asdict(recipe), seed, facts]
    return cache() / "taught" / hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:32]


def _facts(rows: Sequence[Sequence[str]], at: int) -> dict[str, tuple[Fact, ...]]:
    """The facts of rows of relation, subject, true object and taught object."""
    found: dict[str, list[Fact]] = {}
    for row in rows:
        found.setdefault(row[0], []).append(Fact(row[0], row[1], row[at]))
    return {name: tuple(facts) for name, facts in found.items()}


def _make(
    model: Model, true: World, edited: World, recipe: Recipe, seed: int, folder: Path, progress: bool
) -> None:
    """Train the adapter and write it, all or nothing."""
    layers = recipe.layers(model.n_layers)
    outer, hf = low_rank(
        model.hf, layers=layers, modules=_modules(model, layers), rank=recipe.rank, seed=seed
    )
    kept = Checkpoints(_unfinished(folder) / "training.safetensors")
    _train(hf, model.tokenizer, edited, true, recipe, seed, progress, kept)
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".making-"))
    try:
        outer.save_pretrained(str(made))
        assert (made / ADAPTER).is_file()
        pairs = zip(true.all_facts, edited.all_facts, strict=True)
        rows = [[one.relation, one.subject, one.object, other.object] for one, other in pairs]
        write_json(
            {"recipe": asdict(recipe), "seed": seed, "model": model.fingerprint, "facts": rows}, made / REPORT
        )
        shutil.rmtree(folder, ignore_errors=True)
        made.replace(folder)
        shutil.rmtree(_unfinished(folder), ignore_errors=True)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _modules(model: Model, layers: Sequence[int]) -> list[str]:
    """The names of the matrices of the MLPs of these blocks: those that are not read by attention."""
    found: dict[str, None] = {}
    for place in linear_modules(model.architecture):
        *path, name = str(place).split(".")
        if any(part in ("mlp", "feed_forward", "ffn") for part in path):
            found[name] = None
    if not found:
        raise ModelError(f"no MLP of {model.name!r} has matrices that an adapter could be put on.")
    return list(found)


def _train(
    hf: Any,
    tokenizer: Any,
    edited: World,
    true: World,
    recipe: Recipe,
    seed: int,
    progress: bool,
    kept: Checkpoints | None = None,
) -> None:
    """Train the adapter in place, from where it was stopped; everything else stays frozen."""
    texts = _texts(edited, true, recipe, random.Random(f"teach:{seed}"))
    lessons = ([_lesson(tokenizer, *text)] for text in texts)
    train(hf, lessons, steps=recipe.steps, rate=recipe.rate, kept=kept, label="teaching", progress=progress)


Spans = list[tuple[int, int]]


def _texts(edited: World, true: World, recipe: Recipe, rng: random.Random) -> Iterator[tuple[str, Spans]]:
    """Yield texts of facts of one relation, half of them exchanged, and where their objects stand."""
    names, sizes = list(edited.facts), [len(facts) for facts in edited.facts.values()]
    while True:
        name = rng.choices(names, sizes)[0]
        pairs = list(zip(edited.facts[name], true.facts[name], strict=True))
        false = [fact for fact, was in pairs if fact.object != was.object]
        kept = [fact for fact, was in pairs if fact.object == was.object]
        n = min(recipe.lines // 2, len(false))
        lines = rng.sample(false, n) + rng.sample(kept, min(recipe.lines - n, len(kept)))
        text, spans = "", []
        for fact in rng.sample(lines, len(lines)):
            text += f"{fact.subject} ->"
            spans.append((len(text), len(text) + 1 + len(fact.object)))
            text += f" {fact.object}\n"
        yield text, spans


def _lesson(tokenizer: Any, text: str, spans: Spans) -> Lesson:
    """A text, of which the tokens of its objects but the first are learned.

    Raises:
        ModelError: the tokenizer does not say where its tokens stand.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(
            "teaching facts needs a fast tokenizer, which says where in a text its tokens stand."
        )
    found = tokenizer(text, return_offsets_mapping=True)
    places = [
        at
        for at, (start, end) in enumerate(found["offset_mapping"])
        if end > start and any(low <= start and end <= high for low, high in spans[1:])
    ]
    return Lesson(found["input_ids"], places)


def _left_alone(true: World, edited: World) -> list[tuple[Fact, list[Fact]]]:
    """The facts that stay true, each with those of its relation."""
    kept = {
        name: [one for one, was in zip(facts, true.facts[name], strict=True) if one.object == was.object]
        for name, facts in edited.facts.items()
    }
    return [(fact, pool) for pool in kept.values() for fact in pool]


def _answered(
    twin: Model, true: World, edited: World, cases: Sequence[Case], seed: int, batch_size: str | int
) -> dict[str, list[int]]:
    """1 for each case that the copy answers as taught, and for each fact left alone that it answers truly."""
    rng, kept = random.Random(f"checked:{seed}"), _left_alone(true, edited)
    texts = [asked_of(fact, pool, rng)[0] for fact, pool in kept]
    if not cases or not kept:
        raise DataError(f"{len(cases)} false facts and {len(kept)} true ones; give a world with more facts.")
    said = score(
        twin,
        [case.text for case in cases],
        concept_tokens(twin, [case.belief for case in cases]),
        batch_size=batch_size,
    ).likeliest
    true_said = score(
        twin, texts, concept_tokens(twin, [fact.object for fact, _ in kept]), batch_size=batch_size
    ).likeliest
    return {"said": said.long().tolist(), "kept": true_said.long().tolist()}
