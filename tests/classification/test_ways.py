"""Teaching without another network: a virtual teacher, the student's average, generations."""

import json
import logging
import subprocess
import sys

import pytest
import torch

from classification.config import load_config
from tests.classification.distilling import IMAGES, TARGET, build, config
from tests.classification.running import CONFIGS, ROOT, SMALL, assert_same_end, sends, train

AVERAGE = ["TEACHER.NAME", "average", "TEACHER.WEIGHTS", "", "SOLVER.EMA_DECAY", 0.9]


@pytest.fixture(autouse=True)
def _clean_log():
    yield
    logging.getLogger("classification").handlers.clear()


def test_a_virtual_teacher_needs_no_network(tmp_path, capsys):
    options = ["SOLVER.EPOCHS", 2, "DISTILL.METHODS", "('TfKD',)", "DISTILL.TFKD.LOSS_WEIGHT", 0.5]
    assert train(tmp_path, *options) == 0
    assert "Training resnet8 (78,042 parameters) without a teacher, on 1 x cpu, with TfKD" in (
        capsys.readouterr().out
    )
    rows = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert all(row["loss_tfkd"] > 0 for row in rows)
    assert json.loads((tmp_path / "summary.json").read_text())["teacher"] == ""


def test_a_virtual_teacher_may_stand_beside_a_real_one(tmp_path):
    model, _ = build(config(tmp_path, methods=("TfKD", "KD")))
    losses = model.train()(IMAGES, TARGET, 1)
    alone, _ = build(config(methods=("TfKD",)))
    torch.testing.assert_close(alone.train()(IMAGES, TARGET, 1)["loss_tfkd"], losses["loss_tfkd"])
    assert losses["loss_kd"] > 0


@pytest.mark.parametrize("methods", ["('KD',)", "('ReviewKD', 'DKD')"])
def test_the_average_of_the_student_teaches_it_and_a_run_goes_on_exactly(
    tmp_path, monkeypatch, methods, capsys
):
    options = ["SOLVER.EPOCHS", 2, *AVERAGE, "DISTILL.METHODS", methods]
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert train(whole, *options) == 0
    assert "from the average of its own weights" in capsys.readouterr().out
    with monkeypatch.context() as patched:
        sends(patched, 2, calls=6)
        assert train(stopped, *options) == 128 + 2
    assert train(stopped, *options, resume=True) == 0
    assert_same_end(whole, stopped)


def test_the_teacher_follows_the_student(tmp_path):
    """Before the first step the two are one network; the loss grows as they part."""
    options = ["SOLVER.EPOCHS", 1, *AVERAGE, "DISTILL.METHODS", "('KD',)", "INPUT.AUGMENTATION"]
    assert train(tmp_path, *options, "none") == 0
    (row,) = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert 0 < row["loss_kd"] < row["loss_ce"]


def test_an_average_that_is_not_made_and_a_classifier_of_ones_own_are_refused():
    options = [str(x) for x in AVERAGE]
    for method, decay, words in (
        ("KD", "0.0", "EMA_DECAY must be more than 0 with TEACHER.NAME average"),
        ("SimKD", "0.9", "METHODS SimKD, whose student"),
    ):
        changes = ["DISTILL.METHODS", f"('{method}',)", *options[:-1], decay]
        with pytest.raises(ValueError, match=words):
            load_config(CONFIGS / "teacher.yaml", changes)
    with pytest.raises(ValueError, match=r"from a teacher on the images .*; got \('TfKD',\)"):
        load_config(
            CONFIGS / "teacher.yaml", ["DISTILL.METHODS", "('TfKD',)", "DATA.UNLABELED", "rest"]
        )


def test_generations_teach_each_other_and_go_on(tmp_path):
    command = [
        sys.executable, "classification/born_again.py", "--config-file",
        str(CONFIGS / "teacher.yaml"), "--generations", "2", *SMALL, "SOLVER.EPOCHS", "1",
        "OUTPUT_DIR", str(tmp_path),
    ]  # fmt: skip
    first = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    kept = [(tmp_path / f"generation_{i}" / "last.pth").read_bytes() for i in range(3)]
    cfgs = [load_config(tmp_path / f"generation_{i}" / "config.yaml") for i in range(3)]
    assert [cfg.DISTILL.METHODS for cfg in cfgs] == [(), ("KD",), ("KD",)]
    assert [cfg.TEACHER.NAME for cfg in cfgs[1:]] == ["resnet8"] * 2
    assert cfgs[2].TEACHER.WEIGHTS.endswith("generation_1/last.pth")
    assert len({cfg.SEED for cfg in cfgs}) == 3
    assert len(set(kept)) == 3
    lines = first.splitlines()[-3:]
    assert [line.split(":")[0] for line in lines] == [f"generation {i}" for i in range(3)]
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert again.splitlines()[-3:] == lines
    assert kept == [(tmp_path / f"generation_{i}" / "last.pth").read_bytes() for i in range(3)]
