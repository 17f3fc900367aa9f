"""From a folder, or a repository of the Hub, to dictionaries; and to the Hub."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from interp.errors import ConfigError, DataError, counted
from interp.features.certificate import FeatureCertificate
from interp.features.dictionary import Dictionary
from interp.features.layouts import circuit_tracer, dictionary_learning, gemma_scope, saelens, sparsify
from interp.features.layouts.reading import Layout, Options
from interp.hub import HubCard, local, push
from interp.sites import Site

__all__ = ["LAYOUTS", "load", "load_all", "push_to_hub"]

_ROWS = (
    Layout(
        "saelens",
        "cfg.json, sae_weights.safetensors",
        "SAELens, and what `interp features train` writes",
        saelens.matches,
        saelens.read,
        ("site", "scale"),
    ),
    Layout(
        "gemma-scope",
        "params.npz",
        "Gemma Scope, where the path names repository and layer",
        gemma_scope.matches,
        gemma_scope.read,
    ),
    Layout(
        "sparsify",
        "cfg.json, sae.safetensors",
        "EleutherAI's sparsify, one folder or one per module",
        sparsify.matches,
        sparsify.read,
    ),
    Layout(
        "dictionary-learning",
        "config.json, ae.pt",
        "dictionary_learning; of the pickle tensors alone are read",
        dictionary_learning.matches,
        dictionary_learning.read,
    ),
    Layout(
        "circuit-tracer",
        "config.yaml, layer_*.safetensors or W_enc_*.safetensors",
        "circuit-tracer's transcoders, per layer or across layers",
        circuit_tracer.matches,
        circuit_tracer.read,
        (),
    ),
)

LAYOUTS: dict[str, Layout] = {row.name: row for row in _ROWS}


def load_all(
    place: str | Path,
    *,
    site: str | Site | None = None,
    scale: float | None = None,
    ignore: tuple[str, ...] = (),
) -> tuple[Dictionary, ...]:
    """The dictionaries of a folder, or of a repository of the Hub, by layer.

    Args:
        place: a folder; ``hf://user/name[@revision]`` of what :func:`push_to_hub` pushed, whose commit is
            kept in the card; or ``OWNER/REPO[/FOLDER]`` of any other in the Hub's local cache.
        site: where an autoencoder was trained, for layouts that do not say.
        scale: the factor on inputs that ``expected_average_only_in`` names and does not hold.
        ignore: keys of the configuration that are known not to matter.

    Raises:
        DataError: no such folder, or of no layout that is known.
        ConfigError: a configuration asks for something that is not understood; names it.
        ArtifactError: a file is missing or damaged.
        SiteError: nothing says at which site it was trained.
    """
    fetched = local(place, "dictionary")
    folder = fetched.folder if fetched.source else _folder(place)
    row = next((row for row in _ROWS if row.matches(folder)), None)
    if row is None:
        known = "; ".join(f"{one.name} ({one.files})" for one in _ROWS)
        held = ", ".join(sorted(one.name for one in folder.iterdir())[:6]) or "nothing"
        raise DataError(f"'{place}' is of no layout that is known: it holds {held}. Known: {known}.")
    for name, given in (("site", site), ("scale", scale)):
        if given is not None and name not in row.takes:
            raise ConfigError(
                f"{name}={given} asked, which files of {row.name} say or do not need: leave it out."
            )
    if scale is not None and not 0 < scale < float("inf"):
        raise ConfigError(f"scale={scale} asked; the factor on inputs is a number above 0.")
    options = Options(Site.parse(site) if isinstance(site, str) else site, scale, tuple(ignore))
    found = sorted(row.read(folder, options), key=lambda one: (one.layer, str(one.site_in)))
    if fetched.source:
        return tuple(replace(one, card={**one.card, "hub": fetched.source}) for one in found)
    return tuple(found)


def push_to_hub(
    dictionary: Dictionary,
    repo: str,
    *,
    certificate: FeatureCertificate | None = None,
    revision: str = "main",
    visibility: Literal["public", "private"] | None = None,
    license: str = "",
) -> str:
    """Push a plain autoencoder to the Hugging Face Hub in the layout of SAELens, with a card.

    Args:
        dictionary: with ReLU, JumpReLU or TopK features.
        repo: ``user/name``; made where it does not exist.
        certificate: what :func:`check` found; its numbers, controls and cautions go on the card.
        revision: the branch; made where it does not exist.
        visibility: of a new repository; None for what the account does by itself.
        license: for the card, such as ``"mit"``.

    Returns:
        ``user/name@commit``, which always names these bytes.

    Raises:
        ConfigError: the layout has no place for something of it, or no name of a repository.
        ModelError: the Hub refuses it or cannot be reached.
    """
    facts = {"site": str(dictionary.site_in), "features": dictionary.n_features, "width": dictionary.width}
    facts |= {"activation": dictionary.activation.name, "sha256 of weights and use": dictionary.fingerprint}
    doubt = "No certificate was given: how much it explains is not shown."
    found = HubCard("dictionary", "", failures=(doubt,))
    if certificate is not None:
        found = certificate.hub_card()
        facts = {**facts, "judged on": found.model}
    card = replace(
        found,
        kind="dictionary",
        title=f"Dictionary: {dictionary.name}",
        model=dictionary.model_name,
        facts=facts,
        load='from interp import features\n\ndictionary = features.load("hf://REPO")',
    )
    return push(
        lambda folder: saelens.write(dictionary, folder),
        card,
        repo,
        revision=revision,
        visibility=visibility,
        license=license,
    )


def load(
    place: str | Path,
    *,
    site: str | Site | None = None,
    scale: float | None = None,
    ignore: tuple[str, ...] = (),
) -> Dictionary:
    """The one dictionary of a folder; parameters and errors are those of :func:`load_all`.

    Raises:
        ConfigError: there are several; names them.
    """
    found = load_all(place, site=site, scale=scale, ignore=ignore)
    if len(found) > 1:
        names = ", ".join(one.name for one in found[:4])
        raise ConfigError(
            f"'{place}' holds {counted(len(found), 'dictionary', 'dictionaries')} ({names}, ...). Use "
            "load_all, or name one of its folders."
        )
    return next(iter(found))


def _folder(place: str | Path) -> Path:
    path = Path(place).expanduser()
    if path.is_dir():
        return path
    if path.is_file():
        return path.parent
    parts = str(place).split("/")
    if len(parts) < 2 or str(place).startswith((".", "/", "~")):
        raise DataError(
            f"there is no folder '{place}'. Give a folder, hf://user/name, or OWNER/REPO[/FOLDER] of the "
            "Hub's cache."
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        root = Path(snapshot_download("/".join(parts[:2]), local_files_only=True))
    except (HFValidationError, LocalEntryNotFoundError):
        raise DataError(
            f"there is no folder '{place}', and the Hub's local cache has no repository "
            f"'{'/'.join(parts[:2])}'. Fetch it first: hf download {'/'.join(parts[:2])}."
        ) from None
    folder = root.joinpath(*parts[2:])
    if not folder.is_dir():
        raise DataError(
            f"the cached repository '{'/'.join(parts[:2])}' has no folder '{'/'.join(parts[2:])}'."
        )
    return folder
