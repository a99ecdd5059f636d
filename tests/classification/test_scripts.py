import json

import pytest

from tests.classification.running import CONFIGS, SMALL, script

WITHOUT_DETECTRON2 = """
import importlib.abc, runpy, sys

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in ("detectron2", "pycocotools"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
assert "detectron2" not in sys.modules
"""


def test_it_works_without_detectron2(tmp_path):
    options = [*SMALL, "SOLVER.EPOCHS", "1", "OUTPUT_DIR", tmp_path]
    config = ["--config-file", CONFIGS / "teacher.yaml"]
    done = script("-c", WITHOUT_DETECTRON2, "classification/train.py", *config, *options)
    assert done.returncode == 0, done.stderr[-2000:]
    done = script(
        "-c", WITHOUT_DETECTRON2, "classification/evaluate.py", "--config-file",
        tmp_path / "config.yaml",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"{json.loads((tmp_path / 'summary.json').read_text())['top1']:.2f}" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--config-file", "no.yaml"], 1, "config file must exist; got 'no.yaml'"),
        (
            ["--config-file", CONFIGS / "teacher.yaml", "MODEL.NAMES", "a"],
            1,
            "nearest is MODEL.NAME",
        ),
        ([], 2, "--config-file"),
        (["--config-file", "a", "--resume", "--overwrite"], 2, "not allowed with"),
    ],
)
def test_bad_arguments_are_one_sentence(arguments, code, message):
    done = script("classification/train.py", *arguments)
    assert done.returncode == code
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
