"""A dictionary of features: what reads them from a site, and what each of them writes.

    features = dictionary.encode(x)                    # [*batch feature]
    x_hat = dictionary.decode(features, x)             # [*batch width]
    x = x_hat + error                                  # by definition of the error

A sparse autoencoder reads and writes one site. A transcoder reads one and writes another, such as the MLP's
output; a cross-layer transcoder also writes those of later layers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import ConfigError
from interp.features.activations import Activation, ReLU, TopK
from interp.sites import Site

__all__ = ["NORMS", "READS", "Dictionary"]

NORMS = ("none", "layer-norm", "constant-norm", "rms")
"""What is done to the input first: nothing; mean and standard deviation taken away; scaled to the norm
``sqrt(width)``; divided by its root mean square (without gain). The first three are undone after decoding."""
READS = ("site", "norm")
"""What is read: the site's value; or what the norm right after the site gives (the input of the MLP)."""
TINY = 1e-5, 1e-6


@dataclass(frozen=True, eq=False, repr=False)
class Dictionary:
    """Features of one layer of one model; frozen, in float32.

    Attributes:
        name: how messages call it.
        layout: the key of the published layout it was read from.
        site_in: what features are read from.
        site_out: what they are written to; ``site_in`` for an autoencoder.
        encoder: a row per feature.
        encoder_bias: of every feature.
        decoder: a row per feature: what one unit of it writes.
        decoder_bias: what is written without any feature.
        activation: turns pre-activations into features.
        shift: is subtracted from the input first; None for nothing.
        norm: what is done to the input before that, a word of ``NORMS``.
        read: a word of ``READS``.
        skip: a linear map from the input that is added to the output; None for none.
        later: of a cross-layer transcoder: what features write to ``site_out`` of the layers after it.
        of_module: whether its ``mlp_out`` or ``attn_out`` is a module's own output: before the norm and the
            factor that come between some modules and the stream.
        model_name: the model it was trained on, as its configuration says; "" where it does not.
        card: more of its configuration, as JSON types.
    """

    name: str
    layout: str
    site_in: Site
    site_out: Site
    encoder: Float[Tensor, "feature width_in"]
    encoder_bias: Float[Tensor, " feature"]
    decoder: Float[Tensor, "feature width_out"]
    decoder_bias: Float[Tensor, " width_out"]
    activation: Activation
    shift: Float[Tensor, " width_in"] | None = None
    norm: str = "none"
    read: str = "site"
    skip: Float[Tensor, "width_out width_in"] | None = None
    later: tuple[Float[Tensor, "feature width_out"], ...] = ()
    of_module: bool = False
    model_name: str = ""
    card: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        """Refuse what cannot be used."""
        if self.norm not in NORMS or self.read not in READS:
            raise ConfigError(
                f"dictionary {self.name!r}: norm {self.norm!r} and read {self.read!r} asked; norms: "
                f"{', '.join(NORMS)}; reads: {', '.join(READS)}."
            )
        if self.norm in ("layer-norm", "constant-norm") and not self.autoencodes:
            raise ConfigError(
                f"dictionary {self.name!r} undoes its norm {self.norm!r} after decoding, which means nothing "
                f"where it reads {self.site_in} and writes {self.site_out}."
            )
        if self.site_in == self.site_out and (self.norm == "rms" or self.read == "norm"):
            raise ConfigError(
                f"dictionary {self.name!r} is an autoencoder of what a norm gives of {self.site_in}: no site "
                "holds that, and what it writes is no value of the stream. Transcoders may read it."
            )
        self._check_shapes()

    def _check_shapes(self) -> None:
        n, width_in, width_out = (*self.encoder.shape, self.decoder.shape[1])
        wanted = {
            "encoder_bias": (n,),
            "decoder": (n, width_out),
            "decoder_bias": (width_out,),
            "shift": (width_in,),
            "skip": (width_out, width_in),
            **dict.fromkeys(self.activation.tensors(), (n,)),
        }
        found = {
            name: tuple(one.shape) for name, one in {**self._tensors(), **self.activation.tensors()}.items()
        }
        if bad := [name for name, shape in found.items() if shape != wanted.get(name, shape)]:
            raise ConfigError(
                f"dictionary {self.name!r}: encoder {tuple(self.encoder.shape)} and "
                f"{', '.join(f'{name} {found[name]}' for name in bad)} do not belong together; wanted: "
                f"{', '.join(str(wanted[name]) for name in bad)}."
            )
        if isinstance(self.activation, TopK) and not 1 <= self.activation.k <= n:
            raise ConfigError(
                f"dictionary {self.name!r} keeps k={self.activation.k} of {n} features; k is 1 to {n}."
            )

    def __repr__(self) -> str:
        """One line."""
        where = str(self.site_in) if self.autoencodes else f"{self.site_in} -> {self.site_out}"
        return f"Dictionary({self.name!r}, {self.n_features} {self.activation.name} features, {where})"

    @property
    def layer(self) -> int:
        """The block of ``feature.l.i``: where features are read; 0 for the embedding."""
        return self.site_in.layer or 0

    @property
    def reached(self) -> range:
        """The layers after its own that its features write to, of a cross-layer transcoder."""
        first = (self.site_out.layer or 0) + 1
        return range(first, first + len(self.later))

    @property
    def n_features(self) -> int:
        """How many features."""
        return len(self.encoder)

    @property
    def width(self) -> int:
        """Of what is written."""
        return self.decoder.shape[1]

    @property
    def autoencodes(self) -> bool:
        """Whether what is written is what is read."""
        return self.site_in == self.site_out and self.read == "site"

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.encoder.device

    def to(self, device: torch.device | str) -> Dictionary:
        """The same on a device."""
        if torch.device(device) == self.device:
            return self
        moved = {name: value.to(device) for name, value in self._tensors().items()}
        later = tuple(one.to(device) for one in self.later)
        return replace(self, **moved, later=later, activation=self.activation.to(device))

    def _tensors(self) -> dict[str, Tensor]:
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}

    def encode(self, x: Float[Tensor, "*batch width_in"]) -> Float[Tensor, "*batch feature"]:
        """The features of values of ``site_in``, computed in float32.

        Args:
            x: the values, or what the norm after the site gives where ``read`` says so.
        """
        given = self._normed(x.to(self.encoder.dtype))
        given = given if self.shift is None else given - self.shift
        return self.activation(given @ self.encoder.T + self.encoder_bias)

    def decode(
        self, features: Float[Tensor, "*batch feature"], x: Float[Tensor, "*batch width_in"] | None = None
    ) -> Float[Tensor, "*batch width_out"]:
        """What features write.

        Args:
            features: as ``encode`` gives them.
            x: what was encoded; needed where the input's norm is undone, and for a skip connection.

        Raises:
            ConfigError: ``x`` is needed and was not given.
        """
        written = features @ self.decoder + self.decoder_bias
        if self.needs_input and x is None:
            raise ConfigError(
                f"dictionary {self.name!r} needs the input to decode: give decode(features, x)."
            )
        if x is None:
            return written
        given = x.to(self.encoder.dtype)
        if self.skip is not None:
            written = written + self._normed(given) @ self.skip.T
        scale, mean = self._undone(given)
        return written * scale + mean

    @property
    def needs_input(self) -> bool:
        """Whether decoding needs what was encoded."""
        return self.skip is not None or self.norm in ("layer-norm", "constant-norm")

    def errors(
        self, x: Float[Tensor, "*batch width_in"], out: Float[Tensor, "*batch width_out"] | None = None
    ) -> Float[Tensor, "*batch width_out"]:
        """What features leave out: ``out - decode(encode(x), x)``.

        Args:
            x: values of ``site_in``.
            out: values of ``site_out``; None for those of ``site_in``.
        """
        return (x if out is None else out).to(self.encoder.dtype) - self.decode(self.encode(x), x)

    def written(
        self, change: Float[Tensor, "*batch feature"], x: Float[Tensor, "*batch width_in"]
    ) -> Float[Tensor, "*batch width_out"]:
        """What a change of features adds to ``site_out``; exactly 0 for no change.

        Args:
            change: of the features.
            x: what they were read from.
        """
        scale, _ = self._undone(x.to(self.encoder.dtype))
        return (change.to(self.decoder.dtype) @ self.decoder) * scale

    def only(self, index: int) -> Dictionary:
        """The dictionary of one of its features, for what it writes.

        Args:
            index: of the feature.
        """
        at = slice(index, index + 1)
        return replace(
            self,
            encoder=self.encoder[at],
            encoder_bias=self.encoder_bias[at],
            decoder=self.decoder[at],
            later=tuple(one[at] for one in self.later),
            activation=ReLU(),
        )

    def features_of(self, x: Float[Tensor, " width_in"], k: int = 10) -> tuple[tuple[int, float], ...]:
        """The k largest features of one value, the largest first; only those above 0.

        Args:
            x: one value of ``site_in``.
            k: how many at most.
        """
        values, index = self.encode(x).topk(min(k, self.n_features))
        return tuple((int(at), float(value)) for at, value in zip(index, values, strict=True) if value > 0)

    def folded(self) -> Dictionary:
        """The same function with decoder rows of length 1: features are measured in units of the site.

        Rows that are zero are left as they are.
        """
        factor = self.decoder.norm(dim=1)
        factor = torch.where(factor > 0, factor, torch.ones_like(factor))
        return replace(
            self,
            encoder=self.encoder * factor[:, None],
            encoder_bias=self.encoder_bias * factor,
            decoder=self.decoder / factor[:, None],
            later=tuple(one / factor[:, None] for one in self.later),
            activation=self.activation.scaled(factor),
        )

    def scaled(self, factor: float) -> Dictionary:
        """Fold a factor on its input, undone on its output, into the weights.

        A dictionary trained on ``factor * x`` (``expected_average_only_in``) becomes one for ``x``.

        Args:
            factor: above 0.
        """
        shift = None if self.shift is None else self.shift / factor
        return replace(
            self,
            encoder=self.encoder * factor,
            decoder=self.decoder / factor,
            decoder_bias=self.decoder_bias / factor,
            shift=shift,
        )

    def _normed(self, x: Tensor) -> Tensor:
        if self.norm == "none":
            return x
        if self.norm == "layer-norm":
            scale, mean = self._undone(x)
            return (x - mean) / (scale + TINY[0])
        if self.norm == "constant-norm":
            return x / self._undone(x)[0]
        return x / (x.square().mean(dim=-1, keepdim=True) + TINY[1]).sqrt()

    def _undone(self, x: Tensor) -> tuple[Tensor | float, Tensor | float]:
        """The factor and the mean that the output gets back."""
        if self.norm == "layer-norm":
            mean = x.mean(dim=-1, keepdim=True)
            return (x - mean).std(dim=-1, keepdim=True), mean
        if self.norm == "constant-norm":
            return x.norm(dim=-1, keepdim=True) / x.shape[-1] ** 0.5, 0.0
        return 1.0, 0.0

    @cached_property
    def fingerprint(self) -> str:
        """The sha256 of its weights and of how they are used."""
        digest = hashlib.sha256(
            repr(
                (self.site_in, self.site_out, self.norm, self.read, self.of_module, self.activation.name)
            ).encode()
        )
        extra = {
            name: repr(value) for name, value in vars(self.activation).items() if not torch.is_tensor(value)
        }
        digest.update(repr(sorted(extra.items())).encode())
        tensors = {**self._tensors(), **self.activation.tensors()}
        tensors |= {f"later.{at}": one for at, one in enumerate(self.later)}
        for name, value in sorted(tensors.items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()
