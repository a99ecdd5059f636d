"""Several processes on a CPU: the losses of one, one writer, and an end when one of them dies."""

import json
import re
import shlex
import signal
import time

import psutil
import pytest

from tests.classification.running import (
    assert_same_end,
    command,
    read_lines,
    start,
    train,
    wait_for,
)

LAUNCHER = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]
# Layer norm in place of batch norm, whose statistics are those of each process's own images.
OPTIONS = ["MODEL.NAME", "timm/convnext_atto", "SOLVER.BATCH_SIZE", "20", "SOLVER.LR", "0.01",
           "DATA.TRAIN_IMAGES", "40", "SOLVER.EPOCHS", "2"]  # fmt: skip
PROCESSES = [2, pytest.param(4, marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher")
    train(folder, "SOLVER.EPOCHS", 1)
    return ["TEACHER.NAME", "resnet8", "TEACHER.WEIGHTS", str(folder / "last.pth"),
            "DISTILL.METHODS", "('KD',)"]  # fmt: skip


@pytest.fixture(scope="module")
def alone(tmp_path_factory, teacher):
    folder = tmp_path_factory.mktemp("alone")
    train(folder, *OPTIONS, *teacher, config="student")
    return folder


def finish(process, code=0):
    output, _ = process.communicate(timeout=300)
    assert process.returncode == code, output
    return output


@pytest.mark.parametrize("count", PROCESSES)
def test_several_processes_have_the_losses_of_one_and_one_writes(tmp_path, teacher, alone, count):
    run = command(tmp_path, *OPTIONS, *teacher, config="student")
    output = finish(start(*LAUNCHER, count, *run))
    assert f"on {count} x cpu" in output
    assert output.count(" Done: ") == 1
    lines, expected = read_lines(tmp_path), read_lines(alone)
    assert len(lines) == 2
    for line, other in zip(lines, expected, strict=True):
        for name in ("loss_ce", "loss_kd"):
            assert line[name] == pytest.approx(other[name], rel=1e-5)
        # Of all 500 test images, each once.
        assert line["top1"] == pytest.approx(other["top1"], abs=0.4)
        assert line["top1"] * 5 == pytest.approx(round(line["top1"] * 5), abs=1e-6)
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in alone.iterdir()}
    differences = [
        abs(line[name] / other[name] - 1)
        for line, other in zip(lines, expected, strict=True)
        for name in ("loss_ce", "loss_kd")
    ]
    print(f"{count} processes: losses differ by at most {max(differences):.1e}")


@pytest.mark.parametrize("count", PROCESSES)
def test_all_processes_stop_after_the_same_step_and_go_on(tmp_path, count):
    options = ["SOLVER.BATCH_SIZE", "20", "SOLVER.EPOCHS", "8"]
    whole = start(*LAUNCHER, count, *command(tmp_path / "whole", *options))
    process = start(*LAUNCHER, count, *command(tmp_path / "cut", *options))
    wait_for(process, "epoch 1/8")
    # One of them is told: a launcher passes SIGTERM on to each at another moment.
    psutil.Process(process.pid).children()[-1].terminate()
    output, _ = process.communicate(timeout=60)
    found = re.search(r"Stopped by SIGTERM .*; go on with: torchrun (.*)", output)
    assert found, output
    arguments = shlex.split(found[1])
    assert arguments[2] == "classification/train.py"
    finish(start("-m", "torch.distributed.run", "--standalone", *arguments))
    finish(whole)
    if count == 2:
        assert_same_end(tmp_path / "whole", tmp_path / "cut")
        return
    # The first step after a start packs gradients in another order, in which gloo then adds them.
    for name in ("whole", "cut"):
        epochs = [line["epoch"] for line in read_lines(tmp_path / name)]
        assert epochs == list(range(1, 9))


def test_a_signal_to_the_launcher_is_answered_with_a_state(tmp_path):
    process = start(*LAUNCHER, 2, *command(tmp_path, "SOLVER.BATCH_SIZE", "50"))
    wait_for(process, "epoch 1/10")
    process.terminate()
    output, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "Stopped by SIGTERM" in output
    progress = json.loads((sorted(tmp_path.glob("state/*"))[-1] / "progress.json").read_text())
    assert progress["processes"] == 2


@pytest.mark.parametrize("count", PROCESSES)
@pytest.mark.parametrize("victim", [0, pytest.param(-1, marks=pytest.mark.slow)])
def test_a_process_that_dies_ends_the_run_in_less_than_a_minute(tmp_path, count, victim):
    process = start(*LAUNCHER, count, *command(tmp_path, "SOLVER.BATCH_SIZE", "20"))
    wait_for(process, "epoch 1/10")
    workers = psutil.Process(process.pid).children()
    assert len(workers) == count
    workers[victim].send_signal(signal.SIGKILL)
    begun = time.monotonic()
    output, _ = process.communicate(timeout=60)
    print(f"{count} processes: ended {time.monotonic() - begun:.1f} s after one was killed")
    assert process.returncode not in (0, None)
    assert "SIGKILL" in output
    assert not any(worker.is_running() for worker in workers)
