"""Linear and hyperdimensional probes of two models, and each model read with the other's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from interp.analyses.layer_profiles import Layers, depths
from interp.analyses.multiple_comparisons import audited
from interp.analyses.probing.carried import carried, retrained
from interp.analyses.probing.result import ProbeResult
from interp.analyses.probing.run import Job, captured, check_reference
from interp.analyses.probing.splitting import check_labels, split_of
from interp.analyses.provenance import about, earlier
from interp.errors import ConfigError, DataError, counted
from interp.models.loading import ModelLike, as_model
from interp.results import Finding, FindingsResult, Table
from interp.tasks import Labelled, labelled

__all__ = ["probe_transfer"]

KINDS = {"linear": "logistic", "hyperdimensional": "hyperdimensional"}
FRACTIONS = (0.6, 0.2, 0.2)
Parts = dict[tuple[str, int], ProbeResult]
"""Kind and layer -> the probe there."""


def probe_transfer(
    model: ModelLike,
    *,
    reference: FindingsResult | None = None,
    n: int = 1200,
    seed: int = 0,
    data: str | Labelled = "analogy-relation",
    layers: Layers = "50%,70%,85%",
) -> FindingsResult:
    """Fit linear and hyperdimensional probes on this model, and carry probes over in both directions.

    Both models are given the same prompts, split by group, codebook, seed and penalty (the one that the
    reference's validation prompts prefer), so that only the states differ. Findings, each a curve over layers
    and for both kinds of probe: accuracy when retrained, of the reference's probe on this model, and of this
    model's on the reference; the cosine between the directions of the linear probes; whether the two
    hyperdimensional probes read the same concept, and the cosine between what they read.

    A probe that transfers says that the states still mean the same to a fixed reader; one that does well only
    when retrained, that they moved. What a probe has to beat besides exchanged labels, and one probe at a
    time, is ``interp.analyses.probe`` (with a ``reference``).

    Args:
        model: what is read.
        reference: what this function returned for the reference model; the model itself where left out.
        n: how many prompts, at most.
        seed: of prompts, split, codebook and fits.
        data: a key of ``interp.tasks.LABELLED``, or labelled prompts.
        layers: which blocks' ``resid_post`` at the last token.

    Raises:
        ConfigError: an unknown task, fewer than one prompt asked, or a reference that is none.
        SiteError: a layer the model does not have.
        DataError: labels that cannot be split by group, states that are not finite, or a reference of other
            prompts, layers or width.
    """
    model = as_model(model)
    drawn, notes = _drawn(data, n, seed)
    split, more = split_of(drawn, FRACTIONS, seed)
    at = depths(model, layers, 3)
    known: Parts | None = None if reference is None else earlier(reference, "probe", "parts")
    _check_layers(known, at)
    audit = audited(drawn.texts, drawn.labels, split, groups=drawn.groups)
    acts = captured(model, model.tokenize(list(drawn.texts)), drawn, at, "last", "auto", False)
    parts: Parts = {}
    for name, kind in KINDS.items():
        job = Job(drawn, split, kind, "last", seed, audit)
        for layer in at:
            theirs = None if known is None else known[name, layer]
            if theirs is None:
                like, controls = job.read(acts[f"resid_post.{layer}"]).probe, ("shuffled",)
            else:
                check_reference(theirs, model, job, at)
                like, controls = theirs.probes[layer], ()
            assert like is not None
            # Every probe is fitted with one penalty alone, or a model would differ from itself.
            parts[name, layer] = job.result(model, acts, [layer], controls, like={layer: like})
    sizes = {part: len(getattr(split, part)) for part in ("train", "validation", "test")}
    labels = len(set(drawn.labels))
    return FindingsResult(
        analysis="probe",
        about=about(model, {"name": drawn.name, "labels": labels, **sizes, "layers": list(at)}),
        asked=f"Do probes carry over between the reference and {model.name}?",
        how=(
            f"Probes of {labels} labels ({drawn.name}) were fitted on {counted(sizes['train'], 'prompt')}, "
            f"their penalty chosen on {sizes['validation']:,} and tested on {sizes['test']:,} others.",
        ),
        found=_findings(parts, known or parts),
        more=(_penalties(parts),),
        state={} if known else {"parts": parts},
        seed=seed,
        warnings=(*model.warnings, *more, *notes),
    )


def _findings(parts: Parts, references: Parts) -> tuple[Finding, ...]:
    """Every finding of every probe, curve by curve."""
    curves: dict[str, list[Finding]] = {}
    for (kind, layer), own in parts.items():
        theirs = references[kind, layer]
        for one in (retrained(own, theirs), *carried(own, theirs)):
            curve = f"{kind} probe, {one.name}"
            curves.setdefault(curve, []).append(replace(one, name=f"{curve}, layer {layer}", curve=curve))
    return tuple(one for curve in curves.values() for one in curve)


def _penalties(parts: Parts) -> Table:
    columns, rows = ("kind", "layer", "penalty"), []
    for (kind, layer), one in parts.items():
        facts = one.probes[layer].facts()
        rows.append((kind, layer, {**facts, **facts.get("notes", {})}["regularisation"]))
    return Table("penalties", "The penalties of the probes", columns, rows)


def _check_layers(known: Parts | None, layers: Sequence[int]) -> None:
    """Refuse a reference of other layers.

    Raises:
        DataError: it was probed elsewhere.
    """
    theirs = list(dict.fromkeys(layer for _, layer in known or ()))
    if known is not None and theirs != list(layers):
        raise DataError(
            f"the reference was probed at layers {theirs}, this model at {list(layers)}. Use the same "
            "layers, and models of one shape."
        )


def _drawn(data: str | Labelled, n: int, seed: int) -> tuple[Labelled, tuple[str, ...]]:
    """Draw prompts; labels that lack a part are left out, whatever any model says."""
    if n < 1:
        raise ConfigError(f"n={n} prompts asked; ask for at least 1.")
    drawn = labelled(data, n=n, seed=seed) if isinstance(data, str) else data.limit(n, seed=seed)
    check_labels(drawn)
    if not any(drawn.splits):
        return drawn, ()
    both = set.intersection(
        *(
            {label for own, label in zip(drawn.splits, drawn.labels, strict=True) if own == part}
            for part in ("train", "test")
        )
    )
    lost = sorted(set(drawn.labels) - both)
    kept = drawn.select([i for i, label in enumerate(drawn.labels) if label in both])
    check_labels(kept)
    words = (
        f"{counted(len(lost), 'label was', 'labels were')} left out, such as {lost[0]!r}, for which there "
        "is no training or no test prompt"
        if lost
        else ""
    )
    return kept, (words,) if lost else ()
