import pytest
import torch
import torchvision
from detectron2.modeling import build_backbone
from detectron2.utils.file_io import PathManager
from torch import nn

from reviewkd_det.d2 import load_config
from reviewkd_det.d2.runs.checkpointer import StudentCheckpointer
from reviewkd_det.d2.weights.torchvision import register_torchvision
from tests.d2 import tiny


@pytest.mark.parametrize("depth", [18, 50])
def test_a_torchvision_file_gives_the_same_features_in_detectron2(tmp_path, depth):
    torch.manual_seed(0)
    theirs = getattr(torchvision.models, f"resnet{depth}")().eval()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    torch.save(theirs.state_dict(), tmp_path / "resnet.pth")
    resnet = {"DEPTH": depth, "RES2_OUT_CHANNELS": 64 if depth == 18 else 256}
    resnet |= {"OUT_FEATURES": ["res2", "res3", "res4", "res5"], "STRIDE_IN_1X1": False}
    model = tiny.merged(tiny.R_CNN, {"RESNETS": resnet, "DEVICE": "cpu"})
    config = tiny.write(tmp_path / "student.yaml", {"VERSION": 2, "MODEL": model})
    student = nn.Module()
    student.backbone = build_backbone(load_config(config))
    checkpointer = StudentCheckpointer(student.eval(), key="MODEL.WEIGHTS")
    checkpointer.resume_or_load(str(tmp_path / "resnet.pth"), resume=False)
    image = torch.randn(1, 3, 64, 96)
    stem = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(image))))
    expected = theirs.layer2(theirs.layer1(stem))
    with torch.no_grad():
        features = student.backbone.bottom_up(image)
    torch.testing.assert_close(features["res3"], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        features["res5"], theirs.layer4(theirs.layer3(expected)), rtol=1e-4, atol=1e-5
    )


def test_the_name_resolves_to_torchs_own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    fetched = []
    monkeypatch.setattr(
        torch.hub, "load_state_dict_from_url", lambda url, **kwargs: fetched.append(url)
    )
    register_torchvision()
    path = PathManager.get_local_path("torchvision://ResNet18_Weights.IMAGENET1K_V1")
    (url,) = fetched
    assert path == str(tmp_path / "hub" / "checkpoints" / url.rpartition("/")[2])
    assert "resnet18" in path


def test_a_name_that_torchvision_does_not_know_is_refused():
    register_torchvision()
    words = "torchvision weights such as ResNet18_Weights.IMAGENET1K_V1; got 'resnet81'"
    with pytest.raises(FileNotFoundError, match=words):
        PathManager.get_local_path("torchvision://resnet81")
