"""A run that is killed or asked to stop loses nothing: it ends with the weights it would have had.

The slow tests interrupt it more often; all compare the whole of the last checkpoint bit for bit.
"""

import os
import random
import resource
import signal
import time

import pytest

from tests.d2.runs import running
from tests.d2.runs.running import (
    assert_same_end,
    differences,
    finish,
    kill,
    paste,
    run_here,
    start,
    state,
    stop_here,
    wait_for,
)

SEED = 11


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("interrupted")
    return running.prepare(
        folder, "interrupted", workers=2, eval_period=8,
        MAX_ITER=24, CHECKPOINT_PERIOD=3, CHECKPOINTS_TO_KEEP=2,
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    output = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        assert run_here(patch, config, output) == 0
    return output


def test_a_run_that_is_killed_amid_saving_ends_as_one_that_was_not(
    config, whole, tmp_path, monkeypatch
):
    process = start(config, tmp_path)
    assert wait_for(lambda: (tmp_path / "model_0000005.pth").is_file(), process)
    assert wait_for(lambda: any(tmp_path.glob("*.part")), process)
    kill(process)
    assert run_here(monkeypatch, config, tmp_path, "--resume") == 0
    for name in ("model_final", "model_best"):
        assert_same_end(tmp_path, whole, name)
    names = sorted(path.name for path in tmp_path.glob("model_[0-9]*"))
    assert names == ["model_0000020.pth", "model_0000023.pth"]


@pytest.mark.slow
def test_a_run_that_is_killed_24_times_ends_as_one_that_was_not(config, tmp_path, monkeypatch):
    longer = ["SOLVER.MAX_ITER", "600", "TEST.EVAL_PERIOD", "50"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert run_here(monkeypatch, config, whole, *longer) == 0
    chance, amid_writing = random.Random(SEED), 0
    for number in range(24):
        before = set(cut.glob("events*"))
        process = start(config, cut, "--resume", *longer)
        # Its own first, then the removal of what the one before has left half-written.
        assert wait_for(lambda before=before: set(cut.glob("events*")) > before, process)
        assert wait_for(lambda: not any(cut.glob("*.part")), process)
        if number % 2:
            wait_for(lambda: any(cut.glob("*.part")), process)
        else:
            time.sleep(chance.uniform(0, 0.5))
        assert process.poll() is None, finish(process)
        kill(process)
        amid_writing += any(cut.glob("*.part"))
    assert run_here(monkeypatch, config, cut, "--resume", *longer) == 0
    print(f"24 kills, {amid_writing} of them amid a checkpoint's writing, seed {SEED}")
    for name in ("model_final", "model_best"):
        assert_same_end(cut, whole, name)


def stop(config, output, number):
    """Send a signal to every process of a run, amid its steps; returns its last line."""
    process = start(config, output, "--overwrite")
    assert wait_for(lambda: (output / "last_checkpoint").is_file(), process)
    os.killpg(process.pid, number)
    text = finish(process, 128 + number)
    assert "Traceback" not in text
    line = next(line for line in reversed(text.splitlines()) if line.strip())
    assert f"Stopped by {number.name} after iteration " in line
    return line


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_a_signal_to_all_processes_saves_and_the_printed_command_goes_on(
    config, whole, tmp_path, monkeypatch, number
):
    stopped, _, command = stop(config, tmp_path, number).partition("; go on with: ")
    assert (tmp_path / f"model_{int(stopped.rpartition(' ')[2]):07d}.pth").is_file()
    assert not list(tmp_path.glob("*.part"))
    paste(monkeypatch, command)
    assert_same_end(tmp_path, whole)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(10))
def test_a_signal_to_all_processes_never_ends_the_workers_first(config, tmp_path, number):
    stop(config, tmp_path, signal.SIGTERM)


def test_a_run_gives_the_same_twice_and_with_any_number_of_workers(
    config, whole, tmp_path, monkeypatch
):
    assert run_here(monkeypatch, config, tmp_path, "DATALOADER.NUM_WORKERS", "0") == 0
    # Without workers the images of an evaluation are read in this process, which draws from
    # NumPy's generator; the training does not.
    found = differences(state(tmp_path), state(whole))
    assert [x for x in found if not x.startswith("/random_states/0/numpy")] == []


@pytest.mark.slow
def test_a_disk_that_is_full_ends_the_run_in_a_sentence(
    config, whole, tmp_path, monkeypatch, capsys
):
    with monkeypatch.context() as context:
        stop_here(context, iteration=5)
        assert run_here(context, config, tmp_path) == 143
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = (whole / "model_final.pth").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, limits[1]))
    try:
        assert run_here(monkeypatch, config, tmp_path, "--resume") == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "must be written as a whole; got " in error
    assert "the last good one is '" in error
    assert "model_0000005.pth'" in error
    assert not list(tmp_path.glob("*.part"))
    assert run_here(monkeypatch, config, tmp_path, "--resume") == 0
    assert_same_end(tmp_path, whole)
