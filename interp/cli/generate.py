"""``interp generate``: continue prompts, greedily or by drawing, and keep the states on the way."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from interp.cli.budget import Job
from interp.cli.frame import Made, Work, about_data, command, prompt_job, prompt_table, read_prompts
from interp.cli.options import COUNT, PromptSettings, flag
from interp.errors import ConfigError, DataError, counted

if TYPE_CHECKING:
    from interp.models import NewToken, Sampling
    from interp.models.generated import Generation
    from interp.store import ActivationStore

__all__ = ["generate"]

EXAMPLES = (
    'interp generate "the capital of France is"',
    'interp generate --model smollm2 --chat "Name two colours." --temperature 0.7 --top-p 0.9 --seed 1',
    "interp generate --data prompts.csv --capture 'resid_post.*' --tokens all --out runs/x",
    'interp generate --model smollm2 "Once upon a time" --max-new-tokens 60 --stop "\\n\\n"',
)
PARTS = "parts"
STEP = 0.25
"""Cost of a pass of one token with a cache, in passes of a prompt: measured, rounded up."""
NUMBER = {"metavar": "X", "check": lambda value: value >= 0, "allowed": "a number from 0"}


@dataclass(frozen=True, kw_only=True)
class GenerateSettings(PromptSettings):
    """Continue a prompt, or those of a file or a task: greedily, or by drawing.

    The text of one prompt is printed while it is written. With --capture the states of the tokens are saved
    as `interp capture` saves them. A draw depends on the seed, the prompt's place and the step alone.
    """

    prompt: str = flag("", "The prompt to continue.", given="position", private=True)
    chat: bool = flag(False, "Give PROMPT as a user's message, through the model's chat template.")
    max_new_tokens: int = flag(40, "Tokens to add at most.", **COUNT)
    temperature: float = flag(0.0, "0: the likeliest token; 1: the model's own distribution.", **NUMBER)
    top_p: float = flag(1.0, "Draw among the likeliest tokens of this probability together.", **NUMBER)
    top_k: int = flag(0, "Draw among so many likeliest tokens; 0 for all.", **NUMBER)
    min_p: float = flag(0.0, "Draw among tokens of this share of the likeliest one's probability.", **NUMBER)
    stop: str | None = flag(
        None,
        "A text that ends the text and is left out; \\n is a line break.",
        shown="end tokens alone",
        private=True,
    )
    capture: str | None = flag(
        None, "Sites whose states are saved, globs allowed.", metavar="SITES", many=True, shown="none"
    )
    tokens: str = flag(
        "all", "Whose states are saved: all, new, last, or a selector of the finished text.", metavar="WHICH"
    )

    @property
    def many(self) -> bool:
        """Whether it is about many prompts."""
        return self.task is not None or self.data is not None

    def sampling(self, first: int = 0) -> Sampling:
        """How tokens are drawn, from one prompt of the list on."""
        from interp.models import Sampling

        return Sampling(self.temperature, self.top_p, self.top_k, self.min_p, self.seed, first)

    def check(self) -> None:
        """Refuse a call without prompts, one with both, and draws that cannot be meant."""
        super().check()
        if self.prompt.strip() and self.many:
            raise ConfigError("give a prompt, or many by --task or --data, not both.")
        if not self.prompt.strip() and not self.many:
            raise ConfigError('no prompt; give one, such as "the capital of France is", or many by --data.')
        if self.chat and self.many:
            raise ConfigError("--chat makes a message of PROMPT; in --data give lines of messages.")
        if self.dry_run:
            raise ConfigError("--dry-run has no plan for generate; try --limit 1 with few --max-new-tokens.")
        self.sampling()

    def about(self) -> str:
        """The prompts, or a word for one."""
        return super().about() if self.many else "prompt"


@command(GenerateSettings, examples=EXAMPLES)
def generate(work: Work, settings: GenerateSettings) -> Made:
    """Continue the prompts part by part, and keep what is done."""
    if not settings.many:
        prompts: Sequence[Any] = [
            [{"role": "user", "content": settings.prompt}] if settings.chat else settings.prompt
        ]
        result, folders = _continued(work, settings, prompts)
        return Made(result, folders=folders)
    settings = work.sized(settings, lambda: _job(settings), own=settings.data is not None)
    data = read_prompts(work, settings)
    prompts = list(data.prompts)
    result, folders = _continued(work, settings, prompts)
    return Made(
        result,
        tables={"data.parquet": prompt_table(data, _ids(work, prompts), keep_text=settings.text)},
        folders=folders,
        facts={"data": about_data(data)},
    )


def _job(settings: GenerateSettings) -> Job:
    return prompt_job(settings, 1 + STEP * settings.max_new_tokens)


def _continued(
    work: Work, settings: GenerateSettings, prompts: Sequence[Any]
) -> tuple[Generation, tuple[str, ...]]:
    """Continue prompts in parts; each one that is on disk is there to stay."""
    from interp.store import ActivationStore

    model, run = work.certified(), work.run
    if settings.capture is None:
        run.begin()
        return _parts(work, settings, prompts, None), (PARTS,)
    sites = [str(site) for site in model.expand(settings.capture.split(","))]
    keys = _keys(work, settings, prompts, sites)
    run.begin()
    with ActivationStore(run.path, cache_keys=keys) as store:
        return _parts(work, settings, prompts, store), (PARTS, "activations")


def _parts(
    work: Work, settings: GenerateSettings, prompts: Sequence[Any], store: ActivationStore | None
) -> Generation:
    from tqdm.auto import tqdm

    from interp import results
    from interp.models.generated import Generation
    from interp.store import SHARD

    place = work.run.path / PARTS
    kept = sorted(one.parent for one in place.glob("*/result.json"))  # a run replaced leaves empty folders
    kept = kept if store is None else kept[: store.n_shards]
    done = [part for part in map(results.load, kept) if isinstance(part, Generation)]
    if done:
        work.session.note(f"resuming: {sum(map(len, done)):,} of {counted(len(prompts), 'prompt')} are there")
        work.run.keep_partial()
    starts = range(sum(map(len, done)), len(prompts), SHARD)
    for start in tqdm(starts, unit="part", disable=len(starts) < 2 or not work.session.progress):
        part = _written(work, settings, prompts[start : start + SHARD], start)
        states, part = part.activations, dataclasses.replace(part, activations=None)
        part.save(place / f"{len(done):05d}", text=settings.text)
        done.append(part)
        if store is not None and states is not None:
            store.append(states if settings.text else states.redacted())
        work.run.keep_partial()
    if store is not None and not _selected(store):
        raise DataError(
            f"--tokens {settings.tokens!r} selects no token in any of {counted(len(prompts), 'prompt')}; "
            f"the texts are in {place.as_posix()}. Choose others, such as new or all."
        )
    return Generation.concatenate(done)


def _selected(store: ActivationStore) -> bool:
    """Whether there is a state in any part."""
    rows = (row for part in store.shards(store.sites[:1]) for row in part.positions)
    return any(isinstance(row, int) or len(row) > 0 for row in rows)


def _written(work: Work, settings: GenerateSettings, prompts: Sequence[Any], start: int) -> Generation:
    aloud = not (settings.many or work.session.as_json or work.session.quiet)
    made = work.model.generate(
        prompts,
        max_new_tokens=settings.max_new_tokens,
        sample=settings.sampling(start),
        capture=None if settings.capture is None else settings.capture.split(","),
        tokens=None if settings.capture is None else settings.tokens,
        stop=() if settings.stop is None else settings.stop.replace("\\n", "\n"),
        on_token=_print if aloud else None,
        empty=settings.many,
        batch_size=settings.batch_size,
    )
    if made.activations is None:
        return made
    return dataclasses.replace(made, activations=made.activations.to("cpu"))


def _print(token: NewToken) -> None:
    """Write new text as it comes, without characters that steer a terminal."""
    import click

    from interp.report.escape import printable

    lines = token.text.split("\n")
    click.echo("\n".join(map(printable, lines)), nl=bool(token.ends))


def _keys(
    work: Work, settings: GenerateSettings, prompts: Sequence[Any], sites: Sequence[str]
) -> dict[str, str]:
    from interp.runs import cache_key

    model, ids = work.model, _ids(work, prompts)
    how = repr((settings.tokens, settings.sampling(), settings.max_new_tokens, settings.stop))
    parts = (model.fingerprint, model.tokenizer_fingerprint, ids)
    dtype = str(model.dtype).removeprefix("torch.")
    return {site: cache_key(*parts, site=site, positions=how, dtype=dtype) for site in sites}


def _ids(work: Work, prompts: Sequence[Any]) -> Sequence[Sequence[int]]:
    """The ids that are continued."""
    from interp.models.finished import conversations_of

    begun = "open" if conversations_of(prompts) else "auto"
    return work.model.tokenize(prompts, continue_=begun).token_ids
