"""The loop of a continuation: batches, the cache, reading and writing at every step, and when to stop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from numbers import Integral
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from interp.conversations import Selector, parse
from interp.errors import ConfigError, DataError, SiteError, counted
from interp.models.architecture import Architecture
from interp.models.backends.base import Backend, Forward
from interp.models.finished import finished
from interp.models.forward import (
    LOGITS,
    Logits,
    batches_of,
    cache_of,
    in_batches,
    length_border,
    make_batch,
    run,
)
from interp.models.hooks import Frame
from interp.models.interventions import Intervention, Plan
from interp.models.positions import Batch, Chosen, Positions, choose, located
from interp.models.sampling import Sampling, surprise
from interp.models.streaming import NewToken, OnToken, Speech, Stops, decoded
from interp.models.tokens import Tokens
from interp.sites import Dimensions, Site

__all__ = ["Asked", "Continued", "Line", "continued", "end_tokens"]

NEW = "new"
END_TOKEN, STOP, LENGTH = "end token", "stop", "length"
Found = Mapping[Site, Tensor]


@dataclass(frozen=True, eq=False)
class Asked:
    """What is asked of a continuation; see ``Model.generate``.

    Attributes:
        max_new_tokens: at most.
        sampling: how tokens are chosen.
        sites: to read.
        steps: at which steps they are read, where ``kept`` is None.
        kept: at which tokens of the finished text they are read.
        stops: what ends a text.
        interventions: what is written.
        batch_size: prompts at a time.
        use_cache: whether keys and values are kept.
        on_token: told of every new token.
        empty: whether ``kept`` may select nothing in all prompts.
    """

    max_new_tokens: int
    sampling: Sampling
    sites: Sequence[Site]
    steps: str | Sequence[int]
    kept: Positions | None
    stops: Stops
    interventions: Sequence[Intervention]
    batch_size: str | int
    use_cache: bool
    on_token: OnToken | None
    empty: bool = False


@dataclass(eq=False)
class Line:
    """Follow one prompt: its new tokens, what was said of each, and what was read.

    Attributes:
        speech: its text.
        new: ids.
        logprobs: of each new token in the model's own distribution (nats).
        entropies: of that distribution (nats).
        ranks: the token's place in it; 1 is the likeliest.
        ends: why it ended; "" while it goes on.
        places: positions that were read, in order.
        read: per site what was read there, pass by pass.
    """

    speech: Speech
    new: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    entropies: list[float] = field(default_factory=list)
    ranks: list[int] = field(default_factory=list)
    ends: str = ""
    places: list[int] = field(default_factory=list)
    read: dict[Site, list[Tensor]] = field(default_factory=dict)

    def add(self, token: int, told: tuple[float, float, int]) -> None:
        """Take one more token."""
        self.new.append(token)
        self.logprobs.append(told[0])
        self.entropies.append(told[1])
        self.ranks.append(told[2])

    def cut(self) -> None:
        """Leave out the tokens that a stop has cut off."""
        size = self.speech.needed(self.new)
        for one in (self.new, self.logprobs, self.entropies, self.ranks):
            del one[size:]

    def keep(self, found: Found, positions: Sequence[int]) -> None:
        """Store what was read at some positions: of each site ``[pos ...]``."""
        self.places += positions
        for site, tensor in found.items():
            self.read.setdefault(site, []).append(tensor)

    def at(self, site: Site, positions: Sequence[int]) -> Tensor:
        """What was read of a site at some positions."""
        index = {position: at for at, position in enumerate(self.places)}
        return torch.cat(self.read[site])[[index[position] for position in positions]]


@dataclass(frozen=True, eq=False)
class Continued:
    """What the loop gives, before it is labelled with the model.

    Attributes:
        lines: one per prompt.
        full: the prompts with their new tokens.
        texts: the new text of each.
        tensors: what was read.
        positions: where, counted from each prompt's first token.
        warnings: what a reader should know of them.
    """

    lines: list[Line]
    full: Tokens
    texts: tuple[str, ...]
    tensors: dict[Site, Tensor]
    positions: list[Any]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _Job:
    """Continue batches one after the other."""

    backend: Backend
    call: Forward
    tokens: Tokens
    asked: Asked
    steps: Sequence[int]
    plan: Plan
    frame: Frame
    cached: bool
    tokenizer: PreTrainedTokenizerBase | None
    lines: dict[int, Line] = field(default_factory=dict)

    @property
    def follows(self) -> bool:
        """Whether states of the finished text are read on the way."""
        return self.cached and self.asked.kept is not None and bool(self.asked.sites)

    def run(self, numbers: Sequence[int]) -> None:
        """Walk one left-padded batch to its end; call it again with fewer rows when memory runs out."""
        lines = [Line(Speech(self.tokenizer, self.asked.stops.texts)) for _ in numbers]
        batch = make_batch(self.tokens, numbers, self.backend.architecture.device)
        cache: Any = None
        for step in count():
            whole = self._reads(step) == "whole"
            wanted = "all" if whole and LOGITS in self.asked.sites else "last"
            result = self._pass(batch, wanted, cache, whole=whole)
            cache = cache_of(result) if self.cached else None
            found = {**self.frame.found, LOGITS: result.logits}
            found = {site: found[site] for site in self.asked.sites}
            self._keep(lines, batch, found, step)
            if all(line.ends for line in lines):
                break  # this pass was for the state of the last token
            logits = result.logits[:, -1]
            newest = self._choose(lines, batch, logits, step)
            self._append(lines, batch, step, newest.tolist(), surprise(logits, newest), found)
            unread = self.follows and any(len(line.new) > step for line in lines)
            if all(line.ends for line in lines) and not unread:
                break
            batch = _longer(batch, newest[:, None], cached=cache is not None)
        self.frame.begin(0, 0)
        self.lines.update(zip(numbers, lines, strict=True))

    def _pass(
        self, batch: Batch, logits: Logits, cache: Any = None, *, whole: bool = False, again: bool = False
    ) -> Any:
        self.plan.prepare(batch)
        self.frame.gather = torch.clone if whole else _newest
        self.frame.begin(len(batch.rows), batch.width)
        return self.call(batch, logits, use_cache=self.cached and not again, cache=cache)

    def _reads(self, step: int) -> str:
        """What is read in a pass: the whole prompt, its newest token, or nothing."""
        if self.follows and step == 0:
            return "" if _is_new(self.asked.kept) else "whole"
        return "newest" if self.follows or (self.asked.kept is None and step in self.steps) else ""

    def _keep(self, lines: list[Line], batch: Batch, found: Found, step: int) -> None:
        """Store what a pass read, of the prompts whose text reaches that far."""
        reads = self._reads(step)
        for row, line in enumerate(lines):
            if reads and len(line.new) >= step:
                length = self.tokens.lengths[batch.rows[row]]
                places = range(length) if reads == "whole" else [length - 1 + step]
                line.keep({site: read[row, -len(places) :].clone() for site, read in found.items()}, places)

    def _choose(self, lines: list[Line], batch: Batch, logits: Tensor, step: int) -> Tensor:
        """Choose each prompt's next token; where rounding could change it, by logits of the prompt alone."""
        settled = self.asked.sampling.choose(logits, batch.rows, step)
        tokens, sure = settled.tokens.to(logits.device), settled.sure.tolist()
        if len(lines) == 1 and not self.cached:
            return tokens
        for row, line in enumerate(lines):
            if not (line.ends or sure[row]):
                number = batch.rows[row]
                ids = [[*self.tokens.token_ids[number], *line.new]]
                width, device = len(ids[0]), batch.input_ids.device
                alone = Batch((number,), (width,), torch.tensor(ids, device=device), None, (0,))
                again = self._pass(alone, "last", again=True).logits[:, -1]
                tokens[row] = self.asked.sampling.choose(again, (number,), step).tokens[0]
        return tokens

    def _append(
        self,
        lines: list[Line],
        batch: Batch,
        step: int,
        newest: list[int],
        told: Sequence[tuple[float, float, int]],
        found: Found,
    ) -> None:
        """Give each prompt that goes on its new token, and tell the caller."""
        listener, stops = self.asked.on_token, self.asked.stops
        for row, line in enumerate(lines):
            if line.ends:
                continue
            line.add(newest[row], told[row])
            if listener is not None or stops.texts:
                line.speech.read(line.new)
            line.ends = self._end(line, step)
            if listener is not None:
                piece = line.speech.piece(last=bool(line.ends))
                states = {str(site): tensor[row, -1] for site, tensor in found.items()}
                listener(
                    NewToken(batch.rows[row], step, newest[row], piece, *told[row][:2], line.ends, states)
                )
            if line.ends == STOP:
                line.cut()

    def _end(self, line: Line, step: int) -> str:
        if line.new[-1] in self.asked.stops.ids:
            return END_TOKEN
        if line.speech.stopped:
            return STOP
        return LENGTH if step + 1 == self.asked.max_new_tokens else ""


def continued(
    backend: Backend,
    tokens: Tokens,
    asked: Asked,
    *,
    tokenizer: PreTrainedTokenizerBase | None,
    max_length: int | None,
    dims: Dimensions,
) -> Continued:
    """Continue all prompts batch by batch.

    Args:
        backend: what runs the passes.
        tokens: the prompts.
        asked: what is wanted of them.
        tokenizer: None for ids alone.
        max_length: tokens that the model reads.
        dims: of its sites.
    """
    architecture = backend.architecture
    _check(tokens, asked, max_length, architecture.name)
    steps, kept = _wanted(asked), asked.kept
    if isinstance(kept, str) and kept not in (NEW, "all", "last"):
        kept = parse(kept)  # so that a word that is none is said before anything is written
    fed = asked.max_new_tokens - (asked.kept is None)  # the last token is fed where its state is wanted
    limits = [length + fed for length in tokens.lengths]
    plan = Plan.of(asked.interventions, dims, tokens, tokenizer, limits=limits)
    crosses = _crosses(length_border(architecture), tokens.lengths, asked.max_new_tokens)
    batches = batches_of(architecture, tokens, 1 if crosses else asked.batch_size)
    cached = asked.use_cache and backend.caches and not crosses
    frame, hooked = Frame(gather=_newest), [site for site in asked.sites if site != LOGITS]
    with torch.no_grad(), backend.session(frame, writes=[plan.edits()], reads=hooked) as call:
        job = _Job(backend, call, tokens, asked, steps, plan, frame, cached, tokenizer)
        in_batches(batches, job.run)
    lines = [job.lines[number] for number in range(len(tokens))]
    texts = tuple(line.speech.text if line.ends == STOP else decoded(tokenizer, line.new) for line in lines)
    selects = isinstance(kept, Selector)
    full = finished(tokens, [line.new for line in lines], tokenizer, located=selects)
    kept, said = (
        _located(kept, full, tokenizer, empty=asked.empty) if isinstance(kept, Selector) else (kept, ())
    )
    full = replace(full, warnings=(*full.warnings, *said))
    if not asked.sites:
        plan.check_fired()
        return Continued(lines, full, texts, {}, [])
    chosen = _chosen(kept, steps, tokens.lengths, full.lengths, empty=asked.empty)
    if kept is None or job.follows:
        plan.check_fired()
        states = _gathered(lines, asked.sites, chosen)
        return Continued(lines, full, texts, states, chosen.recorded(), said)
    read = run(
        backend,
        dims,
        full,
        sites=asked.sites,
        positions=chosen,
        logits="none",
        interventions=plan,
        batch_size=asked.batch_size,
        device=None,
        dtype=None,
        progress=False,
        grad=False,
    )
    return Continued(lines, full, texts, read.tensors, read.positions, said)


def end_tokens(
    architecture: Architecture, tokenizer: PreTrainedTokenizerBase | None, *, chat: bool
) -> frozenset[int]:
    """The model's own end tokens; its tokenizer's where it names none, or where an answer in a chat ends."""
    settings = getattr(architecture.hf, "generation_config", None)
    found: Any = getattr(settings, "eos_token_id", None)
    own: Any = None if tokenizer is None or not (chat or found is None) else tokenizer.eos_token_id
    ids = [
        one
        for given in (found, own)
        if given is not None
        for one in ([given] if isinstance(given, int) else given)
    ]
    return frozenset(ids)


def _is_new(kept: Positions | None) -> bool:
    return isinstance(kept, str) and kept == NEW


def _newest(tensor: Tensor) -> Tensor:
    return tensor[:, -1:].clone()


def _check(tokens: Tokens, asked: Asked, max_length: int | None, name: str) -> None:
    most = asked.max_new_tokens
    if isinstance(most, bool) or not isinstance(most, int) or most < 1:
        raise ConfigError(f"max_new_tokens {most!r} asked; use 1 or more.")
    if asked.kept is not None and not asked.sites:
        raise ConfigError(
            "tokens say whose states are kept, but no sites are captured; give capture='resid_post.*'."
        )
    if asked.kept is not None and asked.steps != "all":
        raise ConfigError(f"steps {asked.steps!r} and tokens were given; steps are for calls without tokens.")
    if asked.on_token is not None and not callable(asked.on_token):
        raise ConfigError(f"on_token {asked.on_token!r} asked; give a function that takes a NewToken.")
    if any(site.kind == "pattern" for site in asked.sites):
        raise SiteError("'pattern' cannot be captured while generating; capture it on the finished text.")
    for number, length in enumerate(tokens.lengths):
        if max_length is not None and length + most > max_length:
            raise DataError(
                f"prompt {number} has {counted(length, 'token')} and {most} new ones were asked, but "
                f"{name!r} reads at most {max_length}. Use max_new_tokens={max(0, max_length - length)} or a "
                "shorter prompt."
            )


def _wanted(asked: Asked) -> list[int]:
    """The steps that are read."""
    most, steps = asked.max_new_tokens, asked.steps
    if steps == "all":
        return list(range(most))
    if isinstance(steps, str) or not all(isinstance(step, Integral) and 0 <= step < most for step in steps):
        raise ConfigError(f"steps {steps!r} asked; use 'all' or numbers from 0 to {most - 1}.")
    return sorted({int(step) for step in steps})


def _crosses(border: int | None, lengths: Sequence[int], most: int) -> bool:
    """Whether a text grows beyond a length from which on the model rotates all positions otherwise."""
    return border is not None and any(length <= border < length + most for length in lengths)


def _longer(batch: Batch, newest: Tensor, *, cached: bool) -> Batch:
    """The next pass: the newest column alone under a cache, everything otherwise."""
    ones = torch.ones_like(newest)
    mask = None if batch.mask is None else torch.cat([batch.mask, ones], 1)
    ids = newest if cached else torch.cat([batch.input_ids, newest], 1)
    lengths = tuple(length + 1 for length in batch.lengths)
    starts = tuple(length - ids.shape[1] for length in lengths)
    return replace(batch, input_ids=ids, mask=mask, lengths=lengths, starts=starts)


def _chosen(
    kept: Positions | None, steps: Sequence[int], lengths: Sequence[int], full: Sequence[int], *, empty: bool
) -> Chosen:
    """Which tokens of the finished texts are kept."""
    ends = list(zip(lengths, full, strict=True))
    if kept is None:
        rows = [[start - 1 + step for step in steps if start + step < end] for start, end in ends]
        if not any(rows):
            raise DataError(
                "no prompt reached the steps to capture: the end-of-sequence token came first. Ask earlier "
                "steps."
            )
        return choose(rows, full)
    if _is_new(kept):
        rows = [list(range(*pair)) for pair in ends]
        if not (any(rows) or empty):
            raise DataError(
                "no prompt has a new token: the stop came first. Ask tokens='all', or another stop."
            )
        return choose(rows, full)
    chosen = choose(kept, full)
    if not (any(chosen.rows) or empty):
        raise DataError(
            "tokens select nothing in any prompt; the longest finished text has "
            f"{counted(max(full), 'token')}. Ask others, such as 'new' or 'all'."
        )
    return chosen


def _located(
    kept: Selector, full: Tokens, tokenizer: PreTrainedTokenizerBase | None, *, empty: bool
) -> tuple[Positions, tuple[str, ...]]:
    """The tokens that a selector selects, and a warning of the prompts where it selects none.

    Raises:
        DataError: it selects nothing in any prompt, or it names one token, which some prompt lacks.
    """
    found: list[Positions] = []
    without: list[int] = []
    first: DataError | None = None
    for number in range(len(full)):
        try:
            found += located(kept, full, tokenizer, rows=[number])
        except DataError as error:  # its text is there, and is not lost for another's states
            first = first or error
            without.append(number)
            found.append([])
    if first is None:
        return found, ()
    if kept.single:
        raise DataError(
            f"{str(first).rstrip('.')}; or ask for a slice, such as answer[-1:], which may be empty."
        ) from first
    if len(without) == len(full) and not empty:
        raise first
    named = ", ".join(map(str, without[:5])) + ", ..." * (len(without) > 5)
    return found, (
        f"the selector {str(kept)!r} selects no token in {len(without)} of {counted(len(full), 'prompt')} "
        f"({named}), so that their states are empty.",
    )


def _gathered(lines: Sequence[Line], sites: Sequence[Site], chosen: Chosen) -> dict[Site, Tensor]:
    """What was read at the chosen positions, padded with zeros."""
    found = {}
    for site in sites:
        rows = [
            line.at(site, places) if places else None for line, places in zip(lines, chosen.rows, strict=True)
        ]
        example = next((row for row in rows if row is not None), None)
        example = (
            next(line.read[site][0][:0] for line in lines if line.places) if example is None else example
        )
        whole = example.new_zeros((len(rows), max(map(len, chosen.rows)), *example.shape[1:]))
        for number, row in enumerate(rows):
            if row is not None:
                whole[number, : len(row)] = row
        found[site] = whole[:, 0] if chosen.single else whole
    return found
