import logging

import pytest
import torch
import torchvision
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import build_backbone
from torch import nn

from reviewkd_det.d2 import load_config
from reviewkd_det.d2.runs.checkpointer import StudentCheckpointer
from tests.d2 import tiny

STRIDES = {"res2": 4, "res3": 8, "res4": 16, "res5": 32}
CHANNELS = {"res2": 24, "res3": 32, "res4": 96, "res5": 320}


def backbone(folder, norm="FrozenBN", freeze_at=0, **model):
    settings = {
        "BACKBONE": {"NAME": "build_mobilenet_v2_fpn_backbone", "FREEZE_AT": freeze_at},
        "RESNETS": {"NORM": norm},
        "FPN": {"OUT_CHANNELS": 16},
    }
    tree = {"VERSION": 2, "MODEL": settings | model}
    return build_backbone(load_config(tiny.write(folder / "backbone.yaml", tree)))


def torchvisions():
    """torchvision's network, whose batch norms have seen something."""
    torch.manual_seed(0)
    network = torchvision.models.mobilenet_v2().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return network


def last_maps(network, image):
    """The last map of every resolution from stride 4 on, before the convolution to 1280."""
    maps = [image]
    for block in network.features[:-1]:
        features = block(maps[-1])
        if features.shape[-2:] == maps[-1].shape[-2:]:
            maps.pop()
        maps.append(features)
    return maps[2:]  # not the image and stride 2


@pytest.mark.parametrize("norm", ["FrozenBN", "BN"])
def test_an_imagenet_file_of_torchvision_gives_torchvisions_features(tmp_path, caplog, norm):
    theirs = torchvisions()
    torch.save(theirs.state_dict(), tmp_path / "mobilenet_v2.pth")
    student = nn.Module()
    student.backbone = backbone(tmp_path, norm).eval()
    checkpointer = StudentCheckpointer(student, key="MODEL.WEIGHTS")
    with caplog.at_level(logging.INFO, logger="fvcore"):
        checkpointer.resume_or_load(str(tmp_path / "mobilenet_v2.pth"), resume=False)
    kept = [k for k in theirs.state_dict() if not k.startswith(("classifier.", "features.18."))]
    count = sum("num_batches_tracked" not in name for name in kept)
    assert f"backbone.bottom_up {count} of {count}" in caplog.text
    image = torch.randn(2, 3, 65, 97)
    with torch.no_grad():
        features = student.backbone.bottom_up(image)
        expected = last_maps(theirs, image)
    assert list(features) == list(CHANNELS)
    for ours, other in zip(features.values(), expected, strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(64, 96), (65, 97), (1, 31)])
def test_channels_and_strides_are_what_output_shape_says(tmp_path, height, width):
    bottom_up = backbone(tmp_path).bottom_up
    shapes = bottom_up.output_shape()
    assert {name: shape.channels for name, shape in shapes.items()} == CHANNELS
    assert {name: shape.stride for name, shape in shapes.items()} == STRIDES
    with torch.no_grad():
        for name, level in bottom_up(torch.randn(2, 3, height, width)).items():
            cells = (-(-height // STRIDES[name]), -(-width // STRIDES[name]))
            assert level.shape == (2, CHANNELS[name], *cells)


def test_the_pyramid_is_that_of_detectron2s_r_cnn(tmp_path):
    pyramid = backbone(tmp_path)
    shapes = pyramid.output_shape()
    assert {name: shape.stride for name, shape in shapes.items()} == {
        "p2": 4, "p3": 8, "p4": 16, "p5": 32, "p6": 64
    }  # fmt: skip
    assert {shape.channels for shape in shapes.values()} == {16}
    assert pyramid.size_divisibility == 32
    with torch.no_grad():
        levels = pyramid(torch.randn(2, 3, 64, 96))
    assert {name: tuple(level.shape) for name, level in levels.items()} == {
        "p2": (2, 16, 16, 24), "p3": (2, 16, 8, 12), "p4": (2, 16, 4, 6), "p5": (2, 16, 2, 3),
        "p6": (2, 16, 1, 2),
    }  # fmt: skip


@pytest.mark.parametrize(("freeze_at", "blocks"), [(0, 0), (1, 1), (2, 4), (3, 7), (5, 18)])
def test_the_first_stages_are_frozen_and_no_others(tmp_path, freeze_at, blocks):
    features = backbone(tmp_path, "BN", freeze_at).bottom_up.features
    assert len(features) == 18
    for index, block in enumerate(features):
        norms = {type(m) for m in block.modules() if "BatchNorm" in type(m).__name__}
        assert norms == {FrozenBatchNorm2d if index < blocks else nn.BatchNorm2d}
        assert {p.requires_grad for p in block.parameters()} == {index >= blocks}


def test_frozen_batch_norms_stay_what_they_are_in_training(tmp_path):
    pyramid = backbone(tmp_path).train()
    before = {k: v.clone() for k, v in pyramid.named_buffers()}
    assert len(before) == 4 * (1 + 2 + 16 * 3)  # stem, first block, the other 16
    sum(level.sum() for level in pyramid(torch.randn(2, 3, 64, 96)).values()).backward()
    assert all(torch.equal(before[k], v) for k, v in pyramid.named_buffers())
    assert all(p.grad is not None for p in pyramid.parameters())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"norm": "GN"}, r"RESNETS.NORM must be FrozenBN, BN, SyncBN for MobileNetV2; got 'GN'"),
        ({"norm": ""}, r"RESNETS.NORM must be .*; got ''"),
        ({"freeze_at": 6}, r"BACKBONE.FREEZE_AT must be 0 to 5; got 6"),
        ({"freeze_at": -1}, r"BACKBONE.FREEZE_AT must be 0 to 5; got -1"),
        ({"PIXEL_MEAN": [1.0], "PIXEL_STD": [1.0]}, r"must have 3 numbers .*; got 1"),
    ],
)
def test_what_does_not_apply_is_refused(tmp_path, settings, words):
    with pytest.raises(ValueError, match=words):
        backbone(tmp_path, **settings)
