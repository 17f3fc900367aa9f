"""``interp probe --protocol`` and ``interp decode`` on the bundled model."""

from __future__ import annotations

from pathlib import Path

import pandas
import pytest

from interp.analyses.concepts import ConceptResult
from interp.cli.probe import ProbeSettings
from interp.results import load
from interp.tasks import load_world
from tests.interp.cli.conftest import Call

WORLD = load_world()
FEW = ("--layer", "20", "--limit", "300", "--controls", "constant")
NAMES = {"seat": "capital", "money": "currency"}


@pytest.fixture
def small() -> tuple[str, ...]:
    return ("--layer", "23", "--limit", "500", "--out", "run")


def test_concepts_are_read_and_a_whole_run_is_left(call: Call, small: tuple[str, ...]) -> None:
    answer = call("probe", "--protocol", "concept-disjoint", *small, "--json")
    assert answer.code == 0, answer.err
    data = answer.envelope["data"]
    assert data["about"]["data"]["name"] == "concept-disjoint" and data["schema"] == "interp.concepts/2"
    names = {row["name"] for row in data["tables"]["scores"]["rows"]}
    assert {row["layer"] for row in data["tables"]["scores"]["rows"]} == {23}
    assert {"probe", "permuted-codebook", "random-weights", "ordered-slots", "logit-lens", "chance"} <= names
    files = {path.name for path in Path("run").rglob("*") if path.is_file()}
    assert {"metrics.json", "data.parquet", "report.html", "scores.svg", "codebook.safetensors"} <= files
    rows, found = pandas.read_parquet("run/data.parquet"), load("run/result")
    assert isinstance(found, ConceptResult) and list(rows["text"]) == [item.text for item in found.prompts]
    assert list(rows.loc[rows["split"] == "test", "predicted"]) == list(found.read)
    assert rows["right"].sum() / (rows["split"] == "test").sum() == pytest.approx(found.top1.value)
    page = Path("run/report.html").read_text()
    assert "Belief or truth?" in page and "Is the answer in the state" in page
    shown = call("show", "run")
    assert shown.code == 0 and "permuted-codebook" in shown.out
    read = call("decode", "--layer", "23", "--probe", "run/probes/resid_post.23", "the capital of France is")
    assert read.code == 0 and "similarity" in read.out and "Paris" in read.out
    own = call("decode", "--probe", "run/probes/resid_post.23", "the capital of France is", "--json")
    assert own.envelope["data"]["question"].startswith("Which concepts does layer 23 hold")
    wrong = call("decode", "--layer", "22", "--probe", "run/probes/resid_post.23", "the capital of France is")
    assert wrong.code == 2 and "made for something else" in wrong.err


def test_the_main_job_reads_what_a_logit_lens_cannot(call: Call) -> None:
    few = ("--limit", "450", "--controls", "logit-lens,translator")
    answer = call("probe", "--layer", "20", *few, "--out", "run", "--json")
    assert answer.code == 0, answer.err
    data = answer.envelope["data"]
    assert data["about"]["data"]["name"] == "bridge"
    scores = {row["name"]: row["value"] for row in data["tables"]["scores"]["rows"]}
    assert scores["probe"] > 0.4 > 0.05 > max(scores["logit-lens"], scores["translator"])


def test_the_default_asks_another_model_what_it_knows_and_own_facts_by_statements() -> None:
    assert ProbeSettings().concepts == "bridge"
    assert ProbeSettings(model="smollm2").concepts == "known-relations"
    assert ProbeSettings(facts="f.csv").concepts == "concept-disjoint"
    assert ProbeSettings(model="smollm2", facts="f.csv").concepts == "known-relations"
    assert ProbeSettings(task="category").concepts is None
    assert ProbeSettings(model="smollm2", protocol="bridge").concepts == "bridge"


def own_facts(path: Path, extra: str = "") -> None:
    """Two relations of the bundled facts under other names, in sentences that the bundled model knows."""
    rows = [f"{fact.subject},seat,{fact.object},the capital of {{}} is" for fact in WORLD.facts["capital"]]
    rows += [
        f"{fact.subject},money,{fact.object},the currency of {{}} is the" for fact in WORLD.facts["currency"]
    ]
    path.write_text("subject,relation,answer,template\n" + "\n".join(rows) + extra)


def test_own_facts_are_probed_and_decoded(call: Call) -> None:
    own_facts(Path("facts.csv"))
    given = ("--facts", "facts.csv", "--layer", "23")
    answer = call("probe", *given, "--controls", "constant,translator", "--out", "run", "--json")
    assert answer.code == 0, answer.err
    assert {row["relation"] for row in answer.envelope["data"]["tables"]["relations"]["rows"]} <= {
        "seat",
        "money",
    }
    found = load("run/result")
    assert isinstance(found, ConceptResult) and found.top1.value > 0.3
    assert all(WORLD.objects[NAMES[one.relation], one.subject] == one.answer for one in found.prompts)
    read = call("decode", *given, "the capital of France is", "--json")
    assert read.envelope["data"]["tables"]["concepts"]["rows"][0]["concept"] == "Paris"
    asked = call("decode", *given, "--questions", "facts", "--limit", "5", "--json")
    assert asked.code == 0, asked.err


def test_facts_that_cannot_be_read_are_refused_by_line_and_column(call: Call) -> None:
    own_facts(Path("facts.csv"), "\nFrance,seat,,")
    answer = call("probe", "--layer", "20", "--facts", "facts.csv")
    assert answer.code == 3 and "column 'answer' is empty" in answer.err
    answer = call("probe", "--task", "category", "--facts", "facts.csv")
    assert answer.code == 2 and "--facts are for concepts" in answer.err
    answer = call("decode", "--facts", "facts.csv", "--probe", "run", "the capital of France is")
    assert answer.code == 2 and "--facts train a probe" in answer.err


def test_without_text_no_prompt_is_left_in_the_run(call: Call) -> None:
    answer = call(
        "probe", "--layer", "20", "--limit", "300", "--protocol", "in-context", "--controls", "shuffled",
        "--no-text", "--out", "run", "-q",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    for path in Path("run").rglob("*"):
        if path.suffix in (".json", ".html", ".md", ".svg"):
            assert " has the " not in path.read_text(), path
        elif path.suffix == ".parquet":
            assert " has the " not in pandas.read_parquet(path).to_csv(), path


def test_a_gate_on_a_control_fails_the_call(call: Call) -> None:
    answer = call(
        "probe", "--layer", "20", "--limit", "300", "--protocol", "in-context", "--controls", "bag-of-tokens",
        "--fail-under", "over-bag-of-tokens=1.5", "--out", "run", "-q",
    )  # fmt: skip
    assert answer.code == 7 and "over-bag-of-tokens" in answer.err
    answer = call("probe", "--controls", "bag-of-tokens", "--fail-under", "over-ridge=0")
    assert answer.code == 2 and "over-bag-of-tokens" in answer.err


def test_questions_are_read_before_and_after_they_are_answered(call: Call) -> None:
    Path("q.csv").write_text(
        "question,answer\nthe capital of France is,Paris\nthe capital of Japan is,Tokyo\n"
    )
    answer = call("decode", "--layer", "23", "--questions", "q.csv", "--json")
    assert answer.code == 0, answer.err
    replies = answer.envelope["data"]["tables"]["replies"]["rows"]
    assert [reply["generated"] for reply in replies] == ["Paris .", "Tokyo ."]
    assert replies[0]["before"] == replies[0]["lost"] == "Paris"
    shown = call("decode", "--layer", "23", "--questions", "q.csv", "--statements", "300")
    assert "by luck" in shown.out and "the capital of Japan is" in shown.out


def test_protocols_are_listed_and_planned(call: Call) -> None:
    assert "pair-disjoint" in call("ls", "protocols").out
    answer = call("probe", "--layer", "20", "--protocol", "bridge", "--dry-run")
    assert answer.code == 0 and not Path("runs").exists()


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A cache of its own, and little text to fit on."""
    from interp.lenses import translator

    monkeypatch.setenv("INTERP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(translator, "TOKENS", 1500)
    monkeypatch.setattr(translator, "LENGTH", 32)


def test_several_layers_are_read_without_labels_and_fitted_once(call: Call, little: None) -> None:
    Path("cities.txt").write_text("Paris\nRome\n\nTokyo\nParis\n")
    asked = ("decode", "--layers", "20-22:2", "--concepts", "cities.txt", "the capital of France is")
    answer = call(*asked)
    assert answer.code == 0, answer.err
    assert "fitting translators of 2 layers" in answer.err and "Read: Paris at layer" in answer.out
    again = call(*asked, "--json")
    assert "fitting" not in again.err
    rows = again.envelope["data"]["tables"]["layers"]["rows"]
    assert [(row["layer"], row["read"]) for row in rows][-1] == (22, "Paris")
    tokens = call("decode", "--layers", "22", "the capital of France is", "--json")
    assert tokens.envelope["data"]["tables"]["layers"]["rows"][0]["read"] == "Paris"


def test_reading_without_labels_takes_no_probe_and_two_names(call: Call, little: None) -> None:
    wrong = call("decode", "--layers", "20", "--layer", "20", "the capital of France is")
    assert wrong.code == 2 and "--layer by a Hyperdimensional Probe; give one or the other" in wrong.err
    Path("one.txt").write_text("Paris\n")
    wrong = call("decode", "--layers", "20", "--concepts", "one.txt", "the capital of France is")
    assert wrong.code == 3 and "holds 1 names; write at least 2, one a line" in wrong.err


def test_the_command_makes_the_table(call: Call) -> None:
    given = ("--readers", "logit,translator-prompts,subject", "--layers", "12,20", "--limit", "300")
    answer = call("probe", *given, "--out", "run", "--json")
    assert answer.code == 0, answer.err
    assert answer.envelope["data"]["schema"] == "interp.readers/1"
    assert [row["layer"] for row in answer.envelope["data"]["tables"]["readers"]["rows"]] == [12, 20]
    wrong = call("probe", "--reader", "all", "--causal")
    assert wrong.code == 2 and "--reader all compares readers in a table" in wrong.err


def test_a_probe_by_the_translator_is_trained_by_one_flag(call: Call) -> None:
    given = ("--reader", "probe-translator", "--protocol", "concept-disjoint", *FEW)
    answer = call("probe", *given, "--out", "run")
    assert answer.code == 0, answer.err
    found = load("run/result")
    assert isinstance(found, ConceptResult) and found.encoder == "translator"
    assert "own final states and no answers" in found.lead()[0]
    wrong = call("probe", "--reader", "probe-translator", "--task", "category")
    assert wrong.code == 2 and "--reader is for concepts" in wrong.err
