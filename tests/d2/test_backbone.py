import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone

from reviewkd_det.d2 import load_config
from tests.d2 import tiny


def backbone(folder, name, **resnet):
    resnets = {"DEPTH": 18, "RES2_OUT_CHANNELS": 64, "STEM_OUT_CHANNELS": 64, "NORM": "BN"}
    resnets |= {"OUT_FEATURES": ["res2", "res3", "res4", "res5"], **resnet}
    fpn = {"OUT_CHANNELS": 16, "IN_FEATURES": ["res2", "res3", "res4", "res5"]}
    model = {"BACKBONE": {"NAME": name, "FREEZE_AT": 2}, "RESNETS": resnets, "FPN": fpn}
    tiny.write(folder / "backbone.yaml", {"VERSION": 2, "MODEL": model})
    return build_backbone(load_config(folder / "backbone.yaml"))


@pytest.mark.parametrize("depth", [18, 34])
def test_at_64_channels_it_is_detectron2s_resnet(tmp_path, depth):
    stock = backbone(tmp_path, "build_resnet_fpn_backbone", DEPTH=depth).eval()
    ours = backbone(tmp_path, "build_basic_resnet_fpn_backbone", DEPTH=depth).eval()
    ours.load_state_dict(stock.state_dict(), strict=True)
    assert ours.output_shape() == stock.output_shape()
    image = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        expected = stock(image)
        for name, level in ours(image).items():
            torch.testing.assert_close(level, expected[name])
    frozen = {name for name, p in stock.named_parameters() if not p.requires_grad}
    assert frozen == {name for name, p in ours.named_parameters() if not p.requires_grad}


def test_other_widths_double_from_stage_to_stage(tmp_path):
    name = "build_basic_resnet_fpn_backbone"
    ours = backbone(tmp_path, name, RES2_OUT_CHANNELS=8, STEM_OUT_CHANNELS=6)
    shapes = ours.bottom_up.output_shape()
    assert [shapes[f"res{i}"].channels for i in (2, 3, 4, 5)] == [8, 16, 32, 64]
    assert ours.output_shape()["p3"] == ShapeSpec(channels=16, stride=8)


def test_bottlenecks_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"DEPTH must be 18 or 34 for basic blocks; got 50"):
        backbone(tmp_path, "build_basic_resnet_fpn_backbone", DEPTH=50)
