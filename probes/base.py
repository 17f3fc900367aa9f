"""The contract every probe keeps.

The constructor takes keyword arguments and only stores them; ``fit`` learns, names what it learned with a
trailing underscore and returns the probe; ``predict`` and ``score`` never learn. scikit-learn users know it,
and its ``clone`` works. A saved probe is a folder with ``probe.safetensors``, ``probe.json`` and
``README.md``: no pickle anywhere.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load as arrays_from_bytes
from safetensors.numpy import save as bytes_from_arrays

from probes.arrays import Inputs, Labels
from probes.cards import HubCard, ProbeCard, ProbeFileError, hub_card, mismatches, readme
from probes.hub import Shared, local
from probes.table import PROBES

__all__ = [
    "NotFittedError",
    "Probe",
    "Validation",
    "check_seed",
    "load",
]

SCHEMA = "probes.probe/1"
TENSORS, RECORD, CARD = "probe.safetensors", "probe.json", "README.md"
_log = logging.getLogger(__name__)

ThisProbe = TypeVar("ThisProbe", bound="Probe")
"""The class of the probe a method is called on."""

Validation = tuple[Inputs, Labels]
"""Held-out examples and their labels, on which a probe may choose its penalty: never the test set."""


def check_seed(parameters: Mapping[str, Any]) -> None:
    """Refuse a seed that the generators would refuse.

    Raises:
        ValueError: it is not a whole number from 0 to 2**32 - 1.
    """
    seed = parameters.get("seed", 0)
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**32:
        raise ValueError(f"seed={seed!r} asked; give a whole number from 0 to 4294967295.")


class NotFittedError(ValueError, AttributeError):
    """Report that a probe was asked for predictions before it was fitted."""


class Probe(Shared, ABC):
    """Read labels off activations.

    Subclasses are final. Their constructor stores its keyword arguments under the same names; everything that
    ``fit`` learns ends in an underscore.

    Attributes:
        kind: the probe's name in :data:`probes.PROBES`.
        card_: where a saved probe came from, after :func:`probes.load` or :meth:`save`.
    """

    kind: ClassVar[str]
    card_: ProbeCard

    @abstractmethod
    def fit(
        self: ThisProbe,
        X: Inputs,
        y: Labels,
        *,
        groups: Collection[Any] | None = None,
        validation: Validation | None = None,
    ) -> ThisProbe:
        """Learn from examples and give the probe itself.

        Args:
            X: ``[example dim]``, a tensor on any device or an array; it is not changed.
            y: one label per example, text or whole numbers.
            groups: what must not straddle inner folds, one per example.
            validation: held-out ``(X, y)`` on which parameters are chosen, instead of inner folds.
        """

    @abstractmethod
    def decision_function(self, X: Inputs) -> torch.Tensor | np.ndarray:
        """``[example label]`` scores, higher is likelier, as X's kind of array."""

    @abstractmethod
    def predict(self, X: Inputs) -> np.ndarray:
        """The likeliest label of every example, as an array of labels."""

    @property
    def predict_proba(self) -> Any:
        """``[example label]`` probabilities, where the probe has any: then this is a method.

        Raises:
            AttributeError: this kind of probe has none (so that ``hasattr`` tells, as in scikit-learn).
        """
        raise AttributeError(
            f"{type(self).__name__} has no probabilities; use decision_function for scores, "
            "or LogisticProbe for probabilities."
        )

    @abstractmethod
    def score(self, X: Inputs, y: Labels) -> float:
        """The accuracy, from 0 to 1, over all examples."""

    @property
    @abstractmethod
    def width(self) -> int:
        """The number of columns the probe was fitted on."""

    @abstractmethod
    def arrays(self) -> dict[str, np.ndarray]:
        """Everything learned that is an array of numbers, by name."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """Everything else that was learned, as plain JSON types."""

    @abstractmethod
    def restore(self: ThisProbe, arrays: dict[str, np.ndarray], facts: dict[str, Any]) -> ThisProbe:
        """Take back what :meth:`arrays` and :meth:`facts` gave."""

    def parameters(self) -> dict[str, Any]:
        """The constructor's arguments as they are written to a saved probe: plain JSON types."""
        return self.get_params()

    def save_parts(self, folder: Path) -> None:
        """Write what is neither an array nor a plain fact beside the probe; most kinds have nothing."""
        return

    def load_parts(self, folder: Path, facts: dict[str, Any]) -> None:
        """Read back what :meth:`save_parts` wrote."""
        return

    def save(self, folder: str | Path, *, card: ProbeCard | None = None) -> Path:
        """Write ``probe.safetensors``, ``probe.json`` and a readable ``README.md`` to a folder.

        Args:
            folder: made if missing; a probe already there is replaced.
            card: what the probe was trained on and how it scored.

        Raises:
            NotFittedError: nothing was learned yet.
        """
        return _save(self, Path(folder), card or getattr(self, "card_", None) or ProbeCard())

    @classmethod
    def load(
        cls: type[ThisProbe],
        folder: str | Path,
        *,
        fingerprint: str | None = None,
        site: str | None = None,
        scheme: str | None = None,
        width: int | None = None,
        allow_mismatch: bool = False,
    ) -> ThisProbe:
        """Read a probe of this class back; see :func:`probes.load`.

        Raises:
            ProbeFileError: the files are missing, corrupt, of another kind of probe, or made for something
                else.
        """
        found = load(
            folder,
            fingerprint=fingerprint,
            site=site,
            scheme=scheme,
            width=width,
            allow_mismatch=allow_mismatch,
        )
        return _require(found, cls, Path(folder))

    def hub_card(self) -> HubCard:
        """The probe's card, for the Hub.

        Raises:
            NotFittedError: nothing was learned yet.
        """
        card, facts = getattr(self, "card_", None) or ProbeCard(), self.facts()
        return hub_card(self.kind, PROBES[self.kind].description, facts.get("classes", []), self.width, card)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments by name (scikit-learn's protocol; ``deep`` changes nothing)."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def set_params(self: ThisProbe, **params: Any) -> ThisProbe:
        """Replace constructor arguments by name (scikit-learn's protocol).

        Raises:
            ValueError: the probe has no such parameter.
        """
        known = self.get_params()
        for name, value in params.items():
            if name not in known:
                has = ", ".join(known) or "none"
                raise ValueError(f"{type(self).__name__} has no parameter {name!r}; it has: {has}.")
            setattr(self, name, value)
        return self

    def require_fitted(self, learned: str) -> None:
        """Raise unless ``fit`` has set the attribute ``learned``.

        Raises:
            NotFittedError: naming the class and the cure.
        """
        if learned not in vars(self):
            name = type(self).__name__
            raise NotFittedError(
                f"this {name} is not fitted yet; call its fit(X, y) first, or {name}.load(folder)."
            )

    @property
    def n_features_in_(self) -> int:
        """The number of columns the probe was fitted on, under scikit-learn's name."""
        return self.width

    def __sklearn_tags__(self) -> Any:
        """Tell scikit-learn what kind of estimator this is."""
        from sklearn.utils import ClassifierTags, RegressorTags, Tags, TargetTags
        from sklearn.utils._tags import InputTags

        row = PROBES[self.kind]
        number = row.target == "number"
        return Tags(
            estimator_type="regressor" if number else "classifier",
            target_tags=TargetTags(required=True, multi_output=number),
            classifier_tags=None
            if number
            else ClassifierTags(multi_class=row.most_classes is None, multi_label=row.target == "labels"),
            regressor_tags=RegressorTags() if number else None,
            transformer_tags=None,
            input_tags=InputTags(sparse=True),
        )

    def __sklearn_is_fitted__(self) -> bool:
        """Whether ``fit`` was called, for scikit-learn."""
        return any(name.endswith("_") for name in vars(self))

    def __repr__(self) -> str:
        """The call that makes an unfitted copy."""
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.get_params().items())})"


def _save(probe: Probe, folder: Path, card: ProbeCard) -> Path:
    """Write a fitted probe; the record that names the other files' contents is written last."""
    arrays, facts = probe.arrays(), probe.facts()
    tensors = bytes_from_arrays(arrays)
    record = {
        "schema": SCHEMA,
        "kind": probe.kind,
        "parameters": probe.parameters(),
        "learned": facts,
        "width": probe.width,
        "sha256": hashlib.sha256(tensors).hexdigest(),
        "card": card.to_dict(),
    }
    record["checksum"] = _checksum(record)
    text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    words = readme(probe.kind, PROBES[probe.kind].description, facts.get("classes", []), probe.width, card)
    folder.mkdir(parents=True, exist_ok=True)
    probe.save_parts(folder)
    for name, content in ((TENSORS, tensors), (CARD, words.encode()), (RECORD, text.encode())):
        _write(folder / name, content)
    probe.card_ = card
    return folder


def _checksum(record: dict[str, Any]) -> str:
    """The sha256 of a record without its checksum, as JSON holds it, in hexadecimal."""
    rest = json.loads(json.dumps({key: value for key, value in record.items() if key != "checksum"}))
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _write(path: Path, content: bytes) -> None:
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def load(
    folder: str | Path,
    *,
    fingerprint: str | None = None,
    site: str | None = None,
    scheme: str | None = None,
    width: int | None = None,
    codebook: str | None = None,
    allow_mismatch: bool = False,
) -> Probe:
    """Read a saved probe, checked against what it will be used on.

    Args:
        folder: what :meth:`Probe.save` wrote, or ``hf://user/name[@revision]``.
        fingerprint: sha256 of the weights of the model it will read (``model.fingerprint``).
        site: where the activations come from, for example ``"resid_post.20"``.
        scheme: the quantization they were captured under, ``"none"`` for full precision.
        width: their number of columns.
        codebook: fingerprint of the codebook that a Hyperdimensional Probe must have been trained on.
        allow_mismatch: load all the same, and log what differs.

    Returns:
        The fitted probe; its card is ``probe.card_``.

    Raises:
        ProbeFileError: the files are missing or corrupt, or the probe was made for something else.
    """
    fetched = local(folder, "probe")
    folder = fetched.folder
    record = _read(folder)
    card = ProbeCard.from_dict({**record["card"], "hub": fetched.source})
    found = {
        "fingerprint": card.fingerprint,
        "site": card.site,
        "scheme": card.scheme,
        "width": record["width"],
        "codebook": record["learned"].get("codebook", "none"),
    }
    asked = {"fingerprint": fingerprint, "site": site, "scheme": scheme, "width": width, "codebook": codebook}
    differences = "; ".join(mismatches(found, asked))
    if differences and not allow_mismatch:
        raise ProbeFileError(
            f"the probe in {folder} was made for something else: {differences}. "
            "Train one here, or pass allow_mismatch=True if you know why."
        )
    if differences:
        _log.warning("the probe in %s was made for something else: %s", folder, differences)
    probe = _rebuilt(record, _arrays(folder, record), folder)
    try:
        probe.load_parts(folder, record["learned"])
    except ValueError as error:
        raise ProbeFileError(str(error)) from error
    probe.card_ = card
    return probe


def _rebuilt(record: dict[str, Any], arrays: dict[str, Any], folder: Path) -> Probe:
    parameters = {k: tuple(v) if isinstance(v, list) else v for k, v in record["parameters"].items()}
    try:
        return PROBES[record["kind"]].load()(**parameters).restore(arrays, record["learned"])
    except (KeyError, TypeError, ValueError) as error:
        raise ProbeFileError(
            f"{folder / RECORD} does not fit a {record['kind']} probe here ({error}). Save it again."
        ) from error


def _read(folder: Path) -> dict[str, Any]:
    """Read and check ``probe.json``.

    Raises:
        ProbeFileError: it is missing, no JSON, of another schema, or of a kind of probe this version does not
            know.
    """
    path = folder / RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ProbeFileError(
            f"no probe in {folder}: {error.strerror} ({RECORD}). Give a folder that save() wrote."
        ) from error
    except ValueError as error:
        raise ProbeFileError(f"{path} is not valid JSON ({error}). Save the probe again.") from error
    keys = {"kind", "parameters", "learned", "width", "sha256", "card"}
    if not isinstance(record, dict) or record.get("schema") != SCHEMA or not keys <= set(record):
        raise ProbeFileError(f"{path} is no record of schema {SCHEMA}. Save the probe with this version.")
    if record["kind"] not in PROBES:
        known = ", ".join(PROBES)
        raise ProbeFileError(f"{path} holds a {record['kind']!r} probe; this version knows: {known}.")
    if record.get("checksum", _checksum(record)) != _checksum(record):  # older ones have none
        raise ProbeFileError(f"{path} was changed: its checksum is not that of its content. Save it again.")
    return record


def _arrays(folder: Path, record: dict[str, Any]) -> dict[str, Any]:
    path = folder / TENSORS
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ProbeFileError(f"cannot read {path}: {error.strerror}. Save the probe again.") from error
    if hashlib.sha256(content).hexdigest() != record["sha256"]:
        raise ProbeFileError(
            f"{path} is not the file that {RECORD} names: its sha256 differs. Save it again."
        )
    try:
        return arrays_from_bytes(content)
    except SafetensorError as error:
        raise ProbeFileError(f"{path} is no safetensors file ({error}). Save the probe again.") from error


def _require(probe: Probe, kind: type[ThisProbe], folder: Path) -> ThisProbe:
    """The probe as the class asked for.

    Raises:
        ProbeFileError: it is of another class.
    """
    if isinstance(probe, kind):
        return probe
    raise ProbeFileError(
        f"{folder} holds a {type(probe).__name__}, asked for a {kind.__name__}; "
        f"use {type(probe).__name__}.load, or probes.load for any kind."
    )
