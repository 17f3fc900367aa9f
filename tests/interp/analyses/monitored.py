"""Conversations of a tiny chat model in which one word of an answer is what a monitor looks for."""

from __future__ import annotations

import copy
from functools import cache

import numpy as np
import torch

import interp
from interp.analyses.monitoring import MonitorResult, Talks, fit_monitor
from interp.models import Model
from tests.tiny import WORDS, build, tokenizer

TEMPLATE = (
    "{% for m in messages %}w50 {{ m['role'] }} {{ m['content'] }} w51 {% endfor %}"
    "{% if add_generation_prompt %}w50 assistant {% endif %}"
)
BAD = WORDS[40:46]
"""Words that the planted model has in common."""


@cache
def chat() -> Model:
    """A tiny Llama whose bad words share a direction; a monitor can know those that it was not trained on."""
    hf, words = build("llama"), copy.deepcopy(tokenizer())  # others use the same object
    words.chat_template = TEMPLATE
    direction = torch.randn(32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        table = hf.get_input_embeddings()
        assert isinstance(table, torch.nn.Embedding)
        for token in words.convert_tokens_to_ids(BAD):
            table.weight[token] += 2 * direction
    return interp.load(hf, tokenizer=words)


def talks(n: int = 160, *, seed: int = 0, bad: tuple[str, ...] = tuple(BAD)) -> Talks:
    """Every second conversation has a bad word in its answer, in one of two sources."""
    rng = np.random.default_rng(seed)
    prompts, labels = [], []
    for number in range(n):
        asked, said = ([WORDS[at] for at in rng.integers(0, 40, size)] for size in (4, 7))
        if number % 2:
            said[int(rng.integers(7))] = bad[int(rng.integers(len(bad)))]
        prompts.append(
            ({"role": "user", "content": " ".join(asked)}, {"role": "assistant", "content": " ".join(said)})
        )
        labels.append("bad" if number % 2 else "good")
    groups = tuple(f"group {seed}-{number}" for number in range(n))
    return Talks("toys", tuple(prompts), tuple(labels), groups, tuple("ab"[at // 2 % 2] for at in range(n)))


@cache
def fitted() -> MonitorResult:
    """A monitor by the highest token."""
    return fit_monitor(chat(), talks(120), alarm="bad", layers="0", pooling="max", rate=0.1)
