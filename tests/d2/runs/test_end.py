"""The block a run ends with; its command lines are pasted into a shell."""

import json
import os
import re
import subprocess

import torch

from tests.d2 import scenes, tiny
from tests.d2.runs.test_from_python import CONFIG, options
from tests.d2.test_scripts import call


def block(folder):
    """The lines of the last block in a run's log, by their labels."""
    text = (folder / "log.txt").read_text().rpartition("Done: ")[2]
    title, *lines = text.splitlines()
    found = [re.match(r"  ([a-z ]+:) +(.+)", line) for line in lines]
    return title, dict(match.groups() for match in found if match)


def paste(line):
    """Run a line as a shell does."""
    done = subprocess.run(
        line, shell=True, capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_the_commands_of_a_run_can_be_pasted(tmp_path, request, monkeypatch):
    folder = tmp_path / "with a space"
    folder.mkdir()
    tree = scenes.run_tree(folder, f"scenes_{abs(hash(request.node.nodeid))}", MAX_ITER=3)
    tiny.save_teacher(folder)
    config = tiny.save_student(folder, **tree, TEST={"EVAL_PERIOD": 1})
    assert call(monkeypatch, "train_net.py", "--config-file", config) == 0
    run = folder / "run"
    title, lines = block(run)
    assert title == "3 iterations"
    results = json.loads((run / "summary.json").read_text())["results"]["bbox"]
    assert lines["last:"] == f"bbox/AP {results['AP']:.2f}; {run / 'model_final.pth'}"
    assert list(lines) == ["last:", "best:", "export it:", "evaluate it:", "compare it:"]

    paste(lines["export it:"])
    exported = torch.load(run / "exported" / "model.pth", weights_only=True)["model"]
    final = torch.load(run / "model_final.pth", weights_only=True)["model"]
    assert exported.keys() == final.keys()
    assert all(torch.equal(exported[name], final[name]) for name in final)
    paste(lines["evaluate it:"])
    evaluated = json.loads((run / "evaluation" / "results.json").read_text())["bbox"]
    assert evaluated == results
    assert "report.html" in paste(lines["compare it:"])


def test_the_best_evaluation_is_named_with_its_iteration(tmp_path, request, monkeypatch):
    tree = scenes.run_tree(tmp_path, f"scenes_{abs(hash(request.node.nodeid))}", MAX_ITER=4)
    config = tiny.save_student(tmp_path, distill={"METHODS": []}, **tree, TEST={"EVAL_PERIOD": 2})
    scores = iter([30.0, 20.0])
    monkeypatch.setattr(
        "reviewkd_det.d2.runs.trainer.Trainer.test",
        classmethod(lambda *_: {"bbox": {"AP": next(scores), "AP50": 99.0}}),
    )
    assert call(monkeypatch, "train_net.py", "--config-file", config) == 0
    run = tmp_path / "run"
    _, lines = block(run)
    assert lines["best:"] == f"bbox/AP 30.00 after 2 iterations; {run / 'model_best.pth'}"
    assert lines["last:"] == f"bbox/AP 20.00; {run / 'model_final.pth'}"
    assert torch.load(run / "model_best.pth", weights_only=True)["iteration"] == 1


def test_the_teachers_run_is_compared_too(tmp_path, request, monkeypatch):
    tree = scenes.run_tree(tmp_path, f"scenes_{abs(hash(request.node.nodeid))}")
    tiny.save_teacher(tmp_path)
    for name in ("config.yaml", "metrics.json"):
        (tmp_path / name).touch()
    config = tiny.save_student(
        tmp_path, distill={"TEACHER": {"WEIGHTS": str(tmp_path / "teacher.pth")}}, **tree
    )
    assert call(monkeypatch, "train_net.py", "--config-file", config) == 0
    _, lines = block(tmp_path / "run")
    assert lines["compare it:"].endswith(f"{tmp_path / 'run'} teacher={tmp_path}")


def test_a_python_configs_evaluation_can_be_pasted(tmp_path, request, monkeypatch):
    opts = options(tmp_path, request)
    names = [opt.partition("=")[2] for opt in opts if ".names=" in opt]
    script = ["lazyconfig_train_net.py", "--config-file", CONFIG]
    assert call(monkeypatch, *script, *opts) == 0
    run = tmp_path / "run"
    assert "Distilling FCOS" in (run / "log.txt").read_text()
    title, lines = block(run)
    assert title == "2 iterations"
    assert lines["last:"].endswith(f"; {run / 'model_final.pth'}")
    assert "export it:" not in lines
    assert f"train.init_checkpoint={run / 'model_final.pth'}" in lines["evaluate it:"]
    # Another process does not know the data set that this one has registered.
    register = (
        "from reviewkd_det.d2.data import register_coco_format as r; "
        f"r({names[0]!r}, {str(tmp_path / 'scenes.json')!r}, {str(tmp_path / 'images')!r}); "
    )
    run_it = "import runpy, sys; sys.argv = sys.argv[1:]; "
    run_it += "runpy.run_path(sys.argv[0], run_name='__main__')"
    python, _, rest = lines["evaluate it:"].partition(" ")
    assert "AP" in paste(f'{python} -c "{register}{run_it}" {rest}')
