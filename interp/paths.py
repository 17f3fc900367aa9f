"""Where the files that come with the package are, and how text files of a user's are read."""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from interp.errors import DataError

__all__ = ["assets", "objects", "records_of", "text_of"]


def assets(*parts: str) -> Path:
    """Find a file or folder of the bundled assets, in a checkout or in an installed package.

    Args:
        *parts: path components below the assets folder, for example ``"facts", "countries.csv"``.
    """
    here = Path(__file__).resolve().parent
    for root in (here.parent / "assets", here / "assets"):
        if root.is_dir():
            return root.joinpath(*parts)
    return (here / "assets").joinpath(*parts)


def text_of(path: Path) -> str:
    """The text of a file, without a byte-order mark.

    Raises:
        DataError: there is no such file, or it is not UTF-8.
    """
    if not path.exists():
        there = [one.name for one in path.parent.glob("*")] if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, there, 1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise DataError(f"data file '{path}' does not exist.{hint}")
    if path.is_dir():
        raise DataError(f"'{path}' is a folder; give a file.")
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"'{path}' is not UTF-8 (byte {error.start} cannot be read); save it as UTF-8."
        ) from None
    except OSError as error:
        raise DataError(f"'{path}' cannot be read: {error.strerror}.") from None


def objects(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The JSON objects of a text, one a line, each with the number of its line.

    Args:
        path: the file it comes from, for messages.
        text: what it holds.

    Raises:
        DataError: a line that is no object, one that names a key twice, or text that is none.
    """
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=_once)
            json.dumps(row, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            why = "holds half of a surrogate pair, which is no text; remove it"
        except json.JSONDecodeError as error:
            why = f"is not JSON ({error.msg}); write one object per line"
        except RecursionError:
            why = "is nested too deeply; write one flat object per line"
        except ValueError as error:  # a key that is there twice, a number of thousands of digits
            why = f"cannot be read: {str(error).partition(';')[0]}"
        else:
            if isinstance(row, dict):
                yield number, row
                continue
            why = "is not an object; write one {...} per line"
        raise DataError(f"'{path}' line {number} {why}.")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys are all different."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(n for n in names if names.count(n) > 1)!r} is there twice")
    return found


def records_of(data: Any) -> list[dict[str, Any]]:
    """The rows of a pandas DataFrame or of a list of mappings, without empty cells; none of anything else.

    Args:
        data: whatever was given.
    """
    pandas = sys.modules.get("pandas")  # who gives a DataFrame has imported it
    if pandas is not None and isinstance(data, pandas.DataFrame):
        data = data.to_dict("records")
    if not isinstance(data, list | tuple) or not all(isinstance(row, Mapping) for row in data):
        return []
    rows = [{str(key): one for key, one in row.items()} for row in data]
    return [{key: one for key, one in row.items() if one is not None and one == one} for row in rows]
