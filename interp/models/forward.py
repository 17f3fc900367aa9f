"""Forward passes: one call of the Hugging Face model, prompts in batches, runs that read and write."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

from interp.errors import ConfigError, ModelError, OutOfMemoryError, out_of_memory
from interp.models.architecture import Architecture
from interp.models.backends.base import Backend, Forward
from interp.models.hooks import ONE_AT_A_TIME, Frame, Stop, by_reference
from interp.models.interventions import Intervention, Plan
from interp.models.positions import Batch, Chosen, Positions, choose, gatherer, located
from interp.models.tokens import Tokens, pad, position_ids
from interp.sites import Dimensions, Site

__all__ = [
    "LOGITS",
    "Logits",
    "arguments",
    "batches_of",
    "cache_name",
    "cache_of",
    "forward",
    "gradients",
    "in_batches",
    "last_logits",
    "layout",
    "length_border",
    "make_batch",
    "most_prompts",
    "plan_batches",
    "progress_bar",
    "run",
]

LOGITS = Site("logits")
Logits = Literal["last", "all", "none"]
CACHE_NAMES = ("past_key_values", "cache")  # transformers 5.24 renamed the one to the other


@lru_cache(maxsize=64)
def _accepted(model_class: type) -> frozenset[str]:
    return frozenset(inspect.signature(model_class.forward).parameters)


def cache_name(architecture: Architecture) -> str:
    """What the model calls its key-value cache; "" where it takes none."""
    accepted = _accepted(type(architecture.hf))
    return next((name for name in CACHE_NAMES if name in accepted), "")


def cache_of(result: Any) -> Any:
    """The key-value cache that a pass gave back."""
    # the new name first: asking a new result for the old one writes a warning
    return next((getattr(result, name) for name in reversed(CACHE_NAMES) if hasattr(result, name)), None)


def forward(
    architecture: Architecture, batch: Batch, logits: Logits, *, use_cache: bool = False, cache: Any = None
) -> Any:
    """Call the Hugging Face model on a batch, with positions from the mask and no more logits than needed.

    Args:
        architecture: whose model.
        batch: the prompts.
        logits: at which tokens.
        use_cache: whether keys and values are kept, for :func:`cache_of`.
        cache: those of the tokens before the batch; None for none.
    """
    hf = architecture.hf
    if any(one._compiled_call_impl is not None for one in (hf, *architecture.blocks)):
        raise ModelError(
            f"{architecture.name!r} was compiled in place (model.compile()), and hooks do not reach compiled "
            "code. Load it again, and compile a copy; or set _compiled_call_impl to None on its modules."
        )
    with ONE_AT_A_TIME:
        return hf(**arguments(architecture, batch, logits, use_cache=use_cache, cache=cache))


def arguments(
    architecture: Architecture, batch: Batch, logits: Logits, *, use_cache: bool = False, cache: Any = None
) -> dict[str, Any]:
    """The arguments of that call, by name."""
    accepted = _accepted(type(architecture.hf))
    given: dict[str, Any] = {"input_ids": batch.input_ids, "use_cache": use_cache}
    if cache is not None:
        given[cache_name(architecture)] = cache
    if batch.mask is not None:
        given["attention_mask"] = batch.mask
        if "position_ids" in accepted:
            given["position_ids"] = position_ids(batch.mask)[:, -batch.width :]
    if logits != "all" and "logits_to_keep" in accepted:
        given["logits_to_keep"] = _kept(architecture, batch)
    return given


def _kept(architecture: Architecture, batch: Batch) -> int | Tensor:
    """Which columns get logits: the last of each prompt.

    Told a number, models whose last layers share keys and values leave out the other columns there.
    """
    if _ragged_right(batch):
        return _last_columns(batch)
    shares = getattr(architecture.hf.config.get_text_config(), "num_kv_shared_layers", 0)
    return torch.tensor([batch.width - 1], device=batch.input_ids.device) if shares else 1


def _ragged_right(batch: Batch) -> bool:
    return len(set(batch.lengths)) > 1 and not any(batch.starts)


def _last_columns(batch: Batch) -> Tensor:
    columns = [length - start - 1 for length, start in zip(batch.lengths, batch.starts, strict=True)]
    return torch.tensor(columns, device=batch.input_ids.device)[:, None]


def last_logits(logits: Tensor, batch: Batch) -> Tensor:
    """The logits after each prompt's last token, ``[batch vocab]``, from what the model returned."""
    if logits.shape[1] == 1:
        return logits[:, 0]
    return logits[torch.arange(len(batch.rows), device=logits.device), _last_columns(batch)[:, 0]]


_TOKENS_PER_BATCH = {"cpu": 4096, "cuda": 16384}
_LOGITS_PER_BATCH = 1 << 27
_MOST: ContextVar[int | None] = ContextVar("most prompts of an automatic batch", default=None)


@contextmanager
def layout(prompts: int) -> Iterator[None]:
    """Let automatic batches inside the block hold at most so many prompts.

    The numbers of a run differ between layouts by rounding alone, which is one measure of its noise.

    Raises:
        ConfigError: fewer than one prompt.
    """
    if prompts < 1:
        raise ConfigError(f"layout({prompts}) asked; a batch holds 1 prompt or more.")
    token = _MOST.set(prompts)
    try:
        yield
    finally:
        _MOST.reset(token)


def most_prompts() -> int | None:
    """The limit that :func:`layout` has set here; None outside of one."""
    return _MOST.get()


def length_border(architecture: Architecture) -> int | None:
    """The number of tokens beyond which a model rotates positions otherwise, for all prompts of a batch.

    With long factors transformers chooses by the longest prompt of a batch, so prompts from both sides of the
    border must not share one. None where there is no border.
    """
    config: Any = architecture.hf.config.get_text_config()
    given: Any = getattr(config, "rope_parameters", None) or {}
    layered = given and all(isinstance(one, dict) for one in given.values())
    for one in given.values() if layered else [given]:
        if one.get("rope_type") in ("longrope", "dynamic"):
            border = one.get("original_max_position_embeddings")
            return int(border or config.max_position_embeddings)
    return None


def plan_batches(
    lengths: Sequence[int],
    batch_size: str | int,
    *,
    device: str = "cpu",
    logits_width: int = 0,
    border: int | None = None,
    apart: bool = False,
) -> list[list[int]]:
    """Group prompts of similar length, within a budget of padded tokens.

    Args:
        lengths: tokens per prompt.
        batch_size: prompts per batch, or "auto".
        device: type of device, which decides the budget.
        logits_width: vocabulary size where logits of all positions are kept; they are budgeted too.
        border: prompts up to this length and longer ones are kept apart; None for no such border.
        apart: whether prompts of different lengths are kept apart.

    Raises:
        ConfigError: the batch size is neither "auto" nor a positive number.
    """
    if isinstance(batch_size, bool) or not (
        batch_size == "auto" or (isinstance(batch_size, int) and batch_size >= 1)
    ):
        raise ConfigError(f"batch_size {batch_size!r} asked; use 'auto' or a number of prompts, 1 or more.")
    budget = _TOKENS_PER_BATCH.get(device, 4096)
    budget = min(budget, max(1, _LOGITS_PER_BATCH // logits_width)) if logits_width else budget
    most = _MOST.get() or len(lengths)
    order = sorted(range(len(lengths)), key=lambda row: lengths[row])
    batches: list[list[int]] = []
    for row in order:
        size = len(batches[-1]) + 1 if batches else 1
        full = (
            size > batch_size if isinstance(batch_size, int) else size * lengths[row] > budget or size > most
        )
        before = lengths[batches[-1][-1]] if batches else lengths[row]
        other = (apart and before != lengths[row]) or (border is not None and before <= border < lengths[row])
        if full or other or not batches:
            batches.append([])
        batches[-1].append(row)
    return [sorted(batch) for batch in batches]


def batches_of(
    architecture: Architecture, tokens: Tokens, batch_size: str | int, *, logits_width: int = 0
) -> list[list[int]]:
    """Group prompts as a model needs it; see :func:`plan_batches`."""
    return plan_batches(
        tokens.lengths,
        batch_size,
        device=architecture.device.type,
        logits_width=logits_width,
        border=length_border(architecture),
        apart=architecture.family.padding not in ("either", tokens.padding_side),
    )


def make_batch(
    tokens: Tokens, rows: Sequence[int], device: torch.device, *, always_mask: int | None = None
) -> Batch:
    """Pad some prompts on the tokens' own side and put them on the device.

    A mask is left out where nothing is padded, unless the id ``always_mask`` occurs: transformers guesses.
    """
    picked = [tokens.token_ids[row] for row in rows]
    lengths = tuple(map(len, picked))
    width = max(lengths)
    if min(lengths) == width and (always_mask is None or not any(always_mask in row for row in picked)):
        return Batch(tuple(rows), lengths, torch.tensor(picked, device=device), None, (0,) * len(picked))
    ids, mask = pad(picked, tokens.pad_id, tokens.padding_side)
    starts = tuple(length - width if tokens.padding_side == "left" else 0 for length in lengths)
    return Batch(tuple(rows), lengths, ids.to(device), mask.to(device), starts)


def in_batches(
    batches: Sequence[Sequence[int]],
    run: Callable[[Sequence[int]], None],
    *,
    progress: bool = False,
    advance: Callable[[int], object] | None = None,
) -> None:
    """Run every batch; when memory runs out, halve it, retry the same rows, and keep to that size.

    Args:
        batches: numbers of rows.
        run: runs one batch; it is called again with fewer rows.
        progress: show a progress bar of these batches.
        advance: a bar of more than these batches, told how many rows were run.

    Raises:
        OutOfMemoryError: one prompt alone does not fit.
    """
    pending, limit = [list(batch) for batch in reversed(batches)], max(map(len, batches))
    with progress_bar(sum(map(len, batches)), progress, "reading") as own:
        told = own if advance is None else advance
        while pending:
            rows = pending.pop()
            if len(rows) > limit:
                pending += [rows[limit:], rows[:limit]]
                continue
            if _fits(run, rows):
                told(len(rows))
                continue
            if len(rows) == 1:
                raise OutOfMemoryError(
                    f"memory ran out on prompt {rows[0]} alone, at batch size 1. Capture fewer sites or "
                    "positions, shorten the prompt, use device='cpu' for the results, or a smaller dtype."
                )
            limit = max(1, len(rows) // 2)
            pending.append(rows)


def _fits(run: Callable[[Sequence[int]], None], rows: Sequence[int]) -> bool:
    try:
        run(rows)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        fits = False
    else:
        fits = True
    if not fits and torch.cuda.is_available():
        torch.cuda.empty_cache()
    return fits


@contextmanager
def progress_bar(
    total: int, show: bool, label: str = "", unit: str = "prompt"
) -> Iterator[Callable[[int], object]]:
    """Show progress and the time left on request; tqdm is imported only then."""
    if not show:
        yield lambda count: None
        return
    from tqdm.auto import tqdm

    with tqdm(total=total, desc=label or None, unit=unit, leave=False) as bar:
        yield bar.update


@dataclass(frozen=True, eq=False)
class RawRun:
    """What one run gave, before it is labelled with its prompts and model.

    Attributes:
        logits: ``[prompt vocab]`` after the last token, ``[prompt pos vocab]`` for all (zeros beyond a
            prompt's end), or None; in the model's own dtype.
        tensors: the captured tensor of every site.
        positions: where they were captured, counted from each prompt's first token.
    """

    logits: Tensor | None
    tensors: dict[Site, Tensor]
    positions: list[Any]


def run(
    backend: Backend,
    dims: Dimensions,
    tokens: Tokens,
    *,
    sites: Sequence[Site],
    positions: Positions,
    logits: str,
    interventions: Sequence[Intervention] | Plan,
    batch_size: str | int,
    device: str | torch.device | None,
    dtype: torch.dtype | None,
    progress: bool,
    grad: bool,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> RawRun:
    """Run all prompts, writing some sites and reading others; see ``Model.run`` for the arguments."""
    if logits not in ("last", "all", "none"):
        raise ConfigError(f"logits {logits!r} asked; use 'last', 'all' or 'none'.")
    chosen = (
        positions
        if isinstance(positions, Chosen)
        else choose(located(positions, tokens, tokenizer), tokens.lengths)
    )
    plan = (
        interventions if isinstance(interventions, Plan) else Plan.of(interventions, dims, tokens, tokenizer)
    )
    if grad:
        return _with_gradients(backend, tokens, sites, chosen, logits, plan)
    architecture, longest = backend.architecture, max(tokens.lengths)
    width = architecture.vocab_size if logits == "all" or LOGITS in sites else 0
    batches = batches_of(architecture, tokens, batch_size, logits_width=width)
    pos = 0 if chosen.single else max(len(row) for row in chosen.rows)
    kept = Collector(len(tokens), pos, longest, torch.device(device) if device is not None else None, dtype)
    outputs = Collector(len(tokens), longest if logits == "all" else 0, longest)
    hooked = [site for site in sites if site != LOGITS]
    frame = Frame(stop=bool(hooked) and logits == "none" and LOGITS not in sites)
    writes = [plan.edits()] if plan else []
    with torch.no_grad(), backend.session(frame, writes=writes, reads=hooked) as call:
        passes = _Passes(backend, call, tokens, sites, chosen, logits, plan, frame, kept, outputs)
        in_batches(batches, passes.run, progress=progress)
    plan.check_fired()
    return RawRun(
        outputs.tensors.get(LOGITS), {site: kept.tensors[site] for site in sites}, chosen.recorded()
    )


@dataclass(eq=False)
class Collector:
    """Tensors in prompt order, filled batch by batch and allocated once.

    Attributes:
        count: number of prompts.
        width: size of the position axis; 0 where there is none.
        longest: tokens of the longest prompt: the key axis of patterns.
        device: where results are kept; None for where they were computed.
        dtype: of the results; None for as computed.
        tensors: what was gathered.
    """

    count: int
    width: int
    longest: int
    device: torch.device | None = None
    dtype: torch.dtype | None = None
    tensors: dict[Site, Tensor] = field(default_factory=dict)

    def add(self, site: Site, rows: Sequence[int], part: Tensor) -> None:
        """Store one batch of one site."""
        part = part.to(device=self.device, dtype=self.dtype) if self.device or self.dtype else part
        if site.kind == "pattern" and part.shape[-1] < self.longest:
            part = functional.pad(part, (0, self.longest - part.shape[-1]))
        if len(rows) == self.count and (not self.width or part.shape[1] == self.width):
            self.tensors[site] = part
            return
        if site not in self.tensors:
            shape = (self.count, self.width, *part.shape[2:]) if self.width else (self.count, *part.shape[1:])
            self.tensors[site] = part.new_zeros(shape)
        index = torch.tensor(rows, device=part.device)
        if self.width:
            self.tensors[site][index, : part.shape[1]] = part
        else:
            self.tensors[site][index] = part


@dataclass(eq=False)
class _Passes:
    """The passes of one run, batch after batch, and what they give."""

    backend: Backend
    call: Forward
    tokens: Tokens
    sites: Sequence[Site]
    chosen: Chosen
    logits: Logits
    plan: Plan
    frame: Frame
    kept: Collector
    outputs: Collector
    copying: bool = False

    def run(self, rows: Sequence[int]) -> None:
        """Run one batch; call it again with fewer rows when memory runs out."""
        pad_token = getattr(self.backend.architecture.hf.config, "pad_token_id", None)
        batch = make_batch(self.tokens, rows, self.backend.architecture.device, always_mask=pad_token)
        self.frame.begin(len(rows), batch.width)
        whole = self.chosen.everything and batch.mask is None and not self.copying
        self.frame.gather = by_reference if whole else gatherer(self.chosen, batch)
        self.plan.prepare(batch)
        wanted = _widest(self.logits, LOGITS in self.sites, self.chosen)
        try:
            result = self.call(batch, wanted).logits
        except Stop:
            result = None
        if (
            self.frame.edited()
        ):  # a later module edited in place what was kept by reference: run again, copying
            self.copying = True
            self.run(rows)
            return
        for site, part in _separate(self.frame.found).items() if whole else self.frame.found.items():
            self.kept.add(site, rows, _keys_from_zero(part, batch) if site.kind == "pattern" else part)
        if result is not None:
            self._keep_logits(batch, result, wanted)
        self.frame.begin(0, 0)

    def _keep_logits(self, batch: Batch, result: Tensor, wanted: Logits) -> None:
        if LOGITS in self.sites:
            part = self.frame.gather(result) if wanted == "all" else last_logits(result, batch).clone()
            self.kept.add(LOGITS, batch.rows, part)
        if self.logits == "last":
            self.outputs.add(LOGITS, batch.rows, last_logits(result, batch).clone())
        elif self.logits == "all":
            everything = choose("all", self.tokens.lengths)
            self.outputs.add(LOGITS, batch.rows, gatherer(everything, batch)(result))


def _separate(found: dict[Site, Tensor]) -> dict[Site, Tensor]:
    """Copy tensors that share memory with another site's, or are part of something larger."""
    seen: set[int] = set()
    for site, tensor in found.items():
        storage = tensor.untyped_storage()
        if storage.data_ptr() in seen or storage.nbytes() > tensor.nbytes:
            found[site] = tensor.clone()
        seen.add(storage.data_ptr())
    return found


def _keys_from_zero(pattern: Tensor, batch: Batch) -> Tensor:
    """Shift the key axis so that column t is token t of the prompt, also under left padding."""
    if not any(batch.starts):
        return pattern
    columns = torch.arange(batch.width)[None] - torch.tensor(batch.starts)[:, None]
    index = columns.clamp(max=batch.width - 1).view(len(batch.rows), *[1] * (pattern.ndim - 2), batch.width)
    beyond = (columns >= batch.width).view(index.shape)
    shifted = pattern.gather(-1, index.to(pattern.device).expand_as(pattern))
    return shifted.masked_fill_(beyond.to(pattern.device), 0)


def _widest(logits: Logits, captured: bool, chosen: Chosen) -> Logits:
    """Decide which logits the model must compute."""
    if logits == "all" or (captured and not chosen.last):
        return "all"
    return "last" if logits == "last" or captured else "none"


@contextmanager
def gradients() -> Iterator[None]:
    """Compute gradients inside the block, whatever the user has switched off around it.

    Raises:
        ModelError: the model was made in torch.inference_mode(), so that it can have none.
    """
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    except RuntimeError as error:
        if "nference tensor" not in str(error):
            raise
        raise ModelError(
            "gradients asked of tensors made inside torch.inference_mode(), which can have none. Load the "
            "model, and ask for gradients, outside of it."
        ) from error


def _with_gradients(
    backend: Backend, tokens: Tokens, sites: Sequence[Site], chosen: Chosen, logits: Logits, plan: Plan
) -> RawRun:
    """Run one batch with the graph kept: captured tensors are nodes of it.

    Every captured site is read and written back, so the tensor returned lies on the path to the logits. Where
    nothing before it needs a gradient it becomes a leaf, so frozen parameters are fine and cheaper.

    Raises:
        ConfigError: positions other than "all", or a site that cannot be written.
    """
    if sites and not chosen.everything:
        raise ConfigError(
            "grad=True keeps whole tensors of the graph: use positions='all', and index the result."
        )
    if len(set(tokens.lengths)) > 1 and backend.architecture.family.padding not in ("either", "right"):
        raise ConfigError(
            f"grad=True runs all prompts in one batch, but {backend.architecture.name!r} gives other numbers "
            "for prompts that are padded. Give prompts of one length at a time."
        )
    tokens = replace(tokens, padding_side="right")
    found: dict[Site, Tensor] = {}
    records = {site: partial(_record, site, found) for site in sites if site != LOGITS}
    with gradients():  # tensors made in inference mode could not be part of a graph
        batch = make_batch(tokens, range(len(tokens)), backend.architecture.device)
        frame = Frame(batch=len(tokens), width=batch.width)
        plan.prepare(batch)
        writes = [plan.edits(), records] if plan else [records]
        with backend.session(frame, writes=writes, reads=[]) as call:
            result = call(batch, "all" if LOGITS in sites else logits).logits
        returned = last_logits(result, batch) if logits == "last" else result
    plan.check_fired()
    if LOGITS in sites:
        found[LOGITS] = result
    if logits == "none":
        return RawRun(None, found, chosen.recorded())
    return RawRun(returned, found, chosen.recorded())


def _record(site: Site, found: dict[Site, Tensor], current: Tensor) -> Tensor:
    value = current.clone() if current.requires_grad else current.detach().requires_grad_(True)
    found[site] = value
    return value.clone()
