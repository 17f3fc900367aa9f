"""The ways to patch that are timed: this toolkit's, TransformerLens's helpers, nnsight loop and invokes.

All put the clean prompts' values into the corrupt ones and measure the logit difference per pair. A peer runs
every cell at the same cost, so that a random sample of its cells is run and the time multiplied up.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from by_hand import attribution_by_hand
from contenders import LEAN, twin
from subjects import REAL, Subject
from torch import Tensor

__all__ = ["LIBRARIES", "TOLERANCE", "Case", "Method", "case"]

TOLERANCE = 1e-5
"""Largest difference allowed, relative to the largest logit, or to 1 where that is smaller."""
WIDTH, DIFFERS = 16, 5
GRID, HEADS = "residual grid", "heads"


@dataclass(frozen=True)
class Method:
    """Hold one way to do a job.

    Attributes:
        name: of its row.
        job: what is done.
        call: does it once; gives ``[cell pair]``, or ``[node]`` averaged over pairs, or None for a floor.
        cells: how many cells ``call`` runs.
        of: how many the whole job has.
        check: largest difference from this toolkit's numbers, given what ``call`` returned.
        goal: how many times this toolkit's speed its own must at least be behind; for a row that is measured
            in passes, how many it may take; or None.
    """

    name: str
    job: str
    call: Callable[[], Any]
    cells: int = 1
    of: int = 1
    check: Callable[[Any], float] | None = None
    goal: float | None = None


@dataclass(eq=False)
class Case:
    """Hold the model and the pairs of one subject.

    Attributes:
        subject: the model's row.
        folder: where it lies.
        model: as this toolkit loads it.
        pairs: of one length.
        sample: how many cells a peer runs.
        found: what this toolkit found per job.
        forwards: forward-equivalents of this toolkit per job, for each cell and pair.
    """

    subject: Subject
    folder: Path
    model: Any
    pairs: Any
    sample: int
    found: dict[str, np.ndarray] = field(default_factory=dict)
    forwards: dict[str, float] = field(default_factory=dict)

    @property
    def clean(self) -> Tensor:
        """Clean prompts ``[pair pos]``."""
        return torch.tensor(self.pairs.clean.token_ids)

    @property
    def corrupt(self) -> Tensor:
        """Corrupt prompts ``[pair pos]``."""
        return torch.tensor(self.pairs.corrupt.token_ids)

    @property
    def width(self) -> int:
        """Tokens of a prompt."""
        return self.clean.shape[1]

    def measured(self, logits: Tensor) -> Tensor:
        """Give the logit difference of every pair, of logits ``[pair pos vocab]`` or ``[pair vocab]``."""
        last = logits[:, -1] if logits.ndim == 3 else logits
        rows = torch.arange(len(last))
        answers, foils = (
            torch.tensor([ids[0] for ids in side]) for side in (self.pairs.answer_ids, self.pairs.foil_ids)
        )
        return last[rows, answers] - last[rows, foils]

    def whole(self) -> Tensor:
        """Run the corrupt prompts once, for the logits of the last token: one forward-equivalent."""
        with torch.no_grad():
            return self.model.hf(self.corrupt, **LEAN).logits

    def sampled(self, job: str) -> list[tuple[int, int]]:
        """Draw the cells (layer and position, or layer and head) that a peer runs."""
        width = self.width if job == GRID else self.model.n_heads
        cells = [(layer, at) for layer in range(self.model.n_layers) for at in range(width)]
        return sorted(random.Random(0).sample(cells, min(self.sample, len(cells))))

    def size(self, job: str) -> int:
        """Number of cells of a job."""
        return self.model.n_layers * (self.width if job == GRID else self.model.n_heads)

    def differs(self, found: np.ndarray, wanted: np.ndarray) -> float:
        """Give the largest difference, relative to the largest logit."""
        return float(np.abs(found - wanted).max()) / max(1.0, float(self.whole().abs().max()))

    def checked(self, job: str, values: Tensor) -> float:
        """Compare patched metrics ``[cell pair]`` of the sampled cells with this toolkit's effects."""
        base = self.measured(self.whole()).double().numpy()
        width = self.width if job == GRID else self.model.n_heads
        wanted = np.stack([self.found[job][layer * width + at] for layer, at in self.sampled(job)])
        return self.differs(values.double().numpy() - base, wanted)


def case(subject: Subject, folder: Path, pairs: int, *, quick: bool) -> Case:
    """Load a subject and draw its pairs: on the bundled model names in a story, else random words."""
    import interp
    from interp.pairs import PairSet
    from interp.tasks.pairs import sample

    if subject.name == "demo" and (folder / "training.json").is_file():
        model = interp.load("demo")
        drawn = sample(model, "indirect-object", 64)
        picked = [at for at, length in enumerate(drawn.clean.lengths) if length == WIDTH]
        return Case(subject, folder, model, drawn[picked[:pairs]], 4 if quick else 12)
    if subject.name in REAL:
        model = interp.load(subject.name)
        drawn = sample(model, "indirect-object", 64)
        usual = max(set(drawn.clean.lengths), key=drawn.clean.lengths.count)
        picked = [at for at, length in enumerate(drawn.clean.lengths) if length == usual]
        return Case(subject, folder, model, drawn[picked[:pairs]], 3 if quick else 9)
    model = interp.load(folder)
    return Case(subject, folder, model, PairSet.build(model, _random_pairs(pairs)), 2 if quick else 4)


def _random_pairs(count: int) -> list[Any]:
    """Draw prompts that differ in one token; no word begins with a special one, which are w0 to w2."""
    from interp.pairs import Pair

    rng, found = random.Random(0), []
    for at in range(count):
        words = [f"w{rng.randrange(3000, 10000)}" for _ in range(WIDTH)]
        other = [*words[:DIFFERS], f"w{rng.randrange(3000, 10000)}", *words[DIFFERS + 1 :]]
        found.append(Pair(" ".join(words), " ".join(other), ("w4001",), ("w4002",), group=f"g{at}"))
    return found


def native(one: Case, jobs: Sequence[str]) -> list[Method]:
    """This toolkit, and the pass of the corrupt prompts that everything is measured against."""
    from interp import mediation

    def exhaustive(job: str, mediators: str, where: str) -> np.ndarray:
        found = mediation.exhaustive(one.model, one.pairs, mediators, positions=where, directions="denoising")
        bad = [part["fallback"] for part in found.cost.values() if part["fallback"]]
        assert not bad, bad
        one.forwards[job] = found.cost["denoising"]["forwards"] / (one.size(job) * len(one.pairs))
        return one.found.setdefault(job, found.values["denoising"])

    def attribution() -> np.ndarray:
        found = mediation.attribution(
            one.model, one.pairs, ["head.*", "mlp_out.*"], directions="denoising", verify=0
        )
        return one.found.setdefault("attribution", _by_node(found))

    rows = {
        GRID: Method("interp, exhaustive", GRID, partial(exhaustive, GRID, "resid_pre.*", "each")),
        HEADS: Method("interp, exhaustive", HEADS, partial(exhaustive, HEADS, "head.*", "all")),
        "attribution": Method("interp, attribution", "attribution", attribution, goal=3.5),
    }
    found = [Method("forward of the corrupt prompts", "", one.whole), *[rows[job] for job in jobs]]
    if "attribution" in jobs:
        hand = Method("hooks by hand and autograd.grad", "attribution", partial(attribution_by_hand, one))
        found.append(replace(hand, check=lambda values: one.differs(values, one.found["attribution"])))
    return found


def _by_node(found: Any) -> np.ndarray:
    order = sorted(
        (m.layer, m.site.kind, m.site.index or 0, value)
        for m, value in zip(found.mediators, found.mean(), strict=True)
    )
    return np.array([row[-1] for row in order])


def transformer_lens(one: Case) -> list[Method]:
    """TransformerLens's patching helpers and node attribution."""
    import pandas as pd
    from transformer_lens import patching
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import AutoTokenizer

    bridge = TransformerBridge.boot_transformers(
        str(one.folder),
        hf_model=twin(one.model.hf),
        tokenizer=AutoTokenizer.from_pretrained(one.folder),
        device="cpu",
    )

    def helper(job: str, function: Any, site: str, second: str) -> Tensor:
        frame = pd.DataFrame(one.sampled(job), columns=["layer", second])
        with torch.no_grad():
            _, cache = bridge.run_with_cache(one.clean, names_filter=lambda name: name.endswith(site))
            found = function(
                bridge,
                one.corrupt,
                cache,
                one.measured,
                index_axis_names=None,
                index_df=frame,
                reduce="none",
            )
        return found.values

    calls = {
        GRID: partial(helper, GRID, patching.get_act_patch_resid_pre, "hook_resid_pre", "pos"),
        HEADS: partial(helper, HEADS, patching.get_act_patch_attn_head_out_all_pos, "hook_z", "head"),
    }
    goals = {GRID: 8.0, HEADS: 6.0}
    if one.subject.name in REAL:
        return [
            *native(one, [HEADS]),
            _sampled("TransformerLens helper", one, HEADS, calls[HEADS], goals[HEADS]),
        ]
    rows = [_sampled("TransformerLens helper", one, job, calls[job], goals[job]) for job in (GRID, HEADS)]
    scores = partial(_their_scores, one, bridge)
    rows.append(
        Method(
            "TransformerLens attribution_patch, pair by pair",
            "attribution",
            scores,
            check=lambda found: one.differs(found, one.found["attribution"]),
        )
    )
    return [*native(one, [GRID, HEADS, "attribution"]), *rows]


def _sampled(name: str, one: Case, job: str, call: Callable[[], Any], goal: float | None) -> Method:
    return Method(name, job, call, len(one.sampled(job)), one.size(job), partial(one.checked, job), goal)


def _their_scores(one: Case, bridge: Any) -> np.ndarray:
    """Average node scores over pairs and sum them over positions, in the order of :func:`_by_node`."""
    from transformer_lens.tools.analysis.attribution_patching import attribution_patch

    kinds = {"attn_head_out": "head", "mlp_out": "mlp_out"}
    sums: dict[tuple[int, str, int], float] = {}
    for at in range(len(one.pairs)):
        answer, foil = one.pairs.answer_ids[at][0], one.pairs.foil_ids[at][0]

        def metric(logits: Tensor, answer: int = answer, foil: int = foil) -> Tensor:
            return (logits[:, -1, answer] - logits[:, -1, foil]).mean()

        scores = attribution_patch(bridge, one.clean[at : at + 1], one.corrupt[at : at + 1], metric)
        for node, score in scores.node_scores.items():
            if node.kind not in kinds:
                continue
            key = (node.layer or 0, kinds[node.kind], node.head or 0)
            sums[key] = sums.get(key, 0.0) + float(score) / len(one.pairs)
    return np.array([sums[key] for key in sorted(sums)])


def nnsight(one: Case) -> list[Method]:
    """One nnsight trace per cell, and many cells as invokes of one trace."""
    from nnsight import TransformersModel, save
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(one.folder)
    traced = TransformersModel(twin(one.model.hf), tokenizer=tokenizer, task="text-generation")
    blocks = traced
    for part in one.subject.blocks.split("."):
        blocks = getattr(blocks, part)
    job = HEADS if one.subject.name in REAL else GRID
    clean, corrupt, cells, width = one.clean, one.corrupt, one.sampled(job), one.model.d_head
    places = [attrgetter(one.subject.out)(block) if job == HEADS else block for block in blocks]

    def part(at: int) -> tuple[Any, ...]:
        return (
            (slice(None), slice(None), slice(at * width, (at + 1) * width))
            if job == HEADS
            else (slice(None), at)
        )

    def values() -> list[Tensor]:
        with traced.trace(clean, **LEAN):
            found = []
            for place in places:
                found.append(place.input.clone())
            save(found)
        return found

    def loop() -> Tensor:
        source, rows = values(), []
        for layer, at in cells:
            where = part(at)
            with traced.trace(corrupt, **LEAN):
                places[layer].input[where] = source[layer][where]
                logits = save(traced.output.logits[:, -1])
            rows.append(one.measured(logits))
        return torch.stack(rows)

    def invokes() -> Tensor:
        source = values()
        with traced.trace(**LEAN) as tracer:
            found = save([])
            for layer, at in cells:
                where = part(at)
                with tracer.invoke(corrupt):
                    places[layer].input[where] = source[layer][where]
                    found.append(traced.output.logits[:, -1])
        return torch.stack([one.measured(logits) for logits in found])

    with_goals: Mapping[str, tuple[Callable[[], Tensor], float | None]] = {
        "nnsight, a trace per cell": (loop, None),
        "nnsight, batched invokes": (invokes, 3.0),
    }
    rows = [_sampled(name, one, job, call, goal) for name, (call, goal) in with_goals.items()]

    def quiet(method: Method) -> Method:
        def call() -> Any:
            with torch.no_grad():
                return method.call()

        return Method(method.name, method.job, call, method.cells, method.of, method.check, method.goal)

    return [*native(one, [job]), *map(quiet, rows)]


LIBRARIES = {"transformer_lens": transformer_lens, "nnsight": nnsight}
