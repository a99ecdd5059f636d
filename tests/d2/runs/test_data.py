"""What runs say of their data before they train: classes kept, compared and mapped."""

import json

import pytest
from detectron2.data import MetadataCatalog

from reviewkd_det.common.runs.record import RECORD, saved_classes
from reviewkd_det.d2.data import register_coco_format
from reviewkd_det.d2.data.views import show_own
from tests.d2.runs import running
from tests.d2.runs.running import run_here
from tests.d2.runs.test_from_python import train_twin
from tests.d2.runs.twin_config import write_twin

CLASSES = ["class 0", "class 1", "class 2"]
OTHERS = ["class 1", "class 0", "class 2"]


def rename(json_file, classes):
    content = json.loads(json_file.read_text())
    for category, name in zip(content["categories"], classes, strict=True):
        category["name"] = name
    json_file.write_text(json.dumps(content))


def error(capsys):
    return capsys.readouterr().err.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A student's config and the folder of its run, of 2 iterations without a teacher."""
    folder = tmp_path_factory.mktemp("trained")
    config = running.prepare(folder, "of_trained", {"METHODS": []})
    with pytest.MonkeyPatch.context() as patch:
        assert run_here(patch, config, folder / "run") == 0
    return config, folder / "run"


@pytest.fixture
def renamed(trained):
    """As `trained`, whose data has its classes in another order by now."""
    config, run = trained
    rename(config.parent / "scenes.json", OTHERS)
    _forget()
    yield config, run
    rename(config.parent / "scenes.json", CLASSES)
    _forget()


def _forget():
    """A new process would not know the old names."""
    show_own("of_trained")
    metadata = MetadataCatalog.get("of_trained").__dict__
    for key in ("thing_classes", "thing_dataset_id_to_contiguous_id"):
        metadata.pop(key, None)


def test_a_run_keeps_its_class_names(trained):
    assert saved_classes(trained[1]) == CLASSES
    assert json.loads((trained[1] / RECORD).read_text())["classes"] == CLASSES


def test_a_run_does_not_go_on_with_other_classes(renamed, monkeypatch, capsys):
    config, run = renamed
    longer = ["--resume", "SOLVER.MAX_ITER", "3"]
    assert run_here(monkeypatch, config, run, *longer) == 1
    assert f"must be those of the run in '{run}', in the same order; got {OTHERS}" in error(capsys)
    assert run_here(monkeypatch, config, run, *longer, "DATASETS.MAP_CLASSES", "True") == 0
    assert saved_classes(run) == CLASSES


def test_weights_are_evaluated_by_the_classes_of_their_run(renamed, monkeypatch, capsys, tmp_path):
    config, run = renamed
    weights = ["--eval-only", "MODEL.WEIGHTS", str(run / "model_final.pth")]
    assert run_here(monkeypatch, config, tmp_path, *weights) == 1
    words = f"must be those of '{run / 'model_final.pth'}', in the same order; got {OTHERS}"
    assert words in error(capsys)
    weights += ["DATASETS.MAP_CLASSES", "True"]
    assert run_here(monkeypatch, config, tmp_path, *weights) == 0
    results = json.loads((tmp_path / "evaluation" / "results.json").read_text())["bbox"]
    assert [name for name in results if name.startswith("AP-")] == [f"AP-{x}" for x in CLASSES]


def test_a_python_config_has_the_same_checks(trained, tmp_path, monkeypatch, capsys):
    config, _ = trained
    twin = write_twin(config)
    other = tmp_path / "other.json"
    other.write_text((config.parent / "scenes.json").read_text())
    rename(other, OTHERS)
    register_coco_format("of_python", other, config.parent / "images")
    names = [
        "dataloader.test.dataset.names=of_python",
        "dataloader.evaluator.dataset_name=of_python",
    ]
    assert train_twin(monkeypatch, twin, tmp_path / "run", *names) == 1
    words = f"got {OTHERS} instead of {CLASSES}; write them in one order, or set train.map_classes"
    assert words in error(capsys)
    names.append("+train.map_classes=True")
    assert train_twin(monkeypatch, twin, tmp_path / "run", *names) == 0
    results = json.loads((tmp_path / "run" / "summary.json").read_text())["results"]["bbox"]
    assert [name for name in results if name.startswith("AP-")] == [f"AP-{x}" for x in CLASSES]
    assert saved_classes(tmp_path / "run") == CLASSES
    (config.parent / "images" / "0.png").rename(tmp_path / "0.png")
    (config.parent / "images" / "0.png").write_bytes(b"no image")
    assert train_twin(monkeypatch, twin, tmp_path / "run") == 1
    assert "got 1 of 4 that are not: " in error(capsys)
    (tmp_path / "0.png").rename(config.parent / "images" / "0.png")
