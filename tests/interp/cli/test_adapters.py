"""``--adapter FOLDER`` puts adapters of PEFT on the model of any command that loads one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import interp
from interp.cli.main import settings_of_commands
from interp.cli.options import ModelSettings, keys
from tests.interp.cli.conftest import Call
from tests.tiny import build

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two folders of adapters that change what they are put on."""
    found: list[str] = []
    for name, target in (("one", "q_proj"), ("two", "down_proj")):
        config = peft.LoraConfig(r=2, target_modules=[target], init_lora_weights=False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(len(found))
            outer = peft.get_peft_model(build("llama"), config)
        folder = tmp_path_factory.mktemp("adapters") / name
        outer.save_pretrained(folder)
        found.append(str(folder))
    return found


def test_a_run_says_which_adapters_are_on_and_is_of_another_model(
    call: Call, adapters: list[str], place: Path
) -> None:
    given = ["capture", "--model", "TINY", "--data", "DATA", "--sites", "resid_post.1", "--limit", "4"]
    for names in ([], adapters[:1], adapters):
        words = [word for name in names for word in ("--adapter", name)]
        answer = call(*given, *words, "--out", f"run{len(names)}")
        assert answer.code == 0, answer.err
    models = [json.loads(Path(f"run{n}", "run.json").read_text())["model"] for n in range(3)]
    assert [one["adapters"] for one in models] == [[], ["one"], ["one", "two"]]
    assert len({one["fingerprint"] for one in models}) == 3
    wanted = interp.load(place / "tiny", adapter=adapters).fingerprint
    assert models[2]["fingerprint"] == wanted


def test_every_command_that_loads_a_model_takes_adapters() -> None:
    kinds = settings_of_commands()
    loading = {name for name, kind in kinds.items() if issubclass(kind, ModelSettings)}
    assert {"probe", "patch", "compare", "capture", "decode", "doctor"} <= loading
    assert {name for name, kind in kinds.items() if "adapter" in keys(kind)} == loading


def test_what_is_no_adapter_is_refused(call: Call, adapters: list[str]) -> None:
    answer = call("doctor", "--model", "TINY", "--adapter", "nowhere")
    assert answer.code == 4 and "the adapter in 'nowhere' could not be put on" in answer.err
    answer = call("doctor", "--model", adapters[0])
    assert answer.code == 4 and f"--adapter {adapters[0]}" in answer.err
    same = call("doctor", "--model", "TINY", "--adapter", f"{adapters[0]},{adapters[1]},{adapters[1]}")
    assert same.code == 2 and "two of the adapters are called 'two'" in same.err
