"""What every analysis returns: one base class, the shapes it speaks in, and how it is written to disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from interp._lazy import exports

if TYPE_CHECKING:
    from interp.results.files import encode as encode
    from interp.results.files import jsonable as jsonable
    from interp.results.files import read_json as read_json
    from interp.results.files import table_html as table_html
    from interp.results.files import write_atomically as write_atomically
    from interp.results.files import write_json as write_json
    from interp.results.findings import Finding as Finding
    from interp.results.measured import FindingsResult as FindingsResult
    from interp.results.result import Result as Result
    from interp.results.result import load as load
    from interp.results.schemas import SCHEMAS as SCHEMAS
    from interp.results.shapes import About as About
    from interp.results.shapes import Cell as Cell
    from interp.results.shapes import Figure as Figure
    from interp.results.shapes import Number as Number
    from interp.results.shapes import Table as Table

__getattr__, __dir__, __all__ = exports(__name__)
