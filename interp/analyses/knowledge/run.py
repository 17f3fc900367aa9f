"""The analysis ``recall``: are facts known, and which neurons and layers say so?"""

from __future__ import annotations

from collections.abc import Sequence

from interp.analyses.knowledge.answering import Answering, answering
from interp.analyses.knowledge.inside import Inside, inside
from interp.analyses.knowledge.questions import OwnFacts, ask
from interp.analyses.provenance import about, earlier
from interp.errors import ConfigError
from interp.models.loading import ModelLike, as_model
from interp.results.measured import FindingsResult

__all__ = ["recall"]

THRESHOLDS = ("per-prompt", "pooled")


def recall(
    model: ModelLike,
    *,
    reference: FindingsResult | None = None,
    n: int = 200,
    seed: int = 0,
    data: OwnFacts | None = None,
    relations: Sequence[str] | None = None,
    threshold: str = "per-prompt",
    top: int = 300,
    prompts: int = 24,
) -> FindingsResult:
    """Ask one-hop facts, and find what raises the log-probability of the answers.

    A neuron's importance is ``log p(w | base + v) - log p(w | base)``, read through the final norm and head,
    with ``v`` what the neuron writes and ``base`` the stream that enters the FFN (Yu and Ananiadou 2024,
    arXiv 2312.12141; Wang et al. 2025, arXiv 2505.13963, knowledge memorization analysis).

    Args:
        model: what is run.
        reference: the same analysis of another model, whose top neurons and threshold are taken; itself where
            left out.
        n: how many questions, relations in equal parts.
        seed: of the draw, and of the wrong answers that are asked about too.
        data: your own questions: prompts labelled with their answers, or (prompt, answer[, relation]).
        relations: which of the bundled relations; four of them where left out.
        threshold: the k-th best neuron of each prompt, or ``pooled`` over prompts.
        top: k, at most a tenth of all neurons.
        prompts: for how many of the questions neurons are measured.

    Returns:
        Accuracy (against always saying the relation's most frequent answer), log-probability of the answer in
        nats (against other answers to the relation), neurons above the threshold, overlap and rank
        correlation of neurons, accuracy by relation, and what attention and FFN of each layer add, in
        nats. Further tables: ``relations`` with losses from the reference, ``drops`` of the relations that
        the reference knows (nearly) all of and of the others, ``neurons``, and ``layers`` with all layers and
        what they add for a wrong answer.

    Raises:
        ConfigError: an option out of range, or a reference that asked other questions.
        DataError: no question can be asked of this tokenizer.
        SiteError: the model's final norm is unknown.
    """
    _check(threshold, top, prompts)
    model = as_model(model)
    questions = ask(model, data, relations, n=n, seed=seed)
    key = {"questions": questions.fingerprint, "top": top, "prompts": prompts, "seed": seed}
    before = None if reference is None else _same(reference, key)
    answers = answering(model, questions)
    within = inside(
        model,
        questions,
        questions.wrong(seed),
        top=top,
        prompts=prompts,
        reference=None if before is None else before[1],
    )
    known, other = (answers, within) if before is None else before
    found = (
        *answers.overall(),
        *within.neuron_findings(other, threshold),
        *answers.by_relation(),
        *within.curves(),
    )
    base = "resid_pre" if model.architecture.parallel else "resid_mid"
    n_asked = len(questions.asked)
    return FindingsResult(
        analysis="recall",
        about=about(model, {"n": n_asked, "prompts": prompts, "top": top, "threshold": threshold}),
        asked=f"Which facts does {model.name} know, and which neurons and layers say so?",
        how=(
            f"{n_asked:,} questions of one hop were asked. Neurons were measured in {min(prompts, n_asked)} "
            f"of them: what each adds to the answer's log-probability when it is added to {base}.",
        ),
        found=found,
        more=(*answers.tables(known), *within.tables(other, threshold)),
        state={"key": key, "answers": answers, "inside": within},
        seed=seed,
        warnings=(*model.warnings, *questions.notes, *within.missing),
    )


def _check(threshold: str, top: int, prompts: int) -> None:
    if threshold not in THRESHOLDS:
        raise ConfigError(f"threshold {threshold!r} asked; use {' or '.join(THRESHOLDS)}.")
    if top < 1 or prompts < 1:
        raise ConfigError(f"top={top} neurons of prompts={prompts} asked; ask for at least 1 of each.")


def _same(reference: FindingsResult, key: dict[str, object]) -> tuple[Answering, Inside]:
    """Take the reference's numbers.

    Raises:
        ConfigError: of another analysis, without state, or made with other questions or options.
    """
    theirs = earlier(reference, "recall", "key")
    if other := [name for name, value in key.items() if theirs[name] != value]:
        raise ConfigError(
            f"recall: the reference was made with other {' and '.join(other)}. Use the same data, n, seed "
            "and options for both, and models that share a tokenizer."
        )
    return reference.state["answers"], reference.state["inside"]
