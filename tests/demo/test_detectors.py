"""The detection demo on a few scenes, for a few iterations."""

import json
import os
import re
from pathlib import Path

import pytest
from detectron2.data import MetadataCatalog
from PIL import Image

from reviewkd_det.commands import demo as command
from reviewkd_det.demo import detectors
from reviewkd_det.demo.detectors import Progress
from reviewkd_det.demo.digit_scenes import register_digit_scenes, write_digit_scenes
from tests.demo.in_process import trained_here

OPTIONS = ["SOLVER.MAX_ITER", "16", "TEST.EVAL_PERIOD", "8", "SOLVER.WARMUP_ITERS", "0"]
OPTIONS += ["MODEL.DISTILL.TEACHER_LABELS.SCORE", "0.001"]  # of a teacher that knows nothing yet
OPTIONS += ["MODEL.DISTILL.TEACHER.OPTS", "['MODEL.ROI_HEADS.SCORE_THRESH_TEST', '0.0']"]
COUNTS = {"train": 160, "val": 8, "dev": 8, "unlabeled": 12}


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The demo's folder, and what it printed."""
    folder, printed = tmp_path_factory.mktemp("demo"), []
    write_digit_scenes(str(folder / "digit_scenes"), COUNTS)
    before = Path(MetadataCatalog.get("digit_scenes_val").image_root).parents[2]
    register_digit_scenes(str(folder))
    arguments = ["demo.py", "--output", str(folder / "out"), "--seed", "3", *OPTIONS]
    with pytest.MonkeyPatch.context() as patch, trained_here():
        patch.setattr("sys.argv", arguments)
        patch.setattr("builtins.print", lambda *words, **_: printed.extend(map(str, words)))
        patch.setattr("tqdm.tqdm.write", lambda _, text: printed.append(text))
        command.main.__wrapped__()
    register_digit_scenes(str(before))
    return folder / "out", "\n".join(printed)


def test_the_summary_has_the_numbers_of_every_run(demo):
    output, _ = demo
    summary = json.loads((output / "summary.json").read_text())
    assert list(summary) == ["teacher", "plain", "teacher_labels", "all"]
    for numbers in summary.values():
        assert {"AP", "AP50", "AP75", "parameters", "iterations", "train_seconds"} == set(numbers)
    teacher, plain, labels, everything = summary.values()
    assert teacher["parameters"] > 3 * everything["parameters"]
    assert everything["parameters"] == plain["parameters"] == labels["parameters"]
    ratio = everything["train_seconds"] / plain["train_seconds"]
    assert labels["iterations"] == round(16 * ratio)


def test_the_table_and_every_command_are_printed(demo):
    output, printed = demo
    rows = [
        [cell.strip() for cell in line.split("|")]
        for line in printed.splitlines()
        if line.startswith("|")
    ]
    assert [row[1] for row in rows[2:]] == [
        "teacher",
        "student, plain",
        "student, teacher's labels",
        "student, teacher's labels, ReviewKD and DKD",
    ]
    assert [row[6:8] for row in rows[2:]] == [["160", "0"], ["160", "0"], *[["160", "12"]] * 2]
    assert printed.count("tools/train_net.py --config-file configs/demo/") == 4
    assert printed.count("SEED 3") == 4
    assert "labels alone, which were given the same time" in printed
    assert str(output / "report.html") in printed


@pytest.mark.parametrize(("lead", "words"), [(2.0, r"\+2.0 AP over"), (-1.0, "not ahead.*-1.0 AP")])
def test_a_sentence_says_what_the_methods_gave(lead, words):
    summary = {
        "teacher_labels": {"AP": 40.0, "iterations": 30},
        "all": {"AP": 40.0 + lead, "iterations": 20},
    }
    assert re.search(words, detectors._remark(summary))


def test_the_report_and_what_the_runs_detect_are_drawn(demo):
    output, _ = demo
    pictures = {path.name: path for path in output.rglob("*.png")}
    assert len([name for name in pictures if name.startswith("predictions_")]) == 4
    assert len([name for name in pictures if name.startswith("levels_all_")]) >= 4
    for name, colors in (("predictions_000001.png", 1000), ("comparison.png", 100)):
        with Image.open(pictures[name]) as picture:
            assert min(picture.size) > 500
            assert len(picture.convert("RGB").getcolors(2**24)) > colors
    assert "labels, ReviewKD and DKD" in (output / "report.html").read_text()


@pytest.mark.parametrize("has_units", [True, False])
def test_mixed_precision_is_for_processors_that_are_faster_in_it(monkeypatch, has_units):
    monkeypatch.setattr(detectors, "computes_in_bfloat16", lambda device: has_units)
    expected = ("SOLVER.AMP.ENABLED", "True") if has_units else ()
    assert detectors._precision(["MODEL.DEVICE", "cpu"]) == expected
    # What is given stands after it.
    opts = [*detectors._precision([]), "SOLVER.AMP.ENABLED", "False"]
    assert not detectors._read("student", opts).SOLVER.AMP.ENABLED


def test_the_bar_counts_the_iterations_of_all_trainings():
    with open(os.devnull, "w") as nowhere, pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stderr", nowhere)
        progress = Progress(100)
        for iteration in (19, 39, 9, 39):
            progress.follow(
                f"d2.utils.events INFO:  eta: 0:00:01  iter: {iteration}  total_loss: 2.5"
            )
        progress.follow("iter: done")
        assert progress.bar.n == 80
        assert "loss 2.5" in progress.bar.postfix
        progress.bar.close()
