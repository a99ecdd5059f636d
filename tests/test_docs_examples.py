"""The examples of extending.md, as they stand there."""

import csv
from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from PIL import Image

import reviewkd_det.d2.config
from reviewkd_det.d2 import load_config, meta_arch
from reviewkd_det.d2.data import check_evaluable, register_coco_format
from tests.d2 import tiny
from tests.docs_commands import ROOT, blocks


@pytest.fixture(scope="module")
def examples():
    """The files and lines that extending.md shows, by their titles."""
    return dict(blocks(ROOT / "docs" / "extending.md", "python"))


@pytest.fixture(scope="module")
def backbone(examples):
    """The backbone's example, registered once."""
    exec(compile(examples["reviewkd_det/d2/backbone/plain.py"], "plain.py", "exec"), {})


def distilled(folder, **settings):
    tiny.save_teacher(folder)
    student = tiny.save_student(folder, **settings)
    torch.manual_seed(0)
    model = build_model(load_config(student)).train()
    with EventStorage(0):
        return model, model(tiny.batch())


def test_the_example_of_a_method_trains_a_student(tmp_path, monkeypatch, examples):
    names = {"METHODS": dict(meta_arch.METHODS), "CfgNode": CfgNode}
    exec(examples["reviewkd_det/d2/imitation.py"], names)
    exec(examples["reviewkd_det/d2/meta_arch.py"], names)
    monkeypatch.setattr(meta_arch, "METHODS", names["METHODS"])
    declare = reviewkd_det.d2.config.add_distill_config

    def declare_more(cfg):
        declare(cfg)
        exec(examples["reviewkd_det/d2/config.py"], {"cfg": cfg, "CfgNode": CfgNode})

    monkeypatch.setattr(reviewkd_det.d2.config, "add_distill_config", declare_more)
    settings = {"METHODS": ["Imitation"], "IMITATION": {"LOSS_WEIGHT": 2.0}}
    model, losses = distilled(tmp_path, distill=settings)
    losses["loss_imitation"].backward()
    assert all(x.grad is not None for x in model.methods.parameters())
    assert next(model.student.backbone.parameters()).grad.any()
    assert len(model.methods["Imitation"].adapters) == 5
    assert "methods" not in "".join(model.state_dict())


@pytest.mark.usefixtures("backbone")
def test_the_example_of_a_backbone_is_distilled(tmp_path):
    tree = tiny.merged(tiny.R_CNN, {"BACKBONE": {"NAME": "PlainBackbone"}})
    model, losses = distilled(tmp_path, model=tree)
    assert type(model.student.backbone).__name__ == "PlainBackbone"
    assert model.methods["ReviewKD"].in_features == ("p2", "p3", "p4", "p5", "p6")
    assert losses["loss_reviewkd"] > 0


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
