"""Files of chains: one's own layout, that of TwoHopFact, and what is wrong with a file."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from interp.errors import DataError
from interp.tasks import read_chains
from interp.tasks.chains import Chain

PUBLIC = {
    "uid": "7",
    "fact_comp_type": "song's singer's mother",
    "e1.value": "Superstition",
    "e2.value": "Stevie Wonder",
    "e3.value": "Lula",
    "r1(e1).prompt": "The singer of 'Superstition' is",
    "r2(e2).prompt": "The mother of Stevie Wonder is",
    "r2(r1(e1)).prompt": "The mother of the singer of 'Superstition' is",
}
OWN = {
    "both": "the currency of the country whose capital is Paris is the",
    "mention": "the country whose capital is Paris",
    "first": "the country whose capital is Paris is",
    "second": "the currency of France is the",
    "bridge": "France",
    "answer": "euro",
}


def table(path: Path, *rows: dict[str, str], encoding: str = "utf-8") -> Path:
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_both_layouts_are_read(tmp_path: Path) -> None:
    (own,) = read_chains(table(tmp_path / "own.csv", OWN))
    assert own == Chain(**OWN, kind="/0")
    (public,) = read_chains(table(tmp_path / "public.csv", PUBLIC))
    assert (public.both, public.first, public.second) == tuple(
        PUBLIC[f"{name}.prompt"] for name in ("r2(r1(e1))", "r1(e1)", "r2(e2)")
    )
    assert public.mention == "the singer of 'Superstition'" and public.kind == "song's singer's mother/0"
    assert (public.bridge, public.answer) == ("Stevie Wonder", "Lula")


@pytest.mark.parametrize(
    ("first", "both", "mention"),
    [
        (
            "The singer of Vals is named",
            "The mother of the singer of Vals is named",
            "the singer of Vals is named",
        ),
        (
            "The land where Vals lies is",
            "People in the land where Vals lies pay with",
            "the land where Vals lies",
        ),
        ("The singer of Vals was", "The mother of the singer of Valsen was", ""),
        ("Vals was sung by", "The mother of the singer of Vals is", ""),
    ],
)
def test_the_mention_is_what_both_questions_have_alike(
    first: str, both: str, mention: str, tmp_path: Path
) -> None:
    row = PUBLIC | {"e1.value": "Vals", "r1(e1).prompt": first, "r2(r1(e1)).prompt": both}
    file = table(tmp_path / "one.csv", row)
    if mention:
        assert read_chains(file)[0].mention == mention
    else:
        with pytest.raises(DataError, match=r"line 2: .* does not hold what .* begins with, up to 'Vals'"):
            read_chains(file)


@pytest.mark.parametrize(
    ("row", "encoding", "message"),
    [
        ({"both": "a", "answers": "b"}, "utf-8", "no column 'mention'; its columns are: both, answers"),
        ({k: v for k, v in PUBLIC.items() if k != "e2.value"}, "utf-8", r"no column 'e2.value'"),
        (OWN | {"bridge": " "}, "utf-8", "line 2: column 'bridge' is empty"),
        (OWN | {"mention": "the town"}, "utf-8", "line 2: column 'mention' is 'the town', which is not in"),
        (OWN | {"answer": "Öre"}, "latin-1", "is not UTF-8"),
    ],
)
def test_a_wrong_file_is_named(row: dict[str, str], encoding: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read_chains(table(tmp_path / "wrong.csv", row, encoding=encoding))
