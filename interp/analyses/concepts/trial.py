"""One protocol on one model: its concepts in the model's own terms, and how a probe is fitted and read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from interp.analyses.concepts.one_pass import OnePass
from interp.errors import DataError, ModelError, counted
from interp.lenses.gathering import gathered
from interp.models.model import Model
from interp.models.readout import Readout
from interp.models.tokens import continuations
from interp.tasks.protocols import PROTOCOLS, Item, ProtocolItems
from interp.tasks.world import World
from probes.hyperdimensional import Decodings, HyperdimensionalProbe
from probes.hyperdimensional.retraining import read_retrained
from probes.translation import Moments, fit_translator
from probes.vsa import MAP, Codebook

__all__ = [
    "Trial",
    "by_lens",
    "by_translator",
    "codebook_of",
    "concept_tokens",
    "embedded",
    "embeddings",
    "encoder_of",
    "finals_of",
    "one_first_token",
    "preferred",
    "subject_embeddings",
    "trained_probe",
    "trial_of",
]

PREFIX = "the"
DIMENSION, WIDE, LATER = 4096, 8192, 0.1
"""Of hypervectors; of those that a translation is read by; and what each later token of a name counts there.

Measured on SmolLM2, layer 24, of 89 prompts whose answers were not trained, read by a translator of 818:
names by the mean of their tokens 0.51, by mostly the first 0.55, in 16,384 signs 0.65; by the head 0.62.
"""


def concept_tokens(model: Model, names: Sequence[str]) -> list[tuple[int, ...]]:
    """The tokens of each name as they stand after another word.

    Raises:
        DataError: the model has no tokenizer, or a name is empty, unknown to it, or changes the word before.
    """
    before = model.tokenize([PREFIX]).token_ids[0]
    assert model.tokenizer is not None  # a text was tokenized
    given: Any = {"vocab_size": model.vocab_size, "joint": "blank"}
    try:
        return continuations(PREFIX, before, names, model.tokenizer, **given)
    except DataError as error:
        raise DataError(f"a concept cannot be said by {model.name!r}: {error} Or leave it out.") from None


def one_first_token(tokens: Sequence[Sequence[int]]) -> str:
    """Say how many concepts share their first token with another, which the logit lens cannot tell apart.

    Args:
        tokens: of each concept.
    """
    count = Counter(ids[0] for ids in tokens)
    shared = sum(count[ids[0]] > 1 for ids in tokens)
    if not shared:
        return ""
    return (
        f"{shared} of {counted(len(tokens), 'concept')} begin with the same token as another. The model's "
        "own answers "
        "are compared whole; the logit lens, which reads one token, takes the first of such concepts."
    )


def embeddings(
    model: Model, tokens: Sequence[Sequence[int]], *, later: float = 1.0
) -> Float[torch.Tensor, "concept d_model"]:
    """The mean row of the unembedding matrix over each concept's tokens, in float32 on the CPU.

    Args:
        model: whose matrix.
        tokens: of each concept.
        later: how much each token counts, as a part of the one before.

    Raises:
        ModelError: the matrix is kept elsewhere (accelerate).
    """
    head: Any = model.hf.get_output_embeddings()
    matrix = head.weight.detach()
    if matrix.is_meta:
        raise ModelError(
            f"the unembedding of {model.name!r} is kept on disk or elsewhere (device_map), and a codebook of "
            "embeddings reads its rows. Load the model with 'lm_head' on a device, or use a protocol whose "
            "codebook is random."
        )
    rows = [matrix[torch.tensor(ids, device=matrix.device)].float() for ids in tokens]
    if later == 1.0:
        return torch.stack([one.mean(dim=0).cpu() for one in rows])
    shares = [later ** torch.arange(len(one), device=one.device)[:, None] for one in rows]
    return torch.stack([((one * s).sum(dim=0) / s.sum()).cpu() for one, s in zip(rows, shares, strict=True)])


def by_lens(
    model: Model, states: Float[torch.Tensor, "example d_model"], names: tuple[str, ...]
) -> list[str]:
    """The concept whose first token the model's own final norm and unembedding prefer in each state."""
    tokens = [ids[0] for ids in concept_tokens(model, names)]
    logits = model.unembed(states.to(model.dtype))[:, tokens]
    return [names[at] for at in logits.argmax(dim=1).tolist()]


def by_translator(trial: Trial, states: Float[torch.Tensor, "example d_model"], layer: int) -> list[str]:
    """The concept whose first token is preferred once each state is mapped to the model's own final state.

    The linear map is fitted without labels, on every token of the training prompts but the first; its
    penalty is chosen on the validation prompts.

    Args:
        trial: the prompts and the concepts.
        states: what is read.
        layer: after which they stand.
    """
    model, names = trial.model, trial.codebook.names
    readout = Readout.precise(model.architecture)
    final = readout.normed  # after the last block nothing is left to translate
    if layer < model.n_layers - 1:
        final = fit_translator(*_moments(trial, layer, readout))
    tokens = [ids[0] for ids in concept_tokens(model, names)]
    return [names[at] for at in preferred(readout, final, states, tokens)]


def _moments(trial: Trial, layer: int, readout: Readout) -> tuple[Moments, Moments]:
    """Of a layer's states with the final ones, at every token of training and of validation prompts.

    Where the model was asked first, the states are there already, and the penalty is chosen at the last token
    of validation prompts, which is read: one that is best at every token is too small there.
    """
    if trial.seen is not None and layer in trial.seen.moments:
        rows = [*trial.rows("validation"), *trial.rows("validation-unanswered")]
        return trial.seen.moments[layer], trial.seen.at_end(layer, rows)
    parts = ([tuple(trial.token_ids[row]) for row in trial.rows(part)] for part in ("train", "validation"))
    train, held = (gathered(trial.model, [layer], part, readout).moments[layer] for part in parts)
    return train, held


def preferred(
    readout: Readout,
    final: Callable[[torch.Tensor], torch.Tensor],
    states: Float[torch.Tensor, "example d_model"],
    tokens: Sequence[int],
) -> list[int]:
    """Which of some tokens the head prefers in each state, once it is mapped to a final one.

    Args:
        readout: of the model.
        final: from states to final states, after the norm.
        states: what is read.
        tokens: the ones to choose from.

    Returns:
        Their places among ``tokens``.
    """
    home, found = readout.architecture.device, list[int]()
    for part in readout.parts(len(states)):
        logits = readout.of_normed(final(states[part].to(home, readout.dtype)))
        found += logits[:, list(tokens)].argmax(dim=1).tolist()
    return found


def subject_embeddings(trial: Trial) -> Float[torch.Tensor, "example d_model"]:
    """The mean row of the model's input embedding over the tokens of each prompt's subject, in float32.

    It is what a reader knows that sees no layer at all. That it tells an answer apart that was never trained
    means that the embeddings themselves hold the relation.
    """
    return embedded(trial.model, [item.subject for item in trial.drawn.items])


def embedded(model: Model, subjects: Sequence[str]) -> Float[torch.Tensor, "example d_model"]:
    """The mean row of a model's input embedding over the tokens of each of some words, in float32."""
    matrix: Any = model.hf.get_input_embeddings()
    tokens = dict(zip(names := list(dict.fromkeys(subjects)), concept_tokens(model, names), strict=True))
    rows = {
        name: matrix.weight.detach()[torch.tensor(ids, device=matrix.weight.device)].float().mean(dim=0).cpu()
        for name, ids in tokens.items()
    }
    return torch.stack([rows[name] for name in subjects])


def codebook_of(
    model: Model,
    names: Sequence[str],
    source: str,
    *,
    dimension: int = 4096,
    seed: int = 0,
    later: float = 1.0,
) -> Codebook:
    """The codebook of a protocol: ``embeddings`` of the model's unembedding, or ``random``.

    ``later`` is for :func:`embeddings`.
    """
    if source == "random":
        return Codebook.random(MAP(dimension), names, seed=seed)
    rows = embeddings(model, concept_tokens(model, names), later=later)
    return Codebook.from_embeddings(MAP(dimension), names, rows, seed=seed)


def encoder_of(codebook: Codebook, asked: str = "auto") -> str:
    """The encoder of a codebook: among embeddings where it has them, a softmax over hypervectors otherwise.

    Args:
        codebook: the concepts.
        asked: a key of ``probes.hyperdimensional.ENCODERS``, which is taken as it is, or ``auto``.
    """
    if asked != "auto":
        return asked
    return "linear" if codebook.embeddings is None else "embedding"


def finals_of(
    model: Model, states: Float[torch.Tensor, "example d_model"]
) -> Float[torch.Tensor, "example d_model"]:
    """The final states (after the norm) of states after the last block, in float32 on the CPU."""
    readout = Readout.precise(model.architecture)
    home = readout.architecture.device
    with torch.no_grad():
        parts = [readout.normed(states[part].to(home, readout.dtype)) for part in readout.parts(len(states))]
    return torch.cat(parts).to("cpu", torch.float32)


def _at(taught: Sequence[str] | torch.Tensor, rows: Sequence[int]) -> list[str] | torch.Tensor:
    """Some rows of what is taught."""
    return taught[list(rows)] if isinstance(taught, torch.Tensor) else [taught[row] for row in rows]


@dataclass(frozen=True, eq=False)
class Trial:
    """What every fit of one analysis shares.

    Attributes:
        model: what is read.
        drawn: the prompts.
        codebook: the concepts.
        token_ids: the tokens of each prompt.
        encoder: the kind of encoder.
        seed: of every fit.
        regularisation: the penalty chosen for the probe, which its controls share; None before.
        finals: ``[example d_model]``, the model's own final states, which ``encoder="translator"`` learns in
            place of answers; None where they were not captured.
        seen: the pass that asked the model for its answers; None where it was not asked.
    """

    model: Model
    drawn: ProtocolItems
    codebook: Codebook
    token_ids: Sequence[Sequence[int]]
    encoder: str
    seed: int
    regularisation: float | None = None
    finals: Float[torch.Tensor, "example d_model"] | None = None
    seen: OnePass | None = None

    def rows(self, part: str) -> list[int]:
        """The rows of a part."""
        return [row for row, item in enumerate(self.drawn.items) if item.part == part]

    def learned(self, part: str) -> list[int]:
        """The rows of a part that the encoder learns from: a translator, of prompts answered wrong too."""
        wrong = self.rows(f"{part}-unanswered") if self.encoder == "translator" else []
        return [*self.rows(part), *wrong]

    @property
    def test(self) -> tuple[Item, ...]:
        """The test items."""
        return self.drawn.part("test")

    @property
    def facts(self) -> list[str]:
        """The fact of each test item: what intervals are over."""
        return [item.fact for item in self.test]

    @property
    def alike(self) -> str:
        """How many concepts begin with the same token; "" where none do."""
        return one_first_token(concept_tokens(self.model, self.codebook.names))

    @property
    def gold(self) -> list[str]:
        """The answer of each test item."""
        return [item.answer for item in self.test]

    def fit(self, X: Any, *, codebook: Codebook | None = None) -> HyperdimensionalProbe:
        """Fit on the training rows, choosing on the validation rows.

        Args:
            X: one row per prompt.
            codebook: another codebook.
        """
        taught = self._taught([item.answer for item in self.drawn.items])
        train, held = self.learned("train"), self.learned("validation")
        later = (X[held], _at(taught, held))
        return self._probe(codebook).fit(X[train], _at(taught, train), validation=later)

    def settled(self, X: Any) -> tuple[HyperdimensionalProbe, Trial]:
        """Fit the probe, and give it with this trial at the penalty that it chose: its controls share it."""
        probe = self.fit(X)
        return probe, replace(self, regularisation=probe.fitted_.notes["regularisation"])

    def read_retrained(self, X: Any, answers: Sequence[Sequence[str]]) -> list[list[str]]:
        """Fit once for each list of answers, and give what is read in the test rows.

        Args:
            X: one row per prompt.
            answers: what to train and choose on, instead of the true answers; one per prompt. A translator,
                which learns no answers, is given the final states of prompts that have them.
        """
        parts = (self.learned("train"), self.learned("validation"), self.rows("test"))
        return read_retrained(self._probe(None), X, (self._taught(names) for names in answers), parts)

    def _taught(self, answers: Sequence[str]) -> Sequence[str] | torch.Tensor:
        """What the encoder learns where these are the answers.

        For a translator that is each prompt's own final state where its answer is the true one, and that of a
        prompt with the answer otherwise, of the same part where there is one.
        """
        if self.encoder != "translator":
            return answers
        assert self.finals is not None
        owners: dict[tuple[str, str], list[int]] = {}
        for row, item in enumerate(self.drawn.items):
            for part in (item.part, ""):
                owners.setdefault((part, item.answer), []).append(row)
        taken = []
        for row, (item, name) in enumerate(zip(self.drawn.items, answers, strict=True)):
            found = owners.get((item.part, name)) or owners[("", name)]
            taken.append(row if item.answer == name else found[row % len(found)])
        return self.finals[taken]

    def _probe(self, codebook: Codebook | None) -> HyperdimensionalProbe:
        return HyperdimensionalProbe(
            codebook or self.codebook,
            seed=self.seed,
            encoder=self.encoder,
            regularisation=self.regularisation,
        )

    def decode(self, probe: HyperdimensionalProbe, X: Any) -> Decodings:
        """Read the test rows."""
        return probe.decode(X[self.rows("test")])

    def right(
        self, names: Sequence[str], answers: Sequence[str] | None = None
    ) -> Int[np.ndarray, " example"]:
        """1 for each test prompt whose answer is the name that was read."""
        gold = self.gold if answers is None else answers
        return np.array([int(a == b) for a, b in zip(names, gold, strict=True)], dtype=np.int64)


def trial_of(
    model: Model,
    drawn: ProtocolItems,
    source: str,
    token_ids: Sequence[Sequence[int]],
    encoder: str = "auto",
    *,
    dimension: int | None = None,
    seed: int = 0,
) -> Trial:
    """The trial of some prompts, with the codebook that suits its encoder.

    Args:
        model: what is read.
        drawn: the prompts and the concepts.
        source: of the codebook: ``embeddings`` or ``random``.
        token_ids: of each prompt.
        encoder: a key of ``probes.hyperdimensional.ENCODERS``; "auto" takes one that learns labels.
        dimension: of the hypervectors; the encoder's own where left out.
        seed: of the codebook and of every fit.
    """
    translates = encoder == "translator"
    codebook = codebook_of(
        model,
        drawn.concepts,
        source,
        dimension=dimension or (WIDE if translates else DIMENSION),
        seed=seed,
        later=LATER if translates else 1.0,
    )
    return Trial(model, drawn, codebook, token_ids, encoder_of(codebook, encoder), seed)


def trained_probe(
    model: Model,
    layer: int,
    *,
    seed: int = 0,
    protocol: str = "concept-disjoint",
    dimension: int = 4096,
    n: int | None = None,
    world: World | None = None,
) -> HyperdimensionalProbe:
    """Train the probe of a protocol at one layer for any prompt, without testing it.

    Args:
        model: what is read.
        layer: the block whose ``resid_post`` is read, at the last token.
        seed: of the prompts, the codebook and the fit.
        protocol: a key of ``PROTOCOLS``.
        dimension: of the hypervectors.
        n: prompts for training and validation together, at most; the protocol's own where left out.
        world: the facts; the bundled ones where left out.
    """
    row = PROTOCOLS[protocol]
    train, held, _ = row.sizes
    fewer = None
    if n is not None:
        fewer = (max(1, n * train // (train + held)), max(1, n * held // (train + held)), 0)
    drawn = row.items(seed=seed, sizes=fewer, world=world)
    site = f"resid_post.{layer}"
    tokens = model.tokenize([item.text for item in drawn.items])
    states = model.capture(tokens, [site], "last", device="cpu", dtype=torch.float32)[site]
    codebook = codebook_of(model, drawn.concepts, row.codebook, dimension=dimension, seed=seed)
    return Trial(model, drawn, codebook, tokens.token_ids, encoder_of(codebook), seed).fit(states)
