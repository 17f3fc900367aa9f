"""What several commands do: read the prompts, load the model, say what was chosen."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from interp.cli.session import Session
from interp.config import choose
from interp.errors import ConfigError

if TYPE_CHECKING:
    import pandas

    from interp.config.commands import FolderConfig, ModelConfig, PlainConfig, RunConfig
    from interp.models import Model
    from interp.runs import RunFolder
    from interp.tasks import Labelled

__all__ = [
    "DEFAULT_TASK",
    "certify",
    "claim",
    "load_model",
    "load_plain",
    "model_facts",
    "read_data",
    "read_position",
    "row_table",
    "run_facts",
]

DEFAULT_TASK = "analogy-relation"


def read_data(session: Session, settings: RunConfig) -> Labelled:
    """Read the prompts that --task or --data names; without either, the default task."""
    from interp import tasks

    if settings.data is not None and settings.task is not None:
        raise ConfigError(
            f"--task {settings.task!r} and --data {settings.data!r} exclude each other. Give one of them."
        )
    if settings.data is not None:
        data = tasks.read_labelled(settings.data)
        data = data if settings.limit is None else data.limit(settings.limit, seed=settings.seed)
    else:
        name = choose("--task", settings.task or DEFAULT_TASK, tasks.LABELLED)
        whole = tasks.LABELLED[name].n
        data = tasks.labelled(name, n=min(settings.limit or whole, whole), seed=settings.seed)
    session.note(
        f"data: {data.name}, {len(data):,} prompts, {len(set(data.labels))} labels, "
        f"{len(set(data.groups)):,} groups"
    )
    return data


def claim(session: Session, settings: FolderConfig, command: str, task: str) -> RunFolder:
    """Claim the run folder of a command; at a terminal, ask before a finished run is replaced."""
    from interp.runs import RunFolder
    from interp.runs.integrity import state

    assert session.resolved is not None
    if settings.resume and settings.out is None and not settings.overwrite:
        raise ConfigError("--resume needs --out, the folder of the unfinished run (`interp ls runs`).")
    replaces = settings.overwrite and settings.out is not None and state(Path(settings.out)) == "finished"
    asks = replaces and not settings.yes and sys.stdin.isatty()
    if asks and not click.confirm(f"Replace the run in {settings.out}?", err=True):
        raise ConfigError(f"--overwrite: {settings.out!r} was left as it is. Choose another --out.")
    session.run = RunFolder.create(
        settings.out,
        command,
        session.resolved.configuration,
        origins=session.resolved.origins,
        task=task,
        overwrite=settings.overwrite,
        resume=settings.resume,
    )
    return session.run


def read_position(flag: str, text: str, words: Sequence[str]) -> str | int:
    """Read a position: one of some words, or a token's index."""
    if text in words:
        return text
    try:
        return int(text)
    except ValueError:
        raise ConfigError(
            f"{flag} {text!r} is not a position; allowed: {', '.join(words)}, or an index such as 0 or -2."
        ) from None


def load_model(session: Session, settings: ModelConfig) -> Model:
    """Load the model that the settings name, quantize it if asked, and say what it is."""
    return load_plain(session, settings, settings.scheme)


def load_plain(session: Session, settings: PlainConfig, scheme: str = "none") -> Model:
    """Load the model that the settings name, at a scheme of its own, and say what it is."""
    import interp.models

    model = interp.models.load(
        settings.model,
        weights=settings.weights,
        device=settings.device,
        dtype=settings.dtype,
        revision=settings.revision,
        trust_remote_code=settings.trust_remote_code,
        backend=settings.backend,
    )
    if scheme != "none":
        from interp.quantization import quantize

        model = quantize(model, scheme)
        session.note(f"quantized: {model.quantization!r}")
    session.note(f"model: {model!r}")
    for warning in model.warnings:
        session.warn(warning)
    return model


def certify(session: Session, model: Model) -> dict[str, Any]:
    """Examine the model before it is used; a failed check becomes a warning that the run carries."""
    from interp.models import doctor

    certificate = doctor.examine(model)
    for check in certificate.failures:
        session.warn(
            f"the model fails the check '{check.name}' ({check.detail or check.value}): do not trust "
            f"these numbers"
        )
    return certificate.to_dict()


def model_facts(model: Model) -> dict[str, Any]:
    """Give what ``run.json`` says about a model."""
    return {
        "name": model.name,
        "weights": model.weights,
        "family": model.hf.config.model_type,
        "layers": model.n_layers,
        "width": model.d_model,
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": str(model.device),
        "fingerprint": model.fingerprint,
        "tokenizer_fingerprint": model.tokenizer_fingerprint,
        "scheme": model.scheme,
        "quantization": None if model.quantization is None else model.quantization.to_dict(),
        "commit": getattr(model.hf.config, "_commit_hash", None),
    }


def run_facts(model: Model, data: Labelled, certificate: Any) -> dict[str, Any]:
    """Give what ``run.json`` says about the model and the data, beside the settings."""
    return {
        "model": model_facts(model),
        "data": {
            "name": data.name,
            "description": data.description,
            "source": data.source,
            "n": len(data),
            "labels": len(set(data.labels)),
            "groups": len(set(data.groups)),
            "fingerprint": data.fingerprint,
        },
        "certificate": certificate,
    }


def row_table(data: Labelled, token_ids: Sequence[Sequence[int]], *, keep_text: bool) -> pandas.DataFrame:
    """Give ``data.parquet``: one row per prompt; without the text, its sha256."""
    import pandas

    text = (
        data.texts
        if keep_text
        else [hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest() for text in data.texts]
    )
    return pandas.DataFrame(
        {
            "row": range(len(data)),
            "text" if keep_text else "text_sha256": list(text),
            "label": list(data.labels),
            "group": list(data.groups),
            "split": list(data.splits),
            "token_ids": [list(ids) for ids in token_ids] if keep_text else [[] for _ in token_ids],
            "n_tokens": [len(ids) for ids in token_ids],
        }
    )
