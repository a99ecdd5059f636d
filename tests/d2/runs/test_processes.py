"""Several processes on the CPU: the same training as one, one writer, no hang when one dies."""

import json
import os
import signal
import subprocess
import time

import pytest
import torch

from tests.d2 import scenes, tiny
from tests.d2.runs import interrupted
from tests.d2.runs.interrupted import finish, start, wait_for

# What makes a step independent of how images are shared: every anchor and proposal counts, the same
# number in each image, and no statistics of a batch.
MODEL = tiny.merged(tiny.R_CNN, {
    "RPN": {"BATCH_SIZE_PER_IMAGE": 100_000, "NMS_THRESH": 1.0, "POST_NMS_TOPK_TRAIN": 20},
    "PROPOSAL_GENERATOR": {"MIN_SIZE": 0},
    "ROI_HEADS": {"BATCH_SIZE_PER_IMAGE": 1000, "PROPOSAL_APPEND_GT": False},
})  # fmt: skip


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    tiny.save_teacher(folder, MODEL={"FPN": {"OUT_CHANNELS": 32}})  # what GroupNorm divides
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scenes, "SIZES", [(64, 96)] * 4)  # or padding depends on the batch's images
        tree = scenes.run_tree(folder, "processes", IMS_PER_BATCH=4, MAX_ITER=4, BASE_LR=1e-6)
    tree["MODEL"] = {"RESNETS": {"NORM": "FrozenBN"}}
    tree["DATALOADER"]["ASPECT_RATIO_GROUPING"] = False
    distill = {"REVIEWKD": {"NORM": "GN", "MID_CHANNELS": 32, "WARMUP_ITERS": 2}}
    return tiny.save_student(folder, MODEL, distill, **tree)


def run(config, output, processes):
    started = start(config, output, "--num-gpus", str(processes))
    text = finish(started)
    assert started.returncode == 0, text
    weights = torch.load(output / "model_final.pth", weights_only=True)["model"]
    return weights, json.loads((output / "summary.json").read_text()), text


def lines(folder):
    return (folder / "metrics.json").read_text().splitlines()


def last_losses(folder):
    return {name: value for name, value in json.loads(lines(folder)[0]).items() if "loss" in name}


@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_several_processes_train_as_one(config, tmp_path, processes):
    one, summary_of_one, _ = run(config, tmp_path / "one", 1)
    several, summary, _ = run(config, tmp_path / "several", processes)
    for name, value in one.items():
        torch.testing.assert_close(several[name], value, rtol=1e-5, atol=1e-7, msg=name)
    losses, losses_of_one = last_losses(tmp_path / "several"), last_losses(tmp_path / "one")
    assert losses == pytest.approx(losses_of_one, rel=1e-5)
    shares = sum(value for name, value in losses.items() if "/" in name)
    assert losses["loss_reviewkd"] == pytest.approx(shares)
    assert shares > 0
    error = max(abs(losses[name] / value - 1) for name, value in losses_of_one.items() if value)
    print(f"{processes} processes: losses differ by at most {error:.1e}, relatively")
    assert summary["results"]["bbox"].keys() == summary_of_one["results"]["bbox"].keys()
    names = [sorted(p.name for p in (tmp_path / x).glob("model*")) for x in ("one", "several")]
    assert names[0] == names[1]
    assert len(lines(tmp_path / "several")) == len(lines(tmp_path / "one"))


def test_a_process_that_dies_ends_the_run_in_a_minute(config, tmp_path):
    process = start(config, tmp_path, "--num-gpus", "2", "SOLVER.MAX_ITER", "100000")
    assert wait_for(lambda: any(tmp_path.glob("events*")), process)
    command = ["pgrep", "-P", str(process.pid), "-f", "spawn_main"]
    children = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert len(children) == 2
    time.sleep(3)  # in the midst of its steps
    os.kill(int(children[-1]), signal.SIGKILL)
    begun = time.monotonic()
    text = finish(process)
    assert time.monotonic() - begun < 60
    assert process.returncode == 1, text
    assert "train_net.py: error: " in text


def test_a_run_of_several_that_is_asked_to_stop_saves(config, tmp_path):
    process = start(config, tmp_path, "--num-gpus", "2", "SOLVER.MAX_ITER", "100000")
    assert wait_for(lambda: any(tmp_path.glob("events*")), process)
    time.sleep(3)
    process.terminate()
    text = finish(process)
    assert process.returncode == 143, text
    assert "Stopped by SIGTERM after iteration " in text
    assert len(list(tmp_path.glob("model_0*.pth"))) == 1
    assert not interrupted.wait_for(lambda: any(tmp_path.glob("*.part")), process)
