"""A steering vector: a direction at each of some sites, how long one dose is, and where it comes from.

Adding a vector to the residual stream is activation addition (Turner et al. 2023, arXiv 2308.10248);
with the difference of means of contrast prompts it is CAA (Rimsky et al. 2024, arXiv 2312.06681).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.activations.files import read_facts, read_tensors, write_facts, write_tensors
from interp.errors import ArtifactError, ConfigError, DataError, ModelError
from interp.hub import HubCard, Shared, local
from interp.models.interventions import Intervention
from interp.models.model import Model
from interp.models.positions import Positions
from interp.sites import Site

__all__ = ["CARD", "DIFFERENCE", "TENSORS", "Origin", "Vector", "checked_dose", "described", "hashed"]

SCHEMA, TENSORS, CARD = "interp.steering-vector/1", "vector.safetensors", "vector.json"
SIZES = ("type", "d_model", "n_layers")
"""What must be the same in the model that a vector was fitted on and the one it is added to."""
KEYS = {
    "": ("name", "units", "sites", "tensors", "origin"),
    "tensors": ("sha256", "bytes"),
    "origin": ("method", "prompts", "examples"),
}
"""Parts of a card and what each must hold."""
DIFFERENCE = "the distance between the mean states of the two sides"


def hashed(prompt: Any) -> str:
    """Sixteen digits of the sha256 of a prompt, by which a text that was fitted on is known again."""
    text = prompt if isinstance(prompt, str) else json.dumps(prompt, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Origin:
    """Where a vector comes from, as JSON types.

    Attributes:
        method: how it was fitted: a row of ``METHODS``, ``random``, or ``file``.
        model: name, weights, fingerprints and scheme; its ``type``, ``d_model`` and ``n_layers``.
        unit: what dose 1 is the length of, in words.
        positive: number of prompts on the positive side.
        negative: number on the other.
        positions: the tokens whose states were read.
        prompts: hashes of all prompts that it was fitted on, and of conversations without their answers.
        examples: some prompts of the positive side, as texts.
        norms: site -> mean length of the states there.
        separation: site -> how well the direction tells held-out prompts of the two sides apart: the area
            under the curve, with its interval.
        seed: of what was drawn.
        evaluated: what an evaluation found, or nothing.
        hub: ``user/name@commit`` of the Hub where it was fetched there.
    """

    method: str
    model: Mapping[str, Any] = field(default_factory=dict)
    unit: str = DIFFERENCE
    positive: int = 0
    negative: int = 0
    positions: str = ""
    prompts: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()
    norms: Mapping[str, float] = field(default_factory=dict)
    separation: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    seed: int = 0
    evaluated: Mapping[str, Any] = field(default_factory=dict)
    hub: str = ""


@dataclass(frozen=True, eq=False, repr=False)
class Vector(Shared):
    """A direction at one site, or one at each of several.

    A dose is counted in units: dose 1 adds a vector of the length ``units[site]`` along ``directions[site]``.

    Attributes:
        name: in tables.
        directions: site -> direction of length 1, float32 on the CPU.
        units: site -> length of dose 1, in the units of the site's states.
        origin: how it was fitted, and on what.
    """

    name: str
    directions: Mapping[str, Float[Tensor, " width"]]
    units: Mapping[str, float]
    origin: Origin

    def __post_init__(self) -> None:
        """Refuse no direction, directions not of length 1, and lengths that are no lengths.

        Raises:
            DataError: naming the site.
        """
        if not self.directions or self.directions.keys() != self.units.keys():
            raise DataError(
                f"vector {self.name!r} has directions at {list(self.directions)} and lengths at "
                f"{list(self.units)}; give both for the same sites, one at least."
            )
        for site, direction in self.directions.items():
            length, unit = float(direction.norm()), self.units[site]
            if not (math.isfinite(length) and abs(length - 1) < 1e-4 and math.isfinite(unit) and unit > 0):
                raise DataError(
                    f"vector {self.name!r} at {site}: a direction of length {length:.3g} and a dose of "
                    f"{unit:.3g}; use Vector.of, which takes any vector that is finite and not zero."
                )

    @classmethod
    def of(
        cls,
        name: str,
        vectors: Mapping[str, Float[Tensor, " width"]],
        origin: Origin,
        units: Mapping[str, float] | None = None,
    ) -> Vector:
        """A vector of any length at each site.

        Args:
            name: in tables.
            vectors: site -> vector; of dose 1 where ``units`` is left out.
            origin: how it came to be.
            units: site -> length of dose 1.

        Raises:
            DataError: a vector is zero or not finite.
        """
        wide = {str(Site.parse(site)): one.detach().to("cpu", torch.float64) for site, one in vectors.items()}
        lengths = {site: float(one.norm()) for site, one in wide.items()}
        if bad := [site for site, length in lengths.items() if not (math.isfinite(length) and length > 0)]:
            raise DataError(
                f"the vector at {bad[0]} is {'zero' if lengths[bad[0]] == 0 else 'not finite'}; the two "
                "sides do not differ there, or hold what is not a number. Give other prompts or another site."
            )
        directions = {site: (one / lengths[site]).float() for site, one in wide.items()}
        return cls(name, directions, dict(units or lengths), origin)

    @property
    def sites(self) -> tuple[str, ...]:
        """Where it is added, in the order in which it was fitted."""
        return tuple(self.directions)

    @property
    def site(self) -> str:
        """The one site.

        Raises:
            ConfigError: it has several.
        """
        if len(self.sites) > 1:
            raise ConfigError(
                f"vector {self.name!r} has {len(self.sites)} sites ({', '.join(self.sites[:3])}, ...); take "
                f"one of them: vector.at({self.sites[0]!r})."
            )
        return next(iter(self.sites))

    @property
    def layer(self) -> int | None:
        """The block of the one site; None for the embedding and the final norm."""
        return Site.parse(self.site).layer

    @property
    def direction(self) -> Float[Tensor, " width"]:
        """The direction at the one site, of length 1."""
        return self.directions[self.site]

    @property
    def unit(self) -> float:
        """The length of dose 1 at the one site."""
        return self.units[self.site]

    def __repr__(self) -> str:
        """What it is, in one line."""
        place = self.sites[0] if len(self.sites) == 1 else f"{len(self.sites)} sites"
        return f"Vector({self.name!r}, {place}, {self.origin.method}, {self.dose_words()})"

    def dose_words(self) -> str:
        """What dose 1 is: a length, a share of the states' mean length where that is known, and of what."""
        site = self.sites[0]
        norm = self.origin.norms.get(site)
        share = f" ({self.units[site] / norm:.0%} of the mean length of a state)" if norm else ""
        at = f" at {site}" if len(self.sites) > 1 else ""
        return f"dose 1 is {self.units[site]:.3g}{at}{share}: {self.origin.unit}"

    # Uses ------------------------------------------------------------------------------------------------

    def interventions(self, dose: int | float, *, positions: Positions = "all") -> list[Intervention]:
        """What adds it to the states, for ``model.run`` and ``model.generate``.

        Args:
            dose: in units; negative for the opposite direction.
            positions: as for ``Intervention``; in ``generate``, ``"all"`` reaches every new token.

        Raises:
            ConfigError: the dose is no finite number.
        """
        amount = checked_dose(dose)
        return [
            Intervention(site, partial(_added, amount * self.units[site] * direction), positions)
            for site, direction in self.directions.items()
        ]

    def at(self, site: str) -> Vector:
        """The same at one of its sites.

        Raises:
            ConfigError: it has no such site.
        """
        if site not in self.directions:
            raise ConfigError(f"vector {self.name!r} is not at {site!r}; it is at: {', '.join(self.sites)}.")
        return replace(self, directions={site: self.directions[site]}, units={site: self.units[site]})

    def opposite(self) -> Vector:
        """The same with the other sign."""
        return replace(
            self,
            name=f"-{self.name}",
            directions={site: -direction for site, direction in self.directions.items()},
        )

    def random(self, seed: int) -> Vector:
        """Random directions of the same lengths at the same sites, uniform on the sphere.

        Args:
            seed: of the draw.
        """
        drawn = torch.Generator().manual_seed(seed)
        made = {
            site: torch.randn(len(one), generator=drawn, dtype=torch.float64)
            for site, one in self.directions.items()
        }
        origin = replace(self.origin, method="random", prompts=(), examples=(), separation={}, seed=seed)
        return Vector.of(f"random-{seed}", made, origin, self.units)

    def check(self, model: Model, *, other_weights: str = "warn") -> tuple[str, ...]:
        """Whether it fits a model.

        Args:
            model: that it is to be added to.
            other_weights: ``"warn"``, or ``"refuse"`` to refuse other weights than those it was fitted on.

        Returns:
            Warnings, for whoever reads what follows.

        Raises:
            ModelError: the model has another architecture or width; or other weights, where they are refused.
            SiteError: the model has no such site.
        """
        mine, here = self.origin.model, described(model)
        for what in SIZES:
            there = here[what]
            if what in mine and mine[what] != there:
                raise ModelError(
                    f"vector {self.name!r} is of {mine.get('name', 'a model')!r} with {what} {mine[what]}; "
                    f"{model.name!r} has {there}. A direction means nothing in another model: fit one there "
                    "(steering.fit)."
                )
        for site, direction in self.directions.items():
            model.expand(site)
            if len(direction) != model.d_model:
                raise ModelError(
                    f"vector {self.name!r} at {site} has width {len(direction)}; {model.name!r} has d_model "
                    f"{model.d_model}. Fit one on this model (steering.fit)."
                )
        warned = [f"{one}: evaluate it here before you use it." for one in self._other(here)]
        known = mine.get("fingerprint")
        if known == model.fingerprint:
            return tuple(warned)
        found = (
            f"vector {self.name!r} does not say which weights it was fitted on"
            if not known
            else f"vector {self.name!r} was fitted on {mine.get('name')!r} with other weights than those of "
            f"{model.name!r}"
        )
        if other_weights == "refuse":
            raise ModelError(f"{found}. Fit it on this model, or accept it with other_weights='warn'.")
        return (f"{found}: evaluate it here before you use it.", *warned)

    def _other(self, here: Mapping[str, Any]) -> Iterator[str]:
        """What else is not as it was: the numbers of the weights, or the architecture that a file names."""
        mine = self.origin.model
        then, now = mine.get("scheme"), here["scheme"]
        if then is not None and then != now:
            yield f"vector {self.name!r} was fitted with the quantization {then!r}; here it is {now!r}"
        if (hint := mine.get("hint", here["type"])) != here["type"]:
            yield f"{mine.get('name')} names the architecture {hint!r}; {here['name']!r} is {here['type']!r}"

    # Files -----------------------------------------------------------------------------------------------

    def hub_card(self) -> HubCard:
        """Where it comes from and what was found, for the Hub."""
        return _hub_card(self)

    def save(self, folder: str | Path, *, text: bool = True) -> Path:
        """Write ``vector.safetensors`` and the card ``vector.json`` into a folder.

        Args:
            folder: where to.
            text: False leaves out the example prompts; hashes of all prompts stay.

        Raises:
            ConfigError: the place cannot be written.
        """
        folder = Path(folder)
        digest = write_tensors(folder / TENSORS, dict(self.directions))
        origin = self.origin if text else replace(self.origin, examples=())
        card = {"schema": SCHEMA, "name": self.name, "units": dict(self.units), "sites": list(self.sites)}
        write_facts(folder / CARD, {**card, "tensors": digest, "origin": asdict(origin)})
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> Vector:
        """Read what :meth:`save` wrote: a folder, a run that holds one as ``vector``, or one of the Hub.

        Args:
            folder: of these, or ``hf://user/name[@revision]``.

        Raises:
            ArtifactError: nothing is there, it is damaged, or the card lacks something.
        """
        fetched = local(folder, "steering-vector")
        folder = fetched.folder
        place = folder if (folder / CARD).is_file() else folder / "vector"
        if not (place / CARD).is_file():
            raise ArtifactError(
                f"{folder} holds no steering vector ({CARD}); fit one: interp steer --fit pairs.jsonl "
                f"--layer 50% --out {folder}."
            )
        card = read_facts(place / CARD, SCHEMA)
        _check_whole(place / CARD, card)
        found = read_tensors(place / TENSORS, card["tensors"], card["sites"])
        origin = dict(card["origin"])
        origin |= {name: tuple(origin[name]) for name in ("prompts", "examples")} | {"hub": fetched.source}
        return cls(card["name"], found, card["units"], Origin(**origin))


def _hub_card(vector: Vector) -> HubCard:
    origin = vector.origin
    facts = {name: value for name, value in origin.model.items() if isinstance(value, str | int)}
    named = ("method", "positions", "positive", "negative", "seed")
    facts |= {"sites": ", ".join(vector.sites), "dose": vector.dose_words()}
    facts |= {name: getattr(origin, name) for name in named}
    found = origin.evaluated
    apart = {f"held-out prompts told apart at {site} (AUROC)": one for site, one in origin.separation.items()}
    doubts = ["A direction means nothing in another model, and need not mean the same in other weights."]
    if not found:
        doubts.append("What it does to what the model says was not evaluated, nor what it costs: not shown.")
    if not apart:
        doubts.append("Whether it tells held-out prompts apart is not recorded.")
    return HubCard(
        "steering-vector",
        f"Steering vector: {vector.name}",
        str(origin.model.get("name", "")),
        says=str(found.get("verdict", "")),
        facts=facts,
        scores=apart,
        controls={one.get("label") or name: one for name, one in found.get("numbers", {}).items()},
        failures=tuple(doubts),
        load='from interp.steering import Vector\n\nvector = Vector.from_pretrained("REPO")',
    )


def _check_whole(path: Path, card: Mapping[str, Any]) -> None:
    """Refuse a card that lacks a key, naming it."""
    for part, keys in KEYS.items():
        found = card if not part else card[part]
        if lacking := [key for key in keys if not isinstance(found, Mapping) or key not in found]:
            name = f"{part}.{lacking[0]}" if part else lacking[0]
            raise ArtifactError(
                f"{path} has no {name!r}, so the vector cannot be read. Write it again with Vector.save, or "
                "restore the file from a copy."
            )


def described(model: Model) -> dict[str, Any]:
    """What a card says about a model: what it is called, its fingerprints, its kind and its sizes."""
    kind = model.hf.config.model_type
    return {**model.described, "type": kind, "d_model": model.d_model, "n_layers": model.n_layers}


def checked_dose(dose: Any) -> float:
    """A dose as a number.

    Raises:
        ConfigError: it is none, or not finite.
    """
    if isinstance(dose, bool) or not isinstance(dose, int | float) or not math.isfinite(dose):
        raise ConfigError(f"dose {dose!r} asked; give a finite number of units, such as 2 or -1.5.")
    return float(dose)


def _added(shift: Float[Tensor, " width"], states: Float[Tensor, "chosen width"]) -> Tensor:
    return states + shift.to(states.device, states.dtype)
