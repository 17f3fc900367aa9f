"""``interp features``: train a dictionary of features, check one on a model, or look at what is in it."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from interp.cli.frame import Made, Work, command
from interp.cli.options import COUNT, RunSettings, SchemeSettings, flag
from interp.cli.session import Outcome
from interp.errors import ConfigError, DataError, counted

if TYPE_CHECKING:
    from interp.features import Dictionary
    from interp.features.training import Plan
    from interp.models import Model
    from interp.store import ActivationStore

__all__ = ["features"]

EXAMPLES = (
    "interp features train --site resid_post.12 --out runs/dictionary",
    "interp features check runs/dictionary/dictionary",
    "interp features show runs/dictionary/dictionary",
    "interp features show runs/dictionary/dictionary 17,40",
    "interp features check --model gpt2 sae/ --site resid_pre.8",
)
LENGTH = 64
HELD_SEED = 1
"""Added to the seed for texts that a dictionary is judged on: others than it was trained on."""
HELD_OUT, FEWEST = 0.2, 3
"""The share of given texts that a dictionary is judged on, and not trained on; and how many at least."""


@dataclass(frozen=True, kw_only=True)
class FeatureSettings(RunSettings, SchemeSettings):
    """Train a sparse dictionary of a site, judge one on a model, or look at its features.

    train: a TopK dictionary on states of the model's own text, of --data, or of a run of `interp capture`;
    --resume goes on with an interrupted one. check: its certificate. show: ten features, or those asked for.
    """

    action: Literal["train", "check", "show"] = flag("check", "train, check or show.", given="position")
    dictionary: str = flag("", "check, show: a folder, or OWNER/REPO/FOLDER in the cache.", given="position")
    feature: str = flag("", "show: features by number, such as 17 or 17,40.", given="position")
    site: str | None = flag(
        None, "Of the states; of a dictionary that does not say.", metavar="SITE", shown="resid_post.50%"
    )
    data: str | None = flag(None, "Texts: a CSV, TSV or JSONL file of text.", metavar="FILE")
    store: str | None = flag(None, "train: the folder of a run of `interp capture`.", metavar="FOLDER")
    tokens: int = flag(65_536, "train: tokens of the model's own text.", **COUNT)
    width: int | None = flag(None, "train: how many features.", shown="8 times the site's width", **COUNT)
    k: int = flag(32, "train: active features per token.", **COUNT)
    epochs: int = flag(8, "train: passes over the states.", **COUNT)
    scale: float | None = flag(None, "The factor on inputs that a configuration only names.", metavar="X")
    text: bool = flag(True, "Keep texts in the run.", "--text/--no-text", group="Run")

    def check(self) -> None:
        """Refuse what does not go together."""
        super().check()
        if (self.action == "train") == bool(self.dictionary):
            wanted = "takes no dictionary" if self.action == "train" else "needs a dictionary: a folder"
            raise ConfigError(f"interp features {self.action} {wanted}.")
        if self.store is not None and self.data is not None:
            raise ConfigError("--store holds states already, and --data brings texts; give one of them.")
        self.numbers()

    def numbers(self) -> list[int] | None:
        """The features that are asked for."""
        parts = self.feature.replace(" ", "").split(",") if self.feature else []
        if bad := [part for part in parts if not part.isdecimal()]:
            raise ConfigError(f"feature {bad[0]!r} asked; give numbers, such as 17 or 17,40.")
        return [int(part) for part in parts] or None

    def about(self) -> str:
        """What is done."""
        return self.action


def plan(work: Work, settings: FeatureSettings) -> Outcome:
    """What it would take; nothing is run."""
    from interp.features.certificate import TEXTS

    judged = f"{TEXTS} texts to judge on, run about 8 times"
    said = judged
    if settings.action == "train":
        states = "the states of the store" if settings.store else f"about {settings.tokens:,} tokens of text"
        said = f"{states}, used {settings.epochs} times in batches of 512; then {judged}"
    found = {"action": settings.action, "takes": said}
    return Outcome(found, lambda: work.session.say(f"{said}; nothing was run"), status="planned")


@command(FeatureSettings, examples=EXAMPLES, plan=plan)
def features(work: Work, settings: FeatureSettings) -> Made:
    """Train, check or show."""
    if settings.action == "train":
        return _train(work, settings)
    from interp.features import check, load
    from interp.features.views import look

    model = work.certified()
    found = load(settings.dictionary, site=settings.site, scale=settings.scale)
    work.session.note(f"dictionary: {found!r}")
    asked: dict[str, Any] = {"texts": _texts(settings), "seed": settings.seed}
    asked |= {} if settings.limit is None else {"n_texts": settings.limit}
    if settings.action == "check":
        return Made(check(model, found, **asked))
    return Made(look(model, found, settings.numbers(), **asked))


def _texts(settings: FeatureSettings) -> list[str] | None:
    from interp.tasks.files import cell, read_labelled, rows_of

    if settings.data is None:
        return None
    path = Path(settings.data)
    rows = rows_of(path, ())
    if any("messages" in row for _, row in rows):
        return list(read_labelled(path).texts)
    return [cell(path, line, row, "text") for line, row in rows_of(path, ("text",))]


def _divided(settings: FeatureSettings, model: Model) -> tuple[list[str] | None, list[str] | None]:
    """The given texts to train on, and those to judge on; no text is in both, as far as it is read."""
    from interp.features.texts import FIRST

    given = _texts(settings)
    if given is None:
        return None, None
    read = zip(model.tokenize(given).token_ids, given, strict=True)
    texts = list({ids[:LENGTH]: text for ids, text in read if len(ids) > FIRST + 1}.values())
    n = max(FEWEST, round(HELD_OUT * len(texts)))
    if len(texts) < 2 * n:
        raise DataError(
            f"'{settings.data}' has {counted(len(texts), 'different text')} of 3 tokens or more, of which "
            f"{n} would be held out for the certificate; give {2 * FEWEST} at least."
        )
    order = random.Random(settings.seed).sample(range(len(texts)), len(texts))
    return [texts[at] for at in sorted(order[n:])], [texts[at] for at in sorted(order[:n])]


def _held(
    settings: FeatureSettings, model: Model, store: ActivationStore, texts: list[str] | None
) -> tuple[tuple[int, ...], ...]:
    """Token ids to judge on: none of them is in the store."""
    from interp.features.certificate import TEXTS
    from interp.features.texts import texts_of

    found = texts_of(model, texts, TEXTS, length=LENGTH, seed=settings.seed + HELD_SEED)
    seen = {tuple(ids[:LENGTH]) for acts in store.shards() for ids in acts.token_ids}
    kept = tuple(ids for ids in found if ids not in seen)
    if len(kept) < FEWEST:
        raise DataError(
            f"{len(found) - len(kept)} of the {counted(len(found), 'text')} to judge on are among those it "
            "was trained on. Give another --seed."
        )
    return kept


def _train(work: Work, settings: FeatureSettings) -> Made:
    from interp.features import train
    from interp.features.certificate import judged
    from interp.features.layouts.saelens import write
    from interp.features.trained import DictionaryTraining
    from interp.results import About

    model, run = work.certified(), work.run
    run.begin()
    texts, held = _divided(settings, model)
    store, plan, kept = _states(work, settings, model, texts)
    ids = _held(settings, model, store, held)
    work.session.note(f"training: {plan.n_features:,} features, {plan.k} active, of {plan.site}")
    made = train(
        store, plan, folder=run.path / "training", model_name=model.name, progress=work.session.progress
    )
    dictionary: Dictionary = replace(made.dictionary, name=f"{model.name}/{plan.site}")
    write(dictionary, run.path / "dictionary", notes={**asdict(plan), "fingerprint": model.fingerprint})
    fits = model.with_dictionaries(dictionary).dictionaries[dictionary.layer]
    certificate = judged(model, fits, ids, given=held is not None, seed=settings.seed + HELD_SEED)
    result = DictionaryTraining(
        plan=asdict(plan),
        steps=made.steps,
        states=made.states,
        history=made.history,
        certificate=certificate,
        about=About(model=model.described, data={"name": plan.site}),
        seed=settings.seed,
        warnings=certificate.warnings,
    )
    return Made(result, folders=(*kept, "training", "dictionary"))


def _states(
    work: Work, settings: FeatureSettings, model: Model, given: list[str] | None
) -> tuple[ActivationStore, Plan, tuple[str, ...]]:
    """The states, captured as far as they are not there yet, and the plan."""
    from interp.features.texts import texts_of
    from interp.features.training import Plan, gather
    from interp.store import ActivationStore

    asked: dict[str, Any] = {"k": settings.k, "epochs": settings.epochs, "seed": settings.seed}
    if settings.store is not None:
        store = ActivationStore(settings.store)
        site = _stored_site(store, settings, model)
        kept: tuple[str, ...] = ()
    else:
        found = model.expand(settings.site or "resid_post.50%")
        if len(found) != 1:
            raise ConfigError(f"--site {settings.site!r} names {counted(len(found), 'site')}; give one.")
        site, kept = str(found[0]), ("activations",)
        n = settings.limit or max(3, settings.tokens // LENGTH)
        texts = texts_of(model, given, n, length=LENGTH, seed=settings.seed)
        work.session.note(f"texts: {len(texts):,}, {sum(map(len, texts)):,} tokens")
        with ActivationStore(work.run.path) as opened:
            gather(model, site, texts, opened)
        work.run.keep_partial()
        store = ActivationStore(work.run.path)
    width = store.read(site, [0]).flatten(2 if store.read(site, [0]).ndim > 3 else -1).shape[-1]
    plan = Plan(site, settings.width or 8 * width, **asked)
    return store, plan, kept


def _stored_site(store: ActivationStore, settings: FeatureSettings, model: Model) -> str:
    """The site of a store to train on; refused where it is not there, or of another model."""
    sites = [str(site) for site in store.sites]
    if not sites:
        raise DataError(f"'{settings.store}' holds no states. Give the folder of a run of interp capture.")
    if (whose := store.model)["fingerprint"] != model.fingerprint:
        raise ConfigError(
            f"'{settings.store}' holds states of {whose['model_name']!r} with {whose['weights']} weights, "
            f"and {model.name!r} with {model.weights} weights was loaded: another model. Give --model and "
            "--weights of the store."
        )
    site = settings.site or sites[0]
    if site not in sites:
        raise ConfigError(f"--site {site} asked, and '{settings.store}' holds: {', '.join(sites)}.")
    return site
