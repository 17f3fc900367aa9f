"""Lenses on disk: tuned lenses and Jacobian lenses as they are published, and ours as safetensors.

A file is checked before it is used, and never run: ``.pt`` goes through ``torch.load(weights_only=True)``.

Published layouts (read; nothing here writes ``.pt``):
    tuned lens      a folder with ``config.json`` (base_model_name_or_path, d_model, num_hidden_layers, bias,
                    unembed_hash) and ``params.pt`` or ``params.safetensors`` (``I.weight``, ``I.bias``). It
                    reads ``h + W_I h + b_I``; ``I`` counts the states that enter block I, so that 0 is the
                    embedding, and ``resid_post.l`` is read by ``I = l + 1`` (package tuned-lens 0.2)
    Jacobian lens   a file with ``J`` (layer to ``[d_model d_model]``), ``source_layers``, ``n_prompts``,
                    ``d_model`` (package jlens), or safetensors with ``J.LAYER``
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import ArtifactError
from interp.hub import HubCard, local, push
from interp.lenses import translator
from interp.lenses.base import Lens
from interp.lenses.jacobian import JacobianLens
from interp.lenses.translator import TranslatorLens
from interp.models.model import Model
from interp.models.readout import Readout
from interp.results import write_atomically

__all__ = ["SUFFIXES", "TunedLens", "opened", "push_to_hub", "saved"]

CONFIG, PARAMS = "config.json", ("params.safetensors", "params.pt")
SUFFIXES = (".safetensors", ".pt")
LARGEST = 1 << 20
"""Bytes of the longest configuration that is read."""


@dataclass(frozen=True, eq=False)
class TunedLens(Lens):
    """A tuned lens (Belrose et al. 2023, arXiv 2303.08112), as it was published: ``readout(h + W h + b)``.

    Attributes:
        readout: the model's final norm and head.
        layers: the blocks it reads; the last one needs no translator.
        weights: block to ``[d_model d_model]``.
        biases: block to ``[d_model]``; empty for a lens without.
        facts: what its configuration says.
    """

    kind: ClassVar[str] = "tuned"

    readout: Readout
    layers: tuple[int, ...]
    weights: Mapping[int, Float[Tensor, "d_model d_model"]]
    biases: Mapping[int, Float[Tensor, " d_model"]]
    facts: Mapping[str, Any]

    @property
    def vocab_size(self) -> int:
        """How many tokens the model tells apart."""
        return self.readout.vocab_size

    @torch.no_grad()
    def logits(self, states: Float[Tensor, "*batch d_model"], layer: int) -> Float[Tensor, "*batch vocab"]:
        """The logits of what the layer's affine map makes of states.

        Args:
            states: of ``resid_post.layer``.
            layer: which block.

        Raises:
            SiteError: the lens does not read this layer.
        """
        self.check(layer)
        states = states.to(self.readout.architecture.device, self.readout.dtype)
        if layer in self.weights:
            bias = self.biases[layer].to(states) if self.biases else 0.0
            states = states + states @ self.weights[layer].to(states).T + bias
        return self.readout.logits(states).float()

    def card(self) -> dict[str, Any]:
        """Kind, layers, and what its configuration says."""
        return {"kind": self.kind, "layers": list(self.layers), "fitted_on": None, "file": dict(self.facts)}


def opened(path: str | Path, model: Model, layers: Sequence[int] | None = None) -> Lens:
    """Open a published lens, or one of ours, for a model.

    Args:
        path: a folder or a file of one of the layouts above, or ``hf://user/name[@revision]`` of what
            :func:`push_to_hub` pushed, whose commit is kept in the card.
        model: whose states it will read.
        layers: the blocks to read; None for all that it has.

    Raises:
        ArtifactError: nothing is there, it is damaged, would run code, or is of another model.
        SiteError: it does not read one of the layers.
    """
    fetched = local(path, "lens")
    place = fetched.folder
    if (place / translator.LENS).is_file():
        found: Lens = translator.read(place, model)
    else:
        found = _tuned(place, model) if (place / CONFIG).is_file() else _jacobian(_only(place), model)
    if fetched.source and isinstance(found, JacobianLens | TranslatorLens):
        found = replace(found, fitted_on={**found.fitted_on, "hub": fetched.source})
    if layers is None:
        return found
    for layer in layers:
        found.check(layer)
    kept = tuple(layers)
    if isinstance(found, TunedLens):
        return TunedLens(found.readout, kept, found.weights, found.biases, found.facts)
    assert isinstance(found, JacobianLens | TranslatorLens)
    return replace(found, layers=kept)


def push_to_hub(
    lens: JacobianLens | TranslatorLens,
    repo: str,
    model: Model,
    *,
    revision: str = "main",
    visibility: Literal["public", "private"] | None = None,
    license: str = "",
) -> str:
    """Push a lens to the Hugging Face Hub; ``lenses.opened("hf://user/name", model)`` reads it.

    Args:
        lens: of the model.
        repo: ``user/name``; made where it does not exist.
        model: whose name and fingerprint go with it.
        revision: the branch; made where it does not exist.
        visibility: of a new repository; None for what the account does by itself.
        license: for the card, such as ``"mit"``.

    Returns:
        ``user/name@commit``, which always names these bytes.

    Raises:
        ConfigError: no name of a repository.
        ModelError: the Hub refuses it or cannot be reached.
    """
    facts = {"kind": lens.kind, "layers": ", ".join(map(str, lens.layers)), "weights": model.fingerprint}
    facts |= {f"fitted on: {name}": one for name, one in lens.fitted_on.items() if isinstance(one, str | int)}
    own, controls = _agreements(lens)
    card = HubCard(
        "lens",
        f"{lens.kind.capitalize()} lens of {model.described['name']}",
        str(model.described["name"]),
        facts=facts,
        scores=own,
        controls=controls,
        failures=("What it reads usually follows such states; that later blocks use it is not shown.",),
        load='from interp import lenses\n\nlens = lenses.opened("hf://REPO", model)',
    )
    name = "lens.safetensors" if isinstance(lens, JacobianLens) else ""
    return push(
        lambda folder: saved(lens, folder / name, model),
        card,
        repo,
        revision=revision,
        visibility=visibility,
        license=license,
    )


def _agreements(lens: Lens) -> tuple[dict[str, Any], dict[str, Any]]:
    """How often a translator names the model's own next token in held-out texts, and what it must beat."""
    own: dict[str, Any] = {}
    controls: dict[str, Any] = {}
    for layer, one in lens.translators.items() if isinstance(lens, TranslatorLens) else ():
        for arm, score in one.card.get("agreement", {}).items():
            to = own if arm == "translator" else controls
            to[f"names the model's own next token at layer {layer}: {arm}"] = score
    return own, controls


def saved(lens: JacobianLens | TranslatorLens, path: str | Path, model: Model) -> Path:
    """Write a lens as safetensors and JSON, which :func:`opened` reads.

    Args:
        lens: of the model.
        path: the file of a Jacobian lens, the folder of a translator.
        model: whose name and fingerprint the file keeps.

    Raises:
        ConfigError: the place cannot be written.
    """
    if isinstance(lens, TranslatorLens):
        return translator.write(lens, Path(path), model)
    from safetensors.torch import save

    tensors = {f"J.{layer}": one.float().contiguous() for layer, one in lens.matrices.items()}
    errors = {str(layer): None if math.isnan(one) else one for layer, one in lens.errors.items()}
    facts = {"model": model.described, "fitted_on": dict(lens.fitted_on), "errors": errors}
    return write_atomically(Path(path), save(tensors, {"jacobian_lens": json.dumps(facts)}))


def _only(place: Path) -> Path:
    """The one file of a folder that holds a lens."""
    if not place.is_dir():
        return place
    files = sorted(one for one in place.iterdir() if one.suffix in SUFFIXES)
    if len(files) != 1:
        raise ArtifactError(
            f"'{place}' holds {len(files)} files of lenses and no {CONFIG}; give one file, or the folder of "
            "a tuned lens."
        )
    return files[0]


def _load(path: Path) -> tuple[Any, dict[str, Any]]:
    """What a file holds, and the facts that ours keep beside it; nothing in it is run."""
    if not path.is_file():
        raise ArtifactError(f"there is no lens at '{path}'.")
    try:
        if path.suffix == ".safetensors":
            from safetensors import safe_open

            with safe_open(path, framework="pt") as file:
                facts = dict(json.loads((file.metadata() or {}).get("jacobian_lens", "{}")))
                names = file.keys()
                return {name: file.get_tensor(name) for name in names}, facts
        return torch.load(path, map_location="cpu", weights_only=True), {}
    except Exception as error:  # of a pickle, of a broken file: each library has classes of its own
        line = (str(error).strip() or type(error).__name__).splitlines()[0].partition(". ")[0][:120]
        raise ArtifactError(
            f"'{path}' holds no lens that can be read without running code ({line})."
        ) from error


def _tensor(path: Path, name: object, value: Any, shape: tuple[int, ...]) -> Tensor:
    """A tensor of a file, once its shape and values are those of a lens of this model."""
    if not isinstance(value, Tensor) or not value.is_floating_point():
        raise ArtifactError(f"'{path}': {name} is no tensor of numbers.")
    if tuple(value.shape) != shape:
        raise ArtifactError(
            f"'{path}': {name} has shape {list(value.shape)}, this model needs {list(shape)}: the lens is of "
            "another model."
        )
    value = value.detach().float().contiguous()
    if not bool(value.isfinite().all()):
        raise ArtifactError(f"'{path}': {name} holds values that are not finite.")
    return value


def _same(path: Path, what: str, found: object, own: object) -> None:
    if found != own:
        raise ArtifactError(f"'{path}' was made for a model of {what} {found}; this one has {own}.")


def _jacobian(path: Path, model: Model) -> JacobianLens:
    content, facts = _load(path)
    rows = content.get("J") if isinstance(content, dict) else None
    if isinstance(content, dict) and rows is None:
        rows = {str(name).removeprefix("J."): one for name, one in content.items()}
    try:
        matrices = {int(str(layer)): one for layer, one in dict(rows or {}).items()}
    except (TypeError, ValueError):
        matrices = {}
    if not matrices:
        raise ArtifactError(f"'{path}' holds no matrices J by layer, which a Jacobian lens is made of.")
    if (width := content.get("d_model")) is not None:
        _same(path, "width", width, model.d_model)
    if (listed := content.get("source_layers")) is not None and _numbers(listed) != sorted(matrices):
        raise ArtifactError(f"'{path}' says that it reads layers {listed!r:.80}, but has {sorted(matrices)}.")
    if (of := facts.get("model")) is not None:
        of = of.get("fingerprint") if isinstance(of, dict) else of
        _same(path, "fingerprint", str(of)[:12], model.fingerprint[:12])
    last = model.n_layers - 1
    if wrong := [layer for layer in matrices if not 0 <= layer <= last]:
        raise ArtifactError(f"'{path}' reads layer {wrong[0]}; {model.name!r} has layers 0 to {last}.")
    shape = (model.d_model, model.d_model)
    found = {
        layer: _tensor(path, f"J of layer {layer}", one, shape) for layer, one in sorted(matrices.items())
    }
    known = facts.get("fitted_on") or {
        "texts": "of whoever published it",
        "n": content.get("n_prompts"),
        "checked": "its width and layers; the file does not say which model it is of",
    }
    errors = _errors(path, facts.get("errors") or {})
    layers = tuple(dict.fromkeys((*found, last)))
    return JacobianLens(Readout.precise(model.architecture), layers, found, known, errors)


def _numbers(listed: Any) -> list[int] | None:
    """Layers in order; None for what lists none."""
    try:
        return sorted(int(str(one)) for one in (listed.tolist() if isinstance(listed, Tensor) else listed))
    except (TypeError, ValueError):
        return None


def _errors(path: Path, given: Any) -> dict[int, float]:
    try:
        return {int(at): math.nan if one is None else float(one) for at, one in given.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise ArtifactError(f"'{path}': its errors are no numbers by layer.") from error


def _tuned(folder: Path, model: Model) -> TunedLens:
    config = _config(folder / CONFIG)
    _same(folder, "width", config.get("d_model"), model.d_model)
    n_layers = config.get("num_hidden_layers", config.get("num_layers"))
    _same(folder, "layers", n_layers, model.n_layers)
    base = str(config.get("base_model_name_or_path", "unknown"))
    checked = _identity(folder, config.get("unembed_hash"), base, model)
    path = next((folder / name for name in PARAMS if (folder / name).is_file()), folder / PARAMS[-1])
    content, _ = _load(path)
    if not isinstance(content, dict):
        raise ArtifactError(f"'{path}' holds no weights by layer, which a tuned lens is made of.")
    state = {str(name).removeprefix("layer_translators."): one for name, one in content.items()}
    width, weights, biases = model.d_model, {}, {}
    for layer in range(model.n_layers - 1):
        name = f"{layer + 1}.weight"
        weights[layer] = _tensor(path, name, state.get(name), (width, width))
        if config.get("bias", True):
            name = f"{layer + 1}.bias"
            biases[layer] = _tensor(path, name, state.get(name), (width,))
    facts = {"base_model": base, "revision": config.get("base_model_revision"), "checked": checked}
    readout = Readout.precise(model.architecture)
    return TunedLens(readout, tuple(range(model.n_layers)), weights, biases, facts)


def _config(path: Path) -> dict[str, Any]:
    try:
        text = path.read_bytes()[:LARGEST].decode()
        config = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(f"'{path}' is no configuration of a lens ({type(error).__name__}).") from error
    if not isinstance(config, dict):
        raise ArtifactError(f"'{path}' is no configuration of a lens; it holds no object.")
    return config


def _identity(folder: Path, digest: Any, base: str, model: Model) -> str:
    """What of a tuned lens speaks for its being of this model; refused where name and unembedding do not."""
    own, named = _unembedding(model), base.rpartition("/")[2] == model.name.rpartition("/")[2]
    if digest is None:
        return "its width and layers" + (", and the name of the model" if named else "")
    if digest == own:
        return "the unembedding"
    if named:
        return "the name of the model; the unembedding is another one, or was written by another numpy"
    raise ArtifactError(
        f"'{folder}' was made for {base!r}, and {model.name!r} has another name and another unembedding; "
        "load that model."
    )


def _unembedding(model: Model) -> str:
    """The package tuned-lens's mark of an unembedding: the sha256 of its corners, printed with one digit."""
    head: Any = model.hf.get_output_embeddings()
    with np.printoptions(threshold=1000, edgeitems=3, linewidth=75, suppress=False):
        text = np.array_str(head.weight.detach().cpu().float().numpy(), precision=1)
    return hashlib.sha256(text.encode()).hexdigest()
