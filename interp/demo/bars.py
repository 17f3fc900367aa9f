"""What the bundled model is expected to know, and how it is measured.

Every bar is measured on prompts from held-out combinations (see ``interp.tasks.splits``), over all templates
and template by template: the table says whether the bar is met over all, in how many templates it is met, and
how the worst template does. A bar that is missed is printed as missed, with its number.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from interp.tasks import two_hop
from interp.tasks.prompts import Example
from interp.tasks.table import TASKS
from interp.tasks.world import World, load_world
from probes.statistics import clopper_pearson

__all__ = ["BARS", "Bar", "Row", "evaluate", "format_rows", "last_logits", "score"]


@dataclass(frozen=True)
class Bar:
    """Name what is measured, how, and the value it must reach (None: reported as it is)."""

    name: str
    task: str
    metric: str
    minimum: float | None
    draw: Callable[[World, random.Random], Example]


def _held_out(task: str) -> Callable[[World, random.Random], Example]:
    return lambda world, rng: TASKS[task].generate(world, rng, "held-out")


_COMPOSED = partial(two_hop.generate, split="held-out", trained=False)

BARS: tuple[Bar, ...] = (
    Bar("one-hop recall", "one-hop", "accuracy", 0.98, _held_out("one-hop")),
    Bar("analogy", "analogy", "accuracy", 0.90, _held_out("analogy")),
    Bar("key-value", "key-value", "accuracy", 0.95, _held_out("key-value")),
    Bar("indirect object", "indirect-object", "accuracy", 0.98, _held_out("indirect-object")),
    Bar("agreement", "agreement", "preference", 0.98, _held_out("agreement")),
    Bar("greater-than", "greater-than", "probability difference", 0.9, _held_out("greater-than")),
    Bar("two-hop, trained compositions", "two-hop", "accuracy", 0.95, _held_out("two-hop")),
    Bar("two-hop, new compositions", "two-hop", "accuracy", None, _COMPOSED),
    Bar("addition", "addition", "accuracy", None, _held_out("addition")),
    Bar("patterns", "pattern", "accuracy", None, _held_out("pattern")),
)


@dataclass(frozen=True)
class Row:
    """One measured number.

    Attributes:
        bar: the bar's name.
        template: the template it was measured in, or "all".
        metric: accuracy, preference (share of prompts in which the right answers together are more probable
            than the wrong ones) or probability difference (right minus wrong, mean).
        value: in 0 to 1.
        low: lower end of the 95% interval (Clopper-Pearson; for the probability difference 1.96 standard
            errors).
        high: upper end.
        n: prompts.
        minimum: the bar, or None.
    """

    bar: str
    template: str
    metric: str
    value: float
    low: float
    high: float
    n: int
    minimum: float | None

    @property
    def passed(self) -> bool:
        """Whether the bar is met (a row without a bar passes)."""
        return self.minimum is None or self.value >= self.minimum


@torch.no_grad()
def last_logits(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], rows: int = 256
) -> Float[Tensor, "example vocab"]:
    """Run prompts of one length together and give the logits after the last token, in fp32."""
    ids = tokenizer(list(prompts))["input_ids"]
    by_length: dict[int, list[int]] = defaultdict(list)
    for index, row in enumerate(ids):
        by_length[len(row)].append(index)
    result = torch.empty(len(ids), int(model.config.vocab_size))
    for members in by_length.values():
        for start in range(0, len(members), rows):
            chosen = members[start : start + rows]
            batch = torch.tensor([ids[index] for index in chosen])
            result[chosen] = model(input_ids=batch, use_cache=False, logits_to_keep=1).logits[:, -1].float()
    return result


def score(
    logits: Float[Tensor, "example vocab"],
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    metric: str,
) -> Float[Tensor, " example"]:
    """Score each prompt.

    1 or 0 for accuracy and preference, a number in -1 to 1 for the probability difference.
    """
    if metric == "accuracy":
        answers = torch.tensor([tokenizer.convert_tokens_to_ids(example.answer) for example in examples])
        return (logits.argmax(-1) == answers).float()
    probabilities = logits.softmax(-1)
    result = []
    for row, example in zip(probabilities, examples, strict=True):
        right, wrong = (
            row[tokenizer.convert_tokens_to_ids(list(words))].sum()
            for words in (example.answers, example.wrong)
        )
        result.append(right - wrong)
    difference = torch.stack(result)
    return difference if metric == "probability difference" else (difference > 0).float()


def _row(bar: Bar, template: str, values: Float[Tensor, " example"]) -> Row:
    n, mean = len(values), float(values.mean())
    if bar.metric == "probability difference":
        half = 1.96 * float(values.std()) / n**0.5 if n > 1 else 1.0
        low, high = mean - half, mean + half
    else:
        interval = clopper_pearson(int(values.sum()), n)
        low, high = interval.low, interval.high
    return Row(bar.name, template, bar.metric, mean, low, high, n, bar.minimum)


def _distinct(bar: Bar, world: World, rng: random.Random, n: int) -> list[Example]:
    """Draw prompts until there are ``n`` different ones.

    Or until nearly every possible one has been drawn.
    """
    found: dict[str, Example] = {}
    for _ in range(10 * n):
        example = bar.draw(world, rng)
        found.setdefault(example.prompt, example)
        if len(found) == n:
            break
    return list(found.values())


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    n: int = 1000,
    seed: int = 0,
    world: World | None = None,
) -> list[Row]:
    """Measure every bar.

    Args:
        model: a causal language model with the bundled vocabulary.
        tokenizer: the bundled tokenizer.
        n: different prompts for each bar, spread over its templates; fewer where fewer exist.
        seed: which prompts are drawn.
        world: what counts as true; the bundled facts when left out.

    Returns:
        For each bar one row over all templates, then one for each template.
    """
    world, rows = world or load_world(), []
    for bar in BARS:
        rng = random.Random(f"{seed}-{bar.name}")
        examples = _distinct(bar, world, rng, n)
        values = score(
            last_logits(model, tokenizer, [e.prompt for e in examples]), examples, tokenizer, bar.metric
        )
        templates = [example.template for example in examples]
        rows.append(_row(bar, "all", values))
        for template in sorted(set(templates)):
            chosen = torch.tensor([t == template for t in templates])
            rows.append(_row(bar, template, values[chosen]))
    return rows


def _line(row: Row, parts: Sequence[Row]) -> str:
    """Write one bar: over all templates, and its worst one."""
    worst = min(parts, key=lambda part: part.value)
    missed = sum(not part.passed for part in parts)
    spread = f"MISSED in {missed} of {len(parts)} templates" if missed else f"in all {len(parts)} templates"
    counted = f"{'met overall' if row.passed else 'MISSED overall'}, {spread}"
    verdict = "" if row.minimum is None else counted
    bar = "-" if row.minimum is None else f"{row.minimum:.2f}"
    value = f"{row.value:7.3f}  [{row.low:.3f}, {row.high:.3f}]  {row.n:>6}"
    lowest = f"{worst.template} {worst.value:.3f} (n={worst.n})"
    return f"{row.bar:30}{row.metric:24}{value}  {bar:>5}  {verdict:44}{lowest}".rstrip()


def format_rows(rows: Sequence[Row], *, templates: bool = False) -> str:
    """Write the table: each bar over all its templates, its worst template, and the verdict."""
    head = f"{'held-out prompts':30}{'metric':24}{'all':>7}  {'95% interval':16}{'n':>6}"
    lines = [f"{head}  {'bar':>5}  {'verdict':44}worst template"]
    for row in (row for row in rows if row.template == "all"):
        parts = [part for part in rows if part.bar == row.bar and part.template != "all"]
        lines.append(_line(row, parts))
        if templates:
            lines += [
                f"  {p.template:52}{p.value:7.3f}  [{p.low:.3f}, {p.high:.3f}]  {p.n:>6}" for p in parts
            ]
    return "\n".join(lines)
