"""A run that is killed or told to stop goes on and ends bit for bit as one that was not."""

import json
import os
import random
import re
import resource
import shlex
import signal
import time

import pytest

import classification.runs.evaluation
from classification.runs.trainer import Trainer
from tests.classification.running import (
    assert_same_end,
    command,
    read_lines,
    start,
    train,
    wait_for,
)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher")
    train(folder, "SOLVER.EPOCHS", 1)
    return ["TEACHER.NAME", "resnet8", "TEACHER.WEIGHTS", str(folder / "last.pth")]


def finish(process):
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


def kill_at_random(folder, draw, options, *, while_saving):
    """Start or go on with a run and kill it; returns whether, and whether a save was under way."""
    process = start(*command(folder, *options, config="student", resume=True))
    wait_for(process, "Training resnet8")
    if while_saving:
        while process.poll() is None and not list(folder.glob("state/*.part")):
            time.sleep(0.0002)
        time.sleep(draw.uniform(0, 0.01))
    else:
        time.sleep(draw.uniform(0, 1))
    process.kill()
    process.communicate(timeout=60)
    return process.returncode == -signal.SIGKILL, bool(list(folder.glob("state/*.part")))


@pytest.mark.parametrize(
    ("kills", "epochs"), [(2, 8), pytest.param(24, 150, marks=pytest.mark.slow)]
)
def test_a_run_killed_at_random_moments_ends_as_one_that_was_not(tmp_path, teacher, kills, epochs):
    options = [*teacher, "SOLVER.EPOCHS", str(epochs), "SOLVER.CHECKPOINT_PERIOD", "3"]
    whole = start(*command(tmp_path / "whole", *options, config="student"))
    draw, cut, begun = random.Random(kills), tmp_path / "cut", time.monotonic()
    done = [
        kill_at_random(cut, draw, options, while_saving=bool(number % 2)) for number in range(kills)
    ]
    assert all(killed for killed, _ in done), "the run ended before its last kill"
    finish(start(*command(cut, *options, config="student", resume=True)))
    while_saving = sum(saving for _, saving in done)
    seconds = time.monotonic() - begun
    print(
        f"seed {kills}: {kills} kills, {while_saving} in a save, {kills} resumes, {seconds:.0f} s"
    )
    assert while_saving
    finish(whole)
    assert_same_end(tmp_path / "whole", cut)


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)],
)
def test_the_printed_command_goes_on_after_a_signal_to_all_processes(tmp_path, number, code):
    # The terminal sends Ctrl-C, and a cluster SIGTERM, to the workers of the loader as well.
    options = ["SOLVER.EPOCHS", "60", "DATA.LOADER", "workers", "DATA.WORKERS", "2"]
    folder = tmp_path / "a folder"
    process = start(*command(folder, *options))
    wait_for(process, "epoch 2/60")
    time.sleep(0.15)
    os.killpg(process.pid, number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == code
    *_, last = output.splitlines()
    found = re.search(
        rf"Stopped by {number.name} (in|after) epoch \d+ of 60.*; go on with: python (.*)", last
    )
    assert found, output
    assert "Traceback" not in output
    states = sorted(path.name for path in folder.glob("state/*"))
    arguments = shlex.split(found[2])
    assert arguments[1] == "--resume"
    arguments[arguments.index("60")] = str(int(states[-1][6:11]) + 1)
    assert "Going on " in finish(start(*arguments))


def sends(monkeypatch, number, calls):
    """Let a run send itself a signal in the middle of that batch."""
    original = Trainer._train_batch

    def train_batch(self, *arguments):
        nonlocal calls
        calls -= 1
        if calls == 0:
            os.kill(os.getpid(), number)
        original(self, *arguments)

    monkeypatch.setattr(Trainer, "_train_batch", train_batch)


@pytest.mark.parametrize(
    ("batch", "state", "position"),
    [
        (9, "epoch_00001_step_0000001", "in epoch 2 of 3 after step 1 of 4"),
        (16, "epoch_00001_step_0000004", "in epoch 2 of 3 after step 4 of 4"),
        (24, "epoch_00002_step_0000004", "in epoch 3 of 3 after step 4 of 4"),
    ],
)
def test_a_signal_is_answered_after_the_whole_step(
    tmp_path, teacher, monkeypatch, capsys, batch, state, position
):
    # Two batches, of 10 and 10, are a step.
    options = [*teacher, "SOLVER.EPOCHS", 3, "SOLVER.ACCUMULATION_STEPS", 2]
    options += ["SOLVER.BATCH_SIZE", 20, "DATA.TRAIN_IMAGES", 80]
    assert train(tmp_path / "whole", *options, config="student") == 0
    with monkeypatch.context() as context:
        sends(context, signal.SIGTERM, batch)
        assert train(tmp_path / "cut", *options, config="student") == 143
    assert position in capsys.readouterr().out.splitlines()[-1]
    assert sorted(path.name for path in tmp_path.glob("cut/state/*"))[-1] == state
    assert train(tmp_path / "cut", *options, config="student", resume=True) == 0
    assert_same_end(tmp_path / "whole", tmp_path / "cut")


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

    monkeypatch.setattr("classification.runs.trainer.evaluate", evaluate)
    assert train(tmp_path, "SOLVER.EPOCHS", epochs) == code
    assert said in capsys.readouterr().out.splitlines()[-1]
    assert len(read_lines(tmp_path)) == 1
    assert [path.name for path in tmp_path.glob("state/*")] == ["epoch_00001"]


def test_the_random_numbers_of_the_network_go_on(tmp_path, monkeypatch):
    # Its dropout draws from the random state of the training.
    options = ["MODEL.NAME", "torchvision/squeezenet1_1", "SOLVER.EPOCHS", 2, "SOLVER.LR", 0.01]
    train(tmp_path / "whole", *options)
    with monkeypatch.context() as context:
        sends(context, signal.SIGINT, 6)
        assert train(tmp_path / "cut", *options) == 130
    train(tmp_path / "cut", *options, resume=True)
    assert_same_end(tmp_path / "whole", tmp_path / "cut")
    assert len(read_lines(tmp_path / "cut")) == 2


def test_a_step_that_does_not_exist_any_more_is_an_error(tmp_path, monkeypatch):
    with monkeypatch.context() as context:
        sends(context, signal.SIGTERM, 2)
        train(tmp_path, "SOLVER.EPOCHS", 1)
    message = "must keep the 4 steps of an epoch in the middle of which it goes on; got 2; set"
    with pytest.raises(ValueError, match=message):
        train(tmp_path, "SOLVER.EPOCHS", 1, "SOLVER.BATCH_SIZE", 50, resume=True)


def test_a_state_of_another_network_is_an_error_and_no_older_one_is_taken(tmp_path, capsys):
    train(tmp_path, "SOLVER.EPOCHS", 2)
    with pytest.raises(ValueError, match=r"of the configured networks .*; got '.*epoch_00002'"):
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
            r"the last good state is '.*cut/state/epoch_00001_step_0000001'"
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
