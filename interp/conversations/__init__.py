"""Messages as prompts: rendered by the tokenizer's own template, with spans, and selectors of tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from interp._lazy import exports

if TYPE_CHECKING:
    from interp.conversations.answers import answered as answered
    from interp.conversations.offsets import offsets_of as offsets_of
    from interp.conversations.rendering import Rendered as Rendered
    from interp.conversations.rendering import render as render
    from interp.conversations.selectors import Selection as Selection
    from interp.conversations.selectors import Selector as Selector
    from interp.conversations.selectors import parse as parse
    from interp.conversations.selectors import select as select
    from interp.conversations.spans import Span as Span

__getattr__, __dir__, __all__ = exports(__name__)
