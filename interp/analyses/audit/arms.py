"""What a reader is given: states of five origins at one layer, each with the prompts of the cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float

from interp.analyses.audit.cases import Case
from interp.analyses.concepts.trial import concept_tokens
from interp.analyses.readers.reader import Reader
from interp.models.interventions import Intervention
from interp.models.model import Model

__all__ = ["Arms", "carries", "partners_of"]


@dataclass(frozen=True, eq=False)
class Arms:
    """The states that readers of one layer are given.

    Attributes:
        layer: the block.
        cases: the prompts.
        trained: ``[case d_model]``, states of the model.
        edited: of the twin that was taught something false.
        untrained: of random weights.
        partners: for each case the row of another prompt of its relation with another answer; -1 for none.
        carried: ``[case]``, whether the twin's state carries the edit.
    """

    layer: int
    cases: tuple[Case, ...]
    trained: Float[torch.Tensor, "case d_model"]
    edited: Float[torch.Tensor, "case d_model"]
    untrained: Float[torch.Tensor, "case d_model"]
    partners: tuple[int, ...]
    carried: Bool[np.ndarray, " case"]

    def read(self, reader: Reader) -> Mapping[str, list[str]]:
        """What a reader names in every arm: arm -> the likeliest name of each case, "" where it abstains."""
        texts = [case.text for case in self.cases]
        another = self.trained[[at if at >= 0 else row for row, at in enumerate(self.partners)]]
        constant = self.trained.mean(dim=0, keepdim=True).expand_as(self.trained).contiguous()
        states = {
            "trained": self.trained,
            "edited": self.edited,
            "untrained": self.untrained,
            "another": another,
            "no state": constant,
        }
        return {arm: reader.first(given, texts, self.layer) for arm, given in states.items()}


def partners_of(cases: Sequence[Case], *, seed: int = 0) -> tuple[int, ...]:
    """Draw for each case another prompt of its relation, about another fact with another answer.

    Args:
        cases: the prompts.
        seed: of the draw.

    Returns:
        Its row; -1 where the relation has none.
    """
    rng = np.random.default_rng(seed)
    rows: dict[str, list[int]] = {}
    for row, case in enumerate(cases):
        rows.setdefault(case.relation, []).append(row)
    found: list[int] = []
    for case in cases:
        others = [
            row
            for row in rows[case.relation]
            if cases[row].fact != case.fact and cases[row].truth != case.truth
        ]
        found.append(int(rng.choice(others)) if others else -1)
    return tuple(found)


def carries(
    model: Model,
    states: Float[torch.Tensor, "case d_model"],
    cases: Sequence[Case],
    layer: int,
    *,
    batch_size: str | int = "auto",
) -> Bool[np.ndarray, " case"]:
    """Whether the twin's state, put in the place of the unedited model's, makes that model say the belief.

    Only then does the state itself hold what the edit changed: before, the edit may still wait in other
    positions or later layers, and a reader of such a state that says the truth is not to blame.

    Args:
        model: the unedited model.
        states: the twin's, of ``resid_post.layer`` at the last token.
        cases: the prompts.
        layer: which block.
        batch_size: prompts per pass; "auto" chooses.

    Returns:
        Whether the first token of the belief becomes likelier than that of the truth; False where both are
        the same token.
    """
    given = states.to(model.device, model.dtype)[:, None]
    edit = Intervention(f"resid_post.{layer}", given, positions="last")
    texts = [case.text for case in cases]
    logits = model.run(texts, interventions=[edit], batch_size=batch_size).logits
    assert logits is not None
    belief, truth = (
        torch.tensor([ids[0] for ids in concept_tokens(model, names)])
        for names in ([case.belief for case in cases], [case.truth for case in cases])
    )
    kept = logits.float().cpu()
    rows = torch.arange(len(cases))
    return (kept[rows, belief] > kept[rows, truth]).numpy()
