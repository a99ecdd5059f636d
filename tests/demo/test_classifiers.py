"""The classification demo on a few digits, for an epoch."""

import json

from reviewkd_det.demo.classifiers import compare_classifiers
from tests.demo.in_process import trained_here

SMALL = [
    *("SOLVER.EPOCHS", "1", "DATA.TRAIN_IMAGES", "100", "MODEL.NAME", "resnet8"),
    *("TEACHER.NAME", "resnet8", "TRACKERS", "()", "SOLVER.WARMUP_EPOCHS", "0.0", "SEED", "3"),
]


def test_a_teacher_and_its_students_are_compared(tmp_path):
    with trained_here():
        table = compare_classifiers(tmp_path, SMALL)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert set(summary) == {"teacher", "baseline", "distilled", "baseline_equal_time"}
    for run in summary.values():
        assert {"top1", "top5", "train_seconds"} <= set(run)
        assert run["seed"] == 3
    assert summary["distilled"]["methods"] == ["ReviewKD"]
    assert summary["baseline"]["methods"] == []
    assert "| student, distilled" in table
