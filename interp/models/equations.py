"""The equations of ``interp.sites``, as one list: asked of every model at load, and by the doctor.

At load they are asked of one tiny forward pass. A kind of site whose equation fails is disabled with the
reason, never guessed. Three passes of ten tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from interp.errors import InterpError, ModelError
from interp.models.architecture import Architecture, Location
from interp.models.forward import LOGITS, forward
from interp.models.hooks import Frame, Stop, Writer, eager_attention, evaluating, reading, writing
from interp.models.positions import Batch
from interp.models.readout import Readout
from interp.sites import Site

__all__ = [
    "FINAL",
    "MIDDLE",
    "STREAM",
    "SUM",
    "Equation",
    "Report",
    "attention_error",
    "probe_batch",
    "read_once",
    "relative",
    "tolerance",
    "validated",
]

_LENGTH = 5

Read = Mapping[Site, Tensor]
"""Sites to their values ``[batch pos ...]``, all of one pass."""


def tolerance(dtype: torch.dtype) -> float:
    """The relative error that rounding in a dtype explains, with a margin."""
    return 1e-5 if dtype in (torch.float32, torch.float64) else 8 * torch.finfo(dtype).eps


def relative(got: Tensor, expected: Tensor, scale: Tensor | None = None) -> float:
    """The largest difference over the largest expected value or ``scale``; infinite for other shapes."""
    if got.shape != expected.shape:
        return float("inf")
    size = (expected if scale is None else scale).double().abs().max().item()
    return (got.double() - expected.double()).abs().max().item() / max(size, 1e-30)


@dataclass(frozen=True)
class Equation:
    """One equation between sites.

    Attributes:
        name: the equation, as in ``Model.certificate``.
        kinds: the kinds that must be on offer for it to be asked.
        errors: its relative error in every layer, or one error where it holds once.
        reason: what is said of the kinds that are disabled where it fails; ``error`` is the largest, and
            ``family`` the row in use.
        disables: those kinds; () where the model itself is refused.
    """

    name: str
    kinds: tuple[str, ...]
    errors: Callable[[Architecture, Read], list[float]]
    reason: str
    disables: tuple[str, ...] = ()


def _stream(architecture: Architecture, read: Read) -> list[float]:
    before = [
        read[Site("embed")],
        *(read[Site("resid_post", layer)] for layer in range(architecture.n_layers - 1)),
    ]
    return [relative(read[Site("resid_pre", layer)], given) for layer, given in enumerate(before)]


def _sums(architecture: Architecture, read: Read) -> list[float]:
    return [
        relative(pre + read[Site("attn_out", layer)] + read[Site("mlp_out", layer)], post, _added(pre, post))
        for layer, pre, post in _blocks(architecture, read)
    ]


def _middles(architecture: Architecture, read: Read) -> list[float]:
    return [
        relative(pre + read[Site("attn_out", layer)], read[Site("resid_mid", layer)], _added(pre, post))
        for layer, pre, post in _blocks(architecture, read)
    ]


def _blocks(architecture: Architecture, read: Read) -> list[tuple[int, Tensor, Tensor]]:
    """List every layer with the stream before and after it."""
    layers = range(architecture.n_layers)
    return [(layer, read[Site("resid_pre", layer)], read[Site("resid_post", layer)]) for layer in layers]


def _added(pre: Tensor, post: Tensor) -> Tensor:
    """The size of what a block adds, or the rounding noise of a stream that is far larger.

    Errors are relative to this and not to the stream, which may be larger by orders of magnitude.
    """
    noise = post.double().abs().max() * torch.finfo(post.dtype).eps / tolerance(post.dtype) * 4
    return torch.maximum((post - pre).double().abs().max(), noise)


def _attention_projection(architecture: Architecture, read: Read) -> list[float]:
    return _projected(architecture, read, "attn_out", "z", architecture.family.out_projection)


def _mlp_projection(architecture: Architecture, read: Read) -> list[float]:
    return _projected(architecture, read, "mlp_out", "mlp_act", architecture.family.down_projection)


def _projected(architecture: Architecture, read: Read, kind: str, source: str, path: str) -> list[float]:
    errors = []
    for layer, block in enumerate(architecture.blocks):
        projection = architecture.module(layer, path, source)
        writer = architecture.module(layer, getattr(architecture.family, kind), kind)
        inner = read[Site(source, layer)]
        out = projection.forward(inner.flatten(-2) if source == "z" else inner)
        out = out if _contains(writer, projection, block) else writer.forward(out)
        errors.append(relative(out * architecture.multiplier, read[Site(kind, layer)]))
    return errors


def _contains(outer: nn.Module, inner: nn.Module, block: nn.Module) -> bool:
    """Tell whether a contribution is read at the projection or around it, rather than at a post-norm."""
    return outer is not block and any(module is inner for module in outer.modules())


def _head_sum(architecture: Architecture, read: Read) -> list[float]:
    z = read[Site("z", 0)].flatten(-2)
    projection = architecture.module(0, architecture.family.out_projection, "head")
    views = [architecture.locate(Site("head", 0, index)).view for index in range(architecture.n_heads)]
    total = torch.stack([view.read(z, z).float() for view in views]).sum(0)
    bias = projection.forward(torch.zeros_like(z))
    return [relative(total + bias.float(), projection.forward(z))]


def _final(architecture: Architecture, read: Read) -> list[float]:
    """Compare the logits at the last positions, as many as were kept, and the final norm if it was read."""
    readout = Readout.of(architecture)
    normed = readout.normed(read[Site("resid_post", architecture.n_layers - 1)])
    logits = read[LOGITS]
    errors = [relative(readout.of_normed(normed[:, -logits.shape[1] :]), logits)]
    if (site := Site("final_norm")) in read:
        errors.append(relative(normed, read[site]))
    return errors


def _patterns(architecture: Architecture, read: Read) -> list[float]:
    clip = float(getattr(architecture.hf.config.get_text_config(), "clip_qkv", None) or 0.0)
    errors = []
    for layer in range(architecture.n_layers):
        pattern, z, v = (read[Site(kind, layer)] for kind in ("pattern", "z", "v"))
        errors.append(attention_error(pattern, z, v.clamp(-clip, clip) if clip else v))
    return errors


def attention_error(pattern: Tensor, z: Tensor, v: Tensor) -> float:
    """How far ``pattern v`` is from ``z``; heads share values by group."""
    if v.shape[-1] != z.shape[-1] or pattern.shape[-2] != z.shape[-2]:
        return float("inf")
    values = v.repeat_interleave(z.shape[-2] // v.shape[-2], dim=-2)
    return relative(torch.einsum("bqhk,bkhd->bqhd", pattern.float(), values.float()), z)


STREAM = Equation(
    "resid_pre.(l+1) = resid_post.l",
    ("resid_pre", "resid_post"),
    _stream,
    "the blocks at {family.blocks!r} do not hand one residual stream on (relative error {error:.1e}). "
    "Pass family={{'blocks': ...}} with the path of the block list.",
)
SUM = Equation(
    "resid_post.l = resid_pre.l + attn_out.l + mlp_out.l",
    ("attn_out", "mlp_out"),
    _sums,
    "resid_pre + attn_out + mlp_out differs from resid_post by {error:.1e} of what the block adds.",
    ("attn_out", "mlp_out", "resid_mid"),
)
MIDDLE = Equation(
    "resid_mid.l = resid_pre.l + attn_out.l",
    ("resid_mid", "attn_out"),
    _middles,
    "resid_pre + attn_out differs from resid_mid by {error:.1e} of what the block adds.",
    ("resid_mid",),
)
FINAL = Equation(
    "logits = head(norm(resid_post of the last layer))",
    ("final_norm",),
    _final,
    "head(norm(resid_post)) differs from the logits by {error:.1e}.",
    ("final_norm",),
)
_PATTERN = Equation(
    "z.l.h = sum over keys of pattern.l.h * v.l.group(h)",
    ("z", "v"),
    _patterns,
    "pattern times v differs from z by {error:.1e}.",
    ("pattern", "v"),
)
_EQUATIONS = (
    SUM,
    MIDDLE,
    Equation(
        "attn_out.l = postnorm(o_proj(z.l)) * multiplier",
        ("z", "attn_out"),
        _attention_projection,
        "'z' through {family.out_projection!r} differs from attn_out by {error:.1e}.",
        ("z", "head"),
    ),
    Equation(
        "mlp_out.l = postnorm(down_proj(mlp_act.l)) * multiplier",
        ("mlp_act", "mlp_out"),
        _mlp_projection,
        "'mlp_act' through {family.down_projection!r} differs from mlp_out by {error:.1e}.",
        ("mlp_act", "neuron"),
    ),
    Equation(
        "o_proj(z.0) = sum over h of head.0.h + bias",
        ("z", "head"),
        _head_sum,
        "the heads' outputs do not sum to the projection's (relative error {error:.1e}).",
        ("head",),
    ),
    FINAL,
)


@dataclass(eq=False)
class Report:
    """What validation measured.

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

    def note(self, equation: str, errors: Sequence[float]) -> float:
        """Record an equation's error in its worst layer, and return it; NaN counts as infinite."""
        worst = max((float("inf") if error != error else error) for error in errors)
        self.errors[equation] = worst
        return worst

    def ask(self, equation: Equation, architecture: Architecture, read: Read) -> None:
        """Disable what an equation says where it does not hold, or where it cannot be computed."""
        if set(equation.kinds) & set(self.disabled):
            return
        try:
            with torch.no_grad(), evaluating(architecture.modules):
                worst = self.note(equation.name, equation.errors(architecture, read))
        except (RuntimeError, AttributeError) as error:
            self.disable(f"'{equation.name}' cannot be computed ({error}).", *equation.disables)
            return
        if worst > tolerance(architecture.hf.dtype):
            text = equation.reason.format(error=worst, family=architecture.family)
            self.disable(text, *equation.disables)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for ``Model.certificate``."""
        return {"errors": self.errors, "disabled": self.disabled, **self.facts}


def validated(architecture: Architecture) -> tuple[Architecture, Report]:
    """Check every equation; return the architecture with the failing kinds disabled, and the report.

    Raises:
        ModelError: the model is not causal, or its blocks do not form a residual stream.
    """
    report = Report()
    if architecture.parallel:
        report.disable(_no_middle(architecture), "resid_mid")
    read, logits = _guarded(architecture, _places(architecture, report))
    _check_stream(architecture, read, report)
    if {"attn_out", "mlp_out"} & set(report.disabled):
        report.disable("without 'attn_out' there is no 'resid_mid'.", "resid_mid")
    for equation in _EQUATIONS:
        report.ask(equation, architecture, {**read, LOGITS: logits})
    _check_pattern(architecture, report)
    checked = replace(architecture, disabled=dict(report.disabled))
    _check_edit(checked, read, logits, report)
    token = architecture.embedding(probe_batch(architecture).input_ids)
    report.facts["embed_is_token"] = bool(torch.equal(token, read[Site("embed")]))
    return checked, report


def probe_batch(architecture: Architecture) -> Batch:
    """Make two rows of tokens that differ in the last one only, without padding."""
    vocab = architecture.vocab_size
    row = [(7 + 11 * position) % vocab for position in range(_LENGTH)]
    other = [*row[:-1], (row[-1] + 1) % vocab]
    device = architecture.device
    ids = torch.tensor([row, other], device=device)
    return Batch((0, 1), (_LENGTH, _LENGTH), ids, torch.ones_like(ids), (0, 0))


def read_once(
    architecture: Architecture,
    places: Mapping[Site, Location],
    *,
    writers: Sequence[Writer] = (),
    eager: bool = False,
) -> tuple[dict[Site, Tensor], Tensor]:
    """Run the probe batch once; return what was read and the last logits (none under eager attention)."""
    batch = probe_batch(architecture)
    frame = Frame(batch=2, width=_LENGTH, stop=eager)
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(evaluating(architecture.modules))
        if eager:
            stack.enter_context(eager_attention(architecture.modules))
        stack.enter_context(writing(writers, frame))
        stack.enter_context(reading(places, frame))
        try:
            logits = forward(architecture, batch, "last").logits[:, -1:]
        except Stop:
            logits = torch.zeros(0)
    return dict(frame.found), logits


def _no_middle(architecture: Architecture) -> str:
    kind = architecture.hf.config.model_type
    if architecture.family.types:
        return f"{kind} runs attention and MLP in parallel, so it has no 'resid_mid'."
    return f"no module of {kind} reads a stream between attention and MLP, so it has no 'resid_mid'."


_PER_LAYER = ("resid_pre", "q", "k", "v", "z", "attn_out", "resid_mid", "mlp_act", "mlp_out", "resid_post")


def _places(architecture: Architecture, report: Report) -> dict[Site, Location]:
    """Locate every kind in every layer; a kind whose module is missing somewhere is disabled."""
    wanted = [Site("embed"), Site("final_norm")]
    wanted += [Site(kind, layer) for kind in _PER_LAYER for layer in range(architecture.n_layers)]
    found: dict[Site, Location] = {}
    for site in wanted:
        try:
            found[site] = architecture.locate(site)
        except InterpError as error:
            kinds = {"z": ("z", "head"), "mlp_act": ("mlp_act", "neuron")}.get(site.kind, (site.kind,))
            report.disable(str(error).partition(" Its sites")[0], *kinds)
    return {site: place for site, place in found.items() if site.kind not in report.disabled}


def _guarded(
    architecture: Architecture, places: Mapping[Site, Location]
) -> tuple[dict[Site, Tensor], Tensor]:
    try:
        return read_once(architecture, places)
    except (RuntimeError, TypeError, AttributeError, KeyError, IndexError) as error:
        raise ModelError(
            f"{architecture.name!r} could not run on {_LENGTH} tokens with family row "
            f"{architecture.family.name!r}: {error}. "
            "If its modules are named differently, pass family={...} at load."
        ) from error


def _check_stream(architecture: Architecture, read: Read, report: Report) -> None:
    """Refuse a model whose blocks do not hand one stream on, or whose tokens see later ones."""
    _check_finite(architecture, read)
    worst = report.note(STREAM.name, STREAM.errors(architecture, read))
    if worst > tolerance(architecture.hf.dtype):
        text = STREAM.reason.format(error=worst, family=architecture.family)
        raise ModelError(f"{architecture.name!r}: {text}")
    last = read[Site("resid_post", architecture.n_layers - 1)]
    if report.note("causal", [relative(last[0, :-1], last[1, :-1])]) > 1e-3:
        raise ModelError(
            f"{architecture.name!r} ({architecture.hf.config.model_type}) is not a causal language model: a "
            "later token changes what stands before it. Encoders are not supported; load a decoder-only "
            "model."
        )


def _check_finite(architecture: Architecture, read: Read) -> None:
    """Refuse a model whose stream is not finite, by its true reason.

    Raises:
        ModelError: NaN or infinite values, with the first site that has them.
    """
    stream = [Site("embed"), *(Site("resid_post", layer) for layer in range(architecture.n_layers))]
    bad = next((site for site in stream if site in read and not read[site].isfinite().all()), None)
    if bad is None:
        return
    dtype, what = architecture.hf.dtype, "NaN" if read[bad].isnan().any() else "infinite values"
    if any(not weight.isfinite().all() for weight in architecture.hf.parameters()):
        why = "some of its weights are not finite: load or save them again."
    else:
        why = f"its values leave the range of {dtype}: load it in float32 or bfloat16."
    raise ModelError(f"{architecture.name!r} has {what} at '{bad}' on {_LENGTH} tokens; {why}")


def _check_pattern(architecture: Architecture, report: Report) -> None:
    """Ask for attention probabilities, which take a pass of their own under eager attention."""
    kinds = ("pattern", "z", "v")
    if {"z", "v"} & set(report.disabled):
        text = "'z' or 'v' is not available, so attention probabilities cannot be checked."
        report.disable(text, "pattern")
        return
    layers = range(architecture.n_layers)
    try:
        places = {Site(k, n): architecture.locate(Site(k, n)) for k in kinds for n in layers}
        read, _ = read_once(architecture, places, eager=True)
    except (InterpError, RuntimeError, TypeError, AttributeError, IndexError) as error:
        why = str(error).partition(" Its sites")[0]
        report.disable(f"attention probabilities are not returned ({why})", "pattern")
        return
    report.ask(_PATTERN, architecture, read)
    if "pattern" in report.disabled and architecture.family.layout != "separate":
        # one projection holds all three: where the values are not found, neither are the others
        report.disable(report.disabled["pattern"], "q", "k")


def _check_edit(architecture: Architecture, read: Read, logits: Tensor, report: Report) -> None:
    """Write to the first block and demand that the stream moves by that much and the logits change."""
    kind = "resid_post" if "attn_out" in architecture.disabled else "attn_out"
    middle = "resid_mid" if "resid_mid" not in architecture.disabled else "resid_post"
    site, after = Site(kind, 0), Site(middle, 0)
    generator = torch.Generator().manual_seed(0)
    scale = read[Site("resid_post", 0)].float().std().item()
    noise = (torch.randn(read[site].shape, generator=generator, dtype=torch.float32) * scale).to(read[site])
    writer = Writer(site, architecture.locate(site, write=True), lambda current: current + noise)
    edited, changed = read_once(architecture, {after: architecture.locate(after)}, writers=[writer])
    moved = relative(changed, logits)
    report.facts["an edit moves the logits by"] = moved
    if after.kind == "resid_mid":
        error = relative(edited[after] - read[after], noise)
        report.note("an edit of attn_out.0 moves resid_mid.0 by the same", [error])
        if error > 1e-3 + 100 * tolerance(architecture.hf.dtype):
            reason = f"an edit of attn_out.0 does not move resid_mid.0 by the same ({error:.1e})."
            raise ModelError(f"{architecture.name!r}: {reason} Pass family={{...}} at load.")
    if not moved > 0:
        raise ModelError(
            f"{architecture.name!r}: an edit at '{site}' does not change the logits, so hooks do not "
            "reach it."
        )
