"""The runs whose numbers are held, all on the bundled model and small; RUNS names them.

``extract.py`` takes the numbers out of what they return: where a result changes its shape, that file
follows, and the numbers stay.
"""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import interp
from interp import quantization, tasks
from interp.analyses.causal import causal_use
from interp.analyses.table import ANALYSES
from interp.cli import main
from tests.golden import extract
from tests.golden.numbers import Numbers
from tests.noisy import demo

__all__ = ["RUNS", "Run"]

SIZES = (300, 100, 120)
ITEMS = {
    "recall": 12,
    "two-hop": 12,
    "probe": 120,
    "patch": 12,
    "geometry": 16,
    "behaviour": 24,
    "cost": None,
}
QUICK = ("recall", "two-hop", "probe", "behaviour")


@dataclass(frozen=True)
class Run:
    """One run: how its numbers are made, and whether it is left to ``-m slow``."""

    numbers: Callable[[], Numbers]
    slow: bool = False


@lru_cache(maxsize=1)
def model() -> interp.Model:
    return demo()


def protocol(name: str, controls: tuple[str, ...] | None = None) -> Numbers:
    found = interp.probe_concepts(model(), name, layers="8,20", sizes=SIZES, controls=controls)
    return extract.concepts(found)


def task_causal(task: str, n: int) -> Numbers:
    found = interp.probe(model(), tasks.labelled(task, n=n), layers="8,20")
    return extract.probe(found) | extract.causal(causal_use(model(), found, seed=0))


def patch_heads() -> Numbers:
    return extract.patching(interp.patch(model(), "capitals", "head.*", n=12))


def patch_last() -> Numbers:
    return extract.patching(interp.patch(model(), "capitals", "resid_post.*", n=12, positions=-1))


def patch_grid() -> Numbers:
    """Layers by tokens: on the pairs of one length, since a grid needs one."""
    pairs = tasks.sample(model(), "ioi", 12, seed=0)
    lengths = [len(ids) for ids in pairs.clean.token_ids]
    usual = max(set(lengths), key=lengths.count)
    alike = pairs[[at for at, length in enumerate(lengths) if length == usual]]
    sites = ["resid_post.4", "resid_post.12", "resid_post.20"]
    return extract.patching(interp.patch(model(), alike, sites, positions="each"))


def patch_edges() -> Numbers:
    return extract.patching(interp.patch(model(), "capitals", "edge.*", n=10, search="attribution"))


def compare(names: tuple[str, ...], schemes: tuple[str, ...]) -> Numbers:
    analyses = {name: ANALYSES[name].bound(n=ITEMS[name], seed=0) for name in names}
    return extract.comparison(quantization.compare(analyses, model(), list(schemes), seed=0))


def command(read: Callable[[dict[str, Any]], Numbers], *words: str) -> Numbers:
    """Run a command and read the ``data`` of the document that it prints."""
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.redirect_stdout(io.StringIO()) as printed,
    ):
        out = ("--out", f"{folder}/run") if words[0] == "capture" else ()
        assert main([*words, *out, "--json", "--quiet"]) == 0
    return read(json.loads(printed.getvalue())["data"])


def capture() -> Numbers:
    """The states themselves from Python, and the counts of the command."""
    data = tasks.labelled("analogy-relation", n=8)
    ends = [
        "embed",
        "resid_post.8",
        "resid_post.20",
        "attn_out.8",
        "mlp_out.20",
        "head.8.3",
        "logits",
    ]
    last = model().capture(data.texts, ends, "last")
    everywhere = model().capture(
        data.texts[:2], ["q.8", "k.8", "v.8", "z.8", "pattern.8", "mlp_act.20"], "all"
    )
    words = (
        "capture",
        "--task",
        "analogy-relation",
        "--limit",
        "8",
        "--sites",
        "resid_post.8,head.20.*",
    )
    found = extract.states("last token", last) | extract.states("all tokens", everywhere)
    return Numbers(found | command(extract.stored, *words))


RUNS: dict[str, Run] = {
    **{
        f"protocol-{name}": Run(partial(protocol, name))
        for name in ("concept-disjoint", "pair-disjoint", "in-context", "bridge")
    },
    # the same probe and controls as pair-disjoint on other prompts: two controls are enough
    "protocol-seen-pairs": Run(partial(protocol, "seen-pairs", ("bag-of-tokens", "control-task"))),
    "task-causal": Run(partial(task_causal, "fact-relation", 200)),
    "task-causal-words": Run(partial(task_causal, "subject-number", 120)),
    "patch-heads": Run(patch_heads),
    "patch-last-token": Run(patch_last),
    "patch-grid": Run(patch_grid),
    "patch-edges": Run(patch_edges),
    "compare": Run(partial(compare, QUICK, ("rtn2",))),
    "compare-all": Run(partial(compare, tuple(ITEMS), ("int8", "rtn2")), slow=True),
    "capture": Run(capture),
    "decode": Run(partial(command, extract.decoded, "decode", "--layer", "20", "Denmark : krone = Japan :")),
    "decode-questions": Run(
        partial(
            command,
            extract.generation,
            "decode",
            "--layer",
            "20",
            "--questions",
            "facts",
            "--limit",
            "8",
        ),
        slow=True,
    ),
    "doctor": Run(partial(command, extract.doctor, "doctor")),
}
