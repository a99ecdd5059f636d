"""Parts of the user's own, from a package that MODULES names, through the real scripts."""

import sys

import pytest
import yaml
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import BACKBONE_REGISTRY, ROI_BOX_HEAD_REGISTRY, build_model

from reviewkd_det.d2 import own_configs
from tests.d2 import scenes, tiny
from tests.d2.test_scripts import call

PACKAGE = {
    "__init__.py": """
        from own_detector_parts import data, parts
        from own_detector_parts.config import add_own_detector_config
    """,
    "config.py": """
        from detectron2.config import CfgNode

        def add_own_detector_config(cfg):
            cfg.MODEL.OWN_PARTS = CfgNode({"KERNEL": 3, "UNUSED": 1.0})
    """,
    "parts.py": """
        from detectron2.layers import ShapeSpec
        from detectron2.modeling import BACKBONE_REGISTRY, ROI_BOX_HEAD_REGISTRY, Backbone
        from torch import nn

        @BACKBONE_REGISTRY.register()
        class OwnBackbone(Backbone):
            def __init__(self, cfg, input_shape):
                super().__init__()
                self.kernel, self.channels = cfg.MODEL.OWN_PARTS.KERNEL, cfg.MODEL.FPN.OUT_CHANNELS
                self.stem = self.halve(3, 2)
                self.levels = nn.ModuleList(self.halve(self.channels) for _ in range(5))

            def halve(self, channels, stride=2):
                size = {"stride": stride, "padding": self.kernel // 2}
                return nn.Conv2d(channels, self.channels, self.kernel, **size)

            def forward(self, x):
                x, found = self.stem(x), {}
                for index, level in enumerate(self.levels, 2):
                    found[f"p{index}"] = x = level(x)
                return found

            def output_shape(self):
                return {f"p{i}": ShapeSpec(self.channels, stride=2**i) for i in range(2, 7)}

        @ROI_BOX_HEAD_REGISTRY.register()
        class OwnHead(nn.Sequential):
            def __init__(self, cfg, shape):
                size = shape.channels * shape.height * shape.width
                super().__init__(nn.Flatten(), nn.Linear(size, 12), nn.ReLU())

            @property
            def output_shape(self):
                return ShapeSpec(channels=12)
    """,
    "data.py": """
        from detectron2.data import DatasetCatalog, MetadataCatalog
        from detectron2.data.datasets import register_coco_instances
        from detectron2.structures import BoxMode

        register_coco_instances("own_scenes", {}, {json!r}, {images!r})

        def load():
            object = {"bbox": [4, 6, 34, 40], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 1}
            sides = {"height": 64, "width": 96, "image_id": 1, "file_name": {images!r} + "/0.png"}
            return [{**sides, "annotations": [object]}]

        DatasetCatalog.register("own_function", load)
        MetadataCatalog.get("own_function").set(
            thing_classes=["class 0", "class 1", "class 2"], evaluator_type="coco")
    """,
}
OWN = tiny.merged(
    tiny.R_CNN, {"BACKBONE": {"NAME": "OwnBackbone"}, "ROI_BOX_HEAD": {"NAME": "OwnHead"}}
)


def write_package(folder, json, images):
    (folder / "own_detector_parts").mkdir()
    for name, text in PACKAGE.items():
        lines = text.replace("{json!r}", repr(str(json))).replace("{images!r}", repr(str(images)))
        code = "\n".join(line[8:] for line in lines.splitlines())
        (folder / "own_detector_parts" / name).write_text(code)


@pytest.fixture
def config(tmp_path, monkeypatch):
    """A student of own parts that learns from a stock teacher, on data of its own."""
    monkeypatch.setattr(own_configs, "_functions", {})
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    known = set(sys.modules)
    tiny.save_teacher(tmp_path)
    tree = scenes.run_tree(tmp_path, "unused")
    tree["DATASETS"] = {"TRAIN": ["own_scenes", "own_function"], "TEST": ["own_function"]}
    tree["MODULES"] = ["./own_detector_parts"]
    tree["MODEL"] = {"OWN_PARTS": {"KERNEL": 5}}
    write_package(tmp_path, tmp_path / "scenes.json", tmp_path / "images")
    yield tiny.save_student(tmp_path, OWN, **tree)
    for name in set(sys.modules) - known:
        if name.startswith("own_detector_parts"):
            del sys.modules[name]
    BACKBONE_REGISTRY._obj_map.pop("OwnBackbone", None)
    ROI_BOX_HEAD_REGISTRY._obj_map.pop("OwnHead", None)
    for name in {"own_scenes", "own_function"} & set(DatasetCatalog.list()):
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def test_own_parts_are_trained_evaluated_and_exported(config, tmp_path, monkeypatch, capsys):
    assert call(monkeypatch, "train_net.py", "--config-file", config) == 0
    saved = tmp_path / "run" / "config.yaml"
    assert yaml.safe_load(saved.read_text())["MODEL"]["OWN_PARTS"]["KERNEL"] == 5
    capsys.readouterr()
    exported = tmp_path / "exported"
    arguments = ["--config-file", saved, "--output", exported]
    assert call(monkeypatch, "export_student.py", *arguments) == 0
    printed = capsys.readouterr().out
    for name in ("OwnBackbone", "OwnHead"):
        assert f"{name} is not Detectron2's own: `import own_detector_parts.parts`" in printed
    assert "MODEL.OWN_PARTS.KERNEL is not Detectron2's own" in printed
    cfg = get_cfg()
    sys.modules["own_detector_parts"].add_own_detector_config(cfg)
    cfg.merge_from_file(str(exported / "config.yaml"))
    cfg.MODEL.DEVICE = "cpu"
    assert build_model(cfg).backbone.stem.kernel_size == (5, 5)


@pytest.mark.parametrize(
    ("key", "name", "words"),
    [
        (
            "MODEL.BACKBONE.NAME",
            "build_resnet_fpn_backbon",
            "nearest are build_resnet_fpn_backbone",
        ),
        ("MODEL.ROI_BOX_HEAD.NAME", "AnotherHead", "registered in ROI_BOX_HEAD; got 'AnotherHead'"),
        ("MODEL.RPN.HEAD_NAME", "AnotherHead", "registered in RPN_HEAD"),
        ("MODEL.DISTILL.STUDENT_META_ARCHITECTURE", "RetinaNett", "nearest are RetinaNet"),
        ("DATASETS.TRAIN", "('own_scnes',)", "got 'own_scnes'; the nearest are own_scenes"),
        ("SOLVER.LR_SCHEDULER_NAME", "WarmupPolyLR", "LR_SCHEDULER_NAME must be one of"),
    ],
)
def test_an_unknown_name_is_said_before_training(config, monkeypatch, capsys, key, name, words):
    assert call(monkeypatch, "train_net.py", "--config-file", config, key, name) == 1
    said = capsys.readouterr().err
    assert f"error: {key} must" in said
    assert words in said
    assert "MODULES" in said
    assert "traceback" not in said


def test_an_unknown_part_of_the_teacher_names_its_config(config, monkeypatch, capsys):
    opts = ["MODEL.DISTILL.TEACHER.OPTS", "['MODEL.BACKBONE.NAME', 'TheirBackbone']"]
    assert call(monkeypatch, "train_net.py", "--config-file", config, *opts) == 1
    said = capsys.readouterr().err
    assert f"MODEL.BACKBONE.NAME of '{config.with_name('teacher.yaml')}' must name what" in said
