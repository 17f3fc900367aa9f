"""Gemma Scope: ``params.npz`` in a folder whose path names the layer (google/gemma-scope-*)."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from interp.errors import ArtifactError, SiteError
from interp.features.activations import JumpReLU
from interp.features.dictionary import Dictionary
from interp.features.layouts.reading import Options, as_tensor, checked, needed, site_or_refuse
from interp.sites import Site

__all__ = ["matches", "read"]

FILE = "params.npz"
KEYS = ("W_enc", "W_dec", "b_enc", "b_dec", "threshold")
SUBLAYERS = {"res": "resid_post", "mlp": "mlp_out", "att": "z", "transcoders": "mlp_out"}
"""The last word of the repository's name -> what is written."""


def matches(folder: Path) -> bool:
    """Whether a folder holds one."""
    return (folder / FILE).is_file()


def read(folder: Path, options: Options) -> tuple[Dictionary, ...]:
    """The dictionary of a folder.

    A transcoder reads the stream before the MLP divided by its root mean square: the gain of the model's norm
    had been folded into the MLP (Lieberum et al. 2024, arXiv 2408.05147, section 3).

    Raises:
        ArtifactError: the file cannot be read.
        SiteError: the path does not say which site it is of.
    """
    try:
        with np.load(folder / FILE, allow_pickle=False) as held:
            weights = {name: as_tensor(held[name]) for name in held.files}
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{folder / FILE} is no readable npz file: {error}. Fetch it again.") from None
    checked(weights, KEYS, str(folder / FILE))
    needed(weights, KEYS, str(folder / FILE))
    kind, site = _place(folder)
    _check(kind, options.site)
    out = site_or_refuse(site, options, f"the path of {folder.name!r}")
    transcodes = kind == "transcoders"
    return (
        Dictionary(
            name="/".join(folder.parts[-3:]),
            layout="gemma-scope",
            site_in=Site("resid_mid", out.layer) if transcodes else out,
            site_out=out,
            encoder=weights["W_enc"].T.contiguous(),
            encoder_bias=weights["b_enc"],
            decoder=weights["W_dec"],
            decoder_bias=weights["b_dec"],
            activation=JumpReLU(weights["threshold"]),
            norm="rms" if transcodes else "none",
            model_name=_model(folder),
        ),
    )


def _check(kind: str, asked: Site | None) -> None:
    """Refuse a site that the repository does not have, or where its name must say what was trained."""
    may = {"": ("resid_post", "z"), "embedding": ("embed", "resid_pre")}.get(kind) or (SUBLAYERS[kind],)
    if asked is not None and asked.kind not in may:
        said = (
            f"the path says {kind!r}, of {' or '.join(may)}"
            if kind
            else (
                "an autoencoder and a transcoder of an MLP have the same files, and the path names no "
                "repository (gemma-scope-2b-pt-mlp, gemma-scope-2b-pt-transcoders)"
            )
        )
        raise SiteError(f"site='{asked}' asked, but {said}. Keep the repository's folders, or correct site=.")


def _place(folder: Path) -> tuple[str, Site | None]:
    text = folder.resolve().as_posix()
    kind = re.search(r"gemma-scope-[\w.-]*?-(res|mlp|att|transcoders)(?=/|$|-)", text)
    layer = re.search(r"layer_(\d+)", text)
    if kind is None:
        return "", None
    if "embedding" in folder.parts:
        return "embedding", None
    return kind[1], Site(SUBLAYERS[kind[1]], int(layer[1])) if layer else None


def _model(folder: Path) -> str:
    match = re.search(r"gemma-scope-(\d+b)-(pt|it)", folder.resolve().as_posix())
    return "" if match is None else f"google/gemma-2-{match[1]}{'-it' if match[2] == 'it' else ''}"
