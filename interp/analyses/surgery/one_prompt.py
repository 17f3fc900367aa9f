"""One prompt whose concept is exchanged: what the model says with and without."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from interp.analyses.concepts.decoding import Named, next_tokens, one_layer
from interp.analyses.concepts.trial import concept_tokens
from interp.analyses.surgery.arms import random_like
from interp.analyses.surgery.writers import TranslatorWriter, Writer
from interp.errors import ConfigError, DataError
from interp.lenses.words import shown, words_of
from interp.models.interventions import Intervention
from interp.models.loading import ModelLike, as_model
from interp.models.model import Model
from interp.results import About, Figure, Number, Result, Table

__all__ = ["DOSES", "Edited", "Tried", "replace_concepts"]

DOSES = (0.5, 1.0, 1.5, 2.0, 3.0)
DRAWS = 20


@dataclass(frozen=True)
class Tried:
    """One dose.

    Attributes:
        dose: how far; 0 is the unchanged run.
        old: probability of the old name's first token.
        new: of the new name's.
        random: the mean probability of the new one after random changes as long.
        random_high: the largest of them.
        length: of the change, as a share of the state's.
        says: the model's likeliest next token.
    """

    dose: float
    old: float
    new: float
    random: float
    random_high: float
    length: float
    says: str


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Edited(Result):
    """What a model says to a prompt once a concept was exchanged in its state.

    Attributes:
        prompt: the text.
        layer: the block after which the state of the last token was changed.
        written_by: what wrote it.
        old: the name that was replaced.
        new: the name in its place.
        tried: every dose, the unchanged run first.
        before: the model's likeliest next tokens.
        after: the same at the dose that :attr:`chosen` gives.
    """

    schema: ClassVar[str] = "interp.edited/1"

    prompt: str
    layer: int
    written_by: str
    old: str
    new: str
    tried: tuple[Tried, ...]
    before: tuple[Named, ...]
    after: tuple[Named, ...]

    @property
    def chosen(self) -> Tried:
        """The first dose at which the new name is likelier than the old, and than after random changes.

        Where there is none, the last dose; ``reached`` says which of the two it is.
        """
        return _chosen(self.tried)

    @property
    def reached(self) -> bool:
        """Whether there is such a dose."""
        return _better(self.chosen)

    def question(self) -> str:
        """What is asked."""
        return f"What does the model say to \u201c{self.prompt}\u201d with {self.new} in place of {self.old}?"

    def verdict(self) -> str:
        """What is said without and with the change."""
        plain, one = self.tried[0], self.chosen
        failed = "No dose makes the new name likelier than the old and than random changes do. "
        return failed * (not self.reached) + (
            f"With {self.new} in place of {self.old} after layer {self.layer} (dose {one.dose:g}), "
            f"{self.about.model_name} says {one.says!r} instead of {plain.says!r}: {self.new} has "
            f"probability {one.new:.3f} (before {plain.new:.3f}; after random changes as long "
            f"{one.random:.3f}, at most {one.random_high:.3f}), {self.old} {one.old:.3f} (before "
            f"{plain.old:.3f})."
        )

    def lead(self) -> tuple[str, ...]:
        """How it was done."""
        return (
            f"The state of the last token was changed as little as possible so that {self.written_by} reads "
            "the two names exchanged; the dose says how far on in that direction.",
        )

    def numbers(self) -> tuple[Number, ...]:
        """The new name's probability, and what random changes make of it."""
        one = self.chosen
        return (
            Number("new-probability", one.new, meaning=f"of {self.new} at dose {one.dose:g}"),
            Number("old-probability", one.old, meaning=f"of {self.old}"),
            Number("random-probability", one.random, meaning=f"of {self.new} after random changes as long"),
        )

    def tables(self) -> tuple[Table, ...]:
        """Every dose; and the next tokens before and after."""
        columns = ("dose", "says", f"p({self.new})", f"p({self.old})", "random", "random_high", "length")
        rows = [
            (one.dose, one.says, one.new, one.old, one.random, one.random_high, one.length)
            for one in self.tried
        ]
        note = (
            f"random: the mean probability of {self.new} after {DRAWS} random changes as long, random_high "
            "the largest; length: of the change, as a share of the state's."
        )
        both = [
            (plain.name, plain.value, now.name, now.value)
            for plain, now in zip(self.before, self.after, strict=True)
        ]
        tokens = ("before", "probability", "after", "probability after")
        return (
            Table("doses", "How far the state is changed", columns, rows, note),
            Table("tokens", f"Next tokens, without and at dose {self.chosen.dose:g}", tokens, both),
        )

    def figures(self) -> tuple[Figure, ...]:
        """Both probabilities by dose, and what random changes do."""
        series: Mapping[str, list[float]] = {
            self.new: [one.new for one in self.tried],
            self.old: [one.old for one in self.tried],
            f"{self.new}, random changes": [one.random for one in self.tried],
        }
        rows = [
            (one.dose, name, value)
            for name, values in series.items()
            for one, value in zip(self.tried, values, strict=True)
        ]
        x, names, value = (list(column) for column in zip(*rows, strict=True))
        data = {"x": x, "series": names, "value": value, "low": value, "high": value}
        title, caption = "Which answer is likely, by dose", "One prompt, so without intervals."
        axes = {"x": "dose (1 exchanges the two names)", "y": "probability"}
        return (Figure("doses", "curve", data, title, caption, axes["x"], axes["y"], limits=(0.0, 1.0)),)


def replace_concepts(
    model: ModelLike,
    prompt: str,
    replace: Mapping[str, str],
    *,
    layer: int | str,
    writer: Writer | None = None,
    doses: Sequence[float] = DOSES,
    top: int = 5,
    seed: int = 0,
) -> Edited:
    """Exchange a concept in the state of a prompt's last token, and say what the model says then.

    Args:
        model: what is edited.
        prompt: the text.
        replace: one old name and the new one in its place.
        layer: the block after which the state is changed, in the grammar of layers.
        writer: what reads and writes at the layer; a translator where left out.
        doses: how far to go on in the direction of the change.
        top: how many next tokens to give.
        seed: of random changes and of the translator.

    Raises:
        ConfigError: not one pair of different names, or doses that are no numbers.
        DataError: a name that the model cannot say, or two that begin with the same token.
        SiteError: no such layer.
    """
    model = as_model(model)
    layer = one_layer(model, layer)
    if not doses or not all(math.isfinite(dose) for dose in doses):
        raise ConfigError(f"doses {tuple(doses)} asked; give at least one number, such as 1.0.")
    if (
        not isinstance(replace, Mapping)
        or len(replace) != 1
        or not all(old != new for old, new in replace.items())
    ):
        raise ConfigError(f"{replace} to replace; give one old name and another new one: Paris=Rome.")
    ((old, new),) = replace.items()
    aims = [ids[0] for ids in concept_tokens(model, [old, new])]
    if aims[0] == aims[1]:
        raise DataError(
            f"{old!r} and {new!r} begin with the same token of {model.name!r}, so that its next token cannot "
            "say which of them it means; give names that begin apart."
        )
    writer = TranslatorWriter.of(model, layer, [old, new], seed=seed) if writer is None else writer
    site = f"resid_post.{layer}"
    state = model.capture([prompt], [site], "last", device="cpu", dtype=torch.float32)[site]
    tried: list[Tried] = []
    logs: dict[float, Tensor] = {}
    for dose in (0.0, *doses):
        change = writer.edit(state, [(old, new)], dose) - state
        drawn = [random_like(change, seed + draw) for draw in range(DRAWS)] if dose else [change]
        found = _after(model, prompt, site, torch.cat([state + one for one in (change, *drawn)]))
        logs[dose] = found[0]
        (old_p, new_p), others = found[0, aims].exp().tolist(), found[1:, aims[1]].exp()
        said = shown(words_of(model, [int(found[0].argmax())])[0])
        length = float(change.norm() / state.norm())
        spread = float(others.mean()), float(others.max())
        tried.append(Tried(dose, old_p, new_p, *spread, length, said))
    values, places = logs[_chosen(tried).dose].exp().topk(min(top, model.vocab_size))
    words = map(shown, words_of(model, places.tolist()))
    return Edited(
        about=About(model.described, {"name": "one prompt", "n": 1}),
        seed=seed,
        prompt=prompt,
        layer=layer,
        written_by=writer.words,
        old=old,
        new=new,
        tried=tuple(tried),
        before=next_tokens(model, prompt, top),
        after=tuple(map(Named, words, values.tolist())),
    )


def _chosen(tried: Sequence[Tried]) -> Tried:
    return next(filter(_better, tried), tried[-1])


def _better(one: Tried) -> bool:
    return one.new > max(one.old, one.random_high)


@torch.no_grad()
def _after(
    model: Model, prompt: str, site: str, states: Float[Tensor, "copy d_model"]
) -> Float[Tensor, "copy vocab"]:
    """The log-probabilities of the next token, with each of these states at the last token of the prompt."""
    write = Intervention(site, states[:, None], "last")
    logits = model.run([prompt] * len(states), interventions=[write]).logits
    assert logits is not None
    return logits.double().log_softmax(dim=1).cpu()
