"""The settings of each command, as pydantic models.

A model is also the Python call: ``ProbeConfig(layers="20", seed=1)``. Field names are the flags' names; the
one that pydantic cannot spell (``json``) carries an alias, which is the name used in files and on the command
line.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

__all__ = [
    "COMMANDS",
    "CaptureConfig",
    "CompareConfig",
    "Config",
    "DecodeConfig",
    "DoctorConfig",
    "FolderConfig",
    "ListConfig",
    "PatchConfig",
    "ProbeConfig",
    "ReportConfig",
    "ShowConfig",
]

FLAG_ONLY = frozenset({"trust_remote_code"})
POSITIONAL = frozenset({"prompt", "run", "what"})


def _comma_text(value: Any) -> Any:
    """Accept ``20``, ``"8,12"`` and ``[8, 12]`` for what is written with commas."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return str(value)
    return ",".join(str(part) for part in value) if isinstance(value, list | tuple) else value


def _words(value: Any) -> Any:
    """Accept ``"a,b"`` and ``["a", "b"]`` for a tuple of words."""
    parts = value.split(",") if isinstance(value, str) else value
    return tuple(part.strip() for part in parts if part.strip()) if isinstance(parts, list | tuple) else value


def _absent(value: Any) -> Any:
    return None if value in ("", "null", "~") else value


def _not_boolean(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("a number is needed, not true or false")
    return value


Grammar = Annotated[str, BeforeValidator(_comma_text), Field(min_length=1)]
Words = Annotated[tuple[str, ...], BeforeValidator(_words)]
OptionalWords = Annotated[tuple[str, ...] | None, BeforeValidator(_words)]
Whole = Annotated[int, BeforeValidator(_not_boolean)]
Count = Annotated[int, BeforeValidator(_not_boolean), Field(ge=1)]
OptionalText = Annotated[str | None, BeforeValidator(_absent)]
OptionalCount = Annotated[Count | None, BeforeValidator(_absent)]


def _setting(default: Any, help_text: str, *, allowed: str = "", alias: str | None = None) -> Any:
    return Field(default, description=help_text, json_schema_extra={"allowed": allowed}, alias=alias)


class Config(BaseModel):
    """Hold what every command knows: how it talks."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    as_json: bool = _setting(False, "print one JSON envelope", allowed="true or false", alias="json")
    quiet: bool = _setting(False, "no progress, no notes", allowed="true or false")
    verbose: bool = _setting(False, "more notes, and tracebacks", allowed="true or false")


class PlainConfig(Config):
    """Hold which model, and how it is run, at its own precision."""

    model: str = Field("demo", min_length=1, description="demo, a Hugging Face name, or a folder")
    revision: OptionalText = _setting(None, "branch, tag or commit on the hub")
    weights: Literal["trained", "random", "edited"] = _setting("trained", "which weights of the model")
    backend: Literal["native", "transformer-lens", "nnsight"] = _setting("native", "what runs the hooks")
    device: str = _setting("auto", "where to compute", allowed="auto, cpu, mps, cuda or cuda:0")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = _setting("auto", "arithmetic")
    batch_size: Literal["auto"] | Count = _setting(
        "auto", "prompts at a time", allowed="auto, or a whole number from 1"
    )
    seed: Annotated[Whole, Field(ge=0, lt=2**32)] = _setting(
        0, "seed of every random choice", allowed="a whole number from 0"
    )
    offline: bool = _setting(False, "never use the network", allowed="true or false")
    trust_remote_code: bool = _setting(False, "run code that comes with the model", allowed="true or false")

    @field_validator("device")
    @classmethod
    def _device(cls, value: str) -> str:
        if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", value):
            raise ValueError("not a device")
        return value


class ModelConfig(PlainConfig):
    """Hold which model, at which precision, and how it is run."""

    scheme: str = _setting(
        "none", "precision of the weights", allowed="none, or a name of `interp ls schemes` such as int8"
    )

    @field_validator("scheme")
    @classmethod
    def _scheme(cls, value: str) -> str:
        if not re.fullmatch(r"[a-z0-9]+(-g\d+)?", value):
            raise ValueError("not a scheme")
        return value


class FolderConfig(Config):
    """Hold what a command that leaves a run folder does with it."""

    limit: OptionalCount = _setting(None, "use at most so many prompts", allowed="a whole number from 1")
    out: OptionalText = _setting(None, "the run folder")
    overwrite: bool = _setting(False, "replace the run in --out", allowed="true or false")
    resume: bool = _setting(False, "continue the unfinished run in --out", allowed="true or false")
    dry_run: bool = _setting(False, "print the plan and write nothing", allowed="true or false")
    yes: bool = _setting(False, "answer yes to every question", allowed="true or false")


class RunConfig(ModelConfig, FolderConfig):
    """Hold what a command that reads prompts and leaves a run folder knows."""

    task: OptionalText = _setting(None, "a bundled task")
    data: OptionalText = _setting(None, "a CSV, TSV or JSONL file of text,label[,group]")
    text: bool = _setting(
        True, "keep the prompts' text in the run (--no-text: only its hash)", allowed="true or false"
    )


class ProbeConfig(RunConfig):
    """Hold the settings of ``interp probe``."""

    layers: Grammar = _setting("all", "which layers", allowed="20, 8,12, 8-24:4, -1, 50% or all")
    kind: str = _setting("logistic", "kind of probe")
    position: str = _setting("last", "which token of each prompt", allowed="last, or a token's index")
    controls: Words = _setting(
        ("shuffled", "random-weights", "bag-of-tokens", "majority"),
        "what the probe is measured against",
        allowed="names with commas",
    )
    causal: bool = _setting(
        False, "test whether the model uses what the probe reads", allowed="true or false"
    )
    protocol: OptionalText = _setting(None, "a protocol of concept probing, instead of --task or --data")
    strict: bool = _setting(
        False, "exit with 7 when the audit of the prompts finds a leak", allowed="true or false"
    )
    fail_under: Words = _setting((), "exit with 7 when a metric is lower", allowed="metric=value")


class CaptureConfig(RunConfig):
    """Hold the settings of ``interp capture``."""

    sites: Grammar = _setting("resid_post.*", "which sites")
    positions: str = _setting("last", "which tokens of each prompt", allowed="last, all, or a token's index")


class DecodeConfig(ModelConfig):
    """Hold the settings of ``interp decode``."""

    prompt: str = _setting("", "the prompt to read")
    layer: Grammar = _setting("20", "which layer", allowed="20, -1 or 50%")
    probe: OptionalText = _setting(None, "the folder of a saved Hyperdimensional Probe")
    top: Count = _setting(5, "how many concepts to print", allowed="a whole number from 1")
    questions: OptionalText = _setting(None, "facts, or a file of question,answer, instead of a prompt")
    new_tokens: Count = _setting(4, "tokens to generate for each question", allowed="a whole number from 1")
    limit: OptionalCount = _setting(None, "use at most so many questions", allowed="a whole number from 1")


class PatchConfig(RunConfig):
    """Hold the settings of ``interp patch``."""

    mediators: Words = _setting(("head.*",), "what is replaced", allowed="sites and globs with commas")
    search: str = _setting("exhaustive", "how effects are found")
    metric: str = _setting("logit-diff", "what is measured")
    replacement: str = _setting("interchange", "what a value is replaced with")
    directions: str = _setting("both", "which prompt is patched")
    counterfactual: OptionalText = _setting(None, "which counterfactual of the task")
    misaligned: Literal["refuse", "drop"] = _setting("refuse", "what becomes of pairs that do not line up")
    where: str = _setting("auto", "at which tokens", allowed="auto, all, each, or a token's index")


class CompareConfig(PlainConfig, FolderConfig):
    """Hold the settings of ``interp compare``."""

    schemes: OptionalWords = _setting(None, "at which precisions", allowed="schemes with commas, or none")
    analyses: Words = _setting(
        ("probe", "patch", "recall", "two-hop"), "what is run again", allowed="names with commas, or all"
    )
    other: OptionalText = _setting(
        None, "another checkpoint: demo, a Hugging Face name, or a folder", alias="with"
    )
    with_weights: Literal["trained", "random", "edited"] = _setting(
        "trained", "which weights of the other checkpoint"
    )
    mode: Literal["dense", "packed"] = _setting("dense", "what holds the quantized weights")
    calibration: OptionalText = _setting(None, "a file of texts, one per line, for schemes that need them")


class DoctorConfig(ModelConfig):
    """Hold the settings of ``interp doctor``."""


class ShowConfig(Config):
    """Hold the settings of ``interp show``."""

    run: str = _setting(..., "the run folder")
    verify: bool = _setting(False, "compare every file with its recorded sha256", allowed="true or false")


class ReportConfig(Config):
    """Hold the settings of ``interp report``."""

    run: str = _setting(..., "the run folder")
    out: OptionalText = _setting(None, "where to write the page; default: report.html in the run")


class ListConfig(Config):
    """Hold the settings of ``interp ls``."""

    what: str = _setting(..., "what to list")


COMMANDS: dict[str, type[Config]] = {
    "probe": ProbeConfig,
    "capture": CaptureConfig,
    "decode": DecodeConfig,
    "patch": PatchConfig,
    "compare": CompareConfig,
    "doctor": DoctorConfig,
    "show": ShowConfig,
    "report": ReportConfig,
    "ls": ListConfig,
}
