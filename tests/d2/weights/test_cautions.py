import copy
import re

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from torch import nn

from reviewkd_det.d2.config import get_config
from reviewkd_det.d2.runs.checkpointer import StudentCheckpointer
from reviewkd_det.d2.weights.cautions import ConfigKeys, Images, warn_of_images
from tests.d2 import tiny

RGB = Images("RGB", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
BGR = Images("BGR", (103.53, 116.28, 123.675), (1.0, 1.0, 1.0))
KEYS = ConfigKeys(freezing="MODEL.BACKBONE.FREEZE_AT is 2, MODEL.RESNETS.NORM is BN")


@pytest.fixture(scope="module")
def detectors():
    """A ResNet-50 by where its blocks have their stride."""
    built = {}
    for in_1x1 in (True, False):
        tree = tiny.detector(tiny.R_CNN, width=8, pyramid=8)
        cfg = load_config_of(tree, in_1x1)
        built[in_1x1] = build_model(cfg)
    return built


def load_config_of(tree, in_1x1):
    cfg = get_config()
    cfg.merge_from_other_cfg(type(cfg)(copy.deepcopy(tree)))
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = in_1x1
    return cfg


def warning(caplog, author, images, model, state=None):
    caplog.clear()
    warn_of_images("MODEL.WEIGHTS 'FILE'", author, state or {}, model, images, KEYS)
    assert len(caplog.messages) <= 1
    return "".join(caplog.messages)


def test_weights_and_images_that_go_together_bring_no_warning(detectors, caplog):
    assert not warning(caplog, "torchvision", RGB, detectors[False])
    assert not warning(caplog, "Caffe2", BGR, detectors[True])
    assert not warning(caplog, "Detectron2 Model Zoo", BGR, detectors[False])
    assert not warning(caplog, "pycls", Images("BGR", BGR.mean, RGB.std[::-1]), detectors[False])
    assert not warning(caplog, "", RGB._replace(std=(1.0, 1.0, 1.0)), detectors[True])
    assert not warning(caplog, "torchvision", Images(), nn.Linear(1, 1))


@pytest.mark.parametrize(
    ("author", "images", "in_1x1", "parts"),
    [
        ("torchvision", RGB._replace(format="BGR"), False, ["INPUT.FORMAT is BGR, .* RGB"]),
        (
            "torchvision",
            RGB._replace(std=(1, 1, 1)),
            False,
            [r"PIXEL_STD is \[1, 1, 1\], .*58.395"],
        ),
        ("torchvision", RGB._replace(mean=BGR.mean), False, [r"PIXEL_MEAN is \[103.53, .*\[123.6"]),
        ("torchvision", RGB, True, ["STRIDE_IN_1X1 is True, .* with False"]),
        ("torchvision", BGR, True, ["INPUT.FORMAT", "PIXEL_MEAN", "PIXEL_STD", "STRIDE_IN_1X1"]),
        ("Caffe2", RGB, False, ["INPUT.FORMAT is RGB", "PIXEL_MEAN", "PIXEL_STD", "STRIDE_IN"]),
        ("Detectron2 Model Zoo", RGB, True, ["INPUT.FORMAT is RGB, and .* BGR", "PIXEL_MEAN"]),
    ],
)
def test_other_images_than_the_weights_were_trained_on_are_said(
    detectors, caplog, author, images, in_1x1, parts
):
    said = warning(caplog, author, images, detectors[in_1x1])
    assert said.startswith(f"MODEL.WEIGHTS 'FILE' holds weights of {author}: ")
    assert len(said.split("; ")) == len(parts)
    for part, sentence in zip(parts, said.split("; "), strict=True):
        assert re.search(part, sentence), sentence


def test_mean_and_deviation_of_the_file_itself_count(detectors, caplog):
    state = {"pixel_mean": torch.tensor(RGB.mean).view(3, 1, 1)}
    assert "PIXEL_MEAN" in warning(caplog, "", BGR, detectors[True], state)
    groups = {"res2_0_branch2b_w": np.zeros((8, 2, 3, 3))}  # a ResNeXt, of which there are two
    images = BGR._replace(std=RGB.std[::-1])
    assert not warning(caplog, "Caffe2", images, detectors[False], groups)
    assert "PIXEL_STD" in warning(caplog, "Caffe2", images, detectors[True])


@pytest.mark.parametrize("norm", ["BN", "FrozenBN"])
@pytest.mark.parametrize("freeze_at", [0, 2])
def test_what_is_never_trained_and_was_not_loaded_is_said(tmp_path, caplog, norm, freeze_at):
    sizes = {"BACKBONE": {"FREEZE_AT": freeze_at}, "RESNETS": {"NORM": norm}}
    tree = tiny.detector(tiny.R_CNN, width=4, pyramid=8, MODEL=sizes)
    model = build_model(load_config_of(tree, False))
    state = model.state_dict()
    backbone = {name: value for name, value in state.items() if "bottom_up" in name}
    files = {"": None, "heads": state.keys() - backbone.keys(), "backbone": backbone}
    for name, names in files.items():
        path = str(tmp_path / f"{name}.pth") if name else ""
        if path:
            torch.save({"model": {k: state[k] for k in names}}, path)
        run = StudentCheckpointer(model, key="MODEL.WEIGHTS")
        run.resume_or_load(path, resume=False)
        caplog.clear()
        run.warn_of_start(BGR, KEYS, ())
        said = "".join(caplog.messages)
        if name == "backbone" or (norm, freeze_at) == ("BN", 0):
            assert not said
            continue
        assert f"MODEL.WEIGHTS '{path}' lacks what is never trained" in said
        assert said.endswith(KEYS.freezing)
        assert ("weights (backbone.bottom_up.stem.conv1.weight, " in said) == (freeze_at == 2)
        count = 52 if norm == "FrozenBN" else 10  # the stem's and those of three blocks
        assert f"{count} frozen batch norms (backbone.bottom_up.stem.conv1.norm, " in said, name
        run.warn_of_start(BGR, KEYS, backbone)  # which something else has given
        assert len(caplog.messages) == 1
