"""The table of replacements: what a mediator's value becomes, and where the value comes from.

Some take an amount, written after a colon: ``noise:3``, ``steering:2``, ``interpolate:0.5``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool
from torch import Tensor

from interp.errors import ConfigError, counted
from interp.mediation.partial_forward import Rule, interchange
from interp.mediation.subspaces import Subspace

__all__ = ["REPLACEMENTS", "Material", "Replacement", "replacement_of"]


@dataclass(frozen=True, eq=False)
class Material:
    """What a replacement may make its values of, at one site.

    Attributes:
        other: ``[example pos ...]``, the values on the pairs' other prompts.
        current: likewise, on the prompts that are patched; equal to ``other`` unless ``reads_current``.
        inside: ``[example pos]``, False beyond a prompt's end.
        groups: of the examples.
        seed: of every draw; the same for every site, so that mediators are compared under the same draws.
        amount: the number behind the colon; 0 where there is none.
        subspace: the subspace that is replaced, where all mediators of the site share one.
        sign: 1 where the other prompts are the clean ones, -1 where they are the corrupt ones.
    """

    other: Tensor
    current: Tensor
    inside: Bool[Tensor, "example pos"]
    groups: Sequence[str]
    seed: int
    amount: float = 0.0
    subspace: Subspace | None = None
    sign: float = 1.0

    @property
    def weights(self) -> Tensor:
        """``inside`` as numbers that broadcast over the values."""
        mask = self.inside.to(self.other)
        return mask.view(*mask.shape, *[1] * (self.other.ndim - 2))

    @property
    def generator(self) -> torch.Generator:
        """A fresh generator on the CPU, the same each time."""
        return torch.Generator().manual_seed(self.seed)


Source = Callable[[Material], Tensor]
"""From what was read to the values ``[example pos ...]`` that the rule is given."""


def _same(found: Material) -> Tensor:
    return found.other


def _zero(found: Material) -> Tensor:
    return torch.zeros_like(found.other)


def _mean(found: Material) -> Tensor:
    """Average over the examples of other groups, position by position."""
    weights = found.weights
    sums, counts = _without_own(found, found.other * weights), _without_own(found, weights)
    lonely = (counts == 0) & (weights > 0)
    if bool(lonely.any()):
        at = int(lonely.flatten(2).any(dim=2).any(dim=0).nonzero()[0])
        raise ConfigError(
            f"replacement 'mean': token {at} stands in the prompts of one group alone, so no other group has "
            "a mean there. Give prompts of one length, or use pooled-mean."
        )
    return sums / counts.clamp_min(1)


def _pooled_mean(found: Material) -> Tensor:
    """Average over the examples of other groups and all their positions."""
    weights = found.weights
    sums = _without_own(found, (found.other * weights).sum(dim=1, keepdim=True))
    counts = _without_own(found, weights.sum(dim=1, keepdim=True))
    return (sums / counts.clamp_min(1)).expand_as(found.other)


def _without_own(found: Material, values: Tensor) -> Tensor:
    """Add up over the examples of all groups but each example's own: ``[example ...]``."""
    known = {group: at for at, group in enumerate(dict.fromkeys(found.groups))}
    if len(known) < 2:
        raise ConfigError(
            "a mean is taken over the prompts of other groups, and all pairs are of the group "
            f"{next(iter(known))!r}. Give pairs of several groups, or use interchange or zero."
        )
    codes = torch.tensor([known[group] for group in found.groups], device=values.device)
    own = torch.zeros(len(known), *values.shape[1:], dtype=values.dtype, device=values.device)
    own.index_add_(0, codes, values)
    return values.sum(dim=0, keepdim=True) - own[codes]


def _resample(found: Material) -> Tensor:
    """Another example's value, of one of the same length where there is one; see :func:`partners`."""
    lengths = found.inside.sum(dim=1).tolist()
    rows = partners(lengths, found.generator)
    values = found.other[torch.tensor(rows, device=found.other.device)]
    for at, (own, partner) in enumerate(zip(lengths, (lengths[row] for row in rows), strict=True)):
        if partner != own:  # a longer prompt: its last tokens stand for these
            values[at, :own] = found.other[rows[at], partner - own : partner]
    return values


def partners(lengths: Sequence[int], generator: torch.Generator) -> list[int]:
    """Which example each example takes its values from: a random cycle among those of its length.

    An example that shares its length with no other takes those of a longer one, aligned at the last token: a
    shorter one has no value for some of its tokens.

    Raises:
        ConfigError: the longest prompt has no other of its length.
    """
    order = torch.randperm(len(lengths), generator=generator).tolist()
    found = dict.fromkeys(range(len(lengths)), 0)
    for length in set(lengths):
        same = [at for at in order if lengths[at] == length]
        if len(same) == 1:
            later = order.index(same[0]) + 1
            same += [at for at in (*order[later:], *order[:later]) if lengths[at] > length][:1]
            if len(same) == 1:
                raise ConfigError(
                    f"replacement 'resample': one prompt alone has {counted(length, 'token')}, the most of "
                    "all, so no "
                    "other has a value for each of them. Give prompts of one length, or use interchange."
                )
            found[same[0]] = same[1]
        else:
            found |= dict(zip(same, [*same[1:], same[0]], strict=True))
    return [found[at] for at in range(len(lengths))]


def _noise(found: Material) -> Tensor:
    """Draw what is added: ``amount`` times the site's standard deviation, over examples, positions, features.

    One Gaussian draw per example, position and feature, the same at every site of that shape.
    """
    inside = found.current[found.inside.to(found.current.device)]
    drawn = torch.randn(found.current.shape, generator=found.generator, dtype=torch.float32)
    return drawn.to(found.current) * (found.amount * inside.float().std(correction=0)).to(found.current)


def _steering(found: Material) -> Tensor:
    """What is added: a direction of unit length, times ``amount``, times the mean norm at the site.

    Along the first direction of the subspace, otherwise along the mean of the other prompts less the mean of
    the patched ones at each position; zero where they are equal.
    """
    current = found.current
    size = current[found.inside.to(current.device)].float().norm(dim=-1).mean()
    if found.subspace is not None:
        direction = found.sign * found.subspace.basis[0].to(current)
        return (found.amount * size * direction).to(current).expand_as(current)
    weights = found.weights
    counts = weights.sum(dim=0, keepdim=True).clamp_min(1)
    shift = ((found.other - current) * weights).sum(dim=0, keepdim=True) / counts
    length = shift.norm(dim=-1, keepdim=True)
    unit = torch.where(length > 1e-6 * size, shift / length.clamp_min(1e-30), torch.zeros_like(shift))
    return (found.amount * size * unit).to(current).expand_as(current)


def _added(current: Tensor, source: Tensor) -> Tensor:
    """Add what was drawn."""
    return current + source


@dataclass(frozen=True)
class Towards:
    """Go a part of the way from the current values to the source's.

    Attributes:
        share: 0 stays, 1 arrives.
    """

    share: float

    def __call__(self, current: Tensor, source: Tensor) -> Tensor:
        """Apply the rule."""
        return current + self.share * (source - current)


@dataclass(frozen=True)
class Replacement:
    """A rule for the value that is put in place of a mediator's own.

    Attributes:
        name: what users type (``--replacement``), with the amount where it takes one.
        description: one line.
        source: gives the values that the rule is given.
        rule: what becomes of the current value.
        paired: whether the value comes from the pair's other prompt alone, so that nothing changes where both
            prompts have been equal so far.
        off_distribution: whether the model never sees such values: a warning.
        amount: the number behind the colon, or its default; None where it takes none.
        ruled: gives the rule of an amount; None where the rule does not depend on it.
        reads_current: whether the source also needs the values on the patched prompts.
        directed: whether the source depends on the subspace that is replaced.
        noised: tokens of the clean prompt, "subject" or "other", whose noise makes the corrupt run; "" where
            that is the pair's other prompt.
        fitted: whether the value is a constant fitted to each mediator; ``amount`` is then steps.
    """

    name: str
    description: str
    source: Source
    rule: Rule = interchange
    paired: bool = False
    off_distribution: bool = False
    amount: float | None = None
    ruled: Callable[[float], Rule] | None = None
    reads_current: bool = False
    directed: bool = False
    noised: str = ""
    fitted: bool = False

    @property
    def kind(self) -> str:
        """The name without the amount: a key of ``REPLACEMENTS``."""
        return self.name.partition(":")[0]

    def cautions(self, lengths: Sequence[int]) -> tuple[str, ...]:
        """What a reader should know of it, for prompts of these lengths."""
        found: list[str] = []
        alone = sum(n == 1 for n in Counter(lengths).values())
        if self.source is _resample and alone:
            found.append(
                f"replacement resample: {alone} of {counted(len(lengths), 'prompt')} share their length "
                "with no other; "
                "they take the values of a longer prompt, aligned at the last token"
            )
        if self.off_distribution:
            found.append(
                f"replacement {self.name} ({self.description}): values that the model never has; "
                "read with care"
            )
        return tuple(found)


_ROWS = (
    Replacement("interchange", "the value of the pair's other prompt", _same, paired=True),
    Replacement("zero", "zero", _zero, off_distribution=True),
    Replacement(
        "mean", "the mean at each position over the other prompts of all other groups (never its own)", _mean
    ),
    Replacement(
        "pooled-mean",
        "the mean over all positions of the other prompts of all other groups (never its own)",
        _pooled_mean,
    ),
    Replacement("resample", "the value of another example's other prompt, of the same length", _resample),
    Replacement(
        "noise",
        "noise:3 adds Gaussian noise of 3 times the standard deviation of each site's own values (over "
        "examples, positions and features), the same draw for every mediator",
        _noise,
        rule=_added,
        off_distribution=True,
        amount=3.0,
        reads_current=True,
    ),
    Replacement(
        "steering",
        "steering:2 adds a direction, twice as long as the site's values are on average: the subspace's "
        "first one (taken away by noising), otherwise from the mean of the patched prompts to the others'",
        _steering,
        rule=_added,
        off_distribution=True,
        amount=1.0,
        reads_current=True,
        directed=True,
    ),
    Replacement(
        "projection",
        "the coordinates in a subspace set to zero, the rest kept; zero for a whole site",
        _zero,
        off_distribution=True,
    ),
    Replacement(
        "interpolate",
        "interpolate:0.5 goes half of the way to the value of the pair's other prompt",
        _same,
        rule=Towards(0.5),
        paired=True,
        amount=0.5,
        ruled=Towards,
    ),
    Replacement(
        "optimal",
        "optimal:30 puts in the constant with which the next token changes least (KL), fitted to each "
        "mediator by 30 steps on pairs of other groups",
        _same,
        amount=30.0,
        fitted=True,
    ),
    Replacement(
        "subject-noise",
        "causal tracing: subject-noise:3 takes the clean prompt itself as the corrupt run, with noise of 3 "
        "times the standard deviation of the embeddings on the tokens that differ between the two prompts",
        _same,
        paired=True,
        amount=3.0,
        noised="subject",
    ),
    Replacement(
        "other-noise",
        "the control of subject-noise: the same noise on as many random other tokens, or as prompts have",
        _same,
        amount=3.0,
        noised="other",
    ),
)

REPLACEMENTS: dict[str, Replacement] = {row.name: row for row in _ROWS}


def replacement_of(name: str) -> Replacement:
    """Read a replacement as users type it: ``mean``, ``noise`` (with its default amount) or ``noise:3``.

    Raises:
        ConfigError: no row of the table, an amount where there is none, or one that is no number.
    """
    kind, colon, text = name.partition(":")
    if kind not in REPLACEMENTS:
        raise ConfigError(f"replacement {name!r} asked; there are: {', '.join(REPLACEMENTS)}.")
    row = REPLACEMENTS[kind]
    if row.amount is None:
        if colon:
            taking = ", ".join(r.name for r in _ROWS if r.amount is not None)
            raise ConfigError(f"replacement {name!r} asked; {kind} takes no number (these do: {taking}).")
        return row
    amount = _amount(name, row, text) if colon else row.amount
    rule = row.rule if row.ruled is None else row.ruled(amount)
    short = f"{amount:g}"
    written = short if float(short) == amount else repr(amount)
    return replace(row, name=f"{kind}:{written}", amount=amount, rule=rule)


def _amount(name: str, row: Replacement, text: str) -> float:
    try:
        amount = float(text)
    except ValueError:
        amount = math.nan
    if not math.isfinite(amount):
        raise ConfigError(
            f"replacement {name!r} asked; write a number behind the colon, such as {row.kind}:{row.amount:g}."
        )
    if row.fitted and not (amount >= 0 and amount == int(amount)):
        raise ConfigError(
            f"replacement {name!r} asked; {row.kind} needs a whole number of steps from 0 (the mean) on, "
            f"such as {row.kind}:30."
        )
    if row.kind.endswith("noise") and amount <= 0:
        raise ConfigError(
            f"replacement {name!r} asked; {row.kind} needs a number above 0, such as {row.kind}:3."
        )
    return amount
