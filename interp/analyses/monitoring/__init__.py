"""Monitors: a saved probe over the messages of conversations, with a threshold that one may quote."""

from __future__ import annotations

from typing import TYPE_CHECKING

from interp._lazy import exports

if TYPE_CHECKING:
    from interp.analyses.monitoring.answering import answer as answer
    from interp.analyses.monitoring.fitting import fit_monitor as fit_monitor
    from interp.analyses.monitoring.monitor import Monitor as Monitor
    from interp.analyses.monitoring.result import MonitorResult as MonitorResult
    from interp.analyses.monitoring.talks import Talks as Talks
    from interp.analyses.monitoring.talks import read_talks as read_talks
    from interp.analyses.monitoring.watching import Watched as Watched
    from interp.analyses.monitoring.watching import watch as watch

__getattr__, __dir__, __all__ = exports(__name__)
