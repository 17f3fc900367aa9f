"""Fine-tune a small adapter on pairs of a prompt and an answer, or on the same pairs shuffled."""

from __future__ import annotations

import copy
import hashlib
import json
import random
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from interp.errors import ConfigError, DataError, counted
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
    "read_training_relations",
    "refuse_unlike",
]

Pairs = Sequence[tuple[str, str]]
ADAPTER, REPORT, FEWEST = "adapter", "finetuned.json", 8
"""Names of what is written, and the fewest pairs."""
APART = 1.25
"""Times as many tokens of answers as a twin learned that are still alike."""


@dataclass(frozen=True)
class FineTuning:
    """How an adapter is trained.

    Attributes:
        rank: of the change of each matrix of each block (LoRA, Hu et al. 2021, arXiv 2106.09685).
        steps: of training.
        batch: pairs of a step, drawn anew each time all were seen.
        rate: the largest learning rate (AdamW); it rises over ten steps and falls over the last half.
        held_out: the share of the prompts that nothing is trained on.
        shuffle: give each prompt the answer of another one of its relation: what training as such does, with
            nothing to learn but which answers each relation has.
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
    return _column(Path(path), "group")


def read_training_relations(path: str | Path) -> list[str] | None:
    """Read what kind of answer each prompt asks for, from a column ``relation``; None where there is none.

    Raises:
        DataError: no such file, or an empty cell; the message names the line.
    """
    return _column(Path(path), "relation")


def _column(path: Path, name: str) -> list[str] | None:
    rows = rows_of(path, ("prompt", "answer"))
    if all(row.get(name) in (None, "") for _, row in rows):
        return None
    return [cell(path, line, row, name) for line, row in rows]


def finetune(
    model: Model,
    pairs: Pairs,
    folder: str | Path,
    *,
    groups: Sequence[str] | None = None,
    relations: Sequence[str] | None = None,
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
        relations: what kind of answer each pair has: shuffled answers stay within one.
        how: rank, steps, rate, and whether answers are shuffled.
        seed: of the parts, the draws and the first values.
        progress: show a progress bar.

    Returns:
        Correctness and log-probability (nats) of the true answers of trained and of unseen prompts, each
        beside the base; and the log-probability beside that of other prompts' answers in the tuned model: an
        adapter that learns which words are answers raises both.

    Raises:
        DataError: fewer than 8 prompts, other numbers of groups or relations, answers all alike with
            ``shuffle``, or answers that are no tokens.
        ModelError: PEFT is missing, the model has an adapter already, or no matrices to put one on.
    """
    how, folder = how or FineTuning(), Path(folder)
    for name, each in (("groups", groups), ("relations", relations)):
        if each is not None and len(each) != len(pairs):
            raise DataError(f"{len(each)} {name} given for {counted(len(pairs), 'pair')}; give one each.")
    learned, held = divided(pairs, how.held_out, seed, groups)
    kinds = None if relations is None else dict(zip((prompt for prompt, _ in pairs), relations, strict=True))
    taught = exchanged(learned, seed, kinds) if how.shuffle else learned
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
        warnings=(
            *((SHUFFLED,) if how.shuffle else ()),
            *((TOGETHER,) if how.shuffle and "" in _parts(learned, kinds) else ()),
            *((BY_TEXT,) if groups is None else ()),
        ),
    )


BY_TEXT = (
    "prompts are held out by their text: where one fact stands in several wordings, some may be trained on "
    "and others called unseen. A column group in the file keeps them together."
)
SHUFFLED = "each prompt was given another's answer: this adapter is a control of what training as such does."
TOGETHER = (
    "answers were exchanged over all prompts, of whatever kind: a column relation in the file keeps them "
    "among answers to the same."
)


def refuse_unlike(adapter: str | Path, twins: Sequence[str | Path]) -> tuple[str, ...]:
    """Refuse twins that were not trained as long, and say of which nobody knows.

    Args:
        adapter: the folder of an adapter that ``finetune`` wrote, or of something else.
        twins: those that it is held to.

    Returns:
        What a reader should know: whose training has no card, and answers of another length.

    Raises:
        ConfigError: other steps, pairs of a step, rank or rate; it says which.
    """
    own, said = _card(adapter), []
    for place in twins:
        card = _card(place)
        if own is None or card is None:
            which = adapter if own is None else place
            said.append(f"it is not known how long {str(which)!r} was trained, so the twin may be none")
            continue
        for name in ("steps", "batch", "rank", "rate"):
            ours, theirs = own["how"].get(name), card["how"].get(name)
            if ours != theirs:
                raise ConfigError(
                    f"{str(adapter)!r} was trained with {name} {ours}, its twin {str(place)!r} with "
                    f"{theirs}: what that one changed is not what training as such does here. Train the "
                    "twin as long (the same --steps, --lora and --rate), or compare each alone."
                )
        ours, theirs = own.get("tokens", 0), card.get("tokens", 0)
        if not 1 / APART <= (ours + 1) / (theirs + 1) <= APART:
            said.append(
                f"{str(adapter)!r} learned {ours:,} tokens of answers, its twin {str(place)!r} {theirs:,}"
            )
    return tuple(said)


def _card(place: str | Path) -> dict[str, Any] | None:
    """What is known of the training of the adapter in a folder, or in the folder above."""
    for folder in (Path(place), Path(place).resolve().parent):
        if (folder / REPORT).is_file():
            return read_json(folder / REPORT)
    return None


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


def exchanged(pairs: Pairs, seed: int, relations: Mapping[str, str] | None = None) -> list[tuple[str, str]]:
    """The same prompts and the same answers, each prompt with an answer that is not its own.

    Answers stay within a relation, so that what they are answers to is learned and which is whose is not.
    Where a relation has one answer alone nothing can be exchanged inside it, and all are exchanged together.
    Where one answer has more than half of the prompts, some must keep it; fewer do than in any plain draw.

    Args:
        pairs: prompts with their answers.
        seed: of the order.
        relations: prompt -> what kind of answer it has; all are of one where left out.

    Raises:
        DataError: all answers are alike.
    """
    parts = _parts(pairs, relations)
    rng, given = random.Random(f"exchanged:{seed}"), dict[int, str]()
    for part in parts.values():
        order = rng.sample(part, len(part))
        turns = {answer: at for at, answer in enumerate(dict.fromkeys(pairs[at][1] for at in order))}
        order.sort(key=lambda at: turns[pairs[at][1]])  # equal answers together, in a random order
        answers = [pairs[at][1] for at in order]
        if answers[0] == answers[-1]:
            raise DataError(
                "--shuffle: all answers are alike, so that none can be exchanged. Give other answers, or "
                "take another seed as the twin (--seed 1)."
            )
        shift = max(Counter(answers).values())  # past the largest run of equal answers
        given |= {at: answers[(place + shift) % len(order)] for place, at in enumerate(order)}
    return [(prompt, given[at]) for at, (prompt, _) in enumerate(pairs)]


def _parts(pairs: Pairs, relations: Mapping[str, str] | None) -> dict[str, list[int]]:
    """The rows of each relation; all together where they are not known, or one has nothing to exchange."""
    parts: dict[str, list[int]] = {}
    for at, (prompt, _) in enumerate(pairs):
        parts.setdefault("" if relations is None else relations[prompt], []).append(at)
    apart = all(len({pairs[at][1] for at in part}) > 1 for part in parts.values())
    return parts if apart else {"": list(range(len(pairs)))}


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
    drawn = _batches(lessons, how.batch, seed)
    tokens = sum(len(one.places) for _ in range(how.steps) for one in next(drawn))
    card = {"key": key, "how": asdict(how), "seed": seed, "model": model.fingerprint, "tokens": tokens}
    write_json(card, folder / REPORT)
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
