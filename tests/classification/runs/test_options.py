"""Averaged weights, early stopping, trackers, and a run with every option that goes on exactly."""

import json
import logging
import signal

import pytest
import torch
from accelerate.tracking import TensorBoardTracker

from classification.runs import testing
from reviewkd_det.common.runs.trackers import read_ids
from tests.classification.running import assert_same_end, last_state, read_lines, sends, train

EVERYTHING = [
    "SOLVER.EPOCHS", 1, "SOLVER.OPTIMIZER", "AdamW", "SOLVER.LR", 0.001,
    "SOLVER.LABEL_SMOOTHING", 0.1, "SOLVER.EMA_DECAY", 0.9, "SOLVER.BATCH_SIZE", 20,
    "SOLVER.ACCUMULATION_STEPS", 2, "INPUT.MIXUP", 0.2, "INPUT.CUTMIX", 1.0,
    "INPUT.RANDOM_ERASING", 0.5, "TEST.PATIENCE", 9, "DISTILL.METHODS", '("ReviewKD", "KD")',
]  # fmt: skip


@pytest.fixture(autouse=True)
def _clean_log():
    yield
    logging.getLogger("classification").handlers.clear()


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher")
    train(folder, "SOLVER.EPOCHS", 1)
    return ["TEACHER.NAME", "resnet8", "TEACHER.WEIGHTS", folder / "last.pth"]


def summary_of(folder):
    return json.loads((folder / "summary.json").read_text())


@pytest.mark.parametrize("loader", ["device", "workers"])
def test_a_run_with_every_option_goes_on_exactly(tmp_path, teacher, monkeypatch, loader):
    opts = [*EVERYTHING, *teacher, "DATA.LOADER", loader, "DATA.WORKERS", 0]
    train(tmp_path / "whole", *opts, config="student")
    with monkeypatch.context() as context:
        sends(context, signal.SIGTERM, calls=4)
        assert train(tmp_path / "cut", *opts, config="student") == 143
    assert train(tmp_path / "cut", *opts, config="student", resume=True) == 0
    assert_same_end(tmp_path / "cut", tmp_path / "whole")
    state, saved = last_state(tmp_path / "whole"), torch.load(tmp_path / "whole" / "last.pth")
    assert state["average"]["n_averaged"] == 5  # once for each step
    weight = "net.conv1.weight"
    assert torch.equal(saved["conv1.weight"], state["average"][f"module.{weight}"])
    assert not torch.equal(saved["conv1.weight"], state["model"][f"student.{weight}"])


def test_an_average_needs_its_run(tmp_path):
    train(tmp_path, "SOLVER.EPOCHS", 1, "SOLVER.EMA_DECAY", 0.9)
    with pytest.raises(ValueError, match=r"SOLVER.EMA_DECAY is 0, and the state has an average"):
        train(tmp_path, "SOLVER.EPOCHS", 2, resume=True)


def test_training_ends_where_results_grow_no_better(tmp_path, monkeypatch, capsys):
    scores = iter([10.0, 30.0])
    monkeypatch.setattr(testing, "evaluate", lambda *_: {"top1": next(scores), "top5": 50.0})
    opts = ["SOLVER.EPOCHS", 6, "TEST.PATIENCE", 2, "SOLVER.LR", 0.01]
    sends(monkeypatch, signal.SIGTERM, calls=10)  # amid the third epoch
    assert train(tmp_path, *opts) == 143
    monkeypatch.undo()
    scores = iter([20.0, 30.0, 50.0])
    monkeypatch.setattr(testing, "evaluate", lambda *_: {"top1": next(scores), "top5": 50.0})
    assert train(tmp_path, *opts, resume=True) == 0
    words = "Training ends after epoch 4 of 6: 2 evaluations in a row gave no better top-1; the"
    assert words in capsys.readouterr().out
    summary = summary_of(tmp_path)
    assert (summary["epochs"], summary["stopped_early"]) == (4, True)
    assert summary["best"]["epoch"] == 2
    assert train(tmp_path, *opts, resume=True) == 0  # has ended
    assert summary_of(tmp_path)["epochs"] == 4


def test_a_tracker_that_fails_is_warned_of_once_and_kills_nothing(tmp_path, monkeypatch, capsys):
    def fails(*_, **__):
        raise ConnectionError("no network")

    monkeypatch.setattr(TensorBoardTracker, "log", fails)
    train(tmp_path, "SOLVER.EPOCHS", 2, "TRACKERS", '("tensorboard",)')
    text = "tensorboard takes no more of this run: ConnectionError: no network"
    assert capsys.readouterr().out.count(text) == 1
    assert len(read_lines(tmp_path)) == 2


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_resumed_run_goes_on_with_its_entry(tmp_path, monkeypatch, name):
    pytest.importorskip(name)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path / 'mlflow'}")
    folder, opts = tmp_path / "run", ["TRACKERS", f'("{name}",)']
    train(folder, "SOLVER.EPOCHS", 1, *opts)
    ids = read_ids(folder)
    assert set(ids) == {name}
    train(folder, "SOLVER.EPOCHS", 2, *opts, resume=True)
    assert read_ids(folder) == ids
