"""Features of a dictionary as sites: computed from one tensor, written by what they add to another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from interp.features.dictionary import Dictionary
from interp.models.tensor_views import Given, View

__all__ = ["Code", "FeatureView"]


class Code(NamedTuple):
    """What a dictionary makes of one pass, with what was written.

    Attributes:
        features: ``[batch pos feature]``.
        error: ``[batch pos width]``, what they leave out.
        x: what was encoded.
    """

    features: Tensor
    error: Tensor
    x: Tensor


@dataclass(frozen=True, eq=False)
class FeatureView(View):
    """Take features, or the error, and write them as changes: ``out + change of features @ decoder``.

    All views of one dictionary share the code that the first of them computes in a pass, so that several may
    be written together: what one writes does not change what another is.

    Attributes:
        dictionary: what encodes and decodes.
        inner: cuts ``site_out`` out of the hooked tensor.
        source: cuts ``site_in`` out of what is given; None where the hooked tensor itself is encoded.
        part: ``feature`` or ``error``.
        index: of one feature; None for all.
        flat: whether the site has an axis of heads, which the dictionary reads as one.
        earlier: of a cross-layer transcoder the layers whose features write here too, and their decoders.
    """

    dictionary: Dictionary
    inner: View
    source: View | None
    part: str
    index: int | None = None
    flat: bool = False
    earlier: tuple[tuple[int, Tensor], ...] = ()

    computed: ClassVar[bool] = True

    @property
    def shared(self) -> int:
        """What names the code of a pass: the layer, of which there is one dictionary."""
        return self.dictionary.layer

    def code(self, tensor: Tensor, given: Given, codes: Mapping[int, Code]) -> Code:
        """Encode and decode.

        Args:
            tensor: the hooked one.
            given: what else the view needs.
            codes: layer -> what was made of the pass so far; those of ``earlier`` must be there.
        """
        out = self._whole(tensor, given)
        x = out
        if self.source is not None:
            assert isinstance(given, Tensor)
            x = self.source.read(given, None)
        features = self.dictionary.encode(x)
        error = out.to(features.dtype) - self.dictionary.decode(features, x)
        for layer, decoder in self.earlier:
            error = error - (codes[layer].features @ decoder).to(error.device)
        return Code(features, error, x)

    def cut(self, code: Code) -> Tensor:
        """This part of a code."""
        if self.part == "error":
            return code.error
        return code.features if self.index is None else code.features[..., self.index : self.index + 1]

    def rewritten(self, code: Code, new: Tensor) -> Code:
        """A code with this part replaced."""
        if self.part == "error":
            return code._replace(error=new)
        if self.index is None:
            return code._replace(features=new)
        at, features = self.index, code.features
        parts = [features[..., :at], new.to(features.dtype), features[..., at + 1 :]]
        return code._replace(features=torch.cat(parts, dim=-1))

    def read(self, tensor: Tensor, given: Given) -> Tensor:
        """This part, from the tensors of one layer."""
        return self.cut(self.code(tensor, given, {}))

    def write(self, tensor: Tensor, given: Given, new: Tensor) -> Tensor:
        """What must stand in place of ``tensor`` so that this part is ``new`` and the others stay."""
        code = self.code(tensor, given, {})
        return self.changed(tensor, given, new - self.cut(code), code)

    def onward(self, change: Tensor, at: int) -> Tensor:
        """What a change of features adds in a later layer.

        Args:
            change: of this part.
            at: which of the layers it reaches after its own.
        """
        decoder = self.dictionary.later[at]
        rows = decoder if self.index is None else decoder[self.index : self.index + 1]
        return change.to(rows.dtype) @ rows

    def changed(self, tensor: Tensor, given: Given, change: Tensor, code: Code) -> Tensor:
        """The same for a change of this part.

        Args:
            tensor: the hooked one, in which other parts may have been written already.
            given: what else the view needs.
            change: of this part; exactly 0 leaves every bit as it is.
            code: of the pass.
        """
        added = change
        if self.part == "feature":
            one = self.dictionary if self.index is None else self.dictionary.only(self.index)
            added = one.written(change, code.x)
        out = self._whole(tensor, given)
        new = (out + added.to(out.dtype)).to(out.dtype)
        heads = self.inner.read(tensor, given if self.source is None else None)
        return self.inner.write(tensor, given if self.source is None else None, new.view(heads.shape))

    def _whole(self, tensor: Tensor, given: Given) -> Tensor:
        """The value of ``site_out``, heads side by side."""
        value = self.inner.read(tensor, given if self.source is None else None)
        return value.flatten(-2) if self.flat else value
