"""A run's folder used again: evaluated by its own config, gone on with, finished, in use."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from reviewkd_det.common.runs import lock
from reviewkd_det.d2.teacher.source import read_teacher
from tests.d2 import scenes, tiny
from tests.d2.runs.running import one_thread, run_here
from tests.d2.test_scripts import call

AUGMENTED = [
    "TEST.AUG.ENABLED",
    "True",
    "TEST.AUG.MIN_SIZES",
    "(64,)",
    "TEST.AUG.MAX_SIZE",
    "96",
]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A student's config with two test sets."""
    folder = tmp_path_factory.mktemp("again")
    tiny.save_teacher(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scenes, "SIZES", scenes.SIZES[:2])
        tree = scenes.run_tree(folder, "again", CHECKPOINT_PERIOD=1, WEIGHT_DECAY=0.01)
    _, json_file, images = tree["DATASETS"]["COCO_FORMAT"][0]
    content = json.loads(Path(json_file).read_text())
    content["annotations"].pop()  # a file of its own
    (folder / "too.json").write_text(json.dumps(content))
    tree["DATASETS"]["COCO_FORMAT"].append(["again_too", str(folder / "too.json"), images])
    tree["DATASETS"]["TEST"].append("again_too")
    tree["TEST"] = {"EVAL_PERIOD": 1, "BEST_METRIC": "again_too/bbox/AP"}
    tree["MODEL"] = {"ROI_HEADS": {"SCORE_THRESH_TEST": 0.0}}
    return tiny.save_student(folder, **tree)


@pytest.fixture(scope="module")
def trained(config, tmp_path_factory):
    output = tmp_path_factory.mktemp("trained") / "run"
    with pytest.MonkeyPatch.context() as patch:
        assert run_here(patch, config, output, *AUGMENTED) == 0
    return output


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "moved")


def read(folder, name):
    return json.loads((folder / name).read_text())


def go_on(monkeypatch, config, run, *options):
    arguments = ["--resume", "--config-file", config, *AUGMENTED, *options, "OUTPUT_DIR", run]
    with one_thread():
        return call(monkeypatch, "train_net.py", *arguments)


def test_of_two_test_sets_one_makes_the_best_checkpoint(trained):
    assert (trained / "model_best.pth").is_file()
    results = read(trained, "summary.json")["results"]
    assert list(results) == ["again", "again_too"]
    assert "Given val metric" not in (trained / "log.txt").read_text()


def test_augmentation_adds_results_at_the_end(trained):
    for results in read(trained, "summary.json")["results"].values():
        assert list(results) == ["bbox", "bbox_TTA"]
        assert results["bbox_TTA"]["AP"] is not None
    assert (trained / "augmented" / "inference" / "coco_instances_results.json").is_file()
    evaluated = (trained / "log.txt").read_text().count("with test-time augmentation")
    assert evaluated == 1  # of two evaluations


def test_its_own_config_evaluates_its_last_checkpoint_where_it_lies(run, monkeypatch):
    with one_thread():
        assert (
            call(monkeypatch, "train_net.py", "--eval-only", "--config-file", run / "config.yaml")
            == 0
        )
    assert read(run / "evaluation", "results.json") == read(run, "summary.json")["results"]
    log = (run / "evaluation" / "log.txt").read_text()
    assert f"Evaluating the last checkpoint of the run, {run / 'model_final.pth'}" in log


def test_a_copied_run_is_exported_and_teaches_itself(run, trained, monkeypatch):
    shutil.copy(run / "model_0000000.pth", run / "model_final.pth")  # another than where it was
    (run / "model_0000001.pth").unlink()
    arguments = ["--config-file", run / "config.yaml", "--output", run / "exported"]
    assert call(monkeypatch, "export_student.py", *arguments) == 0
    exported, last, other = (
        torch.load(file, weights_only=True)["model"]["backbone.fpn_output2.weight"]
        for file in (
            run / "exported/model.pth",
            run / "model_final.pth",
            trained / "model_final.pth",
        )
    )
    assert torch.equal(exported, last)
    assert not torch.equal(exported, other)
    assert read_teacher(str(run / "config.yaml")).weights == str(run / "model_final.pth")


def test_its_own_config_without_a_checkpoint_is_refused(run, monkeypatch, capsys):
    for path in run.glob("model_*.pth"):
        path.unlink()
    assert (
        call(monkeypatch, "train_net.py", "--eval-only", "--config-file", run / "config.yaml") == 1
    )
    words = "must have a checkpoint of its run beside it; got none; name one with MODEL."
    assert f"{words}WEIGHTS" in capsys.readouterr().err
    with pytest.raises(FileNotFoundError, match=f"{words}DISTILL.TEACHER.WEIGHTS"):
        read_teacher(str(run / "config.yaml"))


def test_a_finished_run_is_left_as_it_is(config, run, monkeypatch):
    before = (run / "summary.json").read_bytes()
    assert go_on(monkeypatch, config, run, "SOLVER.MAX_ITER", "1") == 0
    assert (run / "summary.json").read_bytes() == before
    assert "Nothing to train: the run in " in (run / "log.txt").read_text()


def test_other_settings_are_told_and_the_config_tells_what_is_used(config, run, monkeypatch):
    options = ["SOLVER.MAX_ITER", "3", "SOLVER.WEIGHT_DECAY", "1", "SOLVER.BASE_LR", "0.5"]
    options += ["MODEL.WEIGHTS_ENTRY", "ema"]
    assert go_on(monkeypatch, config, run, *options) == 0
    saved = yaml.safe_load((run / "config.yaml").read_text())["SOLVER"]
    assert (saved["MAX_ITER"], saved["WEIGHT_DECAY"], saved["BASE_LR"]) == (3, 0.01, 0.001)
    (told,) = [x for x in (run / "log.txt").read_text().splitlines() if "other settings" in x]
    assert "from now on SOLVER.MAX_ITER 3 (was 2)" in told
    assert "as in the checkpoint" in told
    assert "SOLVER.WEIGHT_DECAY 0.01 (not 1.0)" in told
    assert "MODEL.WEIGHTS_ENTRY '' (not 'ema')" in told
    assert read(run, "summary.json")["iterations"] == 3
    rates = [json.loads(x).get("lr") for x in (run / "metrics.json").read_text().splitlines()]
    assert max(filter(None, rates)) <= 0.001


def test_another_teacher_or_other_data_is_refused(config, run, monkeypatch, capsys, tmp_path):
    other = shutil.copy(config.parent / "teacher.pth", tmp_path / "other.pth")
    key = "MODEL.DISTILL.TEACHER.WEIGHTS"
    assert go_on(monkeypatch, config, run, key, other) == 1
    assert f"{key} must be that of the run to resume, ''; got '{other}'" in capsys.readouterr().err
    assert go_on(monkeypatch, config, run, f"{key}_ENTRY", "model") == 1
    assert f"{key}_ENTRY must be that of the run to resume, ''" in capsys.readouterr().err
    saved = run / "config.yaml"
    saved.write_text(saved.read_text().replace("/images", "/pictures"))
    assert go_on(monkeypatch, config, run) == 1
    assert "training data.again must be that of the run to resume" in capsys.readouterr().err
    assert go_on(monkeypatch, config, run, "SOLVER.RESUME_WITH_CHANGES", "True") == 0


def test_a_run_that_trains_is_not_gone_on_with(config, run, monkeypatch, capsys):
    monkeypatch.setattr(lock, "WAIT_SECONDS", 0.0)
    with lock.lock_folder(run):
        assert go_on(monkeypatch, config, run) == 1
    assert "OUTPUT_DIR must belong to one run at a time; got " in capsys.readouterr().err
