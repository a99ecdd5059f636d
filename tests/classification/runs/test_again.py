"""A run's folder used again: gone on with, finished, in use; and what is refused before."""

import json

import pytest
import torch
import yaml

from classification.build_classifier import build_classifier
from classification.config import load_config
from classification.runs.batch_statistics import check_batch_statistics
from reviewkd_det.common.runs import lock
from tests.classification.running import CONFIGS, train

ONE_EPOCH = ["SOLVER.EPOCHS", 1]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("again")
    assert train(folder, *ONE_EPOCH) == 0
    return folder


def test_a_finished_run_is_left_as_it_is(run):
    before = (run / "summary.json").read_bytes()
    assert train(run, *ONE_EPOCH, resume=True) == 0
    assert (run / "summary.json").read_bytes() == before
    assert "Nothing to train: the run in " in (run / "log.txt").read_text()


def test_other_data_is_refused_and_other_settings_are_told(run):
    before = (run / "config.yaml").read_bytes()
    with pytest.raises(ValueError, match=r"DATA.TRAIN_IMAGES must be .* to resume, 100; got 50"):
        train(run, *ONE_EPOCH, "DATA.TRAIN_IMAGES", 50, resume=True)
    assert (run / "config.yaml").read_bytes() == before
    changed = ["SOLVER.EPOCHS", 2, "SOLVER.LR", 1, "SOLVER.WEIGHT_DECAY", 1]
    assert train(run, *changed, resume=True) == 0
    solver = yaml.safe_load((run / "config.yaml").read_text())["SOLVER"]
    assert (solver["EPOCHS"], solver["LR"], solver["WEIGHT_DECAY"]) == (2, 1.0, 5e-4)
    (told,) = [x for x in (run / "log.txt").read_text().splitlines() if "other settings" in x]
    assert "from now on SOLVER.EPOCHS 2 (was 1), SOLVER.LR 1.0 (was " in told
    assert "as in the checkpoint SOLVER.WEIGHT_DECAY 0.0005 (not 1.0)" in told
    assert json.loads((run / "summary.json").read_text())["epochs"] == 2


def test_a_run_that_ends_where_it_was_is_evaluated_there(tmp_path):
    often, seldom = tmp_path / "often", tmp_path / "seldom"
    saved = ["SOLVER.EPOCHS", 2, "SOLVER.CHECKPOINT_PERIOD", 2, "SOLVER.STATES_TO_KEEP", 9]
    assert train(often, *saved) == 0
    assert train(seldom, *saved, "TEST.PERIOD", 5) == 0
    (seldom / "state" / "epoch_00002.pth").unlink()
    words = "SOLVER.EPOCHS must be more than the 1 epochs .* in the middle of the next; got 1"
    with pytest.raises(ValueError, match=words):
        train(seldom, *ONE_EPOCH, "TEST.PERIOD", 5, resume=True)
    (seldom / "state" / "epoch_00001_step_0000002.pth").unlink()
    assert train(seldom, *ONE_EPOCH, "TEST.PERIOD", 5, resume=True) == 0
    summary = json.loads((seldom / "summary.json").read_text())
    first = json.loads((often / "metrics.jsonl").read_text().splitlines()[0])
    assert summary["epochs"] == summary["last"]["epoch"] == 1
    assert [summary[key] for key in ("top1", "top5")] == [first["top1"], first["top5"]]


def test_a_run_that_trains_is_not_gone_on_with(run, monkeypatch):
    monkeypatch.setattr(lock, "WAIT_SECONDS", 0.0)
    words = "OUTPUT_DIR must belong to one run at a time"
    with lock.lock_folder(run), pytest.raises(FileExistsError, match=words):
        train(run, *ONE_EPOCH, resume=True)


def test_one_image_is_refused_where_a_level_of_one_cell_is_normalised(tmp_path, run):
    opts = ["TEACHER.NAME", "resnet8", "TEACHER.WEIGHTS", run / "last.pth", *ONE_EPOCH]
    words = "SOLVER.BATCH_SIZE .* got 5, so 1 image in DISTILL.REVIEWKD; .* to 10 or more"
    small = ["SOLVER.BATCH_SIZE", 5, "SOLVER.ACCUMULATION_STEPS", 5]
    with pytest.raises(ValueError, match=words):
        train(tmp_path, *opts, *small, config="student")


def test_one_image_is_enough_for_a_network_whose_levels_have_more_cells():
    cfg = load_config(CONFIGS / "teacher.yaml", ["MODEL.NAME", "resnet8", "SOLVER.BATCH_SIZE", "1"])
    classifier, _ = build_classifier(cfg, 10)
    here = type("Alone", (), {"num_processes": 1})
    check_batch_statistics(classifier.train(), cfg, here)
    assert classifier(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.zeros(1).long(), 1)
