"""Comparing: any analysis, paired over the same items, with noise floors, resumed, refusals kept."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch

from interp import load, quantization, results
from interp.errors import ConfigError, DataError, ModelError
from interp.models import Model
from interp.models.certificate import Check
from interp.models.forward import most_prompts
from interp.quantization.comparison import Cell, Comparison, compare
from interp.quantization.comparison.reference import in_bfloat16
from interp.quantization.integrity import Integrity
from interp.results import Finding, FindingsResult, Result, Table
from interp.results.codec import from_json, to_json
from tests.tiny import build, tokenizer

unchecked: Any = compare.__wrapped__ if hasattr(compare, "__wrapped__") else compare
PROMPTS = np.random.default_rng(0).integers(3, 60, (40, 6)).tolist()
GROUPS = tuple(f"g{at // 2}" for at in range(len(PROMPTS)))


def margins(model: Model, *, reference: Any = None, n: int = 40) -> FindingsResult:
    """Give the reference's own top logit less the mean logit, and its agreement with itself."""
    logits = model.logits(PROMPTS[:n]).double().numpy()
    favourite = logits.argmax(1) if reference is None else reference.state["favourite"]
    rows = np.arange(n)
    lead = logits[rows, favourite] - logits.mean(1)
    same = (logits.argmax(1) == favourite).astype(float)
    found = (
        Finding("lead", lead, GROUPS[:n], unit="logits", curve="lead", layer=0),
        Finding("agreement", same, GROUPS[:n], control=1 / 64),
    )
    return FindingsResult(analysis="margins", found=found, state={"favourite": favourite})


def timeless(found: Comparison) -> Any:
    """Everything that is saved but how long it took."""
    cells = tuple(replace(one, seconds=0.0, quantization=None) for one in found.cells)
    return to_json(replace(found, cells=cells, references=(), seconds=0.0))


@pytest.fixture(scope="module")
def model() -> Model:
    return load(build("llama"), tokenizer=tokenizer())


def test_a_model_survives_itself(model: Model) -> None:
    found = compare(margins, model, ["fp32"])
    table = found.table("findings")
    assert list(table["verdict"]) == ["survives", "survives"]
    assert (table["difference"].abs() <= table["noise"]).all()
    assert (table["low"] == 0).all()
    assert (table["high"] == 0).all()
    assert (table["noise"] > 0).any(), "bf16 changes something, or the floor was not measured"
    assert repr(found) == "Comparison(At fp32 all 2 findings survive.)"


def test_eight_bits_are_closer_than_two(model: Model) -> None:
    before = model.fingerprint
    found = compare(margins, model, ["rtn8", "rtn2"])
    eight, two = (found.judgement(scheme, "lead") for scheme in ("rtn8", "rtn2"))
    assert abs(eight.difference) < abs(two.difference)
    assert two.verdict in ("lost", "weakened")
    assert eight.verdict in ("survives", "inconclusive")
    assert two.n == 40
    assert two.n_groups == 20
    assert model.fingerprint == before


def test_the_difference_is_that_of_the_items(model: Model) -> None:
    found = compare(margins, model, ["rtn4"])
    own = margins(model)
    other = margins(quantization.quantize(model, "rtn4"), reference=own)
    judged = found.judgement("rtn4", "lead")
    assert judged.difference == pytest.approx(other.finding("lead").value - own.finding("lead").value)
    assert judged.low < judged.difference < judged.high
    assert found.results["margins", "rtn4"].finding("lead").value == judged.value


def test_the_noise_floor_is_what_another_layout_and_bf16_change(model: Model) -> None:
    seen: list[tuple[int | None, str]] = []

    def analysis(model: Model, *, reference: Any = None) -> FindingsResult:
        seen.append((most_prompts(), str(model.dtype)))
        return margins(model, reference=reference)

    found = compare(analysis, model, ["rtn4", "bf16"])
    assert seen[:3] == [(None, "torch.float32"), (7, "torch.float32"), (None, "torch.bfloat16")]
    own = margins(model)
    half = margins(in_bfloat16(model), reference=own)
    expected = abs(half.finding("lead").value - own.finding("lead").value)
    assert found.judgement("rtn4", "lead").noise == pytest.approx(expected)
    assert found.judgement("bf16", "lead").noise < expected / 10, "bf16 is not its own noise"
    none = compare(margins, model, ["rtn4"], noise=())
    assert none.judgement("rtn4", "lead").noise == 0
    assert any("noise floors left out" in text for text in none.warnings)


def test_the_rounded_copy_computes_as_in_bfloat16_and_the_model_is_left_alone(model: Model) -> None:
    before = model.fingerprint
    plain, quick = quantization.quantize(model, "bf16"), in_bfloat16(model)
    ids = [[1, 5, 9, 3, 7], [2, 4, 6]]
    full, one, two = (made.run(ids, logits="all").logits for made in (model, plain, quick))
    assert full is not None and one is not None and two is not None and two.dtype == torch.bfloat16
    rows = [(0, slice(0, 5)), (1, slice(0, 3))]
    away, apart = (
        sum(float((made[at].float() - other[at].float()).square().sum()) for at in rows)
        for made, other in ((one, full), (two, one))
    )
    assert away > 0 and apart < away  # its noise is bfloat16's, and the order of sums is less than that
    assert model.fingerprint == before and not any("forward" in vars(part) for part in model.hf.modules())


def test_a_few_noisy_items_lose_nothing(model: Model) -> None:
    found = compare(partial(margins, n=4), model, ["fp32", "rtn8"])
    assert set(found.table("findings")["verdict"]) <= {"survives", "inconclusive"}


def test_cells_that_are_done_are_not_run_again(model: Model) -> None:
    kept: list[Cell] = []
    whole = compare({"one": margins, "two": margins}, model, ["rtn8", "rtn4"], keep=kept.append)
    assert [(cell.analysis, cell.scheme) for cell in kept] == [
        ("one", ""), ("two", ""), ("one", "rtn8"), ("two", "rtn8"), ("one", "rtn4"), ("two", "rtn4"),
    ]  # fmt: skip
    again = [from_json(json.loads(json.dumps(to_json(cell))), Cell) for cell in kept]
    calls: list[str] = []

    def counted(model: Model, *, reference: Any = None) -> FindingsResult:
        calls.append(model.name)
        return margins(model, reference=reference)

    part = [cell for cell in again if cell.analysis == "one"]
    rest = compare({"one": counted, "two": margins}, model, ["rtn8", "rtn4"], done=part)
    assert not calls
    pandas.testing.assert_frame_equal(rest.table("findings"), whole.table("findings"))
    assert [cell.analysis for cell in rest.references] == ["one", "two"]
    assert timeless(rest) == timeless(whole)


def test_what_the_references_warn_of_is_kept_when_all_is_done(model: Model) -> None:
    def picky(model: Model, *, reference: Any = None) -> FindingsResult:
        if str(model.dtype) == "torch.bfloat16":
            raise DataError("not in bf16")
        return margins(model, reference=reference)

    kept: list[Cell] = []
    whole = compare({"one": picky}, model, ["rtn8"], keep=kept.append)
    assert any("no noise floor from bf16: not in bf16" in text for text in whole.warnings)
    assert compare({"one": picky}, model, ["rtn8"], done=kept).warnings == whole.warnings


def test_a_quantized_model_is_examined_and_a_failed_check_is_told(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = compare(margins, model, ["rtn8"]).cells[0]
    assert sound.integrity is not None and sound.integrity.passed and not sound.warnings
    assert sound.quantization is not None and sound.quantization.scheme == "rtn8"
    from interp.quantization.comparison import run

    failed = Check("modules", "fail", 1.0, 0.0, detail="one is missing")
    broken = Integrity(scheme="rtn8", mode="dense", checks=(failed,))
    monkeypatch.setattr(run, "verify_quantization", lambda made, base: broken)
    (told,) = compare(margins, model, ["rtn8"]).cells[0].warnings
    assert "fails the check 'modules' (one is missing)" in told


def test_an_analysis_that_refuses_is_told_and_the_others_go_on(model: Model) -> None:
    def gradients(model: Model, *, reference: Any = None) -> FindingsResult:
        if model.quantization is not None:
            raise ModelError("no gradients here.")
        return margins(model)

    def impossible(model: Model, *, reference: Any = None) -> FindingsResult:
        raise DataError("the model knows none of these facts.")

    found = compare({"g": gradients, "i": impossible, "m": margins}, model, ["rtn8"], noise=("layout",))
    assert found.cell("g", "rtn8").refused == "ModelError: no gradients here."
    assert "knows none of these facts" in found.cell("i", "rtn8").refused
    assert found.cell("m", "rtn8").judgements
    assert dict(found.table("counts")[["analysis", "run"]].to_numpy()) == {
        "g": "not run", "i": "not run", "m": "yes"
    }  # fmt: skip
    assert list(found.table("refused")["analysis"]) == ["g", "i"]
    assert any("knows none" in text for text in found.warnings)
    assert not any("beside" in one.title for one in found.tables())


def test_a_function_that_breaks_at_one_scheme_leaves_the_others(model: Model) -> None:
    def fragile(model: Model, *, reference: Any = None) -> FindingsResult:
        if model.scheme == "rtn2":
            raise RuntimeError("singular")
        return margins(model, reference=reference)

    found = compare(fragile, model, ["rtn8", "rtn2"], noise=())
    assert found.cell("fragile", "rtn8").judgements
    assert found.cell("fragile", "rtn2").refused == "RuntimeError: singular"
    assert found.table("refused")["reason"].tolist() == ["RuntimeError: singular"]
    assert "1 analysis could not be run everywhere" in repr(found)


@pytest.mark.parametrize(
    ("analysis", "message"),
    [
        ("recall", "analysis 'recall' asked; give a function"),
        ([margins], "give a function"),
        (lambda model: margins(model), "cannot be called as"),
        (lambda model, *, reference=None: 3.5, "returned a float, which is no result"),
        (lambda model, *, reference=None: None, "returned a NoneType, which is no result"),
    ],
)
def test_what_is_no_analysis_is_told_so(model: Model, analysis: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        unchecked(analysis, model, ["rtn8"])


def test_one_scheme_as_text_is_no_list(model: Model) -> None:
    with pytest.raises(ConfigError, match=r"schemes 'rtn4' asked; give a list, such as \['rtn4'\]"):
        unchecked(margins, model, "rtn4")


def test_a_comparison_is_written_and_read(model: Model, tmp_path: Path) -> None:
    found = compare(margins, model, ["rtn4"], noise=())
    again = results.load(found.save(tmp_path / "compared"))
    assert isinstance(again, Comparison) and again.results == {}
    assert to_json(again) == to_json(found)
    pandas.testing.assert_frame_equal(again.table("findings"), found.table("findings"))
    assert repr(again) == repr(found)


def test_noise_floors_of_an_earlier_run_are_not_measured_again(model: Model) -> None:
    kept: list[Cell] = []
    whole = compare(margins, model, ["rtn8", "rtn4"], keep=kept.append)
    part = [one for one in kept if one.scheme in ("", "rtn8")]
    said: list[str] = []
    again = compare(margins, model, ["rtn8", "rtn4"], done=part, say=said.append)
    assert said == ["margins: the reference", "margins: rtn4"]
    pandas.testing.assert_frame_equal(again.table("findings"), whole.table("findings"))


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Norm(Result):
    """A result without findings."""

    value: float

    def verdict(self) -> str:
        return f"{self.value}"

    def tables(self) -> tuple[Table, ...]:
        return (Table("norm", "Norm", ("what", "value"), [("norm", self.value)]),)


def test_results_without_findings_are_put_one_under_the_other(model: Model) -> None:
    def norm(model: Model, *, reference: Any = None) -> Norm:
        return Norm(value=float(model.logits(PROMPTS[:2]).norm()))

    found = compare(norm, model, ["rtn4"])
    assert found.analyses == ("norm",) and found.table("findings").empty
    values = [norm(one).value for one in (model, quantization.quantize(model, "rtn4"))]
    assert found.table("norm").to_dict("list") == {
        "what": ["norm"] * 2, "scheme": ["reference", "rtn4"], "value": values
    }  # fmt: skip
    assert values[0] != values[1]


def test_what_no_other_model_could_be_asked_stands_beside_nothing(model: Model) -> None:
    """Of an analysis refused at some precisions the others stand there; of one refused at all, none."""

    def norm(model: Model, *, reference: Any = None, refuses: tuple[str, ...]) -> Norm:
        if model.scheme in refuses:
            raise ModelError("not at this precision.")
        return Norm(value=1.0)

    for refuses, stands in ((("rtn2",), ["reference", "rtn8"]), (("rtn2", "rtn8"), [])):
        found = compare(partial(norm, refuses=refuses), model, ["rtn8", "rtn2"], noise=())
        beside = [one for one in found.tables() if "beside the reference" in one.title]
        assert [row[1] for one in beside for row in one.rows] == stands
        assert list(found.table("refused")["scheme"]) == [s for s in ("rtn8", "rtn2") if s in refuses]


def test_two_checkpoints_are_compared_and_it_says_so(model: Model) -> None:
    other = load(build("llama", seed=1), tokenizer=tokenizer())
    other = replace(other, name="tuned")
    found = compare(margins, model, [], other=other)
    assert found.schemes == ("tuned (trained)",)
    assert any("two checkpoints" in text for text in found.warnings)
    assert found.question() == "What of LlamaForCausalLM survives in tuned (trained)?"
    assert found.judgement("tuned (trained)", "agreement").verdict in ("lost", "weakened")
    stranger = load(build("llama"), tokenizer=tokenizer(bos=True))
    with pytest.raises(DataError, match="different tokenizers"):
        compare(margins, model, [], other=stranger)


def test_items_drawn_anew_in_each_run_are_refused(model: Model) -> None:
    rng = np.random.default_rng(0)

    def restless(model: Model, *, reference: Any = None) -> FindingsResult:
        picked = [PROMPTS[at] for at in rng.permutation(len(PROMPTS))]
        values = model.logits(picked).double().numpy()[:, 7]
        return FindingsResult(analysis="restless", found=(Finding("logit", values, GROUPS),))

    with pytest.raises(DataError, match="'logit' has other values item by item"):
        compare(restless, model, ["fp32"])


def test_cells_of_another_model_and_floors_that_were_not_measured_are_told(model: Model) -> None:
    done = compare(margins, model, ["rtn8"], noise=()).cells
    with pytest.raises(ConfigError, match="measured against another model"):
        compare(margins, load(build("llama", seed=3), tokenizer=tokenizer()), ["rtn8"], done=done)
    half = load(build("llama").bfloat16(), tokenizer=tokenizer())
    found = compare(margins, half, ["rtn8"])
    assert "bfloat16" not in found.noise["margins"]
    assert any("computes itself" in text for text in found.warnings)


def test_items_that_depend_on_the_model_are_refused(model: Model) -> None:
    def filtered(model: Model, *, reference: Any = None) -> FindingsResult:
        return margins(model, n=40 if model.quantization is None else 38)

    with pytest.raises(DataError, match="measured on other items"):
        compare(filtered, model, ["rtn4"], noise=())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"schemes": []}, "nothing to compare with"),
        ({"schemes": ["rtn4", "rtn4"]}, "named twice"),
        ({"schemes": ["int3"]}, "scheme 'int3' asked; there are"),
        ({"schemes": ["rtn4"], "noise": ("heat",)}, "noise 'heat' asked"),
        ({"schemes": ["rtn4"], "mode": "loose"}, "mode 'loose' asked"),
    ],
)
def test_wrong_questions_are_answered_before_anything_runs(
    model: Model, given: dict[str, Any], message: str
) -> None:
    def never(model: Model, *, reference: Any = None) -> FindingsResult:
        raise AssertionError("it ran")

    with pytest.raises(ConfigError, match=message):
        compare(never, model, **given)


def test_what_is_not_there_is_named(model: Model) -> None:
    found = compare(margins, model, ["rtn8"], noise=())
    with pytest.raises(ConfigError, match="no analysis has it; there are: lead, agreement"):
        found.judgement("rtn8", "nonsense")
    with pytest.raises(ConfigError, match="no 'margins' at 'int4' in this comparison"):
        found.cell("margins", "int4")
