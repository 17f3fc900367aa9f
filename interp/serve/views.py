"""The views of a model: one function and one row of ``VIEWS`` each. Nothing heavy is imported here.

A view says which call of the library makes it, and which command; the worker runs the call.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from interp.errors import ConfigError, counted
from interp.serve.calls import MODEL, Call, Recipe
from interp.serve.requests import Field, conversation

__all__ = ["VIEWS", "Place", "View", "view_of"]

Request = Mapping[str, Any]
PAIRS = 32
"""Pairs of prompts, at most."""
CHAT = "a conversation cannot be given to this command; copy the Python."


@dataclass(frozen=True)
class Place:
    """What a mark of a picture stands for: what is filled in where it is chosen.

    Attributes:
        token: its position.
        site: a site; "" where the mark is of a token alone.
    """

    token: int
    site: str = ""


@dataclass(frozen=True)
class View:
    """A view.

    Attributes:
        name: in addresses.
        title: on its button.
        question: what it answers, in one sentence.
        fields: what it asks for.
        recipe: from a model and a request, how it is made.
        places: from the result: figure -> what its marks stand for, one for each row of its data.
    """

    name: str
    title: str
    question: str
    fields: Sequence[Field]
    recipe: Callable[[Any, Request], Recipe]
    places: Callable[[Any], Mapping[str, Sequence[Place]]] = lambda _: {}

    def described(self) -> dict[str, Any]:
        """It as JSON types, for the page."""
        fields = [one.described() for one in self.fields]
        return {"name": self.name, "title": self.title, "question": self.question, "fields": fields}


def prompt_of(request: Request, name: str = "prompt") -> Any:
    """The prompt of a request: a text, or messages.

    Args:
        request: what was asked.
        name: of the field.
    """
    text = request[name]
    return conversation(text) if request.get("chat") else text


def _command(request: Request, *words: str) -> tuple[tuple[str, ...], str]:
    """The words of a command whose prompt comes last, and why there is none."""
    name, *rest = words
    if not request.get("chat"):
        return (name, *rest, *_last(request["prompt"])), ""
    return (), CHAT


def _last(prompt: str) -> tuple[str, ...]:
    """A prompt as the last word of a command, told apart from a flag."""
    return ("--", prompt) if prompt.startswith("-") else (prompt,)


def _chatty(request: Request, *words: str) -> tuple[tuple[str, ...], str]:
    """The same of a command that takes one message of the user."""
    prompt = prompt_of(request)
    if not request.get("chat"):
        return _command(request, *words)
    if len(prompt) == 1 and prompt[0]["role"] == "user":
        name, *rest = words
        return (name, "--chat", *rest, *_last(prompt[0]["content"])), ""
    return (), CHAT


def _given(request: Request, **flags: str) -> list[str]:
    """Flags of what is not the field's default: option -> name in the request."""
    return [part for flag, name in flags.items() for part in (f"--{flag}", f"{request[name]}")]


def _tokens(model: Any, request: Request) -> Recipe:
    colour, keys = request["colour"], {"surprise": ("compared",), "effect": ("answer",)}
    names = keys.get(colour, ("probe", "label", "compared"))
    options = {key: request[key] for key in (*names, "draws", "seed")}
    flags = ["--view", colour] if colour != "surprise" else []
    flags += _given(request, **{name: name for name in (*names, "draws", "seed") if request[name] != ""})
    words, why = _chatty(request, "look", *flags)
    arguments = (MODEL, prompt_of(request), *((options.pop("probe"),) if "probe" in options else ()))
    functions = {"surprise": "surprise", "effect": "token_effects", "probe": "token_scores"}
    call = Call(f"interp.analyses.looking.{functions[colour]}", arguments, options)
    return Recipe(call, words, without=why)


def _tokens_places(result: Any) -> Mapping[str, Sequence[Place]]:
    (figure,) = result.figures()
    data = figure.data
    return {figure.name: [Place(int(x + y)) for x, y in zip(data["x"], data["y"], strict=True)]}


def _lens(model: Any, request: Request) -> Recipe:
    options = {"lens": request["lens"], "layers": request["layers"], "seed": request["seed"]}
    words, why = _command(request, "lens", *_given(request, kind="lens", layers="layers", seed="seed"))
    return Recipe(Call("interp.lenses.view", (MODEL, prompt_of(request)), options), words, without=why)


def _lens_places(result: Any) -> Mapping[str, Sequence[Place]]:
    data = result.figure("lens").data
    return {"lens": [Place(int(x), f"resid_post.{y}") for x, y in zip(data["x"], data["y"], strict=True)]}


def _attention(model: Any, request: Request) -> Recipe:
    options = {key: request[key] for key in ("layers", "draws", "seed")}
    flags = _given(request, layers="layers", draws="draws", seed="seed")
    words, why = _chatty(request, "look", "--view", "attention", *flags)
    call = Call("interp.analyses.looking.attention", (MODEL, prompt_of(request)), options)
    return Recipe(call, words, without=why)


def _attention_places(result: Any) -> Mapping[str, Sequence[Place]]:
    return {
        one.name: [Place(int(query), one.name.replace("-", ".")) for query in one.data["y"]]
        for one in result.figures()
    }


def _concepts(model: Any, request: Request) -> Recipe:
    options = {"layers": request["layers"], "top": request["top"], "seed": request["seed"]}
    words, why = _command(request, "decode", *_given(request, layers="layers", top="top", seed="seed"))
    call = Call("interp.analyses.concepts.translated.decode_translated", (MODEL, request["prompt"]), options)
    return Recipe(call, words, without=why)


MEDIATORS = {
    "heads": ("head.*", "auto"),
    "layers and tokens": ("resid_post.*", "each"),
    "attention and MLP blocks": ("attn_out.*,mlp_out.*", "auto"),
    "MLP blocks and tokens": ("mlp_out.*", "each"),
}
"""What is exchanged, as it is chosen -> mediators, and at which tokens."""


def _effects(model: Any, request: Request) -> Recipe:
    clean, corrupt = (_lines(request[name]) for name in ("prompt", "other"))
    if len(clean) != len(corrupt):
        raise ConfigError(
            f"{counted(len(clean), 'line')} of prompts and {counted(len(corrupt), 'line')} of second "
            "prompts; a pair is a line of each. Give as many."
        )
    answers, foils = (
        _words(model, request[name], lines) for name, lines in (("answer", clean), ("foil", corrupt))
    )
    rows = list(zip(clean, corrupt, answers, foils, strict=True))
    pairs = [Call("interp.pairs.Pair", (a, b, (answer,), (foil,))) for a, b, answer, foil in rows]
    made = Call("interp.pairs.PairSet.build", (MODEL, pairs))
    mediators, positions = MEDIATORS[request["what"]]
    options: dict[str, Any] = {"positions": positions, "seed": request["seed"]}
    call = Call("interp.mediation.exhaustive", (MODEL, made, mediators.split(",")), options)
    names = ("clean", "corrupt", "answer", "foil")
    content = "\n".join(json.dumps(dict(zip(names, row, strict=True))) for row in rows)
    words = ("patch", "--data", "pairs.jsonl", "--mediators", mediators, "--positions", positions)
    words = (*words, "--search", "exhaustive", "--full", "--seed", str(request["seed"]))
    notes = _effects_notes(model, request, rows, mediators, positions)
    return Recipe(call, words, ("pairs.jsonl", content), notes=notes)


def _effects_notes(
    model: Any, request: Request, rows: Sequence[tuple[str, ...]], mediators: str, positions: str
) -> tuple[str, ...]:
    """Which words are compared, and how many pairs a verdict takes."""
    from interp.mediation.effect_words import groups_needed

    chosen = [name for name in ("answer", "foil") if not request[name].strip()]
    said = ", ".join(f"{answer!r} against {foil!r}" for *_, answer, foil in rows)
    by = "what the model itself says next" if len(chosen) == 2 else "as given, or what the model says next"
    found = [f"The words whose logits are compared: {said} ({by if chosen else 'as given'})."]
    n = len(model.expand(mediators.split(",")))
    n *= model.tokenize([rows[0][0]]).lengths[0] if positions == "each" else 1
    if len(rows) < (needed := groups_needed(n)):
        found.append(
            f"{counted(len(rows), 'pair')} of prompts: the picture shows where, but no verdict can be had. "
            f"To tell one of {n:,} places from chance takes at least {needed} pairs of different facts, one "
            f"line of each (up to {PAIRS}); or exchange fewer places, such as attention and MLP blocks."
        )
    return tuple(found)


def _lines(text: str) -> list[str]:
    found = [line.strip() for line in text.splitlines() if line.strip()]
    if not 1 <= len(found) <= PAIRS:
        raise ConfigError(f"{counted(len(found), 'prompt')} given; give 1 to {PAIRS}, one a line.")
    return found


def _words(model: Any, given: str, prompts: Sequence[str]) -> list[str]:
    """The word of each prompt: what was given, a line each or one for all; else what the model says next."""
    words = [line.strip() for line in given.splitlines() if line.strip()]
    if len(words) == len(prompts):
        return words
    if words:
        raise ConfigError(
            f"{counted(len(words), 'word')} for {counted(len(prompts), 'prompt')}; give one a line for each, "
            "or none for what the model itself says."
        )
    from interp.lenses.words import words_of

    return list(words_of(model, model.logits(prompts).argmax(dim=-1).tolist()))


def _effects_places(result: Any) -> Mapping[str, Sequence[Place]]:
    """Of a map of heads or of tokens: which site each square is."""
    known = {figure.name: figure for figure in result.figures()}
    if "map" not in known:
        return {}
    rows = [row["mediator"] for row in result.rows[: len(known["map"].data["x"])]]
    parts = [str(name).partition("@") for name in rows]
    return {
        "map": [Place(int(token) if token.lstrip("-").isdigit() else -1, site) for site, _, token in parts]
    }


def _edit(model: Any, request: Request) -> Recipe:
    options: dict[str, Any] = {"how": request["how"]}
    flags = ["--site", request["site"], "--token", str(request["token"]), "--how", request["how"]]
    if request["how"] in ("patch", "steer"):
        names = ("source", "against") if request["how"] == "steer" else ("source",)
        options |= {name: prompt_of(request, name) for name in names} | {"dose": request["dose"]}
        flags += _given(request, **{name: name for name in names}, dose="dose")
    options |= {key: request[key] for key in ("draws", "seed")}
    words, why = _chatty(request, "edit", *flags, *_given(request, draws="draws", seed="seed"))
    arguments = (MODEL, prompt_of(request), request["site"], request["token"])
    return Recipe(Call("interp.analyses.looking.edit", arguments, options), words, without=why)


def _exchange(model: Any, request: Request) -> Recipe:
    names = {request["old"].strip(): request["new"].strip()}
    options = {"layer": request["layer"], "seed": request["seed"]}
    swap = f"{request['old'].strip()}={request['new'].strip()}"
    words, why = _command(
        request, "decode", "--replace", swap, "--at", request["layer"], *_given(request, seed="seed")
    )
    call = Call("interp.analyses.surgery.replace_concepts", (MODEL, request["prompt"], names), options)
    return Recipe(call, words, without=why)


def _graph(model: Any, request: Request) -> Recipe:
    sizes = {
        "neurons": 64,
        "followed": request["followed"],
        "nodes": request["nodes"],
        "edges": request["nodes"],
    }
    answer = request["answer"].strip()
    options = ({"answer": answer} if answer else {}) | sizes | {"seed": request["seed"]}
    flags = [
        "--limit",
        str(request["followed"]),
        "--nodes",
        str(request["nodes"]),
        "--edges",
        str(request["nodes"]),
    ]
    flags += ["--answer", answer] if answer else []
    words, why = _command(request, "graph", *flags, *_given(request, seed="seed"))
    return Recipe(
        Call("interp.mediation.attribution_graph", (MODEL, request["prompt"]), options), words, without=why
    )


def _generate(model: Any, request: Request) -> Recipe:
    heat, seed = float(request["temperature"]), request["seed"]
    options = {"max_new_tokens": request["new_tokens"], "temperature": heat, "seed": seed}
    flags = [
        "--max-new-tokens",
        str(request["new_tokens"]),
        "--temperature",
        f"{heat:g}",
        "--seed",
        str(seed),
    ]
    words, why = _chatty(request, "generate", *flags)
    return Recipe(Call("model.generate", ([prompt_of(request)],), options), words, without=why)


PROMPT = Field("prompt", "Prompt", "long", "the capital of France is", needed=True)
CHATTING = Field("chat", "as a conversation", "flag", False, "lines that begin with user: or assistant:")
SEED = Field("seed", "Seed", "whole", 0, high=2**32 - 1)
DRAWS = Field("draws", "Draws of the control", "whole", 16, low=2, high=200)
OTHER = Field(
    "other",
    "Second prompts, one a line",
    "long",
    "the capital of Italy is",
    "one pair shows where; intervals need several pairs, of different facts",
    needed=True,
)
LAYERS_HELP = "20   8,12   8-24:4   -1   50%   all"

VIEWS: dict[str, View] = {
    row.name: row
    for row in (
        View(
            "tokens",
            "Tokens",
            "How surprising is each token, what does it do to the next word, what does a probe read there?",
            (
                PROMPT,
                CHATTING,
                Field("colour", "Coloured by", "choice", "surprise", choices=("surprise", "effect", "probe")),
                Field(
                    "answer", "Word", "text", "", "empty: the likeliest next one", when=("colour", "effect")
                ),
                Field(
                    "probe",
                    "Probe",
                    "text",
                    "",
                    "a folder given to interp serve --probes; empty: the first",
                    when=("colour", "probe"),
                ),
                Field("label", "Label", "text", "", "empty: what it says last", when=("colour", "probe")),
                Field(
                    "compared",
                    "Tokens with the control, from the end",
                    "whole",
                    12,
                    "each is read again after its words in other orders",
                    low=1,
                    high=512,
                    when=("colour", "surprise probe"),
                ),
                replace(DRAWS, default=8),
                SEED,
            ),
            _tokens,
            _tokens_places,
        ),
        View(
            "lens",
            "Lens",
            "Which word does each layer hold at each token?",
            (
                PROMPT,
                CHATTING,
                Field(
                    "lens",
                    "Lens",
                    "choice",
                    "logit",
                    choices=("logit", "translator", "jacobian", "patchscope"),
                ),
                Field("layers", "Layers", "text", "all", LAYERS_HELP, needed=True),
                SEED,
            ),
            _lens,
            _lens_places,
        ),
        View(
            "attention",
            "Attention",
            "What does each head attend to: words, or places?",
            (
                PROMPT,
                CHATTING,
                Field("layers", "Layers", "text", "50%", LAYERS_HELP, needed=True),
                DRAWS,
                SEED,
            ),
            _attention,
            _attention_places,
        ),
        View(
            "concepts",
            "Concepts",
            "What is the model about to say, layer by layer, read without labels?",
            (
                PROMPT,
                Field("layers", "Layers", "text", "50%,65%,80%,95%", LAYERS_HELP, needed=True),
                Field("top", "Names of each layer", "whole", 5, low=1, high=20),
                SEED,
            ),
            _concepts,
        ),
        View(
            "effects",
            "Effects",
            "Which heads, layers and tokens carry the difference between two prompts?",
            (
                Field("prompt", "Prompts, one a line", "long", "the capital of France is", needed=True),
                OTHER,
                Field("what", "What is exchanged", "choice", "heads", choices=tuple(MEDIATORS)),
                Field("answer", "Answers", "long", "", "empty: what the model says"),
                Field("foil", "Answers to the second prompts", "long", "", "empty: what the model says"),
                SEED,
            ),
            _effects,
            _effects_places,
        ),
        View(
            "edit",
            "Edit",
            "What does the model say if one place is changed?",
            (
                PROMPT,
                CHATTING,
                Field(
                    "site",
                    "Place",
                    "text",
                    "resid_post.2",
                    "such as resid_post.5, attn_out.5, head.5.3",
                    needed=True,
                ),
                Field("token", "Token", "whole", -1, "from 0; -1 is the last", low=-512, high=511),
                Field("how", "Edit", "choice", "zero", choices=("zero", "mean", "patch", "steer")),
                Field(
                    "source", "Other prompt", "long", "the capital of Italy is", when=("how", "patch steer")
                ),
                Field("against", "Away from", "long", "the capital of France is", when=("how", "steer")),
                Field("dose", "Dose", "number", 1, low=-100, high=100, when=("how", "patch steer")),
                DRAWS,
                SEED,
            ),
            _edit,
        ),
        View(
            "exchange",
            "Exchange a concept",
            "What does the model say if a concept in its state is exchanged for another?",
            (
                PROMPT,
                Field("old", "Concept", "text", "Paris", needed=True),
                Field("new", "In its place", "text", "Rome", needed=True),
                Field("layer", "Layer", "text", "85%", "20   -1   50%", needed=True),
                SEED,
            ),
            _exchange,
        ),
        View(
            "graph",
            "Graph",
            "What is this answer made of, and is every drawn edge real?",
            (
                PROMPT,
                Field("answer", "Answer", "text", "", "empty: the likeliest tokens"),
                Field("followed", "Parts followed back", "whole", 400, low=10, high=20000),
                Field("nodes", "Nodes and edges at most", "whole", 30, low=2, high=200),
                SEED,
            ),
            _graph,
        ),
        View(
            "write",
            "Write",
            "How does the model go on, and how sure is it?",
            (
                PROMPT,
                CHATTING,
                Field("new_tokens", "Tokens", "whole", 20, low=1, high=400),
                Field("temperature", "Temperature", "number", 0, "0: the likeliest token", high=10),
                SEED,
            ),
            _generate,
        ),
    )
}
"""Name of a view -> what it is."""


def view_of(name: Any) -> View:
    """A view by its name.

    Args:
        name: as it came.

    Raises:
        ConfigError: there is none.
    """
    if not isinstance(name, str) or name not in VIEWS:
        raise ConfigError(f"there is no view {name!r:.80}; there are: {', '.join(VIEWS)}.")
    return VIEWS[name]
