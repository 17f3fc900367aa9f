"""The process that holds the model: it reads requests line by line, and answers each with one line of JSON.

Run as ``python -m interp.serve.worker SETTINGS`` by :class:`interp.serve.jobs.Worker`, with the settings of
the model as JSON. It ends where its standard input does, so that it never outlives the server.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from collections.abc import Mapping
from typing import IO, Any

from interp.errors import InterpError
from interp.serve.calls import Loaded
from interp.serve.forecast import forecast
from interp.serve.views import view_of

__all__ = ["answer", "facts_of", "main"]


def main() -> None:
    """Load the model, say so, and answer until nobody asks."""
    said = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints must not stand among the answers
    loaded = Loaded(**json.loads(sys.argv[1]))
    try:
        model = loaded.load()
        _say(said, {"ready": facts_of(model)})
    except InterpError as error:
        _say(said, {"error": str(error)})
        return
    for request in iter(_requests().get, None):
        if note := forecast(model, request["view"], request["request"]):
            _say(said, {"note": note})
        _say(said, _answered(model, loaded, request))


def _requests() -> queue.Queue[Any]:
    """What comes in; a thread reads it, and ends the process where the server is gone."""
    found: queue.Queue[Any] = queue.Queue()

    def read() -> None:
        for line in sys.stdin:
            found.put(json.loads(line))
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    return found


def _say(stream: IO[str], content: Mapping[str, Any]) -> None:
    stream.write(json.dumps(content, allow_nan=False) + "\n")
    stream.flush()


def facts_of(model: Any) -> dict[str, Any]:
    """What the page says about the model, with what its checks found.

    Args:
        model: that was loaded.
    """
    from interp.models import doctor

    certificate = doctor.examine(model)
    failed = [
        f"the model fails the check '{one.name}': do not trust these numbers" for one in certificate.failures
    ]
    return {
        "name": model.name,
        "about": repr(model),
        "layers": model.n_layers,
        "heads": model.n_heads,
        "warnings": [*model.warnings, *failed],
        "chat": bool(getattr(model.tokenizer, "chat_template", None)),
    }


def _answered(model: Any, loaded: Loaded, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The answer, or what went wrong in one line."""
    try:
        return answer(model, loaded, asked["view"], asked["request"])
    except InterpError as error:
        return {"error": str(error)}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}. This is a defect of interp: please report it."}


def answer(model: Any, loaded: Loaded, name: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """Make a view: its page, what its marks stand for, and the Python and the command that make it.

    Args:
        model: what is looked at.
        loaded: how it was loaded.
        name: of the view.
        request: every field that it asks for.
    """
    from dataclasses import asdict

    from interp.report.document import document
    from interp.report.page import fragment
    from interp.results.files import jsonable

    view = view_of(name)
    recipe = view.recipe(model, loaded.chosen(request))
    result = recipe.call.run(model)
    places = {key: [asdict(one) for one in found] for key, found in view.places(result).items()}
    names = [one.name for one in result.figures()]
    content = {
        "html": fragment(document(result)),
        "places": [places.get(one, []) for one in names],
        "page": _page(result),
        "python": recipe.python(loaded),
        "command": recipe.shell(loaded),
        "without": recipe.without,
        "notes": list(recipe.notes),
        "numbers": {one.name: one.value for one in result.numbers()},
    }
    return jsonable(content)[0]


def _page(result: Any) -> str:
    """A page of its own, of what has one: a graph, whose nodes open."""
    if result.schema != "interp.graph/1":
        return ""
    from interp.report.graph_page import render

    return render(result)


if __name__ == "__main__":
    main()
