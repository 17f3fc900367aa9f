"""Two facts in a row with the questions for each and for both, and another chain to stand in its place."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from interp.analyses.prompts import answer_ids, known_ids
from interp.errors import ConfigError, DataError, counted
from interp.models.model import Model
from interp.tasks import two_hop
from interp.tasks.chains import Chain, read_chains
from interp.tasks.relations import RELATIONS
from interp.tasks.world import load_world

__all__ = ["Chains", "draw"]


@dataclass(frozen=True)
class Placed:
    """A chain as a tokenizer sees it.

    Attributes:
        chain: the texts.
        position: of the last token of the mention in ``both``.
        bridge: tokens of the bridge behind ``first``; inside the model its first one is read.
        answer: tokens of the answer behind ``both``.
        answer_alone: the same behind ``second``.
    """

    chain: Chain
    position: int
    bridge: tuple[int, ...]
    answer: tuple[int, ...]
    answer_alone: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Chains:
    """What is asked of every model alike.

    Attributes:
        asked: the chains.
        others: for each another of its kind, with another bridge and another answer.
        usual: kind to the most frequent bridge and the most frequent answer.
        notes: what a reader should know.
    """

    asked: tuple[Placed, ...]
    others: tuple[Placed, ...]
    usual: Mapping[str, tuple[str, str]]
    notes: tuple[str, ...] = ()

    @property
    def groups(self) -> tuple[str, ...]:
        """What intervals are over."""
        return tuple(one.chain.group or one.chain.bridge for one in self.asked)

    @property
    def fingerprint(self) -> str:
        """The sha256 of all texts and tokens."""
        rows = [astuple(one) for one in (*self.asked, *self.others)]
        return hashlib.sha256(json.dumps(rows, ensure_ascii=False).encode()).hexdigest()


def draw(model: Model, given: Sequence[Chain] | str | Path | None, *, n: int, seed: int) -> Chains:
    """Draw chains and what stands in for them, by the seed and the tokenizer alone.

    Args:
        model: whose tokenizer.
        given: the user's own chains, all of which must be fit to ask; a file of chains, or the bundled facts
            where left out: of these, what the tokenizer knows is asked.
        n: how many at most.
        seed: of the draw.

    Raises:
        ConfigError: n below 1.
        DataError: none can be asked of this tokenizer, or a chain of the user's cannot.
    """
    if n < 1:
        raise ConfigError(f"n={n} chains asked; ask for at least 1.")
    rng = random.Random(f"two-hop:{seed}")
    data = None if isinstance(given, str | Path) else given
    source = read_chains(given) if isinstance(given, str | Path) else _bundled() if given is None else given
    kinds: dict[str, list[Chain]] = defaultdict(list)
    for chain in source:
        kinds[chain.kind].append(chain)
    usual = {
        kind: (_most_frequent(c.bridge for c in chains), _most_frequent(c.answer for c in chains))
        for kind, chains in kinds.items()
    }
    order = list(data) if data is not None else _in_turn(kinds, rng)
    if data is not None and n < len(order):
        order = [order[at] for at in sorted(rng.sample(range(len(order)), n))]
    asked: list[Placed] = []
    others: list[Placed] = []
    for number, chain in enumerate(order):
        if len(asked) == n:
            break
        one = placed(model, chain)
        other = _stand_in(model, one, kinds[chain.kind], rng) if one is not None else None
        if one is not None and other is not None:
            asked.append(one)
            others.append(other)
        elif data is not None:
            raise DataError(_why(number, chain, one))
    if not asked:
        raise DataError(
            f"no two-hop question can be asked of {model.name!r}: its tokenizer knows no word of "
            f"{'the bundled facts' if given is None else repr(str(given))}, or no two chains of a kind whose "
            "bridges begin otherwise. Give data=[Chain(...), ...] in words that it knows."
        )
    notes: list[str] = []
    if len(asked) < n and data is None:
        notes.append(f"{len(asked)} of {counted(n, 'chain')} can be asked of this tokenizer")
    if long := sum(len(one.bridge) > 1 for one in asked):
        notes.append(f"{long} of {len(asked)} bridges have several tokens; EntRec is of the first of them")
    return Chains(tuple(asked), tuple(others), usual, tuple(notes))


def placed(model: Model, chain: Chain) -> Placed | None:
    """Find the tokens of a chain; None where the tokenizer cannot tell them apart.

    Args:
        model: whose tokenizer.
        chain: the texts.
    """
    whole = known_ids(model, chain.both)
    if whole is None or chain.mention not in chain.both:
        return None
    part = known_ids(model, chain.both[: chain.both.find(chain.mention) + len(chain.mention)])
    if part is None or whole[: len(part)] != part:
        return None
    bridge = answer_ids(model, chain.first, chain.bridge)
    answer = answer_ids(model, chain.both, chain.answer)
    alone = answer_ids(model, chain.second, chain.answer)
    if bridge is None or answer is None or alone is None:
        return None
    return Placed(chain, len(part) - 1, bridge, answer, alone)


def _stand_in(model: Model, own: Placed, kind: Sequence[Chain], rng: random.Random) -> Placed | None:
    """Another chain of the kind, whose bridge begins with another token: EntRec reads the first."""
    chain = own.chain
    fits = [other for other in kind if other.bridge != chain.bridge and other.answer != chain.answer]
    rng.shuffle(fits)
    found = (placed(model, other) for other in fits)
    return next((one for one in found if one is not None and one.bridge[0] != own.bridge[0]), None)


def _why(number: int, chain: Chain, found: Placed | None) -> str:
    if found is not None:
        return (
            f"chain {number}: no other chain of kind {chain.kind!r} has another answer and a bridge "
            "that begins with another token; give at least two of each kind."
        )
    return (
        f"chain {number}: its mention {chain.mention!r} is not in {chain.both!r}, or words of it are unknown "
        "to the tokenizer or change the tokens before them; end questions and mention at a word's end."
    )


def _in_turn(kinds: Mapping[str, Sequence[Chain]], rng: random.Random) -> list[Chain]:
    """Shuffle each pair of relations, whatever the template, and take one of each in turn."""
    relations: dict[str, list[Chain]] = defaultdict(list)
    for kind, chains in kinds.items():
        relations[kind.rpartition("/")[0]] += chains
    pools = list(relations.values())
    for pool in pools:
        rng.shuffle(pool)
    longest = max(map(len, pools))
    return [pool[turn] for turn in range(longest) for pool in pools if turn < len(pool)]


def _bundled() -> Iterable[Chain]:
    for composition in two_hop.compositions(load_world()):
        relation, second = composition.bridge.relation, RELATIONS[composition.second]
        phrase = composition.bridge.phrase
        first = next(text for text in RELATIONS[relation].templates if text.startswith(phrase))
        for template in range(len(two_hop.TEMPLATES)):
            both = two_hop.example(composition, template).prompt
            if f" {composition.entity} " in f" {both.replace('-', ' ')} ":
                continue
            yield Chain(
                both=both,
                mention=phrase.format(composition.subject),
                first=first.format(composition.subject),
                second=second.templates[0].format(composition.entity),
                bridge=composition.entity,
                answer=composition.answer,
                kind=f"{relation}/{composition.second}/{template}",
                group=f"{relation}:{composition.entity}",
            )


def _most_frequent(words: Iterable[str]) -> str:
    return Counter(words).most_common(1)[0][0]
