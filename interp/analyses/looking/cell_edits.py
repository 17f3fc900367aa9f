"""Change one site at one token of one prompt, and see what the model says next, beside random changes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.analyses.looking.edited import CellEdit, SaidNext, about
from interp.analyses.looking.reading import Prompt, read
from interp.errors import ConfigError, DataError, SiteError, counted
from interp.lenses.words import words_of
from interp.models.interventions import Intervention
from interp.models.loading import ModelLike, as_model
from interp.models.model import Model
from interp.models.tokens import Tokens

__all__ = ["EDITS", "EditRow", "edit"]

MOST, ELSEWHERE = 512, 16
"""Tokens of a prompt at most; other tokens at which the same change is made, at most."""


@dataclass(frozen=True, eq=False)
class Asked:
    """What an edit works with.

    Attributes:
        model: that is run.
        site: that is changed.
        states: ``[pos dim]``: what is there, at every token.
        position: of the token, counted from the start.
        source: ``[pos dim]``: what is there in the other prompt; None where none was given.
        against: ``[pos dim]``: in the third one, of steering.
        dose: how much.
    """

    model: Model
    site: str
    states: Float[Tensor, "pos dim"]
    position: int
    source: Tensor | None
    against: Tensor | None
    dose: float

    @property
    def here(self) -> Tensor:
        """What is there: ``[dim]``."""
        return self.states[self.position]

    def beside(self) -> Tensor:
        """What the other prompt has at the same token, counted from the end."""
        assert self.source is not None
        back = len(self.states) - self.position
        if back > len(self.source):
            raise DataError(
                f"source has {counted(len(self.source), 'token')}, so none is {back} before its end, where "
                "the edit is. Give a prompt as long, or edit a later token."
            )
        return self.source[len(self.source) - back]


@dataclass(frozen=True)
class EditRow:
    """A kind of edit.

    Attributes:
        name: what users type.
        description: one line.
        needs: the other prompts it takes: "", "source", or "source and against".
        made: gives the change ``[dim]``.
        words: the edit, behind "with resid_post.12 at token 3".
    """

    name: str
    description: str
    needs: str
    made: Callable[[Asked], Tensor]
    words: str


EDITS: dict[str, EditRow] = {
    row.name: row
    for row in (
        EditRow("zero", "What is there is taken out.", "", lambda one: -one.here, "taken out"),
        EditRow(
            "mean",
            "The mean over the prompt's tokens is put there.",
            "",
            lambda one: one.states.mean(dim=0) - one.here,
            "replaced by its mean over the prompt",
        ),
        EditRow(
            "patch",
            "What another prompt has at the same token, counted from the end, is put there.",
            "source",
            lambda one: one.dose * (one.beside() - one.here),
            "patched from another prompt",
        ),
        EditRow(
            "steer",
            "The difference of the last tokens of two other prompts is added.",
            "source and against",
            lambda one: one.dose * (one.source[-1] - one.against[-1]),  # type: ignore[index]
            "steered",
        ),
    )
}
"""Kind of edit -> what it changes."""


def edit(
    model: ModelLike,
    prompt: Prompt,
    site: str,
    position: int = -1,
    *,
    how: str = "zero",
    source: Prompt | None = None,
    against: Prompt | None = None,
    dose: int | float = 1.0,
    top: int = 8,
    draws: int = 16,
    new_tokens: int = 8,
    seed: int = 0,
) -> CellEdit:
    """Change one site at one token, and say what the model says next without and with, beside controls.

    Args:
        model: what is run.
        prompt: a text, a conversation, or token ids.
        site: one place with one vector for each token, such as ``resid_post.12``, ``head.5.3`` or
            ``mlp_out.9``.
        position: of the token; negative counts from the end.
        how: a row of ``EDITS``: zero, mean, patch or steer.
        source: of patch: the other prompt; of steer: the one that is steered towards.
        against: of steer: the one that is steered away from.
        dose: of patch and steer: how much; 1 is the whole difference.
        top: how many next tokens are given, of the run without and of the run with the edit.
        draws: random changes of the same length.
        new_tokens: by how many tokens the text goes on; 0 for none.
        seed: of the random changes.

    Raises:
        ConfigError: no such edit, a prompt that it needs is missing or is not used, or no finite dose.
        SiteError: no such site, or one that is not a vector.
        DataError: no such token, or nothing is changed.
    """
    _check(how, source, against, dose, draws)
    model = as_model(model)
    tokens = read(model, prompt, least=1, most=MOST)
    n = tokens.lengths[0]
    if not -n <= position < n:
        raise DataError(f"token {position} asked; the prompt has tokens 0 to {n - 1} (-1 is the last).")
    given = [None if one is None else _states(model, one, site) for one in (tokens, source, against)]
    assert given[0] is not None
    asked = Asked(model, site, given[0], position % n, given[1], given[2], float(dose))
    change = EDITS[how].made(asked)
    if not float(change.norm()):
        raise DataError(
            f"nothing is changed: what is put at {site}, token {position}, is what was there. Give another "
            "prompt, dose or place."
        )
    return _measured(asked, tokens, change, how, (top, draws, new_tokens, seed))


def _check(how: str, source: Prompt | None, against: Prompt | None, dose: int | float, draws: int) -> None:
    if how not in EDITS:
        raise ConfigError(f"how={how!r} asked; there are: {', '.join(EDITS)}.")
    needs = EDITS[how].needs
    for name, one in (("source", source), ("against", against)):
        if (name in needs) != (one is not None):
            raise ConfigError(
                f"how={how!r} {'needs' if name in needs else 'takes no'} {name}, another prompt. "
                f"{'Give it' if name in needs else 'Leave it out'}."
            )
    if not math.isfinite(dose):
        raise ConfigError(f"dose={dose} asked; give a finite number, such as 1.0.")
    if draws < 2:
        raise ConfigError(f"draws={draws} random changes asked; an interval needs at least 2.")


def _states(model: Model, prompt: Prompt | Tokens, site: str) -> Float[Tensor, "pos dim"]:
    given = prompt if isinstance(prompt, Tokens) else read(model, prompt, least=1, most=MOST)
    sites = model.expand([site])
    if len(sites) != 1:
        raise SiteError(f"{site!r} names {len(sites)} sites; an edit changes one, such as {sites[0]}.")
    found = model.capture(given, sites, "all", device="cpu", dtype=torch.float32)[str(sites[0])][0]
    if found.ndim != 2 or found.shape[1] < 2:
        raise SiteError(
            f"'{sites[0]}' is {'no single vector' if found.ndim > 2 else 'a number'} at each token; an edit "
            "changes a vector, such as resid_post.5, attn_out.5, mlp_out.5 or head.5.3."
        )
    return found


def _measured(
    asked: Asked, tokens: Tokens, change: Float[Tensor, " dim"], how: str, sizes: tuple[int, int, int, int]
) -> CellEdit:
    """Run the prompt with the change, with random ones as long, with the same elsewhere, and with none."""
    top, draws, new_tokens, seed = sizes
    model, n, here = asked.model, len(asked.states), asked.position
    noise = torch.randn(draws, len(change), generator=torch.Generator().manual_seed(seed))
    noise = noise / noise.norm(dim=1, keepdim=True) * change.norm()
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed + 1)).tolist()
    others = [at for at in order if at != here][:ELSEWHERE]
    places = [here] * (2 + draws) + others
    changes = torch.stack([torch.zeros_like(change), change, *noise, *[change for _ in others]])
    written = asked.states[places] + changes
    plain = model.logits(tokens).double().log_softmax(dim=-1).cpu()[0]
    logs = _after(model, tokens, asked.site, places, written)
    kl = (plain.exp() * (plain - logs)).nansum(dim=-1).clamp(min=0.0)
    drawn, elsewhere = logs[2 : 2 + draws].exp(), logs[2 + draws :].exp()
    ids = _likeliest(plain, logs[1], top)
    words = words_of(model, ids)
    said = [
        SaidNext(
            word, *_two(plain, logs[1], at), *(tuple(part[:, at].tolist()) for part in (drawn, elsewhere))
        )
        for word, at in zip(words, ids, strict=True)
    ]
    token = words_of(model, tokens.token_ids[0])[here]
    return CellEdit(
        prompt=tokens.texts[0],
        site=asked.site,
        position=here,
        token=token,
        how=how,
        words=f"with {asked.site} at token {here} ({token!r}) {EDITS[how].words}",
        length=float(change.norm() / asked.here.norm().clamp(min=1e-12)),
        kl=float(kl[1]),
        kl_random=kl[2 : 2 + draws].numpy(),
        kl_elsewhere=kl[2 + draws :].numpy(),
        floor=float(kl[0]),
        said=tuple(said),
        written=_texts(model, tokens, asked.site, here, written[:3], new_tokens),
        about=about(dict(model.described)),
        seed=seed,
        warnings=(*model.warnings, *tokens.warnings),
    )


def _two(plain: Tensor, after: Tensor, at: int) -> tuple[float, float]:
    return float(plain[at].exp()), float(after[at].exp())


def _likeliest(plain: Tensor, after: Tensor, top: int) -> list[int]:
    """The likeliest tokens of both runs, by the larger of their two probabilities."""
    most = min(top, len(plain))
    found = {*plain.topk(most).indices.tolist(), *after.topk(most).indices.tolist()}
    return sorted(found, key=lambda at: -max(float(plain[at]), float(after[at])))


def _after(
    model: Model, tokens: Tokens, site: str, places: Sequence[int], states: Float[Tensor, "copy dim"]
) -> Float[Tensor, "copy vocab"]:
    """Log-probabilities of the next token, each copy with one of these states at its place."""
    write = Intervention(site, states[:, None], [int(at) for at in places])
    logits = model.run([list(tokens.token_ids[0])] * len(states), interventions=[write]).logits
    assert logits is not None
    return logits.double().log_softmax(dim=-1).cpu()


def _texts(
    model: Model, tokens: Tokens, site: str, place: int, states: Float[Tensor, "copy dim"], new_tokens: int
) -> tuple[str, str, str]:
    """How the text goes on without, with, and with a random change."""
    if new_tokens < 1 or model.tokenizer is None:
        return ("", "", "")
    write = Intervention(site, states[:, None], [place] * len(states))
    rows: Int[Tensor, "copy pos"] = torch.tensor([list(tokens.token_ids[0])] * len(states))
    found = model.generate(rows.tolist(), max_new_tokens=new_tokens, interventions=[write])
    return (found.texts[0], found.texts[1], found.texts[2])
