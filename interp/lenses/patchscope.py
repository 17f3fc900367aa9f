"""The patchscope: a state put into another prompt, whose next word says what the state holds.

Ghandeharioun et al. 2024 (arXiv 2401.06102). The target prompt repeats words, ``cat -> cat; hello -> hello;
?``; the state is written at the same layer over that of the ``?``, and the blocks after it run on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import ConfigError
from interp.lenses.base import Lens
from interp.models.interventions import Intervention
from interp.models.model import Model

__all__ = ["TARGET", "PatchscopeLens"]

TARGET = "cat -> cat; 1135 -> 1135; hello -> hello; ?"
"""The prompt of the paper that asks for the word itself."""
PLACE = "?"


@dataclass(frozen=True, eq=False)
class PatchscopeLens(Lens):
    """What the model says next in a target prompt in which the state stands.

    Attributes:
        model: which runs the target prompt.
        layers: the blocks it reads.
        target: the prompt, as text.
        ids: its tokens.
        position: of the token over whose state is written.
    """

    kind: ClassVar[str] = "patchscope"

    model: Model
    layers: tuple[int, ...]
    target: str
    ids: tuple[int, ...]
    position: int

    @classmethod
    def of(
        cls,
        model: Model,
        layers: Sequence[int] | None = None,
        texts: Sequence[str] | None = None,
        seed: int = 0,
        *,
        target: str = TARGET,
    ) -> PatchscopeLens:
        """The patchscope of a model; nothing is fitted.

        Args:
            model: whose states it will read, and which reads them.
            layers: the blocks to read; None for all.
            texts: not used: every row of ``LENSES`` is made with the same arguments.
            seed: likewise.
            target: the prompt; the state is written over its last ``?``.

        Raises:
            ConfigError: the prompt has no ``?``, or words that the tokenizer does not know.
        """
        tokens = model.tokenize([target])
        ids = tokens.token_ids[0]
        tokenizer: Any = model.tokenizer
        pieces = [str(one) for one in tokenizer.convert_ids_to_tokens(list(ids))]
        places = [at for at, piece in enumerate(pieces) if PLACE in piece]
        if not places:
            raise ConfigError(
                f"the target prompt {target!r} has no token with {PLACE!r}, over which the state is written; "
                f"give one such as {TARGET!r}."
            )
        if tokenizer.unk_token_id is not None and tokenizer.unk_token_id in ids:
            raise ConfigError(
                f"the target prompt {target!r} has words that {model.name!r} does not know; give one in its "
                "own words, with a '?' at the place of the state (--target)."
            )
        chosen = range(model.n_layers) if layers is None else layers
        return cls(model, tuple(chosen), target, tuple(ids), places[-1])

    @property
    def vocab_size(self) -> int:
        """How many tokens the model tells apart."""
        return self.model.vocab_size

    @torch.no_grad()
    def logits(self, states: Float[Tensor, "*batch d_model"], layer: int) -> Float[Tensor, "*batch vocab"]:
        """The logits after the target prompt in which each state stands: one run for each.

        Args:
            states: of ``resid_post.layer``; they are written at the same layer.
            layer: which block.

        Raises:
            SiteError: the lens does not read this layer.
        """
        self.check(layer)
        flat = states.reshape(-1, states.shape[-1])
        write = Intervention(f"resid_post.{layer}", flat, self.position)
        run = self.model.run([list(self.ids)] * len(flat), interventions=[write])
        assert run.logits is not None
        return run.logits.float().reshape(*states.shape[:-1], -1)

    def card(self) -> dict[str, Any]:
        """Kind, layers and the target prompt."""
        known = {"kind": self.kind, "layers": list(self.layers), "fitted_on": None}
        return {**known, "target": self.target, "position": self.position}
