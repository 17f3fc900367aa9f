"""The settings of commands: precedence, origins, unknown keys, what only a flag may set."""

from __future__ import annotations

import itertools
import json
import shlex
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interp import cli
from interp.cli.main import settings_of_commands
from interp.cli.options import as_text, choose, keys, options
from interp.cli.probe import probe as command
from interp.cli.sources import Resolved, resolve
from interp.errors import ConfigError

KINDS = settings_of_commands()


def probe(tmp_path: Path, **arguments: Any) -> Resolved:
    return resolve("probe", KINDS, **{"environment": {}, "folder": tmp_path, **arguments})


SOURCES = ("interp.yaml", "environment", "--config", "--set", "flag")


@pytest.mark.parametrize("present", [c for r in range(6) for c in itertools.combinations(range(5), r)])
def test_the_strongest_source_wins_and_is_remembered(tmp_path: Path, present: tuple[int, ...]) -> None:
    arguments: dict[str, Any] = {"environment": {}}
    if 0 in present:
        (tmp_path / "interp.yaml").write_text("seed: 10\n")
    if 1 in present:
        arguments["environment"] = {"INTERP_SEED": "11", "HOME": "x"}
    if 2 in present:
        (tmp_path / "run.yaml").write_text("seed: 12\n")
        arguments["config"] = tmp_path / "run.yaml"
    if 3 in present:
        arguments["sets"] = ["seed=13"]
    if 4 in present:
        arguments["flags"] = {"seed": "14", "layers": None}
    found = probe(tmp_path, **arguments)
    best = max(present, default=None)
    assert found.settings.seed == (0 if best is None else 10 + best)
    origins = {
        None: "default",
        0: "interp.yaml",
        1: "INTERP_SEED",
        2: (tmp_path / "run.yaml").as_posix(),
        3: "--set",
        4: "flag",
    }
    assert found.origins["seed"] == origins[best]
    assert set(found.origins) == set(keys(KINDS["probe"]))


def test_a_block_for_one_command_wins_over_what_is_for_all(tmp_path: Path) -> None:
    (tmp_path / "interp.yaml").write_text("seed: 1\nsites: embed\nprobe:\n  seed: 2\ncapture:\n  seed: 3\n")
    assert probe(tmp_path).settings.seed == 2
    assert resolve("capture", KINDS, environment={}, folder=tmp_path).settings.seed == 3
    assert resolve("doctor", KINDS, environment={}, folder=tmp_path).settings.seed == 1


def test_yaml_values_stay_what_was_typed(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(
        "layers: 8-24:4\nlimit: null\ndevice: cpu\ntask: no\ncontrols: [shuffled, majority]\n"
    )
    settings = probe(tmp_path, config=tmp_path / "run.yaml").settings
    assert (settings.layers, settings.limit, settings.task, settings.controls) == (
        "8-24:4",
        None,
        "no",
        ("shuffled", "majority"),
    )
    (tmp_path / "run.yaml").write_text("layers: [8, 12]\n")
    assert probe(tmp_path, config=tmp_path / "run.yaml").settings.layers == "8,12"


def test_python_values_do_what_typed_ones_do() -> None:
    typed = resolve("probe", KINDS, flags={"layers": "8,12", "seed": "1", "controls": "a, b"}, environment={})
    python = {"layers": [8, 12], "seed": 1, "controls": ("a", "b")}
    assert resolve("probe", KINDS, flags=python, environment={}).settings == typed.settings
    assert typed.settings == KINDS["probe"](layers="8,12", seed=1, controls=("a", "b"))


def test_the_folder_of_converted_models_is_no_setting(tmp_path: Path) -> None:
    given = {"INTERP_CACHE": str(tmp_path), "INTERP_SEED": "2"}
    assert probe(tmp_path, environment=given).settings.seed == 2


WRONG = {
    "unknown in --set": ({"sets": ["lim=3"]}, "unknown setting 'lim' in --set", "Did you mean 'limit'?"),
    "unknown in the environment": (
        {"environment": {"INTERP_MODELL": "x"}},
        "'modell' in the environment",
        "Did you mean 'model'?",
    ),
    "unknown flag value": ({"flags": {"colour": "x"}}, "unknown setting 'colour'", "allowed: layers"),
    "no equals sign": ({"sets": ["seed"]}, "--set 'seed' has no '='", "--set seed=1"),
    "word for a number": ({"flags": {"seed": "x"}}, "--seed 'x' is not allowed", "a whole number from 0"),
    "negative seed": ({"environment": {"INTERP_SEED": "-1"}}, "--seed '-1' (from INTERP_SEED)", "from 0"),
    "boolean seed": ({"flags": {"seed": True}}, "--seed 'True' is not allowed", "whole number"),
    "weights": (
        {"flags": {"weights": "randon"}},
        "--weights 'randon' is not allowed",
        "Did you mean 'random'?",
    ),
    "device": ({"flags": {"device": "gpu"}}, "--device 'gpu'", "cuda"),
    "dtype": ({"flags": {"dtype": "fp16"}}, "--dtype 'fp16'", "float16"),
    "backend": (
        {"flags": {"backend": "nnsite"}},
        "--backend 'nnsite' is not allowed",
        "Did you mean 'nnsight'?",
    ),
    "scheme": ({"sets": ["scheme=8 bits"]}, "--scheme '8 bits' (from --set) is not allowed", "interp ls"),
    "batch size": ({"flags": {"batch_size": "0"}}, "--batch-size '0' is not allowed", "auto"),
    "limit": ({"flags": {"limit": "0"}}, "--limit '0' is not allowed", "from 1"),
    "no config file": ({"config": "nowhere.yaml"}, "--config 'nowhere.yaml' is not a file", "YAML"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_settings_name_value_place_and_remedy(tmp_path: Path, name: str) -> None:
    arguments, *parts = WRONG[name]
    with pytest.raises(ConfigError) as caught:
        probe(tmp_path, **arguments)
    for part in parts:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"seed: 1\nseed: 2\n", "appears twice"),
        (b"seed: [1\n", "not valid YAML at line"),
        (b"- a\n", "not a list"),
        (b"\xff\xfe\xfa", "not UTF-8"),
        (b"sead: 1\n", "Did you mean 'seed'"),
        (b"!!python/object/apply:os.system ['x']\n", "must hold settings"),
    ],
)
def test_wrong_files_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "run.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        probe(tmp_path, config=tmp_path / "run.yaml")


@pytest.mark.parametrize("where", ["interp.yaml", "environment", "config", "set"])
def test_a_models_own_code_can_be_allowed_by_the_flag_alone(tmp_path: Path, where: str) -> None:
    arguments: dict[str, Any] = {
        "set": {"sets": ["trust_remote_code=true"]},
        "environment": {"environment": {"INTERP_TRUST_REMOTE_CODE": "1"}},
    }.get(where, {})
    if where in ("interp.yaml", "config"):
        (tmp_path / "interp.yaml").write_text("trust-remote-code: true\n")
        arguments = (
            {"config": tmp_path / "interp.yaml", "folder": tmp_path / "none"} if where == "config" else {}
        )
    with pytest.raises(ConfigError, match="by the flag --trust-remote-code alone"):
        probe(tmp_path, **arguments)
    assert probe(tmp_path / "none", flags={"trust_remote_code": True}).settings.trust_remote_code is True


def test_settings_that_another_command_knows_are_left_alone_in_shared_places(tmp_path: Path) -> None:
    (tmp_path / "interp.yaml").write_text("sites: embed\n")
    assert probe(tmp_path, environment={"INTERP_POSITIONS": "all"}).origins["seed"] == "default"
    with pytest.raises(ConfigError, match="unknown setting 'sites' in --set"):
        probe(tmp_path, sets=["sites=embed"])


FLAGS = st.fixed_dictionaries(
    {},
    optional={
        "layers": st.sampled_from(["20", "8-24:4", "-1", "50%"]),
        "seed": st.integers(0, 2**32 - 1),
        "limit": st.integers(1, 100),
        "data": st.text(st.characters(min_codepoint=33, max_codepoint=1000), min_size=2),
        "text": st.booleans(),
        "offline": st.booleans(),
        "controls": st.sampled_from([("shuffled",), ("shuffled", "majority")]),
        "fail_under": st.sampled_from([("accuracy=0.8",), ("accuracy=0.8", "selectivity=0")]),
    },
)


@given(FLAGS)
def test_the_command_line_gives_the_same_settings_again(flags: dict[str, Any]) -> None:
    before = resolve("probe", KINDS, flags=flags, environment={})
    words = shlex.split(before.command_line())
    assert words[:2] == ["interp", "probe"]
    context = command.make_context("probe", words[2:])
    again = {
        key: value for key, value in context.params.items() if key not in ("config", "set") and value != ()
    }
    assert resolve("probe", KINDS, flags=again, environment={}).settings == before.settings


def test_the_settings_of_a_run_can_be_read_back_from_its_run_json(tmp_path: Path) -> None:
    before = probe(tmp_path, flags={"layers": "3", "seed": 5, "json": None, "out": "runs/x", "limit": None})
    (tmp_path / "run.json").write_text(
        json.dumps({"command": "probe", "configuration": before.configuration})
    )
    after = probe(tmp_path, config=tmp_path / "run.json").settings
    assert (after.layers, after.seed, after.out, after.limit) == ("3", 5, None, None)
    with pytest.raises(ConfigError, match="a run of `interp probe`, not of `interp capture`"):
        resolve("capture", KINDS, config=tmp_path / "run.json", environment={}, folder=tmp_path)


FLAGS_OF_01 = json.loads(Path(__file__).with_name("flags.json").read_text())
"""Command -> setting -> spellings, group, form and default, as version 0.1 had them."""

NEW = {
    "adapter", "at", "baselines", "budget", "concepts", "data", "effects", "engine", "facts", "features",
    "full", "goal", "circuit", "held_out", "items", "layers", "spans",
    "passes", "pooling", "positions", "reader", "replace", "select", "statements", "store", "twin",
    "workers",
}  # fmt: skip
"""Flags that later versions brought."""
CHANGED = {("probe", "kind"), ("probe", "controls"), ("patch", "search")}
"""Defaults that were words which meant something else when they were typed: now nothing, said in help."""


@pytest.mark.parametrize("name", FLAGS_OF_01)
def test_flags_and_defaults_are_those_of_the_first_version(name: str) -> None:
    params = {one.name: one for one in options(KINDS[name])}
    assert set(params) - (NEW - set(FLAGS_OF_01[name])) == set(FLAGS_OF_01[name])
    given = {key: "x" for key in ("run", "what") if key in params}
    defaults = resolve(name, KINDS, flags=given, environment={}, folder="/nowhere").configuration
    for key, old in FLAGS_OF_01[name].items():
        new = params[key]
        if old.get("positional"):
            assert isinstance(new, click.Argument)
            continue
        assert isinstance(new, click.Option)
        assert set(old["names"]) <= {*new.opts, *new.secondary_opts}
        assert (new.is_flag, new.multiple) == (old["switch"], old["many"])
        assert new.help
        if key in defaults:
            assert (name, key) in CHANGED or defaults[key] == old["default"], key


def test_every_default_is_allowed() -> None:
    for name, kind in KINDS.items():
        given = {"run": "x", "what": "tasks", "prompt": "x", "folder": "x", "repo": "a/b"} | (
            {"with": "x"} if name in ("steer", "monitor") else {"dictionary": "x"}
        )
        given |= {"site": "resid_post.2"} if name == "edit" else {}
        flags = {key: value for key, value in given.items() if key in keys(kind)}
        resolve(name, KINDS, flags=flags, environment={}, folder="/nowhere").settings.check()


@pytest.mark.parametrize("name", KINDS)
def test_a_flag_typed_with_its_default_does_what_leaving_it_out_does(name: str) -> None:
    """No command looks at where a setting came from, so equal settings are equal calls."""
    given = {key: "x" for key in ("run", "what", "prompt", "folder", "repo") if key in keys(KINDS[name])}
    plain = resolve(name, KINDS, flags=given, environment={}, folder="/nowhere").settings
    for key, one in keys(KINDS[name]).items():
        if one.metadata["given"] == "anywhere" and one.default not in (None, ()):
            typed = as_text(one.default) or str(one.default)
            again = resolve(name, KINDS, flags={**given, key: typed}, environment={}, folder="/nowhere")
            assert again.settings == plain, key
    source = "".join(path.read_text() for path in Path(cli.__file__).parent.glob("*.py"))
    assert source.count("origins[") == 0, "a command that asks where a value came from"


def test_choose_names_the_nearest() -> None:
    assert choose("--kind", "ridge", ["ridge", "logistic"]) == "ridge"
    with pytest.raises(
        ConfigError,
        match=r"--kind 'logistc' is not known; allowed: ridge, logistic\. Did you mean 'logistic'\?",
    ):
        choose("--kind", "logistc", ["ridge", "logistic"])
