"""The scripts of the package: arguments in, files, tables and sentences out."""

import json
import subprocess
import sys

import pytest
from accelerate.state import AcceleratorState

from classification import demo, train
from classification.runs.start import train_main
from reviewkd_det.common import one_sentence_errors
from tests.classification.running import CONFIGS, ROOT, SMALL, script

# Trains and evaluates where Detectron2 cannot be imported.
WITHOUT_DETECTRON2 = """
import importlib.abc, sys

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in ("detectron2", "pycocotools"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
import classification.evaluate, classification.train
folder, *training = sys.argv[1:]
sys.argv = ["train.py", *training]
classification.train.main()
sys.argv = ["evaluate.py", "--config-file", f"{folder}/config.yaml"]
classification.evaluate.main()
assert "detectron2" not in sys.modules
"""


def test_it_works_without_detectron2(tmp_path):
    options = [*SMALL, "SOLVER.EPOCHS", "1", "OUTPUT_DIR", tmp_path]
    config = ["--config-file", CONFIGS / "teacher.yaml"]
    done = script("-c", WITHOUT_DETECTRON2, tmp_path, *config, *options)
    assert done.returncode == 0, done.stderr[-2000:]
    top1 = json.loads((tmp_path / "summary.json").read_text())["top1"]
    assert f"{top1:.2f}" in done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--config-file", "no.yaml"], 1, "config file must exist; got 'no.yaml'"),
        (["--config-file", CONFIGS / "teacher.yaml", "MODEL.NAMES", "a"], 1, "is MODEL.NAME"),
        ([], 2, "--config-file"),
        (["--config-file", "a", "--resume", "--overwrite"], 2, "not allowed with"),
    ],
)
def test_bad_arguments_are_one_sentence(arguments, code, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        one_sentence_errors(train.main)
    assert stop.value.code == code
    error = capsys.readouterr().err
    assert message in error.splitlines()[-1]
    assert "Traceback" not in error


def demo_arguments(folder):
    """What makes each training of the demo one epoch of a small network."""
    options = ["SOLVER.EPOCHS", "1", "DATA.TRAIN_IMAGES", "100", "MODEL.NAME", "resnet8"]
    options += ["TEACHER.NAME", "resnet8", "TRACKERS", "()", "SOLVER.WARMUP_EPOCHS", "0.0"]
    return ["--output", str(folder), "--seed", "3", *options]


def check_demo(folder, printed):
    summary = json.loads((folder / "summary.json").read_text())
    assert set(summary) == {"teacher", "baseline", "distilled", "baseline_equal_time"}
    for run in summary.values():
        assert {"top1", "top5", "train_seconds"} <= set(run)
        assert run["seed"] == 3
    assert summary["distilled"]["methods"] == ["ReviewKD"]
    assert summary["baseline"]["methods"] == []
    assert "| student, distilled" in printed


def test_the_demo_compares_a_teacher_and_its_students(tmp_path, monkeypatch, capsys):
    def run(command, **_):
        monkeypatch.setattr(sys, "argv", command[1:])
        AcceleratorState._reset_state(True)  # what a process of its own would not have
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(ROOT)
            return subprocess.CompletedProcess(command, train_main(train.parse_args()))

    monkeypatch.setattr(demo.subprocess, "run", run)
    monkeypatch.setattr(sys, "argv", ["demo.py", *demo_arguments(tmp_path)])
    demo.main()
    check_demo(tmp_path, capsys.readouterr().out)


@pytest.mark.slow
def test_the_demo_trains_in_processes_of_their_own(tmp_path):
    done = script("classification/demo.py", *demo_arguments(tmp_path))
    assert done.returncode == 0, done.stderr[-2000:]
    check_demo(tmp_path, done.stdout)
