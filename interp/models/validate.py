"""The check every model passes at load: the equations of ``interp.sites`` on one tiny forward pass.

A kind of site whose equation fails is disabled with the reason, never guessed. Three passes of ten tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from interp.errors import InterpError, ModelError
from interp.models.anatomy import Anatomy, Location
from interp.models.hooks import Frame, Stop, Writer, eager_attention, evaluating, reading, writing
from interp.models.passes import forward
from interp.models.positions import Batch
from interp.sites import Site

__all__ = ["Report", "finished", "probe_batch", "read_once", "tolerance", "validated"]

_LENGTH = 5


@dataclass(eq=False)
class Report:
    """Hold what validation measured.

    Attributes:
        errors: equation to its largest relative error over the layers.
        disabled: kind to the reason why it is not offered.
        facts: further findings.
    """

    errors: dict[str, float] = field(default_factory=dict)
    disabled: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def disable(self, reason: str, *kinds: str) -> None:
        """Record why some kinds are not offered, unless a reason is known already."""
        for kind in kinds:
            self.disabled.setdefault(kind, reason)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for ``Model.certificate``."""
        return {"errors": self.errors, "disabled": self.disabled, **self.facts}


def tolerance(dtype: torch.dtype) -> float:
    """Return the relative error that rounding in a dtype explains, with a margin."""
    return 1e-5 if dtype in (torch.float32, torch.float64) else 8 * torch.finfo(dtype).eps


def probe_batch(anatomy: Anatomy) -> Batch:
    """Make two rows of tokens that differ in the last one only, without padding."""
    vocab = anatomy.vocab_size
    row = [(7 + 11 * position) % vocab for position in range(_LENGTH)]
    other = [*row[:-1], (row[-1] + 1) % vocab]
    device = anatomy.device
    ids = torch.tensor([row, other], device=device)
    return Batch((0, 1), (_LENGTH, _LENGTH), ids, torch.ones_like(ids), (0, 0))


def read_once(
    anatomy: Anatomy, places: dict[Site, Location], *, writers: Sequence[Writer] = (), eager: bool = False
) -> tuple[dict[Site, Tensor], Tensor]:
    """Run the probe batch once; return what was read and the last logits (none under eager attention)."""
    batch = probe_batch(anatomy)
    frame = Frame(batch=2, width=_LENGTH, stop=eager)
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(evaluating(anatomy.modules))
        if eager:
            stack.enter_context(eager_attention(anatomy.modules))
        stack.enter_context(writing(writers, frame))
        stack.enter_context(reading(places, frame))
        try:
            logits = forward(anatomy, batch, "last").logits[:, -1:]
        except Stop:
            logits = torch.zeros(0)
    return dict(frame.found), logits


def validated(anatomy: Anatomy) -> tuple[Anatomy, Report]:
    """Check every equation; return the anatomy with the failing kinds disabled, and the report.

    Raises:
        ModelError: the model is not causal, or its blocks do not form a residual stream.
    """
    report = Report()
    if anatomy.parallel:
        report.disable(_no_middle(anatomy), "resid_mid")
    places = dict(_places(anatomy, report))
    found, logits = _guarded(anatomy, places)
    _check_stream(anatomy, found, report)
    _check_sums(anatomy, found, report)
    _check_projection(anatomy, found, report, "attn_out", "z", anatomy.family.out_projection)
    _check_projection(anatomy, found, report, "mlp_out", "mlp_act", anatomy.family.down_projection)
    _check_head_sum(anatomy, found, report)
    _check_final(anatomy, found, logits, report)
    _check_pattern(anatomy, report)
    checked = replace(anatomy, disabled=dict(report.disabled))
    _check_edit(checked, found, logits, report)
    token = anatomy.embedding(probe_batch(anatomy).input_ids)
    report.facts["embed_is_token"] = bool(torch.equal(token, found[Site("embed")]))
    return checked, report


def _no_middle(anatomy: Anatomy) -> str:
    kind = anatomy.hf.config.model_type
    if anatomy.family.types:
        return f"{kind} runs attention and MLP in parallel, so it has no 'resid_mid'."
    return f"no module of {kind} reads a stream between attention and MLP, so it has no 'resid_mid'."


def _guarded(anatomy: Anatomy, places: dict[Site, Location]) -> tuple[dict[Site, Tensor], Tensor]:
    try:
        return read_once(anatomy, places)
    except (RuntimeError, TypeError, AttributeError, KeyError, IndexError) as error:
        raise ModelError(
            f"{anatomy.name!r} could not run on {_LENGTH} tokens with family row {anatomy.family.name!r}: "
            f"{error}. If its modules are named differently, pass family={...} at load."
        ) from error


_PER_LAYER = ("resid_pre", "q", "k", "v", "z", "attn_out", "resid_mid", "mlp_act", "mlp_out", "resid_post")


def _places(anatomy: Anatomy, report: Report) -> Iterator[tuple[Site, Location]]:
    """Locate every kind in every layer; a kind whose module is missing somewhere is disabled."""
    wanted = [Site("embed"), Site("final_norm")]
    wanted += [Site(kind, layer) for kind in _PER_LAYER for layer in range(anatomy.n_layers)]
    found: dict[Site, Location] = {}
    for site in wanted:
        try:
            found[site] = anatomy.locate(site)
        except InterpError as error:
            kinds = {"z": ("z", "head"), "mlp_act": ("mlp_act", "neuron")}.get(site.kind, (site.kind,))
            report.disable(str(error).partition(" Its sites")[0], *kinds)
    yield from ((site, place) for site, place in found.items() if site.kind not in report.disabled)


def _error(got: Tensor, expected: Tensor, scale: Tensor | None = None) -> float:
    """Return the largest difference, relative to the largest expected value or to ``scale``."""
    if got.shape != expected.shape:
        return float("inf")
    size = (expected if scale is None else scale).float().abs().max().item()
    return (got.float() - expected.float()).abs().max().item() / max(size, 1e-30)


def _note(report: Report, equation: str, errors: Sequence[float], limit: float) -> bool:
    """Record the worst layer of an equation and tell whether it holds."""
    worst = max((float("inf") if error != error else error) for error in errors)
    report.errors[equation] = worst
    return worst <= limit


def _check_stream(anatomy: Anatomy, found: dict[Site, Tensor], report: Report) -> None:
    layers = range(anatomy.n_layers - 1)
    errors = [_error(found[Site("resid_pre", k + 1)], found[Site("resid_post", k)]) for k in layers] or [0.0]
    if not _note(report, "resid_pre.(l+1) = resid_post.l", errors, tolerance(anatomy.hf.dtype)):
        raise ModelError(
            f"{anatomy.name!r}: the blocks at {anatomy.family.blocks!r} do not hand one residual stream on "
            f"(relative error {max(errors):.1e}). "
            "Pass family={'blocks': ...} with the path of the block list."
        )
    last = found[Site("resid_post", anatomy.n_layers - 1)]
    if not _note(report, "causal", [_error(last[0, :-1], last[1, :-1])], 1e-3):
        raise ModelError(
            f"{anatomy.name!r} ({anatomy.hf.config.model_type}) is not a causal language model: a later "
            "token changes what stands before it. Encoders are not supported; load a decoder-only model."
        )


def _check_sums(anatomy: Anatomy, found: dict[Site, Tensor], report: Report) -> None:
    """Check ``resid_post = resid_pre + attn_out + mlp_out`` and ``resid_mid = resid_pre + attn_out``.

    Errors are relative to what the block adds, not to the stream, which may be larger by orders of magnitude.
    """
    if {"attn_out", "mlp_out"} & set(report.disabled):
        report.disable("without 'attn_out' there is no 'resid_mid'.", "resid_mid")
        return
    sums, middles = [], []
    for layer in range(anatomy.n_layers):
        pre, post, attention, mlp = (
            found[Site(kind, layer)] for kind in ("resid_pre", "resid_post", "attn_out", "mlp_out")
        )
        scale = _scale(post - pre, post, anatomy.hf.dtype)
        sums.append(_error(pre + attention + mlp, post, scale))
        if (middle := found.get(Site("resid_mid", layer))) is not None:
            middles.append(_error(pre + attention, middle, scale))
    limit = tolerance(anatomy.hf.dtype)
    if not _note(report, "resid_post.l = resid_pre.l + attn_out.l + mlp_out.l", sums, limit):
        worst = f"{max(sums):.1e} of what the block adds"
        text = f"resid_pre + attn_out + mlp_out differs from resid_post by {worst}."
        report.disable(text, "attn_out", "mlp_out", "resid_mid")
    elif middles and not _note(report, "resid_mid.l = resid_pre.l + attn_out.l", middles, limit):
        text = f"resid_pre + attn_out differs from resid_mid by {max(middles):.1e} of what the block adds."
        report.disable(text, "resid_mid")


def _scale(change: Tensor, stream: Tensor, dtype: torch.dtype) -> Tensor:
    """Return what a block adds, or the rounding noise of a much larger stream."""
    noise = stream.float().abs().max() * torch.finfo(dtype).eps / tolerance(dtype) * 4
    return torch.maximum(change.float().abs().max(), noise)


def _check_projection(
    anatomy: Anatomy, found: dict[Site, Tensor], report: Report, kind: str, source: str, path: str
) -> None:
    """Check ``kind = postnorm(projection(source)) * multiplier`` at every layer."""
    if source in report.disabled or kind in report.disabled:
        return
    errors = []
    with torch.no_grad():
        for layer, block in enumerate(anatomy.blocks):
            projection = anatomy.module(layer, path, source)
            writer = anatomy.module(layer, getattr(anatomy.family, kind), kind)
            inner = found[Site(source, layer)]
            out = projection.forward(inner.flatten(-2) if source == "z" else inner)
            out = out if _contains(writer, projection, block) else writer.forward(out)
            errors.append(_error(out * anatomy.multiplier, found[Site(kind, layer)]))
    name = f"{kind}.l = postnorm({'o_proj' if source == 'z' else 'down_proj'}({source}.l)) * multiplier"
    if not _note(report, name, errors, tolerance(anatomy.hf.dtype)):
        others = {"z": ("z", "head"), "mlp_act": ("mlp_act", "neuron")}[source]
        report.disable(f"'{source}' through {path!r} differs from {kind} by {max(errors):.1e}.", *others)


def _contains(outer: nn.Module, inner: nn.Module, block: nn.Module) -> bool:
    """Tell whether a contribution is read at the projection or around it, rather than at a post-norm."""
    return outer is not block and any(module is inner for module in outer.modules())


def _check_head_sum(anatomy: Anatomy, found: dict[Site, Tensor], report: Report) -> None:
    if "head" in report.disabled:
        return
    z = found[Site("z", 0)].flatten(-2)
    with torch.no_grad():
        projection = anatomy.module(0, anatomy.family.out_projection, "head")
        views = [anatomy.locate(Site("head", 0, index)).view for index in range(anatomy.n_heads)]
        total = torch.stack([view.read(z, z).float() for view in views]).sum(0)
        bias = projection.forward(torch.zeros_like(z))
        error = _error(total + bias.float(), projection.forward(z))
    if not _note(report, "o_proj(z.0) = sum over h of head.0.h + bias", [error], tolerance(anatomy.hf.dtype)):
        report.disable(
            f"the heads' outputs do not sum to the projection's (relative error {error:.1e}).", "head"
        )


def _check_final(anatomy: Anatomy, found: dict[Site, Tensor], logits: Tensor, report: Report) -> None:
    if "final_norm" in report.disabled:
        return
    normed = found[Site("final_norm")]
    last = found[Site("resid_post", anatomy.n_layers - 1)]
    head: Any = anatomy.hf.get_output_embeddings()
    try:
        with torch.no_grad():
            norm = anatomy.locate(Site("final_norm")).module
            errors = [
                _error(norm.forward(last), normed),
                _error(finished(anatomy, head(normed[:, -1:])), logits),
            ]
    except (RuntimeError, AttributeError) as error:
        report.disable(f"the head cannot be applied to the final norm ({error}).", "final_norm")
        return
    if not _note(
        report, "logits = head(norm(resid_post of the last layer))", errors, tolerance(anatomy.hf.dtype)
    ):
        report.disable(f"head(norm(resid_post)) differs from the logits by {max(errors):.1e}.", "final_norm")


def finished(anatomy: Anatomy, raw: Tensor) -> Tensor:
    """Apply what the configuration says happens to logits after the head."""
    config = anatomy.hf.config.get_text_config()
    if (factor := getattr(config, "logit_scale", None)) is not None:
        raw = raw * factor
    if (divisor := getattr(config, "logits_scaling", None)) is not None:
        raw = raw / divisor
    if (cap := getattr(config, "final_logit_softcapping", None)) is not None:
        raw = torch.tanh(raw / cap) * cap
    return raw


def _check_pattern(anatomy: Anatomy, report: Report) -> None:
    """Check ``z.l.h = sum over keys of pattern.l.h * v.l.group(h)`` under eager attention."""
    kinds = ("pattern", "z", "v")
    if {"z", "v"} & set(report.disabled):
        report.disable(
            "'z' or 'v' is not available, so attention probabilities cannot be checked.", "pattern"
        )
        return
    try:
        places = {Site(k, n): anatomy.locate(Site(k, n)) for k in kinds for n in range(anatomy.n_layers)}
        found, _ = read_once(anatomy, places, eager=True)
    except (InterpError, RuntimeError, TypeError, AttributeError, IndexError) as error:
        report.disable(
            f"attention probabilities are not returned ({str(error).partition(' Its sites')[0]})", "pattern"
        )
        return
    clip = float(getattr(anatomy.hf.config.get_text_config(), "clip_qkv", None) or 0.0)
    for site, tensor in found.items() if clip else ():
        found[site] = tensor.clamp(-clip, clip) if site.kind == "v" else tensor
    errors = [
        attention_error(*(found[Site(kind, layer)] for kind in kinds)) for layer in range(anatomy.n_layers)
    ]
    if not _note(
        report, "z.l.h = sum over keys of pattern.l.h * v.l.group(h)", errors, tolerance(anatomy.hf.dtype)
    ):
        text = f"pattern times v differs from z by {max(errors):.1e}."
        report.disable(text, "pattern", *(("v",) if anatomy.family.layout == "separate" else ("q", "k", "v")))


def attention_error(pattern: Tensor, z: Tensor, v: Tensor) -> float:
    """Return how far ``pattern v`` is from ``z``; heads share values by group."""
    if v.shape[-1] != z.shape[-1] or pattern.shape[-2] != z.shape[-2]:
        return float("inf")
    values = v.repeat_interleave(z.shape[-2] // v.shape[-2], dim=-2)
    return _error(torch.einsum("bqhk,bkhd->bqhd", pattern.float(), values.float()), z)


def _check_edit(anatomy: Anatomy, found: dict[Site, Tensor], logits: Tensor, report: Report) -> None:
    """Write to the first block and demand that the stream moves by that much and the logits change."""
    kind = "resid_post" if "attn_out" in anatomy.disabled else "attn_out"
    site, after = Site(kind, 0), Site("resid_mid" if "resid_mid" not in anatomy.disabled else "resid_post", 0)
    generator = torch.Generator().manual_seed(0)
    scale = found[Site("resid_post", 0)].float().std().item()
    noise = torch.randn(found[site].shape, generator=generator) * scale
    noise = noise.to(found[site])
    writer = Writer(site, anatomy.locate(site, write=True), lambda current: current + noise)
    edited, changed = read_once(anatomy, {after: anatomy.locate(after)}, writers=[writer])
    moved = _error(changed, logits)
    report.facts["an edit moves the logits by"] = moved
    if after.kind == "resid_mid":
        error = _error(edited[after] - found[after], noise)
        _note(report, "an edit of attn_out.0 moves resid_mid.0 by the same", [error], float("inf"))
        if error > 1e-3 + 100 * tolerance(anatomy.hf.dtype):
            reason = f"an edit of attn_out.0 does not move resid_mid.0 by the same ({error:.1e})."
            raise ModelError(f"{anatomy.name!r}: {reason} Pass family={{...}} at load.")
    if not moved > 0:
        raise ModelError(
            f"{anatomy.name!r}: an edit at '{site}' does not change the logits, so hooks do not reach it."
        )
