"""Give a model dictionaries, so that their features and errors are sites; refused where they do not fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from interp.errors import ConfigError, ModelError, SiteError, counted
from interp.features.dictionary import Dictionary
from interp.models.architecture import Architecture
from interp.sites import Site

__all__ = ["attached"]

WRITTEN = (
    "embed",
    "resid_pre",
    "resid_mid",
    "resid_post",
    "attn_out",
    "mixer_out",
    "mlp_out",
    "z",
    "mlp_act",
)
"""Kinds of site that a dictionary can be of."""


def attached(architecture: Architecture, dictionaries: Sequence[Dictionary]) -> Architecture:
    """The architecture with dictionaries in place of those it had.

    Args:
        architecture: of the model.
        dictionaries: at most one for each layer.

    Raises:
        ConfigError: two for one layer, or of another width than their site.
        SiteError: the model does not offer one of their sites.
        ModelError: a dictionary needs what this family does not have.
    """
    plain = replace(architecture, dictionaries={})
    found: dict[int, Dictionary] = {}
    for one in dictionaries:
        if one.layer in found:
            raise ConfigError(
                f"two dictionaries read layer {one.layer} ({found[one.layer].name}, {one.name}), so that "
                f"feature.{one.layer} would name two things. Give one for each layer."
            )
        _check(plain, one)
        found[one.layer] = one.to(architecture.device)
    return replace(plain, dictionaries=found)


def _check(architecture: Architecture, one: Dictionary) -> None:
    for site, width in ((one.site_in, one.encoder.shape[1]), (one.site_out, one.width)):
        if site.kind not in WRITTEN or site.index is not None:
            raise SiteError(
                f"dictionary {one.name!r} is of '{site}'; those of {', '.join(WRITTEN)} can be used."
            )
        if site.kind == "resid_mid" and architecture.parallel:
            raise SiteError(
                f"dictionary {one.name!r} is of '{site}', and {architecture.name!r} has none: its MLPs and "
                "heads read one stream, the MLP 'resid_pre' through a norm of its own, which no feature can "
                "read yet. Use dictionaries of 'mlp_out' or 'resid_post'."
            )
        architecture.check([site.kind])
        if site.layer is not None and not 0 <= site.layer < architecture.n_layers:
            raise SiteError(
                f"dictionary {one.name!r} is of '{site}', but {architecture.name!r} has layers "
                f"0..{architecture.n_layers - 1}: it is of another model."
            )
        if width != (own := _width(architecture, site)):
            raise ConfigError(
                f"dictionary {one.name!r} has width {width} at '{site}', where {architecture.name!r} has "
                f"{own}: it is of another model."
            )
    if one.of_module:
        _check_module(architecture, one)
    if one.autoencodes:
        return
    if one.later:
        _check_later(architecture, one)
    if architecture.locate(one.site_out, write=True).base or architecture.locate(one.site_in).base:
        raise ModelError(
            f"dictionary {one.name!r} reads '{one.site_in}' and writes '{one.site_out}', which "
            f"{architecture.name!r} computes from several modules: not supported."
        )
    if one.norm == "rms" and not hasattr(architecture.hf.config.get_text_config(), "rms_norm_eps"):
        raise ModelError(
            f"dictionary {one.name!r} divides its input by the root mean square, as norms of its model do; "
            f"{architecture.name!r} has no such norm: it is of another model."
        )


def _check_later(architecture: Architecture, one: Dictionary) -> None:
    """Refuse a cross-layer transcoder that does not fit the layers after its own."""
    if one.norm not in ("none", "rms"):
        raise ConfigError(
            f"dictionary {one.name!r} undoes its norm {one.norm!r} on what it writes, which "
            "later layers do not have."
        )
    last = architecture.n_layers - 1
    if one.site_out.layer is None or one.reached.stop - 1 > last:
        raise ConfigError(
            f"dictionary {one.name!r} writes to {counted(len(one.later), 'layer')} after '{one.site_out}', "
            f"and {architecture.name!r} ends with layer {last}: it is of another model."
        )
    for layer in one.reached:
        site = Site(one.site_out.kind, layer)
        place = architecture.locate(site, write=True)
        if place.base is not None or place.view.computed:
            raise ModelError(
                f"dictionary {one.name!r} writes '{site}' too, which {architecture.name!r} computes from "
                "several modules: not supported."
            )
        if one.of_module:
            _check_module(architecture, replace(one, site_out=site))


def _check_module(architecture: Architecture, one: Dictionary) -> None:
    """Refuse one of a module's output where the model's site is not that output."""
    site = one.site_out
    layer = site.layer or 0
    row = architecture.family.row(layer)
    path = row.mlp_out if site.kind == "mlp_out" else row.attn_out
    inner = architecture.part(layer, "down_projection" if site.kind == "mlp_out" else "out_projection")
    module = architecture.part(layer, site.kind)
    computes = module is not None and "." not in path
    if module is not None and inner is not None:
        computes = computes and any(part is inner for part in module.modules())
    else:  # experts: no single projection says which module computes it
        computes = computes and "norm" not in path
    why = ""
    if not computes:
        why = f"is read at {path!r}, another module"
    elif architecture.multiplier != 1.0:
        why = f"is that output times {architecture.multiplier:g}"
    elif site.kind == "mlp_out" and row.beside:
        why = f"is that output and the one of {row.beside!r}"
    if why:
        raise ModelError(
            f"dictionary {one.name!r} was trained on the output of the module that computes '{site}'; in "
            f"{architecture.name!r} '{site}' {why}, so that features would be wrong. No site holds what it "
            "was trained on: use a dictionary of the stream."
        )


def _width(architecture: Architecture, site: Site) -> int:
    layer = site.layer or 0
    if site.kind == "z":
        return architecture.anatomy.heads[layer] * architecture.head_width(layer)
    return architecture.anatomy.neurons[layer] if site.kind == "mlp_act" else architecture.d_model
