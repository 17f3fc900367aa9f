"""Counterfactual examples: can a model edit a sentence so that its own answer changes?"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float

from interp.analyses.own_explanations.sentences import Asked, Sentences, asked, written
from interp.analyses.provenance import about, earlier
from interp.errors import ConfigError, counted
from interp.models.loading import ModelLike, as_model
from interp.models.model import Model
from interp.results.findings import Finding
from interp.results.measured import FindingsResult
from interp.results.shapes import Table
from probes.statistics import paired_difference

__all__ = ["counterfactuals", "random_edits", "word_distance"]

DRAWS, NEW, AT_ONCE = 2, 32, 16
"""Random edits of each sentence, tokens of an edit at most, and texts that are judged at once."""


def word_distance(one: str, two: str) -> int:
    """Words that must be put in, left out or exchanged to make one text of another (Levenshtein)."""
    first, second = one.split(), two.split()
    row = list(range(len(second) + 1))
    for at, word in enumerate(first, 1):
        before, row[0] = row[0], at
        for to, other in enumerate(second, 1):
            before, row[to] = row[to], min(row[to] + 1, row[to - 1] + 1, before + (word != other))
    return row[-1]


def random_edits(text: str, size: int, pool: Sequence[str], rng: random.Random) -> str:
    """A text with so many words exchanged for others, and more put behind it where it has too few.

    Args:
        text: the sentence.
        size: how many words change.
        pool: words that are put in.
        rng: which places, and which words.
    """
    words = text.split()
    for at in rng.sample(range(len(words)), min(size, len(words))):
        words[at] = rng.choice([word for word in pool if word != words[at]])
    return " ".join([*words, *rng.choices(pool, k=max(0, size - len(words)))])


@dataclass(frozen=True, eq=False)
class _Edits:
    """One kind of edited sentences, several of each sentence.

    Attributes:
        flips: share of a sentence's edits after which the model gives the other answer.
        kept: share of the words that a flip leaves, 0 for an edit without a flip.
        surprise: nats a token of the edit, less those of the sentence, under the reference model.
        distance: words changed, of the sentence's words.
    """

    flips: Float[np.ndarray, " item"]
    kept: Float[np.ndarray, " item"]
    surprise: Float[np.ndarray, " item"]
    distance: Float[np.ndarray, " item"]


def counterfactuals(
    model: ModelLike,
    *,
    reference: FindingsResult | None = None,
    n: int = 40,
    seed: int = 0,
    data: Sentences = None,
) -> FindingsResult:
    """Ask a chat model for the smallest edits after which its own answer is the other one, and score them.

    The model says which of two labels a sentence has (log-odds over both orders of asking), and is then asked
    to change as few words as possible so that the sentence gets the other label. *Validity*: its own answer
    to what it wrote is the other one. *Minimality*: words left as they were, of edits that flip; an edit that
    changes nothing keeps all words and counts nothing. *Fluency*: nats a token under the reference model,
    less those of the sentence. Each stands beside random exchanges of as many words, and validity beside a
    paraphrase that the model writes when it is not asked for a flip. The idea is that of arXiv 2505.13963
    (first version) and 2601.00282, whose protocols were not readable here: prompts, sentences and scores are
    this project's own.

    Args:
        model: a chat model.
        reference: the same analysis of another model, which then judges fluency.
        n: how many sentences at most, both labels in equal parts.
        seed: of the draws of sentences and random edits.
        data: your own sentences with two labels, or a table of text, label[, cue]; the 40 bundled ones where
            left out.

    Raises:
        ConfigError: fewer than two sentences, or a reference that read others.
        DataError: the model has no template for conversations, or there are not two labels.
    """
    model = as_model(model)
    given = asked(model, data, n=n, seed=seed)
    judge = model
    if reference is not None:
        if earlier(reference, "counterfactuals", "asked") != (given.sentences, given.tokens):
            raise ConfigError(
                "counterfactuals: the reference read other sentences. Use the same data, n and seed for both."
            )
        judge = reference.state["judge"]
    odds = given.odds(model, given.texts)
    edits = written(model, [_flip(given, one, at) for one, at in zip(given.texts, odds, strict=True)],
                    max_new_tokens=NEW)  # fmt: skip
    other = written(model, [_paraphrase(one) for one in given.texts], max_new_tokens=NEW)
    before = surprise(judge, given.texts)
    own, same = (
        _scored(
            model,
            judge,
            given,
            odds,
            before,
            [[text or old] for text, old in zip(texts, given.texts, strict=True)],
        )
        for texts in (edits, other)
    )  # fmt: skip
    sizes = [word_distance(old, new or old) for old, new in zip(given.texts, edits, strict=True)]
    drawn = _scored(model, judge, given, odds, before, _drawn(given, sizes, seed))
    right = np.array([given.named(at)[0] == one.label for at, one in zip(odds, given.sentences, strict=True)])
    return FindingsResult(
        analysis="counterfactuals",
        about=about(model, {"n": len(given.sentences)}),
        asked=f"Can {model.name} edit a sentence so that its own answer changes?",
        how=(
            f"{counted(len(right), 'sentence')}; the model's own answers are right for {right.mean():.0%} of "
            f"them. Its edits stand beside {DRAWS} random edits of as many words, and beside a paraphrase. "
            f"Fluency is judged by {judge.name} (scheme: {judge.scheme}).",
        ),
        conclusion=_conclusion(own, drawn, same, given.groups),
        found=_findings(own, drawn, same, right, given.groups),
        more=_tables(given, odds, edits, own, drawn, same),
        state={"asked": (given.sentences, given.tokens), "judge": model},
        seed=seed,
        warnings=model.warnings,
    )


def _flip(given: Asked, text: str, odds: float) -> list[dict[str, str]]:
    content = (
        f"Change as few words as possible so that this sentence becomes {given.named(odds)[1]}:\n"
        f'"{text}"\nWrite the new sentence only.'
    )
    return [{"role": "user", "content": content}]


def _paraphrase(text: str) -> list[dict[str, str]]:
    content = f'Say this in other words, with the same meaning:\n"{text}"\nWrite the new sentence only.'
    return [{"role": "user", "content": content}]


def _drawn(given: Asked, sizes: Sequence[int], seed: int) -> list[list[str]]:
    rng = random.Random(f"random edits:{seed}")
    words = [text.split() for text in given.texts]
    pools = [sorted({word for at, row in enumerate(words) if at != own for word in row})
             for own in range(len(words))]  # fmt: skip
    return [
        [random_edits(text, size, pool, rng) for _ in range(DRAWS)]
        for text, size, pool in zip(given.texts, sizes, pools, strict=True)
    ]


def surprise(judge: Model, texts: Sequence[str]) -> Float[np.ndarray, " text"]:
    """The mean nats of each text's tokens but the first, under a model."""
    found: list[float] = []
    for start in range(0, len(texts), AT_ONCE):
        part = list(texts[start : start + AT_ONCE])
        run = judge.run(part, logits="all")
        assert run.logits is not None
        for row, logits in zip(judge.tokenize(part).token_ids, run.logits, strict=True):
            log_p = logits[: len(row) - 1].cpu().double().log_softmax(-1)
            said = log_p.gather(1, torch.tensor(row[1:], dtype=torch.long)[:, None])
            found.append(-float(said.mean()) if len(row) > 1 else 0.0)
    return np.array(found)


def _scored(
    model: Model,
    judge: Model,
    given: Asked,
    odds: Float[np.ndarray, " item"],
    before: Float[np.ndarray, " item"],
    edits: Sequence[Sequence[str]],
) -> _Edits:
    """Score some edits of each sentence."""
    flat, each = [text for row in edits for text in row], len(edits[0])
    unlike = (given.odds(model, flat).reshape(-1, each) > 0) != (odds[:, None] > 0)
    far = np.array(
        [
            [word_distance(old, new) / len(old.split()) for new in row]
            for old, row in zip(given.texts, edits, strict=True)
        ]
    )
    nats = surprise(judge, flat).reshape(-1, each) - before[:, None]
    kept = unlike * (1 - far).clip(0)
    return _Edits(*(values.mean(axis=1) for values in (unlike.astype(float), kept, nats, far)))


def _findings(
    own: _Edits, drawn: _Edits, same: _Edits, right: np.ndarray, groups: tuple[str, ...]
) -> tuple[Finding, ...]:
    rows = (
        ("validity: edits that flip the own answer", own.flips, drawn.flips, "share", 1,
         "control: random exchanges of as many words"),
        ("validity, beside a paraphrase", own.flips, same.flips, "share", 1,
         "control: a paraphrase by the same model, asked for no flip"),
        ("minimality: words kept by flips", own.kept, drawn.kept, "share", 1,
         "0 where nothing flips; control: random exchanges of as many words"),
        ("fluency: nats a token, less the sentence's", own.surprise, drawn.surprise, "nats", -1,
         "under the reference model; control: random exchanges of as many words"),
        ("the own answer is the label", right.astype(float), 0.5, "share", 1,
         "what a sentence is said to be, unedited; control: chance"),
    )  # fmt: skip
    return tuple(
        Finding(name, values, groups, control, unit, about=text, direction=direction)
        for name, values, control, unit, direction, text in rows
    )


def _conclusion(own: _Edits, drawn: _Edits, same: _Edits, groups: tuple[str, ...]) -> str:
    parts = []
    for name, control in (("random edits of as many words", drawn), ("a paraphrase", same)):
        found = paired_difference(own.flips, control.flips, groups=groups)
        more = "is" if found.interval.low > 0 else "is not shown to be"
        parts.append(f"that {more} more than with {name} ({found} more)")
    first, second = parts
    return (
        f"{own.flips.mean():.0%} of the edits flip the own answer, changing {own.distance.mean():.0%} of the "
        f"words; {first}, and {second}."
    )


def _tables(
    given: Asked, odds: np.ndarray, edits: Sequence[str], own: _Edits, drawn: _Edits, same: _Edits
) -> tuple[Table, ...]:
    rows = [
        {
            "edit": name,
            "flips": float(one.flips.mean()),
            "words_changed": float(one.distance.mean()),
            "words_kept_by_flips": float(one.kept.mean()),
            "nats_more": float(one.surprise.mean()),
        }
        for name, one in (("asked for a flip", own), ("random, as many words", drawn), ("paraphrase", same))
    ]
    texts = [
        {
            "sentence": one.text,
            "label": one.label,
            "own_answer": given.named(at)[0],
            "edit": new,
            "flips": bool(flips),
        }
        for one, at, new, flips in zip(given.sentences, odds, edits, own.flips, strict=True)
    ]
    return (
        Table.of("edits", "Edits and their controls", rows),
        replace(Table.of("texts", "What was written", texts), folded=True),
    )
