"""The table of the methods: what each needs, and who can serve it."""

from pathlib import Path

from benchmarks.methods import methods_table
from reviewkd_det.core import registered_methods

PAGE = Path(__file__).resolve().parents[2] / "docs" / "methods.md"


def rows():
    lines = [[cell.strip() for cell in x.split("|")[1:-1]] for x in methods_table().splitlines()]
    header, _, *others = lines
    return {row[0].strip("`"): dict(zip(header, row, strict=True)) for row in others}


def test_the_page_has_the_table_that_the_script_prints():
    assert methods_table() in PAGE.read_text(encoding="utf-8")


def test_each_method_says_what_it_is_and_who_can_train_with_it():
    found = rows()
    assert set(found) == set(registered_methods())
    assert all(row["compares"] for row in found.values())
    customers = ("two-stage", "one-stage", "classifier")
    served = {name: [row[x] for x in customers] for name, row in found.items()}
    assert served["PKD"] == ["yes", "yes", "yes"]
    assert served["FGD"] == ["yes", "yes", "-"]
    assert served["MLKD"] == ["yes", "-", "yes"]  # it has no form for binary classes
    assert served["CRD"] == ["-", "-", "yes"]
    assert all("yes" in row for row in served.values())


def test_parameters_are_those_between_two_pyramids():
    # Two convolutions of 3 x 3 for each of five levels, with biases.
    assert rows()["MGD"]["own parameters"] == f"{5 * 2 * (256 * 256 * 9 + 256) / 1e6:.1f} M"
    assert rows()["PKD"]["own parameters"] == "-"
