"""The record of what started a run."""

import json
import shlex

import pytest

from reviewkd_det.common.runs.record import start_command, write_run_record


def read(folder):
    return json.loads((folder / "run.json").read_text())


def test_the_command_can_be_pasted(monkeypatch):
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    argv = ["tools/train_net.py", "--config-file", "my student.yaml", "SEED", "1"]
    assert shlex.split(start_command(argv, 2)) == ["python", *argv]
    assert start_command(["/opt/bin/reviewkd-train", "--help"], 1) == "reviewkd-train --help"


@pytest.mark.parametrize("flag", ["--resume", "--res", "--overwrite", "--overw"])
def test_what_a_start_did_to_an_earlier_run_is_no_part_of_the_command(flag):
    assert start_command(["train.py", flag, "A", "1"], 1) == "python train.py A 1"


@pytest.mark.parametrize(
    ("here", "processes", "launcher"),
    [
        ("1", 1, "python"),
        ("2", 2, "torchrun --nproc_per_node 2"),
        ("4", 8, "torchrun --nnodes 2 --nproc_per_node 4"),
    ],
)
def test_the_launcher_of_several_processes_is_named(monkeypatch, here, processes, launcher):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", here)
    assert start_command(["train.py"], processes) == f"{launcher} train.py"


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
