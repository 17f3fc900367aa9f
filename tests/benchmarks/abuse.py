"""What is no kill: full disks, writers, flipped bits, wrong calls, faults in passes, memory, threads."""

from __future__ import annotations

import errno
import gc
import io
import json
import os
import random
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

from tests.benchmarks.kills import COMMANDS, Row, forked, numbers, resumed, warmed

__all__ = ["CHECKS"]

SECONDS = 20.0
"""A wrong call ends within."""


def full_disk(root: Path, scale: float) -> Iterator[Row]:
    """Say at a random file operation that the disk is full: one line, a documented code, nothing left."""

    def full() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for name, (arguments, _) in COMMANDS.items():
        plain = root / f"plain-{name}"
        warmed(arguments, root / f"here-{name}")
        plain.mkdir()
        code, operations = forked((*arguments, "--out", "run"), plain)
        wanted, failures, draw = numbers(plain / "run"), [], random.Random(f"full {name}")
        times = max(1, round(5 * scale))
        for trial in range(times):
            folder = root / f"full-{name}-{trial}"
            folder.mkdir()
            at = draw.randint(1, operations)
            code, _ = forked((*arguments, "--out", "run"), folder, operation=at, fault=full)
            said = (root / f"{folder.name}.said").read_text(errors="replace")
            left = [one.name for one in folder.rglob(".*") if one.name != ".walks"]
            if code not in (0, 2, 5, 6) or "Traceback" in said or "internal error" in said:
                failures.append(f"operation {at}: exit {code}: {said.strip().splitlines()[-1:]}")
            elif left:
                failures.append(f"operation {at}: left {left}")
            elif code and (why := resumed(arguments, folder, wanted)):
                failures.append(f"operation {at}: {why}")
        yield Row("disk full", name, times, tuple(failures))


def two_writers(root: Path, scale: float) -> Iterator[Row]:
    """Start a command twice at once with one --out: one is refused, and the other's run is whole."""
    arguments, _ = COMMANDS["capture"]
    plain = root / "plain"
    plain.mkdir()
    forked((*arguments, "--out", "run"), plain)
    wanted, failures = numbers(plain / "run"), []
    times = max(1, round(10 * scale))
    for trial in range(times):
        folder = root / f"two-{trial}"
        folder.mkdir()
        codes: list[int] = []

        def other(_: int, folder: Path = folder, codes: list[int] = codes) -> None:
            codes.append(forked((*arguments, "--out", "run"), folder)[0])

        codes.append(forked((*arguments, "--out", "run"), folder, meanwhile=other)[0])
        if sorted(codes) != [0, 2] or numbers(folder / "run") != wanted:
            failures.append(f"exit codes {codes}")
    yield Row("two writers", "one --out", times, tuple(failures))


def tampering(root: Path, scale: float) -> Iterator[Row]:
    """Flip one bit of a random file of each kind of artefact: reading it back is refused."""
    from interp.errors import InterpError
    from probes.cards import ProbeFileError

    for kind, (folder, read) in _artefacts(root).items():
        files = sorted(
            one
            for one in folder.rglob("*")
            if one.is_file() and one.stat().st_size and one.suffix not in (".md", ".html")
        )
        draw, failures, times = random.Random(kind), [], max(1, round(25 * scale))
        for _ in range(times):
            file = draw.choice(files)
            content = file.read_bytes()
            at = draw.randrange(len(content))
            changed = bytearray(content)
            changed[at] ^= 1 << draw.randrange(8)
            file.write_bytes(bytes(changed))
            try:
                read()
                failures.append(f"{file.relative_to(folder)}: byte {at} of {len(content)} is not noticed")
            except (InterpError, ProbeFileError):
                pass
            except Exception as error:  # anything else is a failure too
                failures.append(f"{file.relative_to(folder)}: {type(error).__name__}: {error}")
            file.write_bytes(content)
        read()
        yield Row("one bit flipped", kind, times, tuple(failures))


def _artefacts(root: Path) -> dict[str, tuple[Path, Callable[[], object]]]:
    """Folders of every kind that is saved, each with what reads it back."""
    import torch

    import interp
    from interp import results, runs, steering
    from interp.store import ActivationStore
    from probes import LogisticProbe
    from probes.base import load as load_probe

    model = interp.load("demo")
    texts = [f"the capital of {name} is" for name in ("France", "Japan", "Italy", "Spain")] * 4
    acts = model.capture(texts, ["resid_post.8", "resid_post.20"])
    acts.save(root / "activations")
    with ActivationStore(root / "store") as store:
        store.append(acts)
        store.append(acts)
    x = acts["resid_post.20"]
    probe = LogisticProbe(seed=0).fit(
        x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)), ["a", "b", "c", "d"] * 4
    )
    probe.save(root / "probe")
    own = root / "run"
    own.mkdir()
    forked((*COMMANDS["patch"][0], "--out", "run"), own)
    found: dict[str, tuple[Path, Callable[[], object]]] = {
        "run": (own / "run", lambda: runs.verify(own / "run")),
        "result": (own / "run" / "result", lambda: results.load(own / "run" / "result")),
        "activations": (
            root / "activations",
            lambda: [*interp.Activations.load(root / "activations").items()],
        ),
        "store": (root / "store", lambda: ActivationStore(root / "store").verify()),
        "probe": (root / "probe", lambda: load_probe(root / "probe")),
    }
    other = [f"the currency of {name} is" for name in ("France", "Japan", "Italy", "Spain")]
    steering.fit(model, texts[:4], other, "resid_post.20").save(root / "vector")
    found["steering vector"] = (root / "vector", lambda: steering.Vector.load(root / "vector"))
    return found


def wrong_calls(root: Path, scale: float) -> Iterator[Row]:
    """Make wrong calls: each ends in time with its documented code and one line, and leaves nothing."""
    from interp.cli import main
    from tests.interp.cli.test_bad_input import CALLS
    from tests.tiny import build, tokenizer

    place = root / "place"
    build("llama").save_pretrained(place / "tiny")
    tokenizer().save_pretrained(place / "tiny")
    rows = [f"w{n % 60:02d} w{n % 7:02d} w{n % 4:02d},{'ab'[n % 2]},g{n // 4}" for n in range(160)]
    (place / "words.csv").write_text("\n".join(["text,label,group", *rows]))
    names = {"TINY": str(place / "tiny"), "DATA": str(place / "words.csv")}
    calls: dict[str, tuple[Callable[[], None] | None, tuple[str, ...], int]] = {
        name: (before, call, code) for name, (before, call, code, _) in CALLS.items()
    }
    calls |= _damaged_files(place)
    failures, longest = [], 0.0
    for number, (name, (before, call, code)) in enumerate(calls.items()):
        folder = root / f"call-{number}"
        folder.mkdir()
        os.chdir(folder)
        if before is not None:
            before()
        there = sorted(one.as_posix() for one in Path().rglob("*"))
        out, err, began = io.StringIO(), io.StringIO(), time.monotonic()
        with redirect_stdout(out), redirect_stderr(err):
            found = main([names.get(one, one) for one in call])
        seconds = time.monotonic() - began
        longest = max(longest, seconds)
        said = re.findall(r"^(?:\w*Error|internal error): .*$", err.getvalue(), re.MULTILINE)
        wrong = [
            f"exit {found} for {code}" if (found != code if code else found not in (2, 3, 4, 6)) else "",
            "" if len(said) == 1 and "internal" not in said[0] else f"said {said or err.getvalue()[-120:]}",
            "a traceback" if "Traceback" in err.getvalue() else "",
            "" if sorted(one.as_posix() for one in Path().rglob("*")) == there else "left files",
            "" if seconds < SECONDS else f"{seconds:.0f} s",
            "" if len(err.getvalue()) < 4000 else "a long line",
        ]
        if any(wrong):
            failures.append(f"{name}: {', '.join(filter(None, wrong))}")
        os.chdir(root)
    yield Row(
        "wrong call", "the command line", len(calls), tuple(failures), f"the longest took {longest:.1f} s"
    )


def _damaged_files(place: Path) -> dict[str, tuple[Callable[[], None] | None, tuple[str, ...], int]]:
    """Files of prompts and pairs, and models, that are damaged in a way of their own; any documented code."""
    files: dict[str, bytes] = {
        "columns.csv": b"a,b\n1,2\n",
        "bom16.csv": "text,label\na,b\n".encode("utf-16"),
        "quote.csv": b'text,label\n"a,b\n',
        "semicolon.csv": b"text;label\na;b\n",
        "deep.jsonl": b"[" * 100_000 + b"\n",
        "digits.jsonl": b'{"text": "w01", "label": ' + b"1" * 5000 + b"}\n",
        "twice.jsonl": b'{"text": "a", "text": "b", "label": "x"}\n',
        "half.jsonl": b'{"text": "\\ud83d", "label": "x"}\n',
        "number.jsonl": b"7\n",
        "infinite.jsonl": b'{"text": Infinity, "label": "x"}\n',
        "message.jsonl": b'{"messages": [{"role": "user"}], "label": "x"}\n',
        "roles.jsonl": b'{"messages": "hello", "label": "x"}\n',
        "torn.parquet": b"PAR1\x00\x00PAR1",
        "text.parquet": b"text,label\na,b\n",
        "empty.jsonl": b"",
        "blank.csv": b"\n\n\n",
    }
    found: dict[str, tuple[Callable[[], None] | None, tuple[str, ...], int]] = {}
    for name, content in files.items():
        for command in ("probe", "capture"):
            path = place / name
            path.write_bytes(content)
            found[f"{command} of {name}"] = (None, (command, "--model", "TINY", "--data", str(path)), 0)
    pairs: dict[str, bytes] = {
        "answers.jsonl": b'{"clean": "w01", "corrupt": "w02", "answer": 7, "foil": "w03"}\n',
        "nested.jsonl": b'{"clean": "w01", "corrupt": "w02", "answer": {"a": 1}, "foil": "w03"}\n',
        "short.jsonl": b'{"clean": "w01 w02", "corrupt": "w02", "answer": "w03", "foil": "w04"}\n',
        "missing.jsonl": b'{"clean": "w01", "answer": "w03", "foil": "w04"}\n',
    }
    for name, content in pairs.items():
        (place / name).write_bytes(content)
        found[f"patch of {name}"] = (None, ("patch", "--model", "TINY", "--data", str(place / name)), 0)
    weights = (place / "tiny" / "model.safetensors").read_bytes()
    models: dict[str, tuple[str, bytes]] = {
        "empty weights": ("model.safetensors", b""),
        "cut weights": ("model.safetensors", weights[: len(weights) // 2]),
        "no weights": ("model.safetensors", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "),
        "broken tokenizer": ("tokenizer.json", b"{"),
        "broken configuration": ("config.json", b"[]"),
        "no heads": ("config.json", json.dumps({**_config(place), "num_attention_heads": 0}).encode()),
        "an activation of no name": (
            "config.json",
            json.dumps({**_config(place), "hidden_act": "x"}).encode(),
        ),
    }
    for name, (file, content) in models.items():
        folder = place / name.replace(" ", "-")
        shutil.copytree(place / "tiny", folder)
        (folder / file).write_bytes(content)
        found[f"a model with {name}"] = (None, ("probe", "--model", str(folder), "--data", "DATA"), 0)
    return found


def _config(place: Path) -> dict[str, Any]:
    return json.loads((place / "tiny" / "config.json").read_text())


def faults(root: Path, scale: float) -> Iterator[Row]:
    """Raise in a random module of a forward: no hook, flag, weight or grad mode is left behind."""
    import torch

    from interp.models import load
    from tests.interp.models.test_hooks import ACTIONS, state
    from tests.tiny import build, tokenizer

    times, failures, draw = max(1, round(500 * scale)), [], random.Random(0)
    models = [load(build(name), tokenizer=tokenizer()) for name in ("llama", "gpt2", "gemma2", "gpt_neox")]
    errors = (RuntimeError, KeyboardInterrupt, SystemExit, torch.OutOfMemoryError, MemoryError, ValueError)
    reached = 0
    while reached < times:
        model = draw.choice(models)
        before, grad, random_state = state(model.hf), torch.is_grad_enabled(), torch.get_rng_state()
        module = draw.choice([one for _, one in model.hf.named_modules()])
        error, left = draw.choice(errors), [draw.randint(1, 4)]

        def fail(*given: object, error: type[BaseException] = error, left: list[int] = left) -> None:
            nonlocal reached
            left[0] -= 1
            if left[0] == 0:
                reached += 1
                raise error("injected")

        action, handle = draw.choice(list(ACTIONS)), module.register_forward_pre_hook(fail)
        with suppress(BaseException):
            ACTIONS[action](model)
        handle.remove()
        if state(model.hf) != before or torch.is_grad_enabled() != grad:
            failures.append(f"{action} of {model.name}: something is left")
        if not torch.equal(random_state, torch.get_rng_state()):
            failures.append(f"{action} of {model.name}: the random state is another")
    yield Row(
        "fault in a forward",
        "four families",
        times,
        tuple(failures),
        "hooks, flags, weights, grad mode and random state as before",
    )


def memory(root: Path, scale: float) -> Iterator[Row]:
    """Capture again and again: memory stays what it was."""
    from interp.models import load
    from tests.tiny import build, tokenizer

    model, times = load(build("llama"), tokenizer=tokenizer()), max(200, round(2000 * scale))
    prompts, sizes = ["w01 w02 w03 w04"] * 8, []
    for number in range(times):
        model.capture(prompts, ["resid_post.*", "head.*", "pattern.*"], "all")
        if number + 1 in (times // 10, times):
            gc.collect()
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            sizes.append(pages * os.sysconf("SC_PAGE_SIZE") / 1e6)
    grown = sizes[1] - sizes[0]
    failures = (f"grew by {grown:.1f} MB",) if grown > 10 else ()
    yield Row("memory", "captures", times, failures * times, f"{grown:+.1f} MB over the last nine tenths")


def threads(root: Path, scale: float) -> Iterator[Row]:
    """Two threads ask one model, one of them with edits: every answer is right."""
    import torch

    from interp.models import Intervention, load
    from tests.tiny import build, tokenizer

    model, ids = load(build("llama"), tokenizer=tokenizer()), [[5, 6, 7, 8, 9]]
    edit, each = [Intervention("resid_post.0", 0.0)], max(4, round(40 * scale))
    calls: dict[str, Callable[[], torch.Tensor]] = {
        "plain": lambda: model.logits(ids),
        "edited": lambda: model.run(ids, interventions=edit).logits,  # type: ignore[return-value]
        "states": lambda: model.capture(ids, "resid_post.2")["resid_post.2"],
        "gradient": lambda: model.run(ids, capture="resid_post.2", positions="all", grad=True).activations[
            "resid_post.2"
        ],
    }
    expected = {name: call().detach().clone() for name, call in calls.items()}
    for one, other in (("plain", "edited"), ("states", "edited"), ("gradient", "edited")):
        failures: list[str] = []

        def ask(name: str, failures: list[str] = failures) -> None:
            for _ in range(each):
                try:
                    if not torch.equal(calls[name]().detach(), expected[name]):
                        failures.append(f"{name}: another thread's answer")
                except Exception as error:
                    failures.append(f"{name}: {type(error).__name__}: {error}")

        both = [threading.Thread(target=ask, args=(name,)) for name in (one, other)]
        for thread in both:
            thread.start()
        for thread in both:
            thread.join()
        yield Row("two threads", f"{one} beside {other}", 2 * each, tuple(failures))


CHECKS: dict[str, Callable[[Path, float], Iterator[Row]]] = {
    "faults": faults,
    "threads": threads,
    "memory": memory,
    "calls": wrong_calls,
    "tampering": tampering,
    "disk": full_disk,
    "writers": two_writers,
}
"""Name -> check."""
