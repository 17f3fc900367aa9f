"""``interp compare``: run analyses again at other precisions, and judge what survives."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.cli.group import define
from interp.cli.session import Outcome, Session
from interp.errors import ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from interp.config import CompareConfig
    from interp.models import Model
    from interp.quantization import Comparison, Scheme
    from interp.quantization.comparison import Cell
    from interp.runs import RunFolder

__all__ = ["command"]

EXAMPLES = (
    "interp compare --schemes int8,int4 --analyses probe,patch,recall,two-hop",
    "interp compare --analyses all --schemes int4,rtn4-g32,rtn2 --out runs/x",
    "interp compare --with demo --with-weights edited --analyses recall",
    "interp compare --model gpt2 --schemes gptq4 --calibration texts.txt",
)
SCHEMES = ("int8", "int4")


@define("compare", examples=EXAMPLES)
def command(session: Session, settings: CompareConfig) -> Outcome:
    """Run analyses of a model again on its quantized copies, and judge finding by finding what survives.

    The verdicts stand on paired intervals and on a noise floor: what another batch layout or bf16 changes.
    """
    analyses, schemes = _analyses(settings), _schemes(settings)
    if settings.dry_run:
        return _plan(session, settings, analyses, schemes)
    from interp.cli.work import claim

    with claim(session, settings, "compare", "-".join([*analyses, *map(str, schemes)])) as run:
        return _compare(session, settings, run, analyses, schemes)


def _analyses(settings: CompareConfig) -> dict[str, Callable[..., Any]]:
    """Give the analyses by name, each bound to its items and the seed."""
    from interp.analyses.table import ANALYSES
    from interp.config import choose

    asked = tuple(ANALYSES) if "all" in settings.analyses else settings.analyses
    if not asked:
        raise ConfigError(f"--analyses is empty; allowed: all, {', '.join(ANALYSES)}.")
    rows = [ANALYSES[choose("--analyses", name, ANALYSES)] for name in dict.fromkeys(asked)]
    return {row.name: row.bound(n=settings.limit if row.n else None, seed=settings.seed) for row in rows}


def _schemes(settings: CompareConfig) -> tuple[Scheme, ...]:
    """Read --schemes; without it the default ones, or none where there is another checkpoint."""
    from interp.quantization import Scheme

    given = settings.schemes
    if given is None:
        given = SCHEMES if settings.other is None else ("none",)
    if not given or ("none" in given and len(given) > 1):
        raise ConfigError(
            f"--schemes {','.join(given)!r} names {'none beside schemes' if given else 'no scheme'}; give "
            "schemes such as int8,int4 (`interp ls schemes`), or none alone with --with."
        )
    if given == ("none",):
        if settings.other is None:
            raise ConfigError(
                "--schemes none leaves nothing to compare with. Name schemes such as int8,int4 "
                "(`interp ls schemes`), or another checkpoint with --with."
            )
        return ()
    return tuple(dict.fromkeys(Scheme.parse(name) for name in given))


def _models(session: Session, settings: CompareConfig) -> tuple[Model, Model | None]:
    from interp.cli.work import load_plain

    model = load_plain(session, settings)
    if settings.other is None:
        return model, None
    changed = {"model": settings.other, "weights": settings.with_weights, "revision": None}
    return model, load_plain(session, settings.model_copy(update=changed))


def _texts(settings: CompareConfig, schemes: Sequence[Scheme]) -> tuple[str, ...]:
    """Give the texts to calibrate on, where a scheme needs them; the bundled model has its own."""
    needed = any(scheme.needs_calibration for scheme in schemes)
    if settings.calibration is None:
        return _own_texts(settings.seed) if needed and settings.model == "demo" else ()
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


def _own_texts(seed: int) -> tuple[str, ...]:
    from interp import quantization

    return tuple(quantization.calibration_texts(seed=seed))


def _ready(
    session: Session, settings: CompareConfig, schemes: Sequence[Scheme]
) -> tuple[Model, Model | None, tuple[str, ...]]:
    """Load what is compared and the texts for it, and refuse what cannot run here."""
    texts = _texts(settings, schemes)
    model, other = _models(session, settings)
    _refuse(settings, model, schemes, texts)
    return model, other, texts


def _refuse(settings: CompareConfig, model: Model, schemes: Sequence[Scheme], texts: Sequence[str]) -> None:
    """Refuse a scheme that cannot run here, before anything is computed."""
    from interp.quantization.quantizing import refuse

    for scheme in schemes:
        given = texts if scheme.needs_calibration else None
        if scheme.needs_calibration and not texts:
            raise ConfigError(
                f"scheme {str(scheme)!r} chooses its rounding on texts: give --calibration FILE, one text "
                "per line."
            )
        refuse(model, scheme, mode=settings.mode, calibration=given)


def _compare(
    session: Session,
    settings: CompareConfig,
    run: RunFolder,
    analyses: Mapping[str, Callable[..., Any]],
    schemes: Sequence[Scheme],
) -> Outcome:
    from interp import report
    from interp.cli.kept import keep_cell, read_cells
    from interp.cli.work import certify
    from interp.quantization import compare

    model, other, texts = _ready(session, settings, schemes)
    of = _identity(model, other, texts)
    done, faults = read_cells(run, of)
    certificate = certify(session, model)
    for text in faults:
        session.warn(text)
    labels = [*map(str, schemes), *([""] if other is not None else [])]
    with _Progress(session, list(analyses), labels, done) as progress:
        found = compare(
            dict(analyses),
            model,
            schemes,
            other=other,
            mode=settings.mode,
            calibration=texts or None,
            seed=settings.seed,
            done=done,
            keep=lambda cell: keep_cell(run, cell, of),
            say=progress.say,
        )
    _write(session, run, found, model, other, certificate)
    page = report.html(run.path)
    story = report.read(run.path)

    def show() -> None:
        report.write(story)
        session.say(f"run: {run.path}   report: {page}")

    refused = [cell for cell in found.cells if cell.refused]
    data = {**found.to_dict(), "certificate": {"passed": certificate["passed"]}, "refused": len(refused)}
    error = (
        DataError(f"nothing was compared: {refused[0].refused}") if len(refused) == len(found.cells) else None
    )
    return Outcome(data, show, run=run.path, artifacts=(*run.artifacts, page.name), error=error)


def _identity(model: Model, other: Model | None, texts: Sequence[str]) -> dict[str, Any]:
    """Give what a finished cell must have been measured with to be used again, beside the settings."""
    from interp.runs.identity import own_version

    return {
        "model": model.fingerprint,
        "other": None if other is None else other.fingerprint,
        "calibration": hashlib.sha256("\n".join(texts).encode()).hexdigest() if texts else None,
        "version": own_version(),
    }


class _Progress:
    """Say what is going on: a bar at a terminal, else a line with the time since the start."""

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
            session.note(f"resuming: {sum(counts.values())} of {len(analyses) * len(labels)} cells are there")
        self._session, self._started = session, time.perf_counter()
        total = sum(1 + len(NOISE) + n for n in left)
        self._bar = tqdm(total=total, unit="step", disable=not session.progress)
        self._under_way = False

    def say(self, text: str) -> None:
        """Note that a step begins."""
        from interp.report.text import one_line

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


def _write(
    session: Session,
    run: RunFolder,
    found: Comparison,
    model: Model,
    other: Model | None,
    certificate: Mapping[str, Any],
) -> None:
    """Write everything but the report, which is made from what is written here."""
    from interp.cli.work import model_facts
    from interp.report.pages import figure_page
    from interp.report.stories import figures

    for text in found.warnings:
        session.warn(text)
    for text in run.write_json("metrics.json", found.to_dict()):
        session.warn(text)
    run.write_table("findings.parquet", found.table())
    for name, figure in figures("compare", found.to_dict(), None).items():
        run.write_text(f"figures/{name}.svg", figure.svg())
        run.write_text(f"figures/{name}.html", figure_page(figure))
    run.finish(
        model=model_facts(model),
        other=None if other is None else model_facts(other),
        certificate=certificate,
        quantization={cell.scheme: cell.quantization for cell in found.cells if cell.quantization},
        command_line=session.line,
        warnings=session.warnings,
    )


def _plan(
    session: Session,
    settings: CompareConfig,
    analyses: Mapping[str, Callable[..., Any]],
    schemes: Sequence[Scheme],
) -> Outcome:
    """Say what would be run, and which modules each scheme would quantize."""
    from interp.cli.plan import of_compare, show_compare

    model, other, _ = _ready(session, settings, schemes)
    plan = of_compare(model, other, list(analyses), schemes, limit=settings.limit)
    return Outcome(plan, lambda: show_compare(plan), status="planned")
