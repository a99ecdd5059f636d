"""Several processes on the CPU: the same training as one, one writer, no hang when one dies."""

import json
import os
import shutil
import signal
import time

import numpy as np
import psutil
import pytest

from tests.d2 import scenes, tiny
from tests.d2.runs.running import assert_same_end, finish, run_here, start, state, wait_for

# What makes a step independent of how images are shared: every anchor and proposal counts, the same
# number in each image, and no statistics of a batch.
MODEL = tiny.merged(tiny.R_CNN, {
    "RPN": {"BATCH_SIZE_PER_IMAGE": 100_000, "NMS_THRESH": 1.0, "POST_NMS_TOPK_TRAIN": 20},
    "PROPOSAL_GENERATOR": {"MIN_SIZE": 0},
    "ROI_HEADS": {"BATCH_SIZE_PER_IMAGE": 1000, "PROPOSAL_APPEND_GT": False},
})  # fmt: skip
ANY_PORT = ["--dist-url", "auto"]  # of several runs at once
TWO = [*ANY_PORT, "--num-gpus", "2"]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    tiny.save_teacher(folder, MODEL={"FPN": {"OUT_CHANNELS": 32}})  # what GroupNorm divides
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scenes, "SIZES", [(64, 96)] * 4)  # or padding depends on the batch's images
        solver = {"IMS_PER_BATCH": 4, "MAX_ITER": 4, "BASE_LR": 1e-6, "CHECKPOINT_PERIOD": 2}
        tree = scenes.run_tree(folder, "processes", **solver)
    tree["MODEL"] = {"RESNETS": {"NORM": "FrozenBN"}}
    tree["DATALOADER"]["ASPECT_RATIO_GROUPING"] = False
    # A weight that is measured sees the images of a part of a step alone.
    review = {"NORM": "GN", "MID_CHANNELS": 32, "WARMUP_ITERS": 2, "LOSS_WEIGHT": 1.0}
    return tiny.save_student(folder, MODEL, {"REVIEWKD": review}, **tree)


@pytest.fixture(scope="module")
def one(config, tmp_path_factory):
    output = tmp_path_factory.mktemp("one")
    with pytest.MonkeyPatch.context() as patch:
        assert run_here(patch, config, output) == 0
    return output


@pytest.fixture(scope="module")
def two(config, tmp_path_factory):
    output = tmp_path_factory.mktemp("two")
    finish(start(config, output, *TWO))
    return output


def last_losses(folder):
    """The losses of the last iteration, of which the first line is."""
    line, *_ = (folder / "metrics.json").read_text().splitlines()
    return {name: value for name, value in json.loads(line).items() if "loss" in name}


def results(folder):
    return json.loads((folder / "summary.json").read_text())["results"]


def assert_same_training(several, one):
    weights = state(several)["model"]
    for name, value in state(one)["model"].items():
        assert weights[name].numpy() == pytest.approx(value.numpy(), rel=1e-5, abs=1e-7), name
    losses, losses_of_one = last_losses(several), last_losses(one)
    assert losses == pytest.approx(losses_of_one, rel=1e-5)
    shares = sum(value for name, value in losses.items() if "/" in name)
    assert losses["loss_reviewkd"] == pytest.approx(shares)
    assert shares > 0
    error = max(abs(losses[name] / value - 1) for name, value in losses_of_one.items() if value)
    print(f"losses differ by at most {error:.1e}, relatively")
    assert results(several)["bbox"].keys() == results(one)["bbox"].keys()
    names = [sorted(path.name for path in folder.glob("model*")) for folder in (one, several)]
    assert names[0] == names[1]


ACCUMULATED = ["SOLVER.ACCUMULATION_STEPS", "2"]


def test_accumulated_steps_train_as_whole_ones(config, one, tmp_path, monkeypatch):
    assert run_here(monkeypatch, config, tmp_path, *ACCUMULATED) == 0
    assert_same_training(tmp_path, one)


@pytest.mark.slow
def test_processes_that_accumulate_average_and_end_early_do_so_together(config, one, tmp_path):
    finish(start(config, tmp_path / "two", *TWO, *ACCUMULATED))
    assert_same_training(tmp_path / "two", one)
    more = ["SOLVER.EMA_DECAY", "0.9", "TEST.EVAL_PERIOD", "1", "TEST.PATIENCE", "1"]
    finish(start(config, tmp_path / "ended", *TWO, *ACCUMULATED, *more, "SOLVER.MAX_ITER", "9"))
    summary = json.loads((tmp_path / "ended" / "summary.json").read_text())
    assert summary["stopped_early"]
    assert state(tmp_path / "ended")["iteration"] + 1 == summary["iterations"] < 9


def test_two_processes_train_as_one(one, two):
    assert_same_training(two, one)


def test_two_processes_find_the_weight_of_one(config, tmp_path, monkeypatch):
    auto = ["MODEL.DISTILL.REVIEWKD.LOSS_WEIGHT", "auto"]
    assert run_here(monkeypatch, config, tmp_path / "one", *auto) == 0
    finish(start(config, tmp_path / "two", *TWO, *auto))
    found, expected = (
        state(tmp_path / name)["methods"]["ReviewKD.gradient_share._extra_state"]
        for name in ("two", "one")
    )
    # Each process alone would find another one, of its own images.
    assert found["weight"] == pytest.approx(expected["weight"], rel=1e-3)
    assert expected["weight"] != 1.0


@pytest.mark.slow
def test_four_processes_train_as_one(config, one, tmp_path):
    finish(start(config, tmp_path, *ANY_PORT, "--num-gpus", "4"))
    assert_same_training(tmp_path, one)


def test_two_processes_go_on_bit_for_bit(config, two, tmp_path):
    for name in ("config.yaml", "model_0000001.pth"):
        shutil.copy(two / name, tmp_path)
    finish(start(config, tmp_path, *TWO, "--resume"))
    assert_same_end(tmp_path, two)


def predictions(folder):
    """What was detected, in an order of its own."""
    (path,) = folder.rglob("coco_instances_results.json")
    found = json.loads(path.read_text())
    return sorted((x["image_id"], round(x["score"], 4), *np.round(x["bbox"], 1)) for x in found)


def test_two_processes_evaluate_the_statistics_that_are_saved(config, tmp_path, monkeypatch):
    opts = ["MODEL.RESNETS.NORM", "BN", "SOLVER.MAX_ITER", "2", "MODEL.DISTILL.METHODS", "()"]
    opts += ["MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.01"]
    finish(start(config, tmp_path / "two", *TWO, *opts))
    weights = ["MODEL.WEIGHTS", str(tmp_path / "two" / "model_final.pth")]
    opts = ["--eval-only", *opts, *weights]
    assert run_here(monkeypatch, config, tmp_path / "one", *opts) == 0
    found = predictions(tmp_path / "two")
    assert len(found) > 3
    assert found == predictions(tmp_path / "one")


def test_two_processes_that_are_asked_to_stop_save(config, tmp_path):
    process = start(config, tmp_path, *TWO, "SOLVER.MAX_ITER", "100000")
    assert wait_for(lambda: any(tmp_path.glob("model_0*.pth")), process)
    process.terminate()
    assert "Stopped by SIGTERM after iteration " in finish(process, 143)
    assert not any(tmp_path.glob("*.part"))


def test_a_process_that_dies_ends_the_run_in_a_minute(config, tmp_path):
    process = start(config, tmp_path, *TWO, "SOLVER.MAX_ITER", "100000")
    assert wait_for(lambda: any(tmp_path.glob("model_0*")), process)  # in the midst of its steps
    children = psutil.Process(process.pid).children()
    workers = [child for child in children if "spawn_main" in " ".join(child.cmdline())]
    assert len(workers) == 2
    os.kill(workers[-1].pid, signal.SIGKILL)
    begun = time.monotonic()
    assert "train_net.py: error: " in finish(process, 1)
    assert time.monotonic() - begun < 60
