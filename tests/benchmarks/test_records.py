"""What is kept of runs, and the tables made of it."""

import json
import shutil
from pathlib import Path

import pytest

from benchmarks.records import LOGGED_STEPS, record, seeds_table
from reviewkd_det.report import read_run
from tests.report.test_report import COMMAND, config, make_classifier, points, write_run
from tests.scripts import run

DOCS = Path(__file__).resolve().parents[2] / "docs"


def finished(folder, *, score=10.0, seed=1, iterations=40):
    boxes = {"AP": score, "AP50": 50.0, "AP75": None, "APs": 1.0}
    summary = {"iterations": iterations, "train_seconds": 7.0, "parameters": 900}
    summary["results"] = {"bbox": boxes}
    tree = config(folder, seed=seed, iterations=iterations)
    lines = points(score, until=iterations)
    return write_run(folder, tree, lines, summary=summary, command=COMMAND)


def cells(table):
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [[x.strip() for x in line.split("|")[1:-1]] for line in lines[2:]]


def test_a_record_has_the_command_the_scores_and_a_short_log(tmp_path):
    kept = record(read_run(finished(tmp_path / "run", iterations=400), "a row"))
    assert (kept["row"], kept["command"], kept["seed"]) == ("a row", COMMAND, 1)
    assert kept["scores"] == {"AP": 10.0, "AP50": 50.0, "AP75": 0.0}
    assert (kept["parameters"], kept["iterations"]) == (900, 400)
    assert kept["AP over iterations"] == {400: 10.0}
    assert 2 < len(kept["losses"]) <= LOGGED_STEPS
    assert kept["losses"][400] == {"total_loss": 4.0}


def test_a_classifiers_record_has_its_accuracies(tmp_path):
    made = make_classifier(tmp_path / "run")
    best = {"epoch": 1, "top1": 44.0, "top5": 90.0}
    summary = {"top1": 42.0, "top5": 90.0, "best": best, "train_seconds": 3.2, "parameters": 5}
    (made.folder / "summary.json").write_text(json.dumps(summary))
    kept = record(read_run(made.folder, "r"))
    assert kept["scores"] == {"top-1": 42.0, "top-5": 90.0, "best top-1": 44.0}
    assert kept["top-1 over epochs"] == {1: 41.0, 2: 42.0}
    assert kept["losses"] == {1: {"loss_ce": 2.0}, 2: {"loss_ce": 2.0}}
    assert cells(seeds_table([kept])) == [["r", "42.0", "90.0", "44.0", "42.0", "2", "3"]]


def test_rows_have_the_mean_the_spread_and_each_seed(tmp_path):
    scores = enumerate([10.0, 20.0, 30.0], start=1)
    kept = [record(read_run(finished(tmp_path / str(s), score=x, seed=s), "r")) for s, x in scores]
    kept.append({**kept[0], "row": "one"})
    assert cells(seeds_table(kept)) == [
        ["r", "20.0 ± 10.0", "50.0 ± 0.0", "0.0 ± 0.0", "10.0, 20.0, 30.0", "40", "7 ± 0"],
        ["one", "10.0", "50.0", "0.0", "10.0", "40", "7"],
    ]


def test_masks_have_a_column_where_a_run_has_them(tmp_path):
    folder = finished(tmp_path / "masks")
    summary = json.loads((folder / "summary.json").read_text())
    summary["results"]["segm"] = {"AP": 8.0, "AP50": 30.0, "AP75": 2.0}
    (folder / "summary.json").write_text(json.dumps(summary))
    kept = [record(read_run(finished(tmp_path / "boxes"), "boxes")), record(read_run(folder, "m"))]
    table = seeds_table(kept)
    assert "| mask AP" in table
    assert [row[1:5] for row in cells(table)] == [
        ["10.0", "50.0", "0.0", ""],
        ["10.0", "50.0", "0.0", "8.0"],
    ]


def test_seconds_that_mean_nothing_are_left_out(tmp_path):
    runs = [record(read_run(finished(tmp_path / x)), timed=x == "a") for x in ("a", "b")]
    assert cells(seeds_table(runs[:1]))[0][-1] == "7"
    assert cells(seeds_table(runs))[0][-1] == "40"
    assert "train seconds" not in seeds_table(runs)


def test_a_run_that_is_not_finished_is_no_record(tmp_path):
    folder = write_run(tmp_path / "run", config(tmp_path), points())
    with pytest.raises(
        ValueError, match=r"finished and evaluated on boxes or classes; got '.*run'"
    ):
        record(read_run(folder, "row"))


def test_a_run_without_a_test_set_has_no_scores_and_no_row(tmp_path):
    folder = finished(tmp_path / "run")
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps({**summary, "results": None}))
    tree = config(folder)
    write_run(tmp_path / "tested", tree, points(1.0), summary={**summary, "results": None})
    with pytest.raises(ValueError, match="must be finished and evaluated"):
        record(read_run(tmp_path / "tested", "r"))
    (folder / "config.yaml").write_text(json.dumps({**tree, "DATASETS": {"TEST": []}}))
    kept = record(read_run(folder, "pre-training"))
    assert (kept["scores"], kept["iterations"]) == ({}, 40)
    other = record(read_run(finished(tmp_path / "other"), "r"))
    assert [row[0] for row in cells(seeds_table([kept, other]))] == ["r"]


def test_the_script_saves_runs_and_writes_their_table(tmp_path):
    folder = finished(tmp_path / "a run")
    (tmp_path / "results").mkdir()
    page = tmp_path / "page.md"
    page.write_text("Before\n<!-- table: one two -->\nold\n<!-- end -->\nAfter\n")
    for name, row in (("one", "named="), ("two", "")):
        path = tmp_path / "results" / f"{name}.json"
        done = run("tools/results_tables.py", "--save", path, f"{row}{folder}")
        assert done.returncode == 0, done.stderr
    done = run("tools/results_tables.py", "--page", page)
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    assert "old" not in text
    assert [row[0] for row in cells(text)] == ["named", "a run"]
    assert text.startswith("Before\n<!-- table: one two -->\n\n| run ")
    assert text.endswith("|\n\n<!-- end -->\nAfter\n")
    (tmp_path / "results" / "two.json").unlink()
    done = run("tools/results_tables.py", "--page", page)
    assert done.returncode == 1
    assert "a table must name files of" in done.stderr


def test_the_tables_of_the_page_are_those_of_its_files(tmp_path):
    shutil.copytree(DOCS / "results", tmp_path / "results")
    page = shutil.copy(DOCS / "results.md", tmp_path / "results.md")
    (tmp_path / "installed").mkdir()  # as it is installed, without the benchmarks
    (tmp_path / "installed" / "reviewkd_det").symlink_to(DOCS.parent / "reviewkd_det")
    done = run("tools/results_tables.py", "--page", page, PYTHONPATH=str(tmp_path / "installed"))
    assert done.returncode == 0, done.stderr
    assert page.read_text() == (DOCS / "results.md").read_text()
    assert "<!-- table: " in page.read_text()
    for path in (DOCS / "results").glob("demo*.json"):
        assert all(record["losses"] for record in json.loads(path.read_text()))
