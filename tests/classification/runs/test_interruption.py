"""A run that is killed or told to stop goes on and ends bit for bit as one that was not."""

import json
import os
import random
import resource
import signal
import time

import pytest

import classification.runs.evaluation
from tests.classification.running import (
    assert_same_end,
    command,
    paste,
    read_lines,
    sends,
    start,
    train,
    wait_for,
)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher")
    train(folder, "SOLVER.EPOCHS", 1)
    return ["TEACHER.NAME", "resnet8", "TEACHER.WEIGHTS", str(folder / "last.pth")]


def kill_amid_saving(process, folder):
    """Kill a run while it saves; returns whether it was killed in time."""
    while process.poll() is None and not list(folder.glob("state/*.part")):
        time.sleep(0.0002)
    process.kill()
    process.communicate(timeout=60)
    return process.returncode == -signal.SIGKILL


@pytest.mark.slow
def test_a_run_killed_amid_saving_ends_as_one_that_was_not(tmp_path, teacher):
    options = [*teacher, "SOLVER.EPOCHS", "6", "SOLVER.CHECKPOINT_PERIOD", "3"]
    cut = tmp_path / "cut"
    process = start(*command(cut, *options, config="student"))
    wait_for(process, "epoch 1/6")
    assert kill_amid_saving(process, cut)
    for folder in (cut, tmp_path / "whole"):
        assert train(folder, *options, config="student", resume=True) == 0
    assert_same_end(tmp_path / "whole", cut)


@pytest.mark.slow
def test_a_run_killed_24_times_ends_as_one_that_was_not(tmp_path, teacher):
    options = [*teacher, "SOLVER.EPOCHS", "150", "SOLVER.CHECKPOINT_PERIOD", "3"]
    draw, cut, saving = random.Random(24), tmp_path / "cut", 0
    for number in range(24):
        process = start(*command(cut, *options, config="student", resume=True))
        wait_for(process, "Distilling resnet8 ")
        if number % 2:
            assert kill_amid_saving(process, cut), "the run ended before its last kill"
        else:
            time.sleep(draw.uniform(0, 1))
            process.kill()
            process.communicate(timeout=60)
        saving += bool(list(cut.glob("state/*.part")))
    print(f"seed 24: 24 kills, {saving} in a save")
    for folder in (cut, tmp_path / "whole"):
        assert train(folder, *options, config="student", resume=True) == 0
    assert_same_end(tmp_path / "whole", cut)


def stop(folder, number):
    """Send a signal to every process of a run, amid its steps; returns its last line."""
    options = ["SOLVER.EPOCHS", "60", "DATA.LOADER", "workers", "DATA.WORKERS", "2"]
    process = start(*command(folder, *options))
    wait_for(process, "epoch 2/60")
    time.sleep(0.15)
    os.killpg(process.pid, number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number, output
    assert "Traceback" not in output
    return output.splitlines()[-1]


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_the_printed_command_goes_on_after_a_signal_to_all_processes(
    tmp_path, monkeypatch, capsys, number
):
    folder = tmp_path / "a folder"
    stopped, _, line = stop(folder, number).partition("; go on with: ")
    assert f"Stopped by {number.name} " in stopped
    assert line.startswith("python classification/train.py --resume ")
    reached = int(sorted(path.name for path in folder.glob("state/*"))[-1][6:11])
    paste(monkeypatch, line.replace("EPOCHS 60", f"EPOCHS {reached + 1}"))
    assert "Going on " in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("number", range(10))
def test_a_signal_to_all_processes_never_ends_the_workers_first(tmp_path, number):
    assert "Stopped by SIGTERM " in stop(tmp_path, signal.SIGTERM)


@pytest.fixture(scope="module")
def accumulated(teacher):
    """Options of a run whose steps are of two batches, of 10 and 10."""
    options = [*teacher, "SOLVER.EPOCHS", 3, "SOLVER.ACCUMULATION_STEPS", 2]
    return [*options, "SOLVER.BATCH_SIZE", 20, "DATA.TRAIN_IMAGES", 80]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, accumulated):
    folder = tmp_path_factory.mktemp("whole")
    assert train(folder, *accumulated, config="student") == 0
    return folder


@pytest.mark.parametrize(
    ("batch", "state", "position"),
    [
        (9, "epoch_00001_step_0000001.pth", "in epoch 2 of 3 after step 1 of 4"),
        (16, "epoch_00001_step_0000004.pth", "in epoch 2 of 3 after step 4 of 4"),
        (24, "epoch_00002_step_0000004.pth", "in epoch 3 of 3 after step 4 of 4"),
    ],
)
def test_a_signal_is_answered_after_the_whole_step(
    tmp_path, accumulated, whole, monkeypatch, capsys, batch, state, position
):
    with monkeypatch.context() as context:
        sends(context, signal.SIGTERM, batch)
        assert train(tmp_path, *accumulated, config="student") == 143
    assert position in capsys.readouterr().out.splitlines()[-1]
    assert sorted(path.name for path in tmp_path.glob("state/*"))[-1] == state
    assert train(tmp_path, *accumulated, config="student", resume=True) == 0
    assert_same_end(whole, tmp_path)


@pytest.mark.parametrize(
    ("epochs", "code", "said"),
    [(2, 130, "Stopped by SIGINT after epoch 1 of 2"), (1, 0, "compare it")],
)
def test_a_signal_in_an_evaluation_is_answered_after_it(
    tmp_path, monkeypatch, capsys, epochs, code, said
):
    def evaluate(*arguments):
        os.kill(os.getpid(), signal.SIGINT)
        return classification.runs.evaluation.evaluate(*arguments)

    monkeypatch.setattr("classification.runs.testing.evaluate", evaluate)
    assert train(tmp_path, "SOLVER.EPOCHS", epochs) == code
    assert said in capsys.readouterr().out.splitlines()[-1]
    assert len(read_lines(tmp_path)) == 1
    assert [path.name for path in tmp_path.glob("state/*")] == ["epoch_00001.pth"]


def test_a_step_that_does_not_exist_any_more_is_an_error(tmp_path, monkeypatch):
    with monkeypatch.context() as context:
        sends(context, signal.SIGTERM, 2)
        train(tmp_path, "SOLVER.EPOCHS", 1)
    message = "must keep the 4 steps of an epoch in the middle of which it goes on; got 2; set"
    with pytest.raises(ValueError, match=message):
        train(tmp_path, "SOLVER.EPOCHS", 1, "SOLVER.BATCH_SIZE", 50, resume=True)


def test_a_state_of_another_network_is_an_error_and_no_older_one_is_taken(tmp_path, capsys):
    train(tmp_path, "SOLVER.EPOCHS", 2)
    with pytest.raises(ValueError, match=r"of the configured networks .*; got '.*epoch_00002.pth'"):
        train(tmp_path, "SOLVER.EPOCHS", 3, "MODEL.NAME", "resnet14", resume=True)
    # Nothing was written: the folder still describes its own run.
    assert "resnet8" in (tmp_path / "config.yaml").read_text()
    train(tmp_path, "SOLVER.EPOCHS", 3, resume=True)
    assert "Going on after epoch 2 of 3" in capsys.readouterr().out


def test_a_full_disk_is_a_sentence_and_the_run_goes_on_from_its_last_state(tmp_path, monkeypatch):
    train(tmp_path / "whole", "SOLVER.EPOCHS", 3)
    with monkeypatch.context() as context:
        sends(context, signal.SIGTERM, 5)
        train(tmp_path / "cut", "SOLVER.EPOCHS", 3)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        message = (
            r"cut/last.pth' must be written as a whole; got .* on a disk with [\d,.]+ MB free; "
            r"the last good one is '.*cut/state/epoch_00001_step_0000001.pth'"
        )
        with pytest.raises(OSError, match=message):
            train(tmp_path / "cut", "SOLVER.EPOCHS", 3, resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    train(tmp_path / "cut", "SOLVER.EPOCHS", 3, resume=True)
    assert_same_end(tmp_path / "whole", tmp_path / "cut")


def test_a_run_that_died_between_the_line_and_the_state_repeats_both(tmp_path):
    train(tmp_path, "SOLVER.EPOCHS", 2)
    lines = (tmp_path / "metrics.jsonl").read_text()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"epoch": 3, "loss_ce": 9.0}) + '\n{"epo')
    train(tmp_path, "SOLVER.EPOCHS", 3, resume=True)
    assert (tmp_path / "metrics.jsonl").read_text().startswith(lines)
    assert [line["epoch"] for line in read_lines(tmp_path)] == [1, 2, 3]
