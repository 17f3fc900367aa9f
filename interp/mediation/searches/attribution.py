"""Attribution patching: every effect from one gradient per run; and its refinement for edges, EAP-IG."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

from interp.errors import ConfigError
from interp.mediation.backward_rules import following, rule_of
from interp.mediation.edges.experiment import COMPAT, PATHS, EdgeExperiment
from interp.mediation.experiment import Estimates, Experiment
from interp.mediation.searches.search import GradientSearch

__all__ = ["Attribution", "EdgeIntegratedGradients"]

NO_DERIVATIVE = (
    "{}: estimates by changed backward rules are no derivatives and do not add up to effects. Rank by them; "
    "take effects from the verified ones"
)


@dataclass(frozen=True, kw_only=True)
class Attribution(GradientSearch):
    """Estimate every effect from one gradient per run (attribution patching; Syed et al. 2023, 2310.10348).

    The estimate is ``sum (replacement - current) * dY/d(current)``, with gradients of activations only. With
    another rule the values are the same and the gradients go back otherwise: see
    :mod:`interp.mediation.backward_rules`.

    Attributes:
        rule: a key of ``RULES``.

    Raises:
        ConfigError: an unknown rule.
    """

    rule: str = "plain"

    over = ("sites", "edges", "windows")

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        rule_of(self.rule)

    @property
    def name(self) -> str:
        """``attribution``, or the rule."""
        return "attribution" if self.rule == "plain" else self.rule

    @property
    def description(self) -> str:
        """One line."""
        if self.rule == "plain":
            return "estimate each effect from one gradient, verify the largest"
        return f"as attribution, by changed gradients: {rule_of(self.rule).description}"

    def passes(self, experiment: Experiment) -> float | int:
        """One gradient per direction, and what is read of each side."""
        return experiment.first_order_passes()

    def estimates(self, experiment: Experiment, *, progress: bool = False) -> Estimates:
        """Take one gradient per run.

        Raises:
            ModelError: the rule changes a part of the model that cannot be reached.
        """
        if self.rule == "plain":
            return experiment.first_order()
        with following(experiment.model, rule_of(self.rule)):
            found = experiment.first_order()
        return replace(found, notes=(*found.notes, NO_DERIVATIVE.format(self.rule)))


@dataclass(frozen=True, kw_only=True)
class EdgeIntegratedGradients(GradientSearch):
    """Estimate effects of edges from gradients averaged between the prompts (EAP-IG; Hanna et al. 2024).

    ``path="inputs"`` moves the embeddings from one prompt's to the other's, ``"activations"`` each writer's
    own value in turn (2403.17806).

    ``compat="mib"`` gives the scores of hannamw/EAP-IG, noising (negated: there a score is what the corrupt
    value adds). With m steps, its gradients along the *inputs* are taken at ``0 .. (m-1)/m`` of the way from
    the corrupt to the clean prompt; along the *activations* at ``1/m .. 1`` of the way of each writer in turn
    (embedding, a layer's heads, an MLP), and the gradients of all these runs are averaged for every edge.

    Attributes:
        path: ``inputs`` or ``activations``.
        steps: points of the path.
        compat: where on each step the gradient is taken: "" in its middle, or ``mib``.

    Raises:
        ConfigError: an unknown path or compat, or no steps.
    """

    path: str = "inputs"
    steps: int = 5
    compat: str = ""

    description = (
        "as ig-inputs, for edges: slower than attribution, and less misled where it is flat (EAP-IG)"
    )
    over = ("edges",)

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        paths = [name for name in PATHS if name != "point"]
        if self.path not in paths or self.compat not in COMPAT or self.steps < 1:
            raise ConfigError(
                f"path {self.path!r}, compat {self.compat!r} and {self.steps} steps asked; paths: "
                f"{', '.join(paths)}; compat: {' or '.join(map(repr, COMPAT))}; steps: 1 or more."
            )

    @property
    def name(self) -> str:
        """``eap-ig``, with the path where it is not the usual one."""
        return "eap-ig" if self.path == "inputs" else f"eap-ig, {self.path}"

    def passes(self, experiment: Experiment) -> float | int:
        """A gradient per direction and step; along activations, per writing site too."""
        return cast("EdgeExperiment", experiment).first_order_passes(self.path, self.steps, self.compat)

    def estimates(self, experiment: Experiment, *, progress: bool = False) -> Estimates:
        """Average the gradients along the path."""
        return cast("EdgeExperiment", experiment).first_order(self.path, self.steps, self.compat)
