"""One prompt with a vector and without: what the model writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from interp.analyses.steering.run import WRITTEN
from interp.models.loading import ModelLike, as_model
from interp.models.positions import Positions
from interp.results import About, Number, Result, Table
from interp.steering.fitting import Prompt, text_of_prompt
from interp.steering.vector import Vector, checked_dose

__all__ = ["Steered", "Written", "side_by_side"]


@dataclass(frozen=True)
class Written:
    """A continuation.

    Attributes:
        what: what was added.
        dose: how much of it.
        text: the continuation.
    """

    what: str
    dose: float
    text: str


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Steered(Result):
    """What a model writes after a prompt, without a vector and with it.

    Attributes:
        prompt: the text, or the last message.
        vector: the vector's name.
        dose_words: what dose 1 is.
        evaluated: what the vector's card says of its evaluation; "" where there was none.
        written: without, at the dose, at the opposite dose, and with a random direction as long.
    """

    schema: ClassVar[str] = "interp.steered/1"

    prompt: str
    vector: str
    dose_words: str
    evaluated: str
    written: tuple[Written, ...]

    def question(self) -> str:
        """What is asked."""
        return f"What does {self.about.model_name} write after \u201c{self.prompt}\u201d with {self.vector}?"

    def verdict(self) -> str:
        """Whether the text changes, and what the evaluation said."""
        plain, ours = self.written[0], self.written[1]
        same = "the same text" if plain.text == ours.text else "another text"
        told = self.evaluated or "The vector was not evaluated, so nothing says what it does elsewhere."
        return f"At dose {ours.dose:g} the model writes {same}. {told}"

    def lead(self) -> tuple[str, ...]:
        """What a dose is."""
        words = self.dose_words
        return (f"{words[:1].upper()}{words[1:]}. The likeliest token is taken at every step.",)

    def cautions(self) -> tuple[str, ...]:
        """What one prompt shows."""
        return ("One text shows what can happen, not what a vector does: that is its evaluation.",)

    def numbers(self) -> tuple[Number, ...]:
        """The dose."""
        return (Number("dose", self.written[1].dose, meaning="in units of the vector", decimals=2),)

    def tables(self) -> tuple[Table, ...]:
        """The texts."""
        rows = [(one.what, one.dose, one.text) for one in self.written]
        title = "Without and with"
        columns = ("added", "dose", "text")
        return (Table("texts", title, columns, rows, private=("text",), formats={"dose": "g"}),)


def side_by_side(
    model: ModelLike,
    vector: Vector,
    prompt: Prompt,
    *,
    dose: int | float = 1.0,
    max_new_tokens: int = WRITTEN,
    positions: Positions = "all",
    seed: int = 0,
) -> Steered:
    """Continue a prompt without a vector, with it, with its opposite, and with a random direction as long.

    Args:
        model: what writes.
        vector: what is added.
        prompt: a text or a conversation.
        dose: in units of the vector.
        max_new_tokens: of each text.
        positions: where the vector is added.
        seed: of the random direction.

    Raises:
        ConfigError: the dose is no finite number.
        ModelError: the vector does not fit the model.
    """
    model = as_model(model)
    amount, warnings = checked_dose(dose), vector.check(model)
    added: Sequence[tuple[str, float, Vector | None]] = (
        ("nothing", 0.0, None),
        (vector.name, amount, vector),
        (vector.name, -amount, vector),
        ("a random direction", amount, vector.random(seed)),
    )
    written = []
    for what, much, one in added:
        change = () if one is None else one.interventions(much, positions=positions)
        found = model.generate([prompt], max_new_tokens=max_new_tokens, interventions=change)
        written.append(Written(what, much, found.texts[0]))
    known: Mapping[str, Any] = vector.origin.evaluated
    return Steered(
        about=About(model.described, {"name": "one prompt", "n": 1}),
        seed=seed,
        prompt=text_of_prompt(prompt),
        vector=vector.name,
        dose_words=vector.dose_words(),
        evaluated=str(known.get("verdict", "")),
        written=tuple(written),
        warnings=warnings,
    )
