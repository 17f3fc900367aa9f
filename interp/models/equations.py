"""The equations of ``interp.sites``, as one list: asked of every model at load, and by the doctor.

At load they are asked of one tiny forward pass. A kind of site whose equation fails is disabled with the
reason, never guessed. Three passes of ten tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from interp.errors import InterpError, ModelError
from interp.models.architecture import Architecture, Location, out_features
from interp.models.attention import mixing_errors, score_fault
from interp.models.experts import contains, expert_sums, mixed, routing_fault
from interp.models.forward import LOGITS
from interp.models.hooks import Writer, evaluating
from interp.models.padding import with_padding
from interp.models.probe_pass import Counted, probe_batch, read_once
from interp.models.readout import Readout
from interp.models.rounding import factor_error, relative, tolerance
from interp.sites import KINDS, OF_DICTIONARIES, Site

__all__ = [
    "FINAL",
    "MIDDLE",
    "STREAM",
    "SUM",
    "Equation",
    "Report",
    "relative",
    "tolerance",
    "validated",
]

Read = Mapping[Site, Tensor]
"""Sites to their values ``[batch pos ...]``, all of one pass."""


@dataclass(frozen=True)
class Equation:
    """One equation between sites.

    Attributes:
        name: the equation, as in ``Model.certificate``.
        kinds: the kinds that must be on offer for it to be asked; it is asked in the layers that have all.
        errors: its relative error in those layers, by layer.
        reason: what is said of the kinds that are disabled where it fails; ``error`` is the largest, and
            ``family`` the row in use.
        disables: those kinds; () where the model itself is refused.
        terms: kinds of which a layer has some: those there are make up the sum.
    """

    name: str
    kinds: tuple[str, ...]
    errors: Callable[[Architecture, Read], dict[int, float]]
    reason: str
    disables: tuple[str, ...] = ()
    terms: tuple[str, ...] = ()


PARTS = ("attn_out", "mixer_out", "mlp_out")
"""What a block may add to the stream."""


def _stream(architecture: Architecture, read: Read) -> dict[int, float]:
    layers = range(architecture.n_layers)
    given = [read[Site("embed")], *(read[Site("resid_post", layer)] for layer in layers[:-1])]
    return {layer: relative(read[Site("resid_pre", layer)], given[layer]) for layer in layers}


def _sums(architecture: Architecture, read: Read) -> dict[int, float]:
    return {
        layer: _sum_error(read, layer, PARTS, pre, post, post)
        for layer, pre, post in _blocks(architecture, read)
    }


def _sum_error(
    read: Read, layer: int, kinds: Sequence[str], pre: Tensor, total: Tensor, post: Tensor
) -> float:
    """How far a stream and the terms that are added to it are from their total."""
    parts = _with_terms(torch.zeros_like(pre, dtype=torch.double), read, layer, kinds)
    found = relative(_with_terms(pre, read, layer, kinds), total, _added(pre, post))
    return max(found, factor_error(pre, total, parts))


def _middles(architecture: Architecture, read: Read) -> dict[int, float]:
    return {
        layer: _sum_error(read, layer, PARTS[:2], pre, read[middle], post)
        for layer, pre, post in _blocks(architecture, read)
        if (middle := Site("resid_mid", layer)) in read
    }


def _with_terms(pre: Tensor, read: Read, layer: int, kinds: Sequence[str]) -> Tensor:
    """Add to a stream what the terms of a layer add."""
    for site in (Site(kind, layer) for kind in kinds):
        pre = pre + read[site] if site in read else pre
    return pre


def _blocks(architecture: Architecture, read: Read) -> list[tuple[int, Tensor, Tensor]]:
    """List every layer with the stream before and after it."""
    layers = range(architecture.n_layers)
    return [(layer, read[Site("resid_pre", layer)], read[Site("resid_post", layer)]) for layer in layers]


def _having(architecture: Architecture, read: Read, *kinds: str) -> list[int]:
    """List the layers of which every kind was read."""
    layers = range(architecture.n_layers)
    return [layer for layer in layers if all(Site(kind, layer) in read for kind in kinds)]


def _added(pre: Tensor, post: Tensor) -> Tensor:
    """The size of what a block adds, or the rounding noise of a stream that is far larger.

    Errors are relative to this and not to the stream, which may be larger by orders of magnitude.
    """
    noise = post.double().abs().max() * torch.finfo(post.dtype).eps / tolerance(post.dtype) * 4
    return torch.maximum((post - pre).double().abs().max(), noise)


def _attention_projection(architecture: Architecture, read: Read) -> dict[int, float]:
    return _projected(architecture, read, "attn_out", "z", "out_projection")


def _mlp_projection(architecture: Architecture, read: Read) -> dict[int, float]:
    return _projected(architecture, read, "mlp_out", "mlp_act", "down_projection")


def _projected(
    architecture: Architecture, read: Read, kind: str, source: str, field: str
) -> dict[int, float]:
    errors = {}
    for layer in _having(architecture, read, kind, source):
        projection = architecture.module(layer, field, source)
        writer = architecture.module(layer, kind, kind)
        inner = read[Site(source, layer)]
        out = projection.forward(inner.flatten(-2) if source == "z" else inner)
        out = out if contains(writer, projection, architecture.blocks[layer]) else writer.forward(out)
        errors[layer] = relative(out * architecture.multiplier, read[Site(kind, layer)])
    return errors


def _head_sum(architecture: Architecture, read: Read) -> dict[int, float]:
    """Compare in the first layer that has heads, and in those whose heads are of another number."""
    errors: dict[int, float] = {}
    seen: set[int] = set()
    for layer in _having(architecture, read, "z"):
        count = architecture.anatomy.heads[layer]
        if count in seen:
            continue
        seen.add(count)
        z = read[Site("z", layer)].flatten(-2)
        projection = architecture.module(layer, "out_projection", "head")
        views = [architecture.locate(Site("head", layer, index)).view for index in range(count)]
        total = torch.stack([view.read(z, z).float() for view in views]).sum(0)
        bias = projection.forward(torch.zeros_like(z))
        errors[layer] = relative(total + bias.float(), projection.forward(z))
    return errors


def _final(architecture: Architecture, read: Read) -> dict[int, float]:
    """Compare the logits at the last positions, as many as were kept, and the final norm if it was read."""
    readout = Readout.of(architecture)
    last = architecture.n_layers - 1
    normed = readout.normed(read[Site("resid_post", last)])
    logits = read[LOGITS]
    errors = [relative(readout.of_normed(normed[:, -logits.shape[1] :]), logits)]
    if (site := Site("final_norm")) in read:
        errors.append(relative(normed, read[site]))
    return {last: max(errors, key=lambda error: float("inf") if error != error else error)}


STREAM = Equation(
    "resid_pre.(l+1) = resid_post.l",
    ("resid_pre", "resid_post"),
    _stream,
    "the blocks at {family.blocks!r} do not hand one residual stream on (relative error {error:.1e}). "
    "Pass family={{'blocks': ...}} with the path of the block list.",
)
SUM = Equation(
    "resid_post.l = resid_pre.l + attn_out.l + mlp_out.l",
    (),
    _sums,
    "resid_pre + attn_out + mlp_out differs from resid_post by {error:.1e} of what the block adds.",
    (*PARTS, "resid_mid"),
    terms=PARTS,
)
MIDDLE = Equation(
    "resid_mid.l = resid_pre.l + attn_out.l",
    ("resid_mid",),
    _middles,
    "resid_pre + attn_out differs from resid_mid by {error:.1e} of what the block adds.",
    ("resid_mid",),
    terms=PARTS[:2],
)
FINAL = Equation(
    "logits = head(norm(resid_post of the last layer))",
    ("final_norm",),
    _final,
    "head(norm(resid_post)) differs from the logits by {error:.1e}.",
    ("final_norm",),
)
_PATTERN = Equation(
    "z.l.h = gate.l.h * sum over keys of pattern.l.h * vnorm(v.l.group(h))",
    ("z", "v"),
    mixing_errors,
    "pattern times v differs from z by {error:.1e}.",
    ("pattern", "v"),
)
_EXPERTS = Equation(
    "mlp_out.l = postnorm(sum over e of expert.l.e + shared_expert.l) * multiplier",
    (),
    lambda architecture, read: expert_sums(architecture),
    "the experts and the shared expert do not sum to mlp_out (relative error {error:.1e}).",
    ("expert", "shared_expert"),
)
_EQUATIONS = (
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

    def note(self, equation: str, errors: Iterable[float]) -> float:
        """Record an equation's error in its worst layer, and return it; NaN counts as infinite."""
        worst = max((float("inf") if error != error else error) for error in errors)
        self.errors[equation] = worst
        return worst

    def ask(self, equation: Equation, architecture: Architecture, read: Read) -> None:
        """Disable what an equation says where it does not hold, or where it cannot be computed."""
        if set(equation.kinds) & set(self.disabled):
            return
        if equation.terms and not {site.kind for site in read} & set(equation.terms) - set(self.disabled):
            return
        try:
            with torch.no_grad(), evaluating(architecture.modules):
                errors = equation.errors(architecture, read)
        except (RuntimeError, AttributeError, ValueError, TypeError, LookupError) as error:
            self.disable(f"'{equation.name}' cannot be computed ({error}).", *equation.disables)
            return
        if not errors:
            return
        worst = self.note(equation.name, errors.values())
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
    read, logits = _guarded(architecture, _places(architecture, report), report)
    _check_stream(architecture, read, report)
    if "final_norm" not in report.disabled:
        architecture = _with_logits(architecture, {**read, LOGITS: logits})
    _check_sums(architecture, read, report)
    for equation in _EQUATIONS:
        report.ask(equation, architecture, {**read, LOGITS: logits})
    _check_widths(architecture, report)
    _check_pattern(architecture, report)
    _check_experts(architecture, report)
    for kind in _RARE:
        if not architecture.anatomy.layers(kind):
            report.disabled.pop(kind, None)  # no model without a recurrence needs to hear of it
    if not architecture.anatomy.layers("expert") and mixed(architecture):
        report.disable("its experts are in no module of a known form.", "expert", "router")
    checked = replace(architecture, disabled=dict(report.disabled))
    _check_edit(checked, read, logits, report)
    token = architecture.embedding(probe_batch(architecture).input_ids)
    report.facts["embed_is_token"] = bool(torch.equal(token, read[Site("embed")]))
    return checked if architecture.family.types else with_padding(checked), report


def _with_logits(architecture: Architecture, read: Read) -> Architecture:
    """Take the head's output as it is, where that and not what the configuration says gives the logits.

    What holds a decoder beside others has a head of its own, and some leave out the decoder's scale.
    """
    plain = replace(architecture, family=replace(architecture.family, plain_logits=True))
    whole, bare = Report(), Report()
    whole.ask(FINAL, architecture, read)
    bare.ask(FINAL, plain, read)
    return plain if "final_norm" in whole.disabled and not bare.disabled else architecture


def _check_sums(architecture: Architecture, read: Read, report: Report) -> None:
    """Ask what blocks add; where the whole does not add up, the middle may vouch for attention."""
    alone = Report(disabled=dict(report.disabled))
    alone.ask(MIDDLE, architecture, read)
    mixing = {site.layer for site in read if site.kind in PARTS[:2]}
    vouched = mixing and mixing <= {site.layer for site in read if site.kind == "resid_mid"}
    vouched = vouched and MIDDLE.name in alone.errors and "resid_mid" not in alone.disabled
    whole = Report(disabled=dict(report.disabled))
    whole.ask(SUM, architecture, read)
    if vouched and SUM.name in whole.errors and "attn_out" in whole.disabled.keys() - report.disabled.keys():
        report.disable(whole.disabled["attn_out"], "mlp_out")
        return
    report.ask(SUM, architecture, read)


_RARE = ("mixer_out", "router", "expert", "shared_expert")


def _check_experts(architecture: Architecture, report: Report) -> None:
    """Ask whether experts add up to the MLP, and whether a router follows its logits."""
    if not architecture.anatomy.layers("expert"):
        return
    if "mlp_out" in report.disabled:
        why = f"its experts cannot be added up without 'mlp_out': {report.disabled['mlp_out']}"
        report.disable(why, "expert", "shared_expert")
    if architecture.anatomy.layers("shared_expert") and "shared_expert" in report.disabled:
        report.disable(report.disabled["shared_expert"], "expert")
    if "expert" not in report.disabled:
        report.ask(_EXPERTS, architecture, {})
    if "router" not in report.disabled and (why := routing_fault(architecture)):
        report.disable(why, "router")


def _no_middle(architecture: Architecture) -> str:
    kind = architecture.hf.config.model_type
    if architecture.family.types:
        return f"{kind} runs attention and MLP in parallel, so it has no 'resid_mid'."
    return f"no module of {kind} reads a stream between attention and MLP, so it has no 'resid_mid'."


_PER_LAYER = tuple(
    kind
    for kind, row in KINDS.items()
    if row.layered and row.index != "required" and kind not in OF_DICTIONARIES
)
_ALONG = {"z": ("z", "head"), "mlp_act": ("mlp_act", "neuron")}
_NAMED = {"z": "out_projection", "mlp_act": "down_projection"}


def _places(architecture: Architecture, report: Report) -> dict[Site, Location]:
    """Locate every kind in the layers that have it; a kind that no layer has is disabled."""
    found: dict[Site, Location] = {Site("embed"): architecture.locate(Site("embed"))}
    try:
        found[Site("final_norm")] = architecture.locate(Site("final_norm"))
    except InterpError as error:
        report.disable(str(error).partition(" Its sites")[0], "final_norm")
    for kind in _PER_LAYER:
        layers = architecture.anatomy.layers(kind)
        if not layers and kind != "pattern":
            field = _NAMED.get(kind, kind)
            text = f"no module was found for '{kind}'; if there is one, pass family={{'{field}': 'path'}}."
            report.disable(text, *_ALONG.get(kind, (kind,)))
        if kind != "pattern" and kind not in report.disabled:
            found |= {(site := Site(kind, layer)): architecture.locate(site) for layer in layers}
    return found


def _guarded(
    architecture: Architecture, places: Mapping[Site, Location], report: Report
) -> tuple[dict[Site, Tensor], Tensor]:
    """Read every site once; a kind that is not read exactly once in a pass is disabled."""
    counted = Counted()
    try:
        found, logits = read_once(architecture, places, counted=counted)
    except (RuntimeError, TypeError, ValueError, AttributeError, LookupError, NotImplementedError) as error:
        raise ModelError(
            f"{architecture.name!r} could not run on {probe_batch(architecture).width} tokens with family "
            f"row {architecture.family.name!r}: {type(error).__name__}: {error}. "
            "If its modules are named differently, pass family={...} at load."
        ) from error
    for site in places:
        if (times := counted.fired[site]) == 1:
            continue
        what = f"'{site}' is computed {times} times in one pass, so that it names no one value."
        what = what if times else f"the module of '{site}' is not called in a pass."
        if site.kind in _STREAM_KINDS:
            raise ModelError(f"{architecture.name!r}: {what} Pass family={{'blocks': ...}} at load.")
        report.disable(what, *_ALONG.get(site.kind, (site.kind,)))
    return {site: value for site, value in found.items() if site.kind not in report.disabled}, logits


_STREAM_KINDS = ("embed", "resid_pre", "resid_post")


def _check_stream(architecture: Architecture, read: Read, report: Report) -> None:
    """Refuse a model whose blocks do not hand one stream on, or whose tokens see later ones."""
    _check_finite(architecture, read)
    _check_shapes(architecture, read)
    worst = report.note(STREAM.name, STREAM.errors(architecture, read).values())
    if worst > tolerance(architecture.hf.dtype):
        text = STREAM.reason.format(error=worst, family=architecture.family)
        raise ModelError(f"{architecture.name!r}: {text}")
    last = read[Site("resid_post", architecture.n_layers - 1)]
    if last.shape[1] > 1 and report.note("causal", [relative(last[0, :-1], last[1, :-1])]) > 1e-3:
        raise ModelError(
            f"{architecture.name!r} ({architecture.hf.config.model_type}) is not a causal language model: a "
            "later token changes what stands before it. Encoders are not supported; load a decoder-only "
            "model."
        )


def _check_shapes(architecture: Architecture, read: Read) -> None:
    """Refuse blocks that hand on something else than one vector per token.

    Raises:
        ModelError: says what they hand on.
    """
    expected = (*probe_batch(architecture).input_ids.shape, architecture.d_model)
    for site in (Site(kind, layer) for layer in range(architecture.n_layers) for kind in _STREAM_KINDS[1:]):
        shape = tuple(read[site].shape)
        if shape == expected:
            continue
        why = f"'{site}' is {list(shape)}, not [batch, position, d_model] = {list(expected)}"
        if len(shape) == 4:
            why += ": its blocks hand on several streams at once, and none of them is the active one"
        elif shape[1] < expected[1]:
            why += ": its later blocks compute the last tokens only"
        raise ModelError(
            f"{architecture.name!r} ({architecture.hf.config.model_type}) cannot be used: {why}. If the list "
            "of blocks is another one, pass family={'blocks': 'path'} at load."
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
    raise ModelError(
        f"{architecture.name!r} has {what} at '{bad}' on {probe_batch(architecture).width} tokens; {why}"
    )


def _check_widths(architecture: Architecture, report: Report) -> None:
    """Queries and keys are multiplied, so that their heads must be equally wide in every layer."""
    for layer in architecture.anatomy.layers("q"):
        if {"q", "k"} & set(report.disabled) or architecture.family.row(layer).layout != "separate":
            return
        widths = [out_features(architecture.part(layer, kind)) for kind in ("q", "k")]
        counts = architecture.anatomy.heads[layer], architecture.anatomy.kv_heads[layer]
        if None in widths or not all(counts):
            continue
        q, k = (int(width or 0) / count for width, count in zip(widths, counts, strict=True))
        if q == 2 * k:
            report.disable("the query projection also gives a gate, which 'q' would hold.", "q")
        elif q != k:
            text = f"in layer {layer} a query has {q:g} numbers and a key {k:g}: their heads are cut wrongly."
            report.disable(text, "q", "k")


def _check_pattern(architecture: Architecture, report: Report) -> None:
    """Ask for attention probabilities, which take a pass of their own under eager attention."""
    kinds = ("pattern", "z", "v")
    layers = architecture.anatomy.layers("pattern")
    if {"z", "v"} & set(report.disabled) or not layers:
        text = "'z' or 'v' is not available, so attention probabilities cannot be checked."
        report.disable(text, "pattern")
        return
    try:
        places = {Site(k, n): architecture.locate(Site(k, n)) for k in kinds for n in layers}
        read, _ = read_once(architecture, places, eager=True)
    except (InterpError, RuntimeError, TypeError, ValueError, AttributeError, LookupError) as error:
        why = str(error).partition(" Its sites")[0]
        report.disable(f"attention probabilities are not returned ({why})", "pattern")
        return
    for layer in layers:
        pattern = read[Site("pattern", layer)]
        there, cut = pattern.shape[-2], architecture.anatomy.heads[layer]
        if pattern.ndim == 4 and pattern.shape[1] == pattern.shape[3] and there != cut:
            text = f"layer {layer} has {there} heads, but its output projection was cut into {cut}."
            report.disable(text, "pattern", "z", "head", "q", "k", "v")
    report.ask(_PATTERN, architecture, read)
    _check_scores(architecture, report)
    if "pattern" in report.disabled and architecture.family.layout != "separate":
        # one projection holds all three: where the values are not found, neither are the others
        report.disable(report.disabled["pattern"], "q", "k")


def _check_scores(architecture: Architecture, report: Report) -> None:
    """Ask whether queries and keys that discovery found decide their own part of the pattern."""
    if architecture.family.types or "pattern" in report.disabled:
        return
    for kind in ("q", "k"):
        if kind in report.disabled or not architecture.anatomy.layers(kind):
            continue
        try:
            fault = score_fault(architecture, kind)
        except (InterpError, RuntimeError, TypeError, ValueError, AttributeError, LookupError) as error:
            fault = f"'{kind}' cannot be compared with the pattern ({error})."
        if fault:
            report.disable(fault, kind)


def _check_edit(architecture: Architecture, read: Read, logits: Tensor, report: Report) -> None:
    """Write to the first block and demand that the stream moves by that much and the logits change."""
    kind = "attn_out" if Site("attn_out", 0) in read and "attn_out" in architecture.kinds else "resid_post"
    middle = "resid_mid" if kind == "attn_out" and "resid_mid" in architecture.kinds else "resid_post"
    site, after = Site(kind, 0), Site(middle, 0)
    generator = torch.Generator().manual_seed(0)
    scale = read[Site("resid_post", 0)].float().std().item()
    noise = (torch.randn(read[site].shape, generator=generator, dtype=torch.float32) * scale).to(read[site])
    writer = Writer(site, architecture.locate(site, write=True), lambda current: current + noise)
    places = {after: architecture.locate(after)} if after in read else {}
    edited, changed = read_once(architecture, places, writers=[writer])
    moved = relative(changed, logits)
    report.facts["an edit moves the logits by"] = moved
    if after.kind == "resid_mid" and after in read:
        error = relative(edited[after] - read[after], noise)
        report.note("an edit of attn_out.0 moves resid_mid.0 by the same", [error])
        if error > max(2e-3, 1e-3 + 4 * tolerance(architecture.hf.dtype)):
            reason = f"an edit of attn_out.0 does not move resid_mid.0 by the same ({error:.1e})."
            raise ModelError(f"{architecture.name!r}: {reason} Pass family={{...}} at load.")
    if not moved > 0:
        raise ModelError(
            f"{architecture.name!r}: an edit at '{site}' does not change the logits, so hooks do not "
            "reach it."
        )
