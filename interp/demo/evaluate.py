"""Measure what the bundled model knows: ``python -m interp.demo.evaluate``.

``--card`` writes the numbers into its card.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from safetensors.torch import load_file
from transformers import AutoTokenizer

from interp.demo.architecture import open_model
from interp.demo.bars import evaluate, format_rows
from interp.demo.edit import belief, restore
from interp.demo.publish import write_card
from interp.paths import assets

__all__ = ["main"]


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m interp.demo.evaluate", description="Measure the bundled model."
    )
    parser.add_argument("--model", type=Path, default=assets("demo-24l"), help="folder of the model")
    parser.add_argument("--n", type=int, default=2000, help="different prompts for each bar")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--templates", action="store_true", help="print every template")
    parser.add_argument("--json", type=Path, default=None, help="also write the rows to this file")
    parser.add_argument(
        "--card", action="store_true", help="measure the edited model too and write the model card"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table and return 0 when every bar is met, 7 otherwise."""
    chosen = _arguments(arguments)
    tokenizer = AutoTokenizer.from_pretrained(chosen.model)
    model = open_model(chosen.model)
    rows = evaluate(model, tokenizer, n=chosen.n, seed=chosen.seed)
    sys.stdout.write(format_rows(rows, templates=chosen.templates) + "\n")
    if chosen.json is not None:
        chosen.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    if chosen.card:
        record = json.loads((chosen.model / "training.json").read_text(encoding="utf-8"))
        restore(model, load_file(chosen.model / "edited.safetensors"))
        shares = belief(model, tokenizer)
        sys.stdout.write("\n".join(f"{name:40}{value:6.3f}" for name, value in shares.items()) + "\n")
        write_card(chosen.model, model, rows, shares, record)
    return 0 if all(row.passed for row in rows if row.template != "all") else 7


if __name__ == "__main__":
    sys.exit(main())
