"""One analysis at one precision: the verdicts, and what they stand on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from interp.errors import ArtifactError
from interp.quantization.comparison.verdicts import Judgement

__all__ = ["Cell"]


@dataclass(frozen=True, eq=False, repr=False)
class Cell:
    """Hold what one analysis of one other model came to, as JSON types throughout.

    Attributes:
        analysis: its name.
        scheme: at what precision, or the name of the other checkpoint.
        judgements: one per finding.
        changes: rows of ``result.diff(reference)``, where the result has no findings to judge.
        result: what the analysis returned, as a dictionary.
        quantization: the report of the quantized model; {} for another checkpoint.
        model: fingerprint of the reference.
        noise: of the reference's cell: finding -> kind -> noise floor.
        refused: why the analysis gave nothing, or "".
        missing: findings of the reference that the other model's result lacks.
        seconds: how long the analysis took.
        warnings: what a reader should know.
    """

    analysis: str
    scheme: str
    judgements: tuple[Judgement, ...] = ()
    changes: tuple[Mapping[str, Any], ...] = ()
    result: Mapping[str, Any] = field(default_factory=dict)
    quantization: Mapping[str, Any] = field(default_factory=dict)
    model: str = ""
    noise: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    refused: str = ""
    missing: tuple[str, ...] = ()
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Give the fields as a dictionary, for :meth:`from_dict`."""
        found = {one.name: getattr(self, one.name) for one in fields(self)}
        return found | {"judgements": [one.to_dict() for one in self.judgements]}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Cell:
        """Read what :meth:`to_dict` gave.

        Raises:
            ArtifactError: it is of something else.
        """
        try:
            judgements = tuple(Judgement(**_finite(one)) for one in content["judgements"])
            tuples = {name: tuple(content[name]) for name in ("changes", "missing", "warnings")}
            return cls(**{**content, **tuples, "judgements": judgements})
        except (KeyError, TypeError) as error:
            raise ArtifactError(
                f"this is not one analysis of a comparison ({error}). Run the comparison again."
            ) from error


def _finite(judgement: Mapping[str, Any]) -> dict[str, Any]:
    """Give open ends of intervals back, which JSON holds as null."""
    low, high = float("-inf"), float("inf")
    ends = {
        f"{name}{end}": at
        for name in ("", "excess_", "change_")
        for end, at in (("low", low), ("high", high))
    }
    return {key: ends[key] if value is None and key in ends else value for key, value in judgement.items()}
