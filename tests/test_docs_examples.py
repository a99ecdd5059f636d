"""The examples of extending.md, as they stand there."""

import csv
import sys
from pathlib import Path

import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from PIL import Image

from classification.config import load_config as load_classification
from reviewkd_det.core import registry
from reviewkd_det.d2 import load_config, own_configs
from reviewkd_det.d2.data import check_evaluable, register_coco_format
from tests.classification import distilling
from tests.d2 import tiny
from tests.docs_commands import ROOT, blocks


@pytest.fixture(scope="module")
def examples():
    """The files and lines that extending.md shows, by their titles."""
    return dict(blocks(ROOT / "docs" / "extending.md", "python"))


@pytest.fixture(scope="module")
def backbone(examples):
    """The backbone's example, registered once."""
    exec(compile(examples["my_backbones/plain.py"], "plain.py", "exec"), {})


@pytest.fixture
def methods(examples, tmp_path, monkeypatch):
    """The files of the methods' examples, and a registry that forgets them."""
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))
    paths = {}
    for name in ("cosine", "confidence"):
        paths[name] = tmp_path / f"{name}.py"
        paths[name].write_text(examples[f"my_methods/{name}.py"])
    yield {name: str(path) for name, path in paths.items()}
    for name in paths:
        sys.modules.pop(name, None)


def distilled(folder, opts=(), **settings):
    tiny.save_teacher(folder)
    student = tiny.save_student(folder, **settings)
    torch.manual_seed(0)
    model = build_model(load_config(student, opts, import_code=True)).train()
    with EventStorage(0):
        return model, model(tiny.batch())


def test_the_example_of_a_method_trains_a_detector(tmp_path, methods):
    opts = ["MODULES", str([*methods.values()]), "MODEL.DISTILL.COSINE.POWER", "2.0"]
    model, losses = distilled(tmp_path, opts, distill={"METHODS": ["Cosine", "Confidence"]})
    (losses["loss_cosine"] + losses["loss_confidence"]).backward()
    assert all(x.grad is not None for x in model.methods.parameters())
    assert next(model.student.backbone.parameters()).grad.any()
    assert len(model.methods["Cosine"].adapters) == 5
    assert model.weighted["Cosine"].loss_weight == 5.0
    assert "methods" not in "".join(model.state_dict())


def test_the_example_of_a_method_trains_a_classifier(tmp_path, methods):
    (tmp_path / "run.yaml").write_text("{}")
    distilling.config(tmp_path)  # writes the teacher's weights
    cfg = load_classification(tmp_path / "run.yaml", [
        "MODULES", str([*methods.values()]), "DISTILL.METHODS", "('Cosine', 'Confidence')",
        "MODEL.NAME", "resnet8", "INPUT.SIZE", "16", "TEACHER.NAME", "resnet14",
        "TEACHER.WEIGHTS", str(tmp_path / "teacher.pth"),
    ])  # fmt: skip
    model, _ = distilling.build(cfg)
    losses = model.train()(distilling.IMAGES, distilling.TARGET, 1)
    sum(losses.values()).backward()
    assert list(losses) == ["loss_ce", "loss_cosine", "loss_confidence"]
    assert all(x.grad is not None for x in model.methods.parameters())
    assert model.weighted["Cosine"].loss_weight == 2.0


@pytest.mark.usefixtures("backbone")
def test_the_example_of_a_backbone_is_distilled(tmp_path):
    tree = tiny.merged(tiny.R_CNN, {"BACKBONE": {"NAME": "PlainBackbone"}})
    model, losses = distilled(tmp_path, model=tree)
    assert type(model.student.backbone).__name__ == "PlainBackbone"
    assert model.levels == ("p2", "p3", "p4", "p5", "p6")
    assert losses["loss_reviewkd"] > 0


def test_the_example_of_a_head_is_trained(tmp_path, examples, monkeypatch):
    monkeypatch.setattr(own_configs, "_functions", {})
    (tmp_path / "smooth_head.py").write_text(examples["my_parts/smooth_head.py"])
    opts = ["MODULES", f"['{tmp_path / 'smooth_head.py'}']", "MODEL.SMOOTH_HEAD.WIDTH", "12",
            "MODEL.ROI_BOX_HEAD.NAME", "SmoothHead"]  # fmt: skip
    model, losses = distilled(tmp_path, opts)
    assert model.student.roi_heads.box_head.output_shape.channels == 12
    assert torch.isfinite(losses["loss_cls"])
    assert "my_images" in DatasetCatalog.list()
    sys.modules.pop("smooth_head")


def test_the_example_of_a_data_set_is_one_that_can_be_evaluated(tmp_path, examples):
    for name in ("b.png", "a.png"):
        Image.new("RGB", (40, 30)).save(tmp_path / name)
    with (tmp_path / "boxes.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "class", "x", "y", "width", "height"])
        writer.writerows([["b.png", "dog", 1, 2, 10, 20], ["a.png", "cat", 0, 0, 5, 6]])
    names = {}
    exec(examples["table_to_coco.py"], names)
    names["convert"](tmp_path / "boxes.csv", tmp_path, tmp_path / "boxes.json")
    register_coco_format("docs_table", str(tmp_path / "boxes.json"), str(tmp_path))
    check_evaluable("docs_table")
    first, second = DatasetCatalog.get("docs_table")
    assert Path(first["file_name"]).name == "a.png"
    assert first["annotations"][0]["category_id"] == 0
    assert second["annotations"][0]["bbox"] == [1, 2, 10, 20]
    assert (second["height"], second["width"]) == (30, 40)
