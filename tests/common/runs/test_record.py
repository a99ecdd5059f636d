"""The record of what started a run."""

import json

from reviewkd_det.common.runs.record import write_run_record


def read(folder):
    return json.loads((folder / "run.json").read_text())


def test_the_record_says_how_many_processes_and_which_versions(tmp_path):
    write_run_record(tmp_path, ["train.py"], 3)
    record = read(tmp_path)
    assert record["processes"] == 3
    assert {"reviewkd_det", "torch"} <= set(record["versions"])
    assert record["started"]


def test_a_resumed_run_keeps_its_record_and_a_new_one_replaces_it(tmp_path):
    write_run_record(tmp_path, ["train.py", "--resume", "A", "1"], 1, resume=True)
    assert read(tmp_path)["command"].endswith("train.py A 1")  # nothing was there to resume
    write_run_record(tmp_path, ["train.py", "--resume", "A", "2"], 1, resume=True)
    assert read(tmp_path)["command"].endswith("train.py A 1")
    write_run_record(tmp_path, ["train.py", "A", "3"], 1)
    assert read(tmp_path)["command"].endswith("train.py A 3")
