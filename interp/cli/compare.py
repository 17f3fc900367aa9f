"""``interp compare``: run analyses again at other precisions, and judge what survives."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from interp import results
from interp.cli.budget import Job, fit_passes
from interp.cli.dry_run import of_compare, show_compare
from interp.cli.frame import Made, Work, about_model, command
from interp.cli.options import COUNT, ModelSettings, RunSettings, choose, flag
from interp.cli.session import Outcome, Session
from interp.errors import ArtifactError, ConfigError, DataError, counted
from interp.results.codec import from_json, to_json

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from interp.models import Model
    from interp.quantization import Scheme
    from interp.quantization.comparison import Cell
    from interp.runs import RunFolder

__all__ = ["cell_name", "compare", "keep_cell", "read_cells"]

EXAMPLES = (
    "interp compare --schemes int8,int4 --analyses probe,patch,recall,two-hop",
    "interp compare --analyses all --schemes int4,rtn4-g32,rtn2 --out runs/x",
    "interp compare --with demo --with-weights edited --analyses recall",
    "interp compare --model gpt2 --schemes gptq4 --calibration texts.txt",
)
SCHEMES = ("int8", "int4")
EFFECTS = ("all", "largest")
WHOLE = 100
"""The size of a comparison is counted in percent of the items of its analyses."""
FLOORS = 3.5
"""Runs of the reference: its own, another layout, and bfloat16, half to twice as long on a CPU."""
MADE = 150
"""Passes of one prompt that making a quantized model, and examining it, takes, roughly."""


@dataclass(frozen=True, kw_only=True)
class CompareSettings(RunSettings, ModelSettings):
    """Run analyses of a model again on its quantized copies, and judge finding by finding what survives.

    The verdicts stand on paired intervals and on a noise floor: what another batch layout or bf16 changes.
    """

    schemes: tuple[str, ...] | None = flag(
        None,
        "Precisions (`interp ls schemes`), or none.",
        "--schemes",
        "--scheme",
        metavar="NAMES",
        allowed="schemes with commas, or none",
        many=True,
        shown="int8,int4; none with --with",
    )
    analyses: tuple[str, ...] = flag(
        ("probe", "patch", "recall", "two-hop"),
        "What is run again (`interp ls analyses`), or all: of chats only by name, of a training only --with.",
        metavar="NAMES",
        many=True,
    )
    with_: str | None = flag(
        None, "Another checkpoint of the same tokenizer, or an adapter's folder.", metavar="MODEL"
    )
    with_weights: Literal["trained", "random", "edited", "latent", "latent-shuffled"] = flag(
        "trained", "Which weights of it.", metavar="WHICH"
    )
    twin: tuple[str, ...] = flag(
        (),
        "With --with: models or adapters trained as long on shuffled data (`interp finetune --shuffle`).",
        metavar="MODELS",
        many=True,
    )
    mode: Literal["dense", "packed"] = flag(
        "dense",
        "dense (the scheme's numbers in the model's own modules) or packed (the library's modules).",
        metavar="WHICH",
    )
    items: tuple[str, ...] = flag(
        (),
        "Items of single analyses, such as patch=16,behaviour=100.",
        metavar="NAME=N",
        many=True,
        shown="as many as fit --budget",
    )
    data: tuple[str, ...] = flag(
        (),
        "Files of your own items, such as recall=lre/,two-hop=TwoHopFact.csv (`interp ls analyses`).",
        metavar="NAME=FILE",
        many=True,
        shown="bundled items",
    )
    limit: int | None = flag(None, "Use so many items in every analysis.", **COUNT)
    effects: str | None = flag(
        None,
        "What patch replaces: all heads and MLPs, or the largest of the reference and a random sample; then "
        "wrapper takes fewer divisions and steps, and cost fewer rounds and tokens.",
        metavar="WHICH",
        allowed=lambda: EFFECTS,
        shown="all, or largest where that fits --budget and the first does not",
    )
    calibration: str | None = flag(
        None,
        "Texts, one per line, for schemes that need them; the bundled model has its own.",
        metavar="FILE",
    )

    def check(self) -> None:
        """Refuse unknown analyses and schemes, a twin of nothing, and nothing to compare with."""
        from interp.analyses.table import ANALYSES

        super().check()
        self.about()  # reads both
        beside = [name for name in self.names() if ANALYSES[name].twins]
        if self.twin and (self.with_ is None or not beside):
            known = ", ".join(name for name, row in ANALYSES.items() if row.twins)
            raise ConfigError(
                f"--twin {','.join(self.twin)} stands beside --with MODEL in the analyses {known}: "
                "give --with, and one of them."
            )
        self.sizes()
        self.files()

    @property
    def given(self) -> tuple[str, ...]:
        """The flags that say how much is taken."""
        return (*super().given, *(("items",) if self.items else ()))

    def sizes(self) -> dict[str, int]:
        """The number of items of each analysis: its own, --limit, or that of --items.

        Raises:
            ConfigError: --items that name no analysis of this call, or no number.
        """
        from interp.analyses.table import ANALYSES

        names = self.names()
        found = {name: ANALYSES[name].n and (self.limit or ANALYSES[name].n) for name in names}
        for text in self.items:
            name, _, number = text.partition("=")
            if not number.isdecimal() or int(number) < 1:
                raise ConfigError(
                    f"--items {text!r} is not NAME=N; write for example patch=16,behaviour=100."
                )
            found[choose("--items", name, [one for one in names if ANALYSES[one].n])] = int(number)
        return found

    def files(self) -> dict[str, str]:
        """The file that each analysis of ``--data`` reads its items from.

        Raises:
            ConfigError: --data that names no analysis of this call, or one that reads no file.
            DataError: there is no such file.
        """
        from interp.analyses.table import ANALYSES

        found: dict[str, str] = {}
        for text in self.data:
            name, _, place = text.partition("=")
            reading = {one: ANALYSES[one].reads for one in self.names() if ANALYSES[one].reads}
            if not place or not reading:
                known = ", ".join(name for name, row in ANALYSES.items() if row.reads)
                raise ConfigError(
                    f"--data {text!r} is not NAME=FILE of an analysis that is run and reads files; these "
                    f"read some: {known}."
                )
            name = choose("--data", name, list(reading))
            if not Path(place).exists():
                raise DataError(f"--data {text!r}: there is no {place!r}. Give {reading[name]}.")
            found[name] = place
        return found

    def names(self) -> tuple[str, ...]:
        """The analyses, each once; ``all`` are those of any model, of a training only beside another one."""
        from interp.analyses.table import ANALYSES

        if not self.analyses:
            raise ConfigError(f"--analyses is empty; allowed: all, {', '.join(ANALYSES)}.")
        asked = [choose("--analyses", name, ("all", *ANALYSES)) for name in dict.fromkeys(self.analyses)]
        if "all" not in asked:
            return tuple(asked)
        return tuple(
            name
            for name, row in ANALYSES.items()
            if name in asked or not (row.chat or (row.beside and not self.with_))
        )

    def tokenizers(self) -> Literal["same", "any"]:
        """Whether both models must read the same tokens."""
        from interp.analyses.table import ANALYSES

        return "any" if all(ANALYSES[name].tokenizers == "any" for name in self.names()) else "same"

    def precisions(self) -> tuple[Scheme, ...]:
        """The schemes, each once; without --schemes the default ones, or none beside another checkpoint."""
        from interp.quantization import Scheme

        given = self.schemes
        if given is None:
            given = SCHEMES if self.with_ is None else ("none",)
        if not given or ("none" in given and len(given) > 1):
            raise ConfigError(
                f"--schemes {','.join(given)!r} names {'none beside schemes' if given else 'no scheme'}; "
                "give schemes such as int8,int4 (`interp ls schemes`), or none alone with --with."
            )
        if given != ("none",):
            return tuple(dict.fromkeys(Scheme.parse(name) for name in given))
        if self.with_ is None:
            raise ConfigError(
                "--schemes none leaves nothing to compare with. Name schemes such as int8,int4 "
                "(`interp ls schemes`), or another checkpoint with --with."
            )
        return ()

    def about(self) -> str:
        """The analyses and the schemes."""
        return "-".join([*self.names(), *map(str, self.precisions())])


def plan(work: Work, settings: CompareSettings) -> Outcome:
    """What would be run, and which modules each scheme would quantize."""
    other, _ = _ready(work, settings)
    settings = _sized(work, settings)
    found = of_compare(work.model, other, settings.sizes(), settings.precisions())
    return Outcome(found, lambda: show_compare(found), status="planned")


@command(CompareSettings, examples=EXAMPLES, plan=plan)
def compare(work: Work, settings: CompareSettings) -> Made:
    """Run what is not there yet, keeping every finished cell, and judge."""
    from interp import quantization

    session, run = work.session, work.run
    other, texts = _ready(work, settings)
    _twins_alike(work, settings)
    settings = _sized(work, settings)
    twins = [_other(work, settings, place, "trained") for place in settings.twin]
    of = _identity(work.model, other, texts, twins) | _contents(settings.files())
    done, faults = read_cells(run, of)
    model, schemes = work.certified(), settings.precisions()
    for text in faults:
        session.warn(text)
    labels = [*map(str, schemes), *([""] if other is not None else [])]
    with _Progress(session, settings.names(), labels, done) as progress:
        found = quantization.compare(
            _analyses(settings, twins),
            model,
            schemes,
            other=other,
            tokenizers=settings.tokenizers(),
            mode=settings.mode,
            calibration=texts or None,
            seed=settings.seed,
            done=done,
            keep=lambda cell: keep_cell(run, cell, of),
            say=progress.say,
        )
    refused = [cell for cell in found.cells if cell.refused]
    nothing = len(refused) == len(found.cells)
    return Made(
        found,
        facts={
            "other": None if other is None else about_model(other),
            "quantization": {
                cell.scheme: cell.quantization.to_dict() for cell in found.cells if cell.quantization
            },
        },
        more={"refused": len(refused)},
        error=DataError(f"nothing was compared: {refused[0].refused}") if nothing else None,
    )


def _analyses(settings: CompareSettings, twins: Sequence[Model]) -> dict[str, Callable[..., Any]]:
    """The analyses by name, each bound to its items and the seed."""
    from interp.analyses.table import ANALYSES

    sizes = settings.sizes()
    less, files = settings.effects == "largest", settings.files()
    return {
        name: ANALYSES[name].bound(
            n=n or None, seed=settings.seed, less=less, twins=twins, data=files.get(name)
        )
        for name, n in sizes.items()
    }


def _sized(work: Work, settings: CompareSettings) -> CompareSettings:
    return work.sized(settings, lambda: _job(work.model, settings))


def _job(model: Model, settings: CompareSettings) -> Job:
    """What a comparison takes: each analysis of the reference, of its noise floors and at every scheme."""
    from interp import tasks
    from interp.analyses.table import ANALYSES

    rows = [ANALYSES[name] for name in settings.names()]
    less = settings.effects == "largest"
    costs = {row.name: row.quicker if less and row.quicker else row.cost for row in rows}
    others = len(settings.precisions())
    asked, made = others + (settings.with_ is not None), others + 1
    twins = len(settings.twin)
    models = {
        row.name: asked + (FLOORS if row.floors and not row.beside else 1.0) + row.twins * (1 + twins)
        for row in rows
    }
    cells = model.n_layers * (model.n_heads + 1)

    def items(share: int) -> dict[str, int]:
        return {row.name: max(min(row.least, row.n), row.n * share // WHOLE) for row in rows if row.n}

    def shown(share: int) -> str:
        return (
            ", ".join(f"{name} of {counted(n, 'item')}" for name, n in items(share).items()) or "the analyses"
        )

    def passes(share: int) -> float:
        n = items(share)
        found = sum(one.passes(n.get(name, 0), cells, models[name]) for name, one in costs.items())
        return found + MADE * made + fits

    def besides(share: int) -> float:
        sizes, n = (model.d_model, model.vocab_size), items(share)
        cubed = model.n_layers * (model.d_model / 1000) ** 3 * (1 + bool(twins))
        return float(
            sum(
                one.besides(n.get(name, 0), *sizes, models[name]) + one.cubes * cubed
                for name, one in costs.items()
            )
        )

    texts = tasks.labelled("analogy-relation", n=64, seed=settings.seed).texts
    layers = sorted({layer for row in rows for layer in row.translators(model)})
    fits = fit_passes(model, layers, texts) if layers else 0.0
    free = settings.effects is None and any(row.quicker for row in rows)
    return Job(
        whole=WHOLE if items(WHOLE) else 1,
        least=1,
        texts=texts,
        passes=passes,
        besides=besides,
        shown=shown,
        settings=lambda share: {"items": tuple(f"{name}={n}" for name, n in items(share).items())},
        otherwise=(lambda: _quicker(model, settings)) if free else None,
    )


def _quicker(model: Model, settings: CompareSettings) -> tuple[str, Mapping[str, Any], Job]:
    """The same with fewer effects measured exactly."""
    from interp.analyses.table import ANALYSES

    words = "; ".join(f"{name}: {row.words}" for name in settings.names() if (row := ANALYSES[name]).words)
    asked = dataclasses.replace(settings, effects="largest")
    return f"{words} (--effects all for each one)", {"effects": "largest"}, _job(model, asked)


def _ready(work: Work, settings: CompareSettings) -> tuple[Model | None, tuple[str, ...]]:
    """Load what is compared and the texts for it, and refuse what cannot run here."""
    from interp.quantization.quantizing import refuse

    texts = _texts(settings)
    model, other = work.model, None
    if settings.with_ is not None:
        other = _other(work, settings, settings.with_, settings.with_weights)
    for scheme in settings.precisions():
        if scheme.needs_calibration and not texts:
            raise ConfigError(
                f"scheme {str(scheme)!r} chooses its rounding on texts: give --calibration FILE, one text "
                "per line."
            )
        given = texts if scheme.needs_calibration else None
        refuse(model, scheme, mode=settings.mode, calibration=given)
    return other, texts


def _other(work: Work, settings: CompareSettings, place: str, weights: Any) -> Model:
    """Load another checkpoint: a model, or the reference with the adapter of a folder."""
    from interp.models.peft_adapters import FACTS

    path = Path(place)
    if not (path / FACTS).is_file():
        changed = {"model": place, "weights": weights, "revision": None, "adapter": ()}
        return work.load(dataclasses.replace(settings, **changed))
    if weights != "trained":
        raise ConfigError(
            f"--with-weights {weights} is of a model; {place!r} holds an adapter. Leave it out."
        )
    given = work.load(dataclasses.replace(settings, adapter=(*settings.adapter, place)))
    named = path.resolve().parent if path.resolve().name == "adapter" else path.resolve()
    return dataclasses.replace(given, name=f"{work.model.called} with {named.name}")


def _twins_alike(work: Work, settings: CompareSettings) -> None:
    """Refuse twins that were not trained as long as what is compared."""
    from interp.demo.finetune import refuse_unlike

    if settings.with_ is not None:
        for text in refuse_unlike(settings.with_, settings.twin):
            work.session.warn(text)


def _texts(settings: CompareSettings) -> tuple[str, ...]:
    """The texts to calibrate on, where a scheme needs them; the bundled model has its own."""
    from interp import quantization

    needed = any(scheme.needs_calibration for scheme in settings.precisions())
    if settings.calibration is None:
        own = needed and settings.model == "demo"
        return tuple(quantization.calibration_texts(seed=settings.seed)) if own else ()
    if not needed:
        raise ConfigError(
            f"--calibration {settings.calibration!r} given, but none of the schemes uses texts. Leave it out."
        )
    try:
        lines = Path(settings.calibration).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"--calibration {settings.calibration!r} cannot be read ({error}). Give a UTF-8 file of texts, "
            "one per line."
        ) from error
    texts = tuple(line for line in lines if line.strip())
    if not texts:
        raise DataError(f"--calibration {settings.calibration!r} holds no text. Write one per line.")
    return texts


def _identity(
    model: Model, other: Model | None, texts: Sequence[str], twins: Sequence[Model] = ()
) -> dict[str, Any]:
    """What a finished cell must have been measured with to be used again, beside the settings."""
    from interp._version import __version__

    return {
        "model": model.fingerprint,
        "other": None if other is None else other.fingerprint,
        "twins": [one.fingerprint for one in twins],
        "calibration": hashlib.sha256("\n".join(texts).encode()).hexdigest() if texts else None,
        "version": __version__,
    }


def _contents(files: Mapping[str, str]) -> dict[str, str]:
    """The sha256 of what is in the files of ``--data``: a cell of other items is not used again."""
    found: dict[str, str] = {}
    for name, place in files.items():
        path = Path(place)
        every = sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]
        found[f"data of {name}"] = hashlib.sha256(b"\0".join(one.read_bytes() for one in every)).hexdigest()
    return found


class _Progress:
    """How far a comparison is: a bar at a terminal, else a line with the time since the start."""

    def __init__(
        self, session: Session, analyses: Sequence[str], labels: Sequence[str], done: Sequence[Cell]
    ) -> None:
        """Count the steps: each open analysis of the reference, its noise floors, and every open cell."""
        from tqdm.auto import tqdm

        from interp.quantization.comparison.run import NOISE

        counts = {
            name: sum(cell.analysis == name and bool(cell.scheme) for cell in done) for name in analyses
        }
        left = [len(labels) - n for n in counts.values() if n < len(labels)]
        if done:
            of = counted(len(analyses) * len(labels), "cell")
            session.note(f"resuming: {sum(counts.values())} of {of} are there")
        self._session, self._started = session, time.perf_counter()
        total = sum(1 + len(NOISE) + n for n in left)
        self._bar = tqdm(total=total, unit="step", disable=not session.progress)
        self._under_way = False

    def say(self, text: str) -> None:
        """Note that a step begins."""
        from interp.report.escape import one_line

        if self._under_way:
            self._bar.update()
        self._under_way = True
        if self._session.progress:
            self._bar.set_description(one_line(text))
        else:
            self._session.note(f"{time.perf_counter() - self._started:6.1f} s  {text}")

    def __enter__(self) -> _Progress:
        """Give itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Close the bar, full where everything was done."""
        if kind is None:
            self._bar.update(self._bar.total - self._bar.n)
        self._bar.close()


SCHEMA = "interp.cell/2"
REFERENCE = "reference"
FOLDER = "cells"


def cell_name(analysis: str, scheme: str) -> str:
    """The file of a cell in its run; names that are no plain words get a checksum."""
    return f"{FOLDER}/{_word(analysis)}--{_word(scheme or REFERENCE)}.json"


def _word(text: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip(".-")[:40]
    return plain if plain == text else f"{plain}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def keep_cell(run: RunFolder, cell: Cell, of: Mapping[str, Any]) -> None:
    """Write a cell, with what it was measured on.

    Args:
        run: the run.
        cell: of a comparison; the reference's has the scheme "".
        of: fingerprints of models and texts, and the seed: another run of these may use the cell.
    """
    plain = to_json(cell)
    content = {"schema": SCHEMA, "of": dict(of), "sha256": _digest(plain), "cell": plain}
    run.write_json(cell_name(cell.analysis, cell.scheme), content)
    run.keep_partial()


def read_cells(run: RunFolder, of: Mapping[str, Any]) -> tuple[tuple[Cell, ...], tuple[str, ...]]:
    """The sound cells of an interrupted run, and what is wrong with the others.

    Cells of an analysis whose reference is not among them are left out: they will be run again.

    Raises:
        ConfigError: they were measured on other weights or texts than this run would use.
    """
    found: list[Cell] = []
    faults: list[str] = []
    for path in sorted((run.path / FOLDER).glob("*.json")) if run.resumed else ():
        try:
            found.append(_read(path, of))
        except ArtifactError as error:
            faults.append(f"{FOLDER}/{path.name} is damaged and is measured again ({error})")
    whole = {cell.analysis for cell in found if not cell.scheme}
    kept = tuple(cell for cell in found if cell.analysis in whole)
    _take(run, {cell_name(cell.analysis, cell.scheme) for cell in kept})
    return kept, tuple(faults)


def _take(run: RunFolder, names: Collection[str]) -> None:
    """Put files into the run that are there already."""
    for name in sorted(names):
        run.add(name)
    if names:
        run.keep_partial()


def _read(path: Path, of: Mapping[str, Any]) -> Cell:
    from interp.quantization.comparison import Cell

    content = results.read_json(path)
    if content.get("schema") != SCHEMA or content.get("sha256") != _digest(content.get("cell")):
        raise ArtifactError("its content is not what was written")
    for name, before in content["of"].items():
        if before != of.get(name):
            raise ConfigError(
                f"--resume: {path} was measured with {name} = {before}, now it is {of.get(name)}. "
                "Use --overwrite to start again, or another --out."
            )
    return from_json(content["cell"], Cell)


def _digest(plain: Any) -> str:
    return hashlib.sha256(results.encode(plain)).hexdigest()
