"""What is not ours is left alone: folders, locks and random states of others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from jaxtyping import TypeCheckError

import interp
from interp.errors import ConfigError, ModelError
from interp.quantization import quantize
from interp.runs import RunFolder
from probes.vsa import MAP
from tests.tiny import build

FOREIGN = {
    "manifest.json": '{"name": "an app"}',
    "run.json": '{"steps": 3}',
    "manifest.json without words": "not json",
}


def written(out: Path, **given: bool) -> None:
    with RunFolder.create(out, "probe", {"seed": 0}, **given) as run:
        run.write_text("report.html", "ours")
        run.finish()


@pytest.mark.parametrize("name", FOREIGN)
def test_a_folder_of_something_else_is_not_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "one.png").write_text("theirs")
    (tmp_path / name.split()[0]).write_text(FOREIGN[name])
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigError, match=r"no run of this toolkit, so it is left alone"):
        written(tmp_path, overwrite=True)
    assert sorted(tmp_path.rglob("*")) == before


def test_our_own_run_is_overwritten_and_what_others_put_there_stays(tmp_path: Path) -> None:
    written(tmp_path / "run")
    (tmp_path / "run" / "figures").mkdir()
    (tmp_path / "run" / "figures" / "mine.png").write_text("mine")
    (tmp_path / "run" / "run.json").write_text("{damaged")
    written(tmp_path / "run", overwrite=True)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "finished"
    assert (tmp_path / "run" / "figures" / "mine.png").read_text() == "mine"


def test_a_lock_that_is_a_link_or_of_something_else_is_not_written_to(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(precious)
    with pytest.raises(ConfigError, match="cannot be written"):
        written(tmp_path / "run")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / ".lock").write_text("of another program")
    with pytest.raises(ConfigError, match=r"no lock of this toolkit, so it is left alone"):
        written(tmp_path / "other")
    assert precious.read_text() == "precious"
    assert (tmp_path / "other" / ".lock").read_text() == "of another program"


def test_a_name_that_no_folder_can_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be used: File name too long\. Choose another name"):
        written(tmp_path / ("x" * 300))


def test_quantizing_leaves_the_random_state() -> None:
    model = interp.load(build("llama"))
    torch.manual_seed(3)
    before = torch.get_rng_state()
    quantize(model, "rtn4")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("key", "value"), [("num_attention_heads", 7), ("vocab_size", "x"), ("dtype", "float13")]
)
def test_a_configuration_that_cannot_be_used_is_named(tmp_path: Path, key: str, value: object) -> None:
    build("llama").save_pretrained(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(content | {key: value}))
    with pytest.raises(ModelError, match=r"config\.json of .* cannot be used"):
        interp.load(tmp_path)


@pytest.mark.parametrize("dimension", [2.5, float("nan"), "8", True, 1])
def test_a_dimension_is_a_whole_number(dimension: object) -> None:
    with pytest.raises((ValueError, TypeCheckError), match="dimension"):
        MAP(dimension)  # type: ignore[arg-type]
