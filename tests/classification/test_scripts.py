"""The scripts of the package: arguments in, files, tables and sentences out."""

import json
import sys

import pytest

from classification import train
from reviewkd_det.common import one_sentence_errors
from tests.classification.running import CONFIGS, SMALL
from tests.scripts import run as script

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
