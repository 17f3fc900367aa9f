"""``interp lens``: which word each state of a prompt stands for, layer by layer; curves over many prompts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from interp.cli.budget import Job, twin_fit_passes
from interp.cli.frame import Made, Work, about_data, command, prompt_job, prompt_table, read_prompts
from interp.cli.options import PromptSettings, choose, flag, layers_flag
from interp.errors import ConfigError

if TYPE_CHECKING:
    from interp.lenses import LensCurves, LensView
    from interp.tasks import Labelled

__all__ = ["lens"]

EXAMPLES = (
    'interp lens "the capital of France is"',
    'interp lens --model smollm2 "The capital of France is" --layers 12-29 --kind translator',
    "interp lens --task fact-relation --kind logit,translator",
    'interp lens --model gpt2 --kind lenses/gpt2/ "The capital of France is"',
)
ONE, SEVERAL = "logit", ("logit", "translator")
LEAST = 24


@dataclass(frozen=True, kw_only=True)
class LensSettings(PromptSettings):
    """Read which word each state stands for: every layer and token of one prompt, as one picture.

    With --task or --data: how early and how well several lenses say what the model says, over many prompts,
    beside the same model untrained.
    """

    prompt: str = flag("", "The prompt to read.", given="position", private=True)
    kind: tuple[str, ...] | None = flag(
        None,
        "Which lens, or several (`interp ls lenses`); or the file of a published lens.",
        metavar="NAMES",
        shown=f"{ONE} for a prompt, {','.join(SEVERAL)} for many",
    )
    layers: str = layers_flag()
    target: str | None = flag(
        None, "Of a patchscope: the prompt in which the state stands for '?'.", metavar="TEXT", private=True
    )

    @property
    def kinds(self) -> tuple[str, ...]:
        """The lenses that are meant."""
        return self.kind or (SEVERAL if self.many else (ONE,))

    @property
    def many(self) -> bool:
        """Whether it is about many prompts."""
        return self.task is not None or self.data is not None

    def check(self) -> None:
        """Refuse a call without prompts, one with both, unknown lenses and several for one prompt."""
        super().check()
        from interp.lenses import LENSES
        from interp.lenses.table import is_file

        if self.prompt.strip() and self.many:
            raise ConfigError("give a prompt, or many by --task or --data, not both.")
        if not self.prompt.strip() and not self.many:
            raise ConfigError('no prompt; give one, such as "the capital of France is", or many by --task.')
        for name in self.kinds:
            if not is_file(name):
                choose("--kind", name, LENSES)
        if len(self.kinds) > 1 and not self.many:
            raise ConfigError(
                f"--kind {','.join(self.kinds)}: one prompt is read by one lens; several are compared over "
                "many prompts (--task or --data)."
            )
        if self.target is not None and "patchscope" not in self.kinds:
            raise ConfigError("--target is the prompt of a patchscope; add --kind patchscope.")

    def about(self) -> str:
        """The prompts, or for one prompt the lens."""
        return super().about() if self.many else self.kinds[0].rstrip("/").rpartition("/")[2]


@command(LensSettings, examples=EXAMPLES)
def lens(work: Work, settings: LensSettings) -> Made:
    """Read one prompt, or many, under lenses."""
    _say_fits(work, settings.kinds)
    if not settings.many:
        return Made(_view(work, settings))
    settings = work.sized(settings, lambda: _job(work, settings), own=settings.data is not None)
    data = read_prompts(work, settings)
    tokens = work.model.tokenize(list(data.texts))
    return Made(
        _curves(work, settings, data),
        tables={"data.parquet": prompt_table(data, tokens.token_ids, keep_text=settings.text)},
        facts={"data": about_data(data)},
    )


def _say_fits(work: Work, kinds: tuple[str, ...]) -> None:
    """Say which lenses take a while on their first use."""
    from interp.lenses import LENSES

    fitted = [kind for kind in kinds if kind in LENSES and LENSES[kind].fitted]
    if fitted:
        work.session.note(
            f"{' and '.join(fitted)}: fitted when it is used first on a model (minutes for a large one on a "
            "CPU; for curves on its untrained twin too), then kept in the cache"
        )


def _view(work: Work, settings: LensSettings) -> LensView:
    from interp.lenses import PatchscopeLens, view
    from interp.sites import parse_layers

    model, kind = work.certified(), settings.kinds[0]
    lens = kind
    if kind == "patchscope" and settings.target is not None:
        layers = parse_layers(settings.layers, model.n_layers, name=model.name, kind="resid_post")
        lens = PatchscopeLens.of(model, layers, target=settings.target)
    return view(model, settings.prompt, lens=lens, layers=settings.layers, seed=settings.seed)


def _curves(work: Work, settings: LensSettings, data: Labelled) -> LensCurves:
    from interp.lenses import curves

    return curves(
        work.certified(),
        data,
        kinds=settings.kinds,
        layers=settings.layers,
        target=settings.target,
        seed=settings.seed,
        batch_size=settings.batch_size,
    )


def _job(work: Work, settings: LensSettings) -> Job:
    """What curves take: a pass of the model and one of its untrained twin, and those of patchscopes."""
    from interp.sites import parse_layers

    model = work.model
    layers = parse_layers(settings.layers, model.n_layers, name=model.name, kind="resid_post")
    each = len(layers) if "patchscope" in settings.kinds else 0
    found = prompt_job(settings, 2.0 * (1 + each + 0.1 * len(layers) * len(settings.kinds)), LEAST)
    first = 0.0
    if "translator" in settings.kinds:  # the twin's, too
        first = twin_fit_passes(model, layers, found.texts, settings.seed)
    return replace(found, passes=lambda n: found.passes(n) + first)
