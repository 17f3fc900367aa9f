"""The story of a capture."""

from __future__ import annotations

from typing import Any

from interp.report.certificate import certificate_table, identity, short_name
from interp.report.story import Story, Table

__all__ = ["story"]

SHOWN = 60


def story(facts: dict[str, Any], result: dict[str, Any], rows: Any) -> Story:
    """Say what was captured, from which model, and how to read it back."""
    sites = result.get("sites", [])
    table = Table(
        "What is stored",
        ("site", "shape", "dtype"),
        tuple(
            (s["site"], " x ".join(map(str, s["shape"])), str(s["dtype"]).removeprefix("torch."))
            for s in sites[:SHOWN]
        ),
        note=f"and {len(sites) - SHOWN} more" if len(sites) > SHOWN else "",
    )
    return Story(
        kicker=f"interp capture · {facts.get('path', '')}",
        title=f"Activations of {short_name(facts)} on {facts.get('data', {}).get('name', '?')}",
        verdict=f"{result.get('n', 0):,} prompts ({result.get('tokens', 0):,} tokens) were read at "
        f"{len(sites)} sites: "
        f"{result.get('bytes', 0) / 1e6:,.1f} MB in {result.get('shards', 0)} shards.",
        lead=(f'Read them back with interp.store.ActivationStore("{facts.get("path", "")}").',),
        tables=(table,),
        cautions=tuple(f"Warning of the run: {text}" for text in facts.get("warnings", [])),
        certificate=certificate_table(facts.get("certificate")),
        command=str(facts.get("command_line", "")),
        facts=identity(facts),
    )
