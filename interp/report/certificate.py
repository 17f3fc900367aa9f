"""The parts every report has: the model's certificate, and what identifies the run."""

from __future__ import annotations

from typing import Any

from interp.report.story import Table
from interp.results import About

__all__ = ["certificate_table", "identity", "short_name"]


STATUS = {"pass": "passed", "warn": "note", "fail": "FAILED", "skip": "does not apply"}


def certificate_table(certificate: Any) -> Table | None:
    """Give the doctor's checks as a table; ``None`` where a run has no certificate."""
    checks = certificate.get("checks") if isinstance(certificate, dict) else None
    if not checks:
        return None
    rows = tuple(_row(check) for check in checks)
    return Table(
        "The model's certificate",
        ("check", "outcome", "measured", "allowed", "detail"),
        rows,
        note=_noise(certificate),
    )


def _row(check: dict[str, Any]) -> tuple[str, ...]:
    unit = "" if check.get("unit") == "relative" else check.get("unit") or ""
    value, limit = (_quantity(check.get(key)) for key in ("value", "limit"))
    allowed = f"{check.get('bound', 'at most')} {limit}" if limit else ""
    return (
        check.get("name", ""),
        STATUS.get(check.get("status", ""), "?"),
        f"{value} {unit}".strip() if value else "",
        allowed,
        check.get("detail", ""),
    )


def _quantity(value: Any) -> str:
    return "" if value is None else f"{value:.2g}" if isinstance(value, float) else str(value)


def _noise(certificate: dict[str, Any]) -> str:
    floor = certificate.get("noise_floor")
    if not floor:
        return ""
    return (
        f"Noise floor: the same prompts alone and in a batch of {floor['batch_size']} differ by up to "
        f"{floor['logits']:.2g} logits "
        f"({floor['kl']:.2g} nats). A smaller difference between two runs means nothing."
    )


def short_name(facts: dict[str, Any]) -> str:
    """Name the model for a title: of a folder its last part, of anything else what the user typed."""
    return About(model=facts.get("model", {})).model_name


def _other(model: Any) -> str:
    """Name the other checkpoint of a comparison; "" where there is none."""
    if not model:
        return ""
    return f"{model['name']} ({model['weights']} weights, {model['family']}), sha256 {model['fingerprint']}"


def identity(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Give (name, value) of everything that identifies a run: model, data, settings, versions, time."""
    model, data = facts.get("model", {}), facts.get("data", {})
    settings, origins = facts.get("configuration", {}), facts.get("origins", {})
    versions = ", ".join(f"{name} {version}" for name, version in facts.get("versions", {}).items())
    chosen = ", ".join(
        f"{key}={settings[key]} ({origins[key]})"
        for key in settings
        if origins.get(key, "default") != "default"
    )
    rows = [
        (
            "model",
            f"{model.get('name', '')} ({model.get('weights', '')} weights, {model.get('family', '')}, "
            f"{model.get('layers', '?')} layers)",
        ),
        ("weights, sha256", model.get("fingerprint", "")),
        ("the other model", _other(facts.get("other"))),
        ("tokenizer, sha256", model.get("tokenizer_fingerprint", "")),
        ("commit", model.get("commit") or ""),
        ("arithmetic", f"{model.get('dtype', '')} on {model.get('device', '')}"),
        ("data", f"{data.get('name', '')}: {data.get('description', '')}" if data else ""),
        ("data, sha256", data.get("fingerprint", "")),
        ("seed", str(settings.get("seed", ""))),
        ("settings given", chosen or "none: all defaults"),
        ("versions", versions),
        ("started", facts.get("started", "")),
        ("finished", facts.get("finished", "")),
    ]
    return [(name, str(value)) for name, value in rows if value]
