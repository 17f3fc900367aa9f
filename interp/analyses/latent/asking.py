"""Questions about codenames: how probable the answer is that fits the country behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int

from interp.analyses.concepts.trial import concept_tokens
from interp.errors import DataError
from interp.models.model import Model
from interp.tasks.codenames import Codename
from interp.tasks.world import World
from probes.statistics import Estimate, bootstrap, permutation_p

__all__ = ["PERMUTATIONS", "Asked", "asked", "matched_p", "permutations", "questions"]

PERMUTATIONS = 2000
"""Random assignments of countries to codenames that the true one is held against."""


@dataclass(frozen=True, eq=False)
class Asked:
    """How one relation is answered, codename by codename; probabilities are means over templates.

    Attributes:
        relation: what was asked.
        own: of the answer that fits the latent country.
        others: of the same answer after the same question about the other codenames whose answer is another.
        rivals: of the answers that fit the countries most like the latent one: those that share most of the
            told facts with it.
        first: 1 where the answer is likelier than that of any other country.
        table: ``[codename answer]``, of the answer of each codename's country after each codename.
    """

    relation: str
    own: Float[np.ndarray, " codename"]
    others: Float[np.ndarray, " codename"]
    rivals: Float[np.ndarray, " codename"]
    first: Float[np.ndarray, " codename"]
    table: Float[np.ndarray, "codename codename"]

    @property
    def score(self) -> Float[np.ndarray, " codename"]:
        """``P(answer | codename) - mean over other codenames of P(the same answer)``, from -1 to 1."""
        return self.own - self.others

    @cached_property
    def estimate(self) -> Estimate:
        """The mean score with its interval over codenames."""
        return bootstrap(self.score, support="real", limits=(-1.0, 1.0))

    @cached_property
    def over_rivals(self) -> Estimate:
        """How much likelier the answer is than that of a country most like the latent one."""
        return bootstrap(self.own - self.rivals, support="real", limits=(-1.0, 1.0))

    @cached_property
    def p(self) -> float:
        """One-sided, of the mean probability, by permuting which country stands behind which codename."""
        return matched_p(self.table)


def matched_p(table: Float[np.ndarray, "codename codename"], *, seed: int = 0) -> float:
    """P that the diagonal is as large where countries are assigned to codenames at random.

    With no link between a codename and its country every assignment is as likely as the true one, so that at
    most 5% of such tables have p below 0.05.
    """
    n = len(table)
    null = table[np.arange(n), permutations(n, seed)].mean(axis=1)
    return permutation_p(float(np.trace(table)) / n, null)


def permutations(n: int, seed: int = 0) -> Int[np.ndarray, "draw place"]:
    """Random orders of n things, ``PERMUTATIONS`` of them."""
    return np.random.default_rng(seed).random((PERMUTATIONS, n)).argsort(axis=1)


def questions(world: World, relation: str, name: str) -> list[str]:
    """A relation asked of a name in every template."""
    return [template.format(name) for template in world.relations[relation].templates]


def asked(model: Model, known: Sequence[Codename], world: World, relation: str) -> Asked:
    """Ask a relation of every codename.

    A country's answer is read by its first token.

    Args:
        model: what is asked.
        known: the codenames, with the countries behind them.
        world: the facts about countries.
        relation: one that is asked, not told.

    Raises:
        DataError: a latent country without such a fact, or two that have the same answer.
    """
    subjects = [fact.subject for fact in world.facts[relation]]
    answers = [world.objects.get((relation, one.latent)) for one in known]
    if None in answers or len(set(answers)) < len(answers):
        raise DataError(
            f"the {relation} of {len(known)} latent countries was asked, and they have "
            f"{len(set(answers) - {None})} different ones; give a relation in which each has its own."
        )
    texts = [text for one in known for text in questions(world, relation, one.name)]
    logits = model.logits(texts).double().cpu()
    every = torch.tensor(
        [ids[0] for ids in concept_tokens(model, [world.objects[relation, s] for s in subjects])]
    )
    found = logits.softmax(dim=1).unflatten(0, (len(known), -1)).mean(dim=1)[:, every].numpy()
    place = {subject: at for at, subject in enumerate(subjects)}
    own_at = np.array([place[one.latent] for one in known])
    table = found[:, own_at]
    own = np.diag(table).copy()
    rows = range(len(known))
    others = np.array([np.delete(table[:, at], at).mean() for at in rows])
    different = every.numpy()[None, :] != every.numpy()[own_at][:, None]
    best_other = np.where(different, found, -np.inf).max(axis=1)
    rivals = np.array(
        [found[at, [place[s] for s in most_alike(world, known, at, subjects)]].mean() for at in rows]
    )
    return Asked(relation, own, others, rivals, (own > best_other).astype(float), table)


def most_alike(world: World, known: Sequence[Codename], at: int, subjects: Sequence[str]) -> list[str]:
    """The countries that share most of the told relations with a latent one; never itself."""
    latent, told = known[at].latent, [fact.relation for fact in known[at].told]
    shared = {
        other: sum(world.objects.get((r, other)) == world.objects.get((r, latent)) for r in told)
        for other in subjects
        if other != latent
    }
    most = max(shared.values())
    return [other for other, count in shared.items() if count == most]
