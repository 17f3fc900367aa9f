"""The arithmetic of training: one step of a TopK autoencoder with Adam, decoder rows of length 1."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor

from interp.errors import ArtifactError

__all__ = ["AUXILIARY", "State", "step"]

AUXILIARY = 1 / 32
"""Weight of the auxiliary loss (Gao et al. 2024, arXiv 2406.04093, appendix A.2)."""
BETAS, EPSILON = (0.9, 0.999), 1e-8
NAMES = ("encoder", "encoder_bias", "decoder", "decoder_bias")


@dataclass(eq=False)
class State:
    """Weights, Adam's moments and counts: all that a step needs besides its batch.

    Attributes:
        weights: by name, as in ``Dictionary``.
        first: Adam's first moments.
        second: Adam's second moments.
        silent: tokens since each feature was active.
        steps: how many were made.
        history: a row per report: step, share of variance left out, share of dead features.
    """

    weights: dict[str, Tensor]
    first: dict[str, Tensor]
    second: dict[str, Tensor]
    silent: Tensor
    steps: int = 0
    history: list[tuple[float, float, float]] = field(default_factory=list)

    @classmethod
    def begun(cls, x: Float[Tensor, "token width"], n_features: int, seed: int) -> State:
        """Decoder rows drawn at random, the encoder its transpose, the bias the mean of some states.

        Args:
            x: some states.
            n_features: how many features.
            seed: of the draw.
        """
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randn(n_features, x.shape[1], generator=generator)
        rows = rows / rows.norm(dim=1, keepdim=True)
        weights = {
            "encoder": rows.clone(),
            "encoder_bias": torch.zeros(n_features),
            "decoder": rows,
            "decoder_bias": x.mean(dim=0),
        }
        first, second = ({name: torch.zeros_like(value) for name, value in weights.items()} for _ in range(2))
        return cls(weights, first, second, torch.zeros(n_features, dtype=torch.int64))

    def save(self, path: Path) -> None:
        """Write it as one file, all or nothing."""
        held = {name: value.contiguous() for name, value in self.weights.items()}
        held |= {f"first.{name}": value for name, value in self.first.items()}
        held |= {f"second.{name}": value for name, value in self.second.items()}
        history = torch.tensor(self.history, dtype=torch.float64).reshape(-1, 3)
        held |= {"silent": self.silent, "steps": torch.tensor(self.steps), "history": history}
        partial = path.with_suffix(".tmp")
        save_file({name: value.clone() for name, value in held.items()}, partial)
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> State:
        """Read what ``save`` wrote.

        Raises:
            ArtifactError: it is damaged.
        """
        try:
            held = load_file(path)
            parts = [{name: held[f"{kind}{name}"] for name in NAMES} for kind in ("", "first.", "second.")]
            history = [(row[0], row[1], row[2]) for row in held["history"].tolist()]
            return cls(parts[0], parts[1], parts[2], held["silent"], int(held["steps"]), history)
        except Exception as error:
            raise ArtifactError(
                f"{path} is no whole checkpoint ({error}). Remove it to begin again."
            ) from error


def step(
    state: State,
    x: Float[Tensor, "token width"],
    *,
    k: int,
    rate: float,
    dead_after: int,
    auxiliary: float = AUXILIARY,
) -> float:
    """Make one step in place; gives the share of the batch's variance that was left out before it.

    The loss is that share; features that were silent for ``dead_after`` tokens also learn to write what the
    others left out (the auxiliary loss), so that they come back.

    Args:
        state: is changed.
        x: a batch of states.
        k: active features per token.
        rate: of this step.
        dead_after: tokens without activity after which a feature counts as dead.
        auxiliary: weight of the auxiliary loss; 0 for none.
    """
    leaves = {name: value.requires_grad_() for name, value in state.weights.items()}
    with torch.enable_grad():
        pre = (x - leaves["decoder_bias"]) @ leaves["encoder"].T + leaves["encoder_bias"]
        values, index = pre.relu().topk(k, dim=-1, sorted=False)
        features = torch.zeros_like(pre).scatter(-1, index, values)
        left = x - leaves["decoder_bias"] - features @ leaves["decoder"]
        spread = (x - x.mean(dim=0)).square().sum().clamp_min(1e-12)
        share = left.square().sum() / spread
        dead = state.silent >= dead_after
        loss = share
        n_dead = int(dead.sum())
        if n_dead and auxiliary:
            most = min(n_dead, x.shape[1] // 2)
            chosen = pre.masked_fill(~dead, -torch.inf).relu().topk(most, dim=-1, sorted=False)
            again = torch.zeros_like(pre).scatter(-1, chosen.indices, chosen.values)
            missed = (left.detach() - again @ leaves["decoder"]).square().sum()
            loss = loss + auxiliary * missed / left.detach().square().sum().clamp_min(1e-12)
        gradients = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))
    with torch.no_grad():
        rows = leaves["decoder"]
        along = (gradients["decoder"] * rows).sum(dim=1, keepdim=True)
        gradients["decoder"] = gradients["decoder"] - along * rows  # the length is fixed: no step along it
        _adam(state, gradients, rate)
        state.weights = {name: value.detach() for name, value in leaves.items()}
        rows = state.weights["decoder"]
        state.weights["decoder"] = rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-12)
        fired = (features > 0).any(dim=0)
        state.silent = torch.where(fired, 0, state.silent + len(x))
    return float(share.detach())


def _adam(state: State, gradients: dict[str, Tensor], rate: float) -> None:
    """Adam without weight decay (Kingma and Ba 2015)."""
    state.steps += 1
    (one, two), t = BETAS, state.steps
    for name, gradient in gradients.items():
        first, second = state.first[name], state.second[name]
        first.mul_(one).add_(gradient, alpha=1 - one)
        second.mul_(two).addcmul_(gradient, gradient, value=1 - two)
        scale = (second / (1 - two**t)).sqrt_().add_(EPSILON)
        state.weights[name].sub_(rate * (first / (1 - one**t)) / scale)
