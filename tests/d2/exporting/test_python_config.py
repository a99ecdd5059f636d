"""A student of a Python config, which has no YAML config, through the commands."""

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from reviewkd_det.commands import export as command
from reviewkd_det.commands import predict
from reviewkd_det.d2.exporting.student import is_python_config, load_student
from reviewkd_det.deploy.images import read_image
from reviewkd_det.deploy.onnx_detector import OnnxDetector
from tests.d2 import zoo

CONFIG = """
from detectron2.config import LazyCall as L
from detectron2.data import transforms as T
from reviewkd_det.d2.data import CheckedDatasetMapper
from tests.d2 import zoo

model = L(zoo.fcos)(backbone=L(zoo.fcos_backbone)(width=4, pyramid=8))
dataloader = {
    "train": {},
    "test": {
        "dataset": {"names": ()},
        "mapper": L(CheckedDatasetMapper)(
            is_train=False, image_format="RGB",
            augmentations=[AUGMENTATIONS],
        ),
    },
}
optimizer, lr_multiplier = {}, {}
train = {"output_dir": "OUTPUT", "init_checkpoint": ""}
"""
RESIZE = "L(T.ResizeShortestEdge)(short_edge_length=64, max_size=96)"


@pytest.fixture
def config(tmp_path):
    """A Python config, with the checkpoint of its run and a folder of images."""
    return write(tmp_path, RESIZE)


def write(path, augmentations):
    run, images = path / "run", path / "images"
    run.mkdir(exist_ok=True)
    images.mkdir(exist_ok=True)
    generator = np.random.default_rng(0)
    for number, size in enumerate([(60, 80), (90, 50)]):
        pixels = np.kron(generator.integers(0, 256, (5, 5, 3)), np.ones((20, 20, 1)))
        Image.fromarray(pixels.astype(np.uint8)[: size[0], : size[1]]).save(
            images / f"{number}.png"
        )
    torch.manual_seed(0)
    state = zoo.fcos(zoo.fcos_backbone(4, 8)).state_dict()
    for name in ("cls_score", "bbox_pred", "ctrness"):  # so that no two detections are alike
        state[f"head.{name}.weight"] *= 100
    torch.save({"model": state, "trainer": {}, "iteration": 9}, run / "model_final.pth")
    (run / "last_checkpoint").write_text("model_final.pth")
    text = CONFIG.replace("AUGMENTATIONS", augmentations).replace("OUTPUT", str(run))
    (path / "config.py").write_text(text)
    return path / "config.py"


def export(config, *more):
    words = [
        "export_student.py", "--config-file", config, "--output", config.with_name("out"),
        "--images", config.with_name("images"), "--classes", "cat,dog,bird", *more,
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(x) for x in words])
        command.run(command.parse_args())


def test_fcos_of_a_python_config_becomes_graphs(config, capsys, monkeypatch):
    export(config, "--format", "onnx", "--format", "torchscript")
    said = capsys.readouterr().out
    assert "ONNX agrees on" in said
    assert "TorchScript agrees on" in said
    out = config.with_name("out")
    about = json.loads((out / "metadata.json").read_text())
    assert about["source"] == {"student": "FCOS", "checkpoint": "model_final.pth"}
    assert (about["channels"], about["min_size"], about["max_size"]) == ("RGB", 64, 96)
    assert (about["score_threshold"], about["nms_threshold"]) == (0.0, 0.6)
    assert about["detections_per_image"] == 100
    image = read_image(config.with_name("images") / "0.png")
    found = OnnxDetector(out)(image)
    monkeypatch.setattr(
        sys, "argv",
        ["predict.py", "--model", str(config), "--threshold", "0", "--no-pictures", "--output",
         str(config.with_name("found")), str(config.with_name("images") / "0.png")],
    )  # fmt: skip
    monkeypatch.setattr(
        "reviewkd_det.d2.exporting.predictor.class_names", lambda *_: ("cat", "dog", "bird")
    )
    predict.run(predict.parse_args())
    file = config.with_name("found") / "predictions.json"
    scores = [x["score"] for x in json.loads(file.read_text())["annotations"]]
    np.testing.assert_allclose(sorted(scores), sorted(found.scores), atol=1e-4)


def test_another_checkpoint_is_named_as_in_the_config(config):
    other = config.with_name("other.pth")
    state = zoo.fcos(zoo.fcos_backbone(4, 8)).state_dict()
    torch.save({"model": state}, other)
    student = load_student(str(config), [f"train.init_checkpoint={other}"])
    assert (student.checkpoint, student.is_last) == (str(other), False)
    assert torch.equal(
        student.detector.state_dict()["backbone.fpn_output3.weight"],
        state["backbone.fpn_output3.weight"],
    )


@pytest.mark.parametrize(
    ("augmentations", "formats", "words"),
    [
        (RESIZE, ["detectron2", "onnx"], "must be torchscript or onnx for a Python config"),
        (RESIZE.replace("=64", "=[32, 64]"), ["onnx"], "must be one ResizeShortestEdge to one len"),
        ("L(T.RandomFlip)()", ["onnx"], "mapper.augmentations must be one ResizeShortestEdge"),
    ],
)
def test_what_an_export_cannot_tell_is_refused(tmp_path, augmentations, formats, words):
    config = write(tmp_path, augmentations)
    with pytest.raises(ValueError, match=words):
        export(config, *(x for name in formats for x in ("--format", name)))
    assert not (tmp_path / "out").exists()


def test_what_a_run_has_saved_is_known_as_a_python_config(tmp_path):
    (tmp_path / "a.yaml").write_text("model: {_target_: tests.d2.zoo.fcos}\n")
    (tmp_path / "b.yaml").write_text("MODEL: {META_ARCHITECTURE: RetinaNet}\n")
    assert is_python_config(tmp_path / "a.yaml")
    assert not is_python_config(tmp_path / "b.yaml")
    assert not is_python_config(tmp_path / "nothing.yaml")
    assert is_python_config(tmp_path / "nothing.py")
