"""From a folder, or a repository in the Hub's local cache, to dictionaries."""

from __future__ import annotations

from pathlib import Path

from interp.errors import ConfigError, DataError, counted
from interp.features.dictionary import Dictionary
from interp.features.layouts import circuit_tracer, dictionary_learning, gemma_scope, saelens, sparsify
from interp.features.layouts.reading import Layout, Options
from interp.sites import Site

__all__ = ["LAYOUTS", "load", "load_all"]

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
    """The dictionaries of a folder, or of ``OWNER/REPO[/FOLDER]`` in the Hub's local cache, by layer.

    Args:
        place: where they are.
        site: where an autoencoder was trained, for layouts that do not say.
        scale: the factor on inputs that ``expected_average_only_in`` names and does not hold.
        ignore: keys of the configuration that are known not to matter.

    Raises:
        DataError: no such folder, or of no layout that is known.
        ConfigError: a configuration asks for something that is not understood; names it.
        ArtifactError: a file is missing or damaged.
        SiteError: nothing says at which site it was trained.
    """
    folder = _folder(place)
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
    return tuple(sorted(row.read(folder, options), key=lambda one: (one.layer, str(one.site_in))))


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
            f"there is no folder '{place}'. Give a folder, or OWNER/REPO[/FOLDER] of the Hub's cache."
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
