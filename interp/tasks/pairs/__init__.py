"""Generators of clean and corrupt prompts for mediation, on any tokenizer."""

from __future__ import annotations

from interp.tasks.pairs.table import PAIR_TASKS, PairTask, draw, lined_up

__all__ = ["PAIR_TASKS", "PairTask", "draw", "lined_up"]
