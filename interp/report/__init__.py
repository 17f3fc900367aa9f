"""Results as figures, terminal tables and HTML pages. ``interp.plot(result)`` is the front door.

Plot functions return figures and never show them; every figure keeps its numbers as ``.data``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interp.report.document import Document
    from interp.report.figures import Drawing

__all__ = ["html", "plot", "read", "show_tokens"]


def plot(result: Any, name: str = "") -> Drawing:
    """The figure that shows a result best.

    Args:
        result: what an analysis returned, one of its figures, or the path of a run folder.
        name: which of its figures; the best where not given.

    Returns:
        A figure with ``.data``, ``.svg()`` and ``.save(folder, name)``; a notebook displays it.

    Raises:
        ConfigError: for something no figure is known for.
    """
    from interp.report.figures import figure_of

    return figure_of(result, name)


def show_tokens(
    tokens: Sequence[str], values: Sequence[float], *, title: str = "Tokens", unit: str = "", width: int = 10
) -> Drawing:
    """A text, each token coloured by a number; blanks are seen, and nothing of it is read as markup.

    Args:
        tokens: as words, such as ``interp.lenses.words.words_of`` gives them.
        values: one for each; the colour is as strong as their size beside the largest. What is negative is
            framed, and what is no number is blank.
        title: of the figure.
        unit: of the numbers.
        width: tokens of a line.

    Raises:
        DataError: not one number for each token, or no token.
        ConfigError: a width below 1.
    """
    import math

    from interp.errors import ConfigError, DataError
    from interp.report.figures import figure_of
    from interp.results import Figure

    if len(tokens) != len(values) or not len(tokens):
        raise DataError(f"{len(tokens)} tokens and {len(values)} numbers; give one number for each token.")
    if width < 1:
        raise ConfigError(f"width={width} tokens of a line asked; give at least 1.")
    numbers = [float(one) for one in values]
    sizes = [abs(one) if math.isfinite(one) else 0.0 for one in numbers]
    order = sorted(range(len(numbers)), key=lambda at: (-(at // width), at))  # the last line is the lowest
    most = max(sizes)
    data = {
        "x": [at % width for at in order],
        "y": [at // width * width for at in order],
        "column": ["" for _ in order],
        "text": [tokens[at] for at in order],
        "value": [sizes[at] / (most or 1.0) for at in order],
        "rank": [1 if numbers[at] < 0 else 0 for at in order],
        "tip": [f"token {at} ({tokens[at]!r}): {numbers[at]:.4g} {unit}".rstrip() for at in order],
    }
    caption = f"{width} tokens a line; full colour: {most:.3g} {unit}".rstrip() + ". Framed: negative."
    return figure_of(Figure("tokens", "grid", data, title, caption, "token", "position"))


def read(run: str | Path) -> Document:
    """What there is to say about a finished run.

    Raises:
        ArtifactError: when the run is not there, not finished or damaged.
    """
    from interp.report.document import of_run

    return of_run(Path(run))


def html(run: str | Path, out: str | Path | None = None, *, document: Document | None = None) -> Path:
    """Write a finished run as one self-contained HTML page.

    Args:
        run: the run folder.
        out: where to; ``report.html`` in the run where not given.
        document: what there is to say about it, where it has been read already.

    Returns:
        The page's path.
    """
    from interp.report import page

    path = Path(run)
    return page.write(path, document or read(path), None if out is None else Path(out))
