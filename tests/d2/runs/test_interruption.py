"""A run that is killed or asked to stop loses nothing: it ends with the weights it would have had.

The slow test kills it more often; both compare all of the last checkpoint bit for bit.
"""

import os
import resource
import shlex
import signal
import subprocess
import sys

import pytest

from tests.d2.runs import interrupted
from tests.d2.runs.interrupted import differences, finish, start, state, wait_for

SEED = 11


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("interrupted")
    return interrupted.prepare(
        folder, "interrupted", MAX_ITER=90, CHECKPOINT_PERIOD=3, CHECKPOINTS_TO_KEEP=2
    )


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    output = tmp_path_factory.mktemp("whole")
    text = finish(start(config, output))
    assert (output / "model_final.pth").is_file(), text
    return output


@pytest.mark.parametrize("kills", [3, pytest.param(24, marks=pytest.mark.slow)])
def test_a_killed_run_ends_as_one_that_was_not(config, whole, tmp_path, kills, capsys):
    amid_writing = interrupted.run_with_kills(config, tmp_path, kills, SEED)
    with capsys.disabled():
        print(f"\n{kills} kills, {amid_writing} of them amid a checkpoint's writing, seed {SEED}")
    assert list(differences(state(tmp_path), state(whole))) == []
    best = [state(folder, "model_best") for folder in (tmp_path, whole)]
    assert list(differences(*best)) == []
    names = sorted(path.name for path in tmp_path.glob("model_[0-9]*"))
    assert names == ["model_0000086.pth", "model_0000089.pth"]


@pytest.mark.parametrize(
    ("number", "send", "code"),
    [(signal.SIGTERM, os.kill, 143), (signal.SIGINT, os.killpg, 130)],
    ids=["SIGTERM to the run", "Ctrl-C in its terminal"],
)
def test_a_run_that_is_asked_to_stop_saves_and_says_how_to_go_on(
    config, whole, tmp_path, number, send, code
):
    process = start(config, tmp_path)
    assert wait_for(lambda: (tmp_path / "last_checkpoint").is_file(), process)
    send(process.pid, number)
    text = finish(process)
    assert process.returncode == code, text
    assert "Traceback" not in text
    line = next(line for line in reversed(text.splitlines()) if line.strip())
    stopped, _, command = line.partition("; go on with: ")
    assert f"Stopped by {number.name} after iteration " in stopped
    iteration = int(stopped.rpartition(" ")[2])
    assert (tmp_path / f"model_{iteration:07d}.pth").is_file()
    assert not list(tmp_path.glob("*.part"))
    arguments = shlex.split(command)
    assert arguments[0] == "python"
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *arguments[1:]], cwd=interrupted.ROOT, env=env,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert list(differences(state(tmp_path), state(whole))) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_gives_the_same_twice_and_with_any_number_of_workers(
    config, whole, tmp_path, workers
):
    finish(start(config, tmp_path, "DATALOADER.NUM_WORKERS", str(workers)))
    # Without workers the images of an evaluation are read in this process, which draws from
    # NumPy's generator; the training does not.
    found = differences(state(tmp_path), state(whole))
    assert [x for x in found if not x.startswith("/random_states/0/numpy")] == []


def test_a_disk_that_is_full_ends_the_run_in_a_sentence(config, whole, tmp_path):
    size = (whole / "model_final.pth").stat().st_size
    process = start(config, tmp_path)
    assert wait_for(lambda: (tmp_path / "last_checkpoint").is_file(), process)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size // 2, size // 2))
    text = finish(process)
    assert process.returncode == 1, text
    error = text.splitlines()[-1]
    assert "error: checkpoint must be written; got " in error
    assert "; the last good one is '" in error
    assert not list(tmp_path.glob("*.part"))
    text = finish(start(config, tmp_path, "--resume"))
    assert list(differences(state(tmp_path), state(whole))) == [], text
