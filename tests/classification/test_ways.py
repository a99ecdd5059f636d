"""Teaching without another network: a virtual teacher, the student's average, generations."""

import json
import logging
import subprocess
import sys

import pytest
import torch
from torch import nn

from classification.config import load_config
from classification.own_average import teacher_from_average
from reviewkd_det.common.runs.average import MovingAverage
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


def test_the_teacher_is_the_average_with_each_batchs_statistics():
    student = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5))
    average = MovingAverage(student, 0.9).eval()
    teacher = teacher_from_average(average.module).train()
    kept = {name: value.clone() for name, value in average.state_dict().items()}
    images = torch.randn(8, 3, 6, 6) * 5 + 3
    output = teacher(images)
    zero, one = torch.zeros(4), torch.ones(4)
    torch.testing.assert_close(output.mean((0, 2, 3)), zero, atol=1e-5, rtol=0)
    torch.testing.assert_close(output.var((0, 2, 3), correction=0), one, atol=1e-3, rtol=0)
    assert all(torch.equal(value, kept[name]) for name, value in average.state_dict().items())
    with torch.no_grad():
        student[1].bias.fill_(2.0)
    average.update_parameters(student)
    torch.testing.assert_close(teacher(images), output + 2.0)


def test_a_student_is_not_led_astray_by_its_average(tmp_path):
    """With the statistics that the average keeps, the loss on the labels was 12 at its highest."""
    decay = [*AVERAGE[:-1], 0.98, "SOLVER.BATCH_SIZE", 20]
    options = ["SOLVER.EPOCHS", 15, *decay, "DISTILL.METHODS", "('KD',)"]
    assert train(tmp_path, *options, config="student") == 0
    rows = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert max(row["loss_ce"] for row in rows) < 3.0


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
