import pytest

from classification.results_table import seeds_table


def run(top1, epochs=3):
    return {"top1": top1, "top5": 90.0, "best": {"top1": top1 + 1}, "epochs": epochs,
            "train_seconds": 7.4}  # fmt: skip


def test_the_table_gives_mean_and_standard_deviation_of_each_run():
    table = seeds_table([{"the_teacher": run(10.0)}, {"the_teacher": run(14.0, epochs=5)}])
    (row,) = [line for line in table.splitlines() if "teacher" in line]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == ["the teacher", "12.0 ± 2.8", "90.0 ± 0.0", "10.0, 14.0", "13.0 ± 2.8", "3, 5",
                     "7 ± 0"]  # fmt: skip


def test_one_seed_has_no_spread():
    assert "±" not in seeds_table([{"a": run(10.0)}])


def test_seeds_of_other_runs_are_refused():
    with pytest.raises(ValueError, match=r"same runs; got \['a'\] and \['b'\]"):
        seeds_table([{"a": run(1.0)}, {"b": run(1.0)}])
