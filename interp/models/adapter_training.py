"""Train what is not frozen in a model, such as a low-rank adapter; a training that was stopped goes on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from tqdm.auto import tqdm

from interp.models.answers import answer_ids
from interp.models.model import Model
from interp.models.tokens import Prompts
from interp.results import write_atomically

__all__ = ["EVERY", "Checkpoints", "Lesson", "lessons_of", "train"]

EVERY = 10
"""Steps between two checkpoints."""
WARM = 10
"""Steps over which the rate rises."""
STEP, STATES = "step", ("exp_avg", "exp_avg_sq")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Lesson:
    """A text, and which of its tokens are learned.

    Attributes:
        ids: its tokens.
        places: of the tokens that are learned, each from those before it; none of them the first.
    """

    ids: Sequence[int]
    places: Sequence[int]


def lessons_of(model: Model, prompts: Prompts, answers: Sequence[str | Sequence[int]]) -> list[Lesson]:
    """Prompts that go on with an answer, of which the answer is learned: the tokens that ``score`` scores.

    Raises:
        DataError: an answer that is empty, unknown to the tokenizer, or changes the tokens before it.
    """
    tokens = model.tokenize(prompts)
    found = []
    for text, ids, answer in zip(tokens.texts, tokens.token_ids, answers, strict=True):
        more = answer_ids(model, text, ids, answer)
        found.append(Lesson((*ids, *more), range(len(ids), len(ids) + len(more))))
    return found


@dataclass(frozen=True)
class Checkpoints:
    """The file in which a training is kept while it runs; what goes on from it ends as if never stopped.

    Attributes:
        path: of the file; one training's alone.
        every: steps between two writes.
    """

    path: Path
    every: int = EVERY

    def due(self, step: int) -> bool:
        """Whether to write once so many steps were made."""
        return step % self.every == 0

    def written(self, step: int, learned: Sequence[Tensor], optimizer: torch.optim.AdamW) -> None:
        """Write what was learned in so many steps, all or nothing.

        Args:
            step: steps made.
            learned: what is trained, in its order.
            optimizer: of it.
        """
        tensors = {STEP: torch.tensor(step)}
        for at, one in enumerate(learned):
            tensors[f"{at}"] = one.detach().cpu().contiguous()
            tensors |= {f"{at}.{name}": optimizer.state[one][name].cpu().contiguous() for name in STATES}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, save(tensors))

    def restored(self, learned: Sequence[Tensor], optimizer: torch.optim.AdamW) -> int:
        """Put what was learned back, and give the steps it took; 0 where nothing fits.

        Args:
            learned: what is trained, in its order; it is overwritten.
            optimizer: of it; likewise.
        """
        if not self.path.is_file():
            return 0
        try:
            found = load_file(self.path)
            kept = [
                (found[f"{at}"], *(found[f"{at}.{name}"] for name in STATES)) for at in range(len(learned))
            ]
        except (OSError, KeyError, SafetensorError):
            kept, found = [], {}
        if not kept or any(one.shape != own.shape for (one, *_), own in zip(kept, learned, strict=True)):
            _log.warning("%s does not fit this training, which begins anew", self.path)
            return 0
        step = found[STEP]
        for own, (value, *moments) in zip(learned, kept, strict=True):
            own.data.copy_(value)
            optimizer.state[own] = {
                "step": step.float(),
                **{name: one.to(own.device) for name, one in zip(STATES, moments, strict=True)},
            }
        _log.info("training goes on after step %d", int(step))
        return int(step)


def train(
    hf: Any,
    lessons: Iterator[Sequence[Lesson]],
    *,
    steps: int,
    rate: float,
    rates: Literal["rise and fall", "fixed"] = "rise and fall",
    kept: Checkpoints | None = None,
    after: Callable[[int], object] = lambda step: None,
    label: str = "training",
    progress: bool = False,
) -> None:
    """Train in place what is not frozen, by AdamW.

    The loss is the mean cross-entropy, in nats, of the tokens that are learned in a step. Texts of a step are
    padded behind, where causal attention does not see it.

    Args:
        hf: a Hugging Face model.
        lessons: the texts of each step.
        steps: how many.
        rate: the largest learning rate.
        rates: rising over ten steps and falling to zero over the last half, or always the same.
        kept: where the training is kept while it runs; it goes on from there.
        after: is called with the steps made after each of them.
        label: what it is called in a log.
        progress: show a progress bar.
    """
    learned = [one for one in hf.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=rate, weight_decay=0.0)
    done = 0 if kept is None else kept.restored(learned, optimizer)
    with torch.inference_mode(False), torch.enable_grad():
        for step in tqdm(range(steps), desc=label, disable=not progress):
            given = next(lessons)
            if step < done:
                continue
            loss = _loss(hf, given)
            for group in optimizer.param_groups:
                rise, fall = (step + 1) / WARM, 2 * (steps - step) / steps
                group["lr"] = rate * (1.0 if rates == "fixed" else min(1.0, rise, fall))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if kept is not None and kept.due(step + 1):
                kept.written(step + 1, learned, optimizer)
            if step % 25 == 24:
                _log.info("%s: step %d of %d, loss %.3f nats", label, step + 1, steps, loss.item())
            after(step + 1)


def _loss(hf: Any, lessons: Sequence[Lesson]) -> Tensor:
    """The mean cross-entropy of the tokens that are learned."""
    texts = [torch.tensor(one.ids, device=hf.device) for one in lessons]
    rows = [row for row, one in enumerate(lessons) for _ in one.places]
    places = torch.tensor([at for one in lessons for at in one.places], device=hf.device)
    ids = pad_sequence(texts, batch_first=True)
    logits = hf(input_ids=ids).logits[torch.tensor(rows, device=hf.device), places - 1]
    return functional.cross_entropy(logits.float(), ids[rows, places])
