"""How long a view will take here: forward passes of its own prompt, one of which is measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from interp.cli.budget import fit_passes, in_words, pass_seconds
from interp.errors import InterpError, counted
from interp.serve.requests import conversation
from interp.serve.views import MEDIATORS

__all__ = ["forecast", "passes"]

Request = Mapping[str, Any]
SAID = 2.0
"""Seconds from which on it is worth saying."""
ONE_BY_ONE = 0.5
"""What a token that is written costs beside a pass of a short prompt, whose keys and values are kept."""


def _tokens(model: Any, request: Request, n: int) -> float:
    if request["colour"] == "effect":
        return 2 + request["draws"] * n
    places = range(max(1, n - request["compared"]), n)
    return 1 + request["draws"] * sum(places) / n


def _effects(model: Any, request: Request, n: int) -> float:
    """Both directions of every mediator, from its layer on: half of the blocks on average."""
    mediators, where = MEDIATORS[request["what"]]
    each = n if where == "each" else 1
    return len(model.expand(mediators.split(","))) * each * len(request["prompt"].splitlines()) + 4


PASSES: Mapping[str, Callable[[Any, Request, int], float]] = {
    "tokens": _tokens,
    "attention": lambda model, request, n: 1.0 + request["draws"],
    "effects": _effects,
    "edit": lambda model, request, n: request["draws"] + 17 + 16 * ONE_BY_ONE,
    "write": lambda model, request, n: 1 + ONE_BY_ONE * request["new_tokens"],
}
"""View -> passes of a prompt of ``n`` tokens that it takes."""
FITTED: Mapping[str, str] = {"concepts": "layers", "exchange": "layer", "lens": "layers"}
"""View that reads by translators -> the field that says of which layers."""


def passes(model: Any, view: str, request: Request, n: int) -> float:
    """Whole forward passes of a prompt that a view takes, without what is fitted first; 0 where unknown.

    Args:
        model: that runs.
        view: its name.
        request: every field that it asks for.
        n: tokens of the prompt.
    """
    return PASSES[view](model, request, n) if view in PASSES else 0.0


def forecast(model: Any, view: str, request: Request) -> str:
    """How long a view will take, where that is some seconds; "" where it is quick, unknown or wrong.

    Args:
        model: that runs.
        view: its name.
        request: every field that it asks for.
    """
    try:
        return _forecast(model, view, request)
    except (InterpError, ValueError):
        return ""  # the view itself says what is wrong


def _forecast(model: Any, view: str, request: Request) -> str:
    from interp.sites import parse_layers

    text = request["prompt"]
    prompt: Any = conversation(text) if request.get("chat") else text.splitlines()[0]
    fitted = view in FITTED and request.get("lens", "translator") == "translator"
    layers = parse_layers(request[FITTED[view]], model.n_layers, name=model.name) if fitted else []
    fit = fit_passes(model, layers, [prompt]) if fitted else 0.0
    n = passes(model, view, request, model.tokenize([prompt]).lengths[0])
    if not fit and n < 4:
        return ""
    each = pass_seconds(model, [prompt])
    said = []
    if fit:
        what = f"the translators of {counted(len(layers), 'layer')} are fitted first, once for this model"
        said.append(f"{what} (about {in_words(fit * each)})")
    if n * each > SAID:
        said.append(f"about {in_words(n * each)} for {counted(round(n), 'pass', 'passes')} of the prompt")
    return "; ".join(said)
