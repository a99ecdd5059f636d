"""The scripts around the training: set-up and demo."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from reviewkd_det.demo.digit_scenes import write_digit_scenes

ROOT = Path(__file__).resolve().parents[1]


def run(*command, **environment):
    return subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_set_up_says_in_one_line_which_detectron2_is_used():
    done = run("tools/setup_detectron2.py")
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert line.startswith("Detectron2 0.")
    assert "snapshot" in line or "official" in line


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    write_digit_scenes(str(folder / "digit_scenes"), {"train": 160, "val": 8, "dev": 4})
    options = ["SOLVER.MAX_ITER", "4", "TEST.EVAL_PERIOD", "2", "SOLVER.WARMUP_ITERS", "0"]
    command = ["tools/demo.py", "--output", folder / "out", "--seed", "3", *options]
    done = run(*command, DETECTRON2_DATASETS=str(folder))
    assert done.returncode == 0, done.stderr[-2000:]
    return folder / "out", done


def test_the_demo_writes_its_summary(demo):
    output, _ = demo
    summary = json.loads((output / "summary.json").read_text())
    assert list(summary) == [
        "teacher",
        "baseline",
        "baseline_equal_time",
        "distilled",
        "distilled_unlabeled",
    ]
    for run_summary in summary.values():
        assert {"AP", "AP50", "AP75", "parameters", "train_seconds"} <= set(run_summary)
    teacher, student = summary["teacher"], summary["distilled"]
    assert teacher["parameters"] > 3 * student["parameters"]
    assert student["parameters"] == summary["baseline"]["parameters"]
    ratio = student["train_seconds"] / summary["baseline"]["train_seconds"]
    assert summary["baseline_equal_time"]["iterations"] == round(4 * ratio)


def test_the_demo_prints_its_table_and_every_command(demo):
    output, done = demo
    rows = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert [row.split("|")[1].strip() for row in rows[2:]] == [
        "teacher",
        "student, baseline",
        "student, baseline at equal time",
        "student, distilled",
        "student, distilled, also on unlabelled",
    ]
    assert "1,500" not in rows[2]  # the scenes are counted, not written down
    assert done.stdout.count("python tools/train_net.py --config-file configs/demo/") == 5
    assert done.stdout.count("SEED 3") == 5
    assert "saw more labels" in done.stdout
    assert str(output / "report.png") in done.stdout


def test_the_demo_draws_its_report(demo):
    output, _ = demo
    for name, colors in (("report.png", 1000), ("comparison.png", 100)):
        with Image.open(output / name) as picture:
            assert min(picture.size) > 500
            assert len(picture.convert("RGB").getcolors(2**24)) > colors
    page = (output / "report.html").read_text()
    assert "student, distilled, also on unlabelled" in page


def test_a_demo_run_that_fails_ends_in_one_sentence(tmp_path):
    options = ["SOLVER.OPTIMIZER", "Lion"]
    done = run("tools/demo.py", "--output", tmp_path, *options)
    assert done.returncode == 1
    assert "demo.py: error: a run failed: " in done.stderr
    assert "SOLVER.OPTIMIZER must be SGD or AdamW; got Lion" in done.stderr
    assert "Traceback" not in done.stderr
