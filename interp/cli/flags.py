"""Every flag as one row. The models of ``interp.config`` say the same; a test holds the two together.

Rows are read before pydantic is loaded, so that ``--help`` stays quick.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FLAGS", "GROUPS", "KEYS", "Flag"]

GROUPS = ("What", "Model", "Run", "Output")


@dataclass(frozen=True)
class Flag:
    """Describe one flag.

    Attributes:
        names: its spellings.
        help: one line.
        group: the heading under which help shows it.
        default: the default as text, for help.
        metavar: what stands for the value.
        form: ``value``, ``many`` (may be repeated) or ``switch`` (takes no value).
    """

    names: tuple[str, ...]
    help: str
    group: str
    default: str = ""
    metavar: str = "TEXT"
    form: str = "value"


FLAGS: dict[str, Flag] = {
    "layers": Flag(
        ("--layers", "--layer"),
        "Layers, counted from 0: 20   8,12   8-24:4   -1   50%   all",
        "What",
        "all",
        "LAYERS",
        "many",
    ),
    "layer": Flag(("--layer",), "The layer to read, counted from 0: 20   -1   50%.", "What", "20", "LAYER"),
    "task": Flag(
        ("--task",),
        "A bundled task (`interp ls tasks`; for patch `interp ls pairs`).",
        "What",
        "analogy-relation; capitals for patch",
        "NAME",
    ),
    "data": Flag(
        ("--data",), "Your own prompts: a CSV, TSV or JSONL file of text,label[,group].", "What", "", "FILE"
    ),
    "protocol": Flag(
        ("--protocol",),
        "Read concepts with a Hyperdimensional Probe (`interp ls protocols`).",
        "What",
        "",
        "NAME",
    ),
    "probe": Flag(
        ("--probe",), "The folder of a saved probe; one is trained where left out.", "What", "", "FOLDER"
    ),
    "top": Flag(("--top",), "How many concepts to print.", "What", "5", "N"),
    "kind": Flag(("--kind",), "Kind of probe (`interp ls probes`).", "What", "logistic", "NAME"),
    "position": Flag(
        ("--position",),
        "The token to read in each prompt: last, or an index (-2 is the second last).",
        "What",
        "last",
        "WHICH",
    ),
    "sites": Flag(
        ("--sites",),
        "Sites to save, globs allowed (`interp ls sites`).",
        "What",
        "resid_post.*",
        "SITES",
        "many",
    ),
    "positions": Flag(
        ("--positions",), "Tokens to save of each prompt: last, all, or an index.", "What", "last", "WHICH"
    ),
    "controls": Flag(
        ("--controls",),
        "What the probe is measured against.",
        "What",
        "shuffled,random-weights,bag-of-tokens,majority",
        "NAMES",
    ),
    "fail_under": Flag(
        ("--fail-under",),
        "Exit with 7 when a metric is lower, such as accuracy=0.8.",
        "What",
        "",
        "METRIC=VALUE",
        "many",
    ),
    "causal": Flag(
        ("--causal",),
        "Change the state along the probe's directions: does the model use what is read?",
        "What",
        form="switch",
    ),
    "strict": Flag(
        ("--strict",), "Exit with 7 when the audit of the prompts finds a leak.", "What", form="switch"
    ),
    "questions": Flag(
        ("--questions",),
        "Read before and after answering: facts, or a file of question,answer.",
        "What",
        "",
        "FILE",
    ),
    "new_tokens": Flag(("--new-tokens",), "Tokens to generate for each question.", "What", "4", "N"),
    "mediators": Flag(
        ("--mediators",), "What is replaced (`interp ls mediators`).", "What", "head.*", "SITES"
    ),
    "search": Flag(
        ("--search",), "How effects are found (`interp ls searches`).", "What", "exhaustive", "NAME"
    ),
    "metric": Flag(("--metric",), "What is measured (`interp ls metrics`).", "What", "logit-diff", "NAME"),
    "replacement": Flag(
        ("--replacement",),
        "What a value is replaced with (`interp ls replacements`).",
        "What",
        "interchange",
        "NAME",
    ),
    "directions": Flag(("--directions",), "both, denoising or noising.", "What", "both", "WHICH"),
    "counterfactual": Flag(("--counterfactual",), "Which counterfactual of the task.", "What", "", "NAME"),
    "misaligned": Flag(
        ("--misaligned",), "Pairs of --data that do not line up: refuse or drop.", "What", "refuse", "WHICH"
    ),
    "where": Flag(("--where",), "At which tokens: auto, all, each, or an index.", "What", "auto", "WHICH"),
    "schemes": Flag(
        ("--schemes", "--scheme"),
        "Precisions (`interp ls schemes`), or none.",
        "What",
        "int8,int4; none with --with",
        "NAMES",
        "many",
    ),
    "analyses": Flag(
        ("--analyses",),
        "What is run again (`interp ls analyses`), or all.",
        "What",
        "probe,patch,recall,two-hop",
        "NAMES",
        "many",
    ),
    "with": Flag(("--with",), "Another checkpoint of the same tokenizer to compare.", "What", "", "MODEL"),
    "with_weights": Flag(("--with-weights",), "Which weights of it.", "What", "trained", "WHICH"),
    "mode": Flag(
        ("--mode",),
        "dense (the scheme's numbers in the model's own modules) or packed (the library's modules).",
        "What",
        "dense",
        "WHICH",
    ),
    "calibration": Flag(
        ("--calibration",),
        "Texts, one per line, for schemes that need them; the bundled model has its own.",
        "What",
        "",
        "FILE",
    ),
    "limit": Flag(("--limit",), "Use so many prompts (compare: items per analysis).", "What", "", "N"),
    "model": Flag(
        ("--model",), "demo (bundled), a Hugging Face name, or a folder.", "Model", "demo", "MODEL"
    ),
    "revision": Flag(("--revision",), "Branch, tag or commit on the hub.", "Model", "", "REV"),
    "weights": Flag(
        ("--weights",),
        "trained, random (same architecture, untrained) or edited (demo only).",
        "Model",
        "trained",
        "WHICH",
    ),
    "backend": Flag(
        ("--backend",), "What runs the hooks: native, transformer-lens or nnsight.", "Model", "native", "NAME"
    ),
    "scheme": Flag(("--scheme",), "Precision of the weights: none, or a scheme.", "Model", "none", "NAME"),
    "device": Flag(("--device",), "auto, cpu, mps, cuda or cuda:N.", "Model", "auto", "DEVICE"),
    "dtype": Flag(("--dtype",), "Arithmetic: auto, float32, bfloat16 or float16.", "Model", "auto", "DTYPE"),
    "batch_size": Flag(("--batch-size",), "Prompts at a time: auto or a number.", "Model", "auto", "N"),
    "offline": Flag(("--offline",), "Never use the network.", "Model", form="switch"),
    "trust_remote_code": Flag(
        ("--trust-remote-code",),
        "Run Python code that comes with the model. By this flag alone.",
        "Model",
        form="switch",
    ),
    "seed": Flag(("--seed",), "Seed of every random choice.", "Run", "0", "N"),
    "out": Flag(("--out",), "The folder or file to write.", "Run", "", "PATH"),
    "overwrite": Flag(("--overwrite",), "Replace the run in --out.", "Run", form="switch"),
    "resume": Flag(("--resume",), "Continue the unfinished run in --out.", "Run", form="switch"),
    "dry_run": Flag(
        ("--dry-run",), "Print the plan (tokens, memory, disk) and write nothing.", "Run", form="switch"
    ),
    "text": Flag(
        ("--text/--no-text",),
        "Keep the prompts' text in the run, or only its hash.",
        "Run",
        "--text",
        form="switch",
    ),
    "yes": Flag(("--yes",), "Answer yes to every question.", "Run", form="switch"),
    "verify": Flag(("--verify",), "Compare every file with its recorded sha256.", "Run", form="switch"),
    "json": Flag(("--json",), "Print one JSON envelope instead of tables.", "Output", form="switch"),
    "quiet": Flag(("-q", "--quiet"), "No progress, no notes.", "Output", form="switch"),
    "verbose": Flag(("-v", "--verbose"), "More notes, and tracebacks.", "Output", form="switch"),
    "config": Flag(("--config",), "Settings from a YAML file, or from a run's run.json.", "Run", "", "FILE"),
    "set": Flag(("--set",), "One setting, such as --set seed=1.", "Run", "", "KEY=VALUE", "many"),
}

_MODEL = (
    "model",
    "revision",
    "weights",
    "backend",
    "scheme",
    "device",
    "dtype",
    "batch_size",
    "offline",
    "trust_remote_code",
    "seed",
)
_PLAIN = tuple(key for key in _MODEL if key != "scheme")
_FOLDER = ("out", "overwrite", "resume", "dry_run", "yes")
_RUN = ("out", "overwrite", "resume", "dry_run", "text", "yes")
_GIVEN = ("config", "set")
_TALK = ("json", "quiet", "verbose")

KEYS: dict[str, tuple[str, ...]] = {
    "probe": (
        "layers",
        "task",
        "data",
        "protocol",
        "kind",
        "position",
        "controls",
        "causal",
        "strict",
        "fail_under",
        "limit",
        *_MODEL,
        *_RUN,
        *_GIVEN,
        *_TALK,
    ),
    "capture": ("sites", "positions", "task", "data", "limit", *_MODEL, *_RUN, *_GIVEN, *_TALK),
    "decode": ("layer", "probe", "top", "questions", "new_tokens", "limit", *_MODEL, *_GIVEN, *_TALK),
    "patch": (
        "mediators",
        "search",
        "task",
        "data",
        "counterfactual",
        "metric",
        "replacement",
        "directions",
        "misaligned",
        "where",
        "limit",
        *_MODEL,
        *_RUN,
        *_GIVEN,
        *_TALK,
    ),
    "compare": (
        "schemes",
        "analyses",
        "with",
        "with_weights",
        "mode",
        "calibration",
        "limit",
        *_PLAIN,
        *_FOLDER,
        *_GIVEN,
        *_TALK,
    ),
    "doctor": (*_MODEL, *_GIVEN, *_TALK),
    "show": ("verify", *_TALK),
    "report": ("out", *_TALK),
    "ls": _TALK,
}
"""Command -> its flags, in the order help shows them."""
