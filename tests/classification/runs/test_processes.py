"""Several processes on a CPU: the losses of one, one writer, and an end when one of them dies."""

import re
import shutil
import signal
import time

import psutil
import pytest
import torch
from torchvision.transforms.v2.functional import to_pil_image

from classification.config import load_config
from classification.data import load_source
from classification.networks import build_model
from classification.reading.preprocess import Preprocess
from tests.classification.running import (
    assert_same,
    command,
    finish,
    here,
    last_state,
    read_lines,
    start,
    train,
    wait_for,
)

LAUNCHER = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]
# Layer norm in place of batch norm, whose statistics are those of each process's own images.
OPTIONS = ["MODEL.NAME", "timm/convnext_atto", "SOLVER.BATCH_SIZE", "20", "SOLVER.LR", "0.01",
           "DATA.TRAIN_IMAGES", "20", "SOLVER.EPOCHS", "2"]  # fmt: skip


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """Options of a distilled run, half of whose images have no label."""
    folder = tmp_path_factory.mktemp("teacher")
    train(folder, "SOLVER.EPOCHS", 1)
    (folder / "more").mkdir()
    for number, image in enumerate(load_source("digits", "").train.images[:20]):
        to_pil_image(image).save(folder / "more" / f"{number}.png")
    return ["TEACHER.NAME", "resnet8", "TEACHER.WEIGHTS", str(folder / "last.pth"),
            "DISTILL.METHODS", "('KD',)", "DATA.UNLABELED", str(folder / "more"),
            "DATA.LOADER", "device"]  # fmt: skip


@pytest.fixture(scope="module")
def alone(tmp_path_factory, teacher):
    folder = tmp_path_factory.mktemp("alone")
    train(folder, *OPTIONS, *teacher, config="student")
    return folder


@pytest.fixture(scope="module")
def two(tmp_path_factory, teacher):
    folder = tmp_path_factory.mktemp("two")
    output = finish(start(*LAUNCHER, 2, *command(folder, *OPTIONS, *teacher, config="student")))
    assert "on 2 x cpu" in output
    assert output.count(" Done: ") == 1
    return folder


def assert_same_losses(folder, alone):
    lines, expected = read_lines(folder), read_lines(alone)
    assert len(lines) == 2
    differences = []
    for line, other in zip(lines, expected, strict=True):
        for name in ("loss_ce", "loss_kd"):
            assert line[name] == pytest.approx(other[name], rel=1e-5)
            differences.append(abs(line[name] / other[name] - 1))
        # Of all 500 test images, each once.
        assert line["top1"] == pytest.approx(other["top1"], abs=0.4)
        assert line["top1"] * 5 == pytest.approx(round(line["top1"] * 5), abs=1e-6)
    assert {path.name for path in folder.iterdir()} == {path.name for path in alone.iterdir()}
    print(f"losses differ by at most {max(differences):.1e}")


@pytest.mark.slow
def test_two_processes_train_networks_together_as_one_does(tmp_path):
    peers = ["DISTILL.METHODS", "('DML',)", "PEERS.NAMES", "('timm/convnext_atto',)",
             "PEERS.EXCHANGE_PERIOD", "2", "DATA.LOADER", "device"]  # fmt: skip
    train(tmp_path / "one", *OPTIONS, *peers)
    finish(start(*LAUNCHER, 2, *command(tmp_path / "two", *OPTIONS, *peers)))
    for line, other in zip(read_lines(tmp_path / "two"), read_lines(tmp_path / "one"), strict=True):
        for name in ("loss_ce", "loss_ce_peers", "loss_dml"):
            assert line[name] == pytest.approx(other[name], rel=1e-4)


def test_two_processes_have_the_losses_of_one_and_one_writes(two, alone):
    assert_same_losses(two, alone)


@pytest.mark.slow
def test_four_processes_have_the_losses_of_one(tmp_path, teacher, alone):
    finish(start(*LAUNCHER, 4, *command(tmp_path, *OPTIONS, *teacher, config="student")))
    assert_same_losses(tmp_path, alone)


def test_two_processes_go_on_bit_for_bit(tmp_path, teacher, two):
    (tmp_path / "state").mkdir()
    shutil.copy(two / "state" / "epoch_00001.pth", tmp_path / "state")
    shutil.copy(two / "metrics.jsonl", tmp_path)
    run = command(tmp_path, *OPTIONS, *teacher, config="student", resume=True)
    finish(start(*LAUNCHER, 2, *run))
    assert_same(last_state(tmp_path), last_state(two))
    assert read_lines(tmp_path) == read_lines(two)


@pytest.mark.parametrize("decay", ["0.0", "0.1"])
def test_two_processes_evaluate_the_statistics_that_are_saved(tmp_path, decay):
    batch_norm = ["SOLVER.BATCH_SIZE", "4", "SOLVER.EPOCHS", "1", "SOLVER.EMA_DECAY", decay]
    finish(start(*LAUNCHER, 2, *command(tmp_path, *batch_norm)))
    cfg = load_config(tmp_path / "config.yaml")
    model = build_model(cfg.MODEL.NAME, str(tmp_path / "last.pth"), 10, "MODEL").eval()
    preprocess = Preprocess(cfg.INPUT.MEAN, cfg.INPUT.STD)
    test = load_source("digits", "").test
    with torch.no_grad():
        best = here(lambda: model(preprocess(test.load(cfg.INPUT.SIZE))).argmax(1))
    hits = int((best == test.labels).sum())
    assert read_lines(tmp_path)[0]["top1"] == pytest.approx(hits / 5)


# The second told is the launcher, which passes SIGTERM on to each process at another moment.
@pytest.mark.slow
@pytest.mark.parametrize("to_launcher", [False, True])
def test_all_processes_stop_after_the_same_step(tmp_path, to_launcher):
    process = start(*LAUNCHER, 2, *command(tmp_path, "SOLVER.BATCH_SIZE", "20"))
    wait_for(process, "epoch 1/10")
    told = psutil.Process(process.pid)
    (told if to_launcher else told.children()[-1]).terminate()
    output, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert re.search("Stopped by SIGTERM .* torchrun --nproc_per_node 2 classification/", output)
    assert last_state(tmp_path)["progress"]["processes"] == 2


# That is torchrun's work; tests/d2/runs/test_processes.py asks it of Detectron2's launcher.
@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("victim", [0, -1])
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
