"""Fine-tune a small adapter on pairs of a prompt and an answer, or on the same pairs shuffled."""

from __future__ import annotations

import copy
import hashlib
import json
import random
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from interp.errors import DataError, counted
from interp.models.adapter_training import Checkpoints, Lesson, lessons_of, train
from interp.models.answers import score
from interp.models.loading import load
from interp.models.model import Model
from interp.models.peft_adapters import low_rank, matrices, with_adapters
from interp.results import About, FindingsResult, read_json, write_json
from interp.results.findings import Finding
from interp.tasks.files import cell, rows_of

__all__ = [
    "ADAPTER",
    "FineTuning",
    "divided",
    "exchanged",
    "finetune",
    "read_training_groups",
    "read_training_pairs",
]

Pairs = Sequence[tuple[str, str]]
ADAPTER, REPORT, FEWEST = "adapter", "finetuned.json", 8
"""Names of what is written, and the fewest pairs."""


@dataclass(frozen=True)
class FineTuning:
    """How an adapter is trained.

    Attributes:
        rank: of the change of each matrix of each block (LoRA, Hu et al. 2021, arXiv 2106.09685).
        steps: of training.
        batch: pairs of a step, drawn anew each time all were seen.
        rate: the largest learning rate (AdamW); it rises over ten steps and falls over the last half.
        held_out: the share of the prompts that nothing is trained on.
        shuffle: give each prompt the answer of another: what training as such does, with nothing to learn
            but which answers there are.
    """

    rank: int = 8
    steps: int = 100
    batch: int = 8
    rate: float = 2e-3
    held_out: float = 0.2
    shuffle: bool = False


def read_training_pairs(path: str | Path) -> list[tuple[str, str]]:
    """Read pairs from a ``.jsonl``, ``.csv`` or ``.tsv`` file with the columns ``prompt`` and ``answer``.

    Raises:
        DataError: no such file, a missing column, or an empty cell; the message names the line.
    """
    path = Path(path)
    rows = rows_of(path, ("prompt", "answer"))
    return [(cell(path, line, row, "prompt"), cell(path, line, row, "answer")) for line, row in rows]


def read_training_groups(path: str | Path) -> list[str] | None:
    """Read what must not stand on both sides, from a column ``group``; None where the file has none.

    Raises:
        DataError: no such file, or an empty cell; the message names the line.
    """
    path = Path(path)
    rows = rows_of(path, ("prompt", "answer"))
    if all(row.get("group") in (None, "") for _, row in rows):
        return None
    return [cell(path, line, row, "group") for line, row in rows]


def finetune(
    model: Model,
    pairs: Pairs,
    folder: str | Path,
    *,
    groups: Sequence[str] | None = None,
    how: FineTuning | None = None,
    seed: int = 0,
    progress: bool = False,
) -> FindingsResult:
    """Train a low-rank adapter on the answers of pairs, and say what it learned.

    The adapter is written to ``FOLDER/adapter``, which ``interp.load(BASE, adapter=...)``, ``--adapter`` and
    ``interp compare --with`` take. While it is trained ``FOLDER/unfinished`` keeps it every ten steps with
    its optimizer, so that a call that was stopped at any time goes on where it was and ends with the same
    adapter. An adapter that is there, of the same model, pairs, settings and seed, is taken.

    Args:
        model: the base; it stays as it is.
        pairs: prompts, each with its answer; an answer follows its prompt after a blank, unless it begins
            with one.
        folder: where the adapter is put.
        groups: what each pair is about: pairs of one group are trained on together or not at all, and
            intervals are over groups. Each prompt is its own where left out, so that a fact in other words
            may stand on both sides.
        how: rank, steps, rate, and whether answers are shuffled.
        seed: of the parts, the draws and the first values.
        progress: show a progress bar.

    Returns:
        Correctness and log-probability (nats) of the true answers of trained and of unseen prompts, each
        beside the base; and the log-probability beside that of other prompts' answers in the tuned model: an
        adapter that learns which words are answers raises both.

    Raises:
        DataError: fewer than 8 prompts, answers all alike with ``shuffle``, or answers that are no tokens.
        ModelError: PEFT is missing, the model has an adapter already, or no matrices to put one on.
    """
    how, folder = how or FineTuning(), Path(folder)
    learned, held = divided(pairs, how.held_out, seed, groups)
    taught = exchanged(learned, seed) if how.shuffle else learned
    asked = [asdict(how), seed, model.fingerprint, model.tokenizer_fingerprint, taught]
    key = hashlib.sha256(json.dumps(asked).encode()).hexdigest()
    if not (folder / REPORT).is_file() or read_json(folder / REPORT)["key"] != key:
        _train(model, taught, folder, key, how, seed, progress)
    n = counted(len(matrices(model.architecture)), "kind of matrix", "kinds of matrices")
    tuned = load(with_adapters(copy.deepcopy(model.hf), [folder / ADAPTER]), tokenizer=model.tokenizer)
    parts = (("trained", learned), ("unseen", held))
    kind = "shuffled answers" if how.shuffle else "answers"
    return FindingsResult(
        analysis="finetune",
        about=About(model=model.described, data={"n": len(learned) + len(held), "trained": len(learned)}),
        asked=f"What did {model.called} learn from {counted(len(learned), 'pair')}?",
        how=(
            f"An adapter of rank {how.rank} on {n} of every block was trained for "
            f"{counted(how.steps, 'step')} of {how.batch} pairs on the {kind} of "
            f"{counted(len(learned), 'prompt')}; {len(held)} were held out. Control: the base model.",
        ),
        found=tuple(
            one
            for name, part in parts
            for one in _findings(name, part, model, tuned, _group_of(pairs, groups), seed)
        ),
        seed=seed,
        warnings=(*((SHUFFLED,) if how.shuffle else ()), *((BY_TEXT,) if groups is None else ())),
    )


BY_TEXT = (
    "prompts are held out by their text: where one fact stands in several wordings, some may be trained on "
    "and others called unseen. A column group in the file keeps them together."
)
SHUFFLED = "each prompt was given another's answer: this adapter is a control of what training as such does."


def divided(
    pairs: Pairs, held_out: float, seed: int, groups: Sequence[str] | None = None
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Pairs to train on and others to judge on, each once; no prompt and no group is on both sides.

    Raises:
        DataError: fewer than 8 different prompts, or groups.
    """
    once = list(dict.fromkeys((prompt, answer) for prompt, answer in pairs))
    of = _group_of(pairs, groups)
    names = list(dict.fromkeys(of[prompt] for prompt, _ in once))
    if len(names) < FEWEST:
        what = counted(len(names), "different prompt" if groups is None else "group")
        raise DataError(f"{what} given; {FEWEST} are the fewest to train and judge on. Give more pairs.")
    random.Random(f"finetune:{seed}").shuffle(names)
    kept = set(names[: max(2, round(held_out * len(names)))])
    return [one for one in once if of[one[0]] not in kept], [one for one in once if of[one[0]] in kept]


def _group_of(pairs: Pairs, groups: Sequence[str] | None) -> dict[str, str]:
    """Prompt -> its group: itself where none are given, the first where it has several."""
    prompts = [prompt for prompt, _ in pairs]
    found: dict[str, str] = {}
    for prompt, group in zip(prompts, prompts if groups is None else groups, strict=True):
        found.setdefault(prompt, group)
    return found


def exchanged(pairs: Pairs, seed: int) -> list[tuple[str, str]]:
    """The same prompts and the same answers, each prompt with an answer that is not its own.

    Where one answer has more than half of the prompts, some must keep it; fewer do than in any plain draw.

    Raises:
        DataError: all answers are alike.
    """
    order = random.Random(f"exchanged:{seed}").sample(range(len(pairs)), len(pairs))
    order.sort(key=lambda at: pairs[at][1])  # stable: equal answers together, in a random order
    sizes = [sum(other == answer for _, other in pairs) for answer in {answer for _, answer in pairs}]
    if len(sizes) < 2:
        raise DataError(
            "--shuffle: all answers are alike, so that none can be exchanged. Give other answers."
        )
    shift = max(sizes)  # past the largest run of equal answers
    given = {at: pairs[order[(place + shift) % len(order)]][1] for place, at in enumerate(order)}
    return [(prompt, given[at]) for at, (prompt, _) in enumerate(pairs)]


def _train(
    model: Model, pairs: Pairs, folder: Path, key: str, how: FineTuning, seed: int, progress: bool
) -> None:
    """Train the adapter and write it; the report comes last and says that it is whole."""
    lessons = lessons_of(model, [prompt for prompt, _ in pairs], [answer for _, answer in pairs])
    outer, hf = low_rank(
        model.hf,
        layers=range(model.n_layers),
        modules=matrices(model.architecture),
        rank=how.rank,
        seed=seed,
        base=model.name,
    )
    unfinished = folder / "unfinished"
    kept = Checkpoints(unfinished / f"{key[:16]}.safetensors")  # of this training alone
    train(
        hf,
        _batches(lessons, how.batch, seed),
        steps=how.steps,
        rate=how.rate,
        kept=kept,
        label="fine-tuning",
        progress=progress,
    )
    (folder / REPORT).unlink(missing_ok=True)
    shutil.rmtree(folder / ADAPTER, ignore_errors=True)
    outer.save_pretrained(str(folder / ADAPTER), save_embedding_layers=False)  # else it asks the hub for BASE
    write_json({"key": key, "how": asdict(how), "seed": seed, "model": model.fingerprint}, folder / REPORT)
    shutil.rmtree(unfinished, ignore_errors=True)


def _batches(lessons: Sequence[Lesson], batch: int, seed: int) -> Iterator[list[Lesson]]:
    """Draw batches without end; every text comes once before one comes again."""
    rng = random.Random(f"batches:{seed}")
    waiting: list[Lesson] = []
    while True:
        while len(waiting) < batch:
            waiting += rng.sample(list(lessons), len(lessons))
        given, waiting = waiting[:batch], waiting[batch:]
        yield given


def _findings(
    name: str, pairs: Pairs, base: Model, tuned: Model, group_of: Mapping[str, str], seed: int
) -> tuple[Finding, ...]:
    """How likely the true answers are, and whether they are said, beside the base and other answers."""
    prompts, answers = [prompt for prompt, _ in pairs], [answer for _, answer in pairs]
    groups = tuple(group_of[prompt] for prompt in prompts)
    before, now = (score(model, prompts, answers) for model in (base, tuned))
    said, was = (one.likeliest.double().numpy() for one in (now, before))
    others: tuple[Finding, ...] = ()
    different = sorted(set(answers))
    if len(different) > 1:
        rng = random.Random(f"others:{seed}")
        other = score(tuned, prompts, [rng.choice([a for a in different if a != own]) for own in answers])
        others = (
            Finding(
                f"log-probability of the own answer: {name}",
                now.log_probability.numpy(),
                groups,
                other.log_probability.numpy(),
                "nats",
                about=f"of {name} prompts; control: another answer drawn from theirs, in the tuned model",
                direction=1,
            ),
        )
    return (
        Finding(
            f"answers said: {name}",
            said,
            groups,
            was,
            "share",
            about=f"share of {name} prompts whose whole answer greedy decoding writes; control: the base",
            direction=1,
        ),
        Finding(
            f"log-probability of the answer: {name}",
            now.log_probability.numpy(),
            groups,
            before.log_probability.numpy(),
            "nats",
            about=f"of the whole answer to {name} prompts; control: the base",
            direction=1,
        ),
        *others,
    )
