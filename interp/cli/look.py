"""``interp look`` and ``interp edit``: a prompt's tokens and attention, and what a change of a place does."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

from interp.cli.frame import Made, Work, command
from interp.cli.options import COUNT, RunSettings, SchemeSettings, flag
from interp.errors import ConfigError

__all__ = ["edit", "look"]


@dataclass(frozen=True, kw_only=True)
class OnePromptSettings(RunSettings, SchemeSettings):
    """One prompt, read by a model."""

    prompt: str = flag("", "The prompt.", given="position", private=True)
    chat: bool = flag(False, "PROMPT is a user's message, written by the chat template.")
    draws: int = flag(
        16,
        "Random draws of the control.",
        metavar="N",
        allowed="a whole number from 2",
        check=lambda n: n > 1,
    )
    text: bool = flag(
        True, "Keep the prompt's text in the run, or nothing of it.", "--text/--no-text", group="Run"
    )

    def check(self) -> None:
        """Refuse a call without a prompt, and what one prompt has no use for."""
        super().check()
        if not self.prompt.strip():
            raise ConfigError('no prompt; give one, such as "the capital of France is".')
        if self.limit is not None:
            raise ConfigError("--limit counts prompts, and this is one. Leave it out.")

    def asked(self, text: str) -> Any:
        """A text as it is read: plain, or as a user's message."""
        return [{"role": "user", "content": text}] if self.chat else text


@dataclass(frozen=True, kw_only=True)
class LookSettings(OnePromptSettings):
    """See how surprising each token of a prompt is, or what the heads of a layer attend to.

    The control is the same words in other orders.
    """

    view: Literal["surprise", "attention", "effect", "probe"] = flag(
        "surprise",
        "surprise, attention, effect (what each token does to the next word) or probe (what --probe reads).",
        metavar="WHICH",
    )
    answer: str = flag(
        "",
        "Of effect: the word.",
        metavar="WORD",
        shown="the likeliest next one",
        private=True,
    )
    probe: str | None = flag(None, "Of probe: the folder of a saved probe.", metavar="FOLDER")
    label: str = flag("", "Of probe: its label.", metavar="LABEL", shown="what it says at the last token")
    compared: int = flag(24, "Of surprise: tokens with the control, counted from the end.", **COUNT)
    layers: str = flag(
        "50%",
        "Of attention: layers, counted from 0.",
        "--layers",
        "--layer",
        metavar="LAYERS",
        allowed="20, 8,12, 8-24:4, -1, 50% or all",
        many=True,
    )

    def check(self) -> None:
        """Refuse the view of a probe without one, and a probe that would not be read."""
        super().check()
        if (self.view == "probe") != (self.probe is not None):
            raise ConfigError("--view probe and --probe FOLDER go together; give both or none.")

    def about(self) -> str:
        """What is looked at."""
        return self.view


def _edits() -> Collection[str]:
    from interp.analyses.looking import EDITS

    return EDITS


@dataclass(frozen=True, kw_only=True)
class EditSettings(OnePromptSettings):
    """Change one site at one token of a prompt, and see what the model says next with and without.

    Beside it: random changes of the same length, the same change at other tokens, and rounding.
    """

    site: str = flag("", "What is changed: resid_post.20, attn_out.3, head.5.3 ...", metavar="SITE")
    token: int = flag(-1, "At which token, counted from 0; -1 is the last.", metavar="N")
    how: str = flag("zero", "zero, mean, patch or steer.", metavar="HOW", allowed=_edits)
    source: str | None = flag(
        None,
        "Of patch: the other prompt; of steer: the one that is steered towards.",
        metavar="TEXT",
        private=True,
    )
    against: str | None = flag(
        None, "Of steer: the one that is steered away from.", metavar="TEXT", private=True
    )
    dose: float = flag(1.0, "Of patch and steer: how much of the difference.", metavar="X")
    new_tokens: int = flag(8, "By how many tokens the text goes on.", **COUNT)

    def check(self) -> None:
        """Refuse a call without a site."""
        super().check()
        if not self.site.strip():
            raise ConfigError("no --site; give one, such as --site resid_post.20 (`interp ls sites`).")

    def about(self) -> str:
        """The edit and the site."""
        return f"{self.how}-{self.site}"


@command(
    LookSettings,
    examples=(
        'interp look "the capital of France is"',
        'interp look --view attention --layer 14 "the capital of France is"',
        'interp look --model smollm2 --chat "Who wrote Hamlet?"',
    ),
)
def look(work: Work, settings: LookSettings) -> Made:
    """Read one prompt."""
    from interp.analyses import looking

    model, prompt, seed = work.certified(), settings.asked(settings.prompt), settings.seed
    asked: dict[str, Any] = {"draws": settings.draws, "seed": seed}
    if settings.view == "effect":
        return Made(looking.token_effects(model, prompt, answer=settings.answer, **asked))
    if settings.probe is not None:
        asked |= {"label": settings.label, "compared": settings.compared}
        return Made(looking.token_scores(model, prompt, settings.probe, **asked))
    if settings.view == "surprise":
        return Made(looking.surprise(model, prompt, compared=settings.compared, **asked))
    return Made(looking.attention(model, prompt, layers=settings.layers, draws=settings.draws, seed=seed))


@command(
    EditSettings,
    examples=(
        'interp edit --site resid_post.20 "the capital of France is"',
        'interp edit --site resid_post.2 --token 4 --how patch --source "the capital of Italy is" '
        '"the capital of France is"',
        'interp edit --model smollm2 --site resid_post.12 --how steer --source "I love it" '
        '--against "I hate it" --dose 4 "The film was"',
    ),
)
def edit(work: Work, settings: EditSettings) -> Made:
    """Change one place of one prompt."""
    from interp.analyses import looking

    source, against = (
        None if one is None else settings.asked(one) for one in (settings.source, settings.against)
    )
    result = looking.edit(
        work.certified(),
        settings.asked(settings.prompt),
        settings.site,
        settings.token,
        how=settings.how,
        source=source,
        against=against,
        dose=settings.dose,
        draws=settings.draws,
        new_tokens=settings.new_tokens,
        seed=settings.seed,
    )
    return Made(result)
