"""What identifies a run: model, data, settings, versions, time."""

from __future__ import annotations

from typing import Any

from interp.results import About

__all__ = ["identity", "short_name"]


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
