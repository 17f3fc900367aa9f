"""Differential sensitivity: is an edit used, noticed but not used, or not noticed?"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float

from interp.analyses.layer_profiles import Layers, depths
from interp.analyses.provenance import about, check_same_tokens, earlier
from interp.analyses.representation_similarity import row_cosine
from interp.analyses.small_edits.edits import SHARES, Edited, Readable, deletions, edited_prompts, readable
from interp.errors import counted
from interp.models.loading import ModelLike, as_model
from interp.models.model import Model
from interp.results.findings import Finding
from interp.results.measured import FindingsResult
from interp.results.shapes import Table
from probes.statistics import Estimate, paired_difference
from probes.statistics.estimates import share_of

__all__ = ["Change", "Told", "conclusion", "sensitivity"]

MOST_LAYERS = 7
AT_ONCE = 256
LEVEL = 0.05
ENOUGH = 10
"""Pivotal edits that must leave the answer as it was before it is asked whether they were noticed."""


@dataclass(frozen=True, eq=False)
class Change:
    """What one kind of edit changes in each prompt.

    Attributes:
        owner: ``[edit]`` the prompt of each edit.
        kept: ``[edit]`` whether the answer is the one before the edit.
        far: ``[layer edit]``, 1 - cos of the states before and after.
        text: ``[edit]``, 1 - cos of the counts of tokens before and after: how much of the text changes.
    """

    owner: np.ndarray
    kept: Bool[np.ndarray, " edit"]
    far: Float[np.ndarray, "layer edit"]
    text: Float[np.ndarray, " edit"]

    def share_kept(self, n: int) -> Float[np.ndarray, " item"]:
        """The share of each prompt's edits that keep the answer."""
        counts = np.bincount(self.owner, minlength=n)
        return np.bincount(self.owner, weights=self.kept.astype(float), minlength=n) / counts


@dataclass(frozen=True, eq=False)
class Told:
    """The area under the ROC curve of telling pivotal from benign edits, for any weights of the prompts.

    Attributes:
        wins: ``[item item]``, how often the pivotal edits of one prompt are further from it than the benign
            edits of another are from theirs; ties count half.
        pivotal: ``[item]`` which prompts have a pivotal edit that counts.
        benign: ``[item]`` which have a benign one.
    """

    wins: Float[np.ndarray, "item item"]
    pivotal: Bool[np.ndarray, " item"]
    benign: Bool[np.ndarray, " item"]

    @classmethod
    def of(
        cls,
        pivotal: tuple[np.ndarray, np.ndarray],
        benign: tuple[np.ndarray, np.ndarray],
        n: int,
    ) -> Told:
        """Compare every two edits, and average over those of one prompt.

        Args:
            pivotal: owner and distance of each edit.
            benign: likewise.
            n: how many prompts.
        """
        won = (pivotal[1][:, None] > benign[1]) + 0.5 * (pivotal[1][:, None] == benign[1])
        rows, columns = (np.eye(n)[one[0]] for one in (pivotal, benign))
        counts = np.outer(rows.sum(axis=0), columns.sum(axis=0))
        wins = np.divide(rows.T @ won @ columns, counts, out=np.zeros((n, n)), where=counts > 0)
        return cls(wins, rows.sum(axis=0) > 0, columns.sum(axis=0) > 0)

    def __call__(self, weights: Float[np.ndarray, " item"]) -> float:
        """The area; 0.5 where there is nothing to tell apart."""
        first, second = weights * self.pivotal, weights * self.benign
        total = first.sum() * second.sum()
        return float(first @ self.wins @ second / total) if total else 0.5

    def estimate(self, groups: Sequence[str], level: float) -> Estimate:
        """The area with its interval over groups."""
        n = len(self.wins)
        return share_of(
            np.arange(n),
            lambda rows: self(np.bincount(rows, minlength=n).astype(float)),
            groups=groups,
            rare=self.pivotal,
            level=level,
        )


@dataclass(frozen=True, eq=False)
class _Layer:
    """How well the states of one layer tell the edits apart, and how well the text alone does."""

    at: int
    every: Told
    ignored: Told
    text: Told
    text_ignored: Told
    groups: tuple[str, ...]
    level: float

    @property
    def floors(self) -> tuple[float, float]:
        """What the areas have to beat: chance, or the text alone where that tells more."""
        ones = np.ones(len(self.groups))
        return max(0.5, self.text(ones)), max(0.5, self.text_ignored(ones))

    def findings(self) -> tuple[Finding, Finding]:
        """The two areas."""
        ones = np.ones(len(self.groups))
        words = (
            "area under the ROC curve of telling pivotal from benign edits by 1 - cos of the states at the "
            "last token before and after"
        )
        control = "control: chance, or the same from the counts of tokens where these tell more"
        kinds = (
            ("edits told apart", self.every, self.floors[0], words),
            (
                "edits told apart, answer unchanged",
                self.ignored,
                self.floors[1],
                f"{words}, of edits that leave the answer as it was",
            ),
        )
        first, second = (
            Finding(
                f"{name} at layer {self.at}",
                ones,
                self.groups,
                floor,
                "AUROC",
                statistic=told,
                curve=name,
                layer=self.at,
                about=f"{text}; {control}",
                direction=1,
            )
            for name, told, floor, text in kinds
        )
        return first, second

    def row(self) -> dict[str, float | int | None]:
        """One row of the table: an area of edits that leave the answer only where there are enough."""
        found: dict[str, float | int | None] = {"layer": self.at}
        enough = self.ignored.pivotal.sum() >= ENOUGH
        for name, told, floor in zip(
            ("all", "ignored"), (self.every, self.ignored), self.floors, strict=True
        ):
            seen = told.estimate(self.groups, self.level) if name == "all" or enough else None
            found |= {
                f"{name}": None if seen is None else seen.value,
                f"{name}_low": None if seen is None else seen.interval.low,
                f"{name}_high": None if seen is None else seen.interval.high,
                f"{name}_control": floor,
            }
        return found


def sensitivity(
    model: ModelLike,
    *,
    reference: FindingsResult | None = None,
    n: int = 120,
    seed: int = 0,
    layers: Layers | None = None,
    items: Sequence[Edited] | None = None,
) -> FindingsResult:
    """Measure whether edits that change the right answer change a model's answer more than edits that do not.

    The answer is the more probable of a prompt's two: what is right before the pivotal edit, and what is
    right after it (all words of each together, by their first tokens). ``DS = same(benign) - same(pivotal)``,
    the shares of edits that leave it as it was, lies between -1 and 1; it is 0 for a model that does not read
    what was edited and for one that answers by lot. The definition follows the idea of arXiv 2507.15868;
    which edits are made, and the two-way answer, are this project's own.

    Inside, at each of several layers: does 1 - cos of the state at the last token, before and after, tell
    pivotal from benign edits? It has to beat chance and the counts of tokens, which say how much of the text
    changes. Asked of the edits that leave the answer as it was, it separates *noticed but not used* from *not
    noticed*. Intervals are over groups; those over layers are widened by Bonferroni's rule.

    Further findings: how often the pivotal edit's own answer is taken, and the answers that stay when a
    growing share of the words is deleted, the last word never, beside those that a pivotal edit leaves: who
    does not read the prompt keeps all of both.

    Args:
        model: what is measured.
        reference: what this function returned for the reference model: it must have read the same tokens.
        n: how many prompts, at most.
        seed: of the prompts, the typos and the deletions.
        layers: which blocks' ``resid_post``; seven evenly spaced ones where left out.
        items: your own prompts with their edits, instead of the bundled tasks.

    Raises:
        ConfigError: fewer than two prompts asked, or a reference of another analysis.
        SiteError: a layer the model does not have.
        DataError: too few prompts that this tokenizer reads, or a reference that read others.
    """
    model = as_model(model)
    at = depths(model, layers, MOST_LAYERS)
    given = readable(model, edited_prompts(model, n, seed) if items is None else items)
    rng = random.Random(f"deletions:{seed}")
    steps = [deletions(one.clean, SHARES, rng) for one in given.items]
    ids = model.tokenize([one.clean for one in given.items]).token_ids
    if reference is not None:
        check_same_tokens(ids, earlier(reference, "sensitivity", "token_ids"), "sensitivity")
    groups = tuple(one.group or f"prompt {i}" for i, one in enumerate(given.items))
    clean, pivotal, benign = _changes(model, given, at)
    deleted = _kept(model, [list(row) for row in zip(*steps, strict=True)], given, clean)
    rows = _layers(at, pivotal, benign, groups)
    lengths = [len(one.clean.split()) for one in given.items]
    left = np.array([[len(text.split()) for text in texts] for texts in steps])
    gone = (1 - left / np.array(lengths)[:, None]).mean(axis=0).tolist()
    found = (*_answers(given, clean, pivotal, benign, groups), *_deleted(deleted, gone, pivotal, groups))
    table = [row.row() for row in rows]
    words = conclusion(pivotal, benign, groups, table)
    return FindingsResult(
        analysis="sensitivity",
        about=about(model, {"n": len(given.items), "layers": list(at), "dropped": given.dropped}),
        asked=f"Does {model.name} tell edits that change the right answer from edits that do not?",
        how=(
            f"{counted(len(given.items), 'prompt')} were read as they are, after one edit that changes the "
            f"right answer, after {counted(len(benign.owner), 'benign edit')}, and with "
            f"{SHARES[0]:.0%} to {SHARES[-1]:.0%} of the words deleted.",
        ),
        conclusion=words,
        found=(*found, *(one.findings()[0] for one in rows), *(one.findings()[1] for one in rows)),
        more=(
            _tasks(given, clean, pivotal, benign),
            Table.of("noticed", "Do the states tell the edits apart?", table),
        ),
        state={"token_ids": ids},
        seed=seed,
        warnings=(*model.warnings, *_left_out(given)),
    )


def _left_out(given: Readable) -> tuple[str, ...]:
    """What a reader should know of prompts that this tokenizer cannot score."""
    if not given.dropped:
        return ()
    return (
        f"{counted(given.dropped, 'prompt')} left out: their answers and foils begin with the same tokens. "
        f"Left: {', '.join(sorted({one.task for one in given.items}))}.",
    )


def _changes(
    model: Model, given: Readable, at: tuple[int, ...]
) -> tuple[Bool[np.ndarray, " item"], Change, Change]:
    """The answers of the clean prompts, and what both kinds of edit change."""
    items, everyone = given.items, list(range(len(given.items)))
    owners = [i for i, one in enumerate(items) for _ in one.benign]
    texts = ([one.clean for one in items], [one.pivotal for one in items])
    edited = [text for one in items for text in one.benign]
    clean, states = _read(model, texts[0], given, everyone, at)
    counts = _counts(model, texts[0])
    found: list[Change] = []
    for rows, owner in ((texts[1], everyone), (edited, owners)):
        says, after = _read(model, rows, given, owner, at)
        far = np.stack([1 - row_cosine(states[layer][owner], after[layer]) for layer in range(len(at))])
        text = np.array([1 - _cosine(counts[i], c) for i, c in zip(owner, _counts(model, rows), strict=True)])
        found.append(Change(np.array(owner), says == clean[owner], far, text))
    return clean, found[0], found[1]


def _read(
    model: Model, texts: Sequence[str], given: Readable, owner: Sequence[int], at: tuple[int, ...]
) -> tuple[Bool[np.ndarray, " text"], Float[np.ndarray, "layer text dim"]]:
    """Whether each text is answered with its prompt's answers rather than its foils, and its states."""
    says: list[bool] = []
    states: list[np.ndarray] = []
    sites = [f"resid_post.{layer}" for layer in at]
    for start in range(0, len(texts), AT_ONCE):
        part = list(texts[start : start + AT_ONCE])
        run = model.run(part, capture=sites or None, device="cpu", dtype=torch.float32)
        assert run.logits is not None
        logits = run.logits.float().cpu()
        for row, i in zip(logits, owner[start : start + AT_ONCE], strict=True):
            own, other = (torch.logsumexp(row[list(ids)], 0) for ids in (given.answers[i], given.foils[i]))
            says.append(bool(own > other))
        if run.activations is not None:
            states.append(np.stack([run.activations[site].double().numpy() for site in sites]))
    return np.array(says), np.concatenate(states, axis=1) if states else np.zeros((0, len(texts), 0))


def _counts(model: Model, texts: Sequence[str]) -> list[dict[int, int]]:
    rows = model.tokenize(list(texts)).token_ids
    return [{token: row.count(token) for token in set(row)} for row in rows]


def _cosine(first: dict[int, int], second: dict[int, int]) -> float:
    together = sum(count * second.get(token, 0) for token, count in first.items())
    lengths = [sum(count**2 for count in one.values()) for one in (first, second)]
    return together / float(np.sqrt(lengths[0] * lengths[1]))


def _kept(
    model: Model, steps: list[list[str]], given: Readable, clean: Bool[np.ndarray, " item"]
) -> Bool[np.ndarray, "step item"]:
    everyone = list(range(len(clean)))
    return np.stack([_read(model, texts, given, everyone, ())[0] == clean for texts in steps])


def _layers(at: tuple[int, ...], pivotal: Change, benign: Change, groups: tuple[str, ...]) -> list[_Layer]:
    n, level = len(groups), 1 - LEVEL / len(at)
    texts = [_told(pivotal, benign, pivotal.text, benign.text, n, kept=kept) for kept in (False, True)]
    return [
        _Layer(
            layer,
            *(_told(pivotal, benign, pivotal.far[i], benign.far[i], n, kept=kept) for kept in (False, True)),
            *texts,
            groups=groups,
            level=level,
        )
        for i, layer in enumerate(at)
    ]


def _told(
    pivotal: Change, benign: Change, first: np.ndarray, second: np.ndarray, n: int, *, kept: bool
) -> Told:
    """The area by two rows of distances: of all edits, or of those that leave the answer as it was."""
    one, two = (part.kept if kept else np.ones_like(part.kept) for part in (pivotal, benign))
    return Told.of((pivotal.owner[one], first[one]), (benign.owner[two], second[two]), n)


def _answers(
    given: Readable,
    clean: Bool[np.ndarray, " item"],
    pivotal: Change,
    benign: Change,
    groups: tuple[str, ...],
) -> tuple[Finding, ...]:
    n, names = len(groups), np.array(groups)
    tasks = np.array([one.task for one in given.items])
    parts = {"": np.ones(n, dtype=bool)} | {
        f": {name}": tasks == name for name in dict.fromkeys(tasks.tolist())
    }
    same, took = benign.share_kept(n), np.where(pivotal.kept, ~clean, clean)
    return (
        *(
            Finding(
                f"answer kept by benign edits{name}",
                same[rows],
                tuple(names[rows].tolist()),
                pivotal.kept[rows].astype(float),
                "share",
                about="control: kept by pivotal edits; the excess is the differential sensitivity, DS",
                direction=1,
            )
            for name, rows in (parts if len(parts) > 2 else {"": parts[""]}).items()
        ),
        Finding(
            "the edit's own answer is taken",
            took.astype(float),
            groups,
            (~clean).astype(float),
            "share",
            about="how often the answer of the pivotal edit is preferred after it; control: before it",
            direction=1,
        ),
    )


def _deleted(
    kept: Bool[np.ndarray, "step item"], gone: Sequence[float], pivotal: Change, groups: tuple[str, ...]
) -> tuple[Finding, ...]:
    return tuple(
        Finding(
            f"answer kept, {share:.0%} of the words deleted (rounded up)",
            row.astype(float),
            groups,
            pivotal.kept.astype(float),
            "share",
            about=f"on average {real:.0%} of the words were deleted; control: kept by pivotal edits",
            direction=1,
        )
        for share, real, row in zip(SHARES, gone, kept, strict=True)
    )


def _tasks(given: Readable, clean: Bool[np.ndarray, " item"], pivotal: Change, benign: Change) -> Table:
    tasks = np.array([one.task or "own prompts" for one in given.items])
    rows: list[dict[str, str | int | float]] = []
    for task in dict.fromkeys(tasks.tolist()):
        own, edits = tasks == task, (tasks == task)[benign.owner]
        rows.append(
            {
                "task": task,
                "prompts": int(own.sum()),
                "right_before": float(clean[own].mean()),
                "kept_benign": float(benign.kept[edits].mean()),
                "kept_pivotal": float(pivotal.kept[own].mean()),
            }
        )
    return Table.of("edits", "Answers that an edit leaves as they were", rows)


def conclusion(
    pivotal: Change, benign: Change, groups: tuple[str, ...], table: Sequence[dict[str, float | int | None]]
) -> str:
    """Say whether edits are used, and whether those that are not used are noticed.

    Args:
        pivotal: one edit per prompt.
        benign: the others.
        groups: of the prompts.
        table: areas with their intervals and controls, layer by layer.
    """
    n = len(groups)
    found = paired_difference(benign.share_kept(n), pivotal.kept.astype(float), groups=groups)
    used = (
        "Pivotal edits change the answer more often than benign ones"
        if found.interval.low > 0
        else "Benign edits change the answer more often than pivotal ones"
        if found.interval.high < 0
        else "That pivotal edits change the answer more often than benign ones do is not shown"
    )
    said = f"{used} (DS {found})."
    left = int(pivotal.kept.sum())
    if left < ENOUGH:
        few = "too few to ask if they were noticed"
        return f"{said} {left} of {n} pivotal edits leave the answer as it was: {few}."
    first = next((row for row in table if _over(row)), None)
    if first is None:
        noticed = "not told from benign ones by the states of any layer read: noticing is not shown"
    else:
        noticed = (
            f"noticed but not used: first at layer {first['layer']} the states tell them from benign "
            f"edits (AUROC {first['ignored']:.2f} [{first['ignored_low']:.2f}, {first['ignored_high']:.2f}] "
            f"there, against {first['ignored_control']:.2f})"
        )
    return f"{said} {left} of {n} pivotal edits leave the answer as it was; these are {noticed}."


def _over(row: dict[str, float | int | None]) -> bool:
    low, control = row["ignored_low"], row["ignored_control"]
    return low is not None and control is not None and low > control
