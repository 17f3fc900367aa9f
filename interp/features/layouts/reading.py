"""What all layouts share: options, tensors of a file, checked keys, and where a hook's name points."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from interp.errors import ArtifactError, ConfigError, SiteError
from interp.features.dictionary import Dictionary
from interp.sites import Site

__all__ = [
    "Layout",
    "Options",
    "Reading",
    "agreeing",
    "checked",
    "chosen",
    "is_module",
    "needed",
    "place_of",
    "safetensors_of",
    "site_or_refuse",
]


@dataclass(frozen=True)
class Options:
    """What a user says where files do not.

    Attributes:
        site: where an autoencoder was trained; None for what its configuration says.
        scale: the factor on inputs that a configuration names but does not hold.
        ignore: keys of the configuration that are known not to matter.
    """

    site: Site | None = None
    scale: float | None = None
    ignore: tuple[str, ...] = ()


Reading = Callable[[Path, Options], tuple[Dictionary, ...]]


@dataclass(frozen=True)
class Layout:
    """A way in which dictionaries are published.

    Attributes:
        name: what messages call it.
        files: what a folder of it holds.
        description: one line.
        matches: whether a folder is of it.
        read: the dictionaries of a folder.
        takes: what a user may say where its files do not, of ``site`` and ``scale``.
    """

    name: str
    files: str
    description: str
    matches: Callable[[Path], bool]
    read: Reading
    takes: tuple[str, ...] = ("site",)


def safetensors_of(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, in float32 where they are floating-point numbers.

    Raises:
        ArtifactError: it is missing or damaged.
    """
    try:
        found = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{path} is no readable safetensors file: {error}. Fetch it again.") from None
    return {name: value.float() if value.is_floating_point() else value for name, value in found.items()}


def checked(
    given: Mapping[str, Any], known: Collection[str], what: str, options: Options | None = None
) -> None:
    """Refuse keys that nobody knows: ignoring one may give wrong features.

    Args:
        given: a configuration, or tensors.
        known: the keys whose meaning is known.
        what: of what, for the message.
        options: names further keys that do not matter.

    Raises:
        ConfigError: names the keys.
    """
    allowed = set(known) | set(options.ignore if options is not None else ())
    if stray := sorted(set(given) - allowed):
        remedy = (
            " Say that they do not matter with ignore=(...), or report them." if options is not None else ""
        )
        raise ConfigError(f"{what} has keys that are not known: {', '.join(stray)}.{remedy}")


def needed(weights: Mapping[str, Any], names: Collection[str], what: str) -> None:
    """Refuse a file without the tensors, or a configuration without the keys, that its kind needs.

    Raises:
        ArtifactError: names those that are missing.
    """
    if missing := [name for name in names if weights.get(name) is None]:
        raise ArtifactError(f"{what} lacks {', '.join(missing)}. Fetch it again, or correct it.")


def agreeing(config: Mapping[str, Any], found: Mapping[str, Any], what: str) -> None:
    """Refuse a configuration that says something else than the weights or another of its keys.

    Args:
        config: some of its keys may be missing.
        found: key to what is known otherwise.
        what: of what, for the message.

    Raises:
        ConfigError: names the key and both values.
    """
    for name, value in found.items():
        if config.get(name) not in (None, value):
            raise ConfigError(
                f"{what} says {name} {config[name]!r}, and the rest of it {value!r}: one of them is wrong."
            )


def chosen(value: Any, allowed: Collection[Any], what: str) -> Any:
    """A value of a configuration, where it is one of those that are understood.

    Raises:
        ConfigError: names it and those.
    """
    if value not in allowed:
        raise ConfigError(f"{what} is {value!r}; understood are: {', '.join(map(repr, allowed))}.")
    return value


_NORMED = {"ln2.hook_normalized": ("rms", "site"), "mlp.hook_in": ("none", "norm")}
"""Hooks of a block that no site has -> what is done to ``resid_mid``, and where it is read."""
_OTHERS = {
    "mlp.hook_out": "mlp_out",
    "attn.hook_out": "attn_out",
    "hook_mlp_in": "resid_mid",
    "hook_attn_in": "resid_pre",
}


def is_module(hook: str) -> bool:
    """Whether a hook has a module's own output, before what its model does to it."""
    return hook.endswith(("mlp.hook_out", "attn.hook_out"))


def place_of(hook: str, layer: int | None = None) -> tuple[Site, str, str]:
    """The site of a TransformerLens hook, what norm the dictionary applies, and what is read of the site.

    Args:
        hook: such as ``blocks.5.hook_resid_post``, or without the block where the layer is given.
        layer: of a hook that does not name one.

    Raises:
        SiteError: no site stands there.
    """
    match = re.fullmatch(r"blocks\.(\d+)\.(.+)", hook)
    number, name = (int(match[1]), match[2]) if match else (layer, hook)
    if number is not None and name in _NORMED:
        return Site("resid_mid", number), *_NORMED[name]
    if number is not None and name in _OTHERS:
        return Site(_OTHERS[name], number), "none", "site"
    text = f"blocks.{number}.{name}" if number is not None and "hook_" in name else name
    return Site.parse(text), "none", "site"


def site_or_refuse(found: Site | None, options: Options, what: str) -> Site:
    """The site that was found, or the one that the user named.

    Raises:
        SiteError: neither, or both and they differ.
    """
    if found is not None and options.site not in (None, found):
        raise SiteError(
            f"site='{options.site}' asked, and {what} says '{found}'. Leave site= out: it is for files "
            "that do not say."
        )
    site = options.site or found
    if site is None:
        raise SiteError(
            f"{what} does not say at which site it was trained; give site='resid_post.8' or the like."
        )
    return site


def as_tensor(value: Any) -> Tensor:
    """A float32 tensor."""
    return torch.as_tensor(value).detach().float()
